from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends._util.text import one_line
from ctxbackends.knowledge._extract.chunker import Chunk
from ctxbackends.knowledge._extract.citations import NEGATED, TOO_SHORT, CitedRow, check
from ctxbackends.knowledge._extract.rows import ExtractedRow
from ctxbackends.knowledge._records import Evidence, QuarantinedRow, Task
from ctxbackends.knowledge._sources.base import Segment

CHUNK = Chunk(
    source="notes.md",
    unit="line",
    segments=(
        Segment(text="# Configuration", first=1, last=1),
        Segment(text="We chose YAML,\nbecause people edit\tit by hand.", first=3, last=4),
        Segment(text="Later we will add TOML.\n\nPeople edit it by hand.", first=6, last=8),
    ),
)


def extracted_row(quote: str, line: int = 3, title: str = "Use YAML") -> ExtractedRow:
    return ExtractedRow(Task(title, "medium"), line, quote)


def cited_row(quote: str, line: int = 3) -> CitedRow:
    (row,) = check([extracted_row(quote, line)], CHUNK)
    assert isinstance(row, CitedRow), row
    return row


def cited_lines(quote: str, line: int = 3) -> tuple[int, int]:
    evidence = cited_row(quote, line).evidence
    return evidence.first, evidence.last


def check_quarantined(quote: str, *, title: str = "Use YAML") -> QuarantinedRow:
    (one,) = check([extracted_row(quote, title=title)], CHUNK)
    assert isinstance(one, QuarantinedRow), one
    return one


def test_a_quote_is_cited_with_its_position() -> None:
    one = cited_row("We chose YAML, because people edit it by hand.")
    assert (
        Evidence(source="notes.md", quote="We chose YAML, because people edit it by hand.", first=3, last=4)
        == one.evidence
    )
    assert not one.relocated


def test_white_space_may_differ() -> None:
    assert (3, 4) == cited_lines("  We chose\nYAML, because   people edit it")


def test_a_citation_has_the_lines_of_the_quote() -> None:
    assert (4, 4) == cited_lines("because people edit it by hand.")
    assert (8, 8) == cited_lines("People edit it by hand.", 6)


def test_a_quote_may_span_segments() -> None:
    assert (4, 6) == cited_lines("by hand. Later we will")


def test_a_quote_at_another_line_is_cited_there() -> None:
    one = cited_row("Later we will add TOML.", 1)
    assert one.relocated
    assert "notes.md:6" == one.evidence.where


def test_the_nearest_occurrence_is_cited() -> None:
    chunk = Chunk(
        source="a.md",
        unit="line",
        segments=tuple(Segment(text="The same sentence.", first=n, last=n) for n in (1, 5, 9)),
    )
    rows = [check([extracted_row("The same sentence.", line)], chunk)[0] for line in (1, 5, 8)]
    assert [1, 5, 9] == [row.evidence.first for row in rows if isinstance(row, CitedRow)]


@pytest.mark.parametrize(
    "quote",
    [
        "“We chose YAML, because people edit it by hand.”",
        '"We chose YAML, because"',
        "[3] We chose YAML, because people",
    ],
)
def test_quotation_marks_are_ignored(quote: str) -> None:
    assert 3 == cited_row(quote).evidence.first


@pytest.mark.parametrize(
    ("quote", "reason"),
    [
        ("We chose TOML, because people edit it by hand.", "its quote is not in the source"),
        ("we chose yaml, because people do not edit it by hand.", "its quote is not in the source"),
        ("by hand ... We chose YAML", "its quote is not in the source"),
        ("", "no quote"),
        (" \n", "no quote"),
        ("YAML", "quote is shorter than 2 words"),
        ("“hand.”", "quote is shorter than 2 words"),
        ("[3] [4]", "quote is shorter than 2 words"),
    ],
)
def test_rows_without_valid_evidence(quote: str, reason: str) -> None:
    one = check_quarantined(quote)
    assert reason == one.reason
    assert ("notes.md:1-8", " ".join(quote.split())) == (one.where, one.quote)


def test_a_row_without_a_title() -> None:
    assert "no title" == check_quarantined("We chose YAML, because people", title="  ").reason


@given(st.lists(st.text(max_size=30), min_size=1, max_size=6), st.data())
def test_copied_text_is_always_found(lines: list[str], data: st.DataObject) -> None:
    texts = [line.replace("\n", " ") for line in lines]
    numbered_lines = [(number, text) for number, text in enumerate(texts, 1) if text.split()]
    if not numbered_lines:
        return
    chunk = Chunk(
        source="a", unit="line", segments=tuple(Segment(text=text, first=n, last=n) for n, text in numbered_lines)
    )
    number, text = data.draw(st.sampled_from(numbered_lines))
    (one,) = check([extracted_row(text, number)], chunk)
    if isinstance(one, QuarantinedRow):
        assert one.reason in (TOO_SHORT, NEGATED, "no quote")
    else:
        assert one_line(text) == one.evidence.quote or one.evidence.quote in one_line(text)
        assert one.evidence.first == one.evidence.last == number
