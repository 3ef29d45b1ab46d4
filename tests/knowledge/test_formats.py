"""Formats are recognized by content; one that is not supported is refused by name and never read as prose."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._sources.base import Segment
from ctxbackends.knowledge._sources.documents.docx import DOCXSource
from ctxbackends.knowledge._sources.documents.html import HTMLSource
from ctxbackends.knowledge._sources.documents.mail import MailSource
from ctxbackends.knowledge._sources.documents.notebook import NotebookSource
from ctxbackends.knowledge._sources.documents.odt import ODTSource
from ctxbackends.knowledge._sources.documents.pdf import PDFSource
from ctxbackends.knowledge._sources.documents.pptx import PPTXSource
from ctxbackends.knowledge._sources.find import find_sources
from ctxbackends.knowledge._sources.formats import source_of, source_of_stdin
from ctxbackends.knowledge._sources.text import AsciiDocSource, OrgSource, RSTSource, StdinSource, TextSource
from tests.knowledge.document_files import archive, docx, odt, paragraph, pdf, pptx, shape, slide

NOTEBOOK = json.dumps({"cells": [{"cell_type": "markdown", "source": "We keep it."}], "metadata": {}, "nbformat": 4})
MAIL = "Return-Path: <a@example.org>\nFrom: a@example.org\nSubject: x\nTo: b@example.org\n\nWe keep it.\n"
HTML = "<!-- saved -->\n<!doctype HTML>\n<p>We keep it."
XHTML = '<?xml version="1.0"?>\n<html><p>We keep it.</p></html>'


@pytest.mark.parametrize(
    ("name", "text", "kind"),
    [
        ("a.md", "We keep it.", TextSource),
        ("a.txt", "[1] A footnote.", TextSource),
        ("a", "{placeholder} is replaced.", TextSource),
        ("a.md", "From: here\nto: there\n", TextSource),
        ("a.md", "[1]\nA footnote.", TextSource),
        ("a.rst", "We keep it.", RSTSource),
        ("a.adoc", "We keep it.", AsciiDocSource),
        ("a.org", "We keep it.", OrgSource),
        ("a.html", "<p>We keep it.", HTMLSource),
        ("a.txt", HTML, HTMLSource),
        ("a", XHTML, HTMLSource),
        ("a.ipynb", NOTEBOOK, NotebookSource),
        ("a.json", NOTEBOOK, NotebookSource),
        ("a.eml", "Subject: x\n\nWe keep it.", MailSource),
        ("a", MAIL, MailSource),
        ("a.pdf", "no pdf", PDFSource),
        ("a.docx", "no docx", DOCXSource),
    ],
)
def test_text_formats(tmp_path: Path, name: str, text: str, kind: type) -> None:
    (tmp_path / name).write_text(text)
    assert type(source_of(tmp_path / name)) is kind


def test_binary_formats_under_any_name(tmp_path: Path) -> None:
    files = {
        PDFSource: pdf(tmp_path / "a.md", "We keep it."),
        DOCXSource: docx(tmp_path / "b", paragraph("We keep it.")),
        PPTXSource: pptx(tmp_path / "c.zip", slide(shape("We keep it."))),
        ODTSource: odt(tmp_path / "d.docx", "<text:p>We keep it.</text:p>"),
    }
    for kind, path in files.items():
        source = source_of(path)
        assert type(source) is kind
        source.prepare()
        with path.open("rb") as stream:
            stdin = source_of_stdin(StdinSource(stream))
            assert type(stdin) is kind
            assert None is stdin.path
            stdin.prepare()
            assert ["We keep it."] == [piece.text for piece in stdin.pieces() if isinstance(piece, Segment)]
            assert "stdin" == stdin.name


@pytest.mark.parametrize("text", [HTML, XHTML, NOTEBOOK, MAIL])
def test_text_formats_on_standard_input(tmp_path: Path, text: str) -> None:
    (tmp_path / "a").write_text(text)
    with (tmp_path / "a").open("rb") as stream:
        source = source_of_stdin(StdinSource(stream))
        source.prepare()
        assert "We keep it." in [piece.text for piece in source.pieces() if isinstance(piece, Segment)]


@pytest.mark.parametrize(
    ("name", "data", "format_name"),
    [
        ("a.doc", b"\xd0\xcf\x11\xe0\xa1\xb1", "an old or encrypted Office file; save it as .docx or .pptx"),
        ("a.rtf", b"{\\rtf1 text}", "RTF; save it as .docx or .odt"),
        ("a.md", b"\x89PNG\r\n", "a PNG image"),
        ("a.xml", b"<?xml version='1.0'?><book>text</book>", "XML; convert it to text first"),
        ("a.svg", b"<svg><text>text</text></svg>", "an SVG image"),
        ("a.txt.gz", b"\x1f\x8b\x08", "a gzip archive; unpack it first"),
        ("mbox", b"From a@example.org Mon\n" + MAIL.encode(), "a mailbox; save its messages as .eml files"),
    ],
)
def test_formats_that_are_not_supported(tmp_path: Path, name: str, data: bytes, format_name: str) -> None:
    (tmp_path / name).write_bytes(data)
    source = source_of(tmp_path / name, name=name)
    with pytest.raises(SourceError, match=f"^{name}: is not supported: it is {format_name}"):
        source.prepare()
    with pytest.raises(SourceError, match="is not supported"):
        list(source.pieces())


def test_archives_that_are_not_supported(tmp_path: Path) -> None:
    for parts, format_name in (
        ({"xl/workbook.xml": ""}, "an Excel workbook"),
        ({"mimetype": "application/epub+zip"}, "an EPUB book"),
        ({"mimetype": "application/vnd.oasis.opendocument.spreadsheet"}, "an archive of type application/vnd.oasis"),
        ({"a.py": ""}, "a zip archive; unpack it first"),
    ):
        with pytest.raises(SourceError, match=f"is not supported: it is {format_name}"):
            source_of(archive(tmp_path / "a.docx", parts)).prepare()


@pytest.mark.parametrize("name", ["a.json", "a", "a.txt"])
def test_json_is_never_read_as_prose(tmp_path: Path, name: str) -> None:
    for text in ('{"name": "x", "version": 1}', '{\n  "name": "x"\n}\n', '[\n  {"a": "b"}\n]', '{"a": 1}\n{"b": 2}\n'):
        (tmp_path / name).write_text(text)
        with pytest.raises(SourceError):
            source_of(tmp_path / name).prepare()


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="cannot be read: No such file"):
        source_of(tmp_path / "a.pdf").prepare()


def test_a_notebook_with_images_is_small(tmp_path: Path) -> None:
    image = {"output_type": "display_data", "data": {"image/png": "iVBORw0KGgo" * 50_000}}
    cells = [
        {"cell_type": "markdown", "source": "We keep it."},
        {"cell_type": "code", "source": "x", "outputs": [image]},
    ]
    (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells, "nbformat": 4}))
    (source,) = find_sources(["a.ipynb"], base=tmp_path).sources
    source.prepare()
    assert 12 == sum(len(piece.text) for piece in source.pieces() if isinstance(piece, Segment))


def test_embedded_images_of_markdown_are_left_out(tmp_path: Path) -> None:
    data = "iVBORw0KGgo" * 4000
    (tmp_path / "a.md").write_text(f"Before.\n\n![x](data:image/png;base64,{data})\nAfter.\n")
    source = source_of(tmp_path / "a.md", name="a.md")
    source.prepare()
    assert [
        "Before.",
        "![x](data:image/png;base64,[...])\nAfter.",
        "a.md: 1 embedded image left out",
    ] == [piece.text if isinstance(piece, Segment) else str(piece) for piece in source.pieces()]


def test_a_line_that_is_too_long_is_found_before_the_run(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("We keep it.\n\n" + "x" * (17 << 20))
    (tmp_path / "b.md").write_text("We keep it.\n")
    result = find_sources(["."], base=tmp_path)
    assert ["b.md"] == [source.name for source in result.sources]
    assert ["a.md:3: has a line of 17 MB; only text is supported"] == [str(skipped) for skipped in result.skipped]
