"""Truncated answers: their complete rows are kept, and a chunk is asked about again only where that can help."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends.knowledge._errors import ChunkError
from ctxbackends.knowledge._extract.cut_answers import is_repeating, parse_cut_answer
from ctxbackends.knowledge._extract.journal import Journal
from ctxbackends.knowledge._extract.prompt import Prompt
from ctxbackends.knowledge._extract.rows import ExtractedRow
from ctxbackends.knowledge._extract.run import Ingestion, ingest
from ctxbackends.knowledge._records import Decision, Kind, Row
from tests.knowledge.factories import LinesSource
from tests.knowledge.scripted_model import completion, decision, line_of, scripted_backend

TYPE = Prompt([Kind.DECISION, Kind.TASK]).questions[0].response_type
LINES = tuple(f"We keep service {number}, because its owner asked for it in the meeting." for number in range(6))
MAX_REQUESTS = 7


def quote_rows(prompt: str) -> list[dict[str, Any]]:
    quotes = [line for line in LINES if line in prompt]
    return [decision(f"Keep {quote[8:17]}", quote, line_of(prompt, quote)) for quote in quotes]


def cut(rows: Sequence[Any], *, name: str = "decisions", rest: str = '{"quote": "We ke') -> Any:
    return completion(f'{{"{name}": [{"".join(json.dumps(row) + ", " for row in rows)}{rest}', finish_reason="length")


async def rows_of(run: Ingestion) -> list[Row]:
    return [row async for row in run]


# --- the text -------------------------------------------------------------------------------------------

ROW = decision('Keep "it"', "We keep {it}, [it] and\n\\it.")
TASKS = [{"quote": "Write it down", "line": 1, "summary": "Write", "priority": "low"}]
WHOLE = json.dumps({"decisions": [ROW, ROW, ROW], "tasks": TASKS})


def count_rows(text: str) -> tuple[int, int] | None:
    answer: Any = parse_cut_answer(TYPE, text)
    return None if answer is None else (len(answer.decisions), len(answer.tasks))


def test_each_cut_keeps_the_rows_before_it() -> None:
    ends = [WHOLE.find(json.dumps(ROW), 0) + len(json.dumps(ROW)) * n + 2 * (n - 1) for n in (1, 2, 3)]
    for size in range(len(WHOLE) + 1):
        rows = sum(size >= end for end in ends)
        tasks = int(size >= len(WHOLE) - 2)
        assert (None if rows == 0 else (rows, tasks)) == count_rows(WHOLE[:size]), WHOLE[:size]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[",
        "I cannot",
        '{"decisions": {"a": 1}',
        '{"decisions": [1, 2, 3, ',
        '{"decisions": ["We keep it"], ',
        f'{{"decisions": [{json.dumps({**ROW, "line": "one"})}, ',  # an invalid row, as in a complete answer
        '{"decisions": [{"line": 1}, ',
        f'{{"decisions": [{json.dumps(ROW).replace("1", "NaN", 1)}, ',
        '{"decisions": ' + "[" * 100_000,
        '{"decisions": [' + '{"a":' * 100_000,
    ],
)
def test_a_text_without_valid_rows(text: str) -> None:
    assert parse_cut_answer(TYPE, text) is None


@pytest.mark.parametrize("head", ["\n ", "```json\n", "<think>Which rows?</think>\n"])
def test_a_text_with_a_wrapper(head: str) -> None:
    assert (2, 0) == count_rows(head + WHOLE[: -len(json.dumps(ROW)) - len(json.dumps(TASKS)) - 10])


def test_rows_before_what_is_not_json_are_kept() -> None:
    row = json.dumps(ROW)
    assert (1, 0) == count_rows(f'{{"decisions": [{row}, ...')
    assert (1, 0) == count_rows(f'{{"decisions": [{row}], "decisions": [{row}, {row}')


@given(st.text(alphabet='{}[]",:\\ntrue1e-. \ud800é', max_size=200))
def test_no_text_raises(text: str) -> None:
    assert parse_cut_answer(TYPE, '{"decisions": [' + text) is None


def extracted(*quotes: str) -> list[ExtractedRow]:
    return [ExtractedRow(Decision(f"{at}", "", "", ""), 1, quote) for at, quote in enumerate(quotes)]


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        ([], False),
        (extracted("a"), False),
        (extracted("a") * 2, True),
        (extracted("a", "a"), False),  # a sentence with two decisions
        (extracted("a", "a", "a", "a"), True),
        (extracted("a", "b", "a", "b", "a"), True),
        (extracted("a", "b", "a", "b", "c"), False),
        (extracted("a", "b", "c", "d", "e"), False),
        ([*extracted("a", "b", "c"), *extracted("a", "b")], True),
    ],
)
def test_repetition(rows: list[ExtractedRow], expected: bool) -> None:
    assert expected == is_repeating(rows)


# --- requests -------------------------------------------------------------------------------------------


def repeat(prompt: str) -> Any:
    return cut(quote_rows(prompt)[:1] * 13)


def repeat_with_other_titles(prompt: str) -> Any:
    row = quote_rows(prompt)[0]
    return cut([{**row, "title": f"Number {number}"} for number in range(13)])


def rows_of_a_small_chunk(prompt: str) -> Any:
    return cut(quote_rows(prompt))


def invent(_: str) -> Any:
    return cut([decision(f"Number {number}", f"Nobody said number {number}.") for number in range(13)])


@pytest.mark.parametrize(
    ("script", "rows"), [(repeat, 1), (repeat_with_other_titles, 13), (rows_of_a_small_chunk, 6), (invent, 0)]
)
async def test_complete_rows_are_kept_with_one_request(script: Callable[[str], Any], rows: int) -> None:
    async with scripted_backend(script) as (model, backend):
        run = ingest(backend, [LinesSource(*LINES)], kinds=[Kind.DECISION])
        assert rows == len(await rows_of(run))
    assert (1, 1, 1) == (len(model.prompts), run.report.chunks, run.report.cut)
    (skipped,) = run.report.skipped
    assert ("notes.md", 1) == (skipped.source, skipped.line)
    assert skipped.reason.startswith("lines 1-6: the answer was truncated after ")
    assert (100, 10) == (run.report.input_tokens, run.report.output_tokens)


async def test_invented_rows_of_a_long_chunk_are_not_asked_for_again() -> None:
    async with scripted_backend(invent) as (model, backend):
        run = ingest(backend, [LinesSource(*LINES * 30)], kinds=[Kind.DECISION])
        assert [] == await rows_of(run)
    assert (1, 13, 1) == (len(model.prompts), run.report.quarantined, run.report.cut)


@pytest.mark.parametrize("rest", ['{"quote": "' + "and so on " * 1000, "\n" * 9000])
async def test_a_row_without_an_end_is_a_failure_with_one_request(rest: str) -> None:
    async with scripted_backend(lambda _: cut([], rest=rest)) as (model, backend):
        with pytest.raises(ChunkError, match="finish_reason length"):
            await rows_of(ingest(backend, [LinesSource(*LINES)], kinds=[Kind.DECISION]))
    assert 1 == len(model.prompts)


def long_lines() -> list[str]:
    filler = "The rest of the talk was about the weather. " * 40
    return [part for line in LINES for part in (f"# {line}", filler)]


async def test_a_long_chunk_is_split_and_no_row_is_lost() -> None:
    def script(prompt: str) -> Any:
        rows = quote_rows(prompt)
        if len(rows) == len(LINES):  # more than fits: the first three, of which one is not found again
            return cut([decision("Once", LINES[0], line_of(prompt, LINES[0])), *rows[1:3]])
        return {"decisions": rows[1:] if LINES[0] in prompt else rows}

    async with scripted_backend(script) as (model, backend):
        run = ingest(backend, [LinesSource(*long_lines())], kinds=[Kind.DECISION])
        titles = [row.title for row in await rows_of(run)]
    assert {"Once", *(f"Keep service {number}" for number in range(1, 6))} == {*titles}
    assert len(titles) == 6
    assert (3, 2, 0, ()) == (len(model.prompts), run.report.chunks, run.report.cut, run.report.skipped)
    assert 300 == run.report.input_tokens


async def test_the_requests_for_a_chunk_are_bounded() -> None:
    count = 0

    def script(prompt: str) -> Any:
        nonlocal count
        count += 1
        line = next(line for line in prompt.split("\n\n") if "We keep" in line).partition("# ")[2]
        return cut([decision(f"Number {count}", line, 1)])

    lines = [f"# We keep service {number}. {'The rest is about the weather. ' * 60}" for number in range(9)]
    async with scripted_backend(script) as (model, backend):
        run = ingest(backend, [LinesSource(*lines)], kinds=[Kind.DECISION], chunk_tokens=50_000)
        await rows_of(run)
    assert MAX_REQUESTS == len(model.prompts)
    assert 4 == run.report.cut


async def test_a_failure_about_a_part_does_not_lose_the_rows_of_the_whole() -> None:
    def script(prompt: str) -> Any:
        rows = quote_rows(prompt)
        return cut(rows[:3]) if len(rows) == len(LINES) else "no JSON"

    async with scripted_backend(script) as (_, backend):
        run = ingest(backend, [LinesSource(*long_lines())], kinds=[Kind.DECISION])
        assert 3 == len(await rows_of(run))
    assert 2 == run.report.cut
    assert all("no usable answer from the model" in skipped.reason for skipped in run.report.skipped)


async def test_cut_answers_come_from_the_journal(tmp_path: Path) -> None:
    def script(prompt: str) -> Any:
        rows = quote_rows(prompt)
        return cut(rows[:3]) if len(rows) > 1 else {"decisions": rows}

    for lines, requests in ((LINES, 1), (long_lines(), 3)):
        results = []
        async with scripted_backend(script) as (model, backend):
            for expected in (requests, 0):
                model.prompts.clear()
                with closing(Journal(tmp_path / f"{requests}.jsonl")) as journal:
                    run = ingest(backend, [LinesSource(*lines)], kinds=[Kind.DECISION], journal=journal)
                    await rows_of(run)
                assert expected == len(model.prompts)
                results.append((run.rows(), run.report.skipped, run.report.cut, run.report.input_tokens))
        assert results[0] == results[1]
        assert len(results[0][0]) >= 3


# --- full lists -----------------------------------------------------------------------------------------

KINDS = (Kind.DECISION, Kind.TASK, Kind.RISK)


def fill(count: int) -> Callable[[str], Any]:
    """A model that gives as many rows as the schema allows, up to ``count``."""

    def script(prompt: str) -> Any:
        return {"decisions": [decision(f"Number {at}", f"We keep number {at}.", 1) for at in range(count)]}

    return script


async def test_a_full_list_is_asked_for_alone() -> None:
    text = " ".join(f"We keep number {number}." for number in range(30))
    full = Prompt(KINDS).questions[0].bounds.rows
    alone = Prompt([Kind.DECISION]).questions[0].bounds.rows
    assert full < alone

    def script(prompt: str) -> Any:
        schema = model.bodies[-1]["response_format"]["json_schema"]["schema"]
        count = full if "tasks" in schema["properties"] else full + 1
        answer = fill(count)(prompt)
        return json.dumps({name: [] for name in schema["properties"]} | answer)

    async with scripted_backend(script) as (model, backend):
        run = ingest(backend, [LinesSource(text)], kinds=KINDS)
        rows = await rows_of(run)
    assert [f"Number {number}" for number in range(full + 1)] == [row.title for row in rows]
    assert (2, 1, 0) == (len(model.prompts), run.report.chunks, run.report.cut)


async def test_a_list_of_one_kind_that_stays_full_is_reported() -> None:
    text = " ".join(f"We keep number {number}." for number in range(30))
    alone = Prompt([Kind.DECISION]).questions[0].bounds.rows
    async with scripted_backend(fill(alone)) as (model, backend):
        run = ingest(backend, [LinesSource(text)], kinds=[Kind.DECISION])
        assert alone == len(await rows_of(run))
    assert len(model.prompts) <= MAX_REQUESTS
    assert run.report.cut >= 1
    assert f"the list of the answer is full after {alone} rows; there may be more" in run.report.skipped[0].reason


async def test_a_list_filled_with_inventions_is_not_asked_for_again() -> None:
    def script(_: str) -> Any:
        rows = Prompt(KINDS).questions[0].bounds.rows
        return {"decisions": [decision(f"Number {at}", f"Nobody said number {at}.") for at in range(rows)]}

    async with scripted_backend(script) as (model, backend):
        run = ingest(backend, [LinesSource(*LINES)], kinds=KINDS)
        assert [] == await rows_of(run)
    assert (1, 0) == (len(model.prompts), run.report.cut)
