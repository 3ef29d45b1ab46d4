"""`count_tokens()` counts a response format where the server reads it with the prompt."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ctxbackends import JSONObjectFormat, JSONSchemaFormat, UnsupportedOptionError, open_backend
from ctxbackends._client.prompts import build_chat_request
from ctxbackends._profiles.builtin import SERVERS
from tests.conftest import RawServerFactory, http_response

SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"a": {"type": "string"}},
    "required": ["a"],
    "additionalProperties": False,
}
COUNTED = {"vllm": {"count": 7}}


async def count(raw_server: RawServerFactory, type_: str, response_format: Any, **settings: Any) -> dict[str, Any]:
    """The body of the request that counts."""
    server = await raw_server([[http_response(200, json.dumps(COUNTED.get(type_, {"input_tokens": 7})).encode())]])
    async with open_backend(type_, endpoint=server.url, api_key="test-key", default_model="m", **settings) as backend:
        assert 7 == await backend.count_tokens("Hi", response_format=response_format)
    body: dict[str, Any] = json.loads(server.requests[-1].body)
    return body


FORMAT = JSONSchemaFormat("thing", SCHEMA)


async def test_anthropic(raw_server: RawServerFactory) -> None:
    body = await count(raw_server, "anthropic", FORMAT)
    assert {"format": {"type": "json_schema", "schema": SCHEMA}} == body["output_config"]


async def test_openai(raw_server: RawServerFactory) -> None:
    body = await count(
        raw_server, "openai", {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA}}
    )
    assert {"format": {"type": "json_schema", "name": "thing", "schema": SCHEMA, "strict": True}} == body["text"]
    body = await count(raw_server, "openai", JSONObjectFormat())
    assert {"format": {"type": "json_object"}} == body["text"]


async def test_llamacpp(raw_server: RawServerFactory) -> None:
    body = await count(raw_server, "llamacpp", FORMAT)
    assert {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA}} == body["response_format"]


async def test_a_grammar_is_no_part_of_the_prompt(raw_server: RawServerFactory) -> None:
    assert await count(raw_server, "vllm", None) == await count(raw_server, "vllm", FORMAT)


@pytest.mark.parametrize("type_", ["vllm", "llamacpp"])
async def test_a_schema_in_the_prompt_is_counted(raw_server: RawServerFactory, type_: str) -> None:
    body = await count(raw_server, type_, FORMAT, json_mode=True)
    assert json.dumps(SCHEMA, separators=(",", ":")) in body["messages"][0]["content"]
    assert "response_format" not in body


async def test_a_format_that_is_not_supported() -> None:
    async with open_backend("anthropic", api_key="test-key", default_model="m") as backend:
        with pytest.raises(UnsupportedOptionError):
            await backend.count_tokens("Hi", response_format={"type": "json_object"})


@pytest.mark.parametrize("type_", [type_ for type_, profile in SERVERS.items() if profile.count_tokens is not None])
def test_the_request_for_the_answer_takes_the_same_format(type_: str) -> None:
    request = build_chat_request("Hi", "m", {"response_format": FORMAT})
    assert SERVERS[type_].codec().encode_chat(request, stream=False).body is not None
