"""The end of the chunk before as context."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from ctxbackends.knowledge._extract.chunker import Chunk
from ctxbackends.knowledge._extract.citations import CitedRow, check
from ctxbackends.knowledge._extract.context import take_context
from ctxbackends.knowledge._extract.options import RunOptions
from ctxbackends.knowledge._extract.rows import ExtractedRow
from ctxbackends.knowledge._extract.run import Ingestion, ingest
from ctxbackends.knowledge._records import Decision, Kind, QuarantinedRow, Row
from ctxbackends.knowledge._sources.base import Segment
from ctxbackends.knowledge._sources.text import TextSource
from tests.knowledge.commands import ctx, project
from tests.knowledge.factories import LinesSource
from tests.knowledge.scripted_model import decision, scripted_backend

HEAD = "Context before this part. Do not extract from it:\n\n"
FILLER = " And so on." * 40


def part(number: int) -> str:
    return f"# Part {number}. We chose option {number}.{FILLER}"


def segments(*texts: str, **fields: Any) -> tuple[Segment, ...]:
    result, at = [], 1
    for text in texts:
        result.append(Segment(text=text, first=at, last=at + text.count("\n"), **fields))
        at = result[-1].last + 2
    return tuple(result)


def text_of(found: Any) -> str | None:
    return None if found is None else found.text


async def rows_of(run: Ingestion) -> list[Row]:
    return [row async for row in run]


# --- the prompt -----------------------------------------------------------------------------------------


async def test_each_chunk_but_the_first_has_context() -> None:
    lines = LinesSource(*(part(number) for number in range(3)), "The last line of all.")
    async with scripted_backend() as (model, backend):
        await rows_of(ingest(backend, [lines], kinds=[Kind.DECISION], chunk_tokens=250, context_lines=1))
    assert len(model.prompts) > 2
    for before, prompt in zip(model.prompts, model.prompts[1:], strict=False):
        head, context, *passages = prompt.split("\n\n")
        assert re.fullmatch(r"Source: notes.md:\d(-\d)?", head)
        assert HEAD.strip() == context
        assert passages[0].startswith("> ")
        end = passages[0].removeprefix("> ").removeprefix("… ")
        assert before.endswith(end)
        assert re.match(r"\[\d\] ", passages[1])
    assert "Context" not in model.prompts[0]


async def test_no_context_by_default() -> None:
    lines = LinesSource(*(part(number) for number in range(3)))
    async with scripted_backend() as (model, backend):
        options: list[dict[str, Any]] = [{}, {"context_lines": 0}]
        for more in options:
            await rows_of(ingest(backend, [lines], kinds=[Kind.DECISION], chunk_tokens=250, **more))
    half = len(model.prompts) // 2
    assert model.prompts[:half] == model.prompts[half:]
    assert not any("Context" in prompt for prompt in model.prompts)


async def test_context_does_not_cross_files() -> None:
    sources = [LinesSource("One.", "Two.", name="a.md"), LinesSource("Three.", name="b.md")]
    async with scripted_backend() as (model, backend):
        await rows_of(ingest(backend, sources, kinds=[Kind.DECISION], context_lines=5))
        await rows_of(ingest(backend, sources, kinds=[Kind.DECISION], context_lines=5, pack=False))
    assert not any("Context" in prompt for prompt in model.prompts)


async def test_the_budget_includes_the_context(tmp_path: Path) -> None:
    path = tmp_path / "long.md"
    path.write_text("".join(f"Line {number} of the notes, with some words.\n\n" for number in range(300)))

    async def lengths(**options: Any) -> list[int]:
        async with scripted_backend(context_length=8_192) as (model, backend):
            run = ingest(backend, [TextSource(path)], kinds=[Kind.DECISION], chunk_tokens=500, **options)
            await rows_of(run)
        return [len(prompt) for prompt in model.prompts]

    plain, with_context = await lengths(), await lengths(context_lines=8)
    assert max(with_context) <= 4 * 500  # the scripted model counts 4 characters as a token
    assert len(plain) < len(with_context) < 2 * len(plain)


async def test_masked_text_is_masked_in_the_context() -> None:
    key = "sk-ant-api03-" + "Abc123Xyz789" * 4
    lines = LinesSource(f"# One.{FILLER} The key is {key}.", f"# Two.{FILLER}", f"# Three.{FILLER}")
    async with scripted_backend() as (model, backend):
        run = ingest(backend, [lines], kinds=[Kind.DECISION], chunk_tokens=250, context_lines=3)
        await rows_of(run)
    assert not any(key in prompt for prompt in model.prompts)
    assert 1 == run.report.masked


def test_the_last_lines() -> None:
    texts = segments("One\ntwo\nthree", "four\n\nfive")
    assert f"{HEAD}> five" == text_of(take_context(texts, 1, 1_000))
    assert f"{HEAD}> three\n> four\n> five" == text_of(take_context(texts, 3, 1_000))
    assert f"{HEAD}> One\n> two\n> three\n> four\n> five" == text_of(take_context(texts, 9, 1_000))
    assert None is take_context(texts, 0, 1_000)
    assert None is take_context((), 3, 1_000)
    assert None is take_context(segments(""), 3, 1_000)


def test_a_context_is_bounded() -> None:
    texts = segments("one " * 50, "two " * 50)
    assert f"{HEAD}> {'two ' * 50}" == text_of(take_context(texts, 9, 270))
    for size in (150, 270, 300, 400):
        context = take_context(texts, 9, size)
        assert context is not None
        assert context.size <= size
    assert None is take_context(texts, 9, 60)
    wide = take_context(segments("é" * 300), 1, 150)
    assert wide is not None
    assert 40 < wide.size <= 150
    (long,) = segments("word " * 1_000 + "end.")
    text = text_of(take_context([long], 1, 1_000))
    assert text is not None
    assert text.startswith(f"{HEAD}> … word ")
    assert text.endswith(" end.")
    assert len(text) < 500


def test_speakers_are_named() -> None:
    texts = segments("Hello.", "We keep it.", label="user", timestamp="09:05")
    assert f"{HEAD}> (user 09:05) We keep it." == text_of(take_context(texts, 1, 1_000))


def test_the_parts_of_a_split_chunk_have_context() -> None:
    whole = Chunk(source="a.md", unit="line", segments=segments(*(f"Line {n}. {'x ' * 60}" for n in range(4))))
    first, second = whole.split() or (whole, whole)
    assert (None, None) == (first.context, second.context)
    wide = Chunk(source="a.md", unit="line", segments=segments(*("Line. " * 30 for _ in range(4))), context_lines=1)
    first, second = wide.split() or (wide, wide)
    assert None is first.context
    assert second.context is not None
    assert second.context.segments == first.segments[-1:]


# --- evidence -------------------------------------------------------------------------------------------


def with_context(*texts: str, of: int) -> Chunk:
    """The first texts are the context, the last ones the chunk."""
    every = segments(*texts)
    return Chunk(source="a.md", unit="line", segments=every[of:], context=take_context(every[:of], 1, 1_000))


def cite(chunk: Chunk, quote: str, line: int) -> CitedRow | QuarantinedRow:
    (checked,) = check([ExtractedRow(Decision("A title", "", "", ""), line, quote)], chunk)
    return checked


@pytest.mark.parametrize(
    ("quote", "where"),
    [
        ("We keep option one.", "a.md:1"),
        ("we keep **option one**", "a.md:1"),
        ("It was late and they went home.", "a.md:3-5"),  # a sentence over the border of the chunks
        ("they went home.", "a.md:5"),
    ],
)
def test_a_quote_in_the_context_is_cited_with_its_line(quote: str, where: str) -> None:
    chunk = with_context("We keep option one.", "It was late and", "they went home.", of=2)
    chunk = Chunk(
        source="a.md",
        unit="line",
        segments=chunk.segments,
        context=take_context(segments("We keep option one.", "It was late and"), 2, 1_000),
    )
    checked = cite(chunk, quote, 5)
    assert isinstance(checked, CitedRow)
    assert where == checked.evidence.where


def test_a_quote_must_not_leave_out_a_negation_before_the_context() -> None:
    """One line of two is sent, but the words before it count."""
    every = segments("After all, we will not\nuse Redis here.", "The rest is about lunch.")
    chunk = Chunk(source="a.md", unit="line", segments=every[1:], context=take_context(every[:1], 1, 1_000))
    assert "> use Redis here." in chunk.render()
    checked = cite(chunk, "use Redis here.", 4)
    assert isinstance(checked, QuarantinedRow)


async def test_a_row_of_two_chunks_is_merged() -> None:
    def script(prompt: str) -> Any:
        quotes = re.findall(r"We chose option \d\.", prompt)
        return {"decisions": [decision(quote[3:-1], quote, 1) for quote in quotes]}

    lines = LinesSource(*(f"# Part.{FILLER} We chose option {number}." for number in range(4)))
    async with scripted_backend(script) as (model, backend):
        run = ingest(backend, [lines], kinds=[Kind.DECISION], chunk_tokens=250, context_lines=1)
        await rows_of(run)
    assert 4 == len(model.prompts)
    assert [("chose option 0", ["notes.md:1"]), ("chose option 1", ["notes.md:2"])] == [
        (row.title, [evidence.where for evidence in row.evidence]) for row in run.rows()[:2]
    ]
    assert (4, 3) == (len(run.rows()), run.report.merged)


# --- options --------------------------------------------------------------------------------------------


def test_invalid_numbers_of_lines() -> None:
    with pytest.raises(ValueError, match="invalid context_lines: -1; it must be at least 0"):
        RunOptions(context_lines=-1)


def test_the_option(tmp_path: Path, serve: Any) -> None:
    model = serve(lambda _: {})
    directory = project(tmp_path, model.url)
    (directory / "a.md").write_text("\n\n".join(part(number) for number in range(3)))
    done = ctx(directory, "ingest", "a.md", "--chunk-tokens", "250", "--context-lines", "1")
    assert 0 == done.code, done.err
    assert ["Context before this part" in prompt for prompt in model.prompts].count(True) == len(model.prompts) - 1
