from __future__ import annotations

import hashlib
import io
import os
import sys
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends.knowledge._errors import SourceChangedError, SourceError
from ctxbackends.knowledge._sources import files
from ctxbackends.knowledge._sources.base import Input, Segment
from ctxbackends.knowledge._sources.text import MAX_SEGMENT_BYTES, StdinSource, TextSource, parse_paragraphs


def read(path: Path) -> list[Segment]:
    source = TextSource(path, name=path.name)
    source.prepare()
    return [piece for piece in source.pieces() if isinstance(piece, Segment)]


def pieces(tmp_path: Path, text: str | bytes) -> list[tuple[str, int, int, int]]:
    path = tmp_path / "a.md"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return [(item.text, item.first, item.last, item.boundary) for item in read(path)]


def test_paragraphs_have_their_lines(tmp_path: Path) -> None:
    assert [("one\ntwo", 2, 3, 1), ("three", 6, 6, 1)] == pieces(tmp_path, "\none\ntwo\n\n \nthree")


def test_a_heading_starts_a_section(tmp_path: Path) -> None:
    text = "before\n# One\ntext\n\n## Two ##\n\nmore\n\nand more\n"
    assert [
        ("before", 1, 1, 1),
        ("# One", 2, 2, 2),
        ("text", 3, 3, 0),
        ("## Two ##", 5, 5, 2),
        ("more", 7, 7, 0),
        ("and more", 9, 9, 1),
    ] == pieces(tmp_path, text)
    assert [("One\n===", 1, 2, 2), ("text", 3, 3, 0)] == pieces(tmp_path, "One\n===\ntext\n")
    assert [("#hashtag is none", 1, 1, 1)] == pieces(tmp_path, "#hashtag is none")


def test_a_fenced_block_stays_whole(tmp_path: Path) -> None:
    text = "text\n```python\na = 1\n\n# no heading\n```\nafter\n"
    assert [("text", 1, 1, 1), ("```python\na = 1\n\n# no heading\n```", 2, 6, 1), ("after", 7, 7, 1)] == pieces(
        tmp_path, text
    )
    assert [("~~~\nnever ended\n\nreally", 1, 4, 1)] == pieces(tmp_path, "~~~\nnever ended\n\nreally\n")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends(tmp_path: Path, end: str) -> None:
    assert [("one\ntwo", 1, 2, 1), ("three", 4, 4, 1)] == pieces(tmp_path, f"one{end}two{end}{end}three{end}")


def test_other_separators_are_not_line_ends(tmp_path: Path) -> None:
    assert [("a\u2028b\x0bc\x0cd\x85e", 1, 1, 1), ("f", 3, 3, 1)] == pieces(tmp_path, "a\u2028b\x0bc\x0cd\x85e\n\nf")


def test_a_byte_order_mark_is_removed(tmp_path: Path) -> None:
    assert [("one", 1, 1, 1)] == pieces(tmp_path, b"\xef\xbb\xbfone\n")


def test_long_paragraphs_are_split_without_loss(tmp_path: Path) -> None:
    text = "\n".join(f"line {number} " + "x" * 90 for number in range(1000))
    segments = pieces(tmp_path, text)
    assert text == "\n".join(one[0] for one in segments)
    assert all(len(segment[0]) <= MAX_SEGMENT_BYTES for segment in segments)
    assert [1, *[0] * (len(segments) - 1)] == [item[3] for item in segments]
    assert [(one[1], one[2]) for one in segments][-1][1] == 1000


def test_a_long_line_keeps_its_number(tmp_path: Path) -> None:
    segments = pieces(tmp_path, "a\n\n" + "word " * 20_000)
    assert {3} == {number for segment in segments[1:] for number in segment[1:3]}
    assert "word " * 20_000 == "".join(item[0] for item in segments[1:])


@given(st.text(alphabet="ab# `\n\r=-~é\u2028", max_size=200))
def test_every_line_has_its_number(text: str) -> None:
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    segments: dict[int, str] = {}
    for segment in parse_paragraphs(iter(enumerate(lines, 1))):
        parts = segment.text.split("\n")
        assert segment.last - segment.first == len(parts) - 1
        segments |= dict(zip(range(segment.first, segment.last + 1), parts, strict=True))
    expected = {number: line for number, line in enumerate(lines, 1) if line.strip()}
    assert expected == {number: line for number, line in segments.items() if line.strip()}


@given(st.binary(max_size=300), st.integers(1, 20))
def test_blocks_of_any_size_give_the_same_lines(data: bytes, size: int) -> None:
    source = Input(name="a", sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    lines = list(files.iter_lines(source, io.BytesIO(data), max_bytes=1000))
    before = files._BLOCK
    files._BLOCK = size
    try:
        assert lines == list(files.iter_lines(source, io.BytesIO(data), max_bytes=1000))
    finally:
        files._BLOCK = before


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b"", "is empty"),
        (b"\xef\xbb\xbf \n", "is empty"),
        (b"abc\x00", "is binary (NUL byte at byte 4); only text is supported"),
        (b"x" * 300_000 + b"\x00", "is binary (NUL byte at byte 300001); only text is supported"),
        (b"one\ntwo \xe9 three", "2: is not UTF-8 (byte 9); convert it, for example with iconv -f LATIN1 -t UTF-8"),
        (b"\n" * 262_143 + b"\xc3", "262144: is not UTF-8 (its last character is incomplete); convert it"),
        ("é".encode("utf-16"), "is UTF-16 or UTF-32, not UTF-8; convert it, for example with iconv -f UTF-16"),
    ],
)
def test_invalid_text(tmp_path: Path, data: bytes, problem: str) -> None:
    path = tmp_path / "a.md"
    path.write_bytes(data)
    with pytest.raises(SourceError) as exc_info:
        read(path)
    assert problem in str(exc_info.value)
    assert str(exc_info.value).startswith("a.md:")


def test_a_character_split_between_blocks(tmp_path: Path) -> None:
    text = "x" * ((1 << 18) - 1) + "é"
    assert text == "".join(piece[0] for piece in pieces(tmp_path, text))


@pytest.mark.posix
def test_not_a_file(tmp_path: Path) -> None:
    if sys.platform == "win32":
        raise NotImplementedError
    os.mkfifo(tmp_path / "pipe")
    for name, problem in (
        ("pipe", "is not a regular file"),
        ("missing", "cannot be read: No such"),
        (".", "is a directory"),
    ):
        with pytest.raises(SourceError, match=problem):
            TextSource(tmp_path / name).prepare()


def test_appended_text_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("one\n")
    source = TextSource(path)
    source.prepare()
    with path.open("a") as file:
        file.write("\ntwo\n")
    assert ["one"] == [piece.text for piece in source.pieces() if isinstance(piece, Segment)]


@pytest.mark.parametrize("new", ["two\n", "on", ""])
def test_a_change_is_an_error(tmp_path: Path, new: str) -> None:
    path = tmp_path / "a.md"
    path.write_text("one\n")
    source = TextSource(path, name="a.md")
    source.prepare()
    path.write_text(new)
    with pytest.raises(SourceChangedError, match=r"a\.md: changed while it was read; run the command again"):
        list(source.pieces())


def test_a_change_during_the_read_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("one\n\n" * 20_000)
    source = TextSource(path)
    source.prepare()
    segments = source.pieces()
    next(segments)
    new = tmp_path / "new.md"  # as editors save
    new.write_text("two\n\n" + "one\n\n" * 19_999)
    new.rename(path)
    with pytest.raises(SourceChangedError):
        list(segments)


def test_standard_input_is_buffered() -> None:
    source = StdinSource(io.BytesIO(b"one\n\ntwo\n"))
    assert ("stdin", 9, None) == (source.prepare().name, source.prepare().size, source.path)
    for _ in range(2):
        assert ["one", "two"] == [piece.text for piece in source.pieces() if isinstance(piece, Segment)]


def test_a_large_file_is_read_as_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "large.md"
    with path.open("w") as file:
        for number in range(20_000):
            file.write(f"Paragraph {number} of a long document{', with a few words in it' * 10}.\n\n")
    source = TextSource(path)
    tracemalloc.start()
    source.prepare()
    count = sum(1 for _ in source.pieces())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 20_000 == count
    assert peak < path.stat().st_size / 2
