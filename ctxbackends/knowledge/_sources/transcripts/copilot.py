"""Sessions of the Copilot CLI: ``~/.copilot/session-state/<session>/events.jsonl``.

The types and members are those of session-events.schema.json in github/copilot-sdk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ctxbackends.knowledge._sources.base import Piece
from ctxbackends.knowledge._sources.transcripts.feed import Feed, read_records
from ctxbackends.knowledge._sources.transcripts.passages import (
    InvalidRecordError,
    Object,
    Passages,
    Turn,
    Twins,
    as_object,
    as_text,
    decode_arguments,
    objects_in,
    short_text,
)

_FAMILIES = ("session.", "user.", "assistant.", "tool.", "subagent.", "hook.", "system.", "permission.", "skill.")


def matches(record: Object) -> bool:
    """Return whether a record was written by the Copilot CLI."""
    kind = record.get("type")
    return isinstance(kind, str) and kind.startswith(_FAMILIES) and isinstance(record.get("data"), dict)


def read(feed: Feed) -> Iterator[Piece]:
    """Yield the pieces of a session."""
    reader = _Reader(Passages(feed.name))
    yield from read_records(feed, reader.passages, reader.read)


class _Reader:
    def __init__(self, passages: Passages) -> None:
        self.passages = passages
        self._session_id: str | None = None
        self._branch: str | None = None
        self._calls = Twins()

    def read(self, record: Object, line: int) -> Iterator[Piece]:
        kind, data = record.get("type"), as_object(record.get("data"))
        if kind is None:
            raise InvalidRecordError("is not a transcript line: it has neither type nor role")
        if kind in ("session.start", "session.resume", "session.context_changed"):
            context = as_object(data.get("context")) or data
            self._session_id = short_text(data, "sessionId") or self._session_id
            self._branch = short_text(context, "branch") or self._branch
            return
        turn = Turn(
            line=line,
            timestamp=short_text(record, "timestamp"),
            session_id=self._session_id,
            branch=self._branch,
            is_sub_agent=bool(data.get("parentToolCallId") or record.get("agentId")),
        )
        yield from self._read_event(turn, str(kind), data)

    def _read_event(self, turn: Turn, kind: str, data: Object) -> Iterator[Piece]:
        say, text = self.passages.say, as_text(data.get("content"))
        if kind == "user.message":
            self.passages.leave_out("attachment", sum(1 for _ in objects_in(data.get("attachments"))))
            is_typed = data.get("source") in (None, "user")
            yield from say(turn, "user" if is_typed else "system", text, None if is_typed else "notice")
        elif kind == "assistant.message":
            yield from say(turn, "assistant", text)
            self.passages.leave_out("thinking block", int(bool(data.get("reasoningText"))))
            for call in objects_in(data.get("toolRequests")):
                yield from self._read_call(turn, "message", call.get("toolCallId"), call.get("name"), call)
        elif kind == "tool.execution_start":
            yield from self._read_call(turn, "start", data.get("toolCallId"), data.get("toolName"), data)
        elif kind == "tool.execution_complete":
            result, error = as_object(data.get("result")), as_object(data.get("error"))
            output = as_text(result.get("content")) or as_text(error.get("message"))
            failed = data.get("success") is False
            yield from self.passages.result(turn, output, call_id=data.get("toolCallId"), failed=failed)
        elif kind == "session.compaction_complete":
            yield from say(turn, "summary", as_text(data.get("summaryContent")))
        elif kind in ("session.error", "session.warning", "session.info", "system.notification"):
            yield from say(turn, "system", as_text(data.get("message")) or text, kind.rpartition(".")[2])
        elif kind == "user_input.completed":
            yield from say(turn, "user", as_text(data.get("answer")), "user (answers a question)")
        elif kind == "assistant.reasoning":
            self.passages.leave_out("thinking block")
        elif kind in ("system.message", "skill.invoked"):
            self.passages.leave_out("program instruction")

    def _read_call(self, turn: Turn, place: str, call_id: Any, name: Any, call: Object) -> Iterator[Piece]:
        if self._calls.is_first(place, str(call_id)):
            arguments = decode_arguments(call.get("arguments") or "")
            yield from self.passages.call(turn, str(name or "tool"), arguments, call_id=call_id)
