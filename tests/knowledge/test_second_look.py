"""A second look at quarantined rows, and equal ones merged."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ctxbackends import APIStatusError
from ctxbackends.knowledge._extract.journal import Journal
from ctxbackends.knowledge._extract.run import Ingestion, ingest
from ctxbackends.knowledge._records import Kind, QuarantinedRow, Row
from tests.knowledge.factories import LinesSource
from tests.knowledge.scripted_model import completion, decision, scripted_backend

YAML = "We chose YAML because people edit it by hand."
LINES = ("Nothing of note.", YAML, "The rest is about lunch.")
WRONG = "YAML was chosen, since it is edited by people."


def script(prompt: str) -> Any:
    """Wrong quotes at first; at a second look the right one, where the passage has it."""
    if prompt.startswith("Passage:"):
        return json.dumps({"quote": YAML.lower() if YAML in prompt else ""})
    return {"decisions": [decision("Use YAML", WRONG, 1), decision("Buy lunch", "Somebody buys lunch today.", 3)]}


async def rows_of(run: Ingestion) -> list[Row]:
    return [row async for row in run]


async def test_a_new_quote_is_verified() -> None:
    async with scripted_backend(script) as (model, backend):
        run = ingest(backend, [LinesSource(*LINES)], kinds=[Kind.DECISION], second_look=True)
        (row,) = await rows_of(run)
    (evidence,) = row.evidence
    assert ("Use YAML", YAML, "notes.md:2", "folded") == (row.title, evidence.quote, evidence.where, evidence.match)
    assert ["Buy lunch"] == [quarantined.record.title for quarantined in run.quarantined]  # type: ignore[union-attr]
    assert (2, 1, 1) == (run.report.second_looks, run.report.recovered, run.report.quarantined)
    assert (300, 30) == (run.report.input_tokens, run.report.output_tokens)
    # The passage alone, then the row.
    assert [f"Passage:\n{YAML}\n\nRecord:\n", f"Passage:\n{LINES[2]}\n\nRecord:\n"] == [
        prompt.partition("{")[0] for prompt in model.prompts[1:]
    ]


async def test_no_second_look_by_default() -> None:
    async with scripted_backend(script) as (model, backend):
        run = ingest(backend, [LinesSource(*LINES)], kinds=[Kind.DECISION])
        assert [] == await rows_of(run)
    assert (1, 0, 2) == (len(model.prompts), run.report.second_looks, run.report.quarantined)


async def test_equal_rows_are_asked_about_once() -> None:
    def repeating(prompt: str) -> Any:
        return script(prompt) if prompt.startswith("Passage:") else {"decisions": [decision("Use YAML", WRONG)] * 9}

    async with scripted_backend(repeating) as (model, backend):
        run = ingest(backend, [LinesSource(*LINES)], kinds=[Kind.DECISION], second_look=True)
        assert 1 == len(await rows_of(run))
    assert (2, 1, 1) == (len(model.prompts), run.report.second_looks, run.report.recovered)


async def test_a_valid_row_and_a_row_without_title_are_not_asked_about() -> None:
    def good(_: str) -> Any:
        return {"decisions": [decision("Use YAML", YAML), decision(" ", WRONG)]}

    async with scripted_backend(good) as (model, backend):
        run = ingest(backend, [LinesSource(*LINES)], kinds=[Kind.DECISION], second_look=True)
        assert 1 == len(await rows_of(run))
    assert (1, 0) == (len(model.prompts), run.report.second_looks)


@pytest.mark.parametrize(
    "answer",
    [
        '{"quote": "We chose TOML because people edit it."}',
        '{"quote": ""}',
        "no JSON",
        completion("{", finish_reason="length"),
    ],
)
async def test_a_row_stays_quarantined(answer: Any) -> None:
    def bad(prompt: str) -> Any:
        return answer if prompt.startswith("Passage:") else {"decisions": [decision("Use YAML", WRONG)]}

    async with scripted_backend(bad) as (_, backend):
        run = ingest(backend, [LinesSource(*LINES)], kinds=[Kind.DECISION], second_look=True)
        assert [] == await rows_of(run)
    assert [("its quote is not in the source", WRONG)] == [(row.reason, row.quote) for row in run.quarantined]
    assert (1, 0) == (run.report.second_looks, run.report.recovered)


async def test_second_looks_come_from_the_journal(tmp_path: Path) -> None:
    async with scripted_backend(script) as (model, backend):
        for second_look, prompts in ((False, 1), (True, 2), (True, 0)):
            model.prompts.clear()
            with closing(Journal(tmp_path / "j.jsonl")) as journal:
                run = ingest(
                    backend, [LinesSource(*LINES)], kinds=[Kind.DECISION], second_look=second_look, journal=journal
                )
                assert second_look == bool(await rows_of(run))
                assert 1 == len(journal)  # finished chunks, also with the second looks
            assert prompts == len(model.prompts)
    assert (1, 2, 1) == (run.report.reused, run.report.second_looks, run.report.recovered)


async def test_a_run_that_ends_during_a_second_look_is_resumed(tmp_path: Path) -> None:
    broken = True

    def breaking(prompt: str) -> Any:
        if prompt.startswith("Passage:") and "lunch" in prompt and broken:
            return web.json_response({"error": {"message": "broken"}}, status=500)
        return script(prompt)

    async with scripted_backend(breaking) as (model, backend):
        with closing(Journal(tmp_path / "j.jsonl")) as journal, pytest.raises(APIStatusError):
            run = ingest(backend, [LinesSource(*LINES)], kinds=[Kind.DECISION], second_look=True, journal=journal)
            await rows_of(run)
        broken = False
        model.prompts.clear()
        with closing(Journal(tmp_path / "j.jsonl")) as journal:
            run = ingest(backend, [LinesSource(*LINES)], kinds=[Kind.DECISION], second_look=True, journal=journal)
            assert 1 == len(await rows_of(run))
        assert 1 == len(model.prompts)


# --- equal rows -------------------------------------------------------------------------------------------


async def test_equal_quarantined_rows_are_merged() -> None:
    def inventing(prompt: str) -> Any:
        other = decision("Buy a boat", "We all want a boat." if "second" in prompt else "We all want a big boat.")
        return {"decisions": [decision("Use TOML", "We chose TOML."), decision("use  TOML!", "We chose TOML"), other]}

    events: list[object] = []
    source = LinesSource("The first part." + " And so on." * 40, "# The second part.", "The second line.")
    async with scripted_backend(inventing) as (model, backend):
        run = ingest(backend, [source], kinds=[Kind.DECISION], chunk_tokens=150, on_event=events.append)
        assert [] == await rows_of(run)
    assert 2 == len(model.prompts)
    assert [
        ("We chose TOML.", "notes.md:1; notes.md:1-3"),
        ("We all want a big boat.", "notes.md:1"),
        (
            "We all want a boat.",
            "notes.md:1-3",
        ),
    ] == [(row.quote, row.where) for row in run.quarantined]
    assert 3 == run.report.quarantined == sum(isinstance(event, QuarantinedRow) for event in events)
