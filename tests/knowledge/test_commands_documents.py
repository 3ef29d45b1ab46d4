"""The command ingest on documents of all formats, and on directories with files that cannot be read."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ctxbackends.knowledge._proposals.store import read_proposal
from tests.knowledge.commands import ctx, project
from tests.knowledge.document_files import docx, odt, paragraph, pdf, pptx, shape, slide
from tests.knowledge.scripted_model import ScriptedModel, decision, line_of
from tests.knowledge.test_documents_mail import message

Serve = Callable[..., ScriptedModel]


def options(prompt: str) -> dict[str, Any]:
    """A decision for each sentence that says to keep something."""
    quotes = re.findall(r"We keep the \w+ for now\.", prompt)
    return {"decisions": [decision(quote[:-1], quote, line_of(prompt, quote)) for quote in quotes]}


def write_documents(directory: Path) -> None:
    directory.mkdir()
    comment = f'<w:comment w:id="5" w:author="Ada">{paragraph("We keep the comment for now.")}</w:comment>'
    reference = '<w:r><w:commentReference w:id="5"/></w:r>'
    docx(directory / "a.docx", paragraph("Title"), paragraph("Text.", reference), comments=comment)
    (directory / "b.eml").write_bytes(message("Hello.\n\nWe keep the mail for now.\n").as_bytes())
    (directory / "c.html").write_text(
        "<html>\n<script>We keep the script for now.</script>\n<p>We keep the page for now.\n"
    )
    cells = [{"cell_type": "code", "source": "x"}, {"cell_type": "markdown", "source": "We keep the cell for now."}]
    (directory / "d.ipynb").write_text(json.dumps({"nbformat": 4, "cells": cells}))
    odt(directory / "e.odt", "<text:p/>", "<text:p>We keep the text for now.</text:p>")
    pdf(directory / "f.pdf", "", "We keep the paper for now.")
    pptx(directory / "g.pptx", slide(shape("x")), slide(shape("We keep the slide for now.")))
    (directory / "h.adoc").write_text("= Title\n\nWe keep the manual for now.\n")


def test_each_format_is_cited_with_its_place(tmp_path: Path, serve: Serve) -> None:
    directory = project(tmp_path, serve(options).url)
    write_documents(directory / "docs")
    result = ctx(directory, "ingest", "docs")
    assert 0 == result.code, result.err
    rows = read_proposal(directory / result.proposal).rows
    assert [
        "docs/a.docx, paragraph 2",
        "docs/b.eml, paragraph 3",
        "docs/c.html:3",
        "docs/d.ipynb, cell 2",
        "docs/e.odt, paragraph 2",
        "docs/f.pdf, page 2",
        "docs/g.pptx, slide 2",
        "docs/h.adoc:3",
    ] == [row.evidence[0].where for row in rows]
    assert "skipped: docs/f.pdf: page 1 has no text\n" == result.err.partition("8 rows")[0]


def test_files_that_cannot_be_read_end_no_directory(tmp_path: Path, serve: Serve) -> None:
    directory = project(tmp_path, serve(options).url)
    write_documents(directory / "documents")
    (directory / "documents" / "f.pdf").write_bytes(b"%PDF-1.4\n%%EOF\n")
    (directory / "documents" / "old.txt").write_bytes("Größe\n".encode("latin-1"))
    data = (directory / "documents" / "a.docx").read_bytes()
    (directory / "documents" / "a.docx").write_bytes(data[: len(data) // 2])
    result = ctx(directory, "ingest", "documents")
    assert 0 == result.code, result.err
    proposal = read_proposal(directory / result.proposal)
    assert 6 == len(proposal.rows)
    assert ["documents/a.docx", "documents/f.pdf", "documents/old.txt"] == [
        skipped.source for skipped in proposal.skipped
    ]
    assert "skipped: documents/old.txt:1: is not UTF-8 (byte 3); convert it" in result.err
    assert "3 parts skipped" in result.err

    # A file that is named is an error.
    named = ctx(directory, "ingest", "documents/old.txt", "documents/h.adoc")
    assert 1 == named.code
    assert "documents/old.txt:1: is not UTF-8 (byte 3)" in named.err


def test_a_document_on_standard_input(tmp_path: Path, serve: Serve) -> None:
    directory = project(tmp_path, serve(options).url)
    write_documents(directory / "docs")
    for name, place in (("f.pdf", "stdin, page 2"), ("c.html", "stdin:3"), ("d.ipynb", "stdin, cell 2")):
        result = ctx(directory, "ingest", "-", text=(directory / "docs" / name).read_bytes())
        assert 0 == result.code, result.err
        assert [place] == [row.evidence[0].where for row in read_proposal(directory / result.proposal).rows]
