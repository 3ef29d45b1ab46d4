"""E-mail messages: headers and text, without attachments."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path

import pytest

from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._sources.base import Segment
from ctxbackends.knowledge._sources.documents.mail import MailSource


def message(text: str | None) -> EmailMessage:
    mail = EmailMessage()
    mail["From"] = "Ada <ada@example.org>"
    mail["To"] = "team@example.org"
    mail["Subject"] = "Größe of the cache"
    mail["X-Spam"] = "no"
    if text is not None:
        mail.set_content(text)
    return mail


HEADERS = (1, "From: Ada <ada@example.org>\nTo: team@example.org\nSubject: Größe of the cache")


def read(path: Path, data: bytes) -> tuple[list[tuple[int, str]], list[str]]:
    (path / "a.eml").write_bytes(data)
    source = MailSource(path / "a.eml", name="a.eml")
    source.prepare()
    pieces = list(source.pieces())
    texts = [(piece.first, piece.text) for piece in pieces if isinstance(piece, Segment)]
    return texts, [str(piece) for piece in pieces if not isinstance(piece, Segment)]


def test_plain_text(tmp_path: Path) -> None:
    texts, skipped = read(tmp_path, message("We keep the größe,\nfor now.\n\n> Really?\n").as_bytes())
    assert [HEADERS, (2, "We keep the größe,\nfor now."), (3, "> Really?")] == texts
    assert [] == skipped


def test_of_alternatives_the_plain_text(tmp_path: Path) -> None:
    mail = message("Plain.\n")
    mail.add_alternative("<p>Rich.</p>", subtype="html")
    mail.add_attachment(b"x" * 5000, maintype="application", subtype="pdf", filename="plan.pdf")
    mail.add_attachment("Never.", filename="notes.txt")
    texts, skipped = read(tmp_path, mail.as_bytes())
    assert [HEADERS, (2, "Plain.")] == texts
    assert ["a.eml: 2 attachments left out: plan.pdf, notes.txt"] == skipped


def test_html_alone(tmp_path: Path) -> None:
    mail = message(None)
    mail.set_content("<html><body><p>We keep\nit.</p><p>Second.</p></body></html>", subtype="html")
    mail.add_related(b"x" * 50, maintype="image", subtype="png", cid="<a>")
    texts, skipped = read(tmp_path, mail.as_bytes())
    assert [HEADERS, (2, "We keep it."), (3, "Second.")] == texts
    assert ["a.eml: 1 attachment left out: image/png"] == skipped


def test_invalid_messages(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"a\.eml: cannot be read as e-mail: it has no headers"):
        read(tmp_path, b"no mail\n")
    data = b"Subject: a\nContent-Type: text/plain; charset=utf-8\nContent-Transfer-Encoding: 8bit\n\nGr\xf6\xdfe\n"
    with pytest.raises(
        SourceError, match=r"a\.eml: cannot be read as e-mail: its text is not in its declared encoding"
    ):
        read(tmp_path, data)
