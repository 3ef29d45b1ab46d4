"""Rollouts of Codex: ``~/.codex/sessions/<year>/<month>/<day>/rollout-*.jsonl``.

Records are ``{"timestamp", "type", "payload"}``: ``session_meta``, ``response_item`` with an item of the Responses API,
``compacted`` and ``event_msg``, which repeats messages. Before September 2025 a file began with ``{"id", "timestamp",
"instructions"}``, and each other line was an item. (openai/codex, codex-rs/protocol)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ctxbackends.knowledge._records import Speaker
from ctxbackends.knowledge._sources.base import Piece
from ctxbackends.knowledge._sources.transcripts.content import count_images, text_in
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
    short_text,
)

_ENVELOPES = ("session_meta", "response_item", "event_msg", "turn_context", "compacted")
_ITEMS = ("message", "function_call", "function_call_output", "reasoning", "local_shell_call", "custom_tool_call")
_SUMMARY_START = "Another language model started to solve this problem and produced a summary"
# Texts that the program sends as the user.
_CONTEXT = ("<environment_context>", "<user_instructions>", "# AGENTS.md instructions", "<INSTRUCTIONS>", "<skill>")
_NOTICES = ("<turn_aborted>", "<subagent_notification>", "<user_shell_command>")


def matches(record: Object) -> bool:
    """Return whether a record was written by Codex."""
    kind = record.get("type")
    if kind in _ENVELOPES:
        return isinstance(record.get("payload"), dict)
    if kind is None:
        return "instructions" in record and "id" in record and "timestamp" in record
    return kind in _ITEMS and "payload" not in record and ("role" in record or "call_id" in record)


def read(feed: Feed) -> Iterator[Piece]:
    """Yield the pieces of a session."""
    reader = _Reader(Passages(feed.name))
    yield from read_records(feed, reader.passages, reader.read)


class _Reader:
    def __init__(self, passages: Passages) -> None:
        self.passages = passages
        self._session_id: str | None = None
        self._branch: str | None = None
        self._is_sub_agent = False
        self._messages = Twins()

    def read(self, record: Object, line: int) -> Iterator[Piece]:
        kind, payload = record.get("type"), as_object(record.get("payload"))
        if kind == "session_meta" or (kind is None and "instructions" in record):
            self._read_meta(payload or record)
            return
        turn = Turn(
            line=line,
            timestamp=short_text(record, "timestamp"),
            session_id=self._session_id,
            branch=self._branch,
            is_sub_agent=self._is_sub_agent,
        )
        if kind == "event_msg":
            yield from self._read_event(turn, payload)
        elif kind == "compacted":
            yield from self.passages.say(turn, "summary", as_text(payload.get("message")))
        elif kind == "response_item":
            yield from self._read_item(turn, payload)
        elif kind is not None and kind not in _ENVELOPES:
            yield from self._read_item(turn, record)
        elif kind is None and "record_type" not in record:
            raise InvalidRecordError("is not a transcript line: it has neither type nor role")

    def _read_meta(self, meta: Object) -> None:
        if self._session_id is None:  # a fork repeats the records of its parent
            self._session_id = short_text(meta, "id")
            self._branch = short_text(as_object(meta.get("git")), "branch")
            self._is_sub_agent = "subagent" in as_object(meta.get("source"))

    def _read_event(self, turn: Turn, event: Object) -> Iterator[Piece]:
        kind, text = event.get("type"), event.get("message")
        if kind == "user_message" and isinstance(text, str):
            yield from self._read_message(turn, "event", "user", text)
        elif kind == "agent_message" and isinstance(text, str):
            yield from self._read_message(turn, "event", "assistant", text)
        elif kind in ("error", "stream_error", "warning") and isinstance(text, str):
            yield from self.passages.say(turn, "system", text, str(kind).replace("_", " "))

    def _read_item(self, turn: Turn, item: Object) -> Iterator[Piece]:
        kind, call_id = item.get("type"), item.get("call_id")
        name = str(item.get("name") or "tool")
        if kind == "message":
            content = item.get("content")
            self.passages.leave_out("image", count_images(content))
            yield from self._read_message(turn, "item", str(item.get("role")), text_in(content))
        elif kind == "function_call":
            yield from self.passages.call(turn, name, decode_arguments(item.get("arguments")), call_id=call_id)
        elif kind == "custom_tool_call":
            yield from self.passages.call(turn, name, item.get("input") or "", call_id=call_id)
        elif kind == "local_shell_call":
            command = as_object(item.get("action")).get("command") or ""
            yield from self.passages.call(turn, "shell", command, call_id=call_id)
        elif kind == "web_search_call":
            yield from self.passages.call(turn, "web search", as_object(item.get("action")).get("query") or "")
        elif kind in ("function_call_output", "custom_tool_call_output", "local_shell_call_output"):
            yield from self._read_output(turn, item.get("output"), call_id)
        elif kind == "reasoning":
            self.passages.leave_out("thinking block")
        elif kind not in ("ghost_snapshot", "compaction", "compaction_trigger"):
            self.passages.leave_unread(kind)

    def _read_output(self, turn: Turn, output: Any, call_id: object) -> Iterator[Piece]:
        self.passages.leave_out("image", count_images(output))
        value = decode_arguments(output)
        if isinstance(value, dict):
            output, metadata = value.get("output", value.get("content", output)), as_object(value.get("metadata"))
            failed = value.get("success") is False or metadata.get("exit_code") not in (None, 0)
        else:
            failed = False
        text = output if isinstance(output, str) else text_in(output)
        yield from self.passages.result(turn, text, call_id=call_id, failed=failed)

    def _read_message(self, turn: Turn, place: str, role: str, text: str) -> Iterator[Piece]:
        if role not in ("user", "assistant"):
            self.passages.leave_out("program instruction")
        elif not self._messages.is_first(place, text):
            return
        elif role == "assistant":
            yield from self.passages.say(turn, "assistant", text)
        else:
            speaker, label = _classify(text)
            yield from self.passages.say(turn, speaker, text, label)


def _classify(text: str) -> tuple[Speaker, str | None]:
    text = text.lstrip()
    if text.startswith(_SUMMARY_START):
        return "summary", None
    if text.startswith(_CONTEXT):
        return "system", "context"
    if text.startswith(_NOTICES):
        return "system", "notice"
    return "user", None
