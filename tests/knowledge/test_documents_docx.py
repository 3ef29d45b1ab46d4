"""Word documents: nothing of their text is lost, and nothing that was deleted is read."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._sources.base import Segment
from ctxbackends.knowledge._sources.documents import base
from ctxbackends.knowledge._sources.documents.docx import DOCXSource
from tests.knowledge.document_files import archive, docx, links, paragraph, row, run, table, text_box


def read(path: Path) -> list[tuple[int, str, str]]:
    """The place, label and text of each segment."""
    source = DOCXSource(path, name="a.docx")
    source.prepare()
    return [(piece.first, piece.label, piece.text) for piece in source.pieces() if isinstance(piece, Segment)]


def skipped_inputs(path: Path) -> list[str]:
    source = DOCXSource(path, name="a.docx")
    source.prepare()
    return [str(piece) for piece in source.pieces() if not isinstance(piece, Segment)]


def tracked(name: str, content: str) -> str:
    return f'<w:{name} w:id="1" w:author="Ada">{content}</w:{name}>'


def deleted(text: str) -> str:
    return f"<w:r><w:delText>{text}</w:delText></w:r>"


def test_tracked_changes(tmp_path: Path) -> None:
    path = docx(
        tmp_path / "a.docx",
        paragraph("The cache is ", tracked("ins", run("Redis")), tracked("del", deleted("Memcached")), "."),
        paragraph(tracked("moveFrom", run("It was here."))),
        paragraph(tracked("moveTo", run("It is here."))),
        paragraph(tracked("ins", run("Ours") + tracked("del", deleted(" and theirs")))),
        table(
            row("kept"),
            row("gone", properties="<w:trPr><w:del w:id='2'/></w:trPr>"),
            row("added"),
        ),
    )
    assert [
        (1, "", "The cache is Redis."),
        (3, "", "It is here."),
        (4, "", "Ours"),
        (5, "", "kept"),
        (6, "", "added"),
    ] == read(path)


def test_content_controls(tmp_path: Path) -> None:
    def control(content: str, properties: str = "") -> str:
        return f"<w:sdt><w:sdtPr>{properties}</w:sdtPr><w:sdtContent>{content}</w:sdtContent></w:sdt>"

    path = docx(
        tmp_path / "a.docx",
        control(paragraph("All services log JSON.") + control(paragraph("Inside."))),
        paragraph("Owner: ", control(run("Ada")), "."),
        control(paragraph("Click here to enter text."), "<w:showingPlcHdr/>"),
        table(control(row("a", "b"))),
        f"<w:customXml>{paragraph('Custom.')}</w:customXml>",
    )
    assert [
        (1, "", "All services log JSON."),
        (2, "", "Inside."),
        (3, "", "Owner: Ada."),
        (4, "", "a | b"),
        (5, "", "Custom."),
    ] == read(path)


def test_text_boxes_are_read_once(tmp_path: Path) -> None:
    path = docx(tmp_path / "a.docx", paragraph("Before."), paragraph("Anchor.", text_box(paragraph("In the box."))))
    assert [(1, "", "Before."), (2, "", "Anchor."), (2, "text box", "In the box.")] == read(path)


def test_nested_tables_and_cells(tmp_path: Path) -> None:
    inner = table(row("x", "y"))
    path = docx(
        tmp_path / "a.docx",
        table(
            row("same", "same"), row(paragraph("outer") + inner + paragraph(""), paragraph("one") + paragraph("two"))
        ),
    )
    assert [(1, "", "same | same"), (2, "", "outer\nx | y | one\ntwo")] == read(path)


def test_notes_and_comments_follow_their_paragraph(tmp_path: Path) -> None:
    comment = f'<w:comment w:id="5" w:author="Ada">{paragraph("Drop Windows.")}{paragraph("Agreed.")}</w:comment>'
    lost = f'<w:comment w:id="6">{paragraph("On the header.")}</w:comment>'
    path = docx(
        tmp_path / "a.docx",
        paragraph("Text", '<w:r><w:footnoteReference w:id="2"/></w:r>', '<w:r><w:commentReference w:id="5"/></w:r>'),
        paragraph(tracked("del", '<w:r><w:footnoteReference w:id="3"/></w:r>')),
        paragraph("After."),
        notes={"2": "See the plan.", "3": "Of deleted text."},
        comments=comment + lost,
    )
    assert [
        (1, "", "Text"),
        (1, "footnote", "See the plan."),
        (1, "comment by Ada", "Drop Windows.\nAgreed."),
        (3, "", "After."),
        (3, "comment", "On the header."),
    ] == read(path)


def test_headers_are_left_out_and_counted(tmp_path: Path) -> None:
    path = docx(tmp_path / "a.docx", paragraph("Text."), '<w:altChunk r:id="x"/>', header="Confidential")
    assert [
        "a.docx: 12 characters of headers and footers were left out",
        "a.docx: 1 embedded document left out",
    ] == skipped_inputs(path)
    assert [] == skipped_inputs(docx(tmp_path / "b.docx", paragraph("Text.")))


def test_diagrams_charts_and_embedded_documents(tmp_path: Path) -> None:
    path = docx(
        tmp_path / "a.docx",
        paragraph("Text.", '<w:r><w:drawing><dgm:relIds xmlns:dgm="urn:dgm" r:dm="diagramData_1"/></w:drawing></w:r>'),
        paragraph("More.", '<w:r><w:drawing><c:chart xmlns:c="urn:c" r:id="x"/></w:drawing></w:r>'),
        paragraph('<w:r><w:object><o:OLEObject xmlns:o="urn:o"/></w:object></w:r>'),
    )
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name).decode() for name in file.namelist()}
    parts["word/_rels/document.xml.rels"] = links(diagramData_1="diagrams/data1.xml")
    parts["word/diagrams/data1.xml"] = (
        '<d:m xmlns:d="urn:d" xmlns:a="urn:a">'
        "<d:t><a:p><a:r><a:t>We keep </a:t></a:r><a:r><a:t>it.</a:t></a:r></a:p></d:t>"
        "<d:t><a:p><a:r><a:t>And this.</a:t></a:r></a:p></d:t></d:m>"
    )
    archive(path, parts)
    assert [(1, "", "Text."), (1, "diagram", "We keep it.\nAnd this."), (2, "", "More.")] == read(path)
    assert ["a.docx: 1 chart left out", "a.docx: 1 embedded document left out"] == skipped_inputs(path)


def test_characters_and_fields(tmp_path: Path) -> None:
    field = "<w:r><w:instrText>PAGEREF _Toc1</w:instrText></w:r>"
    ruby = f"<w:r><w:ruby><w:rt>{run('kana')}</w:rt><w:rubyBase>{run('kanji')}</w:rubyBase></w:ruby></w:r>"
    path = docx(
        tmp_path / "a.docx",
        paragraph("a", "<w:r><w:tab/><w:t>b</w:t><w:br/><w:t>c</w:t><w:noBreakHyphen/><w:t>d</w:t></w:r>", field, ruby),
        paragraph('<w:hyperlink r:id="x"><w:r><w:t>the link</w:t></w:r></w:hyperlink>'),
    )
    assert [(1, "", "a\tb\nc\u2011dkanji"), (2, "", "the link")] == read(path)


def test_headings_by_style_name_base_and_outline_level(tmp_path: Path) -> None:
    direct = '<w:p><w:pPr><w:outlineLvl w:val="2"/></w:pPr><w:r><w:t>D</w:t></w:r></w:p>'
    body = '<w:p><w:pPr><w:pStyle w:val="Kapitel"/><w:outlineLvl w:val="9"/></w:pPr><w:r><w:t>F</w:t></w:r></w:p>'
    headings = [
        paragraph(text, style=style) for text, style in (("A", "berschrift1"), ("B", "Kapitel"), ("C", "Ebene"))
    ]
    path = docx(tmp_path / "a.docx", *headings, direct, paragraph("E", style="Text"), body)
    source = DOCXSource(path)
    source.prepare()
    boundaries = [(piece.text, piece.boundary) for piece in source.pieces() if isinstance(piece, Segment)]
    assert [("A", 2), ("B", 2), ("C", 2), ("D", 2), ("E", 0), ("F", 1)] == boundaries


def test_a_document_that_breaks_after_its_first_passage(tmp_path: Path) -> None:
    path = docx(tmp_path / "a.docx", *[paragraph(f"Paragraph {n}.") for n in range(5000)])
    with zipfile.ZipFile(path) as file:
        parts = {name: file.read(name).decode() for name in file.namelist()}
    parts["word/document.xml"] = parts["word/document.xml"][:-2000]
    with pytest.raises(SourceError, match=r"a\.docx: cannot be read as DOCX: "):
        read(archive(path, parts))


def test_entities_cannot_be_declared(tmp_path: Path) -> None:
    bomb = '<!DOCTYPE w [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;">]><w>&b;</w>'
    parts = {"_rels/.rels": links(officeDocument="word/document.xml"), "word/document.xml": bomb}
    with pytest.raises(SourceError, match=r"a\.docx: cannot be read as DOCX: it declares a document type: w"):
        read(archive(tmp_path / "a.docx", parts))


def test_the_kept_text_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_KEPT_TEXT", base._kept_bytes)
    path = docx(tmp_path / "a.docx", paragraph("Text."))
    source = DOCXSource(path)
    source.prepare()
    assert source._pieces is None
    assert ["Text."] == [piece.text for piece in source.pieces() if isinstance(piece, Segment)]
