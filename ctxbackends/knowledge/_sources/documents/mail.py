"""E-mail messages, by the standard library."""

from __future__ import annotations

import email
import email.policy
import io
import re
from collections.abc import Iterator
from email.message import EmailMessage

from ctxbackends._util.text import pluralize
from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._records import Unit
from ctxbackends.knowledge._sources.base import Piece, Segment
from ctxbackends.knowledge._sources.documents.base import DocumentSource, clean
from ctxbackends.knowledge._sources.documents.html import HTMLTextParser

_HEADERS = ("From", "To", "Cc", "Date", "Subject")
_PARAGRAPHS = re.compile(r"\n[ \t]*\n")


class MailSource(DocumentSource):
    """An e-mail message: its headers and its text, without attachments. Places are paragraphs, the headers the first.

    Args:
        path: The file.
        name: The name in citations; the path by default.
    """

    unit: Unit = "paragraph"
    format_name = "e-mail"

    def _convert(self, data: io.BytesIO) -> Iterator[Piece]:
        message = email.message_from_binary_file(data, policy=email.policy.default)
        headers = [f"{name}: {' '.join(str(message[name]).split())}" for name in _HEADERS if message[name]]
        if not headers:
            raise SourceError(self.name, "cannot be read as e-mail: it has no headers")
        yield Segment(text=clean("\n".join(headers)), first=1, last=1, boundary=2)
        left_out: list[str] = []
        number = 1
        for part in _text_parts(message, left_out):
            for text in self._paragraphs(part):
                number += 1
                yield Segment(text=text, first=number, last=number)
        if left_out:
            names = ", ".join(left_out[:5]) + (", ..." if len(left_out) > 5 else "")
            yield self._skip(f"{pluralize(len(left_out), 'attachment')} left out: {names}")

    def _paragraphs(self, part: EmailMessage) -> Iterator[str]:
        try:
            text = clean(part.get_content(errors="strict"))
        except (LookupError, UnicodeDecodeError) as error:
            reason = f"cannot be read as e-mail: its text is not in its declared encoding: {error}"
            raise SourceError(self.name, reason) from None
        if part.get_content_subtype() == "html":
            yield from (" ".join(segment.text.split()) for segment in HTMLTextParser(text).segments())
            return
        for paragraph in _PARAGRAPHS.split(text.replace("\r\n", "\n")):
            if paragraph.strip():
                yield paragraph.strip("\n")


def _text_parts(part: EmailMessage, left_out: list[str]) -> Iterator[EmailMessage]:
    """Yield the parts with text, of alternatives one; add the names of the others to ``left_out``."""
    if part.get_content_type() == "multipart/alternative":
        variants = [variant for variant in part.iter_parts() if isinstance(variant, EmailMessage)]
        plain = [variant for variant in variants if variant.get_content_type() == "text/plain"]
        for variant in (plain or variants[-1:])[:1]:  # the last one is the richest
            yield from _text_parts(variant, left_out)
    elif part.get_content_maintype() == "multipart":
        for child in part.iter_parts():
            if isinstance(child, EmailMessage):
                yield from _text_parts(child, left_out)
    elif part.get_content_disposition() == "attachment" or part.get_content_type() not in ("text/plain", "text/html"):
        left_out.append(clean(part.get_filename() or part.get_content_type()))
    else:
        yield part
