"""A request and a chunk through our model cost less CPU time than through LangChain's own model for OpenAI."""

from __future__ import annotations

import pytest

pytest.importorskip("langchain_openai", reason="needs langchain-openai: nox -s integrations")

from tests.benchmarks.adapters import compare


@pytest.mark.slow
def test_the_cost_of_a_request_and_of_a_chunk() -> None:
    ratios = compare("langchain")
    assert dict.fromkeys(ratios, True) == {name: ratio < 1 for name, ratio in ratios.items()}, ratios
