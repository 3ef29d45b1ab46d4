"""The strict JSON Schema of Python types, and the decoding of answers to values."""

from __future__ import annotations

import dataclasses
import enum
import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, TypedDict

import attrs
import jsonschema
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends._schema.generate import schema_for
from ctxbackends._schema.validate import decode_as
from ctxbackends.errors import StructuredOutputError


class Color(enum.Enum):
    RED = "red"
    GREEN = "green"


@attrs.frozen
class Inner:
    count: int
    note: str | None = None


@attrs.frozen
class Outer:
    """Its docstring is shown to the model."""

    inner: Inner
    many: list[Inner]
    color: Color
    size: Literal["s", "m"]
    by_name: dict[str, int]
    maybe: Inner | None
    default: float = 1.5


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Movie(TypedDict):
    title: str
    year: int | None


class Loose(TypedDict, total=False):
    title: str


class Shape(msgspec.Struct):
    name: str
    sides: Annotated[int, msgspec.Meta(ge=3)]


class Empty(msgspec.Struct):
    pass


@attrs.define
class Node:
    value: int
    children: list[Node]


@attrs.frozen
class Link:
    next: Link | None


@attrs.frozen
class Tree:
    root: Node
    spare: Node | None


INNER = {
    "title": "Inner",
    "type": "object",
    "properties": {"count": {"type": "integer"}, "note": {"anyOf": [{"type": "string"}, {"type": "null"}]}},
    "required": ["count", "note"],
    "additionalProperties": False,
}
NODE = {
    "title": "Node",
    "type": "object",
    "properties": {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/Node"}}},
    "required": ["value", "children"],
    "additionalProperties": False,
}
LINK = {
    "title": "Link",
    "type": "object",
    "properties": {"next": {"anyOf": [{"$ref": "#/$defs/Link"}, {"type": "null"}]}},
    "required": ["next"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("target", "schema"),
    [
        pytest.param(Inner, INNER, id="attrs"),
        pytest.param(
            Outer,
            {
                "title": "Outer",
                "description": "Its docstring is shown to the model.",
                "type": "object",
                "properties": {
                    "inner": {"$ref": "#/$defs/Inner"},
                    "many": {"type": "array", "items": {"$ref": "#/$defs/Inner"}},
                    "color": {"$ref": "#/$defs/Color"},
                    "size": {"enum": ["m", "s"]},
                    "by_name": {"type": "object", "additionalProperties": {"type": "integer"}},
                    "maybe": {"anyOf": [{"$ref": "#/$defs/Inner"}, {"type": "null"}]},
                    "default": {"type": "number"},
                },
                "required": ["inner", "many", "color", "size", "by_name", "maybe", "default"],
                "additionalProperties": False,
                "$defs": {"Inner": INNER, "Color": {"title": "Color", "enum": ["green", "red"]}},
            },
            id="nested; a field that is called default",
        ),
        pytest.param(
            Point,
            {
                "title": "Point",
                "type": "object",
                "properties": {"x": {"type": "integer"}, "y": {"type": "integer"}},
                "required": ["x", "y"],
                "additionalProperties": False,
            },
            id="dataclass",
        ),
        pytest.param(
            Movie,
            {
                "title": "Movie",
                "type": "object",
                "properties": {"title": {"type": "string"}, "year": {"anyOf": [{"type": "integer"}, {"type": "null"}]}},
                "required": ["title", "year"],
                "additionalProperties": False,
            },
            id="TypedDict",
        ),
        pytest.param(
            Loose,
            {
                "title": "Loose",
                "type": "object",
                "properties": {"title": {"type": "string"}},
                "required": ["title"],
                "additionalProperties": False,
            },
            id="TypedDict of optional keys",
        ),
        pytest.param(
            Shape,
            {
                "title": "Shape",
                "type": "object",
                "properties": {"name": {"type": "string"}, "sides": {"type": "integer", "minimum": 3}},
                "required": ["name", "sides"],
                "additionalProperties": False,
            },
            id="Struct",
        ),
        pytest.param(
            Empty,
            {"title": "Empty", "type": "object", "properties": {}, "required": [], "additionalProperties": False},
            id="no fields",
        ),
        pytest.param(Node, {**NODE, "$defs": {"Node": NODE}}, id="recursive"),
        pytest.param(Link, {**LINK, "$defs": {"Link": LINK}}, id="recursive through a choice"),
        pytest.param(
            Tree,
            {
                "title": "Tree",
                "type": "object",
                "properties": {
                    "root": {"$ref": "#/$defs/Node"},
                    "spare": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
                },
                "required": ["root", "spare"],
                "additionalProperties": False,
                "$defs": {"Node": NODE},
            },
            id="recursive inside",
        ),
        pytest.param(list[str], {"type": "array", "items": {"type": "string"}}, id="list root"),
        pytest.param(
            list[Inner], {"type": "array", "items": {"$ref": "#/$defs/Inner"}, "$defs": {"Inner": INNER}}, id="list of"
        ),
        pytest.param(dict[str, int], {"type": "object", "additionalProperties": {"type": "integer"}}, id="dict root"),
        pytest.param(Color, {"title": "Color", "enum": ["green", "red"]}, id="enum root"),
    ],
)
def test_the_schema_is_strict(target: type[Any], schema: dict[str, Any]) -> None:
    schema_ = schema_for(target)
    assert with_sorted_enums(schema) == with_sorted_enums(schema_)


def with_sorted_enums(value: Any) -> Any:
    """The order of an enum says nothing."""
    if isinstance(value, dict):
        return {
            key: sorted(part) if key == "enum" and isinstance(part, list) else with_sorted_enums(part)
            for key, part in value.items()
        }
    return value


TARGETS: list[Any] = [
    Inner,
    Outer,
    Point,
    Movie,
    Loose,
    Shape,
    Empty,
    Node,
    Link,
    Tree,
    list[str],
    list[Inner],
    dict[str, int],
    Color,
]


def objects_of(schema: Any) -> Iterator[dict[str, Any]]:
    if isinstance(schema, dict):
        if "properties" in schema and isinstance(schema["properties"], dict) and "type" in schema:
            yield schema
        for part in schema.values():
            yield from objects_of(part)
    elif isinstance(schema, list):
        for part in schema:
            yield from objects_of(part)


@pytest.mark.parametrize("target", TARGETS)
def test_the_schema_is_json_schema_of_closed_objects(target: Any) -> None:
    schema = json.loads(json.dumps(schema_for(target)))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert "$ref" not in schema, "servers want no reference at the root"
    for node in objects_of(schema):
        assert list(node["properties"]) == node["required"]
        assert node["additionalProperties"] is False


def test_schemas_are_reproducible() -> None:
    assert schema_for(Outer) == schema_for(Outer)
    first = schema_for(Tree)
    first["$defs"].clear()
    assert {"Node": NODE} == schema_for(Tree)["$defs"]


def test_a_schema_of_the_type_itself_keeps_its_limits_and_descriptions() -> None:
    target_ = Annotated[
        list[Annotated[str, msgspec.Meta(pattern="^a", description="starts")]], msgspec.Meta(max_length=2)
    ]
    target: Any = target_
    assert {
        "type": "array",
        "items": {"type": "string", "pattern": "^a", "description": "starts"},
        "maxItems": 2,
    } == schema_for(target)


def test_schemas_of_users_are_made_strict_but_not_their_values() -> None:
    extra = {"allOf": [{"properties": {"a": {"default": 1}}}], "const": {"default": 1}, "enum": [{"default": 1}]}
    target: Any = Annotated[dict[str, int], msgspec.Meta(extra_json_schema=extra)]
    assert {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "allOf": [{"properties": {"a": {}}, "required": ["a"], "additionalProperties": False}],
        "const": {"default": 1},
        "enum": [{"default": 1}],
    } == schema_for(target)


@pytest.mark.parametrize("target", [complex, object, type, list[complex]])
def test_types_without_a_json_form_are_a_type_error(target: Any) -> None:
    with pytest.raises(TypeError):
        schema_for(target)


# --- values back ------------------------------------------------------------------------------------

OUTER: dict[str, Any] = {
    "inner": {"count": 1, "note": "n"},
    "many": [{"count": 2, "note": None}],
    "color": "red",
    "size": "s",
    "by_name": {"a": 1},
    "maybe": None,
    "default": 0.5,
}
LEAF = {"value": 2, "children": []}


@pytest.mark.parametrize(
    ("target", "value", "expected"),
    [
        pytest.param(Inner, {"count": 1, "note": None}, Inner(1), id="attrs"),
        pytest.param(Outer, OUTER, Outer(Inner(1, "n"), [Inner(2)], Color.RED, "s", {"a": 1}, None, 0.5), id="nested"),
        pytest.param(Point, {"x": 1, "y": 2}, Point(1, 2), id="dataclass"),
        pytest.param(Movie, {"title": "漢", "year": None}, {"title": "漢", "year": None}, id="TypedDict"),
        pytest.param(Shape, {"name": "a", "sides": 3}, Shape("a", 3), id="Struct"),
        pytest.param(Node, {"value": 1, "children": [LEAF]}, Node(1, [Node(2, [])]), id="recursive"),
        pytest.param(list[str], ["a", "\u2028🎉"], ["a", "\u2028🎉"], id="list root"),
        pytest.param(dict[str, int], {"a": 1}, {"a": 1}, id="dict root"),
        pytest.param(Color, "green", Color.GREEN, id="enum root"),
    ],
)
def test_answers_become_values(target: Any, value: Any, expected: Any) -> None:
    for text in (json.dumps(value), f"\n {json.dumps(value, ensure_ascii=False, indent=2)} \n"):
        actual = decode_as(target, text)
        assert expected == actual
        assert type(expected) is type(actual)


# Each value is accepted by both, or refused by both.
SAMPLES: list[tuple[Any, list[Any]]] = [
    (Inner, [{"count": 1, "note": "n"}, {"count": 1, "note": None}, {"count": "1", "note": None}]),
    (
        Inner,
        [{"count": None, "note": None}, {"count": 1.5, "note": None}, {"count": True, "note": None}, {"note": None}],
    ),
    (Inner, [{}, [], None, 1, "x", {"count": 1, "note": 1}]),
    (Outer, [OUTER, {**OUTER, "color": "blue"}, {**OUTER, "size": "xl"}, {**OUTER, "by_name": {"a": "1"}}]),
    (Outer, [{**OUTER, "many": [1]}, {**OUTER, "many": []}, {**OUTER, "maybe": OUTER["inner"]}, {**OUTER, "maybe": 1}]),
    (Outer, [{**OUTER, "default": 1}, {**OUTER, "default": "1"}, {**OUTER, "default": None}, {**OUTER, "inner": {}}]),
    (Point, [{"x": 1, "y": 2}, {"x": 1, "y": None}, {"y": 1}]),
    (Movie, [{"title": "a", "year": 1}, {"title": "a", "year": None}, {"title": None, "year": 1}, {"title": "a"}]),
    (Shape, [{"name": "a", "sides": 3}, {"name": "a", "sides": 2}, {"name": "a", "sides": -3}]),
    (
        Node,
        [
            LEAF,
            {"value": 1, "children": [LEAF]},
            {"value": 1, "children": [{"value": 1}]},
            {"value": 1, "children": [1]},
        ],
    ),
    (Tree, [{"root": LEAF, "spare": None}, {"root": LEAF, "spare": LEAF}, {"root": None, "spare": None}]),
    (list[str], [[], ["a"], [1], [None], "a", {}]),
    (dict[str, int], [{}, {"a": 1}, {"a": "1"}, [], {"a": None}]),
    (Color, ["red", "blue", "RED", None]),
]


def accepts(target: Any, value: Any) -> bool:
    try:
        decode_as(target, json.dumps(value))
    except StructuredOutputError:
        return False
    return True


@pytest.mark.parametrize(
    ("target", "value"), [pytest.param(target, value) for target, values in SAMPLES for value in values]
)
def test_the_schema_accepts_decodable_values(target: Any, value: Any) -> None:
    assert jsonschema.Draft202012Validator(schema_for(target)).is_valid(value) == accepts(target, value)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.sampled_from([0.5, "", "a", "red", "s"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b"]), inner, max_size=2),
    max_leaves=6,
)
damaged_objects = st.builds(lambda key, value: {**OUTER, key: value}, st.sampled_from(sorted(OUTER)), json_values)


@given(damaged_objects)
def test_the_schema_accepts_decodable_values_with_one_changed_member(value: dict[str, Any]) -> None:
    assert jsonschema.Draft202012Validator(schema_for(Outer)).is_valid(value) == accepts(Outer, value)


@pytest.mark.parametrize(
    ("value", "expected"),
    [({"count": 1}, Inner(1)), ({"count": 1, "note": None, "more": 1}, Inner(1))],
    ids=["a default that is left out", "a member too many"],
)
def test_decoding_accepts_more_than_the_schema(value: dict[str, Any], expected: Inner) -> None:
    """For servers that enforce the schema in part."""
    assert not jsonschema.Draft202012Validator(schema_for(Inner)).is_valid(value)
    assert expected == decode_as(Inner, json.dumps(value))


# --- answers that are no value ------------------------------------------------------------------------


@attrs.frozen
class Positive:
    count: int = attrs.field(validator=attrs.validators.gt(0))


@pytest.mark.parametrize(
    ("target", "text", "pointer", "message"),
    [
        pytest.param(Inner, '{"count":"x"}', "$.count", "Expected `int`, got `str` - at `$.count`", id="a member"),
        pytest.param(Inner, "{}", None, "Object missing required field `count`", id="a missing member"),
        pytest.param(Inner, "[]", None, "Expected `object`, got `array`", id="the root"),
        pytest.param(
            Outer,
            json.dumps({**OUTER, "many": [{"count": 1}, {"count": None}]}),
            "$.many[1].count",
            "Expected `int`, got `null` - at `$.many[1].count`",
            id="deep inside",
        ),
        pytest.param(
            Outer,
            json.dumps({**OUTER, "color": "blue"}),
            "$.color",
            "Invalid enum value 'blue' - at `$.color`",
            id="an enum",
        ),
        pytest.param(
            Outer,
            json.dumps({**OUTER, "by_name": {"k": "v"}}),
            "$.by_name[...]",
            "Expected `int`, got `str` - at `$.by_name[...]`",
            id="a value of a mapping",
        ),
        pytest.param(
            dict[str, dict[int, str]],
            '{"a":{"k":"v"}}',
            "$[...]",
            "Expected `int`, got `str` - at `key` in `$[...]`",
            id="a key of a mapping",
        ),
        pytest.param(list[str], '["a",1]', "$[1]", "Expected `str`, got `int` - at `$[1]`", id="an item"),
        pytest.param(Shape, '{"name":"a","sides":2}', "$.sides", "Expected `int` >= 3 - at `$.sides`", id="a limit"),
        pytest.param(Positive, '{"count":0}', None, "'count' must be > 0: 0", id="a validator of attrs"),
        pytest.param(Inner, "", None, "Input data was truncated", id="empty"),
        pytest.param(Inner, '{"count":1', None, "Input data was truncated", id="cut"),
        pytest.param(Inner, "Sure! {}", None, "JSON is malformed: invalid character", id="no JSON"),
        pytest.param(Inner, '```json\n{"count":1}\n```', None, "JSON is malformed: invalid character", id="a fence"),
        pytest.param(Inner, '{"count":1} {}', None, "JSON is malformed: trailing characters", id="more than one"),
        pytest.param(list[str], '["\ud800"]', None, "'utf-8' codec can't decode", id="a lone surrogate"),
        pytest.param(list[str], '["\\ud800"]', None, "", id="an escaped lone surrogate"),
        pytest.param(int, "9" * 5000, None, "Integer value out of range", id="5000 digits"),
        pytest.param(float, "1e999", None, "Number out of range", id="a number out of range"),
        pytest.param(list[Any], "[" * 100_000, None, "maximum recursion depth exceeded", id="deep"),
    ],
)
def test_an_invalid_answer_is_an_error_with_its_path(target: Any, text: str, pointer: str | None, message: str) -> None:
    with pytest.raises(StructuredOutputError) as exc_info:
        decode_as(target, text)
    error = exc_info.value
    assert pointer == error.pointer
    assert text == error.text
    assert str(error).startswith(f"response does not match {target.__name__}: {message}")


@given(
    st.sampled_from(TARGETS),
    st.text() | st.text(alphabet='[]{}":,0e-\\u\ud800\udfff ') | json_values.map(json.dumps),
)
def test_any_answer_is_a_value_or_our_error(target: Any, text: str) -> None:
    try:
        decode_as(target, text)
    except StructuredOutputError as exc_info:
        error = exc_info
    else:
        return
    assert text == error.text
