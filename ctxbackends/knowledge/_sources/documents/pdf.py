"""PDF, by pypdf."""

from __future__ import annotations

import io
import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

from ctxbackends.knowledge._errors import MissingLibraryError, SourceError
from ctxbackends.knowledge._records import Unit
from ctxbackends.knowledge._sources.base import Piece, Segment
from ctxbackends.knowledge._sources.documents.base import DocumentSource, clean, summarize

_LIGATURES = str.maketrans({"ﬀ": "ff", "ﬁ": "fi", "ﬂ": "fl", "ﬃ": "ffi", "ﬄ": "ffl", "ﬅ": "st", "ﬆ": "st"})
_WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")
_LINE_END_HYPHEN = re.compile(r"([^\W\d_]+)[-\u2010\u00ad]\n([a-z\u00df-\u00ff]+)")


class PDFSource(DocumentSource):
    """A PDF file. Places are pages; a page that cannot be read is reported and skipped.

    Args:
        path: The file.
        name: The name in citations; the path by default.
    """

    unit: Unit = "page"
    format_name = "PDF"

    _has_broken_page = False

    def _no_text_message(self, reasons: list[str]) -> str:
        if self._has_broken_page:
            return f"has no text: {'; '.join(reasons[:3])}"
        return "has no text; if it is a scan, run OCR first, for example with ocrmypdf"

    def _convert(self, data: io.BytesIO) -> Iterator[Piece]:
        try:
            pypdf = import_module("pypdf")
        except ImportError:
            reason = "cannot be read without pypdf; run pip install 'ctxbackends[documents]'"
            raise MissingLibraryError(self.name, reason) from None
        with _silence("pypdf"):
            reader = self._open_reader(pypdf, data)
            count = len(reader.pages)
        words = _Words()
        for number in range(1, count + 1):
            try:
                with _silence("pypdf"):
                    text = reader.pages[number - 1].extract_text().strip()
            except Exception as error:  # noqa: BLE001  # pypdf raises many types for an invalid page
                self._has_broken_page = True
                yield self._skip(f"page {number} cannot be read: {summarize(error)}")
                continue
            if text:
                yield Segment(text=words.join_hyphens(clean(text.translate(_LIGATURES))), first=number, last=number)
            else:
                yield self._skip(f"page {number} has no text")

    def _open_reader(self, pypdf: Any, data: io.BytesIO) -> Any:
        try:
            reader = pypdf.PdfReader(data)
            if reader.is_encrypted and not reader.decrypt(""):
                raise SourceError(self.name, "is encrypted; save it without a password first")
        except pypdf.errors.DependencyError:
            reason = "is encrypted with AES; run pip install 'pypdf[crypto]', or save it without encryption"
            raise MissingLibraryError(self.name, reason) from None
        return reader


class _Words:
    """The words of the document so far, by which a hyphen at a line end is told from one of the word itself."""

    def __init__(self) -> None:
        self._words: set[str] = set()

    def join_hyphens(self, text: str) -> str:
        """Return the text with words joined that are divided at a line end, and whole elsewhere in the document."""
        self._words.update(word.casefold() for word in _WORD.findall(text))
        return _LINE_END_HYPHEN.sub(self._join, text)

    def _join(self, match: re.Match[str]) -> str:
        head, tail = match.groups()
        is_soft = "\u00ad" in match[0]
        is_whole_elsewhere = f"{head}{tail}".casefold() in self._words
        is_hyphenated_elsewhere = f"{head}-{tail}".casefold() in self._words
        return f"{head}{tail}" if is_soft or (is_whole_elsewhere and not is_hyphenated_elsewhere) else match[0]


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
