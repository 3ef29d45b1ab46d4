"""Sessions and checkpoints of the Gemini CLI: ``~/.gemini/tmp/<project>/chats/session-*.json(l)``.

A ``.json`` session is one object with ``messages``. A ``.jsonl`` session is a log: a message is written again whenever
it changes, ``$rewindTo`` takes messages back, and ``$set`` changes the session. A checkpoint has contents of the Gemini
API. (google-gemini/gemini-cli, packages/core/src/services/chatRecordingTypes.ts)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ctxbackends.knowledge._records import Speaker
from ctxbackends.knowledge._sources.base import Piece, Segment
from ctxbackends.knowledge._sources.transcripts.feed import MAX_LINE, Feed, decode_object, find_object, read_records
from ctxbackends.knowledge._sources.transcripts.json_values import Value
from ctxbackends.knowledge._sources.transcripts.passages import (
    InvalidRecordError,
    Object,
    Passages,
    Turn,
    as_object,
    as_text,
    objects_in,
    short_text,
)

_SPEAKERS: dict[str, tuple[Speaker, str | None]] = {
    "user": ("user", None),
    "user_shell": ("user", "user (command)"),
    "gemini": ("assistant", None),
    "info": ("system", "info"),
    "error": ("system", "error"),
    "warning": ("system", "warning"),
}
_REFERENCED = "--- Content from referenced files ---"
_SUMMARY_TAG = "<state_snapshot>"
_HEAD = 4096


def matches(record: Object) -> bool:
    """Return whether a record is of a ``.jsonl`` session."""
    if "$set" in record or "$rewindTo" in record:
        return True
    return "sessionId" in record and "projectHash" in record


def matches_document(head: bytes, value: Object | None) -> bool:
    """Return whether a JSON document is a session, a checkpoint or a log of messages.

    Args:
        head: The first bytes.
        value: The first object inside of another, if there is one.
    """
    if b'"projectHash"' in head and b'"sessionId"' in head:
        return True
    if value is None:
        return False
    is_content = value.get("role") in ("user", "model") and isinstance(value.get("parts"), list)
    return is_content or ("messageId" in value and "sessionId" in value and "message" in value)


# --- JSON lines -----------------------------------------------------------------------------------------


def read_lines(feed: Feed) -> Iterator[Piece]:
    """Yield the pieces of a ``.jsonl`` session."""
    passages = Passages(feed.name)
    log = _Log()
    for line in feed.lines():
        if line.is_complete:
            log.add(line.data, line.number)
    passages.leave_out("withdrawn message", log.rewound)
    session_id: str | None = None

    def read(record: Object, line: int) -> Iterator[Piece]:
        nonlocal session_id
        session_id = short_text(record, "sessionId") or session_id
        for message in _messages_of(record):
            if log.lines.get(str(message.get("id"))) == line:
                yield from _read_message(passages, message, line, session_id)

    yield from read_records(feed, passages, read)


class _Log:
    """The last line of each message that was not taken back."""

    def __init__(self) -> None:
        self.lines: dict[str, int] = {}
        self.rewound = 0
        self._own_line: set[str] = set()

    def add(self, data: bytes, line: int) -> None:
        record = find_object(data)
        if record is None:  # it is reported when it is read
            return
        target = record.get("$rewindTo")
        if isinstance(target, str):
            self._rewind(target)
        for message in _messages_of(record):
            name = str(message.get("id"))
            if message is record:
                self._own_line.add(name)
            elif name in self._own_line:
                continue  # $set repeats it
            self.lines[name] = line

    def _rewind(self, target: str) -> None:
        names = list(self.lines)
        if target in self.lines:
            for name in names[names.index(target) :]:
                del self.lines[name]
                self.rewound += 1


def _messages_of(record: Object) -> Iterator[Object]:
    if isinstance(record.get("id"), str) and "type" in record:
        yield record
    for messages in (record.get("messages"), as_object(record.get("$set")).get("messages")):
        yield from (message for message in objects_in(messages) if isinstance(message.get("id"), str))


# --- JSON documents -------------------------------------------------------------------------------------


def read_document(feed: Feed) -> Iterator[Piece]:
    """Yield the pieces of a ``.json`` session or checkpoint."""
    passages = Passages(feed.name)
    session_id = _find_session_id(feed.head(_HEAD))
    for value in feed.values(1 if feed.is_list() else 2):
        if value.size > MAX_LINE or not value.data:
            size = f"{value.size / (1 << 20):.1f} MB"
            yield passages.skip(value.line, f"has {size}; messages of more than {MAX_LINE >> 20} MB are skipped")
            continue
        try:
            pieces = list(_read_value(passages, value, session_id))
        except (InvalidRecordError, RecursionError) as error:
            pieces = [passages.skip(value.line, str(error) or "is nested too deeply")]
        yield from pieces
    yield from passages.summarize()


def _find_session_id(head: bytes) -> str | None:
    _, found, rest = head.partition(b'"sessionId"')
    text = rest.partition(b'"')[2].partition(b'"')[0] if found else b""
    return text.decode("ascii", "replace") if 0 < len(text) <= 200 and text.isascii() else None


def _read_value(passages: Passages, value: Value, session_id: str | None) -> Iterator[Piece]:
    message = decode_object(value.data)
    for piece in _read_message(passages, message, value.line, session_id):
        if isinstance(piece, Segment):
            line = value.line_of(piece.text)
            yield msgspec.structs.replace(piece, first=line, last=line)
        else:
            yield piece


def _read_message(passages: Passages, message: Object, line: int, session_id: str | None) -> Iterator[Piece]:
    turn = Turn(
        line=line,
        timestamp=short_text(message, "timestamp"),
        session_id=short_text(message, "sessionId") or session_id,
    )
    kind = message.get("type")
    if "parts" in message:
        role = "user" if message.get("role") == "user" else "gemini"
        yield from _read_content(passages, turn, role, message.get("parts"))
        return
    if kind not in _SPEAKERS:
        if kind is not None:
            passages.leave_unread(kind)
        return
    content = message.get("displayContent") or message.get("content", message.get("message"))
    yield from _read_content(passages, turn, str(kind), content)
    passages.leave_out("thinking block", sum(1 for _ in objects_in(message.get("thoughts"))))
    for call in objects_in(message.get("toolCalls")):
        name = str(call.get("name") or "tool")
        yield from passages.call(turn, name, call.get("args") or {})
        failed = call.get("status") in ("error", "cancelled")
        yield from passages.result(turn, _result_of(call), name=name, failed=failed)


def _read_content(passages: Passages, turn: Turn, kind: str, content: Any) -> Iterator[Piece]:
    """Yield a string, a part or a list of parts."""
    speaker, label = _SPEAKERS[kind]
    parts: list[Any] = content if isinstance(content, list) else [content]
    for part in parts:
        if isinstance(part, str):
            part = {"text": part}
        if not isinstance(part, dict):
            continue
        text, call, response = part.get("text"), as_object(part.get("functionCall")), part.get("functionResponse")
        if isinstance(text, str) and part.get("thought") is True:
            passages.leave_out("thinking block")
        elif isinstance(text, str):
            typed, marker, referenced = text.partition(_REFERENCED)
            is_summary = kind == "user" and typed.lstrip().startswith(_SUMMARY_TAG)
            yield from passages.say(turn, "summary" if is_summary else speaker, typed, label)
            if marker:
                yield from passages.result(turn, referenced, name="referenced files")
        elif call:
            yield from passages.call(turn, str(call.get("name") or "tool"), call.get("args") or {})
        elif isinstance(response, dict):
            name = str(response.get("name") or "tool")
            yield from passages.result(turn, _response_text(response), name=name)
        elif "inlineData" in part or "fileData" in part:
            passages.leave_out("image")


def _result_of(call: Object) -> str:
    result = call.get("result")
    parts = result if isinstance(result, list) else [result]
    texts = []
    for part in parts:
        if isinstance(part, str):
            texts.append(part)
        elif isinstance(part, dict):
            text = part.get("text")
            texts.append(text if isinstance(text, str) else _response_text(as_object(part.get("functionResponse"))))
    display = call.get("resultDisplay")
    joined = "\n".join(text for text in texts if text)
    return joined or as_text(display)


def _response_text(response: Object) -> str:
    value = as_object(response.get("response"))
    return as_text(value.get("output", value.get("error", value.get("content"))))
