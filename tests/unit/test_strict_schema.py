"""The strict form of a user's schema, and which schemas are sent as strict."""

from __future__ import annotations

import datetime
import decimal
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import jsonschema
import msgspec
import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends import (
    BackendType,
    HTTPBackend,
    JSONSchemaFormat,
    StrictSchemaError,
    extract_result,
    open_backend,
    strict_schema,
)
from ctxbackends.testing import Answer, AnthropicStandIn, OllamaStandIn, OpenAIStandIn
from ctxbackends.testing._stand_ins.openai_checks import strict_fault
from ctxbackends.testing._stand_ins.stand_in import StandIn

TEXT = {"type": "string"}


def an_object(properties: Mapping[str, Any], *required: str, **more: Any) -> dict[str, Any]:
    return {"type": "object", "properties": dict(properties), "required": list(required), **more}


def closed(properties: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    return an_object(properties, *properties, additionalProperties=False, **more)


@pytest.mark.parametrize(
    ("schema", "strict"),
    [
        pytest.param(an_object({"a": TEXT}, "a"), closed({"a": TEXT}), id="others are not allowed"),
        pytest.param({"properties": {"a": TEXT}, "required": ["a"]}, closed({"a": TEXT}), id="no type"),
        pytest.param({"type": "object", "properties": {}}, closed({}), id="no members"),
        pytest.param(
            an_object({"a": {"type": ["string", "null"]}}), closed({"a": {"type": ["string", "null"]}}), id="nullable"
        ),
        pytest.param(
            an_object({"a": {"anyOf": [TEXT, {"type": "null"}], "default": None}}),
            closed({"a": {"anyOf": [TEXT, {"type": "null"}]}}),
            id="a nullable choice",
        ),
        pytest.param(
            an_object({"a": {"enum": ["x", None]}}),
            closed({"a": {"enum": ["x", None], "type": ["string", "null"]}}),
            id="a nullable enum",
        ),
        pytest.param(
            an_object({"a": {"$ref": "#/$defs/A"}}, **{"$defs": {"A": {"type": ["integer", "null"]}}}),
            closed({"a": {"$ref": "#/$defs/A"}}, **{"$defs": {"A": {"type": ["integer", "null"]}}}),
            id="a nullable reference",
        ),
        pytest.param(
            an_object({"a": {"type": "integer", "default": 3}}), closed({"a": {"type": "integer"}}), id="a default"
        ),
        pytest.param(
            an_object({"a": {"type": "array", "items": an_object({"b": TEXT}, "b"), "minItems": 1}}, "a"),
            closed({"a": {"type": "array", "items": closed({"b": TEXT}), "minItems": 1}}),
            id="in an array",
        ),
        pytest.param(
            an_object({"a": {"allOf": [{"$ref": "#/$defs/A"}], "description": "d"}}, "a", **{"$defs": {"A": TEXT}}),
            closed({"a": {"description": "d", "anyOf": [{"$ref": "#/$defs/A"}]}}, **{"$defs": {"A": TEXT}}),
            id="a reference with a description",
        ),
        pytest.param(
            {
                "$ref": "#/$defs/A",
                "$defs": {"A": an_object({"next": {"anyOf": [{"$ref": "#/$defs/A"}, TEXT]}}, "next")},
            },
            closed(
                {"next": {"anyOf": [{"$ref": "#/$defs/A"}, TEXT]}},
                **{"$defs": {"A": closed({"next": {"anyOf": [{"$ref": "#/$defs/A"}, TEXT]}})}},
            ),
            id="a reference at the root, and recursion",
        ),
        pytest.param(
            an_object({"a": {"oneOf": [TEXT, {"type": "integer"}]}}, "a"),
            closed({"a": {"anyOf": [TEXT, {"type": "integer"}]}}),
            id="oneOf of different types",
        ),
        pytest.param(
            an_object(
                {
                    "a": {
                        "discriminator": {"propertyName": "k"},
                        "oneOf": [an_object({"k": {"const": name}}, "k") for name in "xy"],
                    }
                },
                "a",
            ),
            closed({"a": {"anyOf": [closed({"k": {"const": name, "type": "string"}}) for name in "xy"]}}),
            id="oneOf of tagged objects",
        ),
        pytest.param(
            an_object({"a/b": {"type": "string", "pattern": "^a", "maxLength": 3, "format": "email", "x-y": 1}}, "a/b"),
            closed({"a/b": {"type": "string", "pattern": "^a", "maxLength": 3, "format": "email"}}),
            id="constraints stay, unknown keywords go",
        ),
        pytest.param(
            an_object({"default": TEXT, "$ref": TEXT, "oneOf": TEXT}, "default", "$ref", "oneOf"),
            closed({"default": TEXT, "$ref": TEXT, "oneOf": TEXT}),
            id="members with the names of keywords",
        ),
    ],
)
def test_the_strict_form(schema: dict[str, Any], strict: dict[str, Any]) -> None:
    before = json.dumps(schema)
    result = strict_schema(schema)
    assert strict == result
    assert result == strict_schema(result)
    assert before == json.dumps(schema)
    assert None is strict_fault(result)  # the stand-in's check, in OpenAI's words


@pytest.mark.parametrize("schema", [None, 5, "{}", [], [("type", "object")]])
def test_a_schema_is_a_dict(schema: Any) -> None:
    with pytest.raises(TypeError, match=f"^a schema must be a dict, not {type(schema).__name__}$"):
        strict_schema(schema)


@pytest.mark.parametrize(
    ("schema", "pointer", "reason"),
    [
        (an_object({"a": TEXT}), "/properties/a", "the property is optional"),
        (an_object({"a": {"type": "string", "default": None}}), "/properties/a", "the property is optional"),
        (an_object({"a/b~": TEXT}), "/properties/a~1b~0", "the property is optional"),
        (an_object({"a": an_object({"b": TEXT})}, "a"), "/properties/a/properties/b", "the property is optional"),
        (an_object({}, additionalProperties=True), "/additionalProperties", "not listed"),
        (an_object({}, additionalProperties=TEXT), "/additionalProperties", "not listed"),
        (an_object({}, "b"), "/required", "the required property b is not listed"),
        ({"type": "object"}, "", "an object needs properties"),
        ({"type": "array", "items": TEXT}, "", "the root must be an object"),
        ({}, "", "the root must be an object"),
        ({"anyOf": [an_object({})]}, "", "not a choice"),
        (an_object({"a": {"type": "array"}}, "a"), "/properties/a", "an array needs items"),
        (an_object({"a": {"type": "array", "items": True}}, "a"), "/properties/a/items", "must be an object"),
        (
            an_object({"a": {"type": "array", "prefixItems": [TEXT], "items": False}}, "a"),
            "/properties/a/prefixItems",
            "prefixItems",
        ),
        (an_object({"a": {}}, "a"), "/properties/a", "the schema needs a type"),
        (an_object({"a": {"type": "string", "not": {"const": "x"}}}, "a"), "/properties/a/not", "not support not"),
        (an_object({"a": {"allOf": [TEXT, {"minLength": 1}]}}, "a"), "/properties/a/allOf", "allOf"),
        (
            an_object({"a": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}, "a"),
            "/properties/a/oneOf",
            "no value matches two",
        ),
        (
            an_object({"a": {"anyOf": [TEXT], "type": "object", "properties": {}}}, "a"),
            "/properties/a/anyOf",
            "with other keywords",
        ),
        (an_object({"a": {"type": "string", "format": "uri"}}, "a"), "/properties/a/format", "unsupported format: uri"),
        (an_object({"a": {"type": "string", "pattern": "(?!a)"}}, "a"), "/properties/a/pattern", "lookaround"),
        (an_object({"a": {"$ref": "#/$defs/B"}}, "a"), "/properties/a/$ref", "not a definition"),
        (an_object({"a": {"$ref": "other.json"}}, "a"), "/properties/a/$ref", "not a definition"),
        (
            an_object({"a": {"$ref": "#/$defs/A", "minLength": 1}}, "a", **{"$defs": {"A": TEXT}}),
            "/properties/a/minLength",
            "next to a $ref",
        ),
        (
            an_object({"a": {"$ref": "#/$defs/A"}}, "a", **{"$defs": {"A": {"type": "array"}}}),
            "/$defs/A",
            "an array needs items",
        ),
        ({"type": "object", "properties": 5}, "/properties", "properties must be an object"),
        (
            an_object({"a": {"type": "object", "properties": []}}, "a"),
            "/properties/a/properties",
            "properties must be an object",
        ),
        (an_object({}, **{"$defs": 5}), "/$defs", "$defs must be an object"),
        ({"type": "object", "properties": {}, "required": 5}, "/required", "required must be a list"),
        ({"type": "object", "properties": {}, "required": [["a"]]}, "/required", "required must have strings"),
        ({"type": 5, "properties": {}}, "/type", "type must have strings"),
        (an_object({"a": {"type": [5]}}, "a"), "/properties/a/type", "type must have strings"),
        (an_object({"a": {"enum": "x"}}, "a"), "/properties/a/enum", "enum must be a list"),
        (an_object({"a": {"allOf": 5}}, "a"), "/properties/a/allOf", "allOf must be a list"),
        (an_object({"a": {"anyOf": {"type": "string"}}}, "a"), "/properties/a/anyOf", "anyOf must be a list"),
        (an_object({"a": {"oneOf": [{"type": 5}, TEXT]}}, "a"), "/properties/a/oneOf/0/type", "type must have strings"),
    ],
)
def test_a_schema_that_cannot_be_strict(schema: dict[str, Any], pointer: str, reason: str) -> None:
    with pytest.raises(StrictSchemaError) as exc_info:
        strict_schema(schema)
    assert pointer == exc_info.value.pointer
    assert reason in exc_info.value.reason
    assert f"schema cannot be strict at {pointer or 'the root'}: {exc_info.value.reason}" == str(exc_info.value)


NAMES = st.sampled_from(["a", "b", "default", "type"])
LEAVES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [
        TEXT,
        {"type": "integer"},
        {"type": "null"},
        {"type": ["string", "null"]},
        {"enum": ["x", "y"]},
        {"const": "x"},
        {"type": "integer", "default": 1},
        {"type": "number", "minimum": 0},
        {"type": "object"},
        {},
    ]
)


def nodes(inner: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    objects = st.builds(
        lambda properties, required, more: {
            "type": "object",
            "properties": properties,
            "required": [name for name in required if name in properties],
            **more,
        },
        st.dictionaries(NAMES, inner, max_size=3),
        st.lists(NAMES, unique=True),
        st.sampled_from([{}, {"additionalProperties": False}, {"additionalProperties": True}]),
    )
    arrays = st.builds(lambda items: {"type": "array", "items": items}, inner)
    choices = st.builds(
        lambda name, branches: {name: branches},
        st.sampled_from(["anyOf", "oneOf", "allOf"]),
        st.lists(inner, min_size=1, max_size=3),
    )
    return objects | arrays | choices


SCHEMAS = st.recursive(LEAVES, nodes, max_leaves=6)
VALUES = st.recursive(
    st.sampled_from([None, 0, 1, -1, 1.5, "x", "y", ""]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def examples(schema: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Values that match a strict schema, or nearly."""
    if "anyOf" in schema:
        return st.one_of([examples(branch) for branch in schema["anyOf"]])
    if "enum" in schema or "const" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    match schema["type"]:
        case "object":
            return st.fixed_dictionaries({name: examples(part) for name, part in schema["properties"].items()})
        case "array":
            return st.lists(examples(schema["items"]), max_size=2)
        case "null":
            return st.none()
    return VALUES


@given(st.dictionaries(NAMES, SCHEMAS, max_size=3), st.data())
def test_a_strict_schema_allows_nothing_that_the_schema_does_not(
    properties: dict[str, Any], data: st.DataObject
) -> None:
    schema = an_object(properties, *(name for name in properties if data.draw(st.booleans())))
    try:
        strict = strict_schema(schema)
    except StrictSchemaError:
        return
    assert None is strict_fault(strict)
    value = data.draw(examples(strict) | VALUES)
    if jsonschema.Draft202012Validator(strict).is_valid(value):
        jsonschema.Draft202012Validator(schema).validate(value)


# --- what is sent ---------------------------------------------------------------------------------

OPTIONAL = an_object({"title": TEXT, "note": TEXT}, "title")
REQUIRED = an_object({"title": TEXT}, "title")


async def sent_format(stand_in: StandIn, type_: BackendType, response_format: JSONSchemaFormat, **config: Any) -> Any:
    async with open_backend(type_, endpoint=stand_in.url, api_key="any", **config) as backend:
        assert isinstance(backend, HTTPBackend)
        await backend.complete("JSON, please.", response_format=response_format, max_tokens=100)
    body = stand_in.requests[-1].json
    return body.get("response_format") or body.get("format") or body["output_config"]["format"]


@pytest.mark.parametrize(
    ("format_", "schema", "strict"),
    [
        (JSONSchemaFormat("s", REQUIRED), closed({"title": TEXT}), True),
        (JSONSchemaFormat("s", OPTIONAL), OPTIONAL, False),
        (JSONSchemaFormat("s", REQUIRED, strict=False), REQUIRED, False),
        (JSONSchemaFormat("s", REQUIRED, strict=True), closed({"title": TEXT}), True),
    ],
)
@pytest.mark.parametrize("type_", [BackendType.OPENAI, BackendType.OPENAI_COMPATIBLE])
async def test_a_format_on_openai(
    type_: BackendType, format_: JSONSchemaFormat, schema: dict[str, Any], strict: bool
) -> None:
    async with OpenAIStandIn() as stand_in:  # answers 400 to a strict schema that is not
        sent = await sent_format(stand_in, type_, format_, default_model="gpt-4.1-mini")
    assert {"name": "s", "schema": schema, "strict": strict} == sent["json_schema"]


async def test_a_format_that_must_be_strict_and_cannot() -> None:
    async with OpenAIStandIn() as stand_in:
        with pytest.raises(StrictSchemaError, match=r"/properties/note: the property is optional") as exc_info:
            await sent_format(
                stand_in, BackendType.OPENAI, JSONSchemaFormat("s", OPTIONAL, strict=True), default_model="gpt-4.1-mini"
            )
        assert "/properties/note" == exc_info.value.pointer
        assert "openai" == exc_info.value.backend
        assert [] == stand_in.requests


async def test_a_schema_that_changes_between_requests() -> None:
    """The strict form is remembered for the content of a schema, not for the object."""
    schema = json.loads(json.dumps(REQUIRED))
    format_ = JSONSchemaFormat("s", schema)
    async with OpenAIStandIn() as stand_in:
        await sent_format(stand_in, BackendType.OPENAI, format_, default_model="gpt-4.1-mini")
        schema["properties"]["more"] = TEXT
        schema["required"].append("more")
        sent = await sent_format(stand_in, BackendType.OPENAI, format_, default_model="gpt-4.1-mini")
    assert ["title", "more"] == sent["json_schema"]["schema"]["required"]


async def test_the_description_of_a_format() -> None:
    schema = closed({"title": TEXT})
    format_ = JSONSchemaFormat("s", schema, description="The book.")
    async with OpenAIStandIn() as openai:
        sent = await sent_format(openai, BackendType.OPENAI, format_, default_model="gpt-4.1-mini")
    assert {"name": "s", "schema": schema, "strict": True, "description": "The book."} == sent["json_schema"]
    async with AnthropicStandIn() as anthropic:
        sent = await sent_format(anthropic, BackendType.ANTHROPIC, format_, default_model="claude-haiku-4-5")
    assert {**schema, "description": "The book."} == sent["schema"]
    async with OllamaStandIn() as ollama:
        sent = await sent_format(ollama, BackendType.OLLAMA, format_, default_model="qwen3:4b")
    assert {**schema, "description": "The book."} == sent


class Cat(pydantic.BaseModel):
    kind: Literal["cat"]
    lives: int = 9


class Dog(pydantic.BaseModel):
    kind: Literal["dog"]


class Pets(pydantic.BaseModel):
    pet: Annotated[Cat | Dog, pydantic.Field(discriminator="kind")]
    names: set[str]


class Bill(msgspec.Struct):
    when: datetime.date
    total: decimal.Decimal


@pytest.mark.parametrize(
    ("target", "text", "enforcement"),
    [
        (Pets, '{"pet": {"kind": "cat", "lives": 7}, "names": ["Tom"]}', "native"),
        (Bill, '{"when": "2026-11-27", "total": "1.50"}', "native"),
        (list[str], '{"value": ["a"]}', "native"),
        (dict[str, int], '{"a": 1}', "unverified"),
    ],
)
async def test_extraction_is_strict_where_it_can_be(target: type[Any], text: str, enforcement: str) -> None:
    async with (
        OpenAIStandIn(answer=lambda _: Answer(text=text)) as stand_in,
        open_backend(BackendType.OPENAI, endpoint=stand_in.url, api_key="any", default_model="gpt-4.1-mini") as backend,
    ):
        result = await extract_result(backend, target, "The text.")
    sent = stand_in.requests[-1].json["response_format"]["json_schema"]
    assert (enforcement, enforcement == "native") == (result.enforcement, sent["strict"])
    if target is Pets:
        assert "(uniqueItems: True)" in json.dumps(sent["schema"])
    if target is Bill:
        assert "(format: decimal)" == sent["schema"]["properties"]["total"]["description"]
