"""Ollama's own API: what is sent for every option and part, what every answer, whole or streamed, is read as, and its
models, loading and embeddings.

The answers here are no recordings: they are written after the examples of Ollama's documentation, docs/api.md of
https://github.com/ollama/ollama and https://docs.ollama.com/api, and end in a ``done_reason`` as newer servers do.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxbackends._chat.events import Finish, ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta
from ctxbackends._chat.media import ImagePart
from ctxbackends._chat.messages import Message, ReasoningPart, TextPart, ToolCall, ToolResult
from ctxbackends._chat.requests import ChatRequest, JSONObjectFormat, JSONSchemaFormat, NamedTool, RegexFormat, Tool
from ctxbackends._chat.responses import Completion, Embeddings, TokenLogprob, Usage
from ctxbackends._chat.servers import ModelInfo, ServerStatus
from ctxbackends._profiles.option_support import OLLAMA_NATIVE
from ctxbackends._wire.accumulator import Accumulator
from ctxbackends._wire.base import MAX_BODY_BYTES, HTTPRequest, WireSettings
from ctxbackends._wire.formats.ollama_chat import OllamaCodec, OllamaStreamDecoder
from ctxbackends._wire.operations import ollama as ollama_server
from ctxbackends.errors import (
    BackendError,
    ContextOverflowError,
    EmptyModelListError,
    InternalServerError,
    MalformedResponseError,
    ResponseError,
    ResponseTooLargeError,
    StreamInterruptedError,
    UnsupportedOptionError,
)
from tests.operations import body_of, drive, json_response, play
from tests.splitting import split_at, split_bytes

CODEC = OllamaCodec(table=OLLAMA_NATIVE)


def dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


def about(seconds: float) -> Any:
    return pytest.approx(seconds)


# --- encode: options --------------------------------------------------------------------------------

HI = (Message.user("Hi"),)
MINIMAL: dict[str, Any] = {
    "model": "m",
    "messages": [{"role": "user", "content": "Hi"}],
    "stream": False,
    "truncate": False,
    "shift": False,
}
SCHEMA = {"type": "object", "properties": {"age": {"type": "integer", "minimum": 1}}, "required": ["age"]}
ADD = Tool("add", "Adds.", {"type": "object", "properties": {}})
WIRE_ADD = {
    "type": "function",
    "function": {"name": "add", "description": "Adds.", "parameters": {"type": "object", "properties": {}}},
}
PNG = b"\x89PNG\r\n\x1a\n..."


def encode(settings_: WireSettings | None = None, *, stream: bool = False, **options: Any) -> Any:
    codec = OllamaCodec(table=OLLAMA_NATIVE, settings=settings_ or WireSettings())
    return body_of(codec.encode_chat(ChatRequest(**{"messages": HI, "model": "m", **options}), stream=stream))


def test_a_request_is_a_post_that_says_whether_it_streams() -> None:
    request = CODEC.encode_chat(ChatRequest(messages=HI, model="m"), stream=False)
    assert ("POST", "/api/chat", {}) == (request.method, request.path, request.headers)
    assert MINIMAL == body_of(request)
    assert {**MINIMAL, "stream": True} == encode(stream=True)


@pytest.mark.parametrize(
    ("options", "more"),
    [
        pytest.param({"max_tokens": 7}, {"options": {"num_predict": 7}}, id="max_tokens"),
        pytest.param({"temperature": 0.0}, {"options": {"temperature": 0.0}}, id="temperature 0"),
        pytest.param(
            {"top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 0},
            {"options": {"top_p": 0.9, "top_k": 5, "min_p": 0.1, "seed": 0}},
            id="sampling",
        ),
        pytest.param(
            {"frequency_penalty": 0.5, "presence_penalty": -0.5, "repetition_penalty": 1.5},
            {"options": {"frequency_penalty": 0.5, "presence_penalty": -0.5, "repeat_penalty": 1.5}},
            id="penalties",
        ),
        pytest.param({"stop_sequences": ("a", "b")}, {"options": {"stop": ["a", "b"]}}, id="stop_sequences"),
        pytest.param({"stop_sequences": ()}, {}, id="no stop_sequences"),
        pytest.param({"logprobs": True, "top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}, id="logprobs"),
        pytest.param({"response_format": JSONObjectFormat()}, {"format": "json"}, id="any JSON object"),
        pytest.param({"response_format": JSONSchemaFormat("thing", SCHEMA)}, {"format": SCHEMA}, id="a schema"),
        pytest.param(
            {"response_format": JSONSchemaFormat("thing", SCHEMA, checked=True)},
            {"format": SCHEMA},
            id="a schema that is checked here keeps its constraints",
        ),
        pytest.param({"tools": (ADD,)}, {"tools": [WIRE_ADD]}, id="tools"),
        pytest.param({"tools": (ADD,), "tool_choice": "auto"}, {"tools": [WIRE_ADD]}, id="tools, auto"),
        pytest.param({"tools": (ADD,), "tool_choice": "none"}, {}, id="tools, none: they are left out"),
        pytest.param(
            {"extra_body": {"options": {"num_gpu": 1}, "x": [1]}},
            {"options": {"num_gpu": 1}, "x": [1]},
            id="extra_body",
        ),
        pytest.param(
            {"max_tokens": 7, "extra_body": {"options": {"num_gpu": 1}}},
            {"options": {"num_predict": 7, "num_gpu": 1}},
            id="extra_body beside an option in the same object",
        ),
        pytest.param({"extra_body": {"keep_alive": "5m"}}, {"keep_alive": "5m"}, id="keep_alive by extra_body alone"),
    ],
)
def test_options_are_encoded(options: Mapping[str, Any], more: Mapping[str, Any]) -> None:
    assert {**MINIMAL, **more} == encode(**options)


@pytest.mark.parametrize(
    ("effort", "think"), [("none", False), ("low", "low"), ("medium", "medium"), ("high", "high"), ("max", "max")]
)
def test_the_effort_of_reasoning_is_a_level(effort: str, think: Any) -> None:
    assert {**MINIMAL, "think": think} == encode(reasoning_effort=effort)


def test_without_an_effort_the_model_decides_to_think() -> None:
    assert "think" not in encode()


# A number is seconds for Ollama as well, and below 0 for ever; a text is a duration as Go reads it, of digits and a
# unit: https://pkg.go.dev/time#ParseDuration
KEEP_ALIVES = [
    pytest.param(None, {}, id="the server's default"),
    pytest.param(0.0, {"keep_alive": "0s"}, id="not at all"),
    pytest.param(300.0, {"keep_alive": "300s"}, id="seconds"),
    pytest.param(1.5, {"keep_alive": "1.5s"}, id="parts of a second"),
    pytest.param(86400.0, {"keep_alive": "86400s"}, id="a day"),
    pytest.param(math.inf, {"keep_alive": -1}, id="for ever"),
    pytest.param(
        2_592_000.0,
        {"keep_alive": "2592000s"},
        id="thirty days",
    ),
    pytest.param(
        100_000.5,
        {"keep_alive": "100000.5s"},
        id="more than six digits",
    ),
]


@pytest.mark.parametrize(("keep_alive", "member"), KEEP_ALIVES)
def test_keep_alive_is_encoded(keep_alive: float | None, member: Mapping[str, Any]) -> None:
    assert {**MINIMAL, **member} == encode(WireSettings(keep_alive=keep_alive))


def test_the_context_of_the_configuration_is_in_every_request() -> None:
    settings_ = WireSettings(context_length=8192, keep_alive=math.inf)
    assert {**MINIMAL, "options": {"num_ctx": 8192}, "keep_alive": -1} == encode(settings_)
    assert {"num_ctx": 8192, "num_predict": 7, "num_gpu": 1} == encode(
        settings_, max_tokens=7, extra_body={"options": {"num_gpu": 1}}
    )["options"]


def test_the_key_is_sent_in_one_header() -> None:
    assert {"Authorization": "Bearer k"} == CODEC.auth_headers("k")


def refusal(settings_: WireSettings | None = None, **options: Any) -> tuple[str, str]:
    with pytest.raises(UnsupportedOptionError) as exc_info:
        encode(settings_, **options)
    return exc_info.value.option, str(exc_info.value)


@pytest.mark.parametrize(
    ("name", "value", "options", "reason"),
    [
        ("model", None, {}, "pass model="),
        ("messages", [], {}, "pass the messages"),
        ("stream", True, {}, "call stream()"),
        ("truncate", True, {}, "a prompt that does not fit is an error, and never cut"),
        ("shift", True, {}, "an answer that does not fit ends with length, and never loses its beginning"),
        ("format", "json", {"response_format": JSONObjectFormat()}, "format is already set by an option"),
        ("options", 5, {"seed": 1}, "options is already set by an option"),
        ("think", True, {"reasoning_effort": "none"}, "think is already set by an option"),
    ],
)
def test_extra_body_does_not_override(name: str, value: Any, options: Mapping[str, Any], reason: str) -> None:
    assert (f"extra_body: {name}", f"extra_body: {name}: {reason}") == refusal(
        **options, extra_body={"x": 1, name: value}
    )


def test_extra_body_does_not_override_the_configuration() -> None:
    settings_ = WireSettings(context_length=8192, keep_alive=60)
    assert "extra_body: options.num_ctx" == refusal(settings_, extra_body={"options": {"num_ctx": 1}})[0]
    assert "extra_body: keep_alive" == refusal(settings_, extra_body={"keep_alive": 0})[0]


# A schema is an object of the caller's, and two wishes for `format` are a mistake: add_extra merges the two, into the
# caller's own schema.
def test_extra_body_does_not_change_the_schema() -> None:
    schema: dict[str, Any] = {"type": "object"}
    option, _ = refusal(response_format=JSONSchemaFormat("s", schema), extra_body={"format": {"title": "t"}})
    assert ("extra_body: format", {"type": "object"}) == (option, schema)


@pytest.mark.parametrize(
    ("options", "option"),
    [
        ({"reasoning_budget": 5}, "reasoning_budget"),
        ({"tools": (ADD,), "parallel_tool_calls": False}, "parallel_tool_calls"),
        ({"response_format": RegexFormat("a")}, "response_format: regex"),
        ({"tools": (ADD,), "tool_choice": "required"}, "tool_choice: required"),
        ({"tools": (ADD,), "tool_choice": NamedTool("add")}, "tool_choice: named"),
        ({"messages": (Message.user([ImagePart.from_url("http://h/a.png")]),)}, "message: image url"),
    ],
)
def test_options_that_ollama_ignores_are_rejected(options: Mapping[str, Any], option: str) -> None:
    assert option == refusal(**options)[0]


def test_encoding_does_not_change_the_request() -> None:
    extra = {"options": {"num_gpu": 1}}
    request = ChatRequest(
        messages=HI, model="m", seed=1, response_format=JSONSchemaFormat("s", SCHEMA), extra_body=extra
    )
    before = json.dumps([SCHEMA, extra])
    assert CODEC.encode_chat(request, stream=True) == CODEC.encode_chat(request, stream=True)
    assert before == json.dumps([SCHEMA, extra])


# --- encode: messages -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        pytest.param(Message.system("S"), {"role": "system", "content": "S"}, id="system"),
        pytest.param(Message.system(["S", "T"]), {"role": "system", "content": "ST"}, id="system, in parts"),
        pytest.param(Message.user("漢 🎉"), {"role": "user", "content": "漢 🎉"}, id="user"),
        pytest.param(
            Message.user(["a", ImagePart.from_bytes(PNG), "b", ImagePart(b"x", "image/x")]),
            {"role": "user", "content": "ab", "images": ["iVBORw0KGgouLi4=", "eA=="]},
            id="images beside the text",
        ),
        pytest.param(
            Message.user([ImagePart.from_bytes(PNG)]),
            {"role": "user", "content": "", "images": ["iVBORw0KGgouLi4="]},
            id="an image alone",
        ),
        pytest.param(Message.assistant("A"), {"role": "assistant", "content": "A"}, id="assistant"),
        pytest.param(
            Message.assistant([ReasoningPart("Hm.", "s"), ReasoningPart(" Yes."), "A"]),
            {"role": "assistant", "content": "A", "thinking": "Hm. Yes."},
            id="reasoning",
        ),
        pytest.param(
            Message.assistant("A", tool_calls=[ToolCall("c1", "add", '{"a": [1, "漢"]}'), ToolCall("c2", "get", "")]),
            {
                "role": "assistant",
                "content": "A",
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "add", "arguments": {"a": [1, "漢"]}}},
                    {"id": "c2", "type": "function", "function": {"name": "get", "arguments": {}}},
                ],
            },
            id="calls, with their arguments as objects",
        ),
        pytest.param(
            Message.tool("3", tool_call_id="c1"),
            {"role": "tool", "content": "3", "tool_call_id": "c1"},
            id="the result of a call that nobody knows",
        ),
        pytest.param(
            Message.tool("3", tool_call_id="c1", name="add"),
            {"role": "tool", "content": "3", "tool_call_id": "c1", "tool_name": "add"},
            id="a result that names its tool",
        ),
        pytest.param(
            Message.tool("no", tool_call_id="c1", name="add", is_error=True),
            {"role": "tool", "content": "Error: no", "tool_call_id": "c1", "tool_name": "add"},
            id="a tool that failed",
        ),
    ],
)
def test_messages_are_encoded(message: Message, wire: Mapping[str, Any]) -> None:
    assert [{"role": "user", "content": "Hi"}, wire] == encode(messages=(*HI, message))["messages"]


def results(*messages: Message) -> list[tuple[str, str | None]]:
    """Of each tool result that is sent: its content and the name of its tool."""
    turns = encode(messages=(*HI, *messages))["messages"]
    return [(turn["content"], turn.get("tool_name")) for turn in turns if turn["role"] == "tool"]


def calls(*names: str, ids: Sequence[str] | None = None) -> Message:
    tool_calls = [ToolCall(id_, name, "{}") for id_, name in zip(ids or names, names, strict=True)]
    return Message.assistant("", tool_calls=tool_calls)


def test_the_name_of_a_tool_is_looked_up_by_the_id_of_its_call() -> None:
    turn = calls("add", "get", ids=["c1", "c2"])
    both = Message("tool", (ToolResult("c1", "3"), ToolResult("c2", "4", name="other")))
    assert [("4", "get"), ("3", "add")] == results(
        turn, Message.tool("4", tool_call_id="c2"), Message.tool("3", tool_call_id="c1")
    )
    assert [("3", "add"), ("4", "other")] == results(turn, both)


# An Ollama that sends no ids has its calls numbered here, and each answer begins with call_0 again.
def test_a_repeated_id_names_the_tool_of_its_turn() -> None:
    conversation = (
        calls("add", ids=["call_0"]),
        Message.tool("3", tool_call_id="call_0"),
        calls("get", ids=["call_0"]),
        Message.tool("4", tool_call_id="call_0"),
    )
    assert [("3", "add"), ("4", "get")] == results(*conversation)


DEEP = b"[" * 100_000 + b"]" * 100_000


@pytest.mark.parametrize("arguments", ['{"a":', "[1]", '"x"', "x", "\ud800", DEEP.decode()])
def test_arguments_must_be_an_object(arguments: str) -> None:
    call = Message.assistant("", tool_calls=[ToolCall("c1", "add", arguments)])
    option, reason = refusal(messages=(*HI, call))
    assert "message: tool call" == option
    assert reason.startswith("message: tool call: the arguments of add must be a JSON object: ")


# --- decode: plain answers --------------------------------------------------------------------------

TIMES = {
    "total_duration": 5191566416,
    "load_duration": 2154458,
    "prompt_eval_count": 26,
    "prompt_eval_duration": 383809000,
    "eval_count": 298,
    "eval_duration": 4799921000,
}
TIMED_USAGE = Usage(
    26,
    298,
    load_seconds=about(0.002154458),
    prompt_seconds=about(0.383809),
    generation_seconds=about(4.799921),
)


def plain(message: object, **members: object) -> bytes:
    metadata = {"model": "llama3.2", "created_at": "2023-12-12T14:13:43.416799Z", "message": message}
    return dump({**metadata, "done_reason": "stop", "done": True, **members})


def decode(body: bytes) -> Completion:
    return CODEC.decode_chat(json_response(body), requested_model="asked")


def decode_message(message: Mapping[str, Any] | None = None, **members: object) -> Completion:
    return decode(plain({"role": "assistant", **(message or {})}, **members))


def test_the_documented_response_is_decoded() -> None:
    body = plain({"role": "assistant", "content": "Hello! How are you today?"}, **TIMES)
    completion = Completion(
        text="Hello! How are you today?",
        finish_reason="stop",
        usage=TIMED_USAGE,
        requested_model="asked",
        served_model="llama3.2",
        parts=(TextPart("Hello! How are you today?"),),
    )
    assert completion == decode(body)
    assert body == decode(body).raw


def test_the_documented_call_is_decoded() -> None:
    arguments = {"format": "celsius", "location": "Paris, FR"}
    tool_calls = [{"function": {"name": "get_current_weather", "arguments": arguments}}]
    completion = decode_message({"content": "", "tool_calls": tool_calls})
    call = ToolCall("zdZm0FmUo", "get_current_weather", '{"format":"celsius","location":"Paris, FR"}')
    assert ("tool_calls", "", (call,), (call,)) == (
        completion.finish_reason,
        completion.text,
        completion.tool_calls,
        completion.parts,
    )


@pytest.mark.parametrize(
    ("message", "fields"),
    [
        pytest.param({}, {"text": ""}, id="nothing"),
        pytest.param({"content": None, "thinking": None, "tool_calls": None}, {"text": ""}, id="null"),
        pytest.param(
            {"content": "a\u2028b 🎉"}, {"text": "a\u2028b 🎉", "parts": (TextPart("a\u2028b 🎉"),)}, id="text"
        ),
        pytest.param(
            {"content": "a", "thinking": "Hm."},
            {"text": "a", "reasoning": "Hm.", "parts": (ReasoningPart("Hm."), TextPart("a"))},
            id="thinking",
        ),
        pytest.param(
            {
                "tool_calls": [
                    {"id": "c1", "function": {"index": 0, "name": "f", "arguments": {"a": 1}}},
                    {"function": {"name": "g"}},
                    {"function": {"name": "h", "arguments": '{"b":2}'}},
                    {"function": {"name": "i", "arguments": {}}},
                ]
            },
            {
                "text": "",
                "finish_reason": "tool_calls",
                "tool_calls": (
                    ToolCall("c1", "f", '{"a":1}'),
                    ToolCall("AKAh7npVQ", "g", "{}"),
                    ToolCall("qJqmXQQEG", "h", '{"b":2}'),
                    ToolCall("g7l5YuJoF", "i", "{}"),
                ),
            },
            id="calls, with ids and without",
        ),
        pytest.param({"content": "a", "images": None, "x": 1}, {"text": "a", "parts": (TextPart("a"),)}, id="unknown"),
    ],
)
def test_a_message_is_decoded(message: Mapping[str, Any], fields: Mapping[str, Any]) -> None:
    expected: dict[str, Any] = {
        "finish_reason": "stop",
        "requested_model": "asked",
        "served_model": "llama3.2",
        **fields,
    }
    expected.setdefault("parts", fields.get("tool_calls", ()))
    assert Completion(**expected) == decode_message(message)


@pytest.mark.parametrize(
    ("members", "usage"),
    [
        ({}, None),
        ({"total_duration": 5, "load_duration": 5}, None),
        ({"prompt_eval_count": 26, "eval_count": 3}, Usage(26, 3)),
        ({"prompt_eval_count": 26}, Usage(26, 0)),
        (TIMES, TIMED_USAGE),
        ({"prompt_eval_count": 1, "eval_count": 1, "load_duration": 0}, Usage(1, 1, load_seconds=0.0)),
    ],
)
def test_usage_is_decoded(members: Mapping[str, Any], usage: Usage | None) -> None:
    assert usage == decode_message(**members).usage


LOGPROBS = [
    {"token": "H", "logprob": -0.5, "bytes": [72], "top_logprobs": [{"token": "H", "logprob": -0.5, "bytes": [72]}]},
    {"token": "i", "logprob": -1.0},
]
READ_LOGPROBS = (
    TokenLogprob("H", -0.5, b"H", (TokenLogprob("H", -0.5, b"H"),)),
    TokenLogprob("i", -1.0),
)


def test_log_probabilities_are_decoded() -> None:
    completion = decode_message({"content": "Hi"}, logprobs=LOGPROBS)
    assert ("Hi", READ_LOGPROBS) == (completion.text, completion.logprobs)


@pytest.mark.parametrize(
    ("has_calls", "wire", "reason"),
    [
        (False, "stop", "stop"),
        (False, "length", "length"),
        (True, "stop", "tool_calls"),
        (True, "length", "length"),
    ],
)
def test_done_reasons_are_decoded(has_calls: bool, wire: str, reason: str) -> None:
    message = {"content": "a", "tool_calls": [{"function": {"name": "f"}}] if has_calls else None}
    assert reason == decode_message(message, done_reason=wire).finish_reason


NO_REASONS = ["load", "unload", "abort", "", None]


@pytest.mark.parametrize("wire", NO_REASONS)
def test_an_incomplete_response_is_an_error(wire: str | None) -> None:
    with pytest.raises(StreamInterruptedError) as exc_info:
        decode_message({"content": "a"}, done_reason=wire)
    assert f"incomplete response: done_reason is {wire!r}" == str(exc_info.value)
    assert b'"content": "a"' in exc_info.value.body


def test_a_response_that_is_not_done_is_incomplete() -> None:
    with pytest.raises(StreamInterruptedError, match=r"^incomplete response: done_reason is 'stop'$"):
        decode_message({"content": "a"}, done=False)


@pytest.mark.parametrize(
    ("body", "error_message"),
    [
        (b'{"error":"boom"}', "boom"),
        (b'{"error":{"message":"boom","code":500}}', "boom"),
        (b'{"error":"{\\"error\\":{\\"message\\":\\"boom\\"}}"}', "boom"),
        (b'{"error":{"code":5}}', '{"error":{"code":5}}'),
        (b'{"error":"boom","message":{"content":"a"},"done":true,"done_reason":"stop"}', "boom"),
    ],
)
def test_an_error_under_a_good_status_is_an_error(body: bytes, error_message: str) -> None:
    with pytest.raises(ResponseError) as exc_info:
        decode(body)
    assert type(exc_info.value) is ResponseError
    assert f"the server sent an error under HTTP 200: {error_message}" == str(exc_info.value)
    assert body == exc_info.value.body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad Gateway</html>",
        b"{}",
        b'{"done":true,"done_reason":"stop"}',
        b'{"message":null,"done":true,"done_reason":"stop"}',
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"model":"\xff"}',
        b'{"message":["a"]}',
        b'{"message":{"content":1}}',
        b'{"message":{"tool_calls":{}}}',
        b'{"message":{"tool_calls":[{"function":{"arguments":[]}}]}}',
        b'{"message":{},"done":"true"}',
        b'{"message":{"content":"a"},"done":true,"done_reason":"stop"}{}',
        b'{"error":%b}' % DEEP,
        b'{"unknown":%b}' % DEEP,
    ],
    ids=lambda body: body[:50].decode("utf-8", "replace"),
)
def test_other_bodies_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedResponseError, match=r"^unexpected response from Ollama: ") as exc_info:
        decode(body)
    assert body == exc_info.value.body


def test_the_model_may_be_missing() -> None:
    assert decode_message(model=None).served_model is None


# The stream reads it as none (test_the_first_model_is_kept), and so do the other wires.
def test_an_empty_model_is_none() -> None:
    assert decode_message(model="").served_model is None


# --- streams ----------------------------------------------------------------------------------------


@attrs.frozen
class Outcome:
    """What came of a stream. ``failure`` is None where it was whole."""

    events: tuple[StreamEvent, ...]
    failure: tuple[type[BackendError], str] | None = None
    body: bytes = b""
    served_model: str | None = None


def decode_stream(*chunks: bytes) -> Outcome:
    decoder = CODEC.stream_decoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    events += decoder.close()
    failure = decoder.failure
    assert (failure is None) == decoder.finished, "exactly one of finished and failure"
    assert decoder.finished == any(isinstance(event, Finish) for event in events)
    assert not any(isinstance(event, Finish) for event in events[:-1]), "Finish is the last event"
    assert decoder.response_id is None, "Ollama has none"
    return Outcome(
        tuple(events),
        None if failure is None else (type(failure), str(failure)),
        getattr(failure, "body", b""),
        decoder.served_model,
    )


# The rows below are written with these. A row is what the server sends, the events, and the failure or None.


def line(**members: object) -> bytes:
    return dump(members) + b"\n"


"""The digits of the time that the examples of streams have."""


def message(**members: object) -> bytes:
    turn = {"role": "assistant", "content": "", **members}
    return line(model="llama3.2", created_at="2023-08-04T08:52:19.385406455-07:00", message=turn, done=False)


def text(*values: str) -> bytes:
    return b"".join(message(content=value) for value in values)


def wire_call(name: str, arguments: object = None, **members: object) -> dict[str, Any]:
    return {**members, "function": {"name": name, "arguments": arguments}}


def end(reason: object = "stop", **members: object) -> bytes:
    turn = {"role": "assistant", "content": ""}
    return line(**{"model": "llama3.2", "message": turn, "done_reason": reason, "done": True, **members})


A, B = TextDelta("a"), TextDelta("b")
STOP = Finish("stop")
NO_DONE = "the stream ended without a line that says done"
STREAM_ERROR = "the server sent an error in the stream: "


def spec(*, row: str, data: bytes, events: Sequence[StreamEvent], failure: str | None = None) -> Any:
    return pytest.param(data, tuple(events), failure, id=row)


SPECIFICATION = [
    # -- whole answers
    spec(row="text", data=text("The", " sky") + end(), events=[TextDelta("The"), TextDelta(" sky"), STOP]),
    spec(row="usage, with times in seconds", data=text("a") + end(**TIMES), events=[A, Finish("stop", TIMED_USAGE)]),
    spec(row="length", data=text("a") + end("length"), events=[A, Finish("length")]),
    spec(
        row="thinking, then text",
        data=message(thinking="Hm") + message(thinking=".") + text("a") + end(),
        events=[ReasoningDelta("Hm"), ReasoningDelta("."), A, STOP],
    ),
    spec(
        row="thinking and text in one line, in this order",
        data=message(content="a", thinking="Hm") + end(),
        events=[ReasoningDelta("Hm"), A, STOP],
    ),
    spec(
        row="a whole call",
        data=message(tool_calls=[wire_call("get_weather", {"city": "Tokyo"})]) + end(),
        events=[ToolCallDelta(0, "sQEPTw2Ie", "get_weather", '{"city":"Tokyo"}'), Finish("tool_calls")],
    ),
    spec(
        row="a call with an id, as newer servers send it",
        data=message(tool_calls=[wire_call("f", {}, id="call_x1")]) + end(),
        events=[ToolCallDelta(0, "call_x1", "f", "{}"), Finish("tool_calls")],
    ),
    spec(
        row="calls in one line and in the next",
        data=message(tool_calls=[wire_call("f", {"a": 1}), wire_call("g")])
        + message(tool_calls=[wire_call("h", '{"b":2}')])
        + end(),
        events=[
            ToolCallDelta(0, "csYHEpPBw", "f", '{"a":1}'),
            ToolCallDelta(1, "0g8ZUu8rE", "g", "{}"),
            ToolCallDelta(2, "ZNRkrGhzN", "h", '{"b":2}'),
            Finish("tool_calls"),
        ],
    ),
    spec(
        row="a call in the line that says done",
        data=end(message={"content": "a", "tool_calls": [wire_call("f", {})]}),
        events=[A, ToolCallDelta(0, "D8LENavGd", "f", "{}"), Finish("tool_calls")],
    ),
    spec(
        row="a call that was cut by the limit",
        data=message(tool_calls=[wire_call("f", {})]) + end("length"),
        events=[ToolCallDelta(0, "MvYwDWUKm", "f", "{}"), Finish("length")],
    ),
    spec(
        row="log-probabilities",
        data=line(message={"content": "Hi"}, logprobs=LOGPROBS, done=False) + end(),
        events=[TextDelta("Hi", READ_LOGPROBS), STOP],
    ),
    spec(
        row="log-probabilities of a token without text",
        data=line(message={"content": ""}, logprobs=LOGPROBS[1:], done=False) + end(),
        events=[TextDelta("", READ_LOGPROBS[1:]), STOP],
    ),
    spec(row="no log-probabilities", data=line(message={"content": "a"}, logprobs=[]) + end(), events=[A, STOP]),
    spec(row="text in the line that says done", data=end(message={"content": "a"}), events=[A, STOP]),
    spec(row="no message in the line that says done", data=text("a") + end(message=None), events=[A, STOP]),
    spec(row="no text at all", data=end(), events=[STOP]),
    spec(
        row="null and empty members are no events",
        data=message(content=None, thinking="", tool_calls=[]) + end(),
        events=[STOP],
    ),
    spec(
        row="multi-byte characters and U+2028",
        data=text("漢🎉", "a\u2028b\x85c") + end(),
        events=[TextDelta("漢🎉"), TextDelta("a\u2028b\x85c"), STOP],
    ),
    spec(row="the last line without its end", data=text("a") + end().rstrip(b"\n"), events=[A, STOP]),
    spec(row="CRLF", data=(text("a") + end()).replace(b"\n", b"\r\n"), events=[A, STOP]),
    spec(row="empty lines", data=b"\n \n" + text("a") + b"\r\n\t\n\n" + end() + b"\n", events=[A, STOP]),
    spec(row="spaces around a line", data=b"  " + end().rstrip(b"\n") + b" \t\n", events=[STOP]),
    spec(row="what follows done is not read", data=end() + text("a") + line(error="boom") + b"x\n", events=[STOP]),
    spec(row="lines of unknown members", data=line(status="pulling", x=[1]) + line() + end(), events=[STOP]),
    spec(row="unknown, with texts that are no UTF-8", data=b'{"x":"\xff"}\n' + end(), events=[STOP]),
    spec(row="error null is no error", data=line(error=None) + end(), events=[STOP]),
    # -- answers that never become whole
    spec(row="nothing at all", data=b"", events=[], failure=NO_DONE),
    spec(row="empty lines alone", data=b"\n\n", events=[], failure=NO_DONE),
    spec(row="the end without done", data=text("a"), events=[A], failure=NO_DONE),
    spec(
        row="the end without done, and without the end of the line",
        data=text("a") + text("b").rstrip(b"\n"),
        events=[A, B],
        failure=NO_DONE,
    ),
    spec(
        row="a done_reason without done",
        data=line(message={"content": "a"}, done_reason="stop", done=False),
        events=[A],
        failure=NO_DONE,
    ),
    *(
        spec(
            row=f"done_reason {reason!r}",
            data=text("a") + end(reason) + text("b") + end(),
            events=[A],
            failure=f"the server ended the response with done_reason {reason!r}",
        )
        for reason in NO_REASONS
    ),
    spec(
        row="done_reason is missing, as in docs/api.md",
        data=text("a") + line(model="llama3.2", done=True, **TIMES),
        events=[A],
        failure="the server ended the response with done_reason None",
    ),
    # -- errors in the stream
    spec(
        row="an error as a text", data=text("a") + line(error="boom") + end(), events=[A], failure=STREAM_ERROR + "boom"
    ),
    spec(
        row="an error as an object",
        data=text("a") + line(error={"message": "boom", "code": 500}) + end(),
        events=[A],
        failure=STREAM_ERROR + "boom",
    ),
    spec(
        row="an error of the server behind it, as a text",
        data=line(error='{"error":{"code":500,"message":"boom"}}') + end(),
        events=[],
        failure=STREAM_ERROR + "boom",
    ),
    spec(
        row="an error without a message",
        data=line(error={"code": 5}) + end(),
        events=[],
        failure=STREAM_ERROR + '{"error": {"code": 5}}',
    ),
    spec(
        row="an error beside done",
        data=line(error="boom", done=True, done_reason="stop", message={"content": "a"}),
        events=[],
        failure=STREAM_ERROR + "boom",
    ),
    spec(
        row="an error without the end of its line",
        data=line(error="boom")[:-1],
        events=[],
        failure=STREAM_ERROR + "boom",
    ),
]


@pytest.mark.parametrize(("data", "events", "failure"), SPECIFICATION)
def test_stream(data: bytes, events: tuple[StreamEvent, ...], failure: str | None) -> None:
    outcome = decode_stream(data)
    assert events == outcome.events
    assert (None if failure is None else (StreamInterruptedError, failure)) == outcome.failure
    assert outcome == decode_stream(*split_bytes(data))
    for position in range(len(data) + 1):
        assert outcome == decode_stream(data[:position], data[position:])


@pytest.mark.parametrize(
    "data",
    [
        b"x",
        b"{",
        b"null",
        b"[]",
        b"data: {}",
        b'{"done":1}',
        b'{"message":["a"]}',
        b'{"message":{"content":1}}',
        b'{"message":{"content":"\xff"}}',
        b'{"message":{"tool_calls":[{"function":{"arguments":[]}}]}}',
        b"{}{}",
        b'{"error":%b}' % DEEP,
        b'{"x":%b}' % DEEP,
    ],
    ids=lambda data: data[:60].decode("utf-8", "replace"),
)
def test_a_malformed_line_is_a_failure_of_the_stream(data: bytes) -> None:
    outcome = decode_stream(text("a") + data + b"\n" + text("b") + end())
    assert (A,) == outcome.events
    assert outcome.failure is not None
    assert StreamInterruptedError is outcome.failure[0]
    assert outcome.failure[1].startswith("a line of the stream is malformed: ")
    assert data == outcome.body


def test_a_truncated_line_is_a_failure() -> None:
    outcome = decode_stream(text("a") + text("b")[:-10])
    assert (A,) == outcome.events
    assert outcome.failure is not None
    assert outcome.failure[1].startswith("a line of the stream is malformed: ")


def test_a_truncated_stream_keeps_the_beginning_of_its_last_line() -> None:
    assert text("a").rstrip() == decode_stream(text("b") + text("a") + b"\n").body
    assert 512 == len(decode_stream(text("x" * 1000)).body)


def test_a_context_overflow_inside_a_stream() -> None:
    decoder = OllamaStreamDecoder()
    assert [] == decoder.feed(line(error="the input exceeds the context length"))
    assert isinstance(decoder.failure, ContextOverflowError)
    assert [] == decoder.close()


def test_the_first_model_is_kept() -> None:
    lines = line(model="", message={"content": "a"}) + line(model="one") + line(model="two") + end(model="three")
    assert "one" == decode_stream(lines).served_model
    assert decode_stream(end(model="")).served_model is None
    decoder = OllamaStreamDecoder()
    decoder.feed(text("a"))
    assert "llama3.2" == decoder.served_model


def test_lines_are_decoded_at_once_and_none_after_a_failure() -> None:
    decoder = OllamaStreamDecoder()
    assert [] == decoder.feed(text("a")[:-1])
    assert [A] == decoder.feed(b"\n")
    assert [A, B] == decoder.feed(text("a", "b") + line(error="boom") + text("a"))
    failure = decoder.failure
    assert isinstance(failure, StreamInterruptedError)
    assert b'{"error": "boom"}' == failure.body
    assert [] == decoder.feed(text("a") + end())
    assert [] == decoder.close()
    assert failure is decoder.failure
    assert not decoder.finished


def test_done_finishes_once() -> None:
    decoder = OllamaStreamDecoder()
    assert [] == decoder.feed(end()[:-1])
    assert not decoder.finished
    assert [STOP] == decoder.feed(b"\n")
    assert decoder.finished
    assert [] == decoder.feed(end())
    assert [] == decoder.close()
    assert [] == decoder.close()


@pytest.mark.parametrize("tail", [pytest.param(b"\n", id="fed"), pytest.param(b"", id="not ended")])
def test_a_line_over_the_limit_is_a_failure(tail: bytes) -> None:
    decoder = OllamaStreamDecoder()
    assert [A] == decoder.feed(text("a"))
    assert [] == decoder.feed(b'{"x":"' + b"x" * MAX_BODY_BYTES + tail)
    assert isinstance(decoder.failure, ResponseTooLargeError)
    assert [] == decoder.feed(end())
    assert [] == decoder.close()
    assert not decoder.finished


def test_a_large_line_is_read() -> None:
    large = "x" * (MAX_BODY_BYTES // 2)
    assert (TextDelta(large), STOP) == decode_stream(text(large) + end()).events


def test_a_stream_accumulates_to_the_completion_of_the_plain_response() -> None:
    accumulator = Accumulator()
    tools = [wire_call("f", {"a": 1}, id="c1"), wire_call("g", {}, id="c2")]
    outcome = decode_stream(message(thinking="Hm.") + text("a", "b") + message(tool_calls=tools) + end(eval_count=3))
    for event in outcome.events:
        accumulator.add(event)
    streamed = accumulator.completion(requested_model="asked", served_model=outcome.served_model, response_id=None)
    assert streamed == decode_message({"content": "ab", "thinking": "Hm.", "tool_calls": tools}, eval_count=3)


# --- whatever comes ---------------------------------------------------------------------------------

cuts = st.lists(st.integers(0, 10_000), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
messages = st.fixed_dictionaries(
    {},
    optional={
        "content": st.text(max_size=5) | json_values,
        "thinking": st.text(max_size=5) | json_values,
        "tool_calls": st.lists(
            st.fixed_dictionaries(
                {"function": st.fixed_dictionaries({}, optional={"name": st.text(), "arguments": json_values})}
            ),
            max_size=2,
        )
        | json_values,
    },
)
lines = st.fixed_dictionaries(
    {},
    optional={
        "model": st.text(max_size=5) | json_values,
        "message": messages | json_values,
        "done": st.booleans() | json_values,
        "done_reason": st.sampled_from(["stop", "length", "load"]) | json_values,
        "eval_count": st.integers() | json_values,
        "load_duration": st.integers() | json_values,
        "logprobs": json_values,
        "error": json_values,
    },
)
fragments = (
    st.binary(max_size=20)
    | st.sampled_from([end(), end("load"), text("a"), message(thinking="b"), line(error="x"), b"\n", b"\r", b"\r\n"])
    | lines.map(lambda value: dump(value) + b"\n")
)


@settings(deadline=None)
@given(st.lists(fragments, max_size=8).map(b"".join), cuts)
def test_any_stream_either_finishes_or_fails(data: bytes, positions: list[int]) -> None:
    outcome = repr(decode_stream(data))  # checks it, and that nothing is raised; NaN is not equal to itself
    assert outcome == repr(decode_stream(*split_at(data, positions)))
    assert outcome == repr(decode_stream(*split_bytes(data)))


@settings(deadline=None)
@given(st.binary() | lines.map(dump))
def test_any_body_is_decoded_or_raises_our_errors(body: bytes) -> None:
    with suppress(BackendError):
        decode(body)


# --- models -----------------------------------------------------------------------------------------

TAGS_REQUEST, PS_REQUEST = HTTPRequest("GET", "/api/tags"), HTTPRequest("GET", "/api/ps")
VERSION_REQUEST = HTTPRequest("GET", "/api/version")
TAGS = {
    "models": [
        {
            "name": "codellama:13b",
            "modified_at": "2023-11-04T14:56:49.277302595-07:00",
            "size": 7365960935,
            "details": {"format": "gguf", "family": "llama", "families": None, "parameter_size": "13B"},
        },
        {"name": "llama3:latest", "modified_at": "2023-12-07T09:32:18.757212583-08:00", "size": 3825819519},
    ]
}
PS = {
    "models": [
        {
            "name": "llama3:latest",
            "model": "llama3:latest",
            "size": 5137025024,
            "expires_at": "2024-06-04T14:38:31.83753-07:00",
            "size_vram": 5137025024,
            "context_length": 4096,
        },
        {"name": "mistral:7b", "model": "mistral:7b"},
    ]
}
NONE: dict[str, Any] = {"models": []}
SHOW = {
    "details": {"family": "llama"},
    "model_info": {
        "general.architecture": "llama",
        "llama.block_count": 32,
        "llama.context_length": 8192,
        "tokenizer.ggml.model": "gpt2",
    },
}


def test_models_are_listed_with_what_is_in_memory() -> None:
    requests, models = play(ollama_server.list_models(), json_response(TAGS), json_response(PS))
    assert [TAGS_REQUEST, PS_REQUEST] == requests
    assert (
        ModelInfo(id="codellama:13b", state="unloaded", parameters=13_000_000_000),
        ModelInfo(id="llama3:latest", aliases=("llama3",), context_length=4096, state="loaded"),
    ) == models


def test_the_context_of_a_loaded_model_may_be_missing() -> None:
    """As in the example of /api/ps in docs/api.md."""
    _, models = play(
        ollama_server.list_models(),
        json_response(TAGS),
        json_response({"models": [{"name": "codellama:13b", "size": 5}]}),
    )
    assert ModelInfo(id="codellama:13b", state="loaded", parameters=13_000_000_000) == models[0]


@pytest.mark.parametrize("body", [NONE, {"models": None}, {}])
def test_an_empty_model_list_is_an_error(body: object) -> None:
    with pytest.raises(EmptyModelListError, match=r"^the server lists no model$"):
        play(ollama_server.list_models(), json_response(body))


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"models":{}}', b'{"models":[{}]}', b'{"models":["m"]}'])
def test_other_bodies_of_a_model_list_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedResponseError, match=r"^unexpected response from Ollama: "):
        play(ollama_server.list_models(), json_response(body))


def test_an_error_of_the_list_is_raised() -> None:
    with pytest.raises(InternalServerError):
        play(ollama_server.list_models(), json_response(TAGS), json_response({"error": "boom"}, 500))


# --- status -----------------------------------------------------------------------------------------


def show(model: str) -> HTTPRequest:
    return HTTPRequest("POST", "/api/show", json.dumps({"model": model}, separators=(",", ":")).encode())


def ready(**fields: Any) -> ServerStatus:
    return ServerStatus(state="ready", version="0.32.1", **fields)


LOADED_MODELS = ("llama3:latest", "mistral:7b")


@pytest.mark.parametrize(
    ("model", "ps_body", "show_response", "status"),
    [
        pytest.param(None, NONE, None, ready(), id="nothing is loaded, and no model is asked for"),
        pytest.param(None, {}, None, ready(), id="nothing is told"),
        pytest.param(
            None, PS, None, ready(model="llama3:latest", models=LOADED_MODELS, context_length=4096), id="the first"
        ),
        pytest.param(
            "llama3:latest",
            PS,
            json_response(SHOW),
            ready(model="llama3:latest", models=LOADED_MODELS, context_length=4096, max_context_length=8192),
            id="a loaded model",
        ),
        pytest.param(
            "llama3",
            PS,
            json_response(SHOW),
            ready(model="llama3", models=LOADED_MODELS, context_length=4096, max_context_length=8192),
            id="a loaded model, untagged",
        ),
        pytest.param(
            "mistral:7b",
            PS,
            json_response(SHOW),
            ready(model="mistral:7b", models=LOADED_MODELS, max_context_length=8192),
            id="a loaded model whose context is untold",
        ),
        pytest.param(
            "other",
            PS,
            json_response(SHOW),
            ready(model="other", models=LOADED_MODELS, max_context_length=8192),
            id="not loaded",
        ),
        pytest.param("other", NONE, json_response({}), ready(model="other"), id="nothing is known of it"),
        pytest.param(
            "other",
            NONE,
            json_response({"model_info": {"general.parameter_count": 134515008}, "details": {"parameter_size": "9B"}}),
            ready(model="other", parameters=134_515_008),
            id="its exact size",
        ),
        pytest.param(
            "other",
            NONE,
            json_response({"details": {"parameter_size": "134.52M"}}),
            ready(model="other", parameters=134_520_000),
            id="its size as text",
        ),
        pytest.param(
            None,
            {"models": [{"name": "m", "details": {"parameter_size": "7.6B"}}]},
            None,
            ready(model="m", models=("m",), parameters=7_600_000_000),
            id="the size of the loaded model",
        ),
        pytest.param(
            "other",
            NONE,
            json_response({"details": ["8B"], "model_info": {"general.parameter_count": "many"}}),
            ready(model="other"),
            id="a size of another type",
        ),
        pytest.param(
            "other",
            NONE,
            json_response({"model_info": {"llama.context_length": "8192", "x.context_length": None}}),
            ready(model="other"),
            id="a context that is no number",
        ),
        pytest.param(
            "other",
            NONE,
            json_response({"error": "model 'other' not found"}, 404),
            ready(model="other"),
            id="a model that is not there",
        ),
    ],
)
def test_the_status_is(model: str | None, ps_body: object, show_response: Any, status: ServerStatus) -> None:
    answers = [
        json_response({"version": "0.32.1"}),
        json_response(ps_body),
        *([show_response] if show_response is not None else []),
    ]
    requests, actual = play(ollama_server.status(model), *answers)
    assert status == actual
    assert [VERSION_REQUEST, PS_REQUEST, *([show(model)] if show_response is not None and model else [])] == requests


def test_the_version_may_be_missing() -> None:
    assert ServerStatus(state="ready") == play(ollama_server.status(None), json_response({}), json_response(NONE))[1]


# --- load and unload --------------------------------------------------------------------------------

CHAT = {"model": "m", "messages": [], "stream": False}
LOAD_ANSWER = json_response({"model": "m", "message": {"role": "assistant", "content": ""}, "done_reason": "load"})


@pytest.mark.parametrize(
    ("context_length", "keep_alive", "more"),
    [
        (None, None, {}),
        (8192, None, {"options": {"num_ctx": 8192}}),
        (None, 90.0, {"keep_alive": "90s"}),
        (None, 0.0, {"keep_alive": "0s"}),
        (8192, math.inf, {"options": {"num_ctx": 8192}, "keep_alive": -1}),
    ],
)
def test_a_chat_without_messages_loads_the_model(
    context_length: int | None, keep_alive: float | None, more: Mapping[str, Any]
) -> None:
    steps = ollama_server.load("m", context_length=context_length, keep_alive=keep_alive)
    (request,), result = play(steps, LOAD_ANSWER)
    assert ("POST", "/api/chat", {**CHAT, **more}, None) == (request.method, request.path, body_of(request), result)


def test_a_chat_with_keep_alive_0_unloads_the_model() -> None:
    (request,), _ = play(ollama_server.unload("m"), LOAD_ANSWER)
    assert ("POST", "/api/chat", {**CHAT, "keep_alive": 0}) == (request.method, request.path, body_of(request))


# --- embeddings -------------------------------------------------------------------------------------


def embed(*texts: str, body: object, dimensions: int | None = None, settings_: WireSettings | None = None) -> Any:
    steps = ollama_server.embed(
        texts, model="asked", dimensions=dimensions, encoding=None, settings=settings_ or WireSettings()
    )
    (request,), embeddings = play(steps, json_response(body))
    assert ("POST", "/api/embed") == (request.method, request.path)
    return body_of(request), embeddings


EMBED_BODY = {
    "model": "all-minilm",
    "embeddings": [[0.01, -0.5], [1, 2]],
    "total_duration": 14143917,
    "load_duration": 1019500,
    "prompt_eval_count": 8,
}
EMBED_REQUEST = {"model": "asked", "input": ["a", "漢"], "truncate": False}


@pytest.mark.parametrize(
    ("dimensions", "settings_", "more"),
    [
        (None, WireSettings(), {}),
        (8, WireSettings(), {"dimensions": 8}),
        (None, WireSettings(context_length=512), {"options": {"num_ctx": 512}}),
        (None, WireSettings(keep_alive=60), {"keep_alive": "60s"}),
        (None, WireSettings(keep_alive=math.inf), {"keep_alive": -1}),
    ],
)
def test_embeddings_are_requested(dimensions: int | None, settings_: WireSettings, more: Mapping[str, Any]) -> None:
    body, _ = embed("a", "漢", body=EMBED_BODY, dimensions=dimensions, settings_=settings_)
    assert {**EMBED_REQUEST, **more} == body


def test_embeddings_are_decoded() -> None:
    _, embeddings = embed("a", "b", body=EMBED_BODY)
    assert (
        Embeddings(
            vectors=((0.01, -0.5), (1.0, 2.0)),
            requested_model="asked",
            served_model="all-minilm",
            usage=Usage(8, 0, load_seconds=about(0.0010195)),
        )
        == embeddings
    )


@pytest.mark.parametrize(
    ("members", "usage"), [({}, None), ({"load_duration": 5}, None), ({"prompt_eval_count": 3}, Usage(3, 0))]
)
def test_the_usage_of_embeddings_may_be_missing(members: Mapping[str, Any], usage: Usage | None) -> None:
    assert usage == embed("a", body={"embeddings": [[1.0]], **members})[1].usage


@pytest.mark.parametrize(
    ("vectors", "texts"), [([[1.0]], "ab"), ([[1.0], [2.0]], "a"), ([], "a"), ([[1.0]], "")], ids=str
)
def test_each_input_needs_one_vector(vectors: Sequence[object], texts: str) -> None:
    with pytest.raises(MalformedResponseError) as exc_info:
        embed(*texts, body={"embeddings": vectors})
    assert f"{len(vectors)} vectors received for {len(texts)} inputs" == str(exc_info.value)
    assert b'"embeddings"' in exc_info.value.body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"{}",
        b'{"embeddings":null}',
        b'{"embeddings":[1.0]}',
        b'{"embeddings":[["a"]]}',
    ],
)
def test_other_bodies_of_embeddings_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedResponseError, match=r"^unexpected response from Ollama: "):
        embed("a", body=body)


def test_an_error_instead_of_embeddings_is_raised() -> None:
    with pytest.raises(ResponseError, match="boom"):
        embed("a", body=b'{"error":"boom"}')


@settings(deadline=None)
@given(st.binary() | lines.map(dump))
def test_any_status_is_decoded_or_raises_our_errors(body: bytes) -> None:
    for steps in (ollama_server.list_models(), ollama_server.status("m")):
        with suppress(BackendError):
            drive(steps, lambda _: json_response(body))
    with suppress(BackendError):
        embed("a", body=body)
