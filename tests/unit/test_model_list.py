"""Model lists as gateways send them, and servers without one that are ready all the same."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from ctxbackends import (
    AuthenticationError,
    BackendError,
    InternalServerError,
    MalformedResponseError,
    ModelInfo,
    RedirectError,
    open_backend,
)
from ctxbackends._wire.base import HTTPResponse
from ctxbackends._wire.operations.models import convert_rows, decode_models, parse_count
from tests.conftest import RawServerFactory, http_response, models_body


def decode(value: object) -> tuple[ModelInfo, ...]:
    return decode_models(HTTPResponse(status=200, headers={}, body=json.dumps(value).encode()))


@pytest.mark.parametrize(
    "row",
    [
        {"id": "m", "status": "succeeded"},
        {"id": "m", "status": 5, "meta": [], "aliases": "m2", "owned_by": {}, "max_model_len": "many"},
        {"id": "m", "status": {"value": 5, "failed": "no"}, "meta": {"n_ctx": []}, "root": 5},
        {"id": "m", "aliases": [None, 5], "context_length": -1, "context_window": 0, "max_model_len": True},
    ],
)
def test_a_member_of_another_type_counts_as_missing(row: dict[str, Any]) -> None:
    assert (ModelInfo(id="m"), ModelInfo(id="n")) == decode({"data": [row, {"id": "n"}]})


@pytest.mark.parametrize("odd", [None, 5, "m", [], {}, {"id": None}, {"id": ""}, {"id": 5}, {"id": ["m"]}])
def test_a_row_without_a_name_is_left_out(odd: object) -> None:
    assert (ModelInfo(id="m"),) == decode({"data": [odd, {"id": "m"}, odd]})
    with pytest.raises(MalformedResponseError, match="no model has an id"):
        decode({"data": [odd]})


def test_a_bare_array() -> None:
    assert (ModelInfo(id="a", context_length=8), ModelInfo(id="b")) == decode(
        [{"id": "a", "context_length": 8}, {"id": "b"}]
    )


@pytest.mark.parametrize(
    "member", ["max_model_len", "context_length", "context_window", "max_context_length", "max_input_tokens"]
)
def test_members_that_mean_the_context(member: str) -> None:
    assert (ModelInfo(id="m", context_length=4096),) == decode({"data": [{"id": "m", member: 4096}]})


@pytest.mark.parametrize(
    ("value", "count"),
    [
        (8192, 8192),
        ("8192", 8192),
        (8192.0, 8192),
        (8192.5, None),
        (0, None),
        (-1, None),
        (True, None),
        (None, None),
        ("", None),
        ("8k", None),
        ("\u0663", None),
        ("9" * 5000, None),
    ],
)
def test_counts(value: object, count: int | None) -> None:
    assert count == parse_count(value)


def test_an_empty_error_beside_the_list_is_none() -> None:
    assert (ModelInfo(id="m"),) == decode({"data": [{"id": "m"}], "error": {}})


def test_names_with_one_root_are_names_of_one_model() -> None:
    rows = [{"id": name, "root": "/models/q"} for name in ("a", "b", "a")] + [{"id": "c", "root": "/models/c"}]
    expected = [("a", ("b",)), ("b", ("a",)), ("a", ("b",)), ("c", ())]
    assert expected == [(model.id, model.aliases) for model in decode({"data": rows})]


class Row(msgspec.Struct):
    name: str
    size: int | None = None
    parts: list[str] | None = None


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([{"name": "a", "size": 5, "more": []}], [Row("a", 5)]),
        ([{"name": "a", "size": "5", "parts": [5]}], [Row("a")]),
        ([{"name": 5}, None, 5, [], {}, {"name": "a"}], [Row("a")]),
        (None, []),
        ({"name": "a"}, []),
    ],
)
def test_rows_of_other_lists(rows: object, expected: list[Row]) -> None:
    assert expected == convert_rows(rows, Row)


@pytest.mark.parametrize(
    ("type_", "rows"),
    [
        ("ollama", [{"name": "m", "context_length": "many"}, {"name": None}, 5]),
        ("lmstudio", [{"key": "m", "max_context_length": [], "loaded_instances": None}, {"key": None}, 5]),
    ],
)
async def test_odd_rows_of_the_servers_own_lists(type_: str, rows: list[Any], raw_server: RawServerFactory) -> None:
    body = json.dumps({"models": rows}).encode()
    server = await raw_server([[http_response(200, body)]], [[http_response(200, b'{"models":[null]}')]])
    async with open_backend(type_, endpoint=server.url) as backend:
        assert [("m", "unloaded")] == [(model.id, model.state) for model in await backend.models()]
    only_odd = await raw_server([[http_response(200, b'{"models":[5]}')]])
    async with open_backend(type_, endpoint=only_odd.url) as backend:
        with pytest.raises(MalformedResponseError, match="no model has a"):
            await backend.models()


# --- readiness ------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["openai-compatible", "openai", "anthropic", "llamacpp", "lmstudio"])
@pytest.mark.parametrize("status", [400, 403, 404, 405, 410, 429, 501])
async def test_a_server_without_a_list_is_ready(type_: str, status: int, raw_server: RawServerFactory) -> None:
    server = await raw_server(*[[[http_response(status, b'{"error":{"message":"no"}}', Retry_After="0")]]] * 5)
    async with open_backend(type_, endpoint=server.url, default_model="m", api_key_env="") as backend:
        await backend.wait_ready()


@pytest.mark.parametrize("body", [b"<html>hello</html>", b'{"data":null}', b'{"data":[{"id":null}]}', b'{"data":[]}'])
async def test_a_page_for_a_list_is_a_response(body: bytes, raw_server: RawServerFactory) -> None:
    server = await raw_server([[http_response(200, body)]])
    async with open_backend("openai-compatible", endpoint=server.url, default_model="m") as backend:
        await backend.wait_ready()


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (401, b'{"error":"Unauthorized"}', AuthenticationError),
        (500, b'{"error":{"message":"no"}}', InternalServerError),
        (502, b"<html>", InternalServerError),
        (307, b"", RedirectError),
    ],
)
async def test_other_responses_are_errors(
    status: int, body: bytes, kind: type[BackendError], raw_server: RawServerFactory
) -> None:
    server = await raw_server([[http_response(status, body)]])
    async with open_backend("openai-compatible", endpoint=server.url, default_model="m") as backend:
        with pytest.raises(kind):
            await backend.wait_ready()


async def test_no_http_is_not_ready(raw_server: RawServerFactory) -> None:
    server = await raw_server([[b"SSH-2.0-server\r\n\r\n"]])
    async with open_backend("openai-compatible", endpoint=server.url, default_model="m") as backend:
        with pytest.raises(MalformedResponseError):
            await backend.wait_ready()


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (400, b"{}"),
        (401, b'{"error":"Unauthorized"}'),
        (404, b'{"detail":"Not Found"}'),
        (405, b'{"detail":"Method Not Allowed"}'),
        (502, b"<html>"),
        (503, b""),
        (200, b"<html>"),
        (200, b'{"is_sleeping":"no"}'),
        (200, b'{"error":{"message":"no such route"}}'),
    ],
)
async def test_any_response_for_is_sleeping_means_ready(status: int, body: bytes, raw_server: RawServerFactory) -> None:
    server = await raw_server([[http_response(200, models_body("m"))]], [[http_response(status, body)]])
    async with open_backend("vllm", endpoint=server.url, default_model="m") as backend:
        await backend.wait_ready()
