from __future__ import annotations

from collections.abc import Iterable, Iterator

from hypothesis import given
from hypothesis import strategies as st

from ctxbackends.knowledge._extract.chunker import Chunk, Chunker
from ctxbackends.knowledge._records import Unit
from ctxbackends.knowledge._sources.base import Segment
from ctxbackends.knowledge._sources.split import size_of, split_to_fit


def segments(*texts: str, boundary: tuple[int, ...] = ()) -> list[Segment]:
    segments_, line = [], 1
    for index, text in enumerate(texts):
        last = line + text.count("\n")
        segments_.append(Segment(text=text, first=line, last=last, boundary=boundary[index] if boundary else 1))
        line = last + 2
    return segments_


def divide(source: str, unit: Unit, segments: Iterable[Segment], size: int) -> Iterator[Chunk]:
    gatherer = Chunker(source, unit, size)
    for segment in segments:
        yield from gatherer.add(segment)
    yield from gatherer.flush()


def ranges(chunks: list[Chunk]) -> list[str]:
    return [chunk.where for chunk in chunks]


def test_segments_that_fit_are_one_chunk() -> None:
    chunks = list(divide("a.md", "line", segments("one", "two", "three"), 100))
    assert ["a.md:1-5"] == ranges(chunks)


def test_a_segment_that_does_not_fit_starts_the_next_chunk() -> None:
    chunks = list(divide("a.md", "line", segments("x" * 60, "y" * 60, "z" * 30), 100))
    assert ["a.md:1", "a.md:3-5"] == ranges(chunks)


def test_a_section_starts_a_chunk_after_a_half_full_one() -> None:
    texts = segments("x" * 60, "# Two", "y" * 20, boundary=(1, 2, 0))
    assert ["a.md:1", "a.md:3-5"] == ranges(list(divide("a.md", "line", texts, 100)))
    assert ["a.md:1-5"] == ranges(list(divide("a.md", "line", texts, 200)))


def test_a_heading_does_not_end_a_chunk() -> None:
    texts = segments("x" * 40, "# Two", "y" * 80, boundary=(1, 2, 0))
    assert ["a.md:1", "a.md:3-5"] == ranges(list(divide("a.md", "line", texts, 100)))


def test_questions_alone_fill_chunks() -> None:
    texts = segments("x" * 30, "y" * 30, "z" * 30, "w" * 30, boundary=(2, 2, 2, 2))
    assert ["a.md:1-3", "a.md:5-7"] == ranges(list(divide("a.md", "line", texts, 80)))


def test_a_long_segment_is_split_at_a_line_end() -> None:
    (segment,) = segments("a" * 50 + "\n" + "b" * 50 + "\n" + "c" * 50)
    first, second = split_to_fit(segment, 110)
    assert ("a" * 50 + "\n" + "b" * 50, 1, 2) == (first.text, first.first, first.last)
    assert ("c" * 50, 3, 3, 0) == (second.text, second.first, second.last, second.boundary)


def test_split_pages_keep_their_number() -> None:
    page = Segment(text="one sentence. " * 20, first=3, last=3)
    pieces = list(split_to_fit(page, 60))
    assert len(pieces) > 3
    assert {(3, 3)} == {(piece.first, piece.last) for piece in pieces}
    assert page.text == "".join(piece.text for piece in pieces)


def test_render() -> None:
    chunk = Chunk(
        source="s.jsonl",
        unit="line",
        segments=(
            Segment(text="Why YAML?", first=4, last=4, label="user", timestamp="2026-02-19T14:30:00Z"),
            Segment(text="People edit it.", first=5, last=5, label="assistant"),
        ),
    )
    expected = "Source: s.jsonl:4-5\n\n[4] (user 2026-02-19T14:30:00Z) Why YAML?\n\n[5] (assistant) People edit it."
    assert expected == chunk.render()


def test_positions_in_pages() -> None:
    chunk = Chunk(source="a.pdf", unit="page", segments=(Segment(text="x", first=2, last=2),))
    assert "a.pdf, page 2" == chunk.where


def test_a_single_character_cannot_be_split() -> None:
    assert Chunk(source="a", unit="line", segments=(Segment(text="x", first=1, last=1),)).split() is None


@given(
    st.lists(st.text(alphabet="ab é中\n", min_size=1, max_size=80).filter(lambda text: text.strip("\n ")), max_size=20),
    st.integers(1, 60),
    st.lists(st.integers(0, 2), min_size=20, max_size=20),
)
def test_nothing_is_lost(texts: list[str], size: int, starts: list[int]) -> None:
    original = segments(*(text.strip("\n") or "x" for text in texts), boundary=tuple(starts))
    chunks = list(divide("a.md", "line", original, size))
    words = "".join("".join(segment.text.split()) for segment in original)
    assert words == "".join("".join(segment.text.split()) for chunk in chunks for segment in chunk.segments)
    for chunk in chunks:
        for segment in chunk.segments:
            assert segment.last - segment.first == segment.text.count("\n")
            # Cut to its size, but for what no cut makes shorter: letters of several bytes.
            assert size_of(segment) <= size + 4 or len(segment.text) == 1


@given(st.lists(st.text(alphabet="ab \n", min_size=1, max_size=40).filter(str.strip), min_size=1, max_size=8))
def test_split_parts_are_the_whole_chunk(texts: list[str]) -> None:
    chunk = Chunk(source="a.md", unit="line", segments=tuple(segments(*(text.strip("\n") for text in texts))))
    halves = chunk.split()
    if halves is None:
        assert 1 == len(chunk.segments)
        return
    together = "".join("".join(segment.text.split()) for half in halves for segment in half.segments)
    assert "".join("".join(segment.text.split()) for segment in chunk.segments) == together
    assert all(half.size < chunk.size for half in halves)
