"""Find the objects at one depth of a JSON document, with their lines, in constant memory."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator

import msgspec

MAX_VALUE = 64 << 20
"""Bytes. A larger value is given without its data."""

_MARKS = re.compile(rb'["{}\[\]]')
_STRING = re.compile(rb'[^"\\]*(?:\\.[^"\\]*)*', re.DOTALL)  # up to the end of a string, or of the block


class Value(msgspec.Struct, frozen=True):
    """An object of a document.

    Attributes:
        line: Its first line, from 1.
        data: Its bytes; empty if it is too large.
        size: Its size in bytes.
    """

    line: int
    data: bytes
    size: int

    def line_of(self, text: str) -> int:
        """Return the line of a string in the object; the object's first line if it is not found."""
        head = text[:60]
        for escaped in (msgspec.json.encode(head)[1:-1], _escape_ascii(head)):
            at = self.data.find(escaped)
            if at >= 0:
                return self.line + self.data.count(b"\n", 0, at)
        return self.line


def _escape_ascii(text: str) -> bytes:
    return json.dumps(text)[1:-1].encode()


def iter_values(blocks: Iterable[bytes], depth: int) -> Iterator[Value]:
    """Yield the objects inside of ``depth`` others.

    Args:
        blocks: The document in blocks.
        depth: How many objects and lists the objects are in.
    """
    scanner = _Scanner(depth)
    for block in blocks:
        yield from scanner.feed(block)


class _Scanner:
    def __init__(self, depth: int) -> None:
        self._target = depth
        self._depth = 0
        self._in_string = False
        self._escaped = False  # the last block ended with a backslash in a string
        self._line = 1
        self._parts: list[bytes] | None = None  # of the value that has begun
        self._size = 0
        self._start_line = 0

    def feed(self, block: bytes) -> Iterator[Value]:
        at, start = 0, 0  # start: of what is not in a value's parts yet
        if self._escaped:
            at, self._escaped = 1, False
        while at < len(block):
            if self._in_string:
                at = self._skip_string(block, at)
                continue
            mark = _MARKS.search(block, at)
            if mark is None:
                break
            at = mark.end()
            sign = mark[0]
            if sign == b'"':
                self._in_string = True
            elif sign in b"{[":
                if self._depth == self._target and sign == b"{":
                    self._line += block.count(b"\n", start, mark.start())
                    start = mark.start()
                    self._parts, self._size, self._start_line = [], 0, self._line
                self._depth += 1
            else:
                self._depth -= 1
                if self._depth == self._target and self._parts is not None:
                    self._keep(block[start:at])
                    self._line += block.count(b"\n", start, at)
                    start = at
                    data = b"".join(self._parts) if self._size <= MAX_VALUE else b""
                    self._parts = None
                    yield Value(self._start_line, data, self._size)
        if self._parts is not None:
            self._keep(block[start:])
        self._line += block.count(b"\n", start)

    def _skip_string(self, block: bytes, at: int) -> int:
        match = _STRING.match(block, at)
        assert match is not None
        end = match.end()
        if end < len(block) and block[end : end + 1] == b'"':
            self._in_string = False
            return end + 1
        self._escaped = end < len(block)  # a backslash at the end of the block
        return len(block)

    def _keep(self, data: bytes) -> None:
        assert self._parts is not None
        self._size += len(data)
        if self._size <= MAX_VALUE:
            self._parts.append(data)
        else:
            self._parts.clear()
