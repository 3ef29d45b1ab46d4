"""The option tables match the encoded requests for every option key."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any

import msgspec
import pytest

from ctxbackends._chat.media import AudioPart, FilePart, ImagePart
from ctxbackends._chat.messages import Message, ReasoningPart, TextPart, ToolCall
from ctxbackends._chat.requests import (
    ChatRequest,
    ChoiceFormat,
    GrammarFormat,
    JSONObjectFormat,
    JSONSchemaFormat,
    NamedTool,
    RegexFormat,
    Tool,
)
from ctxbackends._profiles.builtin import PROFILES, SERVERS
from ctxbackends._tools import tool_of
from ctxbackends._wire.options import (
    OPTION_KEYS,
    SCALAR_OPTIONS,
    OptionSupport,
    Supported,
    Transform,
    Unsupported,
    check_supported,
)
from ctxbackends.errors import UnsupportedOptionError

SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"], "additionalProperties": False}
TOOLS = (Tool("first", "The first.", SCHEMA), Tool("second", "The second.", SCHEMA))
CALL = ToolCall("call-1", "first", '{"a":"b"}')
PNG = b"\x89PNG\r\n\x1a\n..."
QUESTION = Message.user("Hi")

EXAMPLES: Mapping[str, Mapping[str, Any]] = {
    "max_tokens": {"max_tokens": 7},
    "temperature": {"temperature": 0.25},
    "top_p": {"top_p": 0.75},
    "top_k": {"top_k": 5},
    "min_p": {"min_p": 0.125},
    "seed": {"seed": 11},
    "frequency_penalty": {"frequency_penalty": 0.5},
    "presence_penalty": {"presence_penalty": 0.625},
    "repetition_penalty": {"repetition_penalty": 1.5},
    "logprobs": {"logprobs": True},
    "top_logprobs": {"logprobs": True, "top_logprobs": 3},
    "reasoning_effort": {"reasoning_effort": "low"},
    "reasoning_budget": {"reasoning_budget": 2048, "max_tokens": 4096},
    "parallel_tool_calls": {"tools": TOOLS, "parallel_tool_calls": False},
    "stop_sequences": {"stop_sequences": ("###",)},
    "response_format: json_object": {"response_format": JSONObjectFormat()},
    "response_format: json_schema": {"response_format": JSONSchemaFormat("thing", SCHEMA)},
    "response_format: regex": {"response_format": RegexFormat("[a-c]+")},
    "response_format: choice": {"response_format": ChoiceFormat(["yes", 'n"o'])},
    "response_format: grammar": {"response_format": GrammarFormat('root ::= "x"')},
    "tools": {"tools": TOOLS},
    "tool_choice: auto": {"tools": TOOLS, "tool_choice": "auto"},
    "tool_choice: none": {"tools": TOOLS, "tool_choice": "none"},
    "tool_choice: required": {"tools": TOOLS, "tool_choice": "required"},
    "tool_choice: named": {"tools": TOOLS, "tool_choice": NamedTool("second")},
    "message: image data": {"messages": (Message.user(["Look:", ImagePart.from_bytes(PNG)]),)},
    "message: image url": {"messages": (Message.user([ImagePart.from_url("https://example.org/a.png")]),)},
    "message: audio": {"messages": (Message.user(["Listen:", AudioPart(b"RIFF....WAVE")]),)},
    "message: file": {"messages": (Message.user(["Read:", FilePart(b"%PDF-1.7")]),)},
    "message: reasoning": {
        "messages": (QUESTION, Message.assistant([ReasoningPart("Hm.", signature="sig"), TextPart("Yes.")]), QUESTION)
    },
    "message: redacted reasoning": {
        "messages": (QUESTION, Message.assistant([ReasoningPart("", redacted="ENC"), TextPart("Yes.")]), QUESTION)
    },
    "message: tool call": {"messages": (QUESTION, Message.assistant("", tool_calls=[CALL]), QUESTION)},
    "message: tool result": {
        "messages": (
            QUESTION,
            Message.assistant("", tool_calls=[CALL]),
            Message.tool("42", tool_call_id="call-1"),
        )
    },
    "message: tool result image": {
        "messages": (
            QUESTION,
            Message.assistant("", tool_calls=[CALL]),
            Message.tool(["42", ImagePart.from_bytes(PNG)], tool_call_id="call-1"),
        )
    },
    "extra_body": {"extra_body": {"mirostat": 2}},
}

# The value at the place that the table names, where it is not the option's own.
TRANSFORMED_VALUES: Mapping[tuple[str, str], Any] = {
    ("seed", ""): 11,
    ("parallel_tool_calls", Transform.INVERTED): True,
    ("response_format: choice", Transform.AS_GBNF): 'root ::= "yes" | "n\\"o"',
    ("response_format: choice", ""): ["yes", 'n"o'],
    ("response_format: regex", ""): "[a-c]+",
    ("response_format: grammar", ""): 'root ::= "x"',
    ("stop_sequences", ""): ["###"],
}

CASES = [
    pytest.param(type_, wire, cell, id=f"{type_}-{wire}-{cell}")
    for type_, profile in SERVERS.items()
    for wire in profile.wire_apis
    for cell in OPTION_KEYS
]


def request(**options: Any) -> ChatRequest:
    return ChatRequest(**{"messages": (QUESTION,), "model": "m", **options})


def encode(type_: str, wire: str, *, stream: bool = False, **options: Any) -> Any:
    http_request = PROFILES[type_].codec(wire).encode_chat(request(**options), stream=stream)
    return json.loads(http_request.body or b"")


def at(body: Any, path: str) -> Any:
    for step in path.split("."):
        body = body[step]
    return body


def uses(cell: str, options: Mapping[str, Any]) -> bool:
    """Whether a table that refuses this cell alone refuses a request with these options."""
    table: dict[str, OptionSupport] = {**dict.fromkeys(OPTION_KEYS, Supported("any")), cell: Unsupported("no")}
    try:
        check_supported(request(**options), table)
    except UnsupportedOptionError:
        return True
    return False


def test_the_examples_cover_every_option_key() -> None:
    assert list(OPTION_KEYS) == list(EXAMPLES)
    assert set(SCALAR_OPTIONS) < set(OPTION_KEYS)
    fields = set(ChatRequest.__struct_fields__) - {"messages", "model"}
    assert fields == {cell.partition(":")[0] for cell in OPTION_KEYS} - {"message"} | {"tool_choice", "response_format"}
    for cell, options in EXAMPLES.items():
        assert uses(cell, options)


@pytest.mark.parametrize("type_", PROFILES)
def test_every_table_has_every_option_key(type_: str) -> None:
    for table in PROFILES[type_].wire_apis.values():
        assert list(OPTION_KEYS) == list(table)
        for handling in table.values():
            assert not isinstance(handling, Unsupported) or len(handling.reason) > 10


@pytest.mark.parametrize(("type_", "wire", "cell"), CASES)
def test_option_tables_match_the_encoded_requests(type_: str, wire: str, cell: str) -> None:
    handling = PROFILES[type_].wire_apis[wire][cell]
    options = EXAMPLES[cell]
    if isinstance(handling, Unsupported):
        # The first refusal of the request may be that of a companion (top_logprobs needs logprobs).
        with pytest.raises(UnsupportedOptionError) as exc_info:
            encode(type_, wire, **options)
        assert uses(exc_info.value.option, options)
        if exc_info.value.option == cell:
            assert f"{cell}: {handling.reason}" == str(exc_info.value)
        return
    body = encode(type_, wire, **options)
    plain = encode(type_, wire, **{name: value for name, value in options.items() if name in ("messages", "tools")})
    CHECKS.get(cell, check_value)(cell, handling, options, body, plain)


def test_a_reason_names_a_format_that_supports_the_option() -> None:
    named = [
        (type_, match[1], key)
        for type_, profile in PROFILES.items()
        for table in profile.wire_apis.values()
        for key, support in table.items()
        if isinstance(support, Unsupported) and (match := re.search(r"\(wire_api: (\w+)\) supports it", support.reason))
    ]
    assert named
    for type_, wire, key in named:
        assert isinstance(PROFILES[type_].wire_apis[wire][key], Supported), (type_, wire, key)


@pytest.mark.parametrize(("type_", "wire"), [(type_, wire) for type_ in PROFILES for wire in PROFILES[type_].wire_apis])
@pytest.mark.parametrize("options", [{"parallel_tool_calls": True, "tools": TOOLS}, {"logprobs": False}], ids=str)
def test_the_usual_behavior_needs_no_option(options: Mapping[str, Any], type_: str, wire: str) -> None:
    """A server without the option behaves as requested, so the request has the same body as without it."""
    option = next(iter(options))
    if isinstance(PROFILES[type_].wire_apis[wire][option], Unsupported):
        without = {name: value for name, value in options.items() if name != option}
        assert encode(type_, wire, **without) == encode(type_, wire, **options)
        other: Any = {**options, option: not options[option]}
        with pytest.raises(UnsupportedOptionError):
            encode(type_, wire, **other)
    else:
        encode(type_, wire, **options)


def check_value(cell: str, handling: Supported, options: Mapping[str, Any], body: Any, plain: Any) -> None:
    """The value is at its place, and nothing else is different."""
    default = options.get(cell.partition(":")[0])
    assert TRANSFORMED_VALUES.get((cell, handling.transform), default) == at(body, handling.path)
    companions = {name for name in options if name != cell.partition(":")[0] and name not in ("messages", "tools")}
    differing = {name for name in body if body[name] != plain.get(name)} - companions
    assert {handling.path.partition(".")[0]} == differing


def check_format(cell: str, handling: Supported, _: Any, body: Any, plain: Any) -> None:
    schema = SCHEMA if cell.endswith("schema") else {"type": "object"}
    name = "thing" if cell.endswith("schema") else "object"
    value = at(body, handling.path)
    if cell.endswith("object") and handling.transform != Transform.AS_SCHEMA:
        assert value in ({"type": "json_object"}, "json")
    elif handling.path == "response_format":
        json_schema = {"name": name, "schema": schema, "strict": True}
        assert {"type": "json_schema", "json_schema": json_schema} == value
    else:
        assert value in (schema, {"type": "json_schema", "schema": schema})
    assert {handling.path.partition(".")[0]} == {name for name in body if body[name] != plain.get(name)}


def names_of(tools: Any) -> list[str]:
    return [tool.get("name") or tool["function"]["name"] for tool in tools]


def check_tools(_: str, handling: Supported, __: Any, body: Any, ___: Any) -> None:
    tools = at(body, handling.path)
    assert ["first", "second"] == names_of(tools)
    schemas = [tool.get("input_schema") or tool["function"]["parameters"] for tool in tools]
    assert [SCHEMA, SCHEMA] == schemas


def check_choice(cell: str, handling: Supported, _: Any, body: Any, __: Any) -> None:
    choice = cell.partition(": ")[2]
    if handling.transform in (Transform.WITHOUT_TOOLS, Transform.SERVER_DEFAULT):
        assert "tool_choice" not in body
        assert (handling.transform == Transform.SERVER_DEFAULT) == ("tools" in body)
    elif handling.transform == Transform.ONLY_TOOL:
        assert body["tool_choice"] in ("required", {"type": "any"})
        assert ["second"] == names_of(body["tools"])
    else:
        choices = [
            {"type": "function", "function": {"name": "second"}},  # OpenAI
            {"type": "tool", "name": "second"},  # Anthropic
        ]
        anthropic = {"type": {"required": "any"}.get(choice, choice)}
        assert body["tool_choice"] in (choices if choice == "named" else [choice, anthropic])
        assert ["first", "second"] == names_of(body["tools"])


def check_parallel(_: str, handling: Supported, __: Any, body: Any, ___: Any) -> None:
    assert (handling.transform == Transform.INVERTED) == at(body, handling.path)


def check_message(cell: str, _: Supported, __: Any, body: Any, ___: Any) -> None:
    wire = json.dumps(body["messages"])
    marks = {
        "message: image data": "iVBORw0KGgouLi4=",  # the picture in base64
        "message: image url": "https://example.org/a.png",
        "message: audio": "UklGRi4uLi5XQVZF",
        "message: file": "JVBERi0xLjc=",
        "message: reasoning": "Hm.",
        "message: redacted reasoning": "ENC",
        "message: tool call": "first",
        "message: tool result": "42",
        "message: tool result image": "iVBORw0KGgouLi4=",
    }
    assert marks[cell] in wire


def check_effort(_: str, handling: Supported, __: Any, body: Any, ___: Any) -> None:
    assert "low" == at(body, handling.path)


def check_extra(_: str, __: Supported, ___: Any, body: Any, plain: Any) -> None:
    assert {**plain, "mirostat": 2} == body


CHECKS: Mapping[str, Any] = {
    "response_format: json_object": check_format,
    "response_format: json_schema": check_format,
    "tools": check_tools,
    **dict.fromkeys((cell for cell in OPTION_KEYS if cell.startswith("tool_choice")), check_choice),
    **dict.fromkeys((cell for cell in OPTION_KEYS if cell.startswith("message")), check_message),
    "parallel_tool_calls": check_parallel,
    "reasoning_effort": check_effort,
    "extra_body": check_extra,
}


# --- what a cell says beyond its place -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "wire", "path", "value"),
    [
        (
            "llamacpp",
            "chat_completions",
            "chat_template_kwargs",
            {"enable_thinking": False, "reasoning_effort": "none"},
        ),
        ("ollama", "ollama", "think", False),
        ("anthropic", "messages", "thinking", {"type": "disabled"}),
        ("vllm", "chat_completions", "reasoning_effort", "none"),
        ("openai", "chat_completions", "reasoning_effort", "none"),
    ],
)
def test_no_reasoning(type_: str, wire: str, path: str, value: object) -> None:
    assert value == encode(type_, wire, reasoning_effort="none")[path]


def test_a_budget_of_reasoning_at_anthropic() -> None:
    assert {"type": "enabled", "budget_tokens": 2048} == encode("anthropic", "messages", reasoning_budget=2048)[
        "thinking"
    ]
    with pytest.raises(UnsupportedOptionError, match="contradicts"):
        encode("anthropic", "messages", reasoning_budget=2048, reasoning_effort="none")


@pytest.mark.parametrize("wire", ["messages", "chat_completions"])
def test_a_temperature_above_anthropics_maximum(wire: str) -> None:
    with pytest.raises(UnsupportedOptionError, match="accepts at most 1"):
        encode("anthropic", wire, temperature=1.5)
    assert 1.0 == encode("anthropic", wire, temperature=1.0)["temperature"]


@pytest.mark.parametrize(
    ("type_", "extra", "option"),
    [
        ("ollama", {"truncate": True}, "extra_body: truncate"),
        ("ollama", {"shift": True}, "extra_body: shift"),
        ("ollama", {"stream": True}, "extra_body: stream"),
        ("anthropic", {"system": "x"}, "extra_body: system"),
        ("anthropic", {"max_tokens": 5}, "extra_body: max_tokens"),
        ("openai", {"n": 2}, "extra_body: n"),
    ],
)
def test_extra_body_does_not_override_the_codec(type_: str, extra: dict[str, Any], option: str) -> None:
    with pytest.raises(UnsupportedOptionError) as exc_info:
        encode(type_, PROFILES[type_].wire_api, extra_body=extra)
    assert option == exc_info.value.option


def test_extra_body_is_merged_into_the_options_of_ollama() -> None:
    body = encode("ollama", "ollama", max_tokens=3, extra_body={"options": {"mirostat": 1}})
    assert {"num_predict": 3, "mirostat": 1} == body["options"]
    with pytest.raises(UnsupportedOptionError, match="num_predict is already set by an option"):
        encode("ollama", "ollama", max_tokens=3, extra_body={"options": {"num_predict": 1}})


BOUNDED_STRING = {"type": "string", "maxLength": 9, "pattern": "^a"}
DESCRIBED_STRING = {"type": "string", "description": "(maxLength: 9)", "pattern": "^a"}


@pytest.mark.parametrize(
    ("wire", "path"),
    [
        ("chat_completions", "response_format.json_schema.schema.properties.a"),
        ("messages", "output_config.format.schema.properties.a"),
    ],
)
def test_vllm_gets_no_string_lengths_that_are_checked_locally(wire: str, path: str) -> None:
    schema = {**SCHEMA, "properties": {"a": {**BOUNDED_STRING}}}
    checked_body, strict_body = (
        encode("vllm", wire, response_format=JSONSchemaFormat("t", schema, checked=checked))
        for checked in (True, False)
    )
    assert (DESCRIBED_STRING, BOUNDED_STRING) == (at(checked_body, path), at(strict_body, path))


def save(note: Annotated[str, msgspec.Meta(max_length=9)]) -> None:
    """Save a note."""


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("type_", "wire", "expected"),
    [
        ("vllm", "chat_completions", {"type": "string", "description": "(maxLength: 9)"}),
        ("vllm", "messages", {"type": "string", "description": "(maxLength: 9)"}),
        ("llamacpp", "chat_completions", {"type": "string", "maxLength": 9}),
    ],
)
def test_lengths_in_the_arguments_of_typed_functions(type_: str, wire: str, expected: Any, strict: bool) -> None:
    typed_tool = tool_of(save, strict=strict)
    (tool,) = encode(type_, wire, tools=(typed_tool,))["tools"]
    parameters = tool["function"]["parameters"] if "function" in tool else tool["input_schema"]
    assert expected == parameters["properties"]["note"]
    # A schema that somebody wrote is sent as it is: nobody checks it here.
    (untyped_tool,) = encode(type_, wire, tools=(Tool("save", "", typed_tool.parameters),))["tools"]
    parameters = untyped_tool["function"]["parameters"] if "function" in untyped_tool else untyped_tool["input_schema"]
    assert 9 == parameters["properties"]["note"]["maxLength"]
