"""Read files in constant memory, and verify that they do not change meanwhile.

A file is read twice: first to reject it if it is empty, binary or not UTF-8, before anything is sent; then for its
lines. Bytes appended in between are not read, since a transcript grows while its session continues.
"""

from __future__ import annotations

import codecs
import hashlib
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, TypeAlias

import msgspec

from ctxbackends.knowledge._errors import SourceChangedError, SourceError
from ctxbackends.knowledge._records import Unit
from ctxbackends.knowledge._sources.base import Input, Piece

_BLOCK = 1 << 18
_BOM = codecs.BOM_UTF8
_OTHER_BOMS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_CONVERT = "convert it, for example with iconv -f LATIN1 -t UTF-8"


Opener: TypeAlias = Callable[[], AbstractContextManager[IO[bytes]]]


class Line(msgspec.Struct, frozen=True):
    """One line of a file.

    Attributes:
        number: Its number, from 1.
        data: Its bytes without the line end.
        size: Its length in bytes.
        is_complete: False if the line was too long and ``data`` has only its beginning.
    """

    number: int
    data: bytes
    size: int
    is_complete: bool = True


class FileSource:
    """Base class of the sources that read a file.

    Args:
        path: The file.
        name: The name in citations; the path by default.
        opener: Opens the bytes at their beginning, if they are not in a file.

    Attributes:
        text_size: Bytes of the text; None before ``prepare``.
    """

    unit: Unit = "line"

    def __init__(
        self,
        path: Path,
        *,
        name: str | None = None,
        opener: Opener | None = None,
    ) -> None:
        self.name: str = name or str(path)
        self.text_size: int | None = None
        self._path = path
        self._opener = opener
        self._input: Input | None = None
        self._state: tuple[int, ...] | None = None

    @property
    def path(self) -> Path | None:
        """The file; None if the bytes are not in a file."""
        return self._path if self._opener is None else None

    def prepare(self) -> Input:
        """Read the whole file; see :meth:`Source.prepare`."""
        raise NotImplementedError

    def pieces(self) -> Iterator[Piece]:
        """Yield the segments; see :meth:`Source.pieces`."""
        raise NotImplementedError

    def _open(self) -> AbstractContextManager[IO[bytes]]:
        return self._opener() if self._opener is not None else open_file(self.name, self._path)

    def _remember_state(self) -> None:
        self._state = self._read_state()

    def _is_unchanged(self) -> bool:
        """Whether the file looks as it did at ``_remember_state``, so that it need not be read again.

        ``pieces`` compares the bytes in any case.
        """
        return self._state == self._read_state()

    def _read_state(self) -> tuple[int, ...] | None:
        if self._opener is not None:
            return None
        try:
            state = os.stat(self._path)
        except (OSError, ValueError):
            return ()
        return (state.st_size, state.st_mtime_ns, state.st_ino, state.st_dev)

    def _lines(self, *, max_bytes: int) -> Iterator[Line]:
        """Yield the lines, then verify that the file has not changed."""
        source = self._require_input()
        with self._open() as file:
            yield from iter_lines(source, file, max_bytes=max_bytes)
        with self._open() as file:
            verify_unchanged(source, file)

    def _require_input(self) -> Input:
        assert self._input is not None, "call prepare() first"
        return self._input


def open_file(name: str, path: Path) -> IO[bytes]:
    """Open a regular file for reading.

    Raises:
        SourceError: It does not exist, cannot be read, or is not a regular file.
    """
    try:
        mode = os.stat(path).st_mode  # before opening, since opening a pipe waits for its writer
        if stat.S_ISDIR(mode):
            raise SourceError(name, "is a directory")
        if not stat.S_ISREG(mode):
            raise SourceError(name, "is not a regular file")
        return open(path, "rb")
    except OSError as error:
        raise SourceError(name, f"cannot be read: {error.strerror}") from None
    except ValueError:  # a NUL in the path
        raise SourceError(name, "is not a valid path") from None


def scan(name: str, file: IO[bytes], *, strict: bool = True) -> Input:
    """Read a file once and return its size and hash.

    Args:
        name: The name in errors.
        file: The file, at its beginning.
        strict: Whether it must be UTF-8 text.

    Raises:
        SourceError: It is empty; with ``strict``, also if it is binary or not UTF-8.
    """
    digest, size, lines, blank = hashlib.sha256(), 0, 0, True
    decoder = codecs.getincrementaldecoder("utf-8")("strict")
    while block := _read(name, file):
        if not size and block.startswith(_OTHER_BOMS):
            raise SourceError(name, f"is UTF-16 or UTF-32, not UTF-8; {_CONVERT.replace('LATIN1', 'UTF-16')}")
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
            raise SourceError(
                name, f"is not UTF-8 (its last character is incomplete); {_CONVERT}", line=lines + 1
            ) from None
    if blank:
        raise SourceError(name, "is empty")
    return Input(name=name, sha256=digest.hexdigest(), size=size)


def _check(name: str, block: bytes, decoder: codecs.IncrementalDecoder, *, at: int, lines: int) -> None:
    zero = block.find(b"\0")
    if zero >= 0:
        raise SourceError(name, f"is binary (NUL byte at byte {at + zero + 1}); only text is supported")
    pending = len(decoder.getstate()[0])  # bytes of a character that began in the last block
    try:
        decoder.decode(block)
    except UnicodeDecodeError as error:
        start = error.start - pending
        position, line = at + start + 1, lines + block.count(b"\n", 0, max(0, start)) + 1
        raise SourceError(name, f"is not UTF-8 (byte {position}); {_CONVERT}", line=line) from None


def _read(name: str, file: IO[bytes]) -> bytes:
    try:
        return file.read(_BLOCK)
    except OSError as error:
        raise SourceError(name, f"cannot be read: {error.strerror}") from None


def iter_lines(source: Input, file: IO[bytes], *, max_bytes: int) -> Iterator[Line]:
    """Yield the lines (ended by LF, CRLF or CR) of the first ``source.size`` bytes.

    A line of more than ``max_bytes`` bytes is truncated.

    Raises:
        SourceChangedError: The bytes differ from those that ``source`` describes; raised at the end.
    """
    digest, left, number = hashlib.sha256(), source.size, 1
    partial, dropped, after_cr = b"", 0, False
    while left > 0:
        block = _read(source.name, file)[:left]
        if not block:
            break
        digest.update(block)
        text = block.removeprefix(_BOM) if left == source.size else block
        left -= len(block)
        if after_cr and text.startswith(b"\n"):  # a CRLF split between two blocks
            text = text[1:]
        after_cr = block.endswith(b"\r")
        if b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        *ended, rest = text.split(b"\n")
        for data in ended:
            if dropped:
                yield _line(number, partial, dropped + len(data), max_bytes)
            else:
                yield _line(number, partial + data, 0, max_bytes)
            partial, dropped, number = b"", 0, number + 1
        room = max(0, max_bytes - len(partial))
        partial += rest[:room]
        dropped += len(rest) - len(rest[:room])  # the rest of a line that is too long is only counted
    if left or digest.hexdigest() != source.sha256:
        raise SourceChangedError(source.name, "changed while it was read; run the command again")
    if partial or dropped:
        yield _line(number, partial, dropped, max_bytes)


def verify_unchanged(source: Input, file: IO[bytes]) -> None:
    """Verify that the file still begins with the bytes that ``source`` describes.

    Args:
        source: The size and hash.
        file: The file, opened again, since another file may have replaced it.

    Raises:
        SourceChangedError: The bytes differ.
    """
    if not begins_with(source, file):
        raise SourceChangedError(source.name, "changed while it was read; run the command again")


def begins_with(source: Input, file: IO[bytes]) -> bool:
    """Return whether the file begins with the bytes that ``source`` describes."""
    digest, left = hashlib.sha256(), source.size
    while left > 0 and (block := _read(source.name, file)[:left]):
        digest.update(block)
        left -= len(block)
    return not left and digest.hexdigest() == source.sha256


def _line(number: int, data: bytes, dropped: int, max_bytes: int) -> Line:
    size = len(data) + dropped
    return Line(number, data[:max_bytes], size, size <= max_bytes)
