"""A request and a chunk through our model cost less CPU time than through pydantic-ai's own model for OpenAI."""

from __future__ import annotations

import pytest

pytest.importorskip("pydantic_ai", reason="needs the extra pydantic-ai: nox -s integrations")

from tests.benchmarks.adapters import compare


@pytest.mark.slow
def test_the_cost_of_a_request_and_of_a_chunk() -> None:
    ratios = compare("pydantic-ai")
    assert dict.fromkeys(ratios, True) == {name: ratio < 1 for name, ratio in ratios.items()}, ratios
