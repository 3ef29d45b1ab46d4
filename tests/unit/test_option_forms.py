"""The forms of tools, of the choice among them and of the response format that `complete()` takes."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from ctxbackends import ChatRequest, JSONObjectFormat, JSONSchemaFormat, Message, NamedTool, RegexFormat, Tool, tool_of
from ctxbackends._client.prompts import build_chat_request
from ctxbackends._profiles.builtin import PROFILES, SERVERS
from ctxbackends._schema.generate import schema_for
from ctxbackends._wire.options import Unsupported
from ctxbackends.errors import UnsupportedOptionError

SCHEMA = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
WEATHER = Tool("weather", "The weather.", SCHEMA)


class Person(msgspec.Struct):
    name: str


async def later(city: str) -> str:
    """Tell the weather later."""
    return city


def build(**options: Any) -> ChatRequest:
    chat_options: Any = options
    return build_chat_request("Hi", "m", chat_options)


def encode(type_: str, request: ChatRequest, wire: str | None = None) -> Any:
    return json.loads(PROFILES[type_].codec(wire).encode_chat(request, stream=False).body or b"")


# --- tools ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "tool"),
    [
        (WEATHER, WEATHER),
        (
            {"type": "function", "function": {"name": "weather", "description": "The weather.", "parameters": SCHEMA}},
            WEATHER,
        ),
        ({"type": "function", "name": "weather", "description": "The weather.", "parameters": SCHEMA}, WEATHER),
        ({"name": "weather", "description": "The weather.", "input_schema": SCHEMA}, WEATHER),
        ({"type": "custom", "name": "weather", "description": "The weather.", "input_schema": SCHEMA}, WEATHER),
        (
            {"type": "function", "function": {"name": "weather", "parameters": SCHEMA, "strict": True}},
            Tool("weather", "", SCHEMA, strict=True),
        ),
        (
            {"type": "function", "function": {"name": "now", "strict": None}},
            Tool("now", "", {"type": "object", "properties": {}}),
        ),
        (later, tool_of(later)),
    ],
)
def test_a_tool_in_each_form(form: Any, tool: Tool) -> None:
    assert (tool,) == build(tools=[form]).tools
    assert (Tool("other", "", SCHEMA), tool) == build(tools=(Tool("other", "", SCHEMA), form)).tools


@pytest.mark.parametrize(
    ("form", "error", "text"),
    [
        ({"type": "function", "function": {}}, ValueError, "missing member: tools[0].function.name"),
        ({"type": "function", "function": "weather"}, TypeError, "tools[0].function must be a dict, not str"),
        ({"name": "a b", "input_schema": SCHEMA}, ValueError, "not a valid tool name: tools[0].name is 'a b'"),
        ({"name": 5}, TypeError, "tools[0].name must be a string, not int"),
        ({"name": "a", "parameters": []}, TypeError, "tools[0].parameters must be a dict, not list"),
        (
            {"type": "web_search_20250305", "name": "web_search"},
            ValueError,
            "unsupported value: tools[0].type is 'web_search_20250305'; pass tools that the server runs in extra_body",
        ),
        (
            {"name": "a", "input_schema": SCHEMA, "cache_control": {"type": "ephemeral"}},
            ValueError,
            "unsupported member: tools[0].cache_control; pass cache_control in extra_body",
        ),
        (
            {"name": "a", "inputSchema": SCHEMA},
            ValueError,
            "unsupported member: tools[0].inputSchema; use input_schema",
        ),
        ({"name": "a", "input_schema": SCHEMA, "parameters": SCHEMA}, ValueError, "unsupported member: tools[0].param"),
        ({"function": {"name": "a"}, "more": 1}, ValueError, "unsupported member: tools[0].more; remove it"),
    ],
)
def test_an_invalid_tool(form: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as exc_info:
        build(tools=[form])
    assert str(exc_info.value).startswith(text)


# --- tool_choice ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "choice"),
    [
        ("auto", "auto"),
        ("none", "none"),
        ("required", "required"),
        (NamedTool("weather"), NamedTool("weather")),
        ({"type": "function", "function": {"name": "weather"}}, NamedTool("weather")),
        ({"type": "function", "name": "weather"}, NamedTool("weather")),
        ({"type": "tool", "name": "weather"}, NamedTool("weather")),
        ({"type": "any"}, "required"),
        ({"type": "auto"}, "auto"),
        ({"type": "none"}, "none"),
        (None, None),
    ],
)
def test_a_tool_choice_in_each_form(form: Any, choice: Any) -> None:
    request = build(tools=[WEATHER], tool_choice=form)
    assert (choice, None) == (request.tool_choice, request.parallel_tool_calls)


def test_parallel_calls_in_the_choice() -> None:
    choice = {"type": "any", "disable_parallel_tool_use": True}
    assert build(tools=[WEATHER], tool_choice=choice).parallel_tool_calls is False
    assert build(tools=[WEATHER], tool_choice=choice, parallel_tool_calls=False).parallel_tool_calls is False
    with pytest.raises(ValueError, match=r"^tool_choice.disable_parallel_tool_use contradicts parallel_tool_calls"):
        build(tools=[WEATHER], tool_choice=choice, parallel_tool_calls=True)


@pytest.mark.parametrize(
    ("form", "error", "text"),
    [
        ({}, ValueError, "missing member: tool_choice.type"),
        ({"type": "function"}, ValueError, "missing member: tool_choice.name"),
        ({"type": "allowed_tools", "mode": "auto"}, ValueError, "unsupported value: tool_choice.type is"),
        ({"type": "tool", "name": "weather", "x": 1}, ValueError, "unsupported member: tool_choice.x; remove it"),
        ({"type": "tool", "name": "other"}, ValueError, "unknown tool in tool_choice: 'other'; pass it in tools"),
        (WEATHER, TypeError, "not a tool_choice: Tool("),
    ],
)
def test_an_invalid_tool_choice(form: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as exc_info:
        build(tools=[WEATHER], tool_choice=form)
    assert str(exc_info.value).startswith(text)


PAIRS = [(type_, wire) for type_, profile in SERVERS.items() for wire in profile.wire_apis]


@pytest.mark.parametrize(("type_", "wire"), PAIRS)
@pytest.mark.parametrize(
    "options",
    [
        {"parallel_tool_calls": True},
        {"parallel_tool_calls": False},
        {"tool_choice": "auto"},
        {"tool_choice": "none"},
        {"tool_choice": {"type": "auto", "disable_parallel_tool_use": True}},
        {"tools": None, "tool_choice": "auto"},
        {"tools": [], "parallel_tool_calls": True},
    ],
)
def test_without_tools_their_options_are_not_sent(type_: str, wire: str, options: dict[str, Any]) -> None:
    """Frameworks always pass them, and servers reject them without tools."""
    assert encode(type_, build(), wire) == encode(type_, build(**options), wire)


@pytest.mark.parametrize(("type_", "wire"), PAIRS)
def test_auto_is_accepted_everywhere(type_: str, wire: str) -> None:
    body = encode(type_, build(tools=[WEATHER], tool_choice="auto"), wire)
    assert 1 == len(body["tools"])


def test_the_choice_on_ollamas_messages_api() -> None:
    plain = encode("ollama", build(tools=[WEATHER]), "messages")
    assert plain == encode("ollama", build(tools=[WEATHER], tool_choice="auto"), "messages")
    assert encode("ollama", build(), "messages") == encode(
        "ollama", build(tools=[WEATHER], tool_choice="none"), "messages"
    )
    with pytest.raises(UnsupportedOptionError):
        encode("ollama", build(tools=[WEATHER], tool_choice="required"), "messages")


# --- response_format ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "response_format"),
    [
        ({"type": "json_object"}, JSONObjectFormat()),
        ({"type": "text"}, None),
        (None, None),
        (RegexFormat("a+"), RegexFormat("a+")),
        (
            {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "strict": True}},
            JSONSchemaFormat("thing", SCHEMA, strict=True),
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "description": "A thing."}},
            JSONSchemaFormat("thing", SCHEMA, description="A thing."),
        ),
        (
            {"type": "json_schema", "json_schema": {"name": "thing", "schema": SCHEMA, "strict": False}},
            JSONSchemaFormat("thing", SCHEMA, strict=False),
        ),
        ({"type": "json_schema", "name": "thing", "schema": SCHEMA}, JSONSchemaFormat("thing", SCHEMA)),
        ({"type": "json_schema", "schema": SCHEMA}, JSONSchemaFormat("output", SCHEMA)),
        (Person, JSONSchemaFormat("Person", schema_for(Person))),
        (list[Person], JSONSchemaFormat("list", schema_for(list[Person]))),
        (dict[str, int], JSONSchemaFormat("dict", schema_for(dict[str, int]))),
    ],
)
def test_a_response_format_in_each_form(form: Any, response_format: Any) -> None:
    assert response_format == build(response_format=form).response_format


@pytest.mark.parametrize(
    ("form", "error", "text"),
    [
        ({}, ValueError, "missing member: response_format.type"),
        ({"type": "json"}, ValueError, "unsupported value: response_format.type is 'json'; did you mean json_object?"),
        ({"type": "json_schema"}, ValueError, "missing member: response_format.schema"),
        (
            {"type": "json_schema", "json_schema": {"name": "a"}},
            ValueError,
            "missing member: response_format.json_schema.schema",
        ),
        (
            {"type": "json_schema", "json_schema": {"schema": [], "name": "a"}},
            TypeError,
            "response_format.json_schema.schema must be a dict, not list",
        ),
        (
            {"type": "json_object", "schema": SCHEMA},
            ValueError,
            "unsupported member: response_format.schema; remove it",
        ),
        (
            {"type": "json_schema", "json_schema": {"schema": SCHEMA, "strict": "yes"}},
            TypeError,
            "response_format.json_schema.strict must be true or false, not str",
        ),
    ],
)
def test_an_invalid_response_format(form: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error) as exc_info:
        build(response_format=form)
    assert str(exc_info.value).startswith(text)


@pytest.mark.parametrize(("type_", "wire"), PAIRS)
def test_the_description_of_a_format_is_sent(type_: str, wire: str) -> None:
    if isinstance(SERVERS[type_].wire_apis[wire]["response_format: json_schema"], Unsupported):
        return
    form = JSONSchemaFormat("thing", SCHEMA, description="A thing to describe.")
    assert "A thing to describe." in json.dumps(encode(type_, build(response_format=form), wire))


def test_dicts_are_sent_as_values_are() -> None:
    dicts: Any = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [
                {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
            ],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "sunny"},
    ]
    for type_, wire in PAIRS:
        request = build_chat_request(dicts, "m", {})
        assert request == build_chat_request([Message.from_dict(one) for one in dicts], "m", {})
        body = encode(type_, request, wire)
        if wire == "chat_completions":
            assert dicts == body["messages"]
        else:
            assert "sunny" in json.dumps(body["messages"])


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"name": 5}, "name of a JSONSchemaFormat must be a string, not int"),
        ({"schema": None}, "schema of a JSONSchemaFormat must be a dict, not NoneType"),
        ({"strict": "yes"}, "strict of a JSONSchemaFormat must be True, False or None: 'yes'"),
        ({"description": ["a"]}, "description of a JSONSchemaFormat must be a string, not list"),
    ],
)
def test_wrong_fields_of_a_format(fields: dict[str, Any], problem: str) -> None:
    with pytest.raises(TypeError, match=f"^{problem}$"):
        JSONSchemaFormat(**{"name": "n", "schema": {}} | fields)
