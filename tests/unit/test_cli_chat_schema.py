"""chat --schema: fields, files, and the check of the answer."""
# ruff: noqa: F811  # fixtures are imported

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends import StructuredOutputError
from ctxbackends._cli.chat.schema_option import parse_schema
from ctxbackends._schema.check import check_structure
from tests.unit.test_cli import (
    Result,
    Script,
    _alone,  # noqa: F401  # a fixture
    backend,
    ctx,
    ctxrc,
    last_chunk,
    script,  # noqa: F401  # a fixture
    text_chunk,
    usage_error,
)

DOG = {"name": "Rex", "age": 3}


@pytest.fixture(autouse=True)
def _configured(script: Script) -> None:
    ctxrc(backend(script.endpoint, type="llamacpp"))


def answers(script: Script, text: str, reason: str = "stop") -> None:
    script.chunks = [text_chunk(text), last_chunk(reason)]


# --- fields -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "name, age int, bio: one line",
        " name ,age int,, bio:one line ",
        "name\nage int\nbio: one line\n",
        "name str, age int, bio str: one line",
    ],
)
def test_fields(text: str) -> None:
    expected = {
        "type": "object",
        "properties": {
            "name": {"type": "string"},
            "age": {"type": "integer"},
            "bio": {"type": "string", "description": "one line"},
        },
        "required": ["name", "age", "bio"],
        "additionalProperties": False,
    }
    assert expected == parse_schema(text)


def test_fields_that_are_longer_than_the_name_of_a_file() -> None:
    names = [f"field_{number}" for number in range(1000)]
    assert names == parse_schema(", ".join(names))["required"]


def test_the_types_of_fields() -> None:
    properties = parse_schema("a str, b int, c float, d bool")["properties"]
    assert ["string", "integer", "number", "boolean"] == [field["type"] for field in properties.values()]


def test_one_field_and_a_comma_in_a_description() -> None:
    assert ["name"] == parse_schema("name,")["required"]
    expected = {"a": {"type": "string", "description": "x, y: z"}, "b": {"type": "string"}}
    assert expected == parse_schema("a: x, y: z\nb")["properties"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("name, age integer", "--schema: unknown type of age: integer; did you mean int?"),
        ("name, age foo", "--schema: unknown type of age: foo; use one of str, int, float, bool"),
        ("name, : text", "--schema: not a field: ': text'; write 'name', 'name type' or 'name: text'"),
        ("the full name, age", "--schema: not a field: 'the full name'; write 'name', 'name type' or 'name: text'"),
        ("a, a int", "--schema: duplicate field: a"),
        (",", "--schema: no field; write them as in 'name, age int'"),
        ("person", "--schema: person: no such file; for a schema with this one field, write 'person,'"),
        ("person.json", "--schema: person.json: no such file"),
        ("", "--schema: no field; write them as in 'name, age int'"),
        (".", "--schema: .: Is a directory"),
    ],
)
def test_what_is_neither_fields_nor_a_file(text: str, problem: str) -> None:
    with pytest.raises(click.ClickException) as error:
        parse_schema(text)
    assert problem == error.value.message


# --- JSON Schema ------------------------------------------------------------------------------------------


def test_a_file_and_the_schema_itself() -> None:
    schema = {"type": "array", "items": {"$ref": "#/$defs/dog"}, "$defs": {"dog": {"type": "object"}}}
    Path("dogs.json").write_text(json.dumps(schema), encoding="utf-8-sig")
    assert schema == parse_schema("dogs.json") == parse_schema(f" {json.dumps(schema)}")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"name: Rex", "not JSON: Expecting value: line 1 column 1 (char 0)"),
        (b'{"type": "object"', "not JSON: Expecting ',' delimiter: line 1 column 18 (char 17)"),
        (b"[1]", "not a JSON Schema: it must be an object with one of type, properties"),
        (b'{"name": "Rex", "age": 3}', "not a JSON Schema: it must be an object with one of type, properties"),
        (b'{"type": "int"}', "not a valid JSON Schema: $.type is 'int'; did you mean integer?"),
        (b'{"properties": []}', "not a valid JSON Schema: $.properties must be an object, not []"),
        (b'{"properties": {"a": 1}}', "not a valid JSON Schema: $.properties.a must be an object, not 1"),
        (b'{"type": "object", "required": "a"}', '$.required must be a list of names, not "a"'),
        (b'{"enum": []}', "$.enum must be a list of values, not []"),
        (b'{"anyOf": []}', "$.anyOf must be a list of schemas"),
        (b'{"items": {"minLength": -1}}', "$.items.minLength must be a count, not -1"),
        (b'{"type": "string", "pattern": "("}', '$.pattern must be a regular expression, not "("'),
        (b'{"$ref": "#/$defs/a"}', "$.$ref is not a definition of this schema: #/$defs/a"),
        (b'{"allOf": [{"not": {}}]}', "$.allOf[0].not is not supported: the answer could not be checked against it"),
        (b"\xff\xfe", "not a JSON file (it is not UTF-8)"),
    ],
)
def test_a_file_that_is_no_schema(script: Script, content: bytes, problem: str) -> None:
    Path("dog.json").write_bytes(content)
    result = ctx("chat", "--schema", "dog.json", "Hi")
    assert (1, "") == (result.code, result.out)
    assert "dog.json: " in result.err
    assert problem in result.err
    assert [] == script.requests


# --- the answer -------------------------------------------------------------------------------------------


def test_the_answer_is_printed_as_json(script: Script) -> None:
    answers(script, '{"name":\n"Rex", "age": 3}\n')
    assert Result(0, '{"name": "Rex", "age": 3}\n', "") == ctx("chat", "--schema", "name, age int", "A dog")
    sent = script.chat_body["response_format"]["json_schema"]["schema"]
    assert ["name", "age"] == sent["required"]


def test_the_answer_on_a_terminal(script: Script) -> None:
    answers(script, json.dumps(DOG))
    result = ctx("chat", "--quiet", "--schema", "name, age int", "A dog", tty="stdout stderr")
    assert Result(0, '{\n  "name": "Rex",\n  "age": 3\n}\n', "") == result


def test_the_answer_as_one_object(script: Script) -> None:
    answers(script, json.dumps(DOG))
    printed = json.loads(ctx("chat", "--json", "--schema", "name, age int", "A dog").out)
    assert (DOG, json.dumps(DOG)) == (printed["value"], printed["text"])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("A dog.", "the answer is not JSON: "),
        ('{"name": "Rex"}', "missing member: age"),
        ('{"name": "Rex", "age": "3"}', "expected integer, got string"),
        ('{"name": "Rex", "age": 3, "tail": true}', "unknown member: tail"),
        ('{"name": "Rex", "age": NaN}', "the answer is not JSON: NaN is not a JSON value"),
    ],
)
def test_an_answer_that_does_not_match(script: Script, text: str, problem: str) -> None:
    answers(script, text)
    for more in ((), ("--json",)):
        result = ctx("chat", *more, "--schema", "name, age int", "A dog")
        assert (1, "") == (result.code, result.out)
        assert problem in result.err


def test_a_truncated_answer(script: Script) -> None:
    answers(script, '{"name": "Rex", "age": 3}', "length")
    result = ctx("chat", "--schema", "name, age int", "A dog")
    assert (1, "") == (result.code, result.out)
    assert "finish_reason length; raise max_tokens\n" in result.err


def test_constraints_are_checked(script: Script) -> None:
    schema = {"type": "object", "properties": {"age": {"type": "integer", "maximum": 2}}}
    answers(script, '{"age": 3}')
    result = ctx("chat", "--schema", json.dumps(schema), "A dog")
    assert (1, "") == (result.code, result.out)
    assert "3 does not match maximum: 2 - at `$.age`" in result.err


def test_a_list_from_a_server_that_enforces_only_objects(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    schema = {"type": "array", "items": {"$ref": "#/definitions/dog"}, "definitions": {"dog": {"type": "string"}}}
    answers(script, 'Sure:\n{"value": ["Rex"]}')
    assert 1 == ctx("chat", "--schema", json.dumps(schema), "Dogs").code
    script.requests.clear()
    answers(script, '```json\n{"value": ["Rex"]}\n```')
    assert Result(0, '["Rex"]\n', "") == ctx("chat", "--schema", json.dumps(schema), "Dogs")
    sent = script.chat_body["response_format"]["json_schema"]["schema"]
    assert {"dog": {"type": "string"}} == sent["definitions"]


@pytest.mark.parametrize("option", ["--schema", "--json"])
def test_a_conversation_has_no_json(script: Script, option: str) -> None:
    arguments = [option] if option == "--json" else [option, "a, b"]
    problem = f"{option} requires a prompt; pass it as an argument or on standard input"
    assert usage_error(problem) == ctx("chat", *arguments, tty="stdin stdout")


# --- constraints --------------------------------------------------------------------------------------------

NUMBERS = st.sampled_from([-1, 0, 0.5, 1, 1.0, 2, 3, 1e300])
TEXTS = st.sampled_from(["", "a", "ab", "é", "a1"])
VALUES = st.recursive(
    NUMBERS | TEXTS | st.booleans() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
COUNTS = st.integers(0, 2)
CONSTRAINTS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), NUMBERS),
        "multipleOf": st.sampled_from([0.5, 1, 2]),
        **dict.fromkeys(("minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"), COUNTS),
        "pattern": st.sampled_from(["^a", "b$", "[0-9]"]),
        "uniqueItems": st.booleans(),
        "additionalProperties": st.sampled_from([{"type": "string"}, {"minimum": 1}, True, False]),
        "properties": st.dictionaries(TEXTS, st.fixed_dictionaries({"maximum": NUMBERS}), max_size=1),
        "items": st.fixed_dictionaries({"minimum": NUMBERS}),
    },
)


@pytest.mark.parametrize("value", [0.3, 0.7, 1e300, 3])
def test_multiples_are_those_of_decimal_numbers(value: float) -> None:
    check_structure({"multipleOf": 0.1}, value, text="", constraints=True)


@given(CONSTRAINTS, VALUES)
def test_the_same_values_match_as_in_jsonschema(schema: dict[str, Any], value: Any) -> None:
    try:
        check_structure(schema, value, text="", constraints=True)
    except StructuredOutputError:
        is_valid = False
    else:
        is_valid = True
    assert jsonschema.Draft202012Validator(schema).is_valid(value) == is_valid
