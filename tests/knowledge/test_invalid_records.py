"""Rows of own kinds that do not match their schema are not accepted with a new quote alone."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ctxbackends.knowledge import OwnKind, ingest
from ctxbackends.knowledge._errors import ProposalError
from ctxbackends.knowledge._own_kinds import record_type_of
from ctxbackends.knowledge._proposals.model import Proposal
from ctxbackends.knowledge._proposals.review import Review
from ctxbackends.knowledge._proposals.store import write_proposal
from ctxbackends.knowledge._records import QuarantinedRow
from ctxbackends.knowledge._sources.base import Input
from tests.knowledge.commands import ctx, project
from tests.knowledge.factories import LinesSource
from tests.knowledge.scripted_model import scripted_backend
from tests.knowledge.test_markdown import FACTS

OUTAGE = "The gate was stuck for 30 hours."
KIND = OwnKind(
    "outage",
    {
        "properties": {"title": {"type": "string"}, "hours": {"type": "integer", "maximum": 24}},
        "required": ["title", "hours"],
    },
)
REASON = "invalid outage: 30 does not match maximum: 24 - at `$.hours`"


async def test_a_second_look_does_not_accept_an_invalid_record() -> None:
    def script(prompt: str) -> Any:
        if prompt.startswith("Passage:"):
            return json.dumps({"quote": OUTAGE})
        row = {"quote": "The gate did not open.", "line": 1, "title": "Gate"}
        return {"outages": [{**row, "hours": 30}, {**row, "hours": 3}]}

    async with scripted_backend(script) as (model, backend):
        run = ingest(backend, [LinesSource(OUTAGE)], kinds=[KIND], second_look=True)
        rows = [msgspec.to_builtins(row.record) async for row in run]
    assert [{"kind": "outage", "title": "Gate", "hours": 3}] == rows
    assert [REASON] == [row.reason for row in run.quarantined]
    assert (2, 1) == (len(model.prompts), run.report.second_looks)


@pytest.fixture
def proposal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    project(tmp_path, None)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.md").write_text(OUTAGE)
    data = OUTAGE.encode()
    input_ = Input(name="log.md", sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    record_type: Any = record_type_of(KIND)
    row = QuarantinedRow(record=record_type(title="Gate", hours=30), reason=REASON, quote="The gate", where="log.md:1")
    facts = msgspec.structs.replace(FACTS, kinds=("outage",), own_kinds=(KIND,), inputs=(input_,))
    directory = tmp_path / ".context" / "proposals"
    directory.mkdir()
    return write_proposal(directory, Proposal(facts=facts, rows=(), quarantined=(row,)))


def test_an_invalid_record_needs_an_edit_besides_a_quote(proposal: Path) -> None:
    review = Review(proposal)
    hint = f"x1 cannot be accepted: {REASON}; change it with ctxbackends proposals edit {proposal.stem} x1"
    assert hint == review.find_problem("x1")
    review.requote("x1", OUTAGE)
    assert {"x1": "undecided"} == review.states()
    with pytest.raises(ProposalError, match=f"^{re.escape(hint)}$"):
        review.accept(["x1"])
    review.edit("x1", {"hours": "23"})
    assert None is review.find_problem("x1")
    review.accept(["x1"])
    assert ("accepted", 23) == (review.states()["x1"], msgspec.to_builtins(review.row("x1").record)["hours"])


def test_the_commands_say_so(proposal: Path) -> None:
    def run(*arguments: str) -> Any:
        return ctx(Path(), "proposals", *arguments)

    result = run("requote", "latest", "x1", "--quote", OUTAGE)
    assert (1, "") == (result.code, result.out)
    assert f"the quote is saved (log.md:1), but x1 cannot be accepted: {REASON}; change it with" in result.err
    assert 1 == run("accept", "latest", "x1").code
    assert "" == run("export").out
    assert 0 == run("edit", "latest", "x1", "--set", "hours=23").code
    assert 0 == run("accept", "latest", "x1").code
    assert 23 == json.loads(run("export").out)["hours"]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"pattern": "("}, '$.properties.t.pattern must be a regular expression, not "("'),
        ({"pattern": 1}, "$.properties.t.pattern must be a regular expression, not 1"),
        ({"maxLength": "9"}, '$.properties.t.maxLength must be a count, not "9"'),
        ({"minLength": -1}, "$.properties.t.minLength must be a count, not -1"),
    ],
)
def test_a_constraint_that_cannot_be_checked(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(f'invalid schema of thing: {problem}; correct it')}$"):
        OwnKind("thing", {"properties": {"t": {"type": "string", **changes}}})


@pytest.mark.parametrize("changes", [{"minimum": "1"}, {"multipleOf": 0}, {"exclusiveMaximum": True}])
def test_a_bound_that_is_not_a_number(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"must be a number( above 0)?, not .*; correct it$"):
        OwnKind("thing", {"properties": {"t": {"type": "string"}, "n": {"type": "number", **changes}}})


def test_a_property_that_the_class_of_a_row_has() -> None:
    with pytest.raises(ValueError, match=r"reserved name of a property: schema_of_kind; choose another one$"):
        OwnKind("thing", {"properties": {"schema_of_kind": {"type": "string"}}})
