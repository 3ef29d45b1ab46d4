"""The base class of documents: read the file, convert it, and keep the text for the next time."""

from __future__ import annotations

import io
import weakref
from collections.abc import Iterator
from typing import ClassVar

from ctxbackends.knowledge._errors import SourceChangedError, SourceError
from ctxbackends.knowledge._sources.base import Input, Piece, Segment, SkippedInput
from ctxbackends.knowledge._sources.files import FileSource, scan
from ctxbackends.knowledge._sources.split import size_of, split_to_fit
from ctxbackends.knowledge._sources.text import MAX_SEGMENT_BYTES

MAX_DOCUMENT = 256 << 20
"""Bytes. A document is converted in memory."""

MAX_KEPT_TEXT = 64 << 20
"""Bytes of converted text that all sources together keep. A run reads a source twice, and conversion is slow."""

_PIECE_OVERHEAD = 250  # bytes of memory besides the text


class DocumentSource(FileSource):
    """Base class: read the whole file, and convert it in ``_convert``."""

    format_name: ClassVar[str]

    _pieces: tuple[Piece, ...] | None = None

    def prepare(self) -> Input:
        """Read and convert the whole file; see :meth:`Source.prepare`."""
        if self._input is not None and self._is_unchanged():
            return self._input
        self._remember_state()
        data = self._read(MAX_DOCUMENT + 1)
        if data.getbuffer().nbytes > MAX_DOCUMENT:
            raise SourceError(self.name, f"is larger than {MAX_DOCUMENT >> 20} MB, the largest supported document")
        self._input = scan(self.name, data, strict=False)
        data.seek(0)
        pieces = tuple(self._convert_all(data))
        if not any(isinstance(piece, Segment) for piece in pieces):
            reasons = [piece.reason for piece in pieces if isinstance(piece, SkippedInput)]
            raise SourceError(self.name, self._no_text_message(reasons))
        self.text_size: int | None = sum(size_of(piece) for piece in pieces if isinstance(piece, Segment))
        self._pieces = pieces if _keep(self, self.text_size + _PIECE_OVERHEAD * len(pieces)) else None
        return self._input

    def pieces(self) -> Iterator[Piece]:
        """Yield the segments; see :meth:`Source.pieces`."""
        source = self._require_input()
        data = self._read(source.size)
        if scan(self.name, data, strict=False) != source:
            raise SourceChangedError(self.name, "changed while it was read; run the command again")
        data.seek(0)
        yield from self._pieces if self._pieces is not None else self._convert_all(data)

    def _read(self, size: int) -> io.BytesIO:
        try:
            with self._open() as file:
                return io.BytesIO(file.read(size))
        except OSError as error:
            raise SourceError(self.name, f"cannot be read: {error.strerror}") from None

    def _convert_all(self, data: io.BytesIO) -> Iterator[Piece]:
        """Yield the pieces, split where they are too long. Raise SourceError for an invalid file."""
        try:
            for piece in self._convert(data):
                if isinstance(piece, Segment):
                    yield from split_to_fit(piece, MAX_SEGMENT_BYTES)
                else:
                    yield piece
        except SourceError:
            raise
        except Exception as error:  # noqa: BLE001  # the libraries raise many types for an invalid file
            reason = f"cannot be read as {self.format_name}: {summarize(error)}"
            raise SourceError(self.name, reason) from None

    def _convert(self, data: io.BytesIO) -> Iterator[Piece]:
        raise NotImplementedError

    def _skip(self, reason: str) -> SkippedInput:
        return SkippedInput(source=self.name, reason=reason)

    def _no_text_message(self, reasons: list[str]) -> str:
        return f"has no text: {reasons[0]}" if reasons else "has no text"


_kept_bytes = 0


def _keep(source: DocumentSource, size: int) -> bool:
    """Return whether there is room to keep the text of a source, and reserve it until the source is deleted."""
    global _kept_bytes  # noqa: PLW0603  # the memory of the whole process is bounded
    if _kept_bytes + size > MAX_KEPT_TEXT:
        return False
    _kept_bytes += size
    weakref.finalize(source, _release, size)
    return True


def _release(size: int) -> None:
    global _kept_bytes  # noqa: PLW0603  # the memory of the whole process is bounded
    _kept_bytes -= size


def clean(text: str) -> str:
    """Return the text as valid Unicode without NUL: a broken font table yields lone surrogates."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "")


def summarize(error: Exception) -> str:
    """Return the message of a library's exception in one short line."""
    message = " ".join(str(error).split())
    return (message[:120] or type(error).__name__).rstrip(".")
