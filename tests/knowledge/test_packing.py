"""Small files in one request: numbers, evidence, borders, failures, resume and what it costs."""

from __future__ import annotations

import re
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends import APIStatusError
from ctxbackends.knowledge._errors import ChunkError
from ctxbackends.knowledge._extract.chunker import Chunk
from ctxbackends.knowledge._extract.citations import CitedRow, check
from ctxbackends.knowledge._extract.estimate import estimate_plan
from ctxbackends.knowledge._extract.journal import Journal
from ctxbackends.knowledge._extract.options import RunOptions
from ctxbackends.knowledge._extract.packing import PackedChunk, Packer, find_part
from ctxbackends.knowledge._extract.progress import Progress
from ctxbackends.knowledge._extract.rows import ExtractedRow
from ctxbackends.knowledge._extract.run import Ingestion, ingest
from ctxbackends.knowledge._records import Decision, Kind, QuarantinedRow, Row
from ctxbackends.knowledge._sources.base import Segment
from tests.knowledge.commands import ctx, project
from tests.knowledge.factories import LinesSource
from tests.knowledge.scripted_model import ScriptedModel, completion, decision, line_of, scripted_backend

DECISION = re.compile(r"We chose [^.]*\.")


def chosen(prompt: str) -> dict[str, Any]:
    """A decision for each sentence that says so, with the number before its passage."""
    quotes = DECISION.findall(prompt)
    return {"decisions": [decision(quote[3:].rstrip("."), quote, line_of(prompt, quote)) for quote in quotes]}


def note(name: str) -> LinesSource:
    return LinesSource(f"# Note {name}", "Some words before.", f"We chose option {name}.", name=f"{name}.md")


def notes(names: str) -> list[LinesSource]:
    return [note(name) for name in names]


async def rows_of(run: Ingestion) -> list[Row]:
    return [row async for row in run]


def chunk(name: str, *lines: str, first: int = 1, speaker: Any = None) -> Chunk:
    segments = tuple(Segment(text=text, first=at, last=at, speaker=speaker) for at, text in enumerate(lines, first))
    return Chunk(source=name, unit="line", segments=segments)


def packed(*chunks: Chunk) -> PackedChunk:
    return PackedChunk(parts=chunks)


def cite(chunk: PackedChunk, quote: str, line: int) -> CitedRow | QuarantinedRow:
    (checked,) = check([ExtractedRow(Decision("A title", "", "", ""), line, quote)], chunk)
    return checked


# --- the prompt -----------------------------------------------------------------------------------------


async def test_small_files_are_sent_in_one_request() -> None:
    async with scripted_backend(chosen) as (model, backend):
        run = ingest(backend, notes("ab"), kinds=[Kind.DECISION])
        rows = await rows_of(run)
    assert [
        (
            "Source: a.md\n\n[1] # Note a\n\n[2] Some words before.\n\n[3] We chose option a.\n\n"
            "Source: b.md\n\n[4] # Note b\n\n[5] Some words before.\n\n[6] We chose option b."
        )
    ] == model.prompts
    assert ["a.md:3", "b.md:3"] == [row.evidence[0].where for row in rows]
    assert (1, 0) == (run.report.chunks, run.report.relocated)


async def test_the_rows_are_those_of_separate_requests() -> None:
    names = "abcdefghijklmnopqrstuvwxyz"
    async with scripted_backend(chosen) as (model, backend):
        together = ingest(backend, notes(names), kinds=[Kind.DECISION])
        await rows_of(together)
        count = len(model.prompts)
        alone = ingest(backend, notes(names), kinds=[Kind.DECISION], pack=False)
        await rows_of(alone)
    assert alone.rows() == together.rows()
    assert (26, 2) == (len(model.prompts) - count, count)
    assert ["Source: a.md:1-3\n\n[1] # Note a\n\n[2] Some words before.\n\n[3] We chose option a."] == [
        prompt for prompt in model.prompts[count:] if "option a." in prompt
    ]


async def test_one_file_is_sent_as_without_packing() -> None:
    async with scripted_backend() as (model, backend):
        for pack in (True, False):
            await rows_of(ingest(backend, [note("a")], kinds=[Kind.DECISION], pack=pack))
    assert model.bodies[0] == model.bodies[1]


async def test_the_chunks_of_a_long_file_are_not_joined() -> None:
    long = LinesSource(*(f"# Part {number}. We chose option {number}." + " And so on." * 33 for number in range(6)))
    async with scripted_backend(chosen) as (model, backend):
        for pack in (True, False):
            await rows_of(ingest(backend, [long], kinds=[Kind.DECISION], chunk_tokens=250, pack=pack))
    half = len(model.prompts) // 2
    assert half > 2
    assert model.prompts[:half] == model.prompts[half:]


@pytest.mark.parametrize("count_by_server", [True, False])
async def test_a_packed_chunk_is_within_the_budget(count_by_server: bool) -> None:
    sources = [LinesSource(f"We chose option {n}. " + "Words " * 100, name=f"{n}.md") for n in range(20)]
    async with scripted_backend(chosen, context_length=8_192) as (model, backend):
        run = ingest(backend, sources, kinds=[Kind.DECISION], chunk_tokens=700)
        rows = await rows_of(run)
    assert 20 == len(rows)
    assert len(model.prompts) < 15
    assert max(len(prompt) for prompt in model.prompts) <= 4 * 700


def test_numbers_are_unique_and_lead_back_to_the_source() -> None:
    both = packed(chunk("a.md", "One.", "Two.", first=7), chunk("b.md", "Three.", first=3), chunk("c.md", "Four."))
    numbers = [int(number) for number in re.findall(r"^\[(\d+)\]", both.render(), re.MULTILINE)]
    assert [7, 8, 11, 12] == numbers
    assert [(0, 7), (0, 8), (1, 3), (2, 1)] == [find_part(both, number) for number in numbers]


# --- evidence -------------------------------------------------------------------------------------------


SAME = packed(chunk("a.md", "Status: accepted today.", "We keep A."), chunk("b.md", "Status: accepted today.", "Or B."))


@pytest.mark.parametrize(("line", "where"), [(1, "a.md:1"), (2, "a.md:1"), (3, "b.md:1"), (4, "b.md:1"), (9, "b.md:1")])
def test_a_quote_of_several_files_is_cited_where_the_model_names_it(line: int, where: str) -> None:
    checked = cite(SAME, "Status: accepted today.", line)
    assert isinstance(checked, CitedRow)
    assert (where, line not in (1, 3)) == (checked.evidence.where, checked.relocated)


@pytest.mark.parametrize(("quote", "match"), [("We chose YAML.", "exact"), ("we chose **yaml**", "folded")])
def test_a_quote_of_another_file_is_relocated(quote: str, match: str) -> None:
    both = packed(chunk("a.md", "Nothing here."), chunk("b.jsonl", "Hello.", "We chose YAML.", first=4, speaker="user"))
    checked = cite(both, quote, 1)
    assert isinstance(checked, CitedRow)
    evidence = checked.evidence
    assert ("b.jsonl", 5, 5, "We chose YAML.", match, "user", True) == (
        *(evidence.source, evidence.first, evidence.last, evidence.quote, evidence.match, evidence.speaker),
        checked.relocated,
    )


def test_the_named_file_comes_before_a_better_match_elsewhere() -> None:
    both = packed(chunk("a.md", "We chose *YAML*."), chunk("b.md", "We chose YAML."))
    checked = cite(both, "We chose YAML.", 1)
    assert isinstance(checked, CitedRow)
    assert ("a.md:1", "folded", False) == (checked.evidence.where, checked.evidence.match, checked.relocated)


@pytest.mark.parametrize(
    "quote",
    [
        "We keep A. Status: accepted",
        "We keep A.\n\nStatus: accepted today.",
        "we keep a status accepted",
        "We keep A. … Or B.",
        "We keep A. [...] accepted today",
        "We keep A. Source: b.md",
        "We keep A. Source: b.md [3] Status: accepted today.",
    ],
)
def test_a_quote_over_the_border_of_two_files_is_quarantined(quote: str) -> None:
    checked = cite(SAME, quote, 2)
    assert isinstance(checked, QuarantinedRow)
    assert "its quote is not in the source" == checked.reason


def test_a_quarantined_row_names_the_file_of_its_number() -> None:
    for line, where in ((2, "a.md:1-2"), (3, "b.md:1-2"), (0, "a.md:1-2; b.md:1-2"), (77, "a.md:1-2; b.md:1-2")):
        checked = cite(SAME, "Nobody said this.", line)
        assert isinstance(checked, QuarantinedRow)
        assert where == checked.where


def test_a_negation_in_another_file_is_the_reason() -> None:
    both = packed(chunk("a.md", "Nothing here."), chunk("b.md", "We will not use Redis."))
    checked = cite(both, "use Redis", 1)
    assert isinstance(checked, QuarantinedRow)
    assert ("its quote leaves out the negation next to it", "b.md:1") == (checked.reason, checked.where)


async def test_a_second_look_finds_the_passage_of_its_file() -> None:
    quote = "We chose option b, since it is cheap."

    def script(prompt: str) -> Any:
        if prompt.startswith("Passage:"):
            return msgspec.json.encode({"quote": quote}).decode()
        return {"decisions": [decision("Option b", "Option b was chosen, since it is cheap.", 2)]}

    async with scripted_backend(script) as (model, backend):
        sources = [LinesSource("Nothing.", "Some words.", name="a.md"), LinesSource("Hello.", quote, name="b.md")]
        run = ingest(backend, sources, kinds=[Kind.DECISION], second_look=True)
        (row,) = await rows_of(run)
    assert ("b.md:2", 1, 1) == (row.evidence[0].where, run.report.recovered, run.report.relocated)
    assert model.prompts[1].startswith(f"Passage:\n{quote}\n\n")


async def test_secrets_are_masked_in_each_file() -> None:
    key = "sk-ant-api03-" + "Abc123Xyz789" * 4
    async with scripted_backend() as (model, backend):
        run = ingest(backend, [note("a"), LinesSource(f"The key is {key}, keep it.", name="b.md")])
        await rows_of(run)
    assert (1, False) == (run.report.masked, key in model.prompts[0])


async def test_equal_rows_at_the_same_line_of_several_files() -> None:
    """One of the answers is truncated, so that its rows are joined with those of the parts."""

    def script(prompt: str) -> Any:
        quote = "The status is accepted."
        numbers = [int(number) for number in re.findall(r"\[(\d+)\] The status", prompt)]
        rows = [decision("Accepted", quote, number) for number in numbers]
        if len(numbers) > 2:
            return completion(
                f'{{"decisions": [{msgspec.json.encode(rows[0]).decode()}, {{"quote": "The', finish_reason="length"
            )
        return {"decisions": rows}

    async with scripted_backend(script) as (_, backend):
        sources = [LinesSource("The status is accepted.", name=f"{name}.md") for name in "abcd"]
        run = ingest(backend, sources, kinds=[Kind.DECISION])
        await rows_of(run)
    (row,) = run.rows()
    assert {"a.md:1", "b.md:1", "c.md:1", "d.md:1"} == {evidence.where for evidence in row.evidence}


WORDS = st.sampled_from(
    [*("we", "keep", "chose", "option", "not", "the", "cold", "storage"), *("Yes:", "*it*", "was,", "“then”", "late.")]
)
LINE = st.lists(WORDS, min_size=2, max_size=7).map(" ".join)
FILES = st.lists(st.lists(LINE, min_size=1, max_size=4), min_size=2, max_size=4)


@given(FILES, st.data())
def test_the_evidence_is_that_of_the_file_alone(files: list[list[str]], data: st.DataObject) -> None:
    """Any words of a file, with any number of that file, as they are or without their marks."""
    parts = [chunk(f"{number}.md", *lines, first=number + 1) for number, lines in enumerate(files)]
    both = packed(*parts)
    at = data.draw(st.integers(0, len(parts) - 1))
    line = data.draw(st.integers(parts[at].segments[0].first, parts[at].segments[-1].last))
    words = " ".join(segment.text for segment in parts[at].segments).split()
    start = data.draw(st.integers(0, len(words) - 1))
    quote = " ".join(words[start : data.draw(st.integers(start + 1, len(words)))])
    quote = data.draw(st.sampled_from([quote, quote.replace("*", "").replace("“", '"').lower()]))
    (alone,) = check([ExtractedRow(Decision("A title", "", "", ""), line, quote)], parts[at])
    together = cite(both, quote, line + both.offsets[at])
    if isinstance(alone, CitedRow):
        assert alone == together
    elif isinstance(together, CitedRow):  # the same words are a valid quote of another file
        assert together.relocated
        assert parts[at].source != together.evidence.source
    else:
        assert alone.reason in (together.reason, "its quote is not in the source")


@given(FILES, st.data())
def test_no_quote_spans_two_files(files: list[list[str]], data: st.DataObject) -> None:
    parts = [chunk(f"{number}.md", *lines) for number, lines in enumerate(files)]
    at = data.draw(st.integers(0, len(parts) - 2))
    end = " ".join(files[at]).split()[-data.draw(st.integers(1, 4)) :]
    start = " ".join(files[at + 1]).split()[: data.draw(st.integers(1, 4))]
    quote = " ".join((*end, *start))
    checked = cite(packed(*parts), quote, data.draw(st.integers(0, 20)))
    alone = [check([ExtractedRow(Decision("A title", "", "", ""), 1, quote)], part)[0] for part in parts]
    assert any(isinstance(one, CitedRow) for one in alone) == isinstance(checked, CitedRow)


# --- failures -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "failure",
    [
        completion('{"decisions": [', finish_reason="length"),
        completion("", finish_reason="content_filter"),
        completion("No."),
    ],
    ids=["length", "filter", "prose"],
)
async def test_an_answer_that_fails_costs_only_its_file(failure: web.Response) -> None:
    body = failure.body

    def script(prompt: str) -> Any:
        if "Source: c.md" in prompt:
            return web.Response(body=body, content_type="application/json")
        return chosen(prompt)

    async with scripted_backend(script) as (_, backend):
        run = ingest(backend, notes("abcdef"), kinds=[Kind.DECISION], skip_failed=True)
        rows = await rows_of(run)
    assert ["a.md:3", "b.md:3", "d.md:3", "e.md:3", "f.md:3"] == [row.evidence[0].where for row in rows]
    assert {"c.md"} == {skipped.source for skipped in run.report.skipped}
    assert all("no usable answer from the model" in skipped.reason for skipped in run.report.skipped)


async def test_a_failure_names_its_file() -> None:
    def script(prompt: str) -> Any:
        return completion("No.") if "option b." in prompt else chosen(prompt)

    async with scripted_backend(script) as (_, backend):
        with pytest.raises(ChunkError, match="no usable answer") as failure:
            await rows_of(ingest(backend, notes("ab"), kinds=[Kind.DECISION]))
    assert "b.md:1-3" == failure.value.where


async def test_a_chunk_that_is_too_long_is_split_between_files() -> None:
    def script(prompt: str) -> Any:
        if prompt.count("Source: ") > 2:
            return completion('{"decisions": [', finish_reason="length")
        return chosen(prompt)

    async with scripted_backend(script) as (model, backend):
        run = ingest(backend, notes("abcde"), kinds=[Kind.DECISION])
        rows = await rows_of(run)
    assert ["a.md:3", "b.md:3", "c.md:3", "d.md:3", "e.md:3"] == [row.evidence[0].where for row in rows]
    assert [5, 2, 3, 1, 2] == [prompt.count("Source: ") for prompt in model.prompts]


# --- resume, progress, plans ----------------------------------------------------------------------------


async def test_a_run_is_resumed_without_new_requests(tmp_path: Path) -> None:
    counts = []
    for _ in range(2):
        async with scripted_backend(chosen) as (model, backend):
            with closing(Journal(tmp_path / "journal.jsonl")) as journal:
                run = ingest(backend, notes("abcdef"), kinds=[Kind.DECISION], journal=journal)
                assert 6 == len(await rows_of(run))
            counts.append((len(model.prompts), run.report.reused))
    assert [(1, 0), (0, 1)] == counts


async def test_a_changed_neighbour_changes_no_evidence(tmp_path: Path) -> None:
    """Its lines move the numbers of the next files, which must not be mixed up with the stored answer."""
    with closing(Journal(tmp_path / "journal.jsonl")) as journal:
        async with scripted_backend(chosen) as (model, backend):
            await rows_of(ingest(backend, notes("abc"), kinds=[Kind.DECISION], journal=journal))
            longer = LinesSource("# Note a", "New.", "Newer.", "We chose option a.", name="a.md")
            run = ingest(backend, [longer, *notes("bc")], kinds=[Kind.DECISION], journal=journal)
            rows = await rows_of(run)
            assert ["a.md:4", "b.md:3", "c.md:3"] == [row.evidence[0].where for row in rows]
            run = ingest(backend, notes("bc"), kinds=[Kind.DECISION], journal=journal)
            assert ["b.md:3", "c.md:3"] == [row.evidence[0].where for row in await rows_of(run)]
    assert 3 == len(model.prompts)


async def test_a_split_is_resumed(tmp_path: Path) -> None:
    fails = True

    def script(prompt: str) -> Any:
        if prompt.count("Source: ") > 1:
            return completion("No.")
        if "option c." in prompt and fails:
            return web.json_response({"error": {"message": "broken"}}, status=500)
        return chosen(prompt)

    async with scripted_backend(script) as (model, backend):
        with closing(Journal(tmp_path / "journal.jsonl")) as journal:
            with pytest.raises(APIStatusError):
                await rows_of(ingest(backend, notes("abc"), kinds=[Kind.DECISION], journal=journal))
            fails, count = False, len(model.prompts)
            rows = await rows_of(ingest(backend, notes("abc"), kinds=[Kind.DECISION], journal=journal))
    assert ["a.md:3", "b.md:3", "c.md:3"] == [row.evidence[0].where for row in rows]
    assert 1 == len(model.prompts) - count


async def test_progress_counts_files_and_bytes() -> None:
    updates: list[Progress] = []
    names = "abcdefghijklmnopqrst"
    async with scripted_backend(chosen) as (_, backend):
        run = ingest(
            backend,
            notes(names),
            kinds=[Kind.DECISION],
            on_event=lambda event: updates.append(event) if isinstance(event, Progress) else None,
        )
        await rows_of(run)
    last = updates[-1]
    assert (20, 20, last.size) == (last.sources, last.sources_done, last.size_done)
    assert sorted(update.size_done for update in updates) == [update.size_done for update in updates]
    assert run.report.chunks == last.chunks < 20


async def test_dry_runs_count_packed_requests() -> None:
    async with scripted_backend(chosen) as (model, backend):
        plan = await ingest(backend, notes("abcdefgh"), kinds=[Kind.DECISION]).plan()
        await rows_of(ingest(backend, notes("abcdefgh"), kinds=[Kind.DECISION]))
    options = RunOptions(kinds=[Kind.DECISION])
    estimate = estimate_plan(notes("abcdefgh"), options, on_event=lambda _: None)
    assert (1, 1, 1) == (plan.chunks, estimate.chunks, len(model.prompts))
    assert (8, 8) == (len(plan.inputs), len(estimate.inputs))
    apart = estimate_plan(notes("abcdefgh"), RunOptions(kinds=[Kind.DECISION], pack=False), on_event=lambda _: None)
    assert 8 == apart.chunks
    assert estimate.tokens < apart.tokens / 5


# --- the packer -----------------------------------------------------------------------------------------


def pack(chunks: list[tuple[Chunk, bool]], size: int = 10_000, answer_tokens: int = 4_096) -> list[list[str]]:
    packer = Packer(size, answer_tokens=answer_tokens)
    groups = [one for chunk, ends in chunks for one in packer.add(chunk, ends_source=ends)]
    return [[part.source for part in group.parts] for group in (*groups, *packer.flush())]


def test_files_fill_a_request_in_their_order() -> None:
    chunks = [(chunk(f"{n}.md", "x" * 100), True) for n in range(7)]
    assert [["0.md", "1.md", "2.md"], ["3.md", "4.md", "5.md"], ["6.md"]] == pack(chunks, size=400)


def test_the_answer_has_room_for_each_file() -> None:
    chunks = [(chunk(f"{n}.md", "x"), True) for n in range(5)]
    assert [["0.md", "1.md"], ["2.md", "3.md"], ["4.md"]] == pack(chunks, answer_tokens=512)
    assert [[f"{n}.md"] for n in range(5)] == pack(chunks, answer_tokens=100)


def test_the_end_of_a_long_file_is_joined_with_the_next_files() -> None:
    long, end = chunk("long.md", "x" * 350), chunk("long.md", "x" * 50, first=2)
    chunks = [(long, False), (end, True), (chunk("a.md", "x"), True), (chunk("b.md", "x" * 390), True)]
    assert [["long.md"], ["long.md", "a.md"], ["b.md"]] == pack(chunks, size=400)


# --- the commands ---------------------------------------------------------------------------------------


def test_the_commands_pack_files(tmp_path: Path, serve: Any) -> None:
    model: ScriptedModel = serve(chosen)
    directory = project(tmp_path, model.url)
    (directory / "records").mkdir()
    for name in "abcdef":
        text = f"# Note {name}\n\nSome words.\n\nWe chose option {name}.\n"
        (directory / "records" / f"{name}.md").write_text(text)
    for arguments, requests in (((), 1), (("--no-pack",), 6)):
        before = len(model.prompts)
        done = ctx(directory, "ingest", "records", "--extract", "decisions", *arguments)
        assert 0 == done.code, done.err
        assert requests == len(model.prompts) - before
        text = (directory / done.proposal).read_text()
        assert [f"records/{name}.md:5" for name in "abcdef"] == sorted(set(re.findall(r"records/\w\.md:5", text)))


# --- cost -----------------------------------------------------------------------------------------------


def record(number: int) -> LinesSource:
    """A decision record of about 1,200 bytes."""
    return LinesSource(
        f"# {number}. Choose option {number}",
        "Status: accepted",
        "## Context",
        "Three teams asked for it in the last quarter, and each of them had built a part of it. " * 4,
        "## Decision",
        f"We chose option {number} for all teams.",
        "## Consequences",
        "The parts that exist are removed one after the other, which takes until the end of the year. " * 5,
        name=f"docs/adr/{number:04}.md",
    )


async def test_the_cost_of_48_records() -> None:
    """The figures in docs/knowledge: 3 requests instead of 48, and less than half of the tokens."""
    kinds = [Kind.DECISION, Kind.TASK, Kind.RISK, Kind.TERM]
    records = [record(number) for number in range(1, 49)]
    plans = [
        estimate_plan(records, RunOptions(kinds=kinds, pack=pack), on_event=lambda _: None) for pack in (False, True)
    ]
    assert [48, 3] == [plan.requests for plan in plans]
    assert plans[1].tokens < 0.45 * plans[0].tokens
    async with scripted_backend(chosen) as (model, backend):
        together = ingest(backend, records, kinds=kinds)
        await rows_of(together)
        assert 3 == len(model.prompts)
        apart = ingest(backend, records, kinds=kinds, pack=False)
        await rows_of(apart)
    assert 51 == len(model.prompts)
    assert apart.rows() == together.rows()
    assert 48 == len(together.rows())
