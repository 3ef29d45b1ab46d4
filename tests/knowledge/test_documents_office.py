"""Presentations of PowerPoint and texts of LibreOffice."""

from __future__ import annotations

import zipfile
from pathlib import Path

import pytest

from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._sources.base import Segment, Source
from ctxbackends.knowledge._sources.documents.odt import ODTSource
from ctxbackends.knowledge._sources.documents.pptx import PPTXSource
from tests.knowledge.document_files import P, archive, links, odt, pptx, shape, slide


def read(source: Source) -> list[tuple[int, str, str]]:
    """The place, label and text of each segment."""
    source.prepare()
    return [(piece.first, piece.label, piece.text) for piece in source.pieces() if isinstance(piece, Segment)]


def read_boundaries(source: Source) -> list[tuple[str, int]]:
    source.prepare()
    return [(piece.text, piece.boundary) for piece in source.pieces() if isinstance(piece, Segment)]


def test_slides_in_the_order_of_the_presentation(tmp_path: Path) -> None:
    group = f"<p:grpSp>{shape('In a group.')}</p:grpSp>"
    path = pptx(
        tmp_path / "a.pptx",
        slide(shape("We keep SQLite.", "It is enough."), shape("Storage", kind="title"), shape("3", kind="sldNum")),
        slide(group, shape("Last.")),
        notes="Ask Ada.",
        comments="Decided on Monday.",
    )
    source = PPTXSource(path)
    assert [
        (1, "", "Storage"),
        (1, "", "We keep SQLite.\nIt is enough."),
        (1, "speaker notes", "Ask Ada."),
        (1, "comment", "Decided on Monday."),
        (2, "", "In a group."),
        (2, "", "Last."),
    ] == read(source)
    assert "slide" == source.unit
    assert [2, 0, 1, 1, 2, 0] == [boundary for _, boundary in read_boundaries(source)]


def test_tables_line_breaks_and_fields_of_slides(tmp_path: Path) -> None:
    def cell(text: str) -> str:
        return f"<a:tc><a:txBody><a:p><a:r><a:t>{text}</a:t></a:r></a:p></a:txBody></a:tc>"

    rows = f"<a:tr>{cell('who')}{cell('what')}</a:tr><a:tr>{cell('Ada')}</a:tr>"
    table = f"<p:graphicFrame><a:tbl>{rows}</a:tbl></p:graphicFrame>"
    runs = "<a:r><a:t>one</a:t></a:r><a:br/><a:fld><a:t>two</a:t></a:fld>"
    text = f"<p:sp><p:txBody><a:p><a:pPr><a:tabLst/></a:pPr>{runs}</a:p></p:txBody></p:sp>"
    assert [(1, "", "who | what"), (1, "", "Ada"), (1, "", "one\ntwo")] == read(
        PPTXSource(pptx(tmp_path / "a.pptx", slide(table, text)))
    )


def test_a_broken_slide_is_skipped(tmp_path: Path) -> None:
    source = PPTXSource(
        pptx(tmp_path / "a.pptx", slide(shape("Good.")), f"<p:sld {P}>", slide(shape("Good too."))), name="a"
    )
    assert [(1, "", "Good."), (3, "", "Good too.")] == read(source)
    (problem,) = (str(piece) for piece in source.pieces() if not isinstance(piece, Segment))
    assert problem.startswith("a: slide 2 cannot be read: ")


def test_an_invalid_presentation(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a: cannot be read as PPTX: it names no main part"):
        PPTXSource(archive(tmp_path / "a.pptx", {"x": ""}), name="a").prepare()
    with pytest.raises(SourceError, match=r"a: has no text"):
        PPTXSource(pptx(tmp_path / "a.pptx", slide()), name="a").prepare()


def test_paragraphs_headings_lists_and_tables_of_odt(tmp_path: Path) -> None:
    cells = "".join(
        f"<table:table-cell><text:p>{text}</text:p></table:table-cell><table:covered-table-cell/>"
        for text in ("a", "b")
    )
    path = odt(
        tmp_path / "a.odt",
        "<text:sequence-decls/>",
        '<text:h text:outline-level="1">Storage</text:h>',
        "<text:p>We keep\n  <text:span>SQLite</text:span>,<text:s text:c='2'/>today.<text:line-break/>So.</text:p>",
        "<text:list><text:list-item><text:p>one</text:p></text:list-item></text:list>",
        "<text:section><text:p/><text:p>two</text:p></text:section>",
        f"<table:table><table:table-header-rows><table:table-row>{cells}</table:table-row></table:table-header-rows>"
        f"<table:table-row>{cells}</table:table-row></table:table>",
    )
    source = ODTSource(path)
    assert [
        (1, "", "Storage"),
        (2, "", "We keep SQLite,  today.\nSo."),
        (3, "", "one"),
        (5, "", "two"),
        (6, "", "a | b"),
        (7, "", "a | b"),
    ] == read(source)
    assert "paragraph" == source.unit
    assert [("Storage", 2), ("We keep SQLite,  today.\nSo.", 0), ("one", 1)] == read_boundaries(source)[:3]


def test_notes_comments_boxes_and_tracked_changes_of_odt(tmp_path: Path) -> None:
    note = (
        '<text:note text:note-class="endnote"><text:note-citation>1</text:note-citation>'
        "<text:note-body><text:p>See the plan.</text:p></text:note-body></text:note>"
    )
    comment = "<office:annotation><dc:creator>Ada</dc:creator><text:p>Agreed.</text:p></office:annotation>"
    box = "<draw:frame><draw:text-box><text:p>In the box.</text:p></draw:text-box></draw:frame>"
    change = "<text:change-start/>new<text:change-end/><text:change/>"
    path = odt(
        tmp_path / "a.odt",
        "<text:tracked-changes><text:changed-region><text:deletion><text:p>old</text:p></text:deletion>"
        "</text:changed-region></text:tracked-changes>",
        f"<text:p>The{note} text{comment} is {change}{box}.</text:p>",
    )
    assert [
        (1, "", "The text is new."),
        (1, "endnote", "See the plan."),
        (1, "comment by Ada", "Agreed."),
        (1, "text box", "In the box."),
    ] == read(ODTSource(path))


def test_embedded_objects_and_charts_are_counted(tmp_path: Path) -> None:
    content = "<x><y><z><text:p xmlns:text='t'>Text.</text:p></z></y></x>"
    parts = {"content.xml": content, "Object 1/content.xml": "<x/>", "Object 2/content.xml": "<x/>"}
    path = pptx(tmp_path / "a.pptx", slide(shape("Text.")))
    with zipfile.ZipFile(path) as file:
        slides = {name: file.read(name).decode() for name in file.namelist()}
    slides["ppt/slides/_rels/slide1.xml.rels"] = links(chart_1="../charts/chart1.xml", chart_2="../charts/chart2.xml")
    for source, reason in (
        (ODTSource(archive(tmp_path / "a.odt", parts), name="a"), "a: 2 embedded objects left out"),
        (PPTXSource(archive(path, slides), name="a"), "a: 2 charts left out"),
    ):
        assert [(1, "", "Text.")] == read(source)
        assert [reason] == [str(piece) for piece in source.pieces() if not isinstance(piece, Segment)]


def test_an_encrypted_odt(tmp_path: Path) -> None:
    parts = {"content.xml": "\x01", "META-INF/manifest.xml": "<manifest><encryption-data/></manifest>"}
    with pytest.raises(SourceError, match="a: is encrypted; save it without a password first"):
        ODTSource(archive(tmp_path / "a.odt", parts), name="a").prepare()
