"""The OpenAI format: encoded options, and decoded responses, plain and streamed."""

from __future__ import annotations

import base64
import json
import math
import struct
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ctxbackends._chat.events import Finish, ReasoningDelta, RefusalDelta, StreamEvent, TextDelta, ToolCallDelta
from ctxbackends._chat.messages import Message, ReasoningPart, TextPart, ToolCall
from ctxbackends._chat.requests import ChatRequest, JSONObjectFormat, JSONSchemaFormat
from ctxbackends._chat.responses import Completion, Embeddings, Usage
from ctxbackends._chat.servers import ModelInfo
from ctxbackends._profiles.option_support import LLAMACPP_CHAT, OPENAI_CHAT, OPENAI_COMPATIBLE_CHAT
from ctxbackends._wire.accumulator import Accumulator
from ctxbackends._wire.base import MAX_BODY_BYTES, HTTPRequest, HTTPResponse, WireSettings
from ctxbackends._wire.formats.openai_chat import OpenAIChatCodec
from ctxbackends._wire.formats.openai_stream import OpenAIStreamDecoder
from ctxbackends._wire.operations.models import decode_models
from ctxbackends._wire.operations.openai import embed, list_models
from ctxbackends.errors import (
    BackendError,
    EmptyChoicesError,
    EmptyModelListError,
    MalformedResponseError,
    ResponseError,
    ResponseTooLargeError,
    StreamInterruptedError,
    UnsupportedOptionError,
)
from tests.operations import json_response, play
from tests.splitting import split_at, split_bytes

RECORDINGS = Path(__file__).parent / "recordings"
CODEC = OpenAIChatCodec(table=OPENAI_COMPATIBLE_CHAT)


def recording(name: str) -> bytes:
    return (RECORDINGS / name).read_bytes()


def ok(body: bytes) -> HTTPResponse:
    return HTTPResponse(status=200, headers={}, body=body)


def dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


# --- encode: chat -----------------------------------------------------------------------------------

HI = (Message.user("Hi"),)
MINIMAL: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}]}
SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "integer"}},
    "required": ["a"],
    "additionalProperties": False,
}


def encode(codec: OpenAIChatCodec = CODEC, *, stream: bool = False, **options: Any) -> Any:
    request = codec.encode_chat(ChatRequest(**{"messages": HI, "model": "m", **options}), stream=stream)
    assert request.body is not None
    return json.loads(request.body)


def test_a_request_is_a_post_without_headers() -> None:
    request = CODEC.encode_chat(ChatRequest(messages=HI, model="m"), stream=False)
    body = b'{"model":"m","messages":[{"role":"user","content":"Hi"}]}'
    assert HTTPRequest("POST", "/v1/chat/completions", body, {}) == request


@pytest.mark.parametrize(
    ("options", "more"),
    [
        pytest.param({}, {}, id="what is unset is not sent"),
        pytest.param({"max_tokens": 7}, {"max_tokens": 7}, id="max_tokens"),
        pytest.param({"frequency_penalty": 0.0}, {"frequency_penalty": 0.0}, id="0 is not unset"),
        pytest.param({"logprobs": False}, {"logprobs": False}, id="False is not unset"),
        pytest.param({"temperature": 0.5}, {"temperature": 0.5}, id="temperature"),
        pytest.param({"temperature": 0.0}, {"temperature": 0.0}, id="temperature 0"),
        pytest.param({"top_p": 0.9}, {"top_p": 0.9}, id="top_p"),
        pytest.param({"seed": 0}, {"seed": 0}, id="seed"),
        pytest.param({"stop_sequences": ("a", "b")}, {"stop": ["a", "b"]}, id="stop_sequences"),
        pytest.param({"stop_sequences": ()}, {}, id="no stop_sequences"),
        pytest.param(
            {"response_format": JSONObjectFormat()}, {"response_format": {"type": "json_object"}}, id="any JSON object"
        ),
        pytest.param(
            {"response_format": JSONSchemaFormat("thing", SCHEMA)},
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "thing", "schema": SCHEMA, "strict": True},
                }
            },
            id="a schema, in the nested form",
        ),
        pytest.param({"extra_body": {"top_k": 5, "tools": []}}, {"top_k": 5, "tools": []}, id="extra_body"),
        pytest.param({"extra_body": {}}, {}, id="an empty extra_body"),
        pytest.param({"extra_body": {"max_tokens": 5}}, {"max_tokens": 5}, id="an option by extra_body alone"),
    ],
)
def test_options_are_encoded(options: Mapping[str, Any], more: Mapping[str, Any]) -> None:
    assert {**MINIMAL, **more} == encode(**options)


def test_a_stream_is_requested_with_its_usage() -> None:
    assert {**MINIMAL, "stream": True, "stream_options": {"include_usage": True}} == encode(stream=True)


def test_max_tokens_has_the_servers_name() -> None:
    codec = OpenAIChatCodec(table=OPENAI_CHAT)
    assert {**MINIMAL, "max_completion_tokens": 7} == encode(codec, max_tokens=7)
    assert {**MINIMAL, "max_tokens": 7} == encode(codec, extra_body={"max_tokens": 7})


def test_any_json_object_is_requested_by_a_schema_if_required() -> None:
    codec = OpenAIChatCodec(table=LLAMACPP_CHAT)
    format_body = {"name": "object", "schema": {"type": "object"}, "strict": True}
    assert {"type": "json_schema", "json_schema": format_body} == encode(codec, response_format=JSONObjectFormat())[
        "response_format"
    ]
    json_schema = encode(codec, response_format=JSONSchemaFormat("thing", SCHEMA))["response_format"]["json_schema"]
    assert {"name": "thing", "schema": SCHEMA, "strict": True} == json_schema


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        pytest.param(Message.system("S"), {"role": "system", "content": "S"}, id="system"),
        pytest.param(Message.user("漢 🎉"), {"role": "user", "content": "漢 🎉"}, id="user"),
        pytest.param(Message.assistant("A"), {"role": "assistant", "content": "A"}, id="assistant"),
        pytest.param(
            Message.assistant("", tool_calls=[ToolCall("c1", "add", '{"a":1}')]),
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "add", "arguments": '{"a":1}'}}],
            },
            id="assistant that calls a tool",
        ),
        pytest.param(
            Message.tool("3", tool_call_id="c1"), {"role": "tool", "content": "3", "tool_call_id": "c1"}, id="tool"
        ),
    ],
)
def test_messages_are_encoded(message: Message, wire: Mapping[str, Any]) -> None:
    assert [{"role": "user", "content": "Hi"}, wire] == encode(messages=(*HI, message))["messages"]


@pytest.mark.parametrize(
    ("name", "options", "reason"),
    [
        ("model", {}, "pass model="),
        ("messages", {}, "pass the messages"),
        ("stream", {}, "call stream()"),
        ("stream_options", {}, "usage is always asked for"),
        ("n", {}, "one choice is read; ask several times"),
        ("max_tokens", {"max_tokens": 1}, "max_tokens is already set by an option"),
        ("stop", {"stop_sequences": ("a",)}, "stop is already set by an option"),
        ("response_format", {"response_format": JSONObjectFormat()}, "response_format is already set by an option"),
    ],
)
def test_extra_body_does_not_override(name: str, options: Mapping[str, Any], reason: str) -> None:
    with pytest.raises(UnsupportedOptionError) as exc_info:
        encode(**options, extra_body={"top_k": 5, name: None})
    assert f"extra_body: {name}: {reason}" == str(exc_info.value)
    assert f"extra_body: {name}" == exc_info.value.option


def test_encoding_does_not_change_the_request() -> None:
    extra = {"top_k": 5}
    request = ChatRequest(messages=HI, model="m", extra_body=extra, response_format=JSONSchemaFormat("s", SCHEMA))
    before = (dict(extra), json.dumps(SCHEMA))
    assert CODEC.encode_chat(request, stream=True) == CODEC.encode_chat(request, stream=True)
    assert before == (extra, json.dumps(SCHEMA))


def test_the_key_is_sent_in_one_header() -> None:
    assert {"Authorization": "Bearer k"} == CODEC.auth_headers("k")


# --- decode: chat -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "completion"),
    [
        pytest.param(
            "llama-b11549-chat.json",
            Completion(
                text='} par" called" lon" co num par" th',
                finish_reason="length",
                usage=Usage(34, 12, 0, prompt_seconds=1.546 / 1000, generation_seconds=1.77 / 1000),
                requested_model="asked",
                served_model="/models/tiny.gguf",
                response_id="chatcmpl-f8LUbtpSJpH6xneMW3ZMtYiLbjvNZ3jY",
            ),
            id="llama-server: cached tokens are told",
        ),
        pytest.param(
            "llama-b8672-tools.json",
            Completion(
                text="",
                finish_reason="tool_calls",
                usage=Usage(314, 73, 0, prompt_seconds=3.96 / 1000, generation_seconds=20.888 / 1000),
                requested_model="asked",
                served_model="tiny.gguf",
                tool_calls=(ToolCall("tUZhGMo9An31UaJjqh7g8WZZcZUrPtKr", "get_weather", '{"city":"paris"}'),),
                response_id="chatcmpl-hQb4DNEbbd81BYqFj4rs9TUgvFrBdYFX",
            ),
            id="llama-server: tool call",
        ),
        pytest.param(
            "vllm-0.32.0-chat.json",
            Completion(
                text="\n\n\n\n\n\n\n\n",
                finish_reason="length",
                usage=Usage(16, 8, None),
                requested_model="asked",
                served_model="tiny",
                response_id="chatcmpl-9227093c28ff1c06",
            ),
            id="vLLM: cached tokens are not told",
        ),
        pytest.param(
            "vllm-0.32.0-chat-stop.json",
            Completion(
                text="t",
                finish_reason="stop",
                usage=Usage(16, 1, None),
                requested_model="asked",
                served_model="tiny",
                stop_sequence="e",
                response_id="chatcmpl-aef4938a4b6ec1d1",
            ),
            id="vLLM: stop sequence",
        ),
        pytest.param(
            "vllm-0.32.0-chat-n2.json",
            Completion(
                text="SSdataan",
                finish_reason="length",
                usage=Usage(16, 6, None),
                requested_model="asked",
                served_model="tiny",
                response_id="chatcmpl-89aaee9fa9dabb64",
            ),
            id="vLLM: the first of two choices",
        ),
        pytest.param(
            "vllm-0.32.0-reasoning.json",
            Completion(
                text="",
                finish_reason="stop",
                usage=Usage(53, 29, None, reasoning_tokens=28),
                requested_model="asked",
                served_model="tiny",
                reasoning="Hello, world! Ünïcode 漢字 🎉.",
                response_id="chatcmpl-b9617a27d870fbc0",
            ),
            id="vLLM: reasoning, content is null",
        ),
        pytest.param(
            "vllm-0.32.0-tools.json",
            Completion(
                text="",
                finish_reason="tool_calls",
                usage=Usage(170, 86, None),
                requested_model="asked",
                served_model="tiny",
                tool_calls=(ToolCall("chatcmpl-tool-ba74d38613cbb7bd", "get_weather", '{"city": "Paris"}'),),
                response_id="chatcmpl-951d2d1fea332bf6",
            ),
            id="vLLM: tool call",
        ),
    ],
)
def test_recorded_completions_are_decoded(name: str, completion: Completion) -> None:
    body = recording(name)
    actual = CODEC.decode_chat(ok(body), requested_model="asked")
    assert completion == msgspec.structs.replace(actual, parts=())
    assert in_order(actual, "reasoning") == actual.parts
    assert body == actual.raw


def in_order(completion: Completion, member: str | None = None) -> tuple[object, ...]:
    """A plain answer tells no order: reasoning, text and calls come as the API writes them."""
    reasoning = (ReasoningPart(completion.reasoning, member=member),) if completion.reasoning else ()
    text = (TextPart(completion.text),) if completion.text else ()
    return (*reasoning, *text, *completion.tool_calls)


def decode_message(
    message: Mapping[str, Any] | None = None, *, reason: object = "stop", usage: object = None, **more: object
) -> Completion:
    choice = {"index": 0, "message": {"role": "assistant", **(message or {})}, "finish_reason": reason}
    return CODEC.decode_chat(ok(dump({"choices": [choice], "usage": usage, **more})), requested_model="asked")


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        pytest.param({"content": "a\u2028b 🎉"}, {"text": "a\u2028b 🎉"}, id="text"),
        pytest.param({"content": None}, {"text": ""}, id="no content"),
        pytest.param({"content": "a", "reasoning": "r"}, {"text": "a", "reasoning": "r"}, id="reasoning"),
        pytest.param({"reasoning_content": "r"}, {"text": "", "reasoning": "r"}, id="reasoning_content"),
        pytest.param(
            {"reasoning": "r", "reasoning_content": "r"}, {"text": "", "reasoning": "r"}, id="both spellings are one"
        ),
        pytest.param({"content": None, "refusal": "no"}, {"text": "", "refusal": "no"}, id="refusal"),
        pytest.param(
            {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": {"a": [1, "x"]}}}]},
            {"text": "", "finish_reason": "tool_calls", "tool_calls": (ToolCall("1", "f", '{"a":[1,"x"]}'),)},
            id="arguments as an object",
        ),
        pytest.param(
            {"tool_calls": [{"id": "1", "function": {"name": "f", "arguments": '{"a":'}}, {}]},
            {
                "text": "",
                "finish_reason": "tool_calls",  # though the server says stop
                "tool_calls": (ToolCall("1", "f", '{"a":'),),
            },
            id="arguments that are no JSON; an entry without members",
        ),
        pytest.param({"tool_calls": None}, {"text": ""}, id="tool_calls null"),
    ],
)
def test_a_message_is_decoded(message: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    completion = decode_message(message)
    expected = Completion(**{"finish_reason": "stop", "requested_model": "asked", **fields})
    assert expected == msgspec.structs.replace(completion, parts=())
    member = next((name for name in ("reasoning", "reasoning_content") if message.get(name)), None)
    assert in_order(completion, member) == completion.parts


@pytest.mark.parametrize(
    ("wire", "usage"),
    [
        (None, None),
        ({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7}, Usage(5, 2)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": None}, Usage(5, 2)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {}}, Usage(5, 2)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 4}}, Usage(5, 2, 4)),
        ({"prompt_tokens": 5, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 0}}, Usage(5, 2, 0)),
    ],
)
def test_usage_is_decoded(wire: object, usage: Usage | None) -> None:
    assert usage == decode_message(usage=wire).usage


REASONS = [
    ("stop", "stop"),
    ("length", "length"),
    ("tool_calls", "tool_calls"),
    ("content_filter", "content_filter"),
    ("eos_token", "stop"),  # Text Generation Inference
    ("stop_sequence", "stop"),  # Text Generation Inference
    ("eos", "stop"),
    ("end_turn", "stop"),
    ("STOP", "stop"),
    ("COMPLETE", "stop"),
    ("max_tokens", "length"),
    ("MAX_TOKENS", "length"),
    ("model_length", "length"),
    ("tool_use", "tool_calls"),
    ("function_call", "tool_calls"),
    ("SAFETY", "content_filter"),
    ("refusal", "content_filter"),
]
NO_REASONS = ["abort", "error", "", "MALFORMED_FUNCTION_CALL", None]


@pytest.mark.parametrize(("wire", "reason"), REASONS)
def test_finish_reasons_are_decoded(wire: str, reason: str) -> None:
    completion = decode_message({"content": "a"}, reason=wire)
    assert (reason, wire) == (completion.finish_reason, completion.raw_finish_reason)


@pytest.mark.parametrize("wire", NO_REASONS)
def test_an_incomplete_response_is_an_error(wire: str | None) -> None:
    with pytest.raises(StreamInterruptedError) as exc_info:
        decode_message({"content": "a"}, reason=wire)
    hint = "" if wire else "; if this server never sends one, set allow_missing_finish_reason: true for the backend"
    assert f"incomplete response: finish_reason is {wire!r}{hint}" == str(exc_info.value)
    assert b'"content": "a"' in exc_info.value.body


def test_model_and_id_may_be_missing() -> None:
    assert (None, None) == (decode_message().served_model, decode_message().response_id)
    assert (None, "i") == (decode_message(model="", id="i").served_model, decode_message(model="", id="i").response_id)


def test_a_choice_without_a_message_is_an_empty_one() -> None:
    body = b'{"choices":[{"finish_reason":"stop"}]}'
    assert Completion(text="", finish_reason="stop", requested_model="m") == CODEC.decode_chat(
        ok(body), requested_model="m"
    )


def test_choices_may_come_in_any_order() -> None:
    choices = [{"index": index, "message": {"content": str(index)}, "finish_reason": "stop"} for index in (1, 0)]
    assert "0" == CODEC.decode_chat(ok(dump({"choices": choices})), requested_model="m").text


@pytest.mark.parametrize(
    "body", [b"{}", b'{"choices":[]}', b'{"choices":null}', b'{"choices":[{"index":1,"finish_reason":"stop"}]}']
)
def test_no_choice_is_an_error(body: bytes) -> None:
    with pytest.raises(EmptyChoicesError, match=r"^no choices in the response$") as exc_info:
        CODEC.decode_chat(ok(body), requested_model="m")
    assert body == exc_info.value.body


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error":{"message":"boom","code":500}}', "boom"),
        (b'{"error":"boom"}', "boom"),
        (b'{"error":{"code":5}}', '{"error":{"code":5}}'),
        (b'{"error":{"code":5},"choices":[{"message":{"content":"a"},"finish_reason":"stop"}]}', '{"error":{"code"'),
    ],
)
def test_an_error_under_a_good_status_is_an_error(body: bytes, message: str) -> None:
    with pytest.raises(ResponseError) as exc_info:
        CODEC.decode_chat(ok(body), requested_model="m")
    assert type(exc_info.value) is ResponseError
    assert f"the server sent an error under HTTP 200: {message}" in str(exc_info.value)
    assert body == exc_info.value.body


DEEP = b"[" * 100_000 + b"]" * 100_000
GARBAGE = [
    pytest.param(b"", id="nothing"),
    pytest.param(b"<html>Bad Gateway</html>", id="HTML"),
    pytest.param(b'{"choices":[', id="cut"),
    pytest.param(b"null", id="null"),
    pytest.param(b"[]", id="a list"),
    pytest.param(b'"text"', id="a text"),
    pytest.param(b"\xff\xfe", id="no UTF-8"),
    pytest.param(b'{"model":"\xff"}', id="no UTF-8 in a text"),
    pytest.param(DEEP, id="deep"),
    pytest.param(b'{"error":%b}' % DEEP, id="deep in an error"),
    pytest.param(b'{"unknown":%b}' % DEEP, id="deep in an unknown member"),
    pytest.param(b'{"error":' + b"9" * 5000 + b"}", id="a number of 5000 digits"),
]


@pytest.mark.parametrize(
    "body",
    [
        *GARBAGE,
        b'{"choices":{}}',
        b'{"choices":[{"finish_reason":1}]}',
        b'{"choices":[{"message":{"content":[]},"finish_reason":"stop"}]}',
        b'{"choices":[{"message":{"tool_calls":[{"function":{"arguments":[]}}]},"finish_reason":"stop"}]}',
        b'{"usage":{"prompt_tokens":' + b"9" * 5000 + b"}}",
    ],
)
def test_other_bodies_of_a_chat_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedResponseError, match=r"^unexpected response from the OpenAI API: ") as exc_info:
        CODEC.decode_chat(ok(body), requested_model="m")
    assert body == exc_info.value.body


# --- models -----------------------------------------------------------------------------------------


def test_models_are_requested() -> None:
    requests, models = play(list_models(), json_response({"data": [{"id": "m"}]}))
    assert ([HTTPRequest("GET", "/v1/models")], (ModelInfo(id="m"),)) == (requests, models)


@pytest.mark.parametrize(
    ("name", "models"),
    [
        ("vllm-0.32.0-models.json", (ModelInfo(id="tiny", context_length=1024, owned_by="vllm"),)),
        (
            "llama-b11549-models.json",
            (
                ModelInfo(
                    id="/models/tiny.gguf",
                    aliases=("/models/tiny.gguf",),
                    context_length=2048,
                    owned_by="llamacpp",
                    parameters=168512,
                ),
            ),
        ),
        # It tells no n_ctx.
        ("llama-b8672-models.json", (ModelInfo(id="tiny.gguf", owned_by="llamacpp", parameters=168512),)),
    ],
)
def test_recorded_model_lists_are_decoded(name: str, models: tuple[ModelInfo, ...]) -> None:
    assert models == decode_models(ok(recording(name)))


@pytest.mark.parametrize(
    ("wire", "model"),
    [
        pytest.param({"id": "m"}, ModelInfo(id="m"), id="an id alone"),
        pytest.param({"id": "m", "max_model_len": 9}, ModelInfo(id="m", context_length=9), id="vLLM"),
        pytest.param({"id": "m", "max_input_tokens": 9}, ModelInfo(id="m", context_length=9), id="Anthropic"),
        pytest.param({"id": "m", "meta": {"n_ctx": 9}}, ModelInfo(id="m", context_length=9), id="llama-server"),
        pytest.param({"id": "m", "meta": None}, ModelInfo(id="m"), id="no meta"),
        pytest.param({"id": "m", "meta": {"n_ctx_train": 9}}, ModelInfo(id="m"), id="the context of the training"),
        pytest.param({"id": "m", "max_model_len": None}, ModelInfo(id="m"), id="null"),
        pytest.param({"id": "m", "aliases": ["a", "b"]}, ModelInfo(id="m", aliases=("a", "b")), id="aliases"),
        pytest.param({"id": "m", "aliases": None}, ModelInfo(id="m"), id="aliases null"),
        pytest.param({"id": "m", "status": {"value": "loading"}}, ModelInfo(id="m", state="loading"), id="router"),
        pytest.param(
            {"id": "m", "status": {"value": "unloaded", "failed": False}},
            ModelInfo(id="m", state="unloaded"),
            id="router: not loaded",
        ),
        pytest.param(
            {"id": "m", "status": {"value": "unloaded", "failed": True, "exit_code": 1}},
            ModelInfo(id="m", state="failed"),
            id="router: failed",
        ),
        pytest.param({"id": "m", "status": {}}, ModelInfo(id="m"), id="router: no value"),
    ],
)
def test_a_model_is_decoded(wire: Mapping[str, Any], model: ModelInfo) -> None:
    assert (model, ModelInfo(id="other")) == decode_models(ok(dump({"data": [wire, {"id": "other"}]})))


def test_an_empty_model_list_is_an_error() -> None:
    with pytest.raises(EmptyModelListError, match=r"^the server lists no model$") as exc_info:
        decode_models(ok(b'{"data":[]}'))
    assert b'{"data":[]}' == exc_info.value.body


@pytest.mark.parametrize("body", [*GARBAGE, b"{}", b'{"data":null}', b'{"data":[{}]}', b'{"data":[{"id":null}]}'])
def test_other_bodies_of_a_model_list_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedResponseError, match=r"^unexpected response from") as exc_info:
        decode_models(ok(body))
    assert body == exc_info.value.body


# --- embeddings -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dimensions", "more"), [(None, {}), (8, {"dimensions": 8})], ids=["without dimensions", "with dimensions"]
)
def test_embeddings_are_requested(dimensions: int | None, more: Mapping[str, Any]) -> None:
    operation = embed(("a", "漢"), model="m", dimensions=dimensions, encoding=None, settings=WireSettings())
    request = next(operation)
    assert ("POST", "/v1/embeddings") == (request.method, request.path)
    assert {"model": "m", "input": ["a", "漢"], "encoding_format": "float", **more} == json.loads(request.body or b"")


def encode_base64(*numbers: float) -> str:
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def embeddings(*vectors: object, count: int | None = None, **more: object) -> Embeddings:
    """Of vectors, or of whole items."""
    items = [item if isinstance(item, dict) else {"embedding": item} for item in vectors]
    body = dump({"object": "list", "data": items, **more})
    return decode_embeddings(body, count=len(items) if count is None else count)


def decode_embeddings(body: bytes, *, count: int) -> Embeddings:
    steps = embed(["x"] * count, model="asked", dimensions=None, encoding=None, settings=WireSettings())
    return play(steps, ok(body))[1]


@pytest.mark.parametrize(
    ("items", "vectors"),
    [
        pytest.param([[0.5, -1, 2.25]], ((0.5, -1.0, 2.25),), id="numbers"),
        pytest.param([encode_base64(0.5, -1.0)], ((0.5, -1.0),), id="base64, though numbers were asked for"),
        pytest.param([[1.0], encode_base64(2.0)], ((1.0,), (2.0,)), id="both, no index: in the order of the answer"),
        pytest.param(
            [{"index": 1, "embedding": [1.0]}, {"index": 0, "embedding": [0.0]}], ((0.0,), (1.0,)), id="out of order"
        ),
        pytest.param([[]], ((),), id="an empty vector"),
        pytest.param([], (), id="no inputs"),
    ],
)
def test_embeddings_are_decoded(items: Sequence[object], vectors: tuple[tuple[float, ...], ...]) -> None:
    assert Embeddings(vectors=vectors, requested_model="asked") == embeddings(*items)


def test_embeddings_have_the_model_and_the_usage() -> None:
    decode_stream = embeddings([1.0], model="m", usage={"prompt_tokens": 3, "total_tokens": 3})
    assert ("m", Usage(3, 0)) == (decode_stream.served_model, decode_stream.usage)
    assert embeddings([1.0], model="").served_model is None


@pytest.mark.parametrize(
    ("items", "count"),
    [
        pytest.param([[1.0]], 2, id="too few"),
        pytest.param([[1.0], [2.0]], 1, id="too many"),
        pytest.param([], 1, id="none"),
        pytest.param([{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [2.0]}], 2, id="an index twice"),
        pytest.param([{"index": 0, "embedding": [1.0]}, {"index": 0, "embedding": [2.0]}], 1, id="twice, counted once"),
        pytest.param([{"index": 1, "embedding": [1.0]}], 1, id="an index that was not asked for"),
        pytest.param([{"index": -1, "embedding": [1.0]}], 1, id="a negative index"),
    ],
)
def test_each_input_needs_one_vector(items: Sequence[object], count: int) -> None:
    with pytest.raises(MalformedResponseError) as exc_info:
        embeddings(*items, count=count)
    assert f"{len(items)} vectors received for {count} inputs" == str(exc_info.value)
    assert b'"data"' in exc_info.value.body


@pytest.mark.parametrize("value", ["!!!!", "AAA", "AAAAAAA=", "漢", "AAAA AAA="])
def test_invalid_base64_vectors_are_malformed(value: str) -> None:
    with pytest.raises(MalformedResponseError, match=r"^a vector is neither") as exc_info:
        embeddings(value)
    assert b'"data"' in exc_info.value.body


@pytest.mark.parametrize("body", [*GARBAGE, b'{"data":[{}]}', b'{"data":[{"embedding":[null]}]}', b'{"data":[[1.0]]}'])
def test_other_bodies_of_embeddings_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedResponseError, match=r"^unexpected response from"):
        decode_embeddings(body, count=1)


@settings(deadline=None)  # machines are shared
@given(st.lists(st.floats(width=32, allow_nan=False)))
def test_base64_and_numbers_are_the_same(numbers: list[float]) -> None:
    (vector,) = embeddings(encode_base64(*numbers)).vectors
    assert tuple(numbers) == vector


def test_nan_in_base64_is_kept() -> None:
    (vector,) = embeddings(encode_base64(math.nan)).vectors
    assert math.isnan(vector[0])


# --- streams ----------------------------------------------------------------------------------------


@attrs.frozen
class Outcome:
    """What came of a stream. ``failure`` is None where it was whole."""

    events: tuple[StreamEvent, ...]
    failure: tuple[type[BackendError], str] | None = None
    body: bytes = b""
    served_model: str | None = None
    response_id: str | None = None


def outcome(decoder: OpenAIStreamDecoder, events: Sequence[StreamEvent]) -> Outcome:
    failure = decoder.failure
    assert (failure is None) == decoder.finished, "exactly one of finished and failure"
    assert decoder.finished == any(isinstance(event, Finish) for event in events)
    assert not any(isinstance(event, Finish) for event in events[:-1]), "Finish is the last event"
    return Outcome(
        tuple(events),
        None if failure is None else (type(failure), str(failure)),
        getattr(failure, "body", b""),
        decoder.served_model,
        decoder.response_id,
    )


def decode_stream(*chunks: bytes) -> Outcome:
    decoder = CODEC.stream_decoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    return outcome(decoder, [*events, *decoder.close()])


def accumulate_stream(name: str) -> Completion:
    accumulator = Accumulator()
    result = decode_stream(recording(name))
    for event in result.events:
        accumulator.add(event)
    return accumulator.completion(
        requested_model="asked", served_model=result.served_model, response_id=result.response_id
    )


@pytest.mark.parametrize(
    ("name", "completion"),
    [
        pytest.param(
            "llama-b11549-chat-stream.sse",
            Completion(
                text='} gr"',
                finish_reason="length",
                usage=Usage(20, 3, 0, prompt_seconds=1.383 / 1000, generation_seconds=1.053 / 1000),
                requested_model="asked",
                served_model="/models/tiny.gguf",
                response_id="chatcmpl-Q3Og1ZlEYDaNHudxNQwopAZap5scfXcU",
                parts=(TextPart('} gr"'),),
            ),
            id="llama-server",
        ),
        pytest.param(
            "llama-b11549-chat-stream-n2.sse",
            Completion(
                text="} gr",
                finish_reason="length",
                requested_model="asked",
                served_model="/models/tiny.gguf",
                response_id="chatcmpl-wCSz3RiwVSXJJVmDOB2FWpLORFsabBON",
                parts=(TextPart("} gr"),),
            ),
            id="llama-server: the first of two choices; no usage",
        ),
        pytest.param(
            "llama-b8672-tools-stream.sse",
            Completion(
                text="",
                finish_reason="tool_calls",
                requested_model="asked",
                served_model="tiny.gguf",
                tool_calls=(ToolCall("LBBQBNdLXnzJHTfW3y78CxmkgUZat4zI", "get_weather", '{"city":"paris"}'),),
                response_id="chatcmpl-otR7EU2SAWca1Noe7lAjK75rOQv2bBGw",
                parts=(ToolCall("LBBQBNdLXnzJHTfW3y78CxmkgUZat4zI", "get_weather", '{"city":"paris"}'),),
            ),
            id="llama-server: tool call",
        ),
        pytest.param(
            "vllm-0.32.0-chat-stream.sse",
            Completion(
                text="SSdataanthonIn The",
                finish_reason="length",
                usage=Usage(16, 6),
                requested_model="asked",
                served_model="tiny",
                response_id="chatcmpl-89dd5be60261f5dc",
                parts=(TextPart("SSdataanthonIn The"),),
            ),
            id="vLLM: several tokens in one chunk, finish_reason beside the last text",
        ),
        pytest.param(
            "vllm-0.32.0-chat-stream-continuous-usage.sse",
            Completion(
                text="SSdataan",
                finish_reason="length",
                usage=Usage(16, 3),
                requested_model="asked",
                served_model="tiny",
                response_id="chatcmpl-bc97db3474f9bcf9",
                parts=(TextPart("SSdataan"),),
            ),
            id="vLLM: the last of many usages holds",
        ),
        pytest.param(
            "vllm-0.32.0-chat-stream-n2.sse",
            Completion(
                text="SSdata",
                finish_reason="length",
                requested_model="asked",
                served_model="tiny",
                response_id="chatcmpl-b7d0b13dd1e27ab1",
                parts=(TextPart("SSdata"),),
            ),
            id="vLLM: the first of two choices",
        ),
        pytest.param(
            "vllm-0.32.0-reasoning-stream.sse",
            Completion(
                text="",
                finish_reason="stop",
                usage=Usage(13, 16, reasoning_tokens=8),
                requested_model="asked",
                served_model="tiny",
                reasoning="Hi 🎉 漢字!",
                response_id="chatcmpl-8412e763ccfcc4fb",
                parts=(ReasoningPart("Hi 🎉 漢字!"),),
            ),
            id="vLLM: reasoning",
        ),
    ],
)
def test_recorded_streams_are_decoded(name: str, completion: Completion) -> None:
    assert completion == accumulate_stream(name)


def test_a_recorded_stream_of_two_tool_calls_is_decoded() -> None:
    completion = accumulate_stream("vllm-0.32.0-tools-stream.sse")
    first, second = completion.tool_calls
    assert ("length", Usage(170, 200), "") == (completion.finish_reason, completion.usage, completion.text)
    assert ("chatcmpl-tool-bbe8beb922c116cb", "get_weather") == (first.id, first.name)
    assert {"city": "Paris"} == json.loads(first.arguments)
    assert ("chatcmpl-tool-b11f02c2234d480b", "get_weather") == (second.id, second.name)
    assert '{"city":' == "".join(second.arguments.split())  # cut by max_tokens


def test_an_aborted_recorded_stream_is_a_failure() -> None:
    result = decode_stream(recording("vllm-0.32.0-chat-stream-abort.sse"))
    assert (TextDelta(" p"), TextDelta("annot")) == result.events
    assert (StreamInterruptedError, "the server ended the response with finish_reason 'abort'") == result.failure


STREAMS = sorted(path.name for path in RECORDINGS.glob("*.sse"))


@pytest.mark.parametrize("name", STREAMS)
def test_recorded_streams_are_the_same_at_every_split(name: str) -> None:
    data = recording(name)
    result = decode_stream(data)
    assert result == decode_stream(*split_bytes(data))
    assert result == decode_stream(*data.splitlines(keepends=True))
    for position in range(0, len(data), 1 + len(data) // 500):
        assert result == decode_stream(data[:position], data[position:])


@pytest.mark.parametrize("name", STREAMS)
def test_recorded_streams_that_end_early_are_failures(name: str) -> None:
    """Cut after any event: a completion only where the finish_reason had come."""
    data = recording(name)
    events = data.split(b"\n\n")
    for count in range(len(events) - 1):
        prefix = b"\n\n".join(events[:count])
        has_finish = b'"length"' in prefix or b'"stop"' in prefix or b'"finish_reason":"tool_calls"' in prefix
        result = decode_stream(prefix)
        assert has_finish == (result.failure is None), prefix
        if not has_finish and b"abort" not in prefix:
            assert (StreamInterruptedError, "the stream ended without a finish_reason") == result.failure


# The rows below are written with these. A row is what the server sends, the events, and the failure or None.

DONE = b"data: [DONE]\n\n"


def event(value: object, *, name: str | None = None) -> bytes:
    return (b"event: %b\n" % name.encode() if name else b"") + b"data: " + dump(value) + b"\n\n"


def delta(finish: object = None, *, index: int = 0, **members: object) -> bytes:
    return event({"choices": [{"index": index, "delta": members, "finish_reason": finish}]})


def text(value: str, *, index: int = 0) -> bytes:
    return delta(content=value, index=index)


def finish(reason: object = "stop", *, index: int = 0) -> bytes:
    return delta(reason, index=index)


def call(index: int | None = None, id: str | None = None, name: str | None = None, arguments: object = None) -> bytes:  # noqa: A002  # as on the wire
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    members = {"index": index, "id": id, "function": function or None}
    return delta(tool_calls=[{key: value for key, value in members.items() if value is not None}])


USAGE = event({"choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 2}})
A, B = TextDelta("a"), TextDelta("b")
STOP = Finish("stop")
TOOL_CALLS = Finish("tool_calls")  # also where the server says stop after a call
NO_FINISH = "the stream ended without a finish_reason"
DONE_NO_FINISH = "[DONE] came without a finish_reason"
STREAM_ERROR = "the server sent an error in the stream: "


def spec(*, row: str, data: bytes, events: Sequence[StreamEvent], failure: str | None = None) -> Any:
    return pytest.param(data, tuple(events), failure, id=row)


SPECIFICATION = [
    # -- whole answers
    spec(row="text, finish, [DONE]", data=text("a") + finish() + DONE, events=[A, STOP]),
    spec(row="usage after the finish", data=finish() + USAGE + DONE, events=[Finish("stop", Usage(5, 2))]),
    spec(row="usage before the finish", data=USAGE + finish() + DONE, events=[Finish("stop", Usage(5, 2))]),
    spec(
        row="usage without choices at all",
        data=finish() + event({"usage": {"prompt_tokens": 5, "completion_tokens": 2}}) + DONE,
        events=[Finish("stop", Usage(5, 2))],
    ),
    spec(
        row="the last usage holds",
        data=event({"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 1}}) + finish() + USAGE + DONE,
        events=[Finish("stop", Usage(5, 2))],
    ),
    spec(
        row="usage null does not take the usage back",
        data=USAGE + event({"choices": [], "usage": None}) + finish() + DONE,
        events=[Finish("stop", Usage(5, 2))],
    ),
    spec(row="end after the finish, without [DONE]", data=text("a") + finish(), events=[A, STOP]),
    spec(row="end after the usage, without [DONE]", data=finish() + USAGE, events=[Finish("stop", Usage(5, 2))]),
    spec(row="no line end after the finish", data=finish().rstrip(b"\n"), events=[STOP]),
    spec(row="no line end after [DONE]", data=finish() + b"data: [DONE]", events=[STOP]),
    spec(
        row="finish_reason beside the last text",
        data=delta("length", content="a") + DONE,
        events=[A, Finish("length")],
    ),
    spec(row="text after the finish_reason", data=finish() + text("a") + DONE, events=[A, STOP]),
    spec(
        row="what follows [DONE] is not read", data=finish() + DONE + text("a") + event({"error": "x"}), events=[STOP]
    ),
    spec(row="comments and other fields", data=b": ping\n\nid: 1\nretry: 5\n" + finish() + b":\n\n", events=[STOP]),
    spec(row="no text at all", data=finish() + DONE, events=[STOP]),
    spec(row="CRLF", data=(text("a") + finish() + DONE).replace(b"\n", b"\r\n"), events=[A, STOP]),
    spec(row="CR", data=(text("a") + finish() + DONE).replace(b"\n", b"\r"), events=[A, STOP]),
    # -- what a delta holds
    spec(row="empty and null texts are no events", data=text("") + delta(content=None) + finish(), events=[STOP]),
    spec(
        row="reasoning, both spellings",
        data=delta(reasoning="a") + delta(reasoning_content="b") + finish(),
        events=[ReasoningDelta("a"), ReasoningDelta("b"), STOP],
    ),
    spec(
        row="both spellings at once are one",
        data=delta(reasoning="a", reasoning_content="a") + finish(),
        events=[ReasoningDelta("a"), STOP],
    ),
    spec(
        row="reasoning, text and refusal in one delta, in this order",
        data=delta(refusal="c", content="b", reasoning="a") + finish(),
        events=[ReasoningDelta("a"), B, RefusalDelta("c"), STOP],
    ),
    spec(
        row="multi-byte characters and U+2028",
        data=text("漢🎉") + text("a\u2028b\x85c") + finish(),
        events=[TextDelta("漢🎉"), TextDelta("a\u2028b\x85c"), STOP],
    ),
    spec(row="choice 1 is ignored", data=text("x", index=1) + text("a") + finish(), events=[A, STOP]),
    spec(row="a delta that is missing", data=event({"choices": [{"finish_reason": "stop"}]}), events=[STOP]),
    spec(
        row="a delta that is null",
        data=event({"choices": [{"index": 0, "delta": None, "finish_reason": "stop"}]}),
        events=[STOP],
    ),
    spec(row="members that nobody knows", data=event({"x": {"y": [1]}, "choices": []}) + finish(), events=[STOP]),
    # -- tool calls
    spec(
        row="a call in pieces",
        data=call(0, "c1", "f") + call(0, arguments='{"a"') + call(0, arguments=":1}") + finish("tool_calls"),
        events=[
            ToolCallDelta(0, "c1", "f", ""),
            ToolCallDelta(0, "", "", '{"a"'),
            ToolCallDelta(0, "", "", ":1}"),
            TOOL_CALLS,
        ],
    ),
    spec(
        row="calls one after the other",
        data=call(0, "c1", "f", "1") + call(1, "c2", "g", "2") + call(1, arguments="3") + finish(),
        events=[
            ToolCallDelta(0, "c1", "f", "1"),
            ToolCallDelta(1, "c2", "g", "2"),
            ToolCallDelta(1, "", "", "3"),
            TOOL_CALLS,
        ],
    ),
    spec(
        row="calls interleaved",
        data=call(0, "c1", "f") + call(1, "c2", "g") + call(0, arguments="1") + call(1, arguments="2") + finish(),
        events=[
            ToolCallDelta(0, "c1", "f", ""),
            ToolCallDelta(1, "c2", "g", ""),
            ToolCallDelta(0, "", "", "1"),
            ToolCallDelta(1, "", "", "2"),
            TOOL_CALLS,
        ],
    ),
    spec(
        row="index 0 for every call (Ollama 0.20)",
        data=call(0, "c1", "f", "1") + call(0, "c2", "g", "2") + finish(),
        events=[ToolCallDelta(0, "c1", "f", "1"), ToolCallDelta(1, "c2", "g", "2"), TOOL_CALLS],
    ),
    spec(
        row="index 0 for every call, in pieces: the rest belongs to the call that came last",
        data=call(0, "c1", "f", "1") + call(0, "c2", "g") + call(0, arguments="2") + finish(),
        events=[
            ToolCallDelta(0, "c1", "f", "1"),
            ToolCallDelta(1, "c2", "g", ""),
            ToolCallDelta(1, "", "", "2"),
            TOOL_CALLS,
        ],
    ),
    spec(
        row="the id in every piece, index 0 for every call",
        data=call(0, "c1", "f", "1") + call(0, "c2", "g", "2") + call(0, "c1", arguments="3") + finish(),
        events=[
            ToolCallDelta(0, "c1", "f", "1"),
            ToolCallDelta(1, "c2", "g", "2"),
            ToolCallDelta(0, "", "", "3"),
            TOOL_CALLS,
        ],
    ),
    spec(
        row="no index",
        data=call(None, "c1", "f", "1") + call(None, arguments="2") + call(None, "c2", "g", "3") + finish(),
        events=[
            ToolCallDelta(0, "c1", "f", "1"),
            ToolCallDelta(0, "", "", "2"),
            ToolCallDelta(1, "c2", "g", "3"),
            TOOL_CALLS,
        ],
    ),
    spec(
        row="no index and no id",
        data=call(None, None, "f", "1") + call(None, None, None, "2") + finish(),
        events=[ToolCallDelta(0, "GSEY9xYdQ", "f", "1"), ToolCallDelta(0, "", "", "2"), TOOL_CALLS],
    ),
    spec(
        row="no id",
        data=call(0, None, "f", "1") + call(1, None, "g", "2") + call(0, arguments="3") + finish(),
        events=[
            ToolCallDelta(0, "GSEY9xYdQ", "f", "1"),
            ToolCallDelta(1, "NvxqFOykn", "g", "2"),
            ToolCallDelta(0, "", "", "3"),
            TOOL_CALLS,
        ],
    ),
    spec(
        row="empty ids are no ids",
        data=call(0, "", "f", "1") + call(1, "", "g", "2") + call(1, "", arguments="3") + finish(),
        events=[
            ToolCallDelta(0, "GSEY9xYdQ", "f", "1"),
            ToolCallDelta(1, "NvxqFOykn", "g", "2"),
            ToolCallDelta(1, "", "", "3"),
            TOOL_CALLS,
        ],
    ),
    spec(
        row="indexes that do not begin with 0",
        data=call(1, "c1", "f") + call(1, arguments="1") + call(3, "c2", "g") + call(3, arguments="2") + finish(),
        events=[
            ToolCallDelta(0, "c1", "f", ""),
            ToolCallDelta(0, "", "", "1"),
            ToolCallDelta(1, "c2", "g", ""),
            ToolCallDelta(1, "", "", "2"),
            TOOL_CALLS,
        ],
    ),
    spec(
        row="arguments as an object",
        data=call(0, "c1", "f", {"a": 1}) + finish(),
        events=[ToolCallDelta(0, "c1", "f", '{"a":1}'), TOOL_CALLS],
    ),
    spec(
        row="two calls in one delta",
        data=delta(tool_calls=[{"id": "c1", "index": 0}, {"id": "c2", "index": 0}])
        + delta(tool_calls=[{"id": "c1", "function": {"name": "f"}}, {"id": "c2", "function": {"name": "g"}}])
        + finish(),
        events=[ToolCallDelta(0, "c1", "f", ""), ToolCallDelta(1, "c2", "g", ""), TOOL_CALLS],
    ),
    spec(
        row="a piece with the function null",
        data=call(0, "c1", "f", "{}") + delta(tool_calls=[{"id": "c1", "index": 0, "function": None}]) + finish(),
        events=[ToolCallDelta(0, "c1", "f", "{}"), TOOL_CALLS],
    ),
    # -- answers that never become whole
    spec(row="nothing at all", data=b"", events=[], failure=NO_FINISH),
    spec(row="the end without a finish_reason", data=text("a"), events=[A], failure=NO_FINISH),
    spec(row="usage is no finish", data=text("a") + USAGE, events=[A], failure=NO_FINISH),
    spec(row="[DONE] without a finish_reason", data=text("a") + DONE, events=[A], failure=DONE_NO_FINISH),
    spec(row="an empty delta and the end (Ollama)", data=text("a") + delta(), events=[A], failure=NO_FINISH),
    spec(row="a finish_reason of choice 1 alone", data=finish(index=1) + DONE, events=[], failure=DONE_NO_FINISH),
    spec(
        row="finish_reason abort (vLLM)",
        data=text("a") + delta("abort", content="b") + text("c") + DONE,
        events=[A, B],
        failure="the server ended the response with finish_reason 'abort'",
    ),
    spec(
        row="abort after a good finish_reason",
        data=finish() + finish("abort") + DONE,
        events=[],
        failure="the server ended the response with finish_reason 'abort'",
    ),
    spec(
        row="finish_reason error (OpenRouter)",
        data=text("a") + finish("error") + DONE,
        events=[A],
        failure="the server ended the response with finish_reason 'error'",
    ),
    # -- errors in the stream, in every shape
    spec(
        row="an object, then [DONE] (vLLM)",
        data=text("a") + event({"error": {"message": "boom", "type": "E", "param": None, "code": 500}}) + DONE,
        events=[A],
        failure=STREAM_ERROR + "boom",
    ),
    spec(
        row="an object, without [DONE] (llama-server)",
        data=text("a") + event({"error": {"code": 500, "message": "boom", "type": "server_error"}}),
        events=[A],
        failure=STREAM_ERROR + "boom",
    ),
    spec(row="a text", data=event({"error": "boom"}) + finish() + DONE, events=[], failure=STREAM_ERROR + "boom"),
    spec(
        row="members at the top level (old vLLM)",
        data=text("a") + event({"object": "error", "message": "boom", "type": "E", "code": 500}) + DONE,
        events=[A],
        failure=STREAM_ERROR + "boom",
    ),
    spec(
        row="a message at the top level",
        data=event({"message": "boom"}) + finish(),
        events=[],
        failure=STREAM_ERROR + "boom",
    ),
    spec(
        row="object: error without a message",
        data=event({"object": "error"}) + finish(),
        events=[],
        failure=STREAM_ERROR + '{"object": "error"}',
    ),
    spec(
        row="event: error (LM Studio, Anthropic)",
        data=text("a") + event({"type": "error", "error": {"type": "E", "message": "boom"}}, name="error") + finish(),
        events=[A],
        failure=STREAM_ERROR + "boom",
    ),
    spec(
        row="event: error without an error",
        data=event({"choices": [], "detail": 5}, name="error") + finish() + DONE,
        events=[],
        failure=STREAM_ERROR + '{"choices": [], "detail": 5}',
    ),
    spec(
        row="an error without a message",
        data=event({"error": {"code": 5}}) + finish(),
        events=[],
        failure=STREAM_ERROR + '{"error": {"code": 5}}',
    ),
    spec(row="an empty error", data=event({"error": {}}) + finish(), events=[], failure=STREAM_ERROR + '{"error": {}}'),
    spec(
        row="an error beside choices",
        data=event({"error": {"message": "boom"}, "choices": [{"delta": {"content": "x"}, "finish_reason": "stop"}]}),
        events=[],
        failure=STREAM_ERROR + "boom",
    ),
    spec(
        row="an error after the finish_reason",
        data=text("a") + finish() + event({"error": {"message": "boom"}}) + DONE,
        events=[A],
        failure=STREAM_ERROR + "boom",
    ),
    spec(row="error null is no error", data=event({"error": None, "choices": []}) + finish(), events=[STOP]),
    # -- plain text in the place of events
    spec(
        row="a router that lost its server",
        data=text("a") + b"proxy error: Failed to read connection",
        events=[A],
        failure=NO_FINISH + "; last line received: proxy error: Failed to read connection",
    ),
    spec(
        row="plain text before [DONE]",
        data=text("a") + b"upstream gone\n\n" + DONE,
        events=[A],
        failure=DONE_NO_FINISH + "; last line received: upstream gone",
    ),
    spec(
        row="plain text after [DONE]",
        data=text("a") + DONE + b"upstream gone\n\n",
        events=[A],
        failure=DONE_NO_FINISH,
    ),
    spec(
        row="a JSON error that is no event",
        data=b'{"error":"boom"}\n',
        events=[],
        failure=STREAM_ERROR + "boom",
    ),
    spec(
        row="text that is no UTF-8",
        data=b"gone \xff",
        events=[],
        failure=NO_FINISH + "; last line received: gone \ufffd",
    ),
    # -- events that nobody knows
    spec(row="ping", data=event({"type": "ping"}, name="ping") + finish() + DONE, events=[STOP]),
    spec(row="an empty object", data=event({}) + finish() + DONE, events=[STOP]),
    spec(
        row="Anthropic's message_start: message is an object",
        data=event({"type": "message_start", "message": {"id": "x"}}) + finish(),
        events=[STOP],
    ),
    spec(
        row="unknown, with texts that are no UTF-8",
        data=b'data: {"x":"\xff"}\n\n' + finish() + DONE,
        events=[STOP],
    ),
    spec(row="unknown, with a number out of range", data=b'data: {"x":1e999}\n\n' + finish() + DONE, events=[STOP]),
]


@pytest.mark.parametrize(("data", "events", "failure"), SPECIFICATION)
def test_stream(data: bytes, events: tuple[StreamEvent, ...], failure: str | None) -> None:
    result = decode_stream(data)
    assert events == result.events
    assert (None if failure is None else (StreamInterruptedError, failure)) == result.failure
    assert result == decode_stream(*split_bytes(data))
    for position in range(len(data) + 1):
        assert result == decode_stream(data[:position], data[position:])


@pytest.mark.parametrize(
    "data",
    [
        b"upstream error",
        b"{",
        b"[{}]",
        b"[done]",
        b'{"choices":{}}',
        b'{"choices":[{"delta":{"content":1}}]}',
        b'{"choices":[{"delta":{"content":"\xff"}}]}',
        b'{"error":' + b"9" * 5000 + b"}",
        b'{"error":%b}' % DEEP,
        b'{"x":%b}' % DEEP,
    ],
    ids=lambda data: data[:60].decode("utf-8", "replace"),
)
def test_a_malformed_event_is_a_failure_of_the_stream(data: bytes) -> None:
    result = decode_stream(text("a") + b"data: " + data + b"\n\n" + text("b") + finish() + DONE)
    assert (A,) == result.events
    assert result.failure is not None
    assert StreamInterruptedError is result.failure[0]
    assert result.failure[1].startswith("an event of the stream is malformed: ")
    assert data == result.body


def test_events_before_a_failure_are_returned_and_none_after() -> None:
    decoder = OpenAIStreamDecoder()
    assert [A, B] == decoder.feed(text("a") + text("b") + event({"error": "boom"}) + text("c"))
    failure = decoder.failure
    assert isinstance(failure, StreamInterruptedError)
    assert b'{"error": "boom"}' == failure.body
    assert [] == decoder.feed(text("c") + finish() + DONE)
    assert [] == decoder.close()
    assert failure is decoder.failure
    assert not decoder.finished


def test_all_events_are_returned_at_once() -> None:
    decoder = OpenAIStreamDecoder()
    assert [] == decoder.feed(text("a")[:-1])
    assert [A] == decoder.feed(b"\n")
    assert [A, B, A, B] == decoder.feed((text("a") + text("b")) * 2)
    assert not decoder.finished
    assert decoder.failure is None


def test_the_finish_is_sent_once_at_done_or_the_end() -> None:
    decoder = OpenAIStreamDecoder()
    assert [] == decoder.feed(finish())
    assert not decoder.finished
    assert [Finish("stop", Usage(5, 2))] == decoder.feed(USAGE + DONE)
    assert decoder.finished
    assert [] == decoder.feed(finish() + DONE)
    assert [] == decoder.close()
    assert [] == decoder.close()


def test_an_error_in_a_stream_keeps_its_body() -> None:
    error = dump({"error": {"message": "x" * 2000, "code": 500}})
    result = decode_stream(b"data: " + error + b"\n\n")
    assert error == result.body


def test_the_message_shows_the_beginning_of_an_error_without_a_sentence() -> None:
    result = decode_stream(event({"error": {"code": "x" * 2000}}))
    assert result.failure is not None
    assert len(STREAM_ERROR) + 512 == len(result.failure[1])


@pytest.mark.parametrize(("wire", "reason"), REASONS)
def test_finish_reasons_of_a_stream_are_decoded(wire: str, reason: str) -> None:
    assert reason == getattr(decode_stream(finish(wire) + DONE).events[-1], "finish_reason", None)


@pytest.mark.parametrize("wire", [reason for reason in NO_REASONS if reason])
def test_unknown_finish_reasons_are_a_failure_of_the_stream(wire: str) -> None:
    assert (StreamInterruptedError, f"the server ended the response with finish_reason {wire!r}") == decode_stream(
        finish(wire) + DONE
    ).failure


@pytest.mark.parametrize(
    "harmless", [b"data:\n\n", b"data: \n\n", event({"choices": [{"index": 0, "delta": {}, "finish_reason": ""}]})]
)
def test_empty_events_are_skipped(harmless: bytes) -> None:
    result = decode_stream(text("a") + harmless + finish() + b"data: [DONE] \n\n")
    assert (None, A) == (result.failure, result.events[0])
    assert isinstance(result.events[-1], Finish)


def test_the_first_model_and_id_are_kept() -> None:
    events = [event({"model": name, "id": f"id-{name}", "choices": []}) for name in ("one", "two")]
    result = decode_stream(event({"model": "", "choices": []}) + b"".join(events) + finish())
    assert ("one", "id-one") == (result.served_model, result.response_id)
    assert (None, None) == (decode_stream(finish()).served_model, decode_stream(finish()).response_id)


def test_the_model_is_known_before_the_first_text() -> None:
    decoder = OpenAIStreamDecoder()
    decoder.feed(event({"model": "m", "choices": [{"delta": {"role": "assistant"}}]}))
    assert "m" == decoder.served_model


@pytest.mark.parametrize("tail", [pytest.param(b"\n", id="fed"), pytest.param(b"", id="not ended")])
def test_a_line_over_the_limit_is_a_failure(tail: bytes) -> None:
    decoder = OpenAIStreamDecoder()
    assert [A] == decoder.feed(text("a"))
    assert [] == decoder.feed(b"data: " + b"x" * MAX_BODY_BYTES + tail)
    assert isinstance(decoder.failure, ResponseTooLargeError)
    assert [] == decoder.feed(finish() + DONE)
    assert [] == decoder.close()
    assert not decoder.finished


def test_an_event_whose_last_line_exceeds_the_limit_is_a_failure() -> None:
    decoder = OpenAIStreamDecoder()
    half = MAX_BODY_BYTES // 2 + 1
    decoder.feed(b"data: " + b"x" * half + b"\n")
    decoder.feed(b"data: " + b"x" * half)
    assert decoder.failure is None
    assert [] == decoder.close()
    assert isinstance(decoder.failure, ResponseTooLargeError)


# --- whatever comes -----------------------------------------------------------------------------------

cuts = st.lists(st.integers(0, 10_000), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
members = st.dictionaries(
    st.sampled_from(["choices", "usage", "error", "object", "model", "id", "message", "detail", "type", "x"]),
    json_values
    | st.lists(
        st.dictionaries(
            st.sampled_from(["index", "delta", "finish_reason"]),
            json_values
            | st.sampled_from(["stop", "abort"])
            | st.dictionaries(
                st.sampled_from(["content", "reasoning", "refusal", "tool_calls"]), json_values, max_size=3
            ),
            max_size=3,
        ),
        max_size=2,
    ),
    max_size=4,
)
fragments = (
    st.binary(max_size=20)
    | st.sampled_from(
        [DONE, finish(), finish("abort"), text("a"), USAGE, event({"error": "x"}), b"\n", b"\r", b"data: "]
    )
    | members.map(lambda value: b"data: " + msgspec.json.encode(value) + b"\n\n")
    | st.binary(max_size=20).map(lambda data: b'data: {"x":"' + data + b'"}\n\n')
)


def without_wording(result: Outcome) -> Outcome:
    """Without the text of a failure: a line after [DONE] is quoted in it where it came in the same piece."""
    return attrs.evolve(result, failure=result.failure and (result.failure[0], ""), body=b"")


@settings(deadline=None)
@given(st.lists(fragments, max_size=8).map(b"".join), cuts)
@example(b'data: {"x":"\xff"}\n\n', [])
@example(b'data: {"x":1e999}\n\n', [])
def test_any_stream_either_finishes_or_fails(data: bytes, positions: list[int]) -> None:
    result = decode_stream(data)  # checks it, and that nothing is raised
    assert without_wording(result) == without_wording(decode_stream(*split_at(data, positions)))
    assert without_wording(result) == without_wording(decode_stream(*split_bytes(data)))


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(STREAMS), st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3)), max_size=4), cuts)
def test_a_damaged_recording_either_finishes_or_fails(
    name: str, damage: list[tuple[int, bytes]], positions: list[int]
) -> None:
    data = recording(name)
    for position, replacement in damage:
        at = position % len(data)
        data = data[:at] + replacement + data[at + 1 :]
    assert without_wording(decode_stream(data)) == without_wording(decode_stream(*split_at(data, positions)))


DECODERS: list[Callable[[HTTPResponse], object]] = [
    lambda response: CODEC.decode_chat(response, requested_model="m"),
    decode_models,
    lambda response: decode_embeddings(response.body, count=1),
]


@settings(deadline=None)
@given(st.sampled_from(DECODERS), st.binary() | members.map(msgspec.json.encode))
def test_any_body_is_decoded_or_raises_our_errors(decode: Callable[[HTTPResponse], object], body: bytes) -> None:
    with suppress(BackendError):
        assert decode(ok(body))


@settings(deadline=None, max_examples=200)
@given(
    st.sampled_from(sorted(path.name for path in RECORDINGS.glob("*.json"))),
    st.sampled_from(DECODERS),
    st.integers(0, 10_000),
    st.binary(max_size=3),
)
def test_a_damaged_body_is_decoded_or_raises_our_errors(
    name: str, decode: Callable[[HTTPResponse], object], position: int, damage: bytes
) -> None:
    body = recording(name)
    at = position % len(body)
    with suppress(BackendError):
        assert decode(ok(body[:at] + damage + body[at + 1 :]))
