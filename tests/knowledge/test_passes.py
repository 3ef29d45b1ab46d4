"""Further passes over a chunk, and answers to packed chunks that may have left out rows."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web

from ctxbackends import APIStatusError
from ctxbackends.knowledge._errors import ChunkError
from ctxbackends.knowledge._extract.estimate import estimate_plan
from ctxbackends.knowledge._extract.journal import Journal
from ctxbackends.knowledge._extract.options import RunOptions
from ctxbackends.knowledge._extract.passes import build_text, reserve_tokens
from ctxbackends.knowledge._extract.run import Ingestion, ingest
from ctxbackends.knowledge._records import Kind, Row
from tests.knowledge.commands import ctx, project
from tests.knowledge.factories import LinesSource
from tests.knowledge.scripted_model import completion, decision, line_of, scripted_backend

TEXT = LinesSource(*(f"We chose option {number}." for number in range(1, 6)))
AGAIN = "Read the text again from the beginning"


def forgetful(prompt: str) -> dict[str, Any]:
    """Two decisions at a time, those that the prompt does not name yet."""
    text, _, found = prompt.partition("These records are extracted already:")
    quotes = [quote for quote in re.findall(r"We chose option \d\.", text) if f"- {quote[3:-1]}\n" not in found]
    return {"decisions": [decision(quote[3:-1], quote, line_of(text, quote)) for quote in quotes[:2]]}


async def rows_of(run: Ingestion) -> list[Row]:
    return [row async for row in run]


async def titles_of(run: Ingestion) -> list[str]:
    return [row.title for row in await rows_of(run)]


# --- the requests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("passes", "rows", "requests"), [(1, 2, 1), (2, 4, 2), (3, 5, 3), (9, 5, 4)])
async def test_each_pass_finds_what_is_missing(passes: int, rows: int, requests: int) -> None:
    """The passes end with one that finds nothing new."""
    async with scripted_backend(forgetful) as (model, backend):
        run = ingest(backend, [TEXT], kinds=[Kind.DECISION], passes=passes)
        titles = await titles_of(run)
    assert [f"chose option {number}" for number in range(1, rows + 1)] == titles
    assert (requests, 1, 100 * requests) == (len(model.prompts), run.report.chunks, run.report.input_tokens)


async def test_a_pass_continues_the_first_prompt() -> None:
    """So that a server with a prefix cache reads only the titles."""
    async with scripted_backend(forgetful) as (model, backend):
        await rows_of(ingest(backend, [TEXT], kinds=[Kind.DECISION], passes=2))
    first, second = model.bodies
    assert first["messages"][0] == second["messages"][0]
    assert first["response_format"] == second["response_format"]
    assert model.prompts[1].startswith(
        f"{model.prompts[0]}\n\nThese records are extracted already:\n- chose option 1\n- chose option 2\n\n{AGAIN}"
    )


async def test_one_pass_by_default() -> None:
    async with scripted_backend(forgetful) as (model, backend):
        await rows_of(ingest(backend, [TEXT], kinds=[Kind.DECISION]))
    assert 1 == len(model.prompts)
    assert AGAIN not in model.prompts[0]


async def test_nothing_was_found_at_first() -> None:
    def script(prompt: str) -> Any:
        return forgetful(prompt) if AGAIN in prompt else {}

    async with scripted_backend(script) as (model, backend):
        titles = await titles_of(ingest(backend, [TEXT], kinds=[Kind.DECISION], passes=2))
    assert ["chose option 1", "chose option 2"] == titles
    assert model.prompts[1].startswith(f"{model.prompts[0]}\n\nNo records are extracted yet.\n\n{AGAIN}")


async def test_quarantined_rows_are_named_too() -> None:
    def script(prompt: str) -> Any:
        return {"decisions": [decision("Invented", "Nobody said this sentence.")]}

    async with scripted_backend(script) as (model, backend):
        run = ingest(backend, [TEXT], kinds=[Kind.DECISION], passes=3)
        assert [] == await rows_of(run)
    assert "- Invented\n" in model.prompts[1]
    assert (2, 1) == (len(model.prompts), len(run.quarantined))


async def test_rows_of_all_passes_are_merged() -> None:
    """The second pass repeats a row with other evidence, which is added."""

    def script(prompt: str) -> Any:
        number = 2 if AGAIN in prompt else 1
        quote = f"We chose option {number}."
        return {"decisions": [decision("Choose", quote, number), decision(f"New {number}", quote, number)]}

    async with scripted_backend(script) as (_, backend):
        run = ingest(backend, [TEXT], kinds=[Kind.DECISION], passes=2)
        await rows_of(run)
    assert [("Choose", ["notes.md:1", "notes.md:2"]), ("New 1", ["notes.md:1"]), ("New 2", ["notes.md:2"])] == [
        (row.title, [evidence.where for evidence in row.evidence]) for row in run.rows()
    ]


async def test_each_question_has_its_passes() -> None:
    async with scripted_backend(forgetful) as (model, backend):
        kinds = [Kind.DECISION, Kind.TASK]
        await rows_of(ingest(backend, [TEXT], kinds=kinds, kinds_per_question=1, passes=2))
    assert [False, True, False, True] == [AGAIN in prompt for prompt in model.prompts]
    assert ["decisions", "decisions", "tasks", "tasks"] == [
        next(iter(body["response_format"]["json_schema"]["schema"]["properties"])) for body in model.bodies
    ]


def test_the_titles_are_bounded() -> None:
    text = build_text("The text.", (f"Title {number} " + "x" * 500 for number in range(100)), answer_tokens=1_024)
    assert text.startswith("The text.\n\nThese records are extracted already:\n- Title 0 ")
    added = len(text) - len("The text.")
    assert added <= 3 * reserve_tokens(1_024)
    assert 2 == build_text("", ["One\nline", "One line", "Two"], answer_tokens=1_024).count("\n- ")


async def test_the_budget_leaves_room_for_the_titles() -> None:
    async with scripted_backend(context_length=4_096) as (_, backend):
        rooms = []
        for passes in (1, 2):
            plan = await ingest(backend, [TEXT], kinds=[Kind.DECISION], passes=passes).plan()
            rooms.append(plan.chunk_tokens)
    assert reserve_tokens(1_024) == rooms[0] - rooms[1]


# --- failures, resume, plans ----------------------------------------------------------------------------


@pytest.mark.parametrize("skip_failed", [True, False])
async def test_a_pass_that_fails_keeps_the_rows_before(skip_failed: bool) -> None:
    def script(prompt: str) -> Any:
        return completion("No.") if AGAIN in prompt else forgetful(prompt)

    async with scripted_backend(script) as (_, backend):
        run = ingest(backend, [TEXT], kinds=[Kind.DECISION], passes=3, skip_failed=skip_failed)
        assert ["chose option 1", "chose option 2"] == await titles_of(run)
    (skipped,) = run.report.skipped
    assert ("notes.md", 1) == (skipped.source, skipped.line)
    assert skipped.reason.startswith("lines 1-5: pass 2: no usable answer from the model")


async def test_a_pass_that_is_truncated_keeps_its_whole_rows() -> None:
    def script(prompt: str) -> Any:
        if AGAIN not in prompt:
            return forgetful(prompt)
        row = msgspec.json.encode(decision("chose option 3", "We chose option 3.", 3)).decode()
        return completion(f'{{"decisions": [{row}, {{"quote": "We cho', finish_reason="length")

    async with scripted_backend(script) as (model, backend):
        run = ingest(backend, [TEXT], kinds=[Kind.DECISION], passes=2)
        assert ["chose option 1", "chose option 2", "chose option 3"] == await titles_of(run)
    assert 2 == len(model.prompts)
    assert ["lines 1-5: the answer of pass 2 was truncated; there may be more"] == [
        one.reason for one in run.report.skipped
    ]


async def test_a_first_pass_that_fails_is_an_error() -> None:
    async with scripted_backend(lambda _: completion("No.")) as (_, backend):
        with pytest.raises(ChunkError):
            await rows_of(ingest(backend, [TEXT], kinds=[Kind.DECISION], passes=3))


async def test_passes_are_resumed(tmp_path: Path) -> None:
    fails = True

    def script(prompt: str) -> Any:
        if fails and prompt.count("\n- ") == 4:
            return web.json_response({"error": {"message": "broken"}}, status=500)
        return forgetful(prompt)

    async with scripted_backend(script) as (model, backend):
        with closing(Journal(tmp_path / "journal.jsonl")) as journal:
            with pytest.raises(APIStatusError):
                await rows_of(ingest(backend, [TEXT], kinds=[Kind.DECISION], passes=3, journal=journal))
            assert 1 == len(journal)  # chunks, not passes
            fails, count = False, len(model.prompts)
            run = ingest(backend, [TEXT], kinds=[Kind.DECISION], passes=3, journal=journal)
            assert 5 == len(await rows_of(run))
            assert (1, 0) == (len(model.prompts) - count, run.report.reused)
            run = ingest(backend, [TEXT], kinds=[Kind.DECISION], passes=3, journal=journal)
            assert 5 == len(await rows_of(run))
    assert (1, 1) == (len(model.prompts) - count, run.report.reused)


async def test_a_plan_counts_the_most_requests() -> None:
    options = {"kinds": [Kind.DECISION], "passes": 3}
    async with scripted_backend(forgetful) as (_, backend):
        plan = await ingest(backend, [TEXT], **options).plan()  # type: ignore[arg-type]
    estimate = estimate_plan([TEXT], RunOptions(**options), on_event=lambda _: None)  # type: ignore[arg-type]
    one = estimate_plan([TEXT], RunOptions(kinds=[Kind.DECISION]), on_event=lambda _: None)
    assert (3, 3, 3 * one.tokens) == (plan.requests, estimate.requests, estimate.tokens)


def test_invalid_numbers_of_passes() -> None:
    with pytest.raises(ValueError, match="invalid passes: 0; it must be at least 1"):
        RunOptions(passes=0)


def test_the_option(tmp_path: Path, serve: Any) -> None:
    model = serve(forgetful)
    directory = project(tmp_path, model.url)
    (directory / "a.md").write_text("\n\n".join(TEXT.lines))  # type: ignore[arg-type]
    done = ctx(directory, "ingest", "a.md", "--extract", "decisions", "--passes", "3")
    assert (0, 3) == (done.code, len(model.prompts)), done.err
    assert "5 rows" in done.err


# --- full answers ---------------------------------------------------------------------------------------


def chatty(prompt: str) -> dict[str, Any]:
    """Every decision, up to the bound of the list, as a grammar would end it."""
    quotes = re.findall(r"We chose \w+ \d+\.", prompt)
    return {"decisions": [decision(quote[3:-1], quote, line_of(prompt, quote)) for quote in quotes[:20]]}


async def test_a_full_answer_to_a_packed_chunk_leaves_out_nothing() -> None:
    sources = [
        LinesSource(*(f"We chose {name} {number}." for number in range(9)), name=f"{name}.md") for name in "abcd"
    ]
    async with scripted_backend(chatty) as (model, backend):
        run = ingest(backend, sources, kinds=[Kind.DECISION])
        rows = await rows_of(run)
    assert [4, 2, 2] == [prompt.count("Source: ") for prompt in model.prompts]
    assert 36 == len(rows)
    assert sorted(f"chose {name} {number}" for name in "abcd" for number in range(9)) == sorted(
        row.title for row in rows
    )
    assert {1} == {len(row.evidence) for row in rows}
    assert 300 == run.report.input_tokens


async def test_a_full_answer_is_resumed(tmp_path: Path) -> None:
    sources = [
        LinesSource(*(f"We chose {name} {number}." for number in range(9)), name=f"{name}.md") for name in "abcd"
    ]
    counts = []
    for _ in range(2):
        async with scripted_backend(chatty) as (model, backend):
            with closing(Journal(tmp_path / "journal.jsonl")) as journal:
                run = ingest(backend, sources, kinds=[Kind.DECISION], journal=journal)
                assert 36 == len(await rows_of(run))
            counts.append(len(model.prompts))
    assert [3, 0] == counts


async def test_a_sentence_with_two_decisions_gives_two_rows() -> None:
    sentence = "We use Postgres for data and Redis for caches in all shops."
    titles = iter(["Use Postgres", "Use Redis", "use Redis!"])

    def script(_: str) -> dict[str, Any]:
        return {"decisions": [decision(next(titles), sentence)]}

    async with scripted_backend(script) as (model, backend):
        run = ingest(backend, [LinesSource(sentence)], kinds=[Kind.DECISION], passes=9)
        rows = [row async for row in run]
    assert [("Use Postgres", 1), ("Use Redis", 1)] == [(row.title, len(row.evidence)) for row in rows]
    assert 3 == len(model.prompts)
    assert "- Use Postgres\n- Use Redis\n" in model.prompts[2]
