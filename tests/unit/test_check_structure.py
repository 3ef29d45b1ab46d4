"""JSON values against the structure of a schema, held against jsonschema."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends import StructuredOutputError, Tool, ToolCall, arguments_of
from ctxbackends._schema.check import check_structure

KINDS = ["object", "array", "string", "number", "integer", "boolean", "null"]
NAMES = st.sampled_from(["a", "b", "a/b"])
VALUES = st.recursive(
    st.sampled_from([None, True, False, 0, 1, 1.0, 1.5, "x", "y"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)
TYPES = st.sampled_from(KINDS) | st.lists(st.sampled_from(KINDS), min_size=1, unique=True)
SCHEMAS: st.SearchStrategy[Any] = st.recursive(
    st.booleans()
    | st.fixed_dictionaries(
        {}, optional={"type": st.sampled_from(KINDS) | st.lists(st.sampled_from(KINDS), min_size=1, unique=True)}
    )
    | st.fixed_dictionaries({"enum": st.lists(VALUES, min_size=1, max_size=2)})
    | st.fixed_dictionaries({"const": VALUES})
    | st.sampled_from([{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/a~1b"}]),
    lambda inner: st.fixed_dictionaries(
        {},
        optional={
            "type": st.sampled_from(KINDS),
            "properties": st.dictionaries(NAMES, inner, max_size=2),
            "required": st.lists(NAMES, unique=True, max_size=2),
            "additionalProperties": st.booleans(),
            "items": inner,
            "anyOf": st.lists(inner, min_size=1, max_size=2),
            "allOf": st.lists(inner, min_size=1, max_size=2),
        },
    ),
    max_leaves=5,
)
DEFINITIONS = {"A": {"type": "string"}, "a/b": {"type": ["object", "null"], "required": ["a"]}}


@given(st.dictionaries(NAMES, SCHEMAS, max_size=3), VALUES)
def test_the_same_values_match_as_in_jsonschema(properties: dict[str, Any], value: Any) -> None:
    schema = {"type": ["object", "array", "string"], "properties": properties, "$defs": DEFINITIONS}
    for candidate in (value, dict.fromkeys(properties, value)):
        is_valid = jsonschema.Draft202012Validator(schema).is_valid(candidate)
        try:
            check_structure(schema, candidate, text="")
        except StructuredOutputError:
            assert not is_valid, candidate
        else:
            assert is_valid, candidate


@pytest.mark.parametrize(
    ("value", "pointer", "problem"),
    [
        ({"a": [{"b": 1}]}, "$.a[0].b", "expected string, got integer"),
        ({"a": [{"b": True}]}, "$.a[0].b", "expected string, got boolean"),
        ({"a": [{}]}, "$.a[0]", "missing member: b"),
        ({"a": [{"b": "x", "c": 1}]}, "$.a[0]", "unknown member: c"),
        ({"a": 1.5}, "$.a", "expected array, got number"),
        ({"kind": "z"}, "$.kind", "expected one of ['x', 'y'], got 'z'"),
        ({"either": 1}, "$.either", "no alternative of the schema matches"),
    ],
)
def test_the_place_that_does_not_match(value: Any, pointer: str, problem: str) -> None:
    item = {
        "type": "object",
        "properties": {"b": {"type": "string"}},
        "required": ["b"],
        "additionalProperties": False,
    }
    schema = {
        "type": "object",
        "properties": {
            "a": {"type": "array", "items": item},
            "kind": {"enum": ["x", "y"]},
            "either": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        },
    }
    call = ToolCall("1", "t", json.dumps(value))
    with pytest.raises(StructuredOutputError) as exc_info:
        arguments_of(Tool("t", "", schema), call)
    assert (pointer, f"{problem} - at `{pointer}`", call.arguments) == (
        exc_info.value.pointer,
        str(exc_info.value),
        exc_info.value.text,
    )


def test_arguments_of_a_function_that_takes_any() -> None:
    """Such as the one of an MCP tool: only the schema describes its arguments."""

    def call_server(**arguments: Any) -> str:
        return str(arguments)

    tool = Tool("t", "", {"type": "object", "properties": {"n": {"type": "integer"}}}, function=call_server)
    assert {"n": 2, "more": "x"} == arguments_of(tool, ToolCall("1", "t", '{"n": 2, "more": "x"}'))
    with pytest.raises(StructuredOutputError, match="expected integer, got string"):
        arguments_of(tool, ToolCall("1", "t", '{"n": "2"}'))


def test_a_schema_that_only_refers_to_itself() -> None:
    tool = Tool("t", "", {"properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"$ref": "#/$defs/A"}}})
    with pytest.raises(StructuredOutputError, match="nested too deeply"):
        arguments_of(tool, ToolCall("1", "t", '{"a": 1}'))
