"""Session transcripts of Claude Code and Cursor: one JSON object a line, made into turns, tool calls and tool results.

Claude Code writes ``{"type": "user" | "assistant", "timestamp", "sessionId", "gitBranch", "message": {...}}``, and
lines of other types, which are no turns. Cursor writes ``{"role", "message": {"content"}}``. The content is a text or
blocks of the Anthropic API. Thinking, images and what Claude Code marks as meta are left out: nobody said it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._sources.base import Input, Piece, Segment, SkippedInput
from ctxbackends.knowledge._sources.files import FileSource, Line, scan
from ctxbackends.knowledge._sources.split import split_to_fit
from ctxbackends.knowledge._sources.text import MAX_SEGMENT_BYTES

MAX_LINE = 8 << 20
"""Bytes of a line that is read. Longer ones hold images and whole files, and nothing that anybody said."""

MAX_TOOL_TEXT = 4_000
"""Characters of a tool call or result that are shown: the first three quarters and the last one."""

_TURNS = ("user", "assistant")


class TranscriptSource(FileSource):
    """A ``.jsonl`` transcript. A line that cannot be read is reported and left out. ``name`` is what citations say."""

    def prepare(self) -> Input:
        with self._open() as file:
            self._input = scan(self.name, file, strict=False)  # a bad byte is the matter of its line
        if not any(isinstance(piece, Segment) for piece in self.pieces()):
            raise SourceError(self.name, "holds no turn of a Claude Code or Cursor transcript")
        return self._input

    def pieces(self) -> Iterator[Piece]:
        reader = _Reader(self.name)
        for line in self._lines(most=MAX_LINE):
            yield from reader.read(line)


class _BrokenLine(Exception):
    """Why a line is no line of a transcript."""


class _Reader:
    """Turns one line after the other into pieces. Remembers the names of the tools that were called."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tools: dict[str, str] = {}

    def read(self, line: Line) -> Iterator[Piece]:
        if not line.is_complete:
            yield self._skipped(
                line,
                f"is a line of {line.size / (1 << 20):.1f} MB; lines of more than {MAX_LINE >> 20} MB are not read",
            )
            return
        if not line.data.strip():
            return
        try:
            pieces = list(self._pieces(line))
        except _BrokenLine as broken:
            pieces = [self._skipped(line, str(broken))]
        yield from pieces

    def _skipped(self, line: Line, reason: str) -> SkippedInput:
        return SkippedInput(source=self._name, line=line.number, reason=reason)

    def _pieces(self, line: Line) -> Iterator[Piece]:
        try:
            value = msgspec.json.decode(line.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _BrokenLine("is no line of JSON") from None
        if not isinstance(value, dict):
            raise _BrokenLine("is no JSON object")
        kind = value.get("type")
        message = value.get("message")
        role = _role(value, message)
        if role is None:
            if kind is None and "role" not in value:
                raise _BrokenLine("is neither a turn nor a note of a transcript")
            return
        if value.get("isMeta") is True:
            return
        content = message.get("content") if isinstance(message, dict) else value.get("content", message)
        speaker = f"{role} (sub-agent)" if value.get("isSidechain") is True else role
        base = Segment(
            text="",
            first=line.number,
            last=line.number,
            label=speaker,
            timestamp=_text_of(value, "timestamp"),
            session_id=_text_of(value, "sessionId"),
            branch=_text_of(value, "gitBranch"),
        )
        if isinstance(content, str):
            yield from self._said(base, content, role)
        elif isinstance(content, list):
            for block in content:
                if not isinstance(block, dict):
                    raise _BrokenLine("has content that is no block")
                yield from self._block(base, block, role, line)
        elif content is not None:
            raise _BrokenLine("has content that is neither text nor blocks")

    def _block(self, base: Segment, block: dict[str, Any], role: str, line: Line) -> Iterator[Piece]:
        kind = block.get("type")
        if kind == "text":
            text = block.get("text")
            if not isinstance(text, str):
                raise _BrokenLine("has a text block without a text")
            yield from self._said(base, text, role)
        elif kind == "tool_use":
            name = str(block.get("name") or "tool")
            self._tools[str(block.get("id"))] = name
            arguments = msgspec.json.encode(block.get("input") or {}).decode("utf-8", "replace")
            yield from self._shortened(base, f"{name} call", arguments, line)
        elif kind == "tool_result":
            name = self._tools.get(str(block.get("tool_use_id")), "tool")
            failed = " (failed)" if block.get("is_error") is True else ""
            yield from self._shortened(base, f"{name} result{failed}", _result_text(block.get("content")), line)

    def _said(self, base: Segment, text: str, role: str) -> Iterator[Piece]:
        if text.strip():
            whole = msgspec.structs.replace(base, text=_clean(text), boundary=2 if role == "user" else 1)
            yield from split_to_fit(whole, MAX_SEGMENT_BYTES)

    def _shortened(self, base: Segment, label: str, text: str, line: Line) -> Iterator[Piece]:
        text = _clean(text)
        if len(text) > MAX_TOOL_TEXT:
            left_out = len(text) - MAX_TOOL_TEXT
            head, tail = MAX_TOOL_TEXT * 3 // 4, MAX_TOOL_TEXT // 4
            yield self._skipped(line, f"{left_out:,} of {len(text):,} characters of a {label} were left out")
            text = f"{text[:head]}\n[... {left_out} characters ...]\n{text[-tail:]}"
        if text.strip():
            yield msgspec.structs.replace(base, text=text, label=label)


def _role(value: dict[str, Any], message: Any) -> str | None:
    """Who speaks, or None where the line is no turn."""
    named = (value.get("type"), value.get("role"), message.get("role") if isinstance(message, dict) else None)
    return next((role for role in named if role in _TURNS), None)


def _text_of(value: dict[str, Any], member: str) -> str | None:
    found = value.get(member)
    return found if isinstance(found, str) and 0 < len(found) <= 200 and found.isprintable() else None


def _result_text(content: Any) -> str:
    """What a tool gave, less images and what else is no text."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "\n".join(text for text in texts if isinstance(text, str))


def _clean(text: str) -> str:
    """``text`` without white space around it. Raises _BrokenLine where it is no Unicode (half of a surrogate pair)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _BrokenLine("holds half of a surrogate pair, which is no Unicode") from None
    return text.strip().replace("\r\n", "\n")
