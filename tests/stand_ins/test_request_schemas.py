"""The encoded requests match the types that the vendors publish, for every supported option and message."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, get_type_hints

import ollama._types
import pytest
from anthropic.types import ContentBlockParam, MessageParam, ToolUnionParam
from anthropic.types.message_count_tokens_params import MessageCountTokensParams
from anthropic.types.message_create_params import MessageCreateParamsNonStreaming, MessageCreateParamsStreaming
from openai.types.chat import ChatCompletionContentPartParam, ChatCompletionMessageParam, ChatCompletionToolUnionParam
from openai.types.chat.completion_create_params import (
    CompletionCreateParamsNonStreaming,
    CompletionCreateParamsStreaming,
)
from openai.types.embedding_create_params import EmbeddingCreateParams
from openai.types.responses.input_token_count_params import InputTokenCountParams
from pydantic import TypeAdapter

from ctxbackends._chat.requests import ChatRequest
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._profiles.option_support import ANTHROPIC_MESSAGES, OPENAI_CHAT
from ctxbackends._wire.base import WireSettings
from ctxbackends._wire.operations import anthropic as anthropic_server
from ctxbackends._wire.operations import openai as openai_server
from ctxbackends._wire.options import OPTION_KEYS, OptionTable, Unsupported
from tests.unit.test_option_tables import EXAMPLES, QUESTION

pytestmark = pytest.mark.full

CASES = [*((cell, EXAMPLES[cell]) for cell in OPTION_KEYS if cell != "extra_body"), ("nothing", {})]
"""``extra_body`` is what the types do not know."""


def check_type(kind: Any, value: Any, *, besides: Collection[str] = ()) -> None:
    """``value`` is a ``kind``, and has no member that ``kind`` does not name, but for those ``besides``.

    pydantic does not look at the items of an Iterable, so they are held one by one.
    """
    TypeAdapter(kind).validate_python(value)
    assert set() == set(value) - set(get_type_hints(kind)) - set(besides)
    message, part, tool = ITEMS.get(kind, (None, None, None))
    for item in value.get("messages", ()) if message is not None else ():
        TypeAdapter(message).validate_python(item)
        for block in item["content"] if isinstance(item.get("content"), list) else ():
            TypeAdapter(part).validate_python(block)
    for item in value.get("tools", ()) if tool is not None else ():
        TypeAdapter(tool).validate_python(item)


_OPENAI = (ChatCompletionMessageParam, ChatCompletionContentPartParam, ChatCompletionToolUnionParam)
_ANTHROPIC = (MessageParam, ContentBlockParam, ToolUnionParam)
ITEMS: Mapping[Any, tuple[Any, Any, Any]] = {
    CompletionCreateParamsNonStreaming: _OPENAI,
    CompletionCreateParamsStreaming: _OPENAI,
    MessageCreateParamsNonStreaming: _ANTHROPIC,
    MessageCreateParamsStreaming: _ANTHROPIC,
    MessageCountTokensParams: _ANTHROPIC,
}


def supported_examples(table: OptionTable) -> list[Any]:
    """The examples that ``table`` does not refuse."""
    return [pytest.param(options, id=cell) for cell, options in CASES if not isinstance(table.get(cell), Unsupported)]


def request(options: Mapping[str, Any]) -> ChatRequest:
    return ChatRequest(**{"messages": (QUESTION,), "model": "m", **options})


@pytest.mark.parametrize("options", supported_examples(OPENAI_CHAT))
@pytest.mark.parametrize("stream", [False, True])
def test_openai(options: Mapping[str, Any], stream: bool) -> None:
    encoded_request = PROFILES["openai"].codec().encode_chat(request(options), stream=stream)
    kind = CompletionCreateParamsStreaming if stream else CompletionCreateParamsNonStreaming
    check_type(kind, json.loads(encoded_request.body or b""))


SAMPLING = ("temperature", "top_p", "top_k")
"""The client's types follow version 2026-10-21 of the API, which has no sampling; the SDK sends 2023-06-01."""


@pytest.mark.parametrize("options", supported_examples(ANTHROPIC_MESSAGES))
@pytest.mark.parametrize("stream", [False, True])
def test_anthropic(options: Mapping[str, Any], stream: bool) -> None:
    encoded_request = PROFILES["anthropic"].codec().encode_chat(request(options), stream=stream)
    kind = MessageCreateParamsStreaming if stream else MessageCreateParamsNonStreaming
    check_type(kind, json.loads(encoded_request.body or b""), besides=SAMPLING)


@pytest.mark.parametrize("options", supported_examples(PROFILES["ollama"].wire_apis["ollama"]))
@pytest.mark.parametrize("stream", [False, True])
def test_ollama(options: Mapping[str, Any], stream: bool) -> None:
    settings = WireSettings(context_length=2048, keep_alive=300)
    encoded_request = PROFILES["ollama"].codec(settings=settings).encode_chat(request(options), stream=stream)
    body = json.loads(encoded_request.body or b"")
    fields = {name for name in body if name in ollama._types.ChatRequest.model_fields}
    assert {"truncate", "shift"} == set(body) - fields  # the server takes them; the client has no argument for them
    ollama._types.ChatRequest.model_validate({name: body[name] for name in fields})
    option_fields = set(ollama._types.Options.model_fields) | {"min_p"}  # as above
    assert set() == set(body.get("options", {})) - option_fields


COUNT_KEYS = ("tools", "message: image data", "message: tool call", "message: tool result")


@pytest.mark.parametrize("cell", COUNT_KEYS)
def test_counters(cell: str) -> None:
    count_request = next(openai_server.count_tokens(request(EXAMPLES[cell]), OPENAI_CHAT))
    check_type(InputTokenCountParams, json.loads(count_request.body or b""))
    count_request = next(anthropic_server.count_tokens(request(EXAMPLES[cell]), ANTHROPIC_MESSAGES))
    check_type(MessageCountTokensParams, json.loads(count_request.body or b""))


@pytest.mark.parametrize("encoding", ["float", "base64"])
def test_embeddings(encoding: Any) -> None:
    steps = openai_server.embed(["a", "b"], model="m", dimensions=8, encoding=encoding, settings=WireSettings())
    check_type(EmbeddingCreateParams, json.loads(next(steps).body or b""))


def test_invalid_bodies_fail_the_check() -> None:
    """The types can fail."""
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
    check_type(CompletionCreateParamsNonStreaming, body)
    for wrong in ({"temperature": "hot"}, {"max_tokenz": 1}, {"messages": [{"role": "nobody"}]}):
        with pytest.raises((ValueError, AssertionError)):
            check_type(CompletionCreateParamsNonStreaming, {**body, **wrong})
