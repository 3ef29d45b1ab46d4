"""Plain text and Markdown, split into paragraphs and headings."""

from __future__ import annotations

import re
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import IO, ClassVar

import msgspec

from ctxbackends._util.text import pluralize
from ctxbackends.knowledge._errors import SourceChangedError, SourceError
from ctxbackends.knowledge._sources.base import Input, Piece, Segment, SkippedInput
from ctxbackends.knowledge._sources.files import FileSource, Line, scan
from ctxbackends.knowledge._sources.split import size_of, split_to_fit

MAX_SEGMENT_LINES = 200
MAX_SEGMENT_BYTES = 16_000
"""Limits of a segment; a longer block continues in the next segment."""

_MAX_LINE = 16 << 20  # bytes; no line of text is longer, and this still fits in memory
_IMAGE_DATA = re.compile(r"(?<=;base64,)[A-Za-z0-9+/=\s]{200,}")


class Markup(msgspec.Struct, frozen=True, kw_only=True):
    """The headings and verbatim blocks of a markup language.

    Attributes:
        heading: A heading of one line.
        underline: The line below a heading of two lines, and in some languages above it.
        underline_slack: How many characters an underline may be longer or shorter than its title; None for any number.
        fence: The line before a verbatim block.
        fence_end: The line after it; None if it is the opening line again, or longer.
    """

    heading: re.Pattern[str]
    underline: re.Pattern[str] | None = None
    underline_slack: int | None = None
    fence: re.Pattern[str] | None = None
    fence_end: re.Pattern[str] | None = None

    def is_underline(self, title: str, line: str) -> bool:
        """Whether a line is the underline of a title."""
        if self.underline is None or not self.underline.match(line):
            return False
        return self.underline_slack is None or abs(len(title.strip()) - len(line.strip())) <= self.underline_slack

    def ends(self, opening: str, line: str) -> bool:
        """Whether a line ends the verbatim block that the opening line began."""
        if self.fence_end is not None:
            return self.fence_end.match(line) is not None
        text = line.strip()
        return text.startswith(opening) and not text.strip(opening[0])


MARKDOWN = Markup(
    heading=re.compile(r" {0,3}#{1,6}(\s|$)"),
    underline=re.compile(r" {0,3}(=+|-+)\s*$"),
    fence=re.compile(r" {0,3}(`{3,}|~{3,})"),
)
RESTRUCTURED_TEXT = Markup(
    heading=re.compile(r"(?!)"), underline=re.compile(r"([-=`:.'\"~^_*+#!$%&,/;<>?@|\\])\1{2,}\s*$")
)
ASCIIDOC = Markup(
    heading=re.compile(r"(={1,6}|#{1,6})[ \t]+\S"),
    underline=re.compile(r"([-=~^+])\1{2,}\s*$"),
    underline_slack=1,  # another length begins a listing or an example
    fence=re.compile(r"(-{4,}|\.{4,}|\+{4,}|`{3,}|/{4,})\s*$"),
)
ORG = Markup(
    heading=re.compile(r"(\*+[ \t]|#\+title:)", re.IGNORECASE),
    fence=re.compile(r"\s*(#\+begin_\w+)", re.IGNORECASE),
    fence_end=re.compile(r"\s*#\+end_", re.IGNORECASE),
)


class TextSource(FileSource):
    """A file of plain text, Markdown or another markup language, in UTF-8. Places are lines.

    Args:
        path: The file.
        name: The name in citations; the path by default.
        opener: Opens the bytes at their beginning, if they are not in a file.
    """

    markup: ClassVar[Markup] = MARKDOWN

    def prepare(self) -> Input:
        """Read the whole file; see :meth:`Source.prepare`."""
        if self._input is not None and self._is_unchanged():
            return self._input
        self._remember_state()
        with self._open() as file:
            self._input = scan(self.name, file)
        self.text_size: int | None = sum(size_of(piece) for piece in self.pieces() if isinstance(piece, Segment))
        return self._input

    def pieces(self) -> Iterator[Piece]:
        """Yield the segments; see :meth:`Source.pieces`."""
        images = 0

        def leave_out(lines: Iterator[tuple[int, str]]) -> Iterator[tuple[int, str]]:
            nonlocal images
            for number, text in lines:
                if ";base64," in text:
                    text, count = leave_out_images(text)
                    images += count
                yield number, text

        lines = _decode_lines(self.name, self._lines(max_bytes=_MAX_LINE))
        yield from parse_paragraphs(leave_out(lines), self.markup)
        if images:
            yield SkippedInput(source=self.name, reason=f"{pluralize(images, 'embedded image')} left out")


class RSTSource(TextSource):
    """A reStructuredText file. Places are lines."""

    markup = RESTRUCTURED_TEXT


class AsciiDocSource(TextSource):
    """An AsciiDoc file. Places are lines."""

    markup = ASCIIDOC


class OrgSource(TextSource):
    """An Org file. Places are lines."""

    markup = ORG


def leave_out_images(text: str) -> tuple[str, int]:
    """Return the text without the data of embedded images, with its line ends, and the number of images."""
    return _IMAGE_DATA.subn(lambda match: "[...]" + "\n" * match[0].count("\n"), text)


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

    def open(self) -> AbstractContextManager[IO[bytes]]:
        """Return the bytes at their beginning, as the ``opener`` of a source of another format."""
        self.spool()
        assert self._file is not None
        self._file.seek(0)
        return nullcontext(self._file)

    def _open(self) -> AbstractContextManager[IO[bytes]]:
        return self.open()


def _decode_lines(name: str, lines: Iterator[Line]) -> Iterator[tuple[int, str]]:
    for line in lines:
        if not line.is_complete:
            raise SourceError(name, f"has a line of {line.size >> 20} MB; only text is supported", line=line.number)
        try:
            yield line.number, line.data.decode()
        except UnicodeDecodeError:
            raise SourceChangedError(name, "changed while it was read; run again", line=line.number) from None


def parse_paragraphs(lines: Iterable[tuple[int, str]], markup: Markup = MARKDOWN) -> Iterator[Segment]:
    """Yield a segment for each paragraph, heading and verbatim block; of a long block, for ``MAX_SEGMENT_LINES``."""
    block = _Block()
    for number, text in lines:
        if block.fence is not None:
            block.add(number, text)
            if markup.ends(block.fence, text):
                block.fence = None
                yield from block.flush()
            elif block.is_full:
                yield from block.flush(continues=True)
            continue
        if not text.strip():
            yield from block.flush()
        elif markup.heading.match(text):
            yield from block.flush()
            block.add(number, text)
            block.heading = True
            yield from block.flush()
        elif block.is_title(markup, text):
            block.add(number, text)
            block.heading = True
            yield from block.flush()
        else:
            fence = markup.fence.match(text) if markup.fence is not None else None
            if fence is not None:
                yield from block.flush()
                block.fence = fence[1]
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

    def is_title(self, markup: Markup, line: str) -> bool:
        """Whether the block is a title that this line underlines, possibly with the same line above it."""
        if len(self.texts) == 1:
            return markup.is_underline(self.texts[0], line) and not markup.is_underline(self.texts[0], self.texts[0])
        has_overline = len(self.texts) == 2 and self.texts[0].strip() == line.strip()
        return has_overline and markup.is_underline(self.texts[1], line)

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
