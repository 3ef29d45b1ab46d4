from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends._util.text import one_line
from ctxbackends.knowledge._extract.chunker import Chunk
from ctxbackends.knowledge._extract.citations import CitedRow, check
from ctxbackends.knowledge._extract.prompt import ExtractedRow
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


def found(quote: str, line: int = 3, title: str = "Use YAML") -> ExtractedRow:
    return ExtractedRow(Task(title, "medium"), line, quote)


def checked(quote: str, line: int = 3) -> CitedRow:
    (one,) = check([found(quote, line)], CHUNK)
    assert isinstance(one, CitedRow), one
    return one


def refused(quote: str, *, title: str = "Use YAML") -> QuarantinedRow:
    (one,) = check([found(quote, title=title)], CHUNK)
    assert isinstance(one, QuarantinedRow), one
    return one


def test_a_quote_is_found_where_it_stands() -> None:
    one = checked("We chose YAML, because people edit it by hand.")
    assert (
        Evidence(source="notes.md", quote="We chose YAML, because people edit it by hand.", first=3, last=4)
        == one.evidence
    )
    assert not one.relocated


def test_white_space_is_folded() -> None:
    assert (3, 4) == (lambda e: (e.first, e.last))(checked("  We chose\nYAML, because   people edit it").evidence)


def test_the_lines_of_a_quote_are_its_own() -> None:
    assert (4, 4) == (lambda e: (e.first, e.last))(checked("because people edit it by hand.").evidence)
    assert (8, 8) == (lambda e: (e.first, e.last))(checked("People edit it by hand.", 6).evidence)


def test_a_quote_may_go_over_segments() -> None:
    assert (4, 6) == (lambda e: (e.first, e.last))(checked("by hand. Later we will").evidence)


def test_a_quote_that_stands_elsewhere_is_cited_there() -> None:
    one = checked("Later we will add TOML.", 1)
    assert one.relocated
    assert "notes.md:6" == one.evidence.where


def test_of_several_places_the_nearest_is_cited() -> None:
    chunk = Chunk(
        source="a.md",
        unit="line",
        segments=tuple(Segment(text="The same sentence.", first=n, last=n) for n in (1, 5, 9)),
    )
    places = [check([found("The same sentence.", line)], chunk)[0] for line in (1, 5, 8)]
    assert [1, 5, 9] == [one.evidence.first for one in places if isinstance(one, CitedRow)]


@pytest.mark.parametrize(
    "quote",
    [
        "“We chose YAML, because people edit it by hand.”",
        '"We chose YAML, because"',
        "[3] We chose YAML, because people",
    ],
)
def test_marks_around_a_quote_are_no_part_of_it(quote: str) -> None:
    assert 3 == checked(quote).evidence.first


@pytest.mark.parametrize(
    ("quote", "reason"),
    [
        ("We chose TOML, because people edit it by hand.", "quote not found in the source"),
        ("we chose yaml, because people edit it by hand.", "quote not found in the source"),
        ("We chose YAML ... by hand.", "quote not found in the source"),
        ("", "no quote"),
        (" \n", "no quote"),
        ("YAML", "quote is shorter than 8 characters"),
        ("“by hand”", "quote is shorter than 8 characters"),
        ("[3] [4]", "quote is shorter than 8 characters"),
    ],
)
def test_what_is_not_believed(quote: str, reason: str) -> None:
    one = refused(quote)
    assert reason == one.reason
    assert ("notes.md:1-8", " ".join(quote.split())) == (one.where, one.quote)


def test_a_row_without_a_title() -> None:
    assert "no title" == refused("We chose YAML, because people", title="  ").reason


@given(st.lists(st.text(max_size=30), min_size=1, max_size=6), st.data())
def test_what_is_copied_is_found(lines: list[str], data: st.DataObject) -> None:
    texts = [line.replace("\n", " ") for line in lines]
    kept = [(number, text) for number, text in enumerate(texts, 1) if text.split()]
    if not kept:
        return
    chunk = Chunk(source="a", unit="line", segments=tuple(Segment(text=text, first=n, last=n) for n, text in kept))
    number, text = data.draw(st.sampled_from(kept))
    (one,) = check([found(text, number)], chunk)
    if len("".join(text.split())) < 8:
        assert isinstance(one, QuarantinedRow)
    elif isinstance(one, CitedRow):
        assert one_line(text) == one.evidence.quote or one.evidence.quote in one_line(text)
        assert one.evidence.first == one.evidence.last == number
    else:
        pytest.fail(one.reason)
