"""Anthropic's Messages API: what is sent for every option and part, and what every answer, whole or streamed, is read
as. The recordings are of servers that speak the same format; what the vendor alone sends is written after its
documentation: https://platform.claude.com/docs/en/build-with-claude/streaming"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxbackends._chat.events import CitationDelta, Finish, ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta
from ctxbackends._chat.media import ImagePart
from ctxbackends._chat.messages import Message, OpaquePart, ReasoningPart, TextPart, ToolCall, ToolResult
from ctxbackends._chat.requests import ChatRequest, JSONSchemaFormat, NamedTool, Tool
from ctxbackends._chat.responses import Citation, Completion, Usage
from ctxbackends._chat.servers import ModelInfo, ServerStatus
from ctxbackends._profiles.option_support import (
    ANTHROPIC_MESSAGES,
    COMPATIBLE_MESSAGES,
    LLAMACPP_MESSAGES,
    VLLM_MESSAGES,
)
from ctxbackends._wire.accumulator import Accumulator
from ctxbackends._wire.base import MAX_BODY_BYTES, HTTPRequest, HTTPResponse
from ctxbackends._wire.errors import error_from_response
from ctxbackends._wire.formats.anthropic_messages import AnthropicCodec
from ctxbackends._wire.formats.anthropic_stream import AnthropicStreamDecoder
from ctxbackends._wire.operations import anthropic as anthropic_server
from ctxbackends.errors import (
    BackendError,
    ContextOverflowError,
    EmptyModelListError,
    MalformedResponseError,
    ModelNotFoundError,
    ResponseError,
    ResponseTooLargeError,
    StreamInterruptedError,
    UnsupportedOptionError,
)
from tests.operations import body_of, json_response, play
from tests.splitting import split_at, split_bytes

RECORDINGS = Path(__file__).parent / "recordings" / "messages"
VERSION = {"anthropic-version": "2023-06-01"}
CODEC = AnthropicCodec(table=ANTHROPIC_MESSAGES, own_key=True)
VLLM = AnthropicCodec(table=VLLM_MESSAGES)
LLAMACPP = AnthropicCodec(table=LLAMACPP_MESSAGES)
COMPATIBLE = AnthropicCodec(table=COMPATIBLE_MESSAGES)


def recording(name: str) -> bytes:
    return (RECORDINGS / name).read_bytes()


def dump(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode()


# --- encode: options --------------------------------------------------------------------------------

HI = (Message.user("Hi"),)
MINIMAL: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 4096}
CLOSED = {"additionalProperties": False}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 1}}} | CLOSED
ADD = Tool("add", "Adds.", {"type": "object", "properties": {}})
GET = Tool("get", "", {"type": "object"}, strict=True)
WIRE_ADD = {"name": "add", "description": "Adds.", "input_schema": {"type": "object", "properties": {}}}
WIRE_GET = {"name": "get", "description": "", "input_schema": {"type": "object"}, "strict": True}
PNG = b"\x89PNG\r\n\x1a\n..."

EFFORT = {"output_config": {"effort": "low"}, "thinking": {"type": "adaptive"}, "max_tokens": 4096 + 12_288}
"""The members of ``reasoning_effort="low"``."""


def encode(codec: AnthropicCodec = CODEC, *, stream: bool = False, **options: Any) -> Any:
    return body_of(codec.encode_chat(ChatRequest(**{"messages": HI, "model": "m", **options}), stream=stream))


def test_a_request_is_a_post_with_the_version_of_the_api() -> None:
    request = CODEC.encode_chat(ChatRequest(messages=HI, model="m"), stream=False)
    body = b'{"model":"m","messages":[{"role":"user","content":"Hi"}],"max_tokens":4096}'
    assert HTTPRequest("POST", "/v1/messages", body, VERSION) == request


@pytest.mark.parametrize(
    ("options", "more"),
    [
        pytest.param({}, {}, id="what is unset is not sent, and max_tokens is 4096"),
        pytest.param({"max_tokens": 7}, {"max_tokens": 7}, id="max_tokens"),
        pytest.param({"temperature": 0.0}, {"temperature": 0.0}, id="temperature 0"),
        pytest.param({"temperature": 1.0}, {"temperature": 1.0}, id="the highest temperature"),
        pytest.param({"top_p": 0.9}, {"top_p": 0.9}, id="top_p"),
        pytest.param({"top_k": 5}, {"top_k": 5}, id="top_k"),
        pytest.param({"stop_sequences": ("a", "b")}, {"stop_sequences": ["a", "b"]}, id="stop_sequences"),
        pytest.param({"stop_sequences": ()}, {}, id="no stop_sequences"),
        pytest.param({"reasoning_effort": "low"}, EFFORT, id="reasoning_effort"),
        pytest.param(
            {"reasoning_effort": "max", "max_tokens": 99},
            {**EFFORT, "max_tokens": 99, "output_config": {"effort": "max"}},
            id="max_tokens is sent as it is",
        ),
        pytest.param({"reasoning_effort": "none"}, {"thinking": {"type": "disabled"}}, id="no reasoning at all"),
        pytest.param(
            {"reasoning_budget": 2048, "max_tokens": 3000},
            {"thinking": {"type": "enabled", "budget_tokens": 2048}, "max_tokens": 3000},
            id="reasoning_budget",
        ),
        pytest.param(
            {"reasoning_effort": "high", "reasoning_budget": 2048},
            {
                "output_config": {"effort": "high"},
                "thinking": {"type": "enabled", "budget_tokens": 2048},
                "max_tokens": 4096 + 2048,
            },
            id="effort and budget",
        ),
        pytest.param(
            {"response_format": JSONSchemaFormat("thing", SCHEMA)},
            {"output_config": {"format": {"type": "json_schema", "schema": SCHEMA}}},
            id="a schema goes as it is",
        ),
        pytest.param(
            {"response_format": JSONSchemaFormat("thing", SCHEMA, checked=True)},
            {
                "output_config": {
                    "format": {
                        "type": "json_schema",
                        "schema": {
                            "type": "object",
                            "properties": {"a": {"type": "integer", "description": "(minimum: 1)"}},
                            **CLOSED,
                        },
                    }
                }
            },
            id="a schema that is checked here has its constraints in words",
        ),
        pytest.param(
            {"reasoning_effort": "low", "response_format": JSONSchemaFormat("thing", SCHEMA)},
            {**EFFORT, "output_config": {"effort": "low", "format": {"type": "json_schema", "schema": SCHEMA}}},
            id="effort beside a schema",
        ),
        pytest.param({"extra_body": {"top_k": 5}}, {"top_k": 5}, id="extra_body"),
        pytest.param(
            {"reasoning_effort": "low", "extra_body": {"output_config": {"x": 1}}},
            {**EFFORT, "output_config": {"effort": "low", "x": 1}},
            id="extra_body beside an option in the same object",
        ),
        pytest.param(
            {"extra_body": {"thinking": {"type": "adaptive"}, "metadata": {"user_id": "u"}}},
            {"thinking": {"type": "adaptive"}, "metadata": {"user_id": "u"}},
            id="extra_body that no option knows",
        ),
    ],
)
def test_options_are_encoded(options: Mapping[str, Any], more: Mapping[str, Any]) -> None:
    assert {**MINIMAL, **more} == encode(**options)


def test_a_stream_is_requested() -> None:
    assert {**MINIMAL, "stream": True} == encode(stream=True)


def test_a_checked_schema_keeps_its_constraints_where_the_server_enforces_them() -> None:
    body = encode(VLLM, response_format=JSONSchemaFormat("thing", SCHEMA, checked=True))
    assert {"format": {"type": "json_schema", "schema": SCHEMA}} == body["output_config"]


@pytest.mark.parametrize(
    ("schema", "sent"),
    [
        ({"properties": {"a": {"type": "string"}}}, {"properties": {"a": {"type": "string"}}} | CLOSED),
        ({"type": ["object", "null"]}, {"type": ["object", "null"]} | CLOSED),
        ({"type": "object", "additionalProperties": True}, {"type": "object"} | CLOSED),
        (
            {"type": "array", "items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"type": "object"}}},
            {"type": "array", "items": {"$ref": "#/$defs/a"}, "$defs": {"a": {"type": "object"} | CLOSED}},
        ),
        ({"anyOf": [{"type": "object"}, {"type": "null"}]}, {"anyOf": [{"type": "object"} | CLOSED, {"type": "null"}]}),
    ],
    ids=str,
)
def test_open_objects_of_a_schema_are_closed(schema: Mapping[str, Any], sent: Mapping[str, Any]) -> None:
    body = encode(response_format=JSONSchemaFormat("thing", schema))
    assert {"format": {"type": "json_schema", "schema": sent}} == body["output_config"]


@pytest.mark.parametrize(
    "schema",
    [
        {"type": "object", "additionalProperties": {"type": "integer"}},  # closed, it would allow only {}
        {"allOf": [{"properties": {"a": {}}}, {"properties": {"b": {}}}]},  # closed, they would exclude each other
        {"const": {"type": "object"}},
        {"type": "string", "default": {"type": "object"}},
    ],
    ids=str,
)
def test_a_schema_that_closing_would_change_is_sent_unchanged(schema: Mapping[str, Any]) -> None:
    body = encode(response_format=JSONSchemaFormat("thing", schema))
    assert {"format": {"type": "json_schema", "schema": schema}} == body["output_config"]


# Anthropic: budget_tokens must be less than max_tokens, https://platform.claude.com/docs/en/build-with-claude/extended-thinking
def test_the_default_max_tokens_leaves_room_for_reasoning() -> None:
    assert 8192 < encode(reasoning_budget=8192)["max_tokens"]


@pytest.mark.parametrize(
    ("options", "more"),
    [
        pytest.param({"tools": (ADD, GET)}, {"tools": [WIRE_ADD, WIRE_GET]}, id="tools, one of them strict"),
        pytest.param({"tool_choice": "auto"}, {}, id="a choice without tools"),
        pytest.param({"tools": (ADD,), "tool_choice": "auto"}, {"tool_choice": {"type": "auto"}}, id="auto"),
        pytest.param({"tools": (ADD,), "tool_choice": "none"}, {"tool_choice": {"type": "none"}}, id="none"),
        pytest.param({"tools": (ADD,), "tool_choice": "required"}, {"tool_choice": {"type": "any"}}, id="required"),
        pytest.param(
            {"tools": (ADD, GET), "tool_choice": NamedTool("get")},
            {"tools": [WIRE_ADD, WIRE_GET], "tool_choice": {"type": "tool", "name": "get"}},
            id="named",
        ),
        pytest.param(
            {"tools": (ADD,), "parallel_tool_calls": False},
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
            id="one call at a time",
        ),
        pytest.param(
            {"tools": (ADD,), "parallel_tool_calls": True},
            {"tool_choice": {"type": "auto", "disable_parallel_tool_use": False}},
            id="several calls at a time",
        ),
        pytest.param(
            {"tools": (ADD,), "parallel_tool_calls": False, "tool_choice": "required"},
            {"tool_choice": {"type": "any", "disable_parallel_tool_use": True}},
            id="one call, which is required",
        ),
        pytest.param(
            {"tools": (ADD,), "parallel_tool_calls": False, "tool_choice": NamedTool("add")},
            {"tool_choice": {"type": "tool", "name": "add", "disable_parallel_tool_use": True}},
            id="one call of one tool",
        ),
        pytest.param(
            {"tools": (ADD,), "parallel_tool_calls": False, "tool_choice": "none"},
            {"tool_choice": {"type": "none"}},
            id="no call at all, so that their number is no matter",
        ),
    ],
)
def test_tools_are_encoded(options: Mapping[str, Any], more: Mapping[str, Any]) -> None:
    tools = {"tools": [WIRE_ADD]} if options.get("tools") else {}
    assert {**MINIMAL, **tools, **more} == encode(**options)


@pytest.mark.parametrize(
    ("choice", "more"),
    [
        pytest.param("none", {}, id="none: the tools are left out"),
        pytest.param(
            NamedTool("get"),
            {"tools": [WIRE_GET], "tool_choice": {"type": "any"}},
            id="named: it is the only one offered, and has to be called",
        ),
    ],
)
def test_tool_choices_that_llama_server_ignores_are_enforced(choice: Any, more: Mapping[str, Any]) -> None:
    assert {**MINIMAL, **more} == encode(LLAMACPP, tools=(ADD, GET), tool_choice=choice)


@pytest.mark.parametrize(
    ("codec", "headers"),
    [
        pytest.param(CODEC, {"x-api-key": "k"}, id="Anthropic"),
        pytest.param(VLLM, {"Authorization": "Bearer k"}, id="another server"),
    ],
)
def test_the_key_is_sent_in_one_header(codec: AnthropicCodec, headers: Mapping[str, str]) -> None:
    assert headers == codec.auth_headers("k")


def test_encoding_does_not_change_the_request() -> None:
    extra = {"output_config": {"x": 1}}
    request = ChatRequest(
        messages=HI,
        model="m",
        reasoning_effort="low",
        response_format=JSONSchemaFormat("s", SCHEMA, checked=True),
        tools=(ADD,),
        extra_body=extra,
    )
    before = json.dumps([SCHEMA, extra])
    assert CODEC.encode_chat(request, stream=True) == CODEC.encode_chat(request, stream=True)
    assert before == json.dumps([SCHEMA, extra])


# add_extra merges into the caller's own schema, of which the body holds the object itself. The same at Ollama
# (`format`) and in the OpenAI format (`response_format.json_schema.schema`).
def test_extra_body_does_not_change_the_schema() -> None:
    schema: dict[str, Any] = {"type": "object"}
    extra = {"output_config": {"format": {"schema": {"title": "t"}}}}
    with suppress(UnsupportedOptionError):
        encode(response_format=JSONSchemaFormat("s", schema), extra_body=extra)
    assert {"type": "object"} == schema


# --- encode: messages -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "wire"),
    [
        pytest.param(Message.user("漢 🎉"), {"role": "user", "content": "漢 🎉"}, id="user"),
        pytest.param(
            Message.user(["a", "b"]),
            {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]},
            id="user, in parts",
        ),
        pytest.param(
            Message.user(["Look:", ImagePart.from_bytes(PNG)]),
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "Look:"},
                    {
                        "type": "image",
                        "source": {"type": "base64", "media_type": "image/png", "data": "iVBORw0KGgouLi4="},
                    },
                ],
            },
            id="an image as data",
        ),
        pytest.param(
            Message.user([ImagePart.from_url("https://example.org/a.png")]),
            {
                "role": "user",
                "content": [{"type": "image", "source": {"type": "url", "url": "https://example.org/a.png"}}],
            },
            id="an image by its URL",
        ),
        pytest.param(Message.assistant("A"), {"role": "assistant", "content": "A"}, id="assistant"),
        pytest.param(
            Message.assistant("A", tool_calls=[ToolCall("c1", "add", '{"a": 1}')]),
            {
                "role": "assistant",
                "content": [
                    {"type": "text", "text": "A"},
                    {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": 1}},
                ],
            },
            id="a text and a call",
        ),
        pytest.param(
            Message.assistant("", tool_calls=[ToolCall("c1", "add", "")]),
            {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "add", "input": {}}]},
            id="a call without arguments",
        ),
        pytest.param(
            Message.assistant([ReasoningPart("Hm.", signature="s"), "A", ReasoningPart("", redacted="r"), "B"]),
            {
                "role": "assistant",
                "content": [
                    {"type": "thinking", "thinking": "Hm.", "signature": "s"},
                    {"type": "text", "text": "A"},
                    {"type": "redacted_thinking", "data": "r"},
                    {"type": "text", "text": "B"},
                ],
            },
            id="reasoning, in its order",
        ),
        pytest.param(
            Message.assistant([ReasoningPart("", signature="s")]),
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "", "signature": "s"}]},
            id="reasoning of which only the signature came",
        ),
        pytest.param(
            Message.tool("3", tool_call_id="c1", name="add"),
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "3"}]},
            id="a tool's result",
        ),
        pytest.param(
            Message.tool("no", tool_call_id="c1", is_error=True),
            {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "no", "is_error": True}],
            },
            id="a tool that failed",
        ),
    ],
)
def test_messages_are_encoded(message: Message, wire: Mapping[str, Any]) -> None:
    assert [{"role": "user", "content": "Hi"}, wire] == encode(messages=(*HI, message))["messages"]


def result(name: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": name, "content": name}


def tool(name: str) -> Message:
    return Message.tool(name, tool_call_id=name)


CALLS = Message.assistant("", tool_calls=[ToolCall(name, "add", "{}") for name in "abc"])


@pytest.mark.parametrize(
    ("messages", "turns"),
    [
        pytest.param(
            [CALLS, tool("a"), tool("b"), tool("c")],
            [("user", [result("a"), result("b"), result("c")])],
            id="results that follow each other are one turn",
        ),
        pytest.param(
            [CALLS, Message("tool", (ToolResult("a", "a"), ToolResult("b", "b"))), tool("c")],
            [("user", [result("a"), result("b"), result("c")])],
            id="results in one message, and one more",
        ),
        pytest.param(
            [CALLS, tool("a"), CALLS, tool("b")],
            [("user", [result("a")]), ("assistant", None), ("user", [result("b")])],
            id="results of different turns stay apart",
        ),
        pytest.param(
            [CALLS, tool("a"), Message.user("x"), tool("b")],
            [("user", [result("a")]), ("user", "x"), ("user", [result("b")])],
            id="what the user says is a turn of its own",
        ),
        pytest.param(
            [CALLS, Message.user([TextPart("x")]), tool("b")],
            [("user", [{"type": "text", "text": "x"}]), ("user", [result("b")])],
            id="a result does not join the user's parts",
        ),
    ],
)
def test_turns_are_merged(messages: Sequence[Message], turns: Sequence[tuple[str, Any]]) -> None:
    body = encode(messages=(*HI, *messages))
    merged_turns = [
        (turn["role"], turn["content"] if turn["role"] == "user" else None) for turn in body["messages"][2:]
    ]
    assert list(turns) == merged_turns


def test_a_system_message_in_the_middle_is_rejected() -> None:
    with pytest.raises(UnsupportedOptionError, match="only at the beginning"):
        encode(messages=(*HI, Message.system("S"), *HI))


def test_merging_turns_does_not_change_messages() -> None:
    messages = (*HI, CALLS, tool("a"), tool("b"))
    assert encode(messages=messages) == encode(messages=messages)
    assert (ToolResult("a", "a"),) == messages[2].content


S, T = ({"type": "text", "text": text} for text in "ST")


@pytest.mark.parametrize(
    ("messages", "system"),
    [
        pytest.param([Message.system("S")], "S", id="one text"),
        pytest.param([Message.system(["S"])], "S", id="one part"),
        pytest.param([Message.system("S"), Message.system("T")], [S, T], id="two messages"),
        pytest.param([Message.system(["S", "T"])], [S, T], id="two parts"),
        pytest.param([Message.system("")], None, id="an empty one is none"),
        pytest.param([Message.system("S"), Message.system("")], "S", id="an empty one beside another"),
    ],
)
def test_system_messages_are_encoded(messages: Sequence[Message], system: Any) -> None:
    body = encode(messages=(*messages, *HI))
    assert {**MINIMAL, **({} if system is None else {"system": system})} == body


# --- encode: refusals -------------------------------------------------------------------------------

DEEP = b"[" * 100_000 + b"]" * 100_000
UNSIGNED = Message.assistant([ReasoningPart("Hm."), "A"])


def refusal(codec: AnthropicCodec = CODEC, **options: Any) -> tuple[str, str]:
    with pytest.raises(UnsupportedOptionError) as exc_info:
        encode(codec, **options)
    return exc_info.value.option, str(exc_info.value)


def test_only_anthropic_rejects_reasoning_of_another_server() -> None:
    option, reason = refusal(messages=(*HI, UNSIGNED, *HI))
    assert "message: reasoning" == option
    assert "this reasoning has no signature, so it came from another server" in reason
    for codec in (VLLM, LLAMACPP, COMPATIBLE):
        block = encode(codec, messages=(*HI, UNSIGNED, *HI))["messages"][1]["content"][0]
        assert {"type": "thinking", "thinking": "Hm.", "signature": ""} == block


@pytest.mark.parametrize(
    "arguments", ['{"a":', "[1]", '"x"', "3", "x", "{} {}", "\ud800", '{"a":"\\ud800"}', DEEP.decode()]
)
def test_arguments_must_be_an_object(arguments: str) -> None:
    call = Message.assistant("", tool_calls=[ToolCall("c1", "add", arguments)])
    option, reason = refusal(messages=(*HI, call))
    assert "message: tool call" == option
    assert reason.startswith("message: tool call: the arguments of add must be a JSON object: ")


@pytest.mark.parametrize(
    "messages", [(), (Message.system("S"),), (Message.system("S"), Message.system("T"))], ids=["none", "one", "two"]
)
def test_a_conversation_needs_a_message_besides_system_messages(messages: tuple[Message, ...]) -> None:
    assert (
        "messages",
        "messages: the Messages API needs at least one message that is not a system message",
    ) == refusal(messages=messages)


@pytest.mark.parametrize(
    ("options", "option", "reason"),
    [
        pytest.param({"temperature": 1.5}, "temperature", "this server accepts at most 1", id="a higher temperature"),
        pytest.param({"seed": 1}, "seed", "the Messages API has no such option", id="no such option"),
        pytest.param(
            {"reasoning_effort": "none", "reasoning_budget": 2048},
            "reasoning_budget",
            'contradicts reasoning_effort="none"',
            id="no reasoning, and a budget for it",
        ),
        pytest.param(
            {"reasoning_effort": "minimal"},
            "reasoning_effort",
            'the Messages API has no "minimal"; pass "low"',
            id="an effort that the API does not have",
        ),
    ],
)
def test_unsupported_options_of_anthropic_are_rejected(options: Mapping[str, Any], option: str, reason: str) -> None:
    assert (option, f"{option}: {reason}") == refusal(**options)


def test_other_servers_accept_a_higher_temperature() -> None:
    assert 1.5 == encode(VLLM, temperature=1.5)["temperature"]


@pytest.mark.parametrize(
    ("name", "value", "options", "reason"),
    [
        ("model", None, {}, "pass model="),
        ("messages", None, {}, "pass the messages"),
        ("system", "S", {}, "pass a system message"),
        ("stream", True, {}, "call stream()"),
        ("max_tokens", 5, {}, "max_tokens is already set by an option"),
        ("top_k", 5, {"top_k": 5}, "top_k is already set by an option"),
        ("tools", [], {"tools": (ADD,)}, "tools is already set by an option"),
        ("thinking", None, {"reasoning_effort": "none"}, "thinking is already set by an option"),
    ],
)
def test_extra_body_does_not_override(name: str, value: Any, options: Mapping[str, Any], reason: str) -> None:
    expected = (f"extra_body: {name}", f"extra_body: {name}: {reason}")
    assert expected == refusal(**options, extra_body={"x": 1, name: value})


def test_extra_body_does_not_override_inside_an_object() -> None:
    option, _ = refusal(reasoning_effort="low", extra_body={"output_config": {"effort": "high"}})
    assert "extra_body: output_config.effort" == option


# --- decode: plain answers --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "completion"),
    [
        pytest.param(
            "vllm-0.32.0-messages.json",
            Completion(
                text='dayspected open isinstance dest"):',
                finish_reason="length",
                usage=Usage(16, 6),
                requested_model="asked",
                served_model="tiny",
                response_id="chatcmpl-b8ae9d77f6bda40d",
                parts=(TextPart('dayspected open isinstance dest"):'),),
            ),
            id="vLLM: stop_sequence is left out",
        ),
        pytest.param(
            "llama-b8672-messages.json",
            Completion(
                text='" abo answe del fals',
                finish_reason="length",
                usage=Usage(30, 5, 8),
                requested_model="asked",
                served_model="tiny.gguf",
                response_id="chatcmpl-KjALhNlhEQ3jCAa4tm5GN72qybtDjhAP",
                parts=(TextPart('" abo answe del fals'),),
            ),
            id="llama-server b8672: cached tokens are counted in",
        ),
        pytest.param(
            "llama-b11549-messages.json",
            Completion(
                text='"" del tok"',
                finish_reason="length",
                usage=Usage(30, 5, 8),
                requested_model="asked",
                served_model="/models/tiny.gguf",
                response_id="chatcmpl-xLJFr74W4aU9dUrMyKXdRk5dKtpED3Zi",
                parts=(TextPart('"" del tok"'),),
            ),
            id="llama-server b11549",
        ),
        pytest.param(
            "llama-b8672-messages-stop.json",
            Completion(
                text='" is" bu" co b',
                finish_reason="stop",
                usage=Usage(20, 7, 19),
                requested_model="asked",
                served_model="tiny.gguf",
                stop_sequence="e",
                response_id="chatcmpl-NjrIJAsKlmtmySn58ArRdR5FyZCIcKIP",
                parts=(TextPart('" is" bu" co b'),),
            ),
            id="llama-server b8672: a stop sequence under end_turn",
        ),
        pytest.param(
            "llama-b11549-messages-stop.json",
            Completion(
                text='" that mo null oth',
                finish_reason="stop",
                usage=Usage(20, 5, 19),
                requested_model="asked",
                served_model="/models/tiny.gguf",
                stop_sequence="e",
                response_id="chatcmpl-BCezTwTOe0Qpir4zACgvK4oYmEvWQOoU",
                parts=(TextPart('" that mo null oth'),),
            ),
            id="llama-server b11549: a stop sequence under end_turn",
        ),
        pytest.param(
            "llama-b8672-messages-tools.json",
            Completion(
                text="",
                finish_reason="tool_calls",
                usage=Usage(297, 68, 8),
                requested_model="asked",
                served_model="tiny.gguf",
                tool_calls=(ToolCall("WzIlSZ7ba6mwZMHLOaXFYLZoTkXyyGz4", "get_weather", '{"city":"paris"}'),),
                response_id="chatcmpl-a5mrIRTRllLJPNPqMuCjlk2DTk3WIA5s",
                parts=(ToolCall("WzIlSZ7ba6mwZMHLOaXFYLZoTkXyyGz4", "get_weather", '{"city":"paris"}'),),
            ),
            id="llama-server b8672: a call",
        ),
    ],
)
def test_recorded_responses_are_decoded(name: str, completion: Completion) -> None:
    body = recording(name)
    actual = CODEC.decode_chat(json_response(body), requested_model="asked")
    assert completion == actual
    assert body == actual.raw


def test_a_truncated_recorded_response_with_calls_is_decoded() -> None:
    completion = CODEC.decode_chat(
        json_response(recording("llama-b11549-messages-tools.json")), requested_model="asked"
    )
    assert ("length", Usage(297, 200, 84), "") == (completion.finish_reason, completion.usage, completion.text)
    assert ['{"city":"london"}', '{"city":"paris"}', '{"city":"paris"}', "{}"] == [
        call.arguments for call in completion.tool_calls
    ]
    assert completion.parts == completion.tool_calls


def decode_message(*content: Mapping[str, Any], reason: object = "end_turn", **more: object) -> Completion:
    body = dump({"type": "message", "content": content, "stop_reason": reason, **more})
    return CODEC.decode_chat(json_response(body), requested_model="asked")


CALL = {"type": "tool_use", "id": "c1", "name": "add", "input": {"a": [1, "漢"]}}


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        pytest.param([], {"text": "", "parts": ()}, id="no content"),
        pytest.param([{"type": "text", "text": ""}], {"text": "", "parts": ()}, id="an empty text"),
        pytest.param(
            [{"type": "text", "text": "a\u2028b 🎉"}],
            {"text": "a\u2028b 🎉", "parts": (TextPart("a\u2028b 🎉"),)},
            id="text",
        ),
        pytest.param(
            [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}],
            {"text": "ab", "parts": (TextPart("ab"),)},
            id="two texts are one",
        ),
        pytest.param(
            [{"type": "thinking", "thinking": "Hm.", "signature": "s"}, {"type": "text", "text": "a"}],
            {"text": "a", "reasoning": "Hm.", "parts": (ReasoningPart("Hm.", "s"), TextPart("a"))},
            id="thinking with its signature",
        ),
        pytest.param(
            [{"type": "thinking", "thinking": "Hm.", "signature": ""}],
            {"text": "", "reasoning": "Hm.", "parts": (ReasoningPart("Hm."),)},
            id="an empty signature is none",
        ),
        pytest.param(
            [{"type": "thinking", "thinking": "", "signature": "s"}],
            {"text": "", "parts": (ReasoningPart("", "s"),)},
            id="thinking of which only the signature came",
        ),
        pytest.param(
            [{"type": "thinking", "thinking": name, "signature": name} for name in "st"],
            {"text": "", "reasoning": "st", "parts": (ReasoningPart("s", "s"), ReasoningPart("t", "t"))},
            id="two blocks of thinking",
        ),
        pytest.param(
            [{"type": "redacted_thinking", "data": "r"}, {"type": "redacted_thinking", "data": "q"}],
            {"text": "", "parts": (ReasoningPart("", redacted="r"), ReasoningPart("", redacted="q"))},
            id="thinking that came encrypted",
        ),
        pytest.param(
            [CALL, {**CALL, "id": "c2", "input": {}}],
            {
                "text": "",
                "tool_calls": (ToolCall("c1", "add", '{"a":[1,"漢"]}'), ToolCall("c2", "add", "{}")),
                "parts": (ToolCall("c1", "add", '{"a":[1,"漢"]}'), ToolCall("c2", "add", "{}")),
            },
            id="calls, one of them without arguments",
        ),
        pytest.param(
            [{"type": "text", "text": "a"}, CALL, {"type": "text", "text": "b"}],
            {
                "text": "ab",
                "tool_calls": (ToolCall("c1", "add", '{"a":[1,"漢"]}'),),
                "parts": (TextPart("a"), ToolCall("c1", "add", '{"a":[1,"漢"]}'), TextPart("b")),
            },
            id="a call between texts",
        ),
        pytest.param(
            [
                {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}},
                {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"url": "u"}]},
                {"text": "typeless"},
                {"type": "text", "text": "a", "citations": [{"type": "x"}]},
            ],
            {
                "text": "a",
                "parts": (
                    OpaquePart(
                        "messages", '{"type":"server_tool_use","id":"s1","name":"web_search","input":{"query":"q"}}'
                    ),
                    OpaquePart(
                        "messages", '{"type":"web_search_tool_result","tool_use_id":"s1","content":[{"url":"u"}]}'
                    ),
                    TextPart("a"),
                ),
            },
            id="the server's own tools are kept, and what has no type is passed over",
        ),
    ],
)
def test_content_is_decoded(content: Sequence[Mapping[str, Any]], fields: Mapping[str, Any]) -> None:
    assert Completion(**{"finish_reason": "stop", "requested_model": "asked", **fields}) == decode_message(*content)


def test_a_response_is_sent_back_unchanged() -> None:
    content: list[dict[str, Any]] = [
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "redacted_thinking", "data": "r"},
        {"type": "text", "text": "a"},
        CALL,
    ]
    body = encode(messages=(*HI, decode_message(*content, reason="tool_use").message))
    assert {"role": "assistant", "content": content} == body["messages"][1]


@pytest.mark.parametrize(
    ("wire", "usage"),
    [
        (None, None),
        ({}, None),
        ({"output_tokens": 2}, None),
        ({"input_tokens": 5}, Usage(5, 0)),
        ({"input_tokens": 5, "output_tokens": 2}, Usage(5, 2)),
        ({"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": None}, Usage(5, 2)),
        ({"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 0}, Usage(5, 2, 0)),
        ({"input_tokens": 5, "output_tokens": 2, "cache_read_input_tokens": 7}, Usage(12, 2, 7)),
        (
            {
                "input_tokens": 5,
                "output_tokens": 2,
                "cache_read_input_tokens": 7,
                "cache_creation_input_tokens": 100,
                "cache_creation": {"ephemeral_5m_input_tokens": 100},
                "service_tier": "standard",
            },
            Usage(112, 2, 7, 100),
        ),
    ],
)
def test_usage_is_decoded(wire: object, usage: Usage | None) -> None:
    assert usage == decode_message(usage=wire).usage


REASONS = [
    ("end_turn", "stop"),
    ("stop_sequence", "stop"),
    ("max_tokens", "length"),
    ("model_context_window_exceeded", "length"),
    ("tool_use", "tool_calls"),
    ("refusal", "content_filter"),
    ("pause_turn", "stop"),
    ("stop", "stop"),
    ("END_TURN", "stop"),
]
NO_REASONS = ["abort", "", None]


@pytest.mark.parametrize(("wire", "reason"), REASONS)
def test_stop_reasons_are_decoded(wire: str, reason: str) -> None:
    assert reason == decode_message({"type": "text", "text": "a"}, reason=wire).finish_reason


def test_the_stop_sequence_is_decoded() -> None:
    assert "###" == decode_message(reason="stop_sequence", stop_sequence="###").stop_sequence


@pytest.mark.parametrize("wire", NO_REASONS)
def test_an_incomplete_response_is_an_error(wire: str | None) -> None:
    with pytest.raises(StreamInterruptedError) as exc_info:
        decode_message({"type": "text", "text": "a"}, reason=wire)
    assert f"incomplete response: stop_reason is {wire!r}" == str(exc_info.value)
    assert b'"text": "a"' in exc_info.value.body


def test_a_response_without_a_stop_reason_is_incomplete() -> None:
    """So vLLM ends an answer that it gives up (/sleep, 0.32.0)."""
    body = b'{"id":"x","type":"message","role":"assistant","content":[{"type":"text","text":"a"}],"model":"tiny"}'
    with pytest.raises(StreamInterruptedError, match=r"^incomplete response: stop_reason is None$"):
        VLLM.decode_chat(json_response(body), requested_model="m")


def test_model_and_id_may_be_missing() -> None:
    assert (None, None) == (decode_message().served_model, decode_message().response_id)
    assert (None, "i") == (decode_message(model="", id="i").served_model, decode_message(model="", id="i").response_id)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"type":"error","error":{"type":"api_error","message":"boom"}}', "boom"),
        (b'{"error":{"code":500,"message":"boom","type":"server_error"}}', "boom"),
        (b'{"error":"boom"}', "boom"),
        (b'{"type":"error","message":"boom"}', "boom"),
        (b'{"type":"error"}', '{"type":"error"}'),
        (b'{"error":{"a":1},"content":[],"stop_reason":"end_turn"}', '{"error":{"a"'),
    ],
)
def test_an_error_under_a_good_status_is_an_error(body: bytes, message: str) -> None:
    with pytest.raises(ResponseError) as exc_info:
        CODEC.decode_chat(json_response(body), requested_model="m")
    assert type(exc_info.value) is ResponseError
    assert f"the server sent an error under HTTP 200: {message}" in str(exc_info.value)
    assert body == exc_info.value.body


@pytest.mark.parametrize("body", [b"{}", b'{"content":null}', b'{"type":"message","stop_reason":"end_turn"}'])
def test_a_response_without_content_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedResponseError, match=r"^no content in the response of the Messages API$") as exc_info:
        CODEC.decode_chat(json_response(body), requested_model="m")
    assert body == exc_info.value.body


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>Bad Gateway</html>",
        b'{"content":[',
        b"null",
        b"[]",
        b"\xff\xfe",
        b'{"model":"\xff"}',
        b'{"content":{}}',
        b'{"content":["a"]}',
        b'{"content":[{"type":"text","text":1}]}',
        b'{"content":[{"type":"tool_use","input":[]}]}',
        b'{"content":[{"type":"tool_use","input":"{}"}]}',
        b'{"stop_reason":1}',
        b'{"usage":{"input_tokens":' + b"9" * 5000 + b"}}",
        b'{"error":%b}' % DEEP,
        b'{"unknown":%b}' % DEEP,
    ],
    ids=lambda body: body[:40].decode("utf-8", "replace"),
)
def test_other_bodies_are_malformed(body: bytes) -> None:
    with pytest.raises(MalformedResponseError, match=r"^unexpected response from the Messages API: ") as exc_info:
        CODEC.decode_chat(json_response(body), requested_model="m")
    assert body == exc_info.value.body


def test_recorded_errors_are_distinguished() -> None:
    overflow = error_from_response(json_response(recording("vllm-0.32.0-error-context.json"), 400))
    assert isinstance(overflow, ContextOverflowError)
    assert (1025, 1024) == (overflow.input_tokens, overflow.context_length)
    missing = error_from_response(json_response(recording("vllm-0.32.0-error-model.json"), 404))
    assert (ModelNotFoundError, "NotFoundError") == (type(missing), missing.error_type)
    assert (
        "'messages' is required"
        == error_from_response(json_response(recording("llama-b11549-error-body.json"), 500)).message
    )
    wrong = error_from_response(json_response(recording("vllm-0.32.0-error-body.json"), 400))
    assert "body.max_tokens" in (wrong.message or "")


# --- streams ----------------------------------------------------------------------------------------


@attrs.frozen
class Outcome:
    """What came of a stream. ``failure`` is None where it was whole."""

    events: tuple[StreamEvent, ...]
    failure: tuple[type[BackendError], str] | None = None
    body: bytes = b""
    served_model: str | None = None
    response_id: str | None = None


def decode_stream(*chunks: bytes) -> Outcome:
    decoder = CODEC.stream_decoder()
    events = [event for chunk in chunks for event in decoder.feed(chunk)]
    events += decoder.close()
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


def accumulate_stream(data: bytes) -> Completion:
    accumulator = Accumulator()
    outcome = decode_stream(data)
    for event in outcome.events:
        accumulator.add(event)
    return accumulator.completion(
        requested_model="asked", served_model=outcome.served_model, response_id=outcome.response_id
    )


@pytest.mark.parametrize(
    ("name", "completion"),
    [
        pytest.param(
            "vllm-0.32.0-messages-stream.sse",
            Completion(
                text=" syMODU (root",
                finish_reason="length",
                usage=Usage(29, 4),
                requested_model="asked",
                served_model="tiny",
                response_id="chatcmpl-aea1d0ec54d2fb1e",
                parts=(TextPart(" syMODU (root"),),
            ),
            id="vLLM: message_delta counts the input as well",
        ),
        pytest.param(
            "llama-b8672-messages-stream.sse",
            Completion(
                text='"" has',
                finish_reason="length",
                usage=Usage(20, 3, 19),
                requested_model="asked",
                served_model="tiny.gguf",
                response_id="chatcmpl-zlrGhJx8MCw8SZSCFJDsgl78uv4Bkupa",
                parts=(TextPart('"" has'),),
            ),
            id="llama-server b8672",
        ),
        pytest.param(
            "llama-b11549-messages-stream.sse",
            Completion(
                text='" fal"',
                finish_reason="length",
                usage=Usage(20, 3, 19),
                requested_model="asked",
                served_model="/models/tiny.gguf",
                response_id="chatcmpl-LpYFSOp7TUBvSxXVbwgeRGRfRXz26oao",
                parts=(TextPart('" fal"'),),
            ),
            id="llama-server b11549",
        ),
    ],
)
def test_recorded_streams_are_decoded(name: str, completion: Completion) -> None:
    assert completion == accumulate_stream(recording(name))


def test_a_recorded_stream_of_a_killed_server_is_a_failure() -> None:
    """The recording begins in the middle of the answer; its end is what counts."""
    outcome = decode_stream(recording("vllm-0.32.0-messages-stream-killed.sse"))
    assert (TextDelta(" result"), TextDelta(" **")) == outcome.events[-2:]
    assert outcome.failure is not None
    assert StreamInterruptedError is outcome.failure[0]
    assert outcome.failure[1].startswith(
        "the server sent an error in the stream: 2 validation errors for ChatCompletionStreamResponse"
    )
    assert b'"internal_error"' in outcome.body


STREAMS = sorted(path.name for path in RECORDINGS.glob("*.sse"))


@pytest.mark.parametrize("name", STREAMS)
def test_recorded_streams_are_the_same_at_every_split(name: str) -> None:
    data = recording(name)
    outcome = decode_stream(data)
    assert outcome == decode_stream(*split_bytes(data))
    assert outcome == decode_stream(*data.splitlines(keepends=True))
    for position in range(len(data)):
        assert outcome == decode_stream(data[:position], data[position:])


@pytest.mark.parametrize("name", [name for name in STREAMS if "killed" not in name])
def test_recorded_streams_that_end_early_are_failures(name: str) -> None:
    """Cut after any event: a completion only where message_stop had come."""
    events = recording(name).split(b"\n\n")
    for count in range(len(events) - 1):
        assert (StreamInterruptedError, "the stream ended without message_stop") == decode_stream(
            b"".join(event + b"\n\n" for event in events[:count])
        ).failure


# The rows below are written with these. A row is what the server sends, the events, and the failure or None.


def event(value: Mapping[str, Any], *, name: str | None = None) -> bytes:
    """With its type as its name, as the vendor sends it; an empty ``name`` leaves the name out."""
    event_name = value.get("type") if name is None else name
    return (b"event: %b\n" % str(event_name).encode() if event_name else b"") + b"data: " + dump(value) + b"\n\n"


def start(**members: object) -> bytes:
    message = {"id": "msg_1", "type": "message", "role": "assistant", "content": [], "model": "claude", **members}
    return event({"type": "message_start", "message": message})


def block(index: int, kind: str, **members: object) -> bytes:
    return event({"type": "content_block_start", "index": index, "content_block": {"type": kind, **members}})


def piece(index: int, kind: str, **members: object) -> bytes:
    return event({"type": "content_block_delta", "index": index, "delta": {"type": kind, **members}})


def stop(index: int) -> bytes:
    return event({"type": "content_block_stop", "index": index})


def text(*values: str, index: int = 0) -> bytes:
    pieces = b"".join(piece(index, "text_delta", text=value) for value in values)
    return block(index, "text", text="") + pieces + stop(index)


def call(index: int, *pieces: str, id: str = "c1", name: str = "f") -> bytes:  # noqa: A002  # as on the wire
    parts = b"".join(piece(index, "input_json_delta", partial_json=part) for part in pieces)
    return block(index, "tool_use", id=id, name=name, input={}) + parts + stop(index)


def end(reason: object = "end_turn", *, usage: object = None, stop_sequence: str | None = None) -> bytes:
    delta = {"stop_reason": reason, "stop_sequence": stop_sequence}
    return event({"type": "message_delta", "delta": delta, **({"usage": usage} if usage is not None else {})})


PING = event({"type": "ping"})
MESSAGE_STOP = event({"type": "message_stop"})
END = end() + MESSAGE_STOP
A, B = TextDelta("a"), TextDelta("b")
STOP = Finish("stop")
NO_MESSAGE_STOP = "the stream ended without message_stop"
STREAM_ERROR = "the server sent an error in the stream: "
F0 = ToolCallDelta(0, "c1", "f", "")
START_USAGE = {"input_tokens": 10, "cache_read_input_tokens": 5, "cache_creation_input_tokens": 2, "output_tokens": 1}


def spec(*, row: str, data: bytes, events: Sequence[StreamEvent], failure: str | None = None, marks: Any = ()) -> Any:
    return pytest.param(data, tuple(events), failure, id=row, marks=marks)


SPECIFICATION = [
    # -- whole answers, as documented
    spec(
        row="text",
        data=start(usage={"input_tokens": 25, "output_tokens": 1})
        + block(0, "text", text="")
        + PING
        + piece(0, "text_delta", text="Hello")
        + piece(0, "text_delta", text="!")
        + stop(0)
        + end(usage={"output_tokens": 15})
        + MESSAGE_STOP,
        events=[TextDelta("Hello"), TextDelta("!"), Finish("stop", Usage(25, 15))],
    ),
    spec(
        row="thinking with its signature",
        data=start()
        + block(0, "thinking", thinking="", signature="")
        + piece(0, "thinking_delta", thinking="Let")
        + piece(0, "thinking_delta", thinking=" me")
        + piece(0, "signature_delta", signature="EqQB")
        + stop(0)
        + text("a", index=1)
        + END,
        events=[ReasoningDelta("Let"), ReasoningDelta(" me"), ReasoningDelta("", signature="EqQB"), A, STOP],
    ),
    spec(
        row="thinking of which only the signature is sent",
        data=block(0, "thinking", thinking="", signature="")
        + piece(0, "signature_delta", signature="s")
        + stop(0)
        + END,
        events=[ReasoningDelta("", signature="s"), STOP],
    ),
    spec(
        row="thinking that came encrypted",
        data=start() + block(0, "redacted_thinking", data="r") + stop(0) + text("a", index=1) + END,
        events=[ReasoningDelta("", redacted="r"), A, STOP],
    ),
    spec(
        row="a text, then a call in pieces",
        data=start()
        + text("a")
        + block(1, "tool_use", id="c1", name="f", input={})
        + piece(1, "input_json_delta", partial_json="")
        + piece(1, "input_json_delta", partial_json='{"a":')
        + piece(1, "input_json_delta", partial_json=" 1}")
        + stop(1)
        + end("tool_use", usage={"output_tokens": 89})
        + MESSAGE_STOP,
        events=[
            A,
            ToolCallDelta(0, "c1", "f", ""),
            ToolCallDelta(0, "", "", '{"a":'),
            ToolCallDelta(0, "", "", " 1}"),
            Finish("tool_calls"),
        ],
    ),
    spec(
        row="a call without pieces has the empty object for arguments",
        data=start() + call(0) + end("tool_use") + MESSAGE_STOP,
        events=[F0, ToolCallDelta(0, "", "", "{}"), Finish("tool_calls")],
    ),
    spec(
        row="a call with one empty piece as well",
        data=start() + call(0, "") + end("tool_use") + MESSAGE_STOP,
        events=[F0, ToolCallDelta(0, "", "", "{}"), Finish("tool_calls")],
    ),
    spec(
        row="a call that is whole at its start",
        data=block(0, "tool_use", id="c1", name="f", input={"a": 1}) + stop(0) + END,
        events=[F0, ToolCallDelta(0, "", "", '{"a":1}'), STOP],
    ),
    spec(
        row="a call that says no input at its start (llama-server)",
        data=block(0, "tool_use", id="c1", name="f")
        + piece(0, "input_json_delta", partial_json="{}")
        + stop(0)
        + end("tool_use")
        + MESSAGE_STOP,
        events=[F0, ToolCallDelta(0, "", "", "{}"), Finish("tool_calls")],
    ),
    spec(
        row="calls one after the other",
        data=call(0, "{}") + call(1, '{"b":1}', id="c2", name="g") + end("tool_use") + MESSAGE_STOP,
        events=[
            F0,
            ToolCallDelta(0, "", "", "{}"),
            ToolCallDelta(1, "c2", "g", ""),
            ToolCallDelta(1, "", "", '{"b":1}'),
            Finish("tool_calls"),
        ],
    ),
    spec(
        row="calls interleaved, of which one has no pieces",
        data=block(0, "tool_use", id="c1", name="f", input={})
        + block(1, "tool_use", id="c2", name="g", input={})
        + piece(0, "input_json_delta", partial_json='{"a"')
        + stop(1)
        + piece(0, "input_json_delta", partial_json=":1}")
        + stop(0)
        + end("tool_use")
        + MESSAGE_STOP,
        events=[
            F0,
            ToolCallDelta(1, "c2", "g", ""),
            ToolCallDelta(0, "", "", '{"a"'),
            ToolCallDelta(1, "", "", "{}"),
            ToolCallDelta(0, "", "", ":1}"),
            Finish("tool_calls"),
        ],
    ),
    spec(
        row="a stop sequence",
        data=end("stop_sequence", stop_sequence="###") + MESSAGE_STOP,
        events=[Finish("stop", None, "###")],
    ),
    spec(row="a refusal", data=text("a") + end("refusal") + MESSAGE_STOP, events=[A, Finish("content_filter")]),
    spec(row="no text at all", data=start() + END, events=[STOP]),
    spec(row="a text at the start of its block", data=block(0, "text", text="a") + stop(0) + END, events=[A, STOP]),
    spec(
        row="thinking at the start of its block",
        data=block(0, "thinking", thinking="a") + stop(0) + END,
        events=[ReasoningDelta("a"), STOP],
    ),
    # The plain answer keeps the signature; servers that send a block whole at its start would lose it here.
    spec(
        row="thinking with its signature at the start of its block",
        data=block(0, "thinking", thinking="a", signature="s") + stop(0) + END,
        events=[ReasoningDelta("a", signature="s"), STOP],
    ),
    spec(
        row="empty pieces are no events",
        data=text("", "a") + piece(0, "thinking_delta", thinking="") + END,
        events=[A, STOP],
    ),
    spec(
        row="multi-byte characters and U+2028",
        data=text("漢🎉", "a\u2028b\x85c") + END,
        events=[TextDelta("漢🎉"), TextDelta("a\u2028b\x85c"), STOP],
    ),
    spec(row="no message_start", data=text("a") + END, events=[A, STOP]),
    spec(row="events without names", data=(text("a") + END).replace(b"event: ", b": "), events=[A, STOP]),
    spec(row="CRLF", data=(text("a") + END).replace(b"\n", b"\r\n"), events=[A, STOP]),
    spec(row="CR", data=(text("a") + END).replace(b"\n", b"\r"), events=[A, STOP]),
    spec(row="no line end after message_stop", data=END.rstrip(b"\n"), events=[STOP]),
    spec(row="what follows message_stop is not read", data=END + text("a") + event({"error": "x"}), events=[STOP]),
    spec(row="[DONE] says nothing", data=b"data: [DONE]\n\n" + END + b"data: [DONE]\n\n", events=[STOP]),
    # -- usage
    spec(
        row="usage of both events is one",
        data=start(usage=START_USAGE) + end(usage={"output_tokens": 15}) + MESSAGE_STOP,
        events=[Finish("stop", Usage(17, 15, 5, 2))],
    ),
    spec(
        row="the usage of message_delta is the later one",
        data=start(usage=START_USAGE)
        + end(usage={"input_tokens": 20, "cache_read_input_tokens": 6, "output_tokens": 15})
        + MESSAGE_STOP,
        events=[Finish("stop", Usage(28, 15, 6, 2))],
    ),
    spec(
        row="null in message_delta takes nothing back",
        data=start(usage=START_USAGE)
        + end(usage={"input_tokens": None, "cache_read_input_tokens": None, "output_tokens": 3})
        + MESSAGE_STOP,
        events=[Finish("stop", Usage(17, 3, 5, 2))],
    ),
    spec(
        row="usage of message_start alone",
        data=start(usage={"input_tokens": 10, "output_tokens": 1}) + END,
        events=[Finish("stop", Usage(10, 1))],
    ),
    spec(
        row="usage of message_delta alone",
        data=start(usage=None) + end(usage={"input_tokens": 10, "output_tokens": 1}) + MESSAGE_STOP,
        events=[Finish("stop", Usage(10, 1))],
    ),
    spec(row="output alone is no usage", data=end(usage={"output_tokens": 1}) + MESSAGE_STOP, events=[STOP]),
    spec(
        row="a message_delta with usage alone, and one more",
        data=start(usage=START_USAGE)
        + end()
        + event({"type": "message_delta", "usage": {"output_tokens": 9}})
        + MESSAGE_STOP,
        events=[Finish("stop", Usage(17, 9, 5, 2))],
    ),
    # -- what nobody knows
    spec(
        row="events of unknown kinds",
        data=event({"type": "x", "index": 1}) + event({}, name="x") + event({"y": [1]}) + END,
        events=[STOP],
    ),
    spec(
        row="a citation, and a piece of an unknown kind",
        data=block(0, "text", text="")
        + piece(0, "citations_delta", citation={"type": "char_location", "cited_text": "x"})
        + piece(0, "x", text="x")
        + piece(0, "text_delta", text="a")
        + stop(0)
        + END,
        events=[
            A,
            CitationDelta(
                Citation(text="x"),
                OpaquePart("messages", '{"citations":[{"type":"char_location","cited_text":"x"}]}'),
            ),
            STOP,
        ],
    ),
    spec(
        row="blocks of unknown kinds",
        data=block(0, "web_search_tool_result", tool_use_id="s1", content=[{"url": "u"}])
        + stop(0)
        + block(1, "x", text="x", thinking="x", input={"a": 1})
        + stop(1)
        + text("a", index=2)
        + END,
        events=[
            OpaquePart("messages", '{"type":"web_search_tool_result","tool_use_id":"s1","content":[{"url":"u"}]}'),
            OpaquePart("messages", '{"type":"x","text":"x","thinking":"x","input":{"a":1}}'),
            A,
            STOP,
        ],
    ),
    # Reached with extra_body={"tools": [{"type": "web_search_20250305"}]}.
    spec(
        row="the server's own tools are no calls",
        data=block(0, "server_tool_use", id="s1", name="web_search", input={})
        + piece(0, "input_json_delta", partial_json='{"query":"q"}')
        + stop(0)
        + text("a", index=1)
        + END,
        events=[
            OpaquePart("messages", '{"type":"server_tool_use","id":"s1","name":"web_search","input":{"query":"q"}}'),
            A,
            STOP,
        ],
    ),
    spec(row="a piece without a delta", data=event({"type": "content_block_delta", "index": 0}) + END, events=[STOP]),
    spec(row="a start without a block", data=event({"type": "content_block_start"}) + stop(0) + END, events=[STOP]),
    spec(row="a stop of no block", data=stop(7) + END, events=[STOP]),
    spec(row="a message_start without a message", data=event({"type": "message_start"}) + END, events=[STOP]),
    spec(row="unknown, with texts that are no UTF-8", data=b'data: {"x":"\xff"}\n\n' + END, events=[STOP]),
    spec(row="error null is no error", data=event({"type": "ping", "error": None}) + END, events=[STOP]),
    # -- answers that never become whole
    spec(row="nothing at all", data=b"", events=[], failure=NO_MESSAGE_STOP),
    spec(row="the end inside a block", data=start() + block(0, "text", text="a"), events=[A], failure=NO_MESSAGE_STOP),
    spec(row="the end after a stop_reason", data=text("a") + end(), events=[A], failure=NO_MESSAGE_STOP),
    spec(
        row="[DONE] in the place of message_stop",
        data=text("a") + end() + b"data: [DONE]\n\n",
        events=[A],
        failure=NO_MESSAGE_STOP,
    ),
    spec(
        row="message_delta without a stop_reason (vLLM aborts so)",
        data=text("a") + end(None, usage={"output_tokens": 1}) + MESSAGE_STOP,
        events=[A],
        failure="incomplete response: stop_reason is None",
    ),
    spec(
        row="message_stop without a message_delta",
        data=text("a") + MESSAGE_STOP,
        events=[A],
        failure="incomplete response: stop_reason is None",
    ),
    spec(
        row="pause_turn",
        data=text("a") + end("pause_turn") + MESSAGE_STOP,
        events=[A, STOP],
    ),
    spec(
        row="a stop_reason that nobody knows",
        data=text("a") + end("abort") + MESSAGE_STOP + text("b"),
        events=[A],
        failure="incomplete response: stop_reason is 'abort'",
    ),
    spec(
        row="a stop_reason that nobody knows after a good one",
        data=end() + end("abort") + MESSAGE_STOP,
        events=[],
        failure="incomplete response: stop_reason is 'abort'",
    ),
    # -- errors in the stream, in every shape
    spec(
        row="an object, as documented",
        data=text("a") + event({"type": "error", "error": {"type": "api_error", "message": "Internal"}}) + END,
        events=[A],
        failure=STREAM_ERROR + "Internal",
    ),
    spec(row="a text", data=event({"type": "error", "error": "boom"}) + END, events=[], failure=STREAM_ERROR + "boom"),
    spec(
        row="without a type", data=event({"error": {"message": "boom"}}) + END, events=[], failure=STREAM_ERROR + "boom"
    ),
    spec(row="a text without a type", data=event({"error": "boom"}) + END, events=[], failure=STREAM_ERROR + "boom"),
    spec(
        row="members at the top level (llama-server)",
        data=text("a") + event({"code": 500, "message": "boom", "type": "server_error"}, name="") + END,
        events=[A],
        failure=STREAM_ERROR + "boom",
    ),
    spec(
        row="event: error with members of its own",
        data=text("a") + event({"detail": 5}, name="error") + END,
        events=[A],
        failure=STREAM_ERROR + '{"detail": 5}',
    ),
    spec(
        row="event: error with the type of another",
        data=event({"type": "ping"}, name="error") + END,
        events=[],
        failure=STREAM_ERROR + '{"type": "ping"}',
    ),
    spec(
        row="an error without a message",
        data=event({"type": "error", "error": {"type": "x"}}) + END,
        events=[],
        failure=STREAM_ERROR + '{"type": "error", "error": {"type": "x"}}',
    ),
    spec(
        row="an error of no members",
        data=event({"type": "error"}),
        events=[],
        failure=STREAM_ERROR + '{"type": "error"}',
    ),
    spec(
        row="an error after the stop_reason",
        data=text("a") + end() + event({"type": "error", "error": {"message": "boom"}}) + MESSAGE_STOP,
        events=[A],
        failure=STREAM_ERROR + "boom",
    ),
    # -- plain text in the place of events
    spec(
        row="a router that lost its server",
        data=text("a") + b"proxy error: Failed to read connection",
        events=[A],
        failure=NO_MESSAGE_STOP + "; last line received: proxy error: Failed to read connection",
    ),
    spec(
        row="text that is no UTF-8",
        data=b"gone \xff",
        events=[],
        failure=NO_MESSAGE_STOP + "; last line received: gone \ufffd",
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


@pytest.mark.parametrize(("wire", "reason"), REASONS)
def test_stop_reasons_of_a_stream_are_decoded(wire: str, reason: str) -> None:
    assert reason == getattr(decode_stream(end(wire) + MESSAGE_STOP).events[-1], "finish_reason", None)


@pytest.mark.parametrize("wire", NO_REASONS)
def test_unknown_stop_reasons_are_a_failure_of_the_stream(wire: str | None) -> None:
    assert (StreamInterruptedError, f"incomplete response: stop_reason is {wire!r}") == decode_stream(
        end(wire) + MESSAGE_STOP
    ).failure


@pytest.mark.parametrize(
    "data",
    [
        b"upstream error",
        b"{",
        b"[{}]",
        b'{"index":"0"}',
        b'{"type":"content_block_delta","delta":{"type":"text_delta","text":1}}',
        b'{"type":"content_block_delta","delta":{"type":"text_delta","text":"\xff"}}',
        b'{"type":"content_block_start","content_block":{"type":"tool_use","input":[]}}',
        b'{"message":5}',
        b'{"error":' + b"9" * 5000 + b"}",
        b'{"error":%b}' % DEEP,
        b'{"x":%b}' % DEEP,
    ],
    ids=lambda data: data[:60].decode("utf-8", "replace"),
)
def test_a_malformed_event_is_a_failure_of_the_stream(data: bytes) -> None:
    outcome = decode_stream(text("a") + b"data: " + data + b"\n\n" + text("b") + END)
    assert (A,) == outcome.events
    assert outcome.failure is not None
    assert StreamInterruptedError is outcome.failure[0]
    assert outcome.failure[1].startswith("an event of the stream is malformed: ")
    assert data == outcome.body


def test_a_context_overflow_inside_a_stream() -> None:
    decoder = AnthropicStreamDecoder()
    error = {"type": "invalid_request_error", "message": "prompt is too long: 205000 tokens > 200000 maximum"}
    assert [] == decoder.feed(start() + event({"type": "error", "error": error}))
    assert isinstance(decoder.failure, ContextOverflowError)
    assert (205000, 200000) == (decoder.failure.input_tokens, decoder.failure.context_length)


def test_the_model_and_the_id_are_known_before_the_first_text() -> None:
    decoder = AnthropicStreamDecoder()
    assert (None, None) == (decoder.served_model, decoder.response_id)
    assert [] == decoder.feed(start())
    assert ("claude", "msg_1") == (decoder.served_model, decoder.response_id)
    assert (None, None) == (decode_stream(END).served_model, decode_stream(END).response_id)


# A plain answer reads an empty model as none (test_model_and_id_may_be_missing), as do streams of the OpenAI format.
def test_an_empty_model_in_a_stream_is_none() -> None:
    assert decode_stream(start(model="") + END).served_model is None


def test_events_are_returned_at_once_and_none_after_a_failure() -> None:
    decoder = AnthropicStreamDecoder()
    first = piece(0, "text_delta", text="a")
    assert [] == decoder.feed(first[:-1])
    assert [A] == decoder.feed(b"\n")
    assert [A, A] == decoder.feed(first + first + event({"error": "boom"}) + first)
    failure = decoder.failure
    assert isinstance(failure, StreamInterruptedError)
    assert b'{"error": "boom"}' == failure.body
    assert [] == decoder.feed(first + END)
    assert [] == decoder.close()
    assert failure is decoder.failure
    assert not decoder.finished


def test_message_stop_finishes_once() -> None:
    decoder = AnthropicStreamDecoder()
    assert [] == decoder.feed(end())
    assert not decoder.finished
    assert [STOP] == decoder.feed(MESSAGE_STOP)
    assert decoder.finished
    assert [] == decoder.feed(END)
    assert [] == decoder.close()
    assert [] == decoder.close()


@pytest.mark.parametrize("tail", [pytest.param(b"\n", id="fed"), pytest.param(b"", id="not ended")])
def test_a_line_over_the_limit_is_a_failure(tail: bytes) -> None:
    decoder = AnthropicStreamDecoder()
    assert [A] == decoder.feed(text("a"))
    assert [] == decoder.feed(b"data: " + b"x" * MAX_BODY_BYTES + tail)
    assert isinstance(decoder.failure, ResponseTooLargeError)
    assert [] == decoder.feed(END)
    assert [] == decoder.close()
    assert not decoder.finished


def test_an_event_whose_last_line_exceeds_the_limit_is_a_failure() -> None:
    decoder = AnthropicStreamDecoder()
    half = MAX_BODY_BYTES // 2 + 1
    decoder.feed(b"data: " + b"x" * half + b"\n")
    decoder.feed(b"data: " + b"x" * half)
    assert decoder.failure is None
    assert [] == decoder.close()
    assert isinstance(decoder.failure, ResponseTooLargeError)


def test_a_stream_accumulates_to_the_completion_of_the_plain_response() -> None:
    data = (
        start(usage={"input_tokens": 5, "output_tokens": 1})
        + block(0, "thinking", thinking="", signature="")
        + piece(0, "thinking_delta", thinking="Hm")
        + piece(0, "thinking_delta", thinking=".")
        + piece(0, "signature_delta", signature="s")
        + stop(0)
        + block(1, "redacted_thinking", data="r")
        + stop(1)
        + text("a", "b", index=2)
        + call(3, '{"a":', "1}")
        + call(4, id="c2", name="g")
        + end("tool_use", usage={"output_tokens": 9})
        + MESSAGE_STOP
    )
    plain = decode_message(
        {"type": "thinking", "thinking": "Hm.", "signature": "s"},
        {"type": "redacted_thinking", "data": "r"},
        {"type": "text", "text": "ab"},
        {"type": "tool_use", "id": "c1", "name": "f", "input": {"a": 1}},
        {"type": "tool_use", "id": "c2", "name": "g", "input": {}},
        reason="tool_use",
        id="msg_1",
        model="claude",
        usage={"input_tokens": 5, "output_tokens": 9},
    )
    assert plain == accumulate_stream(data)


# --- whatever comes ---------------------------------------------------------------------------------

cuts = st.lists(st.integers(0, 10_000), max_size=8)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
members = st.dictionaries(
    st.sampled_from(["type", "text", "thinking", "signature", "data", "id", "name", "input", "partial_json", "x"]),
    json_values | st.sampled_from(["text", "tool_use", "text_delta", "input_json_delta", "redacted_thinking"]),
    max_size=4,
)
event_values = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(
            ["message_start", "content_block_start", "content_block_delta", "content_block_stop", "message_delta"]
        ),
        "index": st.integers(0, 2) | json_values,
        "message": members | json_values,
        "content_block": members | json_values,
        "content": st.lists(members, max_size=3),
        "delta": members | json_values,
        "stop_reason": st.sampled_from(["end_turn", "abort"]) | json_values,
        "usage": st.dictionaries(st.sampled_from(["input_tokens", "output_tokens"]), json_values, max_size=2),
        "error": json_values,
    },
)
fragments = (
    st.binary(max_size=20)
    | st.sampled_from([END, MESSAGE_STOP, end(), end("abort"), text("a"), call(0, "{}"), PING, start()])
    | st.sampled_from([event({"error": "x"}), b"\n", b"\r", b"data: ", block(1, "tool_use", id="c", name="f")])
    | event_values.map(event)
    | st.binary(max_size=20).map(lambda data: b'data: {"x":"' + data + b'"}\n\n')
)


def encode_json(value: object) -> bytes:
    return json.dumps(value).encode()


def without_wording(outcome: Outcome) -> Outcome:
    """Without the text of a failure: a line after the last event is quoted in it where it came in the same piece."""
    return attrs.evolve(outcome, failure=outcome.failure and (outcome.failure[0], ""), body=b"")


@settings(deadline=None)
@given(st.lists(fragments, max_size=8).map(b"".join), cuts)
def test_any_stream_either_finishes_or_fails(data: bytes, positions: list[int]) -> None:
    outcome = decode_stream(data)  # checks it, and that nothing is raised
    assert without_wording(outcome) == without_wording(decode_stream(*split_at(data, positions)))
    assert without_wording(outcome) == without_wording(decode_stream(*split_bytes(data)))


@settings(deadline=None)
@given(st.sampled_from(STREAMS), st.lists(st.tuples(st.integers(0, 10_000), st.binary(max_size=3)), max_size=4), cuts)
def test_a_damaged_recording_either_finishes_or_fails(
    name: str, damage: list[tuple[int, bytes]], positions: list[int]
) -> None:
    data = recording(name)
    for position, replacement in damage:
        at = position % len(data)
        data = data[:at] + replacement + data[at + 1 :]
    assert without_wording(decode_stream(data)) == without_wording(decode_stream(*split_at(data, positions)))


def decode(body: bytes) -> Completion:
    return CODEC.decode_chat(HTTPResponse(status=200, headers={}, body=body), requested_model="m")


@settings(deadline=None)
@given(st.binary() | event_values.map(encode_json))
def test_any_body_is_decoded_or_raises_our_errors(body: bytes) -> None:
    with suppress(BackendError):
        assert isinstance(decode(body), Completion)


@settings(deadline=None)
@given(
    st.sampled_from(sorted(path.name for path in RECORDINGS.glob("*.json"))),
    st.integers(0, 10_000),
    st.binary(max_size=3),
)
def test_a_damaged_body_is_decoded_or_raises_our_errors(name: str, position: int, damage: bytes) -> None:
    body = recording(name)
    at = position % len(body)
    with suppress(BackendError):
        decode(body[:at] + damage + body[at + 1 :])


# --- models and counts ------------------------------------------------------------------------------

MODELS = {
    "data": [
        {"type": "model", "id": "claude-a", "display_name": "A", "max_input_tokens": 200_000},
        {"type": "model", "id": "claude-b", "display_name": "B"},
    ],
    "has_more": False,
    "first_id": "claude-a",
    "last_id": "claude-b",
}
LIST = HTTPRequest("GET", "/v1/models?limit=1000", None, VERSION)


def test_one_page_lists_all_models() -> None:
    models = (ModelInfo(id="claude-a", context_length=200_000), ModelInfo(id="claude-b"))
    assert ([LIST], models) == play(anthropic_server.list_models(), json_response(MODELS))


def test_an_empty_model_list_is_an_error() -> None:
    with pytest.raises(EmptyModelListError):
        play(anthropic_server.list_models(), json_response({"data": []}))


@pytest.mark.parametrize(
    ("model", "status"),
    [
        (None, ServerStatus(state="ready", model="claude-a", context_length=200_000)),
        ("claude-a", ServerStatus(state="ready", model="claude-a", context_length=200_000)),
        ("claude-b", ServerStatus(state="ready", model="claude-b")),
        ("claude-c", ServerStatus(state="ready", model="claude-c")),
    ],
)
def test_the_status_is_that_of_the_models(model: str | None, status: ServerStatus) -> None:
    assert ([LIST], status) == play(anthropic_server.status(model), json_response(MODELS))


@pytest.mark.parametrize(
    ("name", "count"), [("vllm-0.32.0-count.json", 16), ("llama-b11549-count.json", 20)], ids=["vLLM", "llama-server"]
)
def test_tokens_are_counted_by_the_server(name: str, count: int) -> None:
    request = ChatRequest(messages=(Message.system("S"), *HI), model="m", tools=(ADD,))
    requests, actual = play(anthropic_server.count_tokens(request, ANTHROPIC_MESSAGES), json_response(recording(name)))
    assert count == actual
    assert [("POST", "/v1/messages/count_tokens", VERSION)] == [
        (item.method, item.path, item.headers) for item in requests
    ]
    body = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "system": "S", "tools": [WIRE_ADD]}
    assert body == body_of(requests[0])


def test_unsupported_parts_are_not_counted() -> None:
    request = ChatRequest(messages=(*HI, UNSIGNED, *HI), model="m")
    with pytest.raises(UnsupportedOptionError):
        next(anthropic_server.count_tokens(request, ANTHROPIC_MESSAGES))


def test_other_bodies_of_a_count_are_malformed() -> None:
    request = ChatRequest(messages=HI, model="m")
    with pytest.raises(MalformedResponseError):
        play(anthropic_server.count_tokens(request, ANTHROPIC_MESSAGES), json_response({"count": 5}))
