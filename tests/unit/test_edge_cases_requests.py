"""Edge cases of requests: schemas, tools and reasoning that a server would misread."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import attrs
import msgspec
import pytest

from ctxbackends import BackendError, Message, UnsupportedOptionError, extract, open_backend, tool_of
from ctxbackends._chat.messages import ReasoningPart
from ctxbackends._chat.requests import ChatRequest
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._schema.generate import schema_for
from ctxbackends.testing._stand_ins.anthropic_stand_in import AnthropicStandIn
from ctxbackends.testing._stand_ins.ollama_stand_in import OllamaStandIn
from ctxbackends.testing._stand_ins.openai_stand_in import OpenAIStandIn

CLAUDE: dict[str, Any] = {"api_key": "k" * 12, "default_model": "claude-haiku-4-5"}


GPT: dict[str, Any] = {"api_key": "k" * 12, "default_model": "gpt-4.1-mini"}


def set_level(level: Annotated[int, msgspec.Meta(ge=0, le=10)]) -> None:
    """Set the level."""


async def test_anthropic_describes_bounds_of_arguments() -> None:
    async with AnthropicStandIn() as server, open_backend("anthropic", endpoint=server.url, **CLAUDE) as one:
        reply = await one.complete("Hi", tools=[set_level], tool_choice="required", max_tokens=64)
    assert "set_level" == reply.tool_calls[0].name
    level_schema = server.requests[-1].json["tools"][0]["input_schema"]["properties"]["level"]
    assert {"type": "integer", "description": "(minimum: 0, maximum: 10)"} == level_schema
    schema = tool_of(set_level).parameters["properties"]["level"]
    assert (0, 10) == (schema["minimum"], schema["maximum"])


@attrs.frozen
class Inner:
    a: int


@attrs.frozen
class Outer:
    inner: Annotated[Inner, msgspec.Meta(description="What is inside.")]
    others: list[Inner]


def test_reference_has_no_siblings_in_a_schema() -> None:
    schema = schema_for(Outer)
    assert {"$ref": "#/$defs/Inner"} == schema["properties"]["others"]["items"]
    inner = schema["properties"]["inner"]
    assert ("What is inside.", ["a"], False) == (inner["description"], inner["required"], inner["additionalProperties"])


async def test_openai_wraps_schemas_in_an_object() -> None:
    async with OpenAIStandIn(api_key="k" * 12) as server, open_backend("openai", endpoint=server.url, **GPT) as one:
        assert ["a", "b"] == await extract(one, list[str], '[[say]]{"value": ["a", "b"]}[[/say]]')
        with pytest.raises(BackendError) as exc_info:
            await extract(one, list[int], '[[say]]{"value": ["a"]}[[/say]]')
    assert "$[0]" == getattr(exc_info.value, "pointer", None)
    expected = server.requests[0].json["response_format"]["json_schema"]["schema"]
    assert {"type": "array", "items": {"type": "string"}} == expected["properties"]["value"]
    assert ["value"] == expected["required"]


@pytest.mark.parametrize("type_", ["vllm", "llamacpp", "ollama", "lmstudio", "openai"])
def test_encrypted_reasoning_is_not_sent_elsewhere(type_: str) -> None:
    history = (Message.user("Hi"), Message.assistant([ReasoningPart("", redacted="ENC"), "A"]), Message.user("So?"))
    with pytest.raises(UnsupportedOptionError, match="only the server that encrypted"):
        PROFILES[type_].codec().encode_chat(ChatRequest(messages=history, model="m"), stream=False)


async def test_tool_call_ids_are_unique_across_turns() -> None:
    """Also where Ollama gives none: their results would be mixed up."""
    call = '[[call]]{"name":"set_level","arguments":{"level":1}}[[/call]]'
    async with (
        OllamaStandIn() as server,
        open_backend("ollama", endpoint=server.url, default_model="qwen3:4b") as backend,
    ):
        ids = []
        for _ in range(2):
            reply = await backend.complete(call, tools=[set_level], max_tokens=64)
            ids.append(reply.tool_calls[0].id)
            await asyncio.sleep(0.002)
    assert 2 == len(set(ids))
