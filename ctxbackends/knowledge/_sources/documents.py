"""PDF and DOCX, pages and paragraphs as segments. The converters, pypdf and python-docx, come with an extra."""

from __future__ import annotations

import io
import logging
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

from ctxbackends.knowledge._errors import SourceChangedError, SourceError
from ctxbackends.knowledge._records import Unit
from ctxbackends.knowledge._sources.base import Input, Piece, Segment, SkippedInput
from ctxbackends.knowledge._sources.files import FileSource, scan
from ctxbackends.knowledge._sources.split import split_to_fit
from ctxbackends.knowledge._sources.text import MAX_SEGMENT_BYTES

MAX_DOCUMENT = 256 << 20
"""Bytes. The converters hold a document in memory."""


class _DocumentSource(FileSource):
    """What both have in common: the bytes are read whole, and converted when they are asked for."""

    def __init__(self, path: Path, *, name: str | None = None) -> None:
        super().__init__(path, name=name)
        self._kept: tuple[Input, tuple[Piece, ...]] | None = None

    def prepare(self) -> Input:
        with self._open() as file:
            self._input = scan(self.name, file, strict=False)
        if self._input.size > MAX_DOCUMENT:
            raise SourceError(self.name, f"is larger than {MAX_DOCUMENT >> 20} MB, which is the most that is converted")
        if not any(isinstance(piece, Segment) for piece in self.pieces()):
            raise SourceError(self.name, self._without_text())
        return self._input

    def pieces(self) -> Iterator[Piece]:
        source = self._prepared()
        with self._open() as file:
            data = file.read(source.size)
        if scan(self.name, io.BytesIO(data), strict=False) != source:
            raise SourceChangedError(self.name, "changed while it was read; run again")
        # Converting takes a while, and a run goes over a source several times; its text is a small part of a document.
        if self._kept is None or self._kept[0] != source:
            found = []
            for piece in self._converted(io.BytesIO(data)):
                found.append(piece)
                yield piece
            self._kept = (source, tuple(found))
        else:
            yield from self._kept[1]

    def _converted(self, data: io.BytesIO) -> Iterator[Piece]:
        raise NotImplementedError

    def _without_text(self) -> str:
        return "holds no text"

    def _library(self, module: str) -> Any:
        try:
            return import_module(module)
        except ImportError:
            raise SourceError(self.name, f"needs {module} to be read: pip install 'ctxbackends[documents]'") from None


class PDFSource(_DocumentSource):
    """A PDF file; places are pages."""

    unit: Unit = "page"

    def _without_text(self) -> str:
        return "has no text; if it is a scan, recognise its text first, for example with ocrmypdf"

    def _converted(self, data: io.BytesIO) -> Iterator[Piece]:
        pypdf = self._library("pypdf")
        with _quiet("pypdf"), self._readable():
            reader = pypdf.PdfReader(data)
            if reader.is_encrypted and not reader.decrypt(""):
                raise SourceError(self.name, "is encrypted; save it without a password first")
            count = len(reader.pages)
        for number in range(1, count + 1):
            with _quiet("pypdf"), self._readable(f"page {number}: "):
                text = reader.pages[number - 1].extract_text().strip()
            if text:
                page = Segment(text=_clean(text), first=number, last=number)
                yield from split_to_fit(page, MAX_SEGMENT_BYTES)
            else:
                yield SkippedInput(source=self.name, reason=f"page {number} has no text")

    @contextmanager
    def _readable(self, place: str = "") -> Iterator[None]:
        """pypdf raises what it comes across, of many kinds, for a file that is no good PDF."""
        try:
            yield
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(self.name, f"{place}cannot be read as PDF: {_short(error)}") from None


class DOCXSource(_DocumentSource):
    """A Word document; places are paragraphs, in which a row of a table counts as one."""

    unit: Unit = "paragraph"

    def _converted(self, data: io.BytesIO) -> Iterator[Piece]:
        docx = self._library("docx")
        if not zipfile.is_zipfile(data):
            raise SourceError(self.name, "cannot be read as DOCX: it is no zip archive; is it an old .doc?")
        data.seek(0)
        after_heading = False
        for number, (text, heading) in enumerate(self._blocks(docx, data), 1):
            if not text.strip():
                continue
            starts = 2 if heading else 0 if after_heading else 1
            after_heading = heading
            yield from split_to_fit(
                Segment(text=_clean(text), first=number, last=number, boundary=starts), MAX_SEGMENT_BYTES
            )

    def _blocks(self, docx: Any, data: io.BytesIO) -> Iterator[tuple[str, bool]]:
        """The text of each paragraph and table row in the order of the document, and whether it is a heading."""
        try:
            for block in docx.Document(data).iter_inner_content():
                if hasattr(block, "rows"):
                    for row in block.rows:
                        # A cell that spans several columns comes once for each.
                        cells = list(dict.fromkeys(cell.text.strip() for cell in row.cells))
                        yield " | ".join(cell for cell in cells if cell), False
                else:
                    style = block.style.name if block.style is not None else ""
                    yield block.text, style.startswith(("Heading", "Title"))
        except Exception as error:  # python-docx raises what it comes across, of many kinds
            raise SourceError(self.name, f"cannot be read as DOCX: {_short(error)}") from None


def _clean(text: str) -> str:
    # What a broken font table makes is no Unicode; such a character cannot be sent.
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "")


def _short(error: Exception) -> str:
    said = " ".join(str(error).split())
    return (said[:120] or type(error).__name__).rstrip(".")


@contextmanager
def _quiet(logger: str) -> Iterator[None]:
    """Without the warnings that a converter logs about files of other programs."""
    log = logging.getLogger(logger)
    level, log.level = log.level, logging.CRITICAL
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
