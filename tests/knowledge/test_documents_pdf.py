"""PDF: words as they read, pages that break, and encryption."""

from __future__ import annotations

import sys
from pathlib import Path

import pypdf
import pytest

from ctxbackends.knowledge._errors import MissingLibraryError, SourceError
from ctxbackends.knowledge._sources.base import Segment
from ctxbackends.knowledge._sources.documents.pdf import PDFSource
from tests.knowledge.document_files import draw_lines, pdf


def read(path: Path) -> tuple[list[tuple[int, str]], list[str]]:
    source = PDFSource(path, name="a.pdf")
    source.prepare()
    pieces = list(source.pieces())
    texts = [(piece.first, piece.text) for piece in pieces if isinstance(piece, Segment)]
    return texts, [str(piece) for piece in pieces if not isinstance(piece, Segment)]


def test_a_broken_page_is_skipped(tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", "Good.", b"not a stream", "Good too.", filter_name="NoSuchDecode")
    assert (
        [(1, "Good."), (3, "Good too.")],
        ["a.pdf: page 2 cannot be read: Unsupported filter /NoSuchDecode"],
    ) == read(path)


def test_only_broken_pages(tmp_path: Path) -> None:
    path = pdf(tmp_path / "a.pdf", b"not a stream", filter_name="NoSuchDecode")
    with pytest.raises(SourceError, match=r"a\.pdf: has no text: page 1 cannot be read: Unsupported filter"):
        PDFSource(path, name="a.pdf").prepare()


def test_words_divided_at_a_line_end(tmp_path: Path) -> None:
    lines = ("The data-", "base is a long-", "term plan, the database of long-term data.", "Co-", "operate with it.")
    page = draw_lines(*[(72, 700 - 12 * number, line) for number, line in enumerate(lines)])
    ((_, text),), _ = read(pdf(tmp_path / "a.pdf", page))
    # "co-operate" is nowhere else in the document, so nobody knows whether the hyphen is its own.
    assert "The database is a long-\nterm plan, the database of long-term data.\nCo-\noperate with it." == text


def test_a_word_is_looked_up_on_the_pages_before(tmp_path: Path) -> None:
    second = draw_lines((72, 700, "An exam-"), (72, 688, "ple of it."))
    texts, _ = read(pdf(tmp_path / "a.pdf", "An example.", second))
    assert [(1, "An example."), (2, "An example of it.")] == texts


def test_ligatures_and_soft_hyphens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "The of\ufb01ce \ufb02ow and a\ufb00\u00adair: con\u00ad\nfigure it."
    monkeypatch.setattr(pypdf.PageObject, "extract_text", lambda _: text)
    texts, _ = read(pdf(tmp_path / "a.pdf", "x"))
    assert [(1, "The office flow and aff\u00adair: configure it.")] == texts


def test_columns_are_read_one_after_the_other(tmp_path: Path) -> None:
    left = [(72, 700 - 12 * number, f"left line {number}") for number in range(3)]
    right = [(320, 700 - 12 * number, f"right line {number}") for number in range(3)]
    ((_, text),), _ = read(pdf(tmp_path / "a.pdf", draw_lines(*left, *right)))
    assert "left line 0\nleft line 1\nleft line 2\nright line 0\nright line 1\nright line 2" == text


def encrypt(path: Path, password: str, algorithm: str) -> Path:
    writer = pypdf.PdfWriter(pdf(path, "Secret."))
    writer.encrypt(password, owner_password="owner", algorithm=algorithm)
    writer.write(path)
    return path


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-128", "AES-256"])
def test_encryption_without_a_password(tmp_path: Path, algorithm: str) -> None:
    assert ([(1, "Secret.")], []) == read(encrypt(tmp_path / "a.pdf", "", algorithm))


@pytest.mark.parametrize("algorithm", ["RC4-128", "AES-128", "AES-256"])
def test_encryption_with_a_password(tmp_path: Path, algorithm: str) -> None:
    with pytest.raises(SourceError, match=r"a\.pdf: is encrypted; save it without a password first"):
        read(encrypt(tmp_path / "a.pdf", "secret", algorithm))


def test_aes_without_its_library_names_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = encrypt(tmp_path / "a.pdf", "", "AES-256")
    for name in [name for name in sys.modules if name.partition(".")[0] in ("pypdf", "cryptography", "Crypto")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    monkeypatch.setitem(sys.modules, "Crypto", None)
    with pytest.raises(MissingLibraryError, match=r"a\.pdf: is encrypted with AES; run pip install 'pypdf\[crypto\]'"):
        read(path)
