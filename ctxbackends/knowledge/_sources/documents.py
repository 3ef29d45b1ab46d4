"""PDF and DOCX documents. Their libraries, pypdf and python-docx, come with the extra ``documents``."""

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
"""Bytes. The libraries load the whole document into memory."""


class _DocumentSource(FileSource):
    """Base class: read the whole file, and convert it in ``pieces``."""

    def __init__(self, path: Path, *, name: str | None = None) -> None:
        super().__init__(path, name=name)
        self._cache: tuple[Input, tuple[Piece, ...]] | None = None

    def prepare(self) -> Input:
        """Read and convert the file once; see :meth:`Source.prepare`."""
        with self._open() as file:
            self._input = scan(self.name, file, strict=False)
        if self._input.size > MAX_DOCUMENT:
            raise SourceError(self.name, f"is larger than {MAX_DOCUMENT >> 20} MB, the largest supported document")
        if not any(isinstance(piece, Segment) for piece in self.pieces()):
            raise SourceError(self.name, self._no_text_message())
        return self._input

    def pieces(self) -> Iterator[Piece]:
        """Yield the segments; see :meth:`Source.pieces`."""
        source = self._require_input()
        with self._open() as file:
            data = file.read(source.size)
        if scan(self.name, io.BytesIO(data), strict=False) != source:
            raise SourceChangedError(self.name, "changed while it was read; run the command again")
        # A run reads a source several times, and conversion is slow. The text is much smaller than the document.
        if self._cache is None or self._cache[0] != source:
            pieces = []
            for piece in self._convert(io.BytesIO(data)):
                pieces.append(piece)
                yield piece
            self._cache = (source, tuple(pieces))
        else:
            yield from self._cache[1]

    def _convert(self, data: io.BytesIO) -> Iterator[Piece]:
        raise NotImplementedError

    def _no_text_message(self) -> str:
        return "has no text"

    def _import_library(self, module: str) -> Any:
        try:
            return import_module(module)
        except ImportError:
            raise SourceError(
                self.name, f"cannot be read without {module}; run pip install 'ctxbackends[documents]'"
            ) from None


class PDFSource(_DocumentSource):
    """A PDF file. Places are pages.

    Args:
        path: The file.
        name: The name in citations; the path by default.
    """

    unit: Unit = "page"

    def _no_text_message(self) -> str:
        return "has no text; if it is a scan, run OCR first, for example with ocrmypdf"

    def _convert(self, data: io.BytesIO) -> Iterator[Piece]:
        pypdf = self._import_library("pypdf")
        with _silence("pypdf"), self._convert_errors():
            reader = pypdf.PdfReader(data)
            if reader.is_encrypted and not reader.decrypt(""):
                raise SourceError(self.name, "is encrypted; save it without a password first")
            count = len(reader.pages)
        for number in range(1, count + 1):
            with _silence("pypdf"), self._convert_errors(f"page {number}: "):
                text = reader.pages[number - 1].extract_text().strip()
            if text:
                page = Segment(text=_clean(text), first=number, last=number)
                yield from split_to_fit(page, MAX_SEGMENT_BYTES)
            else:
                yield SkippedInput(source=self.name, reason=f"page {number} has no text")

    @contextmanager
    def _convert_errors(self, place: str = "") -> Iterator[None]:
        """Turn any exception of pypdf into a SourceError: it raises many types for an invalid PDF."""
        try:
            yield
        except SourceError:
            raise
        except Exception as error:
            raise SourceError(self.name, f"{place}cannot be read as PDF: {_summarize(error)}") from None


class DOCXSource(_DocumentSource):
    """A Word document. Places are paragraphs; a table row counts as one.

    Args:
        path: The file.
        name: The name in citations; the path by default.
    """

    unit: Unit = "paragraph"

    def _convert(self, data: io.BytesIO) -> Iterator[Piece]:
        docx = self._import_library("docx")
        if not zipfile.is_zipfile(data):
            raise SourceError(
                self.name, "cannot be read as DOCX: it is not a zip archive; save a .doc file as .docx first"
            )
        data.seek(0)
        after_heading = False
        for number, (text, heading) in enumerate(self._blocks(docx, data), 1):
            if not text.strip():
                continue
            boundary = 2 if heading else 0 if after_heading else 1
            after_heading = heading
            yield from split_to_fit(
                Segment(text=_clean(text), first=number, last=number, boundary=boundary), MAX_SEGMENT_BYTES
            )

    def _blocks(self, docx: Any, data: io.BytesIO) -> Iterator[tuple[str, bool]]:
        """Yield the text of each paragraph and table row in document order, and whether it is a heading."""
        try:
            for block in docx.Document(data).iter_inner_content():
                if hasattr(block, "rows"):
                    for row in block.rows:
                        # A cell that spans several columns is listed once for each.
                        cells = list(dict.fromkeys(cell.text.strip() for cell in row.cells))
                        yield " | ".join(cell for cell in cells if cell), False
                else:
                    style = block.style.name if block.style is not None else ""
                    yield block.text, style.startswith(("Heading", "Title"))
        except Exception as error:  # python-docx raises many types for an invalid file
            raise SourceError(self.name, f"cannot be read as DOCX: {_summarize(error)}") from None


def _clean(text: str) -> str:
    # A broken font table yields lone surrogates, which cannot be encoded.
    return text.encode("utf-8", "backslashreplace").decode().replace("\0", "")


def _summarize(error: Exception) -> str:
    message = " ".join(str(error).split())
    return (message[:120] or type(error).__name__).rstrip(".")


@contextmanager
def _silence(logger: str) -> Iterator[None]:
    """Silence the warnings that a library logs about invalid files."""
    log = logging.getLogger(logger)
    level, log.level = log.level, logging.CRITICAL
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
