"""The formats of files, recognized by their content, and by their suffix where the content is text.

A format that is recognized but not supported is an error that names it. It is never read as prose.
"""

from __future__ import annotations

import os
import re
import zipfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import IO

import msgspec

from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._sources.base import Input, Piece, Source
from ctxbackends.knowledge._sources.documents.docx import DOCXSource
from ctxbackends.knowledge._sources.documents.html import HTMLSource
from ctxbackends.knowledge._sources.documents.mail import MailSource
from ctxbackends.knowledge._sources.documents.notebook import NotebookSource
from ctxbackends.knowledge._sources.documents.odt import ODTSource
from ctxbackends.knowledge._sources.documents.pdf import PDFSource
from ctxbackends.knowledge._sources.documents.pptx import PPTXSource
from ctxbackends.knowledge._sources.files import FileSource, Opener, open_file
from ctxbackends.knowledge._sources.text import AsciiDocSource, OrgSource, RSTSource, StdinSource, TextSource
from ctxbackends.knowledge._sources.transcripts import TranscriptSource
from ctxbackends.knowledge._sources.transcripts.feed import find_object
from ctxbackends.knowledge._sources.transcripts.formats import HEAD as TRANSCRIPT_HEAD
from ctxbackends.knowledge._sources.transcripts.formats import looks_like_json, names_speakers

HEAD = 4096
"""Bytes at the beginning by which a format is recognized."""

TEXT_FORMATS: dict[str, type[FileSource]] = {
    **dict.fromkeys((".md", ".markdown", ".mdx", ".qmd", ".txt", ".text"), TextSource),
    ".rst": RSTSource,
    **dict.fromkeys((".adoc", ".asciidoc"), AsciiDocSource),
    ".org": OrgSource,
    **dict.fromkeys((".html", ".htm", ".xhtml"), HTMLSource),
    ".eml": MailSource,
    ".ipynb": NotebookSource,
    ".jsonl": TranscriptSource,
}
BINARY_FORMATS: dict[str, type[FileSource]] = {
    ".pdf": PDFSource,
    ".docx": DOCXSource,
    ".pptx": PPTXSource,
    ".odt": ODTSource,
}
SUFFIXES = (*TEXT_FORMATS, *BINARY_FORMATS)
"""Suffixes of the files that are read in directories. A file that is named is read with any suffix."""

_CONVERT = "convert it to text first"
_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"\xd0\xcf\x11\xe0", "an old or encrypted Office file; save it as .docx or .pptx, without a password"),
    (b"{\\rtf", "RTF; save it as .docx or .odt"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"%!PS", f"PostScript; {_CONVERT}"),
    (b"\x1f\x8b", "a gzip archive; unpack it first"),
    (b"BZh", "a bzip2 archive; unpack it first"),
    (b"\xfd7zXZ", "an xz archive; unpack it first"),
    (b"7z\xbc\xaf", "a 7z archive; unpack it first"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive; unpack it first"),
    (b"SQLite format 3", "an SQLite database"),
    (b"\x7fELF", "a program"),
    (b"MZ\x90\x00", "a program"),
    (b"<?xml", f"XML; {_CONVERT}"),
    (b"<svg", "an SVG image"),
)
_ZIP_PARTS: tuple[tuple[str, type[FileSource] | str], ...] = (
    ("word/", DOCXSource),
    ("ppt/", PPTXSource),
    ("xl/", "an Excel workbook; save its sheets as text"),
)
_ZIP_TYPES: dict[bytes, type[FileSource] | str] = {
    b"application/vnd.oasis.opendocument.text": ODTSource,
    b"application/epub+zip": f"an EPUB book; {_CONVERT}",
}
_HTML = re.compile(rb"\s*(<!--.{0,2000}?-->\s*)?<(!doctype\s+html|html|head|body)\b", re.IGNORECASE | re.DOTALL)
_XHTML = re.compile(rb"<\?xml[^>]*>\s*(<!--.{0,2000}?-->\s*)?(<!doctype\s+html|<html)\b", re.IGNORECASE | re.DOTALL)
_HEADER = re.compile(rb"([!-9;-~]+):[ \t]?(.*(?:\r?\n[ \t].*)*)\r?\n")
_MAIL_HEADERS = frozenset(
    {b"from", b"subject", b"date", b"to", b"message-id", b"received", b"mime-version", b"return-path"}
)
_JSON = re.compile(rb"\s*[\[{]\s*([\"\[{\]}]|-?\d|true|false|null)")
_MAX_JSON = 64 << 20


def source_of(path: Path, *, name: str | None = None) -> Source:
    """Return a source for the file, chosen by its content, else by its suffix; text by default.

    A file that cannot be opened, or whose format is not supported, raises SourceError in ``prepare``.

    Args:
        path: The file.
        name: The name in citations; the path by default.
    """
    found = _recognize(path.suffix.lower(), partial(open_file, name or str(path), path))
    return UnsupportedSource(path, found, name=name) if isinstance(found, str) else found(path, name=name)


def source_of_stdin(stdin: StdinSource) -> Source:
    """Return a source for standard input, chosen by its content; the source itself if it is text."""
    found = _recognize("", stdin.open)
    if isinstance(found, str):
        return UnsupportedSource(Path(stdin.name), found, name=stdin.name, opener=stdin.open)
    return stdin if found is TextSource else found(Path(stdin.name), name=stdin.name, opener=stdin.open)


class UnsupportedSource(FileSource):
    """A file whose format is recognized and not supported: ``prepare`` raises SourceError.

    Args:
        path: The file.
        format_name: The format, and perhaps advice.
        name: The name in citations; the path by default.
        opener: As in :class:`FileSource`.
    """

    def __init__(self, path: Path, format_name: str, *, name: str | None = None, opener: Opener | None = None) -> None:
        super().__init__(path, name=name, opener=opener)
        self._format_name = format_name

    def prepare(self) -> Input:
        """Raise SourceError."""
        raise SourceError(self.name, f"is not supported: it is {self._format_name}")

    def pieces(self) -> Iterator[Piece]:
        """Raise SourceError."""
        self.prepare()
        yield from ()


def _recognize(suffix: str, opener: Opener) -> type[FileSource] | str:
    """Return the class that reads a file, or the name of a format that is not supported."""
    by_suffix = TEXT_FORMATS.get(suffix) or BINARY_FORMATS.get(suffix) or TextSource
    try:
        with opener() as file:
            head = file.read(HEAD)
            found = _recognize_bytes(suffix, head, file)
    except (SourceError, OSError):
        return by_suffix  # prepare() raises it again
    return by_suffix if found is None else found


def _recognize_bytes(suffix: str, head: bytes, file: IO[bytes]) -> type[FileSource] | str | None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if b"%PDF-" in head[:1024]:
        return PDFSource
    if head.startswith(b"PK\x03\x04"):
        return _recognize_zip(file)
    if _XHTML.match(text) or _HTML.match(text):
        return HTMLSource
    if suffix in BINARY_FORMATS:
        return None  # its source says that it is invalid
    for magic, format_name in _MAGIC:
        if text.startswith(magic) and not (magic.startswith(b"<") and suffix in TEXT_FORMATS):
            return format_name
    if suffix != ".ipynb" and (looks_like_json(head) or (_JSON.match(text) and _is_json(file))):
        return NotebookSource if _is_notebook(head, file) else TranscriptSource
    if TEXT_FORMATS.get(suffix, TextSource) is TextSource and names_speakers(_read_head(file)):
        return TranscriptSource
    if suffix in ("", ".txt", ".text", ".mbox") and _is_mail(head):
        return "a mailbox; save its messages as .eml files" if text.startswith(b"From ") else MailSource
    return None


def _recognize_zip(file: IO[bytes]) -> type[FileSource] | str | None:
    try:
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
            kind = archive.read("mimetype")[:100].strip() if "mimetype" in names else b""
    except Exception:  # noqa: BLE001  # a broken archive; its own source says so
        return None
    if kind:
        return _ZIP_TYPES.get(kind, f"an archive of type {kind.decode('ascii', 'replace')}; {_CONVERT}")
    for folder, found in _ZIP_PARTS:
        if any(name.startswith(folder) for name in names):
            return found
    return "a zip archive; unpack it first"


def _is_json(file: IO[bytes]) -> bool:
    """Whether the whole file is JSON."""
    file.seek(0)
    data = file.read(_MAX_JSON + 1)
    # A file that is larger, and begins like JSON, is not prose.
    return len(data) > _MAX_JSON or _is_valid_json(data.removeprefix(b"\xef\xbb\xbf"))


def _is_valid_json(data: bytes) -> bool:
    try:
        return isinstance(msgspec.json.decode(data), dict | list)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def _read_head(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(TRANSCRIPT_HEAD)


def _is_notebook(head: bytes, file: IO[bytes]) -> bool:
    if not any(name in head for name in (b'"cells"', b'"nbformat"', b'"metadata"', b'"worksheets"')):
        return False  # a transcript, which may be large
    file.seek(max(0, file.seek(0, os.SEEK_END) - TRANSCRIPT_HEAD))
    if b'"nbformat"' not in head and b'"nbformat"' not in file.read():
        return False  # it is at the end of most notebooks
    file.seek(0)
    data = file.read(_MAX_JSON)
    if b'"nbformat"' not in data:
        return False
    value = find_object(data)
    return value is not None and "nbformat" in value and ("cells" in value or "worksheets" in value)


def _is_mail(head: bytes) -> bool:
    """Whether the file begins with at least three headers of e-mail, one of them of a kind that prose does not have."""
    rest = head.removeprefix(b"\xef\xbb\xbf")
    if rest.startswith(b"From ") and b"\n" in rest:
        rest = rest.partition(b"\n")[2]
    names = set()
    while match := _HEADER.match(rest):
        names.add(match[1].lower())
        rest = rest[match.end() :]
    return len(names & _MAIL_HEADERS) >= 3 and bool(
        names & {b"message-id", b"received", b"mime-version", b"return-path"}
    )
