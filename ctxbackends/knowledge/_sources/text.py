"""Plain text and Markdown: paragraphs with their lines, headings that begin sections."""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO

from ctxbackends.knowledge._errors import SourceChangedError, SourceError
from ctxbackends.knowledge._sources.base import Input, Piece, Segment
from ctxbackends.knowledge._sources.files import FileSource, Line, scan
from ctxbackends.knowledge._sources.split import split_to_fit

MAX_SEGMENT_LINES = 200
MAX_SEGMENT_BYTES = 16_000
"""Of a segment. What is longer is cut, and goes on in the next one."""

_LONGEST_LINE = 16 << 20  # bytes; longer than any line of text, and short enough to be held
_HEADING = re.compile(r" {0,3}#{1,6}(\s|$)")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)\s*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


class TextSource(FileSource):
    """A file of plain text or Markdown, in UTF-8. ``name`` is what citations say; the path by default."""

    def prepare(self) -> Input:
        with self._open() as file:
            self._input = scan(self.name, file)
        return self._input

    def pieces(self) -> Iterator[Piece]:
        yield from parse_paragraphs(_decoded(self.name, self._lines(most=_LONGEST_LINE)))


class StdinSource(TextSource):
    """Text from a stream that can be read once, such as standard input: it is kept in a temporary file meanwhile."""

    def __init__(self, stream: IO[bytes], *, name: str = "stdin") -> None:
        super().__init__(Path(name), name=name)
        self._stream = stream
        self._file: IO[bytes] | None = None

    @property
    def path(self) -> None:
        return None

    def spool(self) -> None:
        """Read the stream to its end, which ``prepare`` does otherwise."""
        if self._file is not None:
            return
        try:
            # Without a name: it is gone with the process, whatever happens.
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  # read again by pieces()
            weakref.finalize(self, self._file.close)
            shutil.copyfileobj(self._stream, self._file)
        except OSError as error:
            raise SourceError(self.name, f"cannot be read: {error.strerror}") from None

    def _open(self) -> AbstractContextManager[IO[bytes]]:
        self.spool()
        assert self._file is not None
        self._file.seek(0)
        return nullcontext(self._file)


def _decoded(name: str, lines: Iterator[Line]) -> Iterator[tuple[int, str]]:
    for line in lines:
        if not line.is_complete:
            raise SourceError(name, f"holds a line of {line.size >> 20} MB; is it text?", line=line.number)
        try:
            yield line.number, line.data.decode()
        except UnicodeDecodeError:
            raise SourceChangedError(name, "changed while it was read; run again", line=line.number) from None


def parse_paragraphs(lines: Iterator[tuple[int, str]]) -> Iterator[Segment]:
    """Paragraphs as segments; a heading begins a section, and what follows it goes on from it. A fenced block stays
    whole up to ``MOST_LINES``."""
    block = _Block()
    for number, text in lines:
        if block.fence is not None:
            block.add(number, text)
            if text.lstrip().startswith(block.fence) and not text.strip().strip(block.fence[0]):
                block.fence = None
                yield from block.ended()
            elif block.is_full:
                yield from block.ended(goes_on=True)
            continue
        if not text.strip():
            yield from block.ended()
        elif _HEADING.match(text):
            yield from block.ended()
            block.add(number, text)
            block.heading = True
            yield from block.ended()
        elif len(block.texts) == 1 and _UNDERLINE.match(text):
            block.add(number, text)
            block.heading = True
            yield from block.ended()
        else:
            fence = _FENCE.match(text)
            if fence is not None:
                yield from block.ended()
                block.fence = fence[1][:3]
            block.add(number, text)
            if block.is_full:
                yield from block.ended(goes_on=True)
    yield from block.ended()


class _Block:
    """The lines of a segment that is not whole yet."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.heading = False
        self.fence: str | None = None
        self._first = 0
        self._size = 0
        self._starts = 1

    @property
    def is_full(self) -> bool:
        return len(self.texts) >= MAX_SEGMENT_LINES or self._size >= MAX_SEGMENT_BYTES

    def add(self, number: int, text: str) -> None:
        if not self.texts:
            self._first = number
        self.texts.append(text)
        self._size += len(text)

    def ended(self, *, goes_on: bool = False) -> Iterator[Segment]:
        """The segment, where there is one. ``goes_on``: the next one belongs to it."""
        texts, self.texts, self._size = self.texts, [], 0
        heading, self.heading = self.heading, False
        if not texts:
            return
        starts = 2 if heading else self._starts
        self._starts = 0 if heading or goes_on else 1
        if not any(text.strip() for text in texts):
            return
        whole = Segment(text="\n".join(texts), first=self._first, last=self._first + len(texts) - 1, boundary=starts)
        yield from split_to_fit(whole, MAX_SEGMENT_BYTES)
