"""The lines, records and JSON values of one transcript, each with its line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import IO, Any

import msgspec

from ctxbackends.knowledge._sources.base import Input, Piece, SkippedInput
from ctxbackends.knowledge._sources.files import Line, Opener, iter_lines, verify_unchanged
from ctxbackends.knowledge._sources.transcripts.json_values import Value, iter_values
from ctxbackends.knowledge._sources.transcripts.passages import InvalidRecordError, Object, Passages

MAX_LINE = 8 << 20
"""Bytes. Longer lines are skipped; they contain images and whole files."""

BOM_AND_SPACE = b"\xef\xbb\xbf \t\r\n"
"""Bytes that may precede a JSON document."""

_BLOCK = 1 << 18
_START = 4096  # bytes


class Feed:
    """Reads one file, as often as a reader needs it.

    Args:
        source: The state of the file at the start of the run.
        opener: Opens the file at its beginning.
    """

    def __init__(self, source: Input, opener: Opener) -> None:
        self.name = source.name
        self._source = source
        self._open = opener

    def lines(self) -> Iterator[Line]:
        """Yield the lines, then verify that the file has not changed."""
        with self._open() as file:
            yield from iter_lines(self._source, file, max_bytes=MAX_LINE)
        self._verify()

    def records(self) -> Iterator[tuple[Line, Object] | SkippedInput]:
        """Yield the objects of JSON lines; invalid and long lines are skipped input."""
        invalid: SkippedInput | None = None
        for line in self.lines():
            if invalid is not None:
                yield invalid
                invalid = None
            if not line.is_complete:
                size = f"{line.size / (1 << 20):.1f} MB"
                yield self._skip(line, f"has {size}; lines of more than {MAX_LINE >> 20} MB are skipped")
            elif line.data.strip():
                try:
                    yield line, decode_object(line.data)
                except InvalidRecordError as error:
                    invalid = self._skip(line, str(error))  # kept: the reason differs for the last line
        if invalid is not None and invalid.reason == _INVALID:
            reason = "is incomplete; if the session is still being written, run the command again later"
            invalid = msgspec.structs.replace(invalid, reason=reason)
        if invalid is not None:
            yield invalid

    def values(self, depth: int) -> Iterator[Value]:
        """Yield the objects that are inside of ``depth`` others of one JSON document."""
        with self._open() as file:
            yield from iter_values(_read_blocks(file, self._source.size), depth)
        self._verify()

    def is_list(self) -> bool:
        """Return whether the file begins as a JSON list."""
        return self.head(_START).lstrip(BOM_AND_SPACE).startswith(b"[")

    def head(self, size: int) -> bytes:
        """Return the first bytes of the file."""
        with self._open() as file:
            return file.read(min(size, self._source.size))

    def _verify(self) -> None:
        with self._open() as file:
            verify_unchanged(self._source, file)

    def _skip(self, line: Line, reason: str) -> SkippedInput:
        return SkippedInput(source=self.name, line=line.number, reason=reason)


def read_records(feed: Feed, passages: Passages, read: Callable[[Object, int], Iterator[Piece]]) -> Iterator[Piece]:
    """Yield the pieces of JSON lines, then the counts of what was left out.

    Args:
        feed: The lines.
        passages: The passages.
        read: Returns the pieces of a record and its line. A record that it cannot read is skipped input.
    """
    for record in feed.records():
        if isinstance(record, SkippedInput):
            yield record
            continue
        line, value = record
        try:
            pieces = list(read(value, line.number))
        except (InvalidRecordError, RecursionError) as error:
            pieces = [passages.skip(line.number, str(error) or "is nested too deeply")]
        yield from pieces
    yield from passages.summarize()


_INVALID = "is not valid JSON"


def decode_object(data: bytes) -> Object:
    """Decode a JSON object. Raise InvalidRecordError if it is none."""
    try:
        value: Any = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise InvalidRecordError(_INVALID) from None
    if not isinstance(value, dict):
        raise InvalidRecordError("is not a JSON object")
    return value


def find_object(data: bytes) -> Object | None:
    """Return the JSON object, None if the bytes are none."""
    try:
        return decode_object(data)
    except InvalidRecordError:
        return None


def _read_blocks(file: IO[bytes], left: int) -> Iterator[bytes]:
    while left > 0 and (block := file.read(min(_BLOCK, left))):
        left -= len(block)
        yield block
