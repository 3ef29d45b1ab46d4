"""Kinds of a person: their schema, the prompt, the answer, and proposals, reviews and exports with their rows."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends._schema.generate import schema_for
from ctxbackends._util.text import one_line
from ctxbackends.knowledge import Kind, OwnKind, ingest
from ctxbackends.knowledge._errors import ChunkError, ProposalError
from ctxbackends.knowledge._extract.options import MAX_OWN_KINDS, RunOptions
from ctxbackends.knowledge._extract.prompt import Prompt
from ctxbackends.knowledge._own_kinds import record_type_of
from ctxbackends.knowledge._proposals.markdown import parse, render
from ctxbackends.knowledge._proposals.model import Proposal, choose_letters
from ctxbackends.knowledge._proposals.review import Review
from ctxbackends.knowledge._proposals.store import write_proposal
from ctxbackends.knowledge._records import Evidence, QuarantinedRow, Row, fields_of, record_of
from tests.knowledge.commands import ctx, project
from tests.knowledge.factories import LinesSource
from tests.knowledge.scripted_model import ScriptedModel, completion, decision, scripted_backend
from tests.knowledge.test_markdown import FACTS

FAILED = "The pump failed on 3 May, and the plant was down for 4 hours."
YAML = "We chose YAML because people edit it by hand."
SCHEMA: dict[str, Any] = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "description": "A failure of a machine.",
    "properties": {
        "hours": {"type": "number", "description": "How long it was down", "minimum": 0, "maximum": 100},
        "machine": {"type": "string"},
        "severity": {"type": "string", "enum": ["minor", "major"]},
        "parts": {"type": "array", "items": {"type": "string"}},
        "Reason": {"type": "string"},
        "is_fixed": {"type": "boolean"},
        "staff": {"type": ["integer", "null"]},
    },
    "required": ["hours", "machine", "severity", "parts", "Reason", "staff"],
    "additionalProperties": False,
    "examples": [
        {"hours": 0.5, "machine": "oven", "severity": "minor", "parts": ["fuse"], "Reason": "", "staff": None},
    ],
}
FAILURE = OwnKind("machine-failure", SCHEMA)
ROW: dict[str, Any] = {
    "quote": FAILED,
    "line": 1,
    "machine": "The pump",
    "hours": 4,
    "severity": "major",
    "parts": ["seal", "[valve]"],
    "Reason": "a | b",
    "is_fixed": True,
    "staff": None,
}
VALUES = {name: value for name, value in ROW.items() if name not in ("quote", "line")}


NAME_HINT = "use lower-case letters and digits, with hyphens between them"


def own_kind(properties: Mapping[str, Any], **more: Any) -> OwnKind:
    return OwnKind("thing", {"type": "object", "properties": dict(properties), **more})


def answer(**changes: Any) -> Callable[[str], dict[str, Any]]:
    return lambda _: {"machine_failures": [{**ROW, **changes}]}


# --- the schema -----------------------------------------------------------------------------------------


def test_the_title_comes_first() -> None:
    assert ("machine", "hours", "severity", "parts", "Reason", "is_fixed", "staff") == record_type_of(
        FAILURE
    ).__struct_fields__
    titled = own_kind({"name": {"type": "string"}, "title": {"type": "string"}})
    assert ("title", "name") == record_type_of(titled).__struct_fields__
    counted = own_kind({"title": {"type": "integer"}, "name": {"type": "string"}})
    assert ("name", "title") == record_type_of(counted).__struct_fields__


def test_equal_kinds_have_one_class() -> None:
    copy = OwnKind("machine-failure", json.loads(json.dumps(SCHEMA)))
    assert record_type_of(FAILURE) is record_type_of(copy)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("decision", "name of a kind is taken: decision; choose another one"),
        ("risks", "name of a kind is taken: risks; choose another one"),
        ("open-question", "name of a kind is taken: open-question; choose another one"),
        (
            "Incident",
            "invalid name of a kind: 'Incident'; use lower-case letters and digits, with hyphens between them",
        ),
        ("", "invalid name of a kind: ''; use lower-case letters and digits, with hyphens between them"),
        ("a--b", "invalid name of a kind: 'a--b'; use lower-case letters and digits, with hyphens between them"),
        ("a b", "invalid name of a kind: 'a b'; use lower-case letters and digits, with hyphens between them"),
    ],
)
def test_a_name_that_cannot_be_used(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        OwnKind(name, SCHEMA)


TEXT = {"t": {"type": "string"}}


@pytest.mark.parametrize(
    ("schema", "message"),
    [
        ({"type": "array", "items": TEXT}, "it must describe an object; write type: object with properties"),
        ({"type": "object"}, "no properties; write one for each field"),
        ({"properties": {}}, "no properties; write one for each field"),
        ({"properties": TEXT, "oneOf": []}, "the schema has oneOf, which is not supported; remove it"),
        ({"properties": TEXT, "$defs": {}}, "the schema has $defs, which is not supported; remove it"),
        ({"properties": TEXT, "required": ["u"]}, "required must be a list of properties; correct it"),
        ({"properties": {"n": {"type": "integer"}}}, "no property for the title; add one with type: string"),
        ({"properties": {"n": {"enum": ["a", "b"]}}}, "no property for the title; add one with type: string"),
        ({"properties": {"quote": {"type": "string"}}}, "reserved name of a property: quote; choose another one"),
        ({"properties": {"kind": {"type": "string"}}}, "reserved name of a property: kind; choose another one"),
        (
            {"properties": {"a b": {"type": "string"}}},
            "invalid name of a property: 'a b'; begin with a letter, then use letters, digits and _",
        ),
        (
            {"properties": TEXT | {"o": {"type": "object", "properties": {}}}},
            (
                'property o has the type "object", which is not supported; '
                "use one of string, integer, number, boolean, array"
            ),
        ),
        (
            {"properties": TEXT | {"o": {"type": ["integer", "string"]}}},
            (
                'property o has the type ["integer", "string"], which is not supported; '
                "use one of string, integer, number, boolean, array"
            ),
        ),
        (
            {"properties": TEXT | {"o": {}}},
            "property o has no type; use one of string, integer, number, boolean, array",
        ),
        (
            {"properties": TEXT | {"o": {"type": "array", "items": {"type": "object"}}}},
            "property o is a list of other values than strings; use type: string for its items",
        ),
        (
            {"properties": TEXT | {"o": {"type": "string", "not": {}}}},
            "property o has not, which is not supported; remove it",
        ),
        ({"properties": TEXT | {"o": True}}, "property o must be an object with a type; correct it"),
        (
            {"properties": TEXT | {"o": {"enum": ["a", 1]}}},
            "enum of property o must be a list of texts on one line; correct it",
        ),
        (
            {"properties": {f"f{number}": {"type": "string"} for number in range(21)}},
            "21 properties; write at most 20",
        ),
        (
            {"properties": TEXT, "required": ["t"], "examples": [{"t": 1}]},
            "examples[0] does not match: expected string, got integer - at `$.t`; correct it",
        ),
        ({"properties": TEXT, "examples": {"t": "a"}}, "examples must be a list; put each example into it"),
    ],
)
def test_a_schema_that_cannot_be_used(schema: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'invalid schema of thing: {message}')}$"):
        OwnKind("thing", schema)


def test_duplicate_and_too_many_kinds() -> None:
    with pytest.raises(ValueError, match=r"^duplicate kind: machine-failure; remove one$"):
        RunOptions(kinds=(FAILURE, Kind.TASK, FAILURE))
    kinds = [OwnKind(f"k{number}", {"properties": TEXT}) for number in range(MAX_OWN_KINDS + 1)]
    with pytest.raises(ValueError, match=r"^too many own kinds: 11; use at most 10$"):
        RunOptions(kinds=kinds)
    assert MAX_OWN_KINDS == len(RunOptions(kinds=kinds[:-1]).kinds)


# --- the prompt and the answer --------------------------------------------------------------------------


def test_the_prompt_has_the_descriptions_and_the_example() -> None:
    (question,) = Prompt([FAILURE]).questions
    assert "- machine_failures: A failure of a machine. machine. hours: How long it was down. " in question.instructions
    assert f"Example: {json.dumps(SCHEMA['examples'][0])}" in question.instructions
    schema = schema_for(question.response_type)
    (row,) = schema["$defs"].values()
    assert ["quote", "line", *VALUES] == list(row["properties"])
    assert {"enum": ["major", "minor"]} == {"enum": sorted(row["properties"]["severity"]["enum"])}


async def test_a_row_of_an_own_kind_has_evidence() -> None:
    async with scripted_backend(answer()) as (_, backend):
        run = ingest(backend, [LinesSource(FAILED)], kinds=[FAILURE])
        (row,) = [row async for row in run]
    assert ("machine-failure", "The pump") == (row.kind, row.title)
    assert {"kind": "machine-failure", **VALUES} == msgspec.to_builtins(row.record)
    assert [FAILED] == [evidence.quote for evidence in row.evidence]


async def test_own_kinds_and_built_in_ones_in_questions_of_their_own() -> None:
    def script(prompt: str) -> dict[str, Any]:
        rows = {"machine_failures": [ROW], "decisions": [decision("Use YAML", YAML)]}
        return {name: value for name, value in rows.items() if f"- {name}:" in prompt}

    async with scripted_backend(script) as (model, backend):
        run = ingest(backend, [LinesSource(FAILED, YAML)], kinds=[Kind.DECISION, FAILURE], kinds_per_question=1)
        rows = [row async for row in run]
    assert ["decision", "machine-failure"] == [row.kind for row in rows]
    assert 2 == len(model.bodies)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"hours": 200}, "invalid machine-failure: 200 does not match maximum: 100 - at `$.hours`"),
        ({"hours": -1}, "invalid machine-failure: -1 does not match minimum: 0 - at `$.hours`"),
        ({"machine": " "}, "no title"),
        ({"quote": "The pump failed on 4 May."}, "its quote is not in the source"),
    ],
)
async def test_a_row_that_does_not_match_the_schema_is_quarantined(changes: dict[str, Any], reason: str) -> None:
    async with scripted_backend(answer(**changes)) as (_, backend):
        run = ingest(backend, [LinesSource(FAILED)], kinds=[FAILURE])
        assert [] == [row async for row in run]
    (row,) = run.quarantined
    assert reason == row.reason.replace(".0 does", " does")


@pytest.mark.parametrize("changes", [{"severity": "huge"}, {"hours": "four"}, {"parts": "seal"}, {"is_fixed": 1}])
async def test_values_of_another_type_are_no_usable_answer(changes: dict[str, Any]) -> None:
    async with scripted_backend(lambda _: completion(json.dumps(answer(**changes)("")))) as (_, backend):
        run = ingest(backend, [LinesSource(FAILED)], kinds=[FAILURE])
        with pytest.raises(ChunkError, match=r"no usable answer from the model"):
            [row async for row in run]


def test_fields_that_the_text_does_not_say() -> None:
    thing = own_kind(
        {
            "name": {"type": "string"},
            "note": {"type": "string", "minLength": 5},
            "count": {"anyOf": [{"type": "integer"}, {"type": "null"}]},
            "level": {"enum": ["low", "high", None]},
        },
        required=["name", "count"],
    )
    record = record_of(record_type_of(thing), {"name": "A", "note": "", "count": "", "level": ""})
    assert {"kind": "thing", "name": "A", "note": "", "count": None, "level": None} == msgspec.to_builtins(record)


# --- proposals ------------------------------------------------------------------------------------------


def proposal_of(*values: Mapping[str, Any], kinds: tuple[OwnKind, ...] = (FAILURE,)) -> Proposal:
    record_type: Any = record_type_of(kinds[0])
    evidence = Evidence(source="notes.md", quote=FAILED, first=1, last=1)
    rows = [Row(record=record_type(**one), evidence=(evidence,)) for one in values]
    quarantined = [QuarantinedRow(record=row.record, reason="no quote", quote="", where="notes.md:1") for row in rows]
    facts = msgspec.structs.replace(FACTS, kinds=tuple(kind.name for kind in kinds), own_kinds=kinds)
    return Proposal(facts=facts, rows=tuple(rows), quarantined=tuple(quarantined))


def test_a_proposal_is_read_back_without_loss() -> None:
    proposal = proposal_of(VALUES, {**VALUES, "is_fixed": None, "staff": 3, "parts": [], "Reason": "\\ *x* <b>"})
    text = render(proposal)
    assert proposal == parse(text)
    assert "## Machine failures" in text
    assert "### a1: The pump" in text


LABELS = ("Kind", "Reason", "Source", "reason", "Title", "already", "Größe", "class", "x_1")


@given(
    st.dictionaries(st.sampled_from(LABELS), st.text(st.characters(exclude_categories=["Cs"])), min_size=1),
    st.lists(st.text(st.characters(exclude_categories=["Cs"])), max_size=3),
    st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False)),
)
def test_any_field_is_read_back(texts: dict[str, str], items: list[str], number: float | None) -> None:
    # As the rows of an answer are.
    texts = {name: one_line(text) for name, text in texts.items()}
    items = [one_line(item) for item in items]
    kind = own_kind(
        {**{name: {"type": "string"} for name in texts}, "items": {"type": "array"}, "number": {"type": "number"}}
    )
    record_type: Any = record_type_of(kind)
    record = record_type(**texts, items=items, number=number)
    assert record == record_of(record_type, fields_of(record))
    proposal = proposal_of({**texts, "items": items, "number": number}, kinds=(kind,))
    assert proposal == parse(render(proposal))


def test_the_letters_of_own_kinds() -> None:
    kinds = [OwnKind(name, {"properties": TEXT}) for name in ("incident", "item", "dtqrmxl", "up")]
    letters = choose_letters(kinds)
    assert {"incident": "i", "item": "e", "dtqrmxl": "a", "up": "u"} == {
        kind.name: letters[kind.name] for kind in kinds
    }
    assert len(letters) == len(set(letters.values()))
    many = choose_letters([OwnKind(f"d{number}", {"properties": TEXT}) for number in range(MAX_OWN_KINDS)])
    assert MAX_OWN_KINDS + len(Kind) == len(set(many.values()))


def test_an_edit_is_checked_against_the_schema(tmp_path: Path) -> None:
    review = Review(write_proposal(tmp_path, proposal_of(VALUES)))
    assert review.edit("a1", {"hours": "6.5", "parts": '["pipe"]', "staff": "2", "is_fixed": "false"})
    review = Review(review.path)
    expected = {**VALUES, "hours": 6.5, "parts": ["pipe"], "staff": 2, "is_fixed": False}
    assert {"kind": "machine-failure", **expected} == msgspec.to_builtins(review.row("a1").record)
    for field, value in (("hours", "1000"), ("hours", "many"), ("severity", "huge"), ("parts", "pipe"), ("other", "x")):
        with pytest.raises(ProposalError, match=r"^a1: (invalid|unknown field of a) machine-failure"):
            review.edit("a1", {field: value})
    with pytest.raises(ProposalError, match=r"^a1: empty machine; write a text$"):
        review.edit("a1", {"machine": ""})


# --- the commands ---------------------------------------------------------------------------------------


def test_from_the_schema_to_the_export(tmp_path: Path, serve: Callable[..., ScriptedModel]) -> None:
    model = serve(answer())
    directory = project(tmp_path, model.url)
    (directory / "failure.json").write_text(json.dumps(SCHEMA))
    (directory / "notes.md").write_text(FAILED)
    result = ctx(directory, "ingest", "notes.md", "--kind", "machine-failure=failure.json")
    assert 0 == result.code, result.err
    assert ["machine_failures"] == list(model.bodies[0]["response_format"]["json_schema"]["schema"]["properties"])
    shown = ctx(directory, "proposals", "show", "latest", "a1")
    assert "a1  machine-failure: The pump" in shown.out
    assert "    severity: major" in shown.out
    as_json = json.loads(ctx(directory, "proposals", "show", "--json").out)
    assert {"kind": "machine-failure", **VALUES} == as_json["rows"][0]["record"]
    assert [{"name": "machine-failure", "schema": SCHEMA}] == as_json["own_kinds"]
    assert 0 == ctx(directory, "proposals", "accept", "a1").code
    exported = ctx(directory, "proposals", "export", "--kind", "machine-failures")
    assert 0 == exported.code, exported.err
    payload = json.loads(exported.out)
    assert VALUES == {name: payload[name] for name in VALUES}
    assert "machine-failure" == payload["kind"]
    assert FAILED in exported.out
    assert "The pump" in ctx(directory, "proposals", "export", "--format", "markdown").out
    assert "The pump" in ctx(directory, "proposals", "export", "--format", "csv").out
    assert "" == ctx(directory, "proposals", "export", "--kind", "decisions").out


def test_a_list_of_fields_and_built_in_kinds(tmp_path: Path, serve: Callable[..., ScriptedModel]) -> None:
    model = serve(lambda _: {})
    directory = project(tmp_path, model.url)
    (directory / "notes.md").write_text(FAILED)
    options = ("--kind", "failure=machine: its name, hours int", "--extract", "tasks")
    assert 0 == ctx(directory, "ingest", "notes.md", *options).code
    schema = model.bodies[0]["response_format"]["json_schema"]["schema"]
    assert ["tasks", "failures"] == list(schema["properties"])
    assert "- failures: failure. machine: its name. hours." in model.bodies[0]["messages"][0]["content"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (["failure"], "not NAME=SCHEMA: 'failure'; write it as in incident=schema.json"),
        (["=a, b"], "not NAME=SCHEMA: '=a, b'; write it as in incident=schema.json"),
        (["failure=missing.json"], "--kind failure: missing.json: no such file"),
        (["failure=name, cost money"], "--kind failure: unknown type of cost: money; use one of str, int, float, bool"),
        (["failure={"], "--kind failure: not JSON: "),
        (["task=title, cost int"], "--kind task: name of a kind is taken: task; choose another one"),
        (["failure=cost int,"], "--kind failure: invalid schema of failure: no property for the title; add one with"),
        (["failure=a,", "failure=b,"], "duplicate kind: failure; remove one"),
    ],
)
def test_kinds_that_cannot_be_used(tmp_path: Path, values: list[str], message: str) -> None:
    (tmp_path / "notes.md").write_text(FAILED)
    options = [part for value in values for part in ("--kind", value)]
    result = ctx(tmp_path, "ingest", "notes.md", "--dry-run", *options)
    assert result.code != 0
    assert message in result.err
    assert "Traceback" not in result.err


def test_an_unknown_kind_of_an_export(tmp_path: Path) -> None:
    directory = project(tmp_path, None)
    proposals = directory / ".context" / "proposals"
    proposals.mkdir()
    write_proposal(proposals, proposal_of(VALUES))
    result = ctx(directory, "proposals", "export", "--kind", "failures")
    assert 2 == result.code
    assert "unknown kind: 'failures'; the kinds are decisions, learnings, " in result.err
    assert "machine-failures" in result.err
