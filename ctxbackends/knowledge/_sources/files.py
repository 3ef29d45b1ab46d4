"""Bytes of a file to lines of text: read twice, in constant memory, and held to be the same bytes both times. Knows no
format.

The first time tells what the file is (empty, binary, no UTF-8) before anything is sent; the second gives its lines.
What is appended between the two is not read, since transcripts grow while their session goes on.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import stat
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO

import msgspec

from ctxbackends.knowledge._errors import SourceChangedError, SourceError
from ctxbackends.knowledge._records import Unit
from ctxbackends.knowledge._sources.base import Input

_BLOCK = 1 << 18
_BOM = codecs.BOM_UTF8
_OTHER_BOMS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_CONVERT = "convert it, for example with iconv -f LATIN1 -t UTF-8"


class Line(msgspec.Struct, frozen=True):
    """One line: its number from 1, and its bytes without the line end. ``whole`` is False where it was longer than what
    is read of a line; ``size`` is its length in bytes then."""

    number: int
    data: bytes
    size: int
    is_complete: bool = True


class FileSource:
    """What the sources of files have in common. ``name`` is what citations say; the path by default."""

    unit: Unit = "line"

    def __init__(self, path: Path, *, name: str | None = None) -> None:
        self.name = name or str(path)
        self._path = path
        self._input: Input | None = None

    @property
    def path(self) -> Path | None:
        return self._path

    def _open(self) -> AbstractContextManager[IO[bytes]]:
        return open_file(self.name, self._path)

    def _lines(self, *, most: int) -> Iterator[Line]:
        """The lines, as :func:`lines_of` gives them, and a look afterwards whether the file is still the same."""
        source = self._prepared()
        with self._open() as file:
            yield from iter_lines(source, file, most=most)
        with self._open() as file:
            verify_unchanged(source, file)

    def _prepared(self) -> Input:
        assert self._input is not None, "prepare() comes first"
        return self._input


def open_file(name: str, path: Path) -> IO[bytes]:
    """The file. Raises SourceError where there is none that can be read."""
    try:
        mode = os.stat(path).st_mode  # looked at first, since opening a pipe waits for its writer
        if stat.S_ISDIR(mode):
            raise SourceError(name, "is a directory")
        if not stat.S_ISREG(mode):
            raise SourceError(name, "is no regular file")
        return open(path, "rb")
    except OSError as error:
        raise SourceError(name, f"cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL in the path
        raise SourceError(name, "is no path of a file") from None


def scan(name: str, file: IO[bytes], *, strict: bool = True) -> Input:
    """Read all of it once. ``strict``: it must be UTF-8 text; else its bytes are only counted, and may not be none.
    Raises SourceError."""
    digest, size, lines, blank = hashlib.sha256(), 0, 0, True
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    while block := _read(name, file):
        if not size and block.startswith(_OTHER_BOMS):
            raise SourceError(name, f"is UTF-16 or UTF-32, and not UTF-8; {_CONVERT.replace('LATIN1', 'UTF-16')}")
        digest.update(block)
        if strict:
            _check(name, block, decoder, at=size, lines=lines)
            lines += block.count(b"\n")
        blank = blank and not block.removeprefix(_BOM).strip()
        size += len(block)
    if strict:
        try:
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            raise SourceError(name, f"is not UTF-8 (its last character is cut); {_CONVERT}", line=lines + 1) from None
    if blank:
        raise SourceError(name, "is empty")
    return Input(name=name, sha256=digest.hexdigest(), size=size)


def _check(name: str, block: bytes, decoder: codecs.IncrementalDecoder, *, at: int, lines: int) -> None:
    zero = block.find(b"\0")
    if zero >= 0:
        raise SourceError(name, f"is binary (a NUL byte at byte {at + zero + 1}); only text can be read")
    pending = len(decoder.getstate()[0])  # of a character that the last block began
    try:
        decoder.decode(block)
    except UnicodeDecodeError as error:
        start = error.start - pending
        place, line = at + start + 1, lines + block.count(b"\n", 0, max(0, start)) + 1
        raise SourceError(name, f"is not UTF-8 (byte {place}); {_CONVERT}", line=line) from None


def _read(name: str, file: IO[bytes]) -> bytes:
    try:
        return file.read(_BLOCK)
    except OSError as error:
        raise SourceError(name, f"cannot be read: {error.strerror}") from None


def iter_lines(source: Input, file: IO[bytes], *, most: int) -> Iterator[Line]:
    """The lines, ended by LF, CRLF or CR, of the bytes that ``source`` tells of. Of a line that is longer than ``most``
    bytes only its beginning comes. Raises SourceChangedError, at the end, where the bytes are others now."""
    digest, left, number = hashlib.sha256(), source.size, 1
    held, dropped, after_cr = b"", 0, False
    while left > 0:
        block = _read(source.name, file)[:left]
        if not block:
            break
        digest.update(block)
        text = block.removeprefix(_BOM) if left == source.size else block
        left -= len(block)
        if after_cr and text.startswith(b"\n"):  # a CRLF that two blocks share
            text = text[1:]
        after_cr = block.endswith(b"\r")
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *ended, rest = text.split(b"\n")
        for data in ended:
            if dropped:
                yield _line(number, held, dropped + len(data), most)
            else:
                yield _line(number, held + data, 0, most)
            held, dropped, number = b"", 0, number + 1
        room = max(0, most - len(held))
        held += rest[:room]
        dropped += len(rest) - len(rest[:room])  # of a line that is too long: counted and not kept
    if left or digest.hexdigest() != source.sha256:
        raise SourceChangedError(source.name, "changed while it was read; run again")
    if held or dropped:
        yield _line(number, held, dropped, most)


def verify_unchanged(source: Input, file: IO[bytes]) -> None:
    """Raise SourceChangedError where ``file``, opened anew, does not begin with the bytes that were read: somebody
    wrote over what had been read already, or put another file in its place."""
    digest, left = hashlib.sha256(), source.size
    while left > 0 and (block := _read(source.name, file)[:left]):
        digest.update(block)
        left -= len(block)
    if left or digest.hexdigest() != source.sha256:
        raise SourceChangedError(source.name, "changed while it was read; run again")


def _line(number: int, data: bytes, dropped: int, most: int) -> Line:
    size = len(data) + dropped
    return Line(number, data[:most], size, size <= most)
