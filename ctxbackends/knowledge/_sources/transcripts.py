"""Session transcripts of Claude Code and Cursor: a JSON object on each line, as turns, tool calls and results.

Claude Code writes ``{"type": "user" | "assistant", "timestamp", "sessionId", "gitBranch", "message": {...}}``, and
lines of other types, which are not turns. Cursor writes ``{"role", "message": {"content"}}``. The content is a string
or a list of blocks as in the Anthropic API. Thinking, images and messages marked as meta are ignored.
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
"""Bytes. Longer lines are skipped; they contain images and whole files."""

MAX_TOOL_TEXT = 4_000
"""Characters. A longer tool call or result is shortened to its first 3,000 and last 1,000 characters."""

_TURNS = ("user", "assistant")


class TranscriptSource(FileSource):
    """A ``.jsonl`` transcript. Places are lines; an invalid line is reported and skipped.

    Args:
        path: The file.
        name: The name in citations; the path by default.
    """

    def prepare(self) -> Input:
        """Read the file once; see :meth:`Source.prepare`."""
        with self._open() as file:
            self._input = scan(self.name, file, strict=False)  # invalid bytes are reported with their line
        if not any(isinstance(piece, Segment) for piece in self.pieces()):
            raise SourceError(self.name, "is not a Claude Code or Cursor transcript: it has no turn")
        return self._input

    def pieces(self) -> Iterator[Piece]:
        """Yield the segments and the skipped lines; see :meth:`Source.pieces`."""
        reader = _Reader(self.name)
        for line in self._lines(max_bytes=MAX_LINE):
            yield from reader.read(line)


class _InvalidLineError(Exception):
    """A line is not part of a transcript."""


class _Reader:
    """Parses lines in order. Keeps the names of the tools that were called."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._tools: dict[str, str] = {}

    def read(self, line: Line) -> Iterator[Piece]:
        if not line.is_complete:
            yield self._skipped(
                line,
                f"has {line.size / (1 << 20):.1f} MB; lines of more than {MAX_LINE >> 20} MB are skipped",
            )
            return
        if not line.data.strip():
            return
        try:
            pieces = list(self._parse(line))
        except _InvalidLineError as error:
            pieces = [self._skipped(line, str(error))]
        yield from pieces

    def _skipped(self, line: Line, reason: str) -> SkippedInput:
        return SkippedInput(source=self._name, line=line.number, reason=reason)

    def _parse(self, line: Line) -> Iterator[Piece]:
        try:
            value = msgspec.json.decode(line.data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise _InvalidLineError("is not valid JSON") from None
        if not isinstance(value, dict):
            raise _InvalidLineError("is not a JSON object")
        kind = value.get("type")
        message = value.get("message")
        role = _role(value, message)
        if role is None:
            if kind is None and "role" not in value:
                raise _InvalidLineError("is not a transcript line: it has neither type nor role")
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
            speaker="user" if role == "user" else "assistant",
            timestamp=_text_of(value, "timestamp"),
            session_id=_text_of(value, "sessionId"),
            branch=_text_of(value, "gitBranch"),
        )
        if isinstance(content, str):
            yield from self._parse_text(base, content, role)
        elif isinstance(content, list):
            for block in content:
                if not isinstance(block, dict):
                    raise _InvalidLineError("has a content block that is not an object")
                yield from self._parse_block(base, block, role, line)
        elif content is not None:
            raise _InvalidLineError("has content that is neither a string nor a list of blocks")

    def _parse_block(self, base: Segment, block: dict[str, Any], role: str, line: Line) -> Iterator[Piece]:
        kind = block.get("type")
        if kind == "text":
            text = block.get("text")
            if not isinstance(text, str):
                raise _InvalidLineError("has a text block without text")
            yield from self._parse_text(base, text, role)
        elif kind == "tool_use":
            name = str(block.get("name") or "tool")
            self._tools[str(block.get("id"))] = name
            arguments = msgspec.json.encode(block.get("input") or {}).decode("utf-8", "replace")
            yield from self._shorten(base, f"{name} call", arguments, line)
        elif kind == "tool_result":
            name = self._tools.get(str(block.get("tool_use_id")), "tool")
            failed = " (failed)" if block.get("is_error") is True else ""
            yield from self._shorten(base, f"{name} result{failed}", _result_text(block.get("content")), line)

    def _parse_text(self, base: Segment, text: str, role: str) -> Iterator[Piece]:
        if text.strip():
            whole = msgspec.structs.replace(base, text=_clean(text), boundary=2 if role == "user" else 1)
            yield from split_to_fit(whole, MAX_SEGMENT_BYTES)

    def _shorten(self, base: Segment, label: str, text: str, line: Line) -> Iterator[Piece]:
        text = _clean(text)
        if len(text) > MAX_TOOL_TEXT:
            dropped = len(text) - MAX_TOOL_TEXT
            head, tail = MAX_TOOL_TEXT * 3 // 4, MAX_TOOL_TEXT // 4
            yield self._skipped(line, f"{dropped:,} of {len(text):,} characters of a {label} were left out")
            text = f"{text[:head]}\n[... {dropped} characters ...]\n{text[-tail:]}"
        if text.strip():
            yield msgspec.structs.replace(base, text=text, label=label, speaker="tool")


def _role(value: dict[str, Any], message: Any) -> str | None:
    """Return the speaker, or None if the line is not a turn."""
    roles = (value.get("type"), value.get("role"), message.get("role") if isinstance(message, dict) else None)
    return next((role for role in roles if role in _TURNS), None)


def _text_of(value: dict[str, Any], member: str) -> str | None:
    text = value.get(member)
    return text if isinstance(text, str) and 0 < len(text) <= 200 and text.isprintable() else None


def _result_text(content: Any) -> str:
    """Return the text blocks of a tool result."""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "\n".join(text for text in texts if isinstance(text, str))


def _clean(text: str) -> str:
    """Return the text without surrounding white space. Raise _InvalidLineError for a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise _InvalidLineError("has a lone surrogate, which is not valid Unicode") from None
    return text.strip().replace("\r\n", "\n")
