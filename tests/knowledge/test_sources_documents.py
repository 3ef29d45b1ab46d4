from __future__ import annotations

import sys
from pathlib import Path

import docx
import pypdf
import pytest

from ctxbackends.knowledge._errors import MissingLibraryError, SourceChangedError, SourceError
from ctxbackends.knowledge._sources.base import Segment, SkippedInput, Source
from ctxbackends.knowledge._sources.documents.docx import DOCXSource
from ctxbackends.knowledge._sources.documents.pdf import PDFSource
from tests.knowledge.document_files import pdf


def read_segments(source: Source) -> list[tuple[str, int, int]]:
    source.prepare()
    return [(piece.text, piece.first, piece.boundary) for piece in source.pieces() if isinstance(piece, Segment)]


def test_pages(tmp_path: Path) -> None:
    source = PDFSource(pdf(tmp_path / "a.pdf", "We chose YAML.", "", "It is late."), name="a.pdf")
    assert [("We chose YAML.", 1, 1), ("It is late.", 3, 1)] == read_segments(source)
    assert "page" == source.unit
    assert ["a.pdf: page 2 has no text"] == [str(piece) for piece in source.pieces() if isinstance(piece, SkippedInput)]


def test_a_scan(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a\.pdf: has no text; if it is a scan, run OCR first"):
        PDFSource(pdf(tmp_path / "a.pdf", ""), name="a.pdf").prepare()


def test_an_encrypted_pdf(tmp_path: Path) -> None:
    writer = pypdf.PdfWriter(pdf(tmp_path / "a.pdf", "Secret."))
    writer.encrypt("password", algorithm="RC4-128")
    writer.write(tmp_path / "b.pdf")
    with pytest.raises(SourceError, match=r"b\.pdf: is encrypted; save it without a password first"):
        PDFSource(tmp_path / "b.pdf", name="b.pdf").prepare()


@pytest.mark.parametrize("data", [b"no pdf at all", b"%PDF-1.4\n%%EOF\n", b"%PDF-1.4\n" + b"\xff" * 500])
def test_invalid_pdf(tmp_path: Path, data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.pdf").write_bytes(data)
    with pytest.raises(SourceError, match=r"a\.pdf: cannot be read as PDF: "):
        PDFSource(tmp_path / "a.pdf", name="a.pdf").prepare()
    assert [] == caplog.records


def word(path: Path) -> Path:
    document = docx.Document()
    document.add_heading("Configuration", level=1)
    document.add_paragraph("We chose YAML.")
    document.add_paragraph("")
    table = document.add_table(rows=2, cols=2)
    for row, texts in zip(table.rows, (("who", "what"), ("Ada", "the parser")), strict=True):
        for cell, text in zip(row.cells, texts, strict=True):
            cell.text = text
    document.add_paragraph("It is late.")
    document.save(str(path))
    return path


def test_paragraphs_and_tables_in_their_order(tmp_path: Path) -> None:
    source = DOCXSource(word(tmp_path / "a.docx"))
    assert [
        ("Configuration", 1, 2),
        ("We chose YAML.", 2, 0),
        ("who | what", 4, 1),
        ("Ada | the parser", 5, 1),
        ("It is late.", 6, 1),
    ] == read_segments(source)
    assert "paragraph" == source.unit


def test_invalid_docx(tmp_path: Path) -> None:
    path = tmp_path / "a.docx"
    path.write_bytes(b"\xd0\xcf\x11\xe0 an old one")
    with pytest.raises(
        SourceError,
        match=r"a\.docx: cannot be read as DOCX: it is not a zip archive; save a \.doc file as \.docx first",
    ):
        DOCXSource(path, name="a.docx").prepare()
    docx.Document().save(str(path))
    with pytest.raises(SourceError, match=r"a\.docx: has no text"):
        DOCXSource(path, name="a.docx").prepare()
    path.write_bytes(b"PK\x05\x06" + b"\0" * 18)
    with pytest.raises(SourceError, match=r"a\.docx: cannot be read as DOCX: "):
        DOCXSource(path, name="a.docx").prepare()


def test_without_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pypdf", None)
    (tmp_path / "a").write_bytes(b"x")
    with pytest.raises(
        MissingLibraryError, match=r"cannot be read without pypdf; run pip install 'ctxbackends\[documents\]'"
    ):
        PDFSource(tmp_path / "a").prepare()


def test_a_document_that_changes(tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", "We chose YAML.")
    source = PDFSource(path)
    source.prepare()
    pdf(path, "We chose TOML.")
    with pytest.raises(SourceChangedError):
        list(source.pieces())
