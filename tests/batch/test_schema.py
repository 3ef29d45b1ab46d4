"""--schema: the option of a request, and the check of an answer."""

from __future__ import annotations

from typing import Any, cast

import pytest

from ctxbackends import Backend, Completion, JSONSchemaFormat, StructuredOutputError, ToolCall
from ctxbackends.batch import BatchRow
from ctxbackends.batch._schema import MAX_DEPTH, AnswerSchema
from ctxbackends.errors import IncompleteOutputError

DOG = {
    "type": "object",
    "properties": {"name": {"type": "string"}, "age": {"type": "integer", "minimum": 0}},
    "required": ["name", "age"],
    "additionalProperties": False,
}
REX = '{"name": "Rex", "age": 3}'
LABELS = {"enum": ["spam", "ham"]}
ANY = {"type": ["object", "array", "string", "number"]}


class Server:
    def __init__(self, enforcement: str) -> None:
        self.schema_enforcement = enforcement


def server(enforcement: str = "grammar") -> Backend:
    return cast("Backend", Server(enforcement))


def completion(text: str, **fields: Any) -> Completion:
    return Completion(**{"text": text, "finish_reason": "stop", "requested_model": "m"} | fields)


# --- requests ---------------------------------------------------------------------------------------------


def test_a_grammar_gets_the_schema_itself() -> None:
    options = AnswerSchema(LABELS).build_options(server("grammar"))
    assert ["response_format"] == [*options]
    assert LABELS == options["response_format"].schema


@pytest.mark.parametrize("enforcement", ["native", "unverified"])
def test_other_servers_get_an_object_at_the_root(enforcement: str) -> None:
    response_format = AnswerSchema(LABELS).build_options(server(enforcement))["response_format"]
    assert isinstance(response_format, JSONSchemaFormat)
    assert ("object", True) == (response_format.schema["type"], response_format.strict)


def test_the_form_of_a_schema_is_built_once_for_each_kind_of_server() -> None:
    schema = AnswerSchema(DOG)
    one, other = server("grammar"), server("grammar")
    assert schema.build_options(one)["response_format"] is schema.build_options(other)["response_format"]
    assert schema.build_options(one) != schema.build_options(server("native"))


@pytest.mark.parametrize(
    ("schema", "problem"),
    [({"type": "dog"}, "dog"), ({"type": "object", "required": "name"}, "required"), ({"pattern": "("}, "pattern")],
)
def test_an_invalid_schema(schema: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^not a valid JSON Schema: .*{problem}"):
        AnswerSchema(schema)


def test_rows_that_cannot_have_the_schema() -> None:
    schema = AnswerSchema(DOG)
    schema.check_row(BatchRow(id="r", prompt="A dog?", options={"response_format": None}))
    with pytest.raises(ValueError, match=r"^vectors cannot match a schema; "):
        schema.check_row(BatchRow(id="r", prompt="A dog.", operation="embed"))
    with pytest.raises(ValueError, match=r"^response_format and the schema of the batch are mutually exclusive; "):
        schema.check_row(BatchRow(id="r", prompt="A dog?", options={"response_format": {"type": "json_object"}}))


# --- answers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("enforcement", ["grammar", "native", "unverified"])
def test_an_object(enforcement: str) -> None:
    assert {"name": "Rex", "age": 3} == AnswerSchema(DOG).check_answer(server(enforcement), completion(REX))


def test_the_value_is_the_member_of_the_object_that_a_server_wants() -> None:
    schema = AnswerSchema(LABELS)
    wrapped = schema.build_options(server("native"))["response_format"].schema
    (member,) = wrapped["properties"]
    assert "ham" == schema.check_answer(server("native"), completion(f'{{"{member}": "ham"}}'))
    assert "ham" == schema.check_answer(server("grammar"), completion('"ham"'))


@pytest.mark.parametrize("text", [f"```json\n{REX}\n```", f"<think>A dog.</think>\n{REX}"])
def test_wrappers_are_removed_only_where_nothing_enforces_the_schema(text: str) -> None:
    schema = AnswerSchema(DOG)
    assert {"name": "Rex", "age": 3} == schema.check_answer(server("unverified"), completion(text))
    with pytest.raises(StructuredOutputError, match="not JSON"):
        schema.check_answer(server("grammar"), completion(text))


@pytest.mark.parametrize(
    ("text", "pointer", "problem"),
    [
        ('{"name": "Rex"}', "$", "missing member: age"),
        ('{"name": 1, "age": 3}', "$.name", "expected string, got integer"),
        ('{"name": "Rex", "age": -1}', "$.age", "-1 does not match minimum: 0"),
        ('{"name": "Rex", "age": 3, "x": 1}', "$", "unknown member: x"),
        ("Rex is 3.", None, "the answer is not JSON"),
        (f"{REX} {REX}", None, "the answer is not JSON"),
        ("", None, "the answer is not JSON"),
    ],
)
def test_an_answer_that_does_not_match(text: str, pointer: str | None, problem: str) -> None:
    with pytest.raises(StructuredOutputError, match=problem) as raised:
        AnswerSchema(DOG).check_answer(server(), completion(text))
    assert (text, pointer) == (raised.value.text, raised.value.pointer)


@pytest.mark.parametrize("reason", ["length", "content_filter"])
def test_an_incomplete_answer_has_no_value_even_if_it_is_whole_json(reason: str) -> None:
    with pytest.raises(IncompleteOutputError) as raised:
        AnswerSchema(DOG).check_answer(server(), completion(REX, finish_reason=reason))
    assert (reason, REX) == (raised.value.finish_reason, raised.value.text)


@pytest.mark.parametrize(
    "fields",
    [{"refusal": "I cannot."}, {"finish_reason": "tool_calls", "tool_calls": (ToolCall("c", "find", "{}"),)}],
    ids=["refusal", "tool call"],
)
def test_a_refusal_or_a_tool_call_is_no_value(fields: dict[str, Any]) -> None:
    with pytest.raises(StructuredOutputError):
        AnswerSchema(DOG).check_answer(server(), completion(REX, **fields))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r'"\ud83d"', "\ufffd"),
        (r'{"\udc00": ["\ud83d\ud83e\uddb6"]}', {"\ufffd": ["\ufffd🦶"]}),
        ('"Füße"', "Füße"),
        ("100000000000000000000000000000", 10**29),
    ],
)
def test_values_that_not_every_json_decoder_reads(text: str, expected: object) -> None:
    assert expected == AnswerSchema(ANY).check_answer(server(), completion(text))


@pytest.mark.parametrize("text", ["1e400", '{"a": [-1e400]}'])
def test_a_number_that_is_too_large(text: str) -> None:
    with pytest.raises(StructuredOutputError, match=r"^the answer has a number that is too large$") as raised:
        AnswerSchema(ANY).check_answer(server(), completion(text))
    assert text == raised.value.text


@pytest.mark.parametrize(("begin", "end"), [("[", "]"), ('{"a": ', "}")])
@pytest.mark.parametrize(("depth", "is_fine"), [(MAX_DEPTH, True), (MAX_DEPTH + 1, False), (100_000, False)])
def test_a_value_that_is_nested_too_deeply(begin: str, end: str, depth: int, is_fine: bool) -> None:
    answer = completion(begin * (depth - 1) + ("[]" if begin == "[" else "{}") + end * (depth - 1))
    if is_fine:
        assert isinstance(AnswerSchema(ANY).check_answer(server(), answer), list | dict)
    else:
        with pytest.raises(StructuredOutputError):
            AnswerSchema(ANY).check_answer(server(), answer)
