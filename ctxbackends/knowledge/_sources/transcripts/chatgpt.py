"""Exports of ChatGPT: ``conversations.json``, a list of conversations, or one of them.

A conversation is a tree: ``mapping`` has the nodes with ``message``, ``parent`` and ``children``, and ``current_node``
is the end of the branch that the user sees. Other branches are answers and questions that were replaced.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import msgspec

from ctxbackends.knowledge._records import Speaker
from ctxbackends.knowledge._sources.base import Piece, Segment
from ctxbackends.knowledge._sources.transcripts.feed import Feed, decode_object, find_object
from ctxbackends.knowledge._sources.transcripts.json_values import MAX_VALUE, Value, iter_values
from ctxbackends.knowledge._sources.transcripts.passages import (
    InvalidRecordError,
    Object,
    Passages,
    Turn,
    as_object,
    short_text,
)

_THOUGHTS = ("thoughts", "reasoning_recap")
_SPEAKERS: dict[str, Speaker] = {"user": "user", "assistant": "assistant", "system": "system", "tool": "tool"}


def matches_document(head: bytes, value: Object | None) -> bool:
    """Return whether a JSON document is an export; see :func:`gemini.matches_document`."""
    return b'"mapping"' in head or (value is not None and "mapping" in value)


def read(feed: Feed) -> Iterator[Piece]:
    """Yield the pieces of an export."""
    passages = Passages(feed.name)
    for value in feed.values(1 if feed.is_list() else 0):
        if not value.data:
            size = f"{value.size / (1 << 20):.1f} MB"
            yield passages.skip(value.line, f"has {size}; conversations of more than {MAX_VALUE >> 20} MB are skipped")
            continue
        try:
            yield from _read_conversation(passages, value)
        except (InvalidRecordError, RecursionError) as error:
            yield passages.skip(value.line, str(error) or "is nested too deeply")
    yield from passages.summarize()


def _read_conversation(passages: Passages, value: Value) -> Iterator[Piece]:
    conversation = decode_object(value.data)
    mapping = as_object(conversation.get("mapping"))
    session_id = short_text(conversation, "conversation_id") or short_text(conversation, "id")
    branch = _current_branch(mapping, conversation.get("current_node"))
    nodes = _find_nodes(value)
    with_message = sum(1 for node in mapping.values() if isinstance(as_object(node).get("message"), dict))
    shown = [node for node in branch if isinstance(as_object(mapping.get(node)).get("message"), dict)]
    passages.leave_out("replaced message", with_message - len(shown))
    for name in shown:
        message, node = mapping[name]["message"], nodes.get(name, value)
        turn = Turn(line=node.line, timestamp=_format_time(message.get("create_time")), session_id=session_id)
        for piece in _read_message(passages, turn, message):
            if isinstance(piece, Segment):
                line = node.line_of(piece.text)
                yield msgspec.structs.replace(piece, first=line, last=line)
            else:
                yield piece


def _find_nodes(value: Value) -> dict[str, Value]:
    """Return the nodes of a conversation by id, with their lines."""
    nodes: dict[str, Value] = {}
    for node in iter_values([value.data], 2):
        name = as_object(find_object(node.data)).get("id")
        if isinstance(name, str):
            nodes[name] = Value(value.line + node.line - 1, node.data, node.size)
    return nodes


def _current_branch(mapping: Object, current: Any) -> list[str]:
    """Return the nodes from the first to the current one; to the last leaf if none is named."""
    if not isinstance(current, str) or current not in mapping:
        leaves = [name for name, node in mapping.items() if not as_object(node).get("children")]
        current = leaves[-1] if leaves else None
    branch: list[str] = []
    seen: set[str] = set()
    while isinstance(current, str) and current in mapping and current not in seen:
        seen.add(current)
        branch.append(current)
        current = as_object(mapping[current]).get("parent")
    return branch[::-1]


def _read_message(passages: Passages, turn: Turn, message: Object) -> Iterator[Piece]:
    content, metadata = as_object(message.get("content")), as_object(message.get("metadata"))
    author = as_object(message.get("author"))
    role, kind = str(author.get("role")), content.get("content_type")
    if metadata.get("is_visually_hidden_from_conversation") is True:
        passages.leave_out("hidden message")
        return
    if kind in _THOUGHTS:
        passages.leave_out("thinking block")
        return
    speaker = _SPEAKERS.get(role)
    if speaker is None:
        passages.leave_unread(role)
        return
    text = _text_of(passages, content)
    recipient = message.get("recipient")
    if role == "assistant" and isinstance(recipient, str) and recipient != "all":
        yield from passages.call(turn, recipient, text)
    elif role == "tool":
        yield from passages.result(turn, text, name=str(author.get("name") or "tool"))
    else:
        yield from passages.say(turn, speaker, text)


def _text_of(passages: Passages, content: Object) -> str:
    parts = content.get("parts")
    texts: list[str] = []
    for part in parts if isinstance(parts, list) else []:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            text = part.get("text")
            if isinstance(text, str):  # a transcript of speech
                texts.append(text)
            else:
                passages.leave_out("image" if "image" in str(part.get("content_type")) else "attachment")
    texts += [content[member] for member in ("text", "result") if isinstance(content.get(member), str)]
    return "\n".join(texts)


def _format_time(seconds: Any) -> str | None:
    if not isinstance(seconds, int | float) or isinstance(seconds, bool):
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except (ValueError, OverflowError, OSError):
        return None
