"""Sessions of Cursor: ``~/.cursor/projects/<directory>/agent-transcripts/``.

The user's words are in ``<user_query>``; other tags have what Cursor adds.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from ctxbackends.knowledge._sources.base import Piece
from ctxbackends.knowledge._sources.transcripts.content import count_images, read_block, text_in
from ctxbackends.knowledge._sources.transcripts.feed import Feed, read_records
from ctxbackends.knowledge._sources.transcripts.passages import (
    InvalidRecordError,
    Object,
    Passages,
    Turn,
    as_object,
    cut_tag,
    short_text,
)

_ROLES = ("user", "assistant")


def matches(record: Object) -> bool:
    """Return whether a record was written by Cursor."""
    content = as_object(record.get("message")).get("content")
    return "type" not in record and record.get("role") in _ROLES and isinstance(content, str | list)


def read(feed: Feed) -> Iterator[Piece]:
    """Yield the pieces of a session."""
    passages = Passages(feed.name)
    yield from read_records(feed, passages, partial(_read_record, passages))


def _read_record(passages: Passages, record: Object, line: int) -> Iterator[Piece]:
    role, message = record.get("role"), record.get("message")
    if role not in (*_ROLES, "tool"):
        if record.get("type") is None:
            raise InvalidRecordError("is not a transcript line: it has neither type nor role")
        return
    turn = Turn(line=line, timestamp=short_text(record, "timestamp"))
    content = message.get("content") if isinstance(message, dict) else record.get("content", message)
    blocks: list[Any] = [{"type": "text", "text": content}] if isinstance(content, str) else content or []
    if not isinstance(blocks, list):
        raise InvalidRecordError("has content that is neither a string nor a list of blocks")
    for block in blocks:
        if not isinstance(block, dict):
            raise InvalidRecordError("has a content block that is not an object")
        if block.get("type") == "text":
            text = block.get("text")
            if not isinstance(text, str):
                raise InvalidRecordError("has a text block without text")
            yield from _read_text(passages, turn, str(role), text)
        elif block.get("type") == "tool_result":
            passages.leave_out("image", count_images(block.get("content")))
            text, failed = text_in(block.get("content")), block.get("is_error") is True
            yield from passages.result(turn, text, call_id=block.get("tool_use_id"), failed=failed)
        else:
            yield from read_block(passages, turn, block, "user" if role == "user" else "assistant")


def _read_text(passages: Passages, turn: Turn, role: str, text: str) -> Iterator[Piece]:
    if role == "assistant":
        yield from passages.say(turn, "assistant", text)
    elif role == "tool":
        yield from passages.result(turn, text)
    else:
        around, queries = cut_tag(text, "user_query")
        if queries:
            yield from passages.say(turn, "system", around, "context")
        yield from passages.say(turn, "user", "\n".join(queries) if queries else text)
