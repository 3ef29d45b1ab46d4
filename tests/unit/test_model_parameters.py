"""The number of a model's parameters, as the servers report it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ctxbackends import ModelInfo
from ctxbackends._wire.operations import llamacpp, lmstudio
from ctxbackends._wire.operations.models import decode_models, parse_parameters
from tests.operations import json_response, play


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("7B", 7_000_000_000),
        ("7.6B", 7_600_000_000),
        ("134.52M", 134_520_000),
        ("500k", 500_000),
        ("13b", 13_000_000_000),
        ("1T", 1_000_000_000_000),
        ("8x7B", 56_000_000_000),
        ("30B-A3B", 30_000_000_000),
        ("", None),
        ("B", None),
        ("0B", None),
        ("large", None),
        ("7 billion", None),
        ("7Bit", None),
        (None, None),
        (7, None),
        (["7B"], None),
    ],
)
def test_sizes_in_texts(text: object, expected: int | None) -> None:
    assert expected == parse_parameters(text)


@pytest.mark.parametrize("meta", [{"n_params": "many"}, {"n_params": -1}, {"n_params": None}, {}, None, [7]])
def test_a_list_without_a_usable_size(meta: Any) -> None:
    assert (ModelInfo(id="m"),) == decode_models(json_response({"data": [{"id": "m", "meta": meta}]}))


def test_llama_server() -> None:
    rows = {"data": [{"id": "m", "meta": {"n_params": 134_515_008, "n_ctx": 8192}}]}
    _, status = play(
        llamacpp.status(None), json_response({}), json_response(rows), json_response({}), json_response([])
    )
    assert (134_515_008, 8192) == (status.parameters, status.context_length)


def test_a_router_of_llama_server() -> None:
    rows = [
        {"id": "a", "status": {"value": "loaded"}, "meta": {"n_params": 7_000_000_000}},
        {"id": "b", "status": {"value": "unloaded"}},
    ]
    sizes = [
        play(llamacpp.status(name), json_response({}), json_response({"data": rows}))[1].parameters for name in "ab"
    ]
    assert [7_000_000_000, None] == sizes


@pytest.mark.parametrize(
    ("model", "expected"),
    [(None, 270_000_000), ("small", 270_000_000), ("large", 20_000_000_000), ("untold", None), ("missing", None)],
)
def test_lm_studio(model: str | None, expected: int | None) -> None:
    rows: Sequence[dict[str, Any]] = [
        {"key": "untold", "params_string": None},
        {"key": "small", "params_string": "270M", "loaded_instances": [{"id": "small"}]},
        {"key": "large", "params_string": "20B"},
    ]
    _, status = play(lmstudio.status(model), json_response({"models": rows}))
    assert expected == status.parameters
    _, models = play(lmstudio.list_models(), json_response({"models": rows}))
    assert [None, 270_000_000, 20_000_000_000] == [info.parameters for info in models]
