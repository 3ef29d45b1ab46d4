"""The program that measures extraction, with a model file that it serves."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.quality.__main__ import build_parser, measure

pytestmark = pytest.mark.real


async def test_a_model_file_is_served_and_measured(
    tiny_model: Callable[[str], Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The model is tiny and random, so nothing that it writes is in the source."""
    file = tmp_path / "figures.json"
    model = tiny_model("tiny")
    words = ["--model-path", str(model), "--threads", "1", "--ctx-size", "8192", "--cases", "pharmacy"]
    assert 0 == await measure(build_parser().parse_args([*words, "--kinds", "tasks", "--json", str(file)]))
    figures = json.loads(file.read_text(encoding="utf-8"))
    total = figures["scores"]["total"]
    assert (1, 0, 0, 0.0) == (total["labels"], total["rows"], total["failed"], total["recall"])
    cost = total["cost"]
    assert cost["requests"] >= 1
    assert min(cost["input_tokens"], cost["output_tokens"], cost["seconds"]) > 0
    assert (model.stem, "llamacpp", 8192) == tuple(
        figures["run"][key] for key in ("model", "backend_type", "context_length")
    )
    assert "| total" in capsys.readouterr().out
