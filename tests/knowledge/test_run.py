"""One run over HTTP, with a scripted model."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ctxbackends import APIStatusError, Backend, open_backend
from ctxbackends.knowledge._errors import ChunkError, KnowledgeError, SourceError, UnenforcedSchemaError
from ctxbackends.knowledge._extract.journal import Journal
from ctxbackends.knowledge._extract.progress import Event, Progress
from ctxbackends.knowledge._extract.run import Ingestion, ingest
from ctxbackends.knowledge._records import Decision, Evidence, Kind, QuarantinedRow, Row, Task, Term
from ctxbackends.knowledge._sources.base import SkippedInput
from tests.knowledge.factories import LinesSource
from tests.knowledge.scripted_model import MODEL, ScriptedModel, completion, decision, line_of, scripted_backend

YAML = "We chose YAML because people edit it by hand."


def chosen(prompt: str) -> dict[str, Any]:
    """A decision for each sentence that says so, with the quote and the number that it bears."""
    quotes = re.findall(r"We chose [^.]*\.", prompt)
    return {"decisions": [decision(quote[3:].rstrip("."), quote, line_of(prompt, quote)) for quote in quotes]}


async def rows_of(run: Ingestion) -> list[Row]:
    return [row async for row in run]


def titles(rows: list[Row] | tuple[Row, ...]) -> list[str]:
    return [row.title for row in rows]


# --- what comes out -------------------------------------------------------------------------------------


async def test_a_row_has_evidence() -> None:
    async with scripted_backend(chosen) as (model, backend):
        run = ingest(backend, [LinesSource("# Notes", "Something else.", YAML)], kinds=[Kind.DECISION])
        rows = await rows_of(run)
    expected = Row(
        record=Decision("chose YAML because people edit it by hand", "why it came up", "why this", "what follows"),
        evidence=(Evidence(source="notes.md", quote=YAML, first=3, last=3),),
    )
    assert [expected] == rows
    assert (expected,) == run.rows()
    assert ["Source: notes.md:1-3\n\n[1] # Notes\n\n[2] Something else.\n\n[3] " + YAML] == model.prompts


async def test_only_the_requested_kinds() -> None:
    def script(_: str) -> dict[str, Any]:
        return {
            "tasks": [{"line": 1, "quote": YAML, "summary": "Write it down", "priority": "high"}],
            "terms": [{"line": 1, "quote": YAML, "term": "YAML", "definition": "a format"}],
        }

    async with scripted_backend(script) as (model, backend):
        rows = await rows_of(ingest(backend, [LinesSource(YAML)], kinds=[Kind.TASK, Kind.TERM]))
    assert [Task("Write it down", "high"), Term("YAML", "a format")] == [row.record for row in rows]
    schema = model.bodies[0]["response_format"]["json_schema"]["schema"]
    assert ["tasks", "terms"] == list(schema["properties"])
    system = model.bodies[0]["messages"][0]["content"]
    assert ("- tasks:" in system, "- terms:" in system, "- decisions:" in system) == (True, True, False)


async def test_an_invented_quote_is_quarantined() -> None:
    def script(_: str) -> dict[str, Any]:
        return {"decisions": [decision("Use TOML", "We chose TOML for its types."), decision("Use YAML", YAML)]}

    events: list[Event] = []
    async with scripted_backend(script) as (_, backend):
        run = ingest(backend, [LinesSource(YAML)], kinds=[Kind.DECISION], on_event=events.append)
        assert ["Use YAML"] == titles(await rows_of(run))
    (one,) = run.quarantined
    assert ("Use TOML", "its quote is not in the source", "We chose TOML for its types.", "notes.md:1") == (
        one.record.title if isinstance(one.record, Decision) else "",
        one.reason,
        one.quote,
        one.where,
    )
    assert [one] == [event for event in events if isinstance(event, QuarantinedRow)]
    assert (1, 1) == (run.report.rows, run.report.quarantined)


async def test_duplicates_are_merged_with_their_evidence() -> None:
    def script(prompt: str) -> dict[str, Any]:
        title = "Use YAML!" if "first" in prompt else "use  yaml"
        quote = re.findall(r"YAML was chosen \w+\.", prompt)[0]
        return {"decisions": [decision(title, quote, line_of(prompt, quote))]}

    lines = LinesSource("YAML was chosen first." + " And so on." * 40, "# Later", "YAML was chosen again.")
    async with scripted_backend(script) as (_, backend):
        run = ingest(backend, [lines], kinds=[Kind.DECISION], chunk_tokens=ONE_PART)
        limit = await rows_of(run)
    assert ["Use YAML!"] == titles(limit)
    (row,) = run.rows()
    assert ["notes.md:1", "notes.md:3"] == [evidence.where for evidence in row.evidence]
    assert 1 == run.report.merged


async def test_duplicate_evidence_is_merged() -> None:
    def script(_: str) -> dict[str, Any]:
        return {"decisions": [decision("Use YAML", YAML), decision("Use YAML.", YAML)]}

    async with scripted_backend(script) as (_, backend):
        run = ingest(backend, [LinesSource(YAML)], kinds=[Kind.DECISION])
        await rows_of(run)
    assert [1] == [len(row.evidence) for row in run.rows()]


async def test_a_quote_at_another_line_is_relocated() -> None:
    def script(_: str) -> dict[str, Any]:
        return {"decisions": [decision("Use YAML", YAML, 1)]}

    async with scripted_backend(script) as (_, backend):
        run = ingest(backend, [LinesSource("Something else.", YAML)], kinds=[Kind.DECISION])
        (row,) = await rows_of(run)
    assert ("notes.md:2", 1) == (row.evidence[0].where, run.report.relocated)


async def test_no_rows() -> None:
    async with scripted_backend() as (_, backend):
        run = ingest(backend, [LinesSource("Nothing to see.")])
        assert [] == await rows_of(run)
    assert (1, 0, 0) == (run.report.chunks, run.report.rows, run.report.quarantined)


async def test_secrets_are_not_sent() -> None:
    key = "sk-ant-api03-" + "Abc123Xyz789" * 4
    async with scripted_backend() as (model, backend):
        run = ingest(backend, [LinesSource(f"The key is {key}, keep it.")])
        await rows_of(run)
    assert 1 == run.report.masked
    assert [False] == [key in requests for requests in model.prompts]
    assert "The key is [masked]" in model.prompts[0]


async def test_the_report() -> None:
    skipped = SkippedInput(source="notes.md", line=2, reason="is broken")
    async with scripted_backend(chosen) as (model, backend):
        sources = [LinesSource(YAML, skipped), LinesSource("Nothing.", name="b.md")]
        run = ingest(backend, sources, kinds=[Kind.DECISION], pack=False)
        await rows_of(run)
        report = run.report
    assert ("openai", "openai", model.url, MODEL, MODEL, "native") == (
        report.backend,
        report.backend_type,
        report.endpoint,
        report.requested_model,
        report.served_model,
        report.enforcement,
    )
    assert ["notes.md", "b.md"] == [item.name for item in report.inputs]
    assert (skipped,) == report.skipped
    assert (2, 200, 20, None) == (
        report.chunks,
        report.input_tokens,
        report.output_tokens,
        report.cached_input_tokens,
    )


# --- several chunks -------------------------------------------------------------------------------------


ONE_PART = 150
"""Tokens, of which a chunk of them holds one part and not two."""


def many(count: int, name: str = "notes.md") -> LinesSource:
    return LinesSource(*(part(number) for number in range(count)), name=name)


def part(number: int) -> str:
    return f"# Part {number}. We chose option {number}." + " And so on." * 33


async def test_rows_come_in_the_order_of_the_text() -> None:
    delays = {0: 0.06, 1: 0.03}  # the first answers take the longest

    async def late(prompt: str) -> None:
        await asyncio.sleep(delays.get(int(prompt.partition("# Part ")[2][:1]), 0))

    async with scripted_backend(chosen, before_answer=late) as (_, backend):
        run = ingest(backend, [many(9)], kinds=[Kind.DECISION], chunk_tokens=ONE_PART)
        rows = await rows_of(run)
    assert [f"chose option {number}" for number in range(9)] == titles(rows)
    assert 9 == run.report.chunks


@pytest.mark.parametrize(("limit", "expected"), [(None, 4), (2, 2), (1, 1)])
async def test_concurrency(limit: int | None, expected: int) -> None:
    barrier = asyncio.Barrier(expected)

    async def together(_: str) -> None:
        async with asyncio.timeout(60):
            await barrier.wait()  # for as many as there should be, however slow this machine is

    async with scripted_backend(chosen, before_answer=together, seconds=0.02) as (model, backend):
        run = ingest(backend, [many(12)], kinds=[Kind.DECISION], chunk_tokens=ONE_PART, max_concurrency=limit)
        rows = await rows_of(run)
    assert (12, expected) == (len(rows), model.max_in_flight)


async def test_leaving_early_cancels_requests() -> None:
    async with scripted_backend(chosen, seconds=0.01) as (model, backend):
        async with ingest(backend, [many(50)], kinds=[Kind.DECISION], chunk_tokens=ONE_PART) as run:
            async for _ in run:
                break
        await asyncio.sleep(0.05)  # the server finishes what had come
        requests = len(model.prompts)
        await asyncio.sleep(0.05)
        assert requests == len(model.prompts) < 20
        assert [] == [task for task in asyncio.all_tasks() if "_ask" in repr(task)]


async def test_an_error_cancels_requests() -> None:
    def script(prompt: str) -> Any:
        if "option 3" in prompt:
            return web.json_response({"error": {"message": "broken"}}, status=500)
        return chosen(prompt)

    async with scripted_backend(script) as (_, backend):
        run = ingest(backend, [many(30)], kinds=[Kind.DECISION], chunk_tokens=ONE_PART)
        with pytest.raises(APIStatusError, match="broken"):
            await rows_of(run)
        assert [] == [task for task in asyncio.all_tasks() if "_ask" in repr(task)]


async def test_progress() -> None:
    events: list[Progress] = []
    async with scripted_backend(chosen) as (_, backend):
        sources = [many(4), many(4, "b.md")]
        run = ingest(
            backend,
            sources,
            kinds=[Kind.DECISION],
            chunk_tokens=ONE_PART,
            on_event=lambda event: events.append(event) if isinstance(event, Progress) else None,
        )
        await rows_of(run)
    assert list(range(1, 9)) == [progress.chunks for progress in events]
    last = events[-1]
    assert (2, 2, last.size, 4, 800, 80) == (
        last.sources,
        last.sources_done,
        last.size_done,
        last.rows,
        last.input_tokens,
        last.output_tokens,
    )
    assert 0 == last.seconds_left
    assert str(last).startswith("2 of 2 files, 8 chunks, 4 rows, ")


async def test_each_source_is_iterated_once() -> None:
    async with scripted_backend() as (_, backend):
        run = ingest(backend, [LinesSource(YAML)])
        await rows_of(run)
        with pytest.raises(KnowledgeError, match="already iterated"):
            await rows_of(run)


# --- sizes ----------------------------------------------------------------------------------------------


async def test_chunks_are_counted_by_the_server() -> None:
    # The counter of the model finds a token in every four characters of the request's JSON.
    async with scripted_backend() as (model, backend):
        run = ingest(backend, [LinesSource(*(f"{number} " + "x" * 396 for number in range(40)))], chunk_tokens=500)
        await rows_of(run)
    assert 1 + len(model.prompts) <= model.count_requests
    assert max(len(requests) for requests in model.prompts) <= 500 * 4


async def test_a_truncated_answer_splits_the_chunk() -> None:
    def script(prompt: str) -> Any:
        if prompt.count("We chose") > 2:
            return completion('{"decisions": [', finish_reason="length")
        return chosen(prompt)

    async with scripted_backend(script) as (model, backend):
        run = ingest(backend, [many(8)], kinds=[Kind.DECISION])
        rows = await rows_of(run)
    assert [f"chose option {number}" for number in range(8)] == titles(rows)
    assert 1 + 2 + 4 == len(model.prompts)


async def test_a_context_overflow_splits_the_chunk() -> None:
    def script(prompt: str) -> Any:
        if len(prompt) > 1000:
            problem = {
                "message": "This model's maximum context length is 100 tokens. However, your messages resulted in 130.",
                "type": "invalid_request_error",
                "param": "messages",
                "code": "context_length_exceeded",
            }
            return web.json_response({"error": problem}, status=400)
        return chosen(prompt)

    async with scripted_backend(script) as (_, backend):
        run = ingest(backend, [many(8)], kinds=[Kind.DECISION])
        rows = await rows_of(run)
    assert [f"chose option {number}" for number in range(8)] == titles(rows)


async def test_an_answer_beyond_the_schema_bounds_is_accepted() -> None:
    """Not every server holds the lengths of a schema. What is too long is no reason to lose what it says."""
    long = "We chose " + "a very long sentence " * 60 + "to end all."

    def script(_: str) -> dict[str, Any]:
        few = [decision("t" * 900, long, -1), decision("far away", long, 10**17)]
        return {"decisions": [*few, *(decision(f"number {number}", long, 1) for number in range(40))]}

    async with scripted_backend(script) as (_, backend):
        rows = await rows_of(ingest(backend, [LinesSource("# Notes", long)], kinds=[Kind.DECISION]))
    assert ["t" * 900, "far away", *(f"number {number}" for number in range(40))] == titles(rows)
    assert {(2, long)} == {(row.evidence[0].first, row.evidence[0].quote) for row in rows}


def flood(_: str) -> Any:
    return completion('{"decisions": [', finish_reason="length")


def refusing(_: str) -> Any:
    return completion("", finish_reason="content_filter")


def not_json(_: str) -> Any:
    return "I am sorry, but I cannot answer in JSON."


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (flood, "finish_reason length"),
        (refusing, "finish_reason content_filter"),
        (not_json, "response does not match Rows"),
    ],
)
async def test_a_part_without_a_usable_answer(script: Callable[[str], Any], words: str) -> None:
    def sometimes(prompt: str) -> Any:
        return script(prompt) if "option 2" in prompt else chosen(prompt)

    sources = [many(4)]
    async with scripted_backend(sometimes) as (_, backend):
        with pytest.raises(ChunkError) as exc_info:
            await rows_of(ingest(backend, sources, kinds=[Kind.DECISION], chunk_tokens=ONE_PART))
        assert str(exc_info.value).startswith("notes.md:3: no usable answer from the model: ")
        assert words in str(exc_info.value)
        assert exc_info.value.__cause__ is not None

        run = ingest(backend, sources, kinds=[Kind.DECISION], chunk_tokens=ONE_PART, skip_failed=True)
        rows = await rows_of(run)
    assert ["chose option 0", "chose option 1", "chose option 3"] == titles(rows)
    (skipped,) = run.report.skipped
    assert ("notes.md", 3) == (skipped.source, skipped.line)
    assert words in skipped.reason


# --- the journal ----------------------------------------------------------------------------------------


async def test_finished_chunks_come_from_the_journal(tmp_path: Path) -> None:
    is_failing = True

    def script(prompt: str) -> Any:
        if is_failing and "option 5" in prompt:
            return web.json_response({"error": {"message": "broken"}}, status=500)
        return chosen(prompt)

    def run_over(backend: Backend, source: LinesSource, model: str | None = None) -> Ingestion:
        return ingest(
            backend,
            [source],
            kinds=[Kind.DECISION],
            chunk_tokens=ONE_PART,
            max_concurrency=1,
            journal=journal,
            model=model,
        )

    async with scripted_backend(script) as (model, backend):
        journal = Journal(tmp_path / "j.jsonl")
        with pytest.raises(APIStatusError):
            await rows_of(run_over(backend, many(8)))
        journal.close()
        journal = Journal(tmp_path / "j.jsonl")
        assert 5 == len(journal)
        is_failing = False
        model.prompts.clear()
        run = run_over(backend, many(8))
        assert [f"chose option {number}" for number in range(8)] == titles(await rows_of(run))
        assert (3, 5, 8) == (len(model.prompts), run.report.reused, run.report.chunks)
        assert (800, 80) == (run.report.input_tokens, run.report.output_tokens)

        # Only the chunk with the changed line is requested again.
        model.prompts.clear()
        edited_source = many(8)
        edited_source.lines = (*edited_source.lines[:3], part(3).replace("option", "another"), *edited_source.lines[4:])
        rows = await rows_of(run_over(backend, edited_source))
        assert [f"Source: notes.md:4\n\n[4] {edited_source.lines[3]}"] == model.prompts
        assert "chose another 3" == rows[3].title

        # So is everything, for another kind or model.
        model.prompts.clear()
        run = ingest(backend, [many(8)], kinds=[Kind.DECISION, Kind.TASK], chunk_tokens=ONE_PART, journal=journal)
        await rows_of(run)
        assert (8, 0) == (len(model.prompts), run.report.reused)
        journal.close()


async def test_split_chunks_come_from_the_journal(tmp_path: Path) -> None:
    def script(prompt: str) -> Any:
        if prompt.count("We chose") > 2:
            return completion("{", finish_reason="length")
        return chosen(prompt)

    async with scripted_backend(script) as (model, backend):
        for expected in (7, 0):
            model.prompts.clear()
            with closing(Journal(tmp_path / "j.jsonl")) as journal:
                run = ingest(backend, [many(8)], kinds=[Kind.DECISION], journal=journal)
                assert [f"chose option {number}" for number in range(8)] == titles(await rows_of(run))
            assert expected == len(model.prompts)


# --- errors -------------------------------------------------------------------------------------------


async def test_a_server_that_ignores_schemas_is_an_error() -> None:
    def script(prompt: str) -> Any:
        return "hello" if "single word hello" in prompt else chosen(prompt)

    model = ScriptedModel(script)
    async with model, open_backend("openai-compatible", endpoint=model.url, default_model=MODEL) as backend:
        with pytest.raises(
            UnenforcedSchemaError, match=r"the server ignored the schema of a test request; .*--allow-unenforced"
        ):
            await rows_of(ingest(backend, [LinesSource(YAML)], kinds=[Kind.DECISION]))
        assert 1 == len(model.prompts)
        run = ingest(backend, [LinesSource(YAML)], kinds=[Kind.DECISION], allow_unenforced=True)
        assert 1 == len(await rows_of(run))
        assert "unverified" == run.report.enforcement


async def test_a_server_that_enforces_schemas_after_a_probe() -> None:
    model = ScriptedModel()

    def script(prompt: str) -> Any:
        if "single word hello" not in prompt:
            return chosen(prompt)
        schema = model.bodies[-1]["response_format"]["json_schema"]["schema"]
        return json.dumps({"word": schema["properties"]["word"]["enum"][0]})

    model.script = script
    async with model, open_backend("openai-compatible", endpoint=model.url, default_model=MODEL) as backend:
        run = ingest(backend, [LinesSource(YAML)], kinds=[Kind.DECISION])
        assert 1 == len(await rows_of(run))
    assert "proven" == run.report.enforcement


async def test_an_invalid_source_costs_no_request() -> None:
    class EmptySource(LinesSource):
        def prepare(self) -> Any:
            raise SourceError(self.name, "is empty")

    async with scripted_backend() as (model, backend):
        with pytest.raises(SourceError, match=r"b\.md: is empty"):
            await rows_of(ingest(backend, [LinesSource(YAML), EmptySource(name="b.md")]))
        assert [] == model.prompts


async def test_a_context_that_is_too_small() -> None:
    async with scripted_backend(context_length=512) as (_, backend):
        with pytest.raises(KnowledgeError, match=r"context too small: 512 tokens leave 0 for the text"):
            await rows_of(ingest(backend, [LinesSource(YAML)]))


def test_invalid_options() -> None:
    backend: Any = object()
    with pytest.raises(ValueError, match="no kinds"):
        ingest(backend, [], kinds=[])
    with pytest.raises(ValueError, match="invalid chunk_tokens: 0; it must be at least 1"):
        ingest(backend, [], chunk_tokens=0)


# --- without asking -------------------------------------------------------------------------------------


async def test_a_plan_sends_no_chunk() -> None:
    async with scripted_backend() as (model, backend):
        plan = await ingest(backend, [many(8)], chunk_tokens=ONE_PART).plan()
    assert [] == model.prompts
    assert (8, MODEL, ("notes.md",)) == (plan.chunks, plan.model, tuple(item.name for item in plan.inputs))
