"""Plain text and Markdown, split into paragraphs and headings."""

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
"""Limits of a segment; a longer block continues in the next segment."""

_MAX_LINE = 16 << 20  # bytes; no line of text is longer, and this still fits in memory
_HEADING = re.compile(r" {0,3}#{1,6}(\s|$)")
_UNDERLINE = re.compile(r" {0,3}(=+|-+)\s*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")


class TextSource(FileSource):
    """A file of plain text or Markdown, in UTF-8. Places are lines.

    Args:
        path: The file.
        name: The name in citations; the path by default.
    """

    def prepare(self) -> Input:
        """Read the file once; see :meth:`Source.prepare`."""
        with self._open() as file:
            self._input = scan(self.name, file)
        return self._input

    def pieces(self) -> Iterator[Piece]:
        """Yield the segments; see :meth:`Source.pieces`."""
        yield from parse_paragraphs(_decode_lines(self.name, self._lines(max_bytes=_MAX_LINE)))


class StdinSource(TextSource):
    """Text from a stream, such as standard input, buffered in a temporary file.

    Args:
        stream: The stream; it is read once, to its end.
        name: The name in citations.
    """

    def __init__(self, stream: IO[bytes], *, name: str = "stdin") -> None:
        super().__init__(Path(name), name=name)
        self._stream = stream
        self._file: IO[bytes] | None = None

    @property
    def path(self) -> None:
        """None: the source is not a file."""
        return None

    def spool(self) -> None:
        """Read the stream to its end. ``prepare`` does it otherwise.

        Raises:
            SourceError: The stream cannot be read, or the temporary file cannot be written.
        """
        if self._file is not None:
            return
        try:
            # It has no name, so it is removed when the process ends in any way.
            self._file = tempfile.TemporaryFile()  # noqa: SIM115  # pieces() reads it again
            weakref.finalize(self, self._file.close)
            shutil.copyfileobj(self._stream, self._file)
        except OSError as error:
            raise SourceError(self.name, f"cannot be read: {error.strerror}") from None

    def _open(self) -> AbstractContextManager[IO[bytes]]:
        self.spool()
        assert self._file is not None
        self._file.seek(0)
        return nullcontext(self._file)


def _decode_lines(name: str, lines: Iterator[Line]) -> Iterator[tuple[int, str]]:
    for line in lines:
        if not line.is_complete:
            raise SourceError(name, f"has a line of {line.size >> 20} MB; only text is supported", line=line.number)
        try:
            yield line.number, line.data.decode()
        except UnicodeDecodeError:
            raise SourceChangedError(name, "changed while it was read; run again", line=line.number) from None


def parse_paragraphs(lines: Iterator[tuple[int, str]]) -> Iterator[Segment]:
    """Yield a segment for each paragraph and heading. A fenced block of up to ``MAX_SEGMENT_LINES`` is one segment."""
    block = _Block()
    for number, text in lines:
        if block.fence is not None:
            block.add(number, text)
            if text.lstrip().startswith(block.fence) and not text.strip().strip(block.fence[0]):
                block.fence = None
                yield from block.flush()
            elif block.is_full:
                yield from block.flush(continues=True)
            continue
        if not text.strip():
            yield from block.flush()
        elif _HEADING.match(text):
            yield from block.flush()
            block.add(number, text)
            block.heading = True
            yield from block.flush()
        elif len(block.texts) == 1 and _UNDERLINE.match(text):
            block.add(number, text)
            block.heading = True
            yield from block.flush()
        else:
            fence = _FENCE.match(text)
            if fence is not None:
                yield from block.flush()
                block.fence = fence[1][:3]
            block.add(number, text)
            if block.is_full:
                yield from block.flush(continues=True)
    yield from block.flush()


class _Block:
    """The lines of an unfinished segment."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.heading = False
        self.fence: str | None = None
        self._first = 0
        self._size = 0
        self._boundary = 1

    @property
    def is_full(self) -> bool:
        return len(self.texts) >= MAX_SEGMENT_LINES or self._size >= MAX_SEGMENT_BYTES

    def add(self, number: int, text: str) -> None:
        if not self.texts:
            self._first = number
        self.texts.append(text)
        self._size += len(text)

    def flush(self, *, continues: bool = False) -> Iterator[Segment]:
        """Yield the segment, if there is one. ``continues``: the next segment continues it."""
        texts, self.texts, self._size = self.texts, [], 0
        heading, self.heading = self.heading, False
        if not texts:
            return
        boundary = 2 if heading else self._boundary
        self._boundary = 0 if heading or continues else 1
        if not any(text.strip() for text in texts):
            return
        whole = Segment(text="\n".join(texts), first=self._first, last=self._first + len(texts) - 1, boundary=boundary)
        yield from split_to_fit(whole, MAX_SEGMENT_BYTES)
