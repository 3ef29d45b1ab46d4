"""The formats of transcripts, one row each, and their recognition by content."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import attrs

from ctxbackends.knowledge._sources.base import Piece, SkippedInput
from ctxbackends.knowledge._sources.transcripts import chatgpt, claude_code, codex, copilot, cursor, gemini, plain
from ctxbackends.knowledge._sources.transcripts.feed import BOM_AND_SPACE, Feed, find_object
from ctxbackends.knowledge._sources.transcripts.passages import Object

HEAD = 64 << 10
_MAX_RECORDS = 200
_JSON_START = re.compile(rb'\{\s*(?:"|\}[ \t\r]*(?:\n|\Z))|\[\s*(?:\{|\]\s*\Z)')


@attrs.frozen
class Format:
    """A format of transcripts.

    Attributes:
        name: Its name for people.
        read: Yields the pieces.
        matches_record: Whether an object of JSON lines has this format.
        matches_document: Whether a JSON document has it, by its first bytes and its first object inside of another.
        matches_text: Whether a text has it, by its first characters.
    """

    name: str
    read: Callable[[Feed], Iterator[Piece]]
    matches_record: Callable[[Object], bool] | None = None
    matches_document: Callable[[bytes, Object | None], bool] | None = None
    matches_text: Callable[[str], bool] | None = None


FORMATS: Sequence[Format] = (
    Format("Claude Code", claude_code.read, matches_record=claude_code.matches),
    Format("Codex", codex.read, matches_record=codex.matches),
    Format("Copilot CLI", copilot.read, matches_record=copilot.matches),
    Format("Gemini CLI", gemini.read_lines, matches_record=gemini.matches),
    Format("Cursor", cursor.read, matches_record=cursor.matches),
    Format("Gemini CLI", gemini.read_document, matches_document=gemini.matches_document),
    Format("ChatGPT", chatgpt.read, matches_document=chatgpt.matches_document),
    Format("aider", plain.read_aider, matches_text=plain.is_aider),
    Format("text with speakers", plain.read_speakers, matches_text=plain.names_speakers),
)
"""The order decides where two formats match. JSON lines come before documents: one line can be both."""

NAMES = tuple(dict.fromkeys(format_.name for format_ in FORMATS))


class UnknownFormatError(Exception):
    """The content is JSON of no known format; the message names it."""


def looks_like_json(head: bytes) -> bool:
    """Return whether a file begins as a JSON object, a list of objects, or JSON lines whose first may be cut."""
    if _JSON_START.match(head.lstrip(BOM_AND_SPACE)) is not None:
        return True
    second = head.split(b"\n", 2)[1:2]
    record = find_object(second[0]) if second and second[0].startswith(b"{") else None
    return record is not None and _match_record(record) is not None


def _match_record(record: Object) -> Format | None:
    return next((one for one in FORMATS if one.matches_record is not None and one.matches_record(record)), None)


def names_speakers(head: bytes) -> bool:
    """Return whether a text that is not JSON is a transcript, from its first bytes."""
    return recognize_text(head) is not None


def recognize_text(head: bytes) -> Format | None:
    """Return the format of a text that is not JSON, from its first bytes; None for text without speakers."""
    text = head.decode("utf-8", "ignore").removeprefix("\ufeff")
    return next((one for one in FORMATS if one.matches_text is not None and one.matches_text(text)), None)


def recognize(feed: Feed) -> Format | None:
    """Return the format of a file, None for text without speakers.

    Raises:
        UnknownFormatError: It is JSON of another kind.
    """
    head = feed.head(HEAD)
    if not looks_like_json(head):
        return recognize_text(head)
    is_list = feed.is_list()
    objects = () if is_list else islice(_iter_objects(feed), _MAX_RECORDS)
    records = [value for value in objects if value is not None]
    for record in records:
        if (match := _match_record(record)) is not None:
            return match
    inner = _first_inner_object(feed, 1 if is_list else 2)
    for one in FORMATS:
        if one.matches_document is not None and one.matches_document(head, inner):
            return one
    raise UnknownFormatError(_describe(head, records))


def _iter_objects(feed: Feed) -> Iterator[Object | None]:
    for record in feed.records():
        yield None if isinstance(record, SkippedInput) else record[1]


def _first_inner_object(feed: Feed, depth: int) -> Object | None:
    first = next(feed.values(depth), None)
    return find_object(first.data) if first is not None else None


def _describe(head: bytes, records: Sequence[Object]) -> str:
    """Return the kind of JSON for the error."""
    if b'"nbformat"' in head or b'"cells"' in head[:200]:
        return "a Jupyter notebook"
    if len(records) > 1:
        names = ", ".join(dict.fromkeys(f'"{record["type"]}"' for record in records if "type" in record))
        members = ", ".join(f'"{name}"' for name in list(records[0])[:5])
        return f"JSON lines of an unknown program (types {names[:80]})" if names else f"JSON lines with {members}"
    names = ", ".join(name.decode("utf-8", "replace") for name in re.findall(rb'"[^"\\]{1,40}"(?=\s*:)', head)[:5])
    return f"JSON with {names}" if names else "JSON without members"
