"""Damaged documents: each is read or refused with a SourceError, and never with another exception."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._sources.base import Segment
from ctxbackends.knowledge._sources.documents.archive import Archive, InvalidPartError
from ctxbackends.knowledge._sources.formats import source_of
from tests.knowledge.document_files import archive, docx, odt, paragraph, pdf, pptx, row, shape, slide, table
from tests.knowledge.test_documents_mail import message
from tests.knowledge.test_formats import NOTEBOOK

WRITERS: dict[str, Callable[[Path], object]] = {
    "a.docx": lambda path: docx(path, paragraph("We keep it."), table(row("a", "b")), notes={"2": "Note."}),
    "a.pptx": lambda path: pptx(path, slide(shape("We keep it.")), notes="Ask Ada."),
    "a.odt": lambda path: odt(path, "<text:p>We keep it.</text:p>"),
    "a.pdf": lambda path: pdf(path, "We keep it.", "And this."),
    "a.ipynb": lambda path: path.write_text(NOTEBOOK),
    "a.eml": lambda path: path.write_bytes(message("We keep it.\n").as_bytes()),
}


@pytest.mark.parametrize("name", list(WRITERS))
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damage(name: str, data: st.DataObject) -> None:
    with TemporaryDirectory() as directory:
        path = Path(directory) / name
        WRITERS[name](path)
        content = bytearray(path.read_bytes())
        for _ in range(data.draw(st.integers(1, 6))):
            at = data.draw(st.integers(0, len(content) - 1))
            content[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=4))
        path.write_bytes(content[: data.draw(st.sampled_from([len(content), len(content) // 2, len(content) - 9]))])
        source = source_of(path)
        try:
            source.prepare()
        except SourceError:
            return
        assert any(isinstance(piece, Segment) for piece in source.pieces())


def test_a_part_that_unpacks_to_too_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxbackends.knowledge._sources.documents.archive.MAX_PART", 1 << 20)
    path = archive(tmp_path / "a.zip", {"x.xml": f"<x>{' ' * (1 << 20)}</x>"})
    with path.open("rb") as file, pytest.raises(InvalidPartError, match=r"x\.xml unpacks to more than 1 MB"):
        Archive(file).parse("x.xml")
