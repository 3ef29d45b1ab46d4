"""Decodes the events of Anthropic's Messages API.

Contract: a response is whole only if ``message_stop`` came after a known ``stop_reason``, and no error before it.
Unknown events and blocks are skipped. Events: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ctxbackends._chat.events import Finish, ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta
from ctxbackends._chat.responses import FinishReason, Usage
from ctxbackends._wire.base import StreamDecoder, encode_arguments
from ctxbackends._wire.errors import error_from_event
from ctxbackends._wire.sse import SSEDecoder
from ctxbackends.errors import StreamInterruptedError

# Without pause_turn, which means that the response is not complete.
_FINISH_REASONS: Mapping[str, FinishReason] = {
    "end_turn": "stop",
    "stop_sequence": "stop",
    "max_tokens": "length",
    "model_context_window_exceeded": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


class WireUsage(msgspec.Struct):
    """Token counts. Unlike elsewhere, ``input_tokens`` excludes the tokens that the cache read and wrote."""

    input_tokens: int | None = None
    output_tokens: int | None = None
    cache_read_input_tokens: int | None = None
    cache_creation_input_tokens: int | None = None


class WireBlock(msgspec.Struct):
    """A block of content: text, thinking, redacted_thinking (``data``) or tool_use."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_sequence: str | None = None


class _Message(msgspec.Struct):
    id: str | None = None
    model: str | None = None
    usage: WireUsage | None = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int = 0
    message: _Message | str | None = None
    content_block: WireBlock | None = None
    delta: _Delta | None = None
    usage: WireUsage | None = None
    error: Any = None


class _Kind(msgspec.Struct):
    type: str = ""


_event_decoder = msgspec.json.Decoder(_Event)
_kind_decoder = msgspec.json.Decoder(_Kind)
_KNOWN_TYPES = frozenset(
    {
        "",
        "error",
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    }
)


def _is_error(event: _Event) -> bool:
    """Return whether the event is an error by its type; llama-server sends its own errors with text in ``message``."""
    has_text = isinstance(event.message, str) and (not event.type or event.type.casefold().endswith("error"))
    return event.type == "error" or has_text


def _is_unknown_event(data: bytes) -> bool:
    """Return whether an event that cannot be decoded is of a kind to skip."""
    try:
        return _kind_decoder.decode(data).type not in _KNOWN_TYPES
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False


def parse_finish_reason(reason: str | None) -> FinishReason | None:
    """Return the finish reason, or None if the response is not complete."""
    return _FINISH_REASONS.get(reason or "")


def incomplete_error(reason: str | None, *, body: bytes = b"") -> StreamInterruptedError:
    """Return the error for a response without the stop reason of a complete one."""
    return StreamInterruptedError(f"incomplete response: stop_reason is {reason!r}", body=body)


def parse_usage(usage: WireUsage | None) -> Usage | None:
    """Convert the token counts, with the cached tokens included in input_tokens."""
    if usage is None or usage.input_tokens is None:
        return None
    read, written = usage.cache_read_input_tokens, usage.cache_creation_input_tokens
    return Usage(usage.input_tokens + (read or 0) + (written or 0), usage.output_tokens or 0, read, written)


class AnthropicStreamDecoder(StreamDecoder):
    """The stream decoder for the Messages API; the module describes its contract."""

    __slots__ = (
        "_blocks",
        "_call_indexes",
        "_calls_with_pieces",
        "_frames",
        "_raw_reason",
        "_reason",
        "_stop_sequence",
        "_usage",
    )

    def __init__(self) -> None:
        super().__init__()
        self._frames = SSEDecoder()
        self._blocks: dict[int, WireBlock] = {}
        self._call_indexes: dict[int, int] = {}  # the current call of a block's index
        self._calls_with_pieces: set[int] = set()  # tool calls that have a piece
        self._usage = WireUsage()
        self._reason: FinishReason | None = None
        self._raw_reason: str | None = None
        self._stop_sequence: str | None = None

    def feed(self, data: bytes) -> list[StreamEvent]:
        return self.decode_each(self._decode_frames, self._frames.feed, data)

    def close(self) -> list[StreamEvent]:
        events = self.decode_each(self._decode_frames, self._frames.close)
        if not self.is_ended():
            self._fail("the stream ended without message_stop")
        return events

    def _fail(self, problem: str, body: bytes = b"") -> None:
        stray = self._frames.stray_line
        suffix = f"; last line received: {stray.decode('utf-8', 'replace')}" if stray and not body else ""
        self.failure = StreamInterruptedError(problem + suffix, body=body or stray)

    def _decode_frames(self, frames: Sequence[tuple[bytes, bytes]], events: list[StreamEvent]) -> None:
        decode, append = _event_decoder.decode, events.append
        for name, data in frames:
            try:
                event = decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if data.strip() not in (b"", b"[DONE]") and not _is_unknown_event(data):
                    self._fail(f"an event of the stream is malformed: {error}", data.strip())
                    return
                continue
            # Fast path for text, the common case: without a call.
            delta = event.delta
            if (
                delta is not None
                and delta.text
                and delta.type == "text_delta"
                and event.type == "content_block_delta"
                and event.error is None
            ):
                append(TextDelta(delta.text))
                continue
            self._handle_event(name, data.strip(), event, events)
            if self.is_ended():
                return

    def _handle_event(self, name: bytes, data: bytes, event: _Event, events: list[StreamEvent]) -> None:
        kind = event.type
        if kind == "content_block_delta" and event.error is None:
            self._delta(event, events)
        elif name == b"error" or event.error is not None or _is_error(event):
            # An object, a string, or members at the top level, as llama-server sends them here too.
            self.failure = error_from_event(data)
        elif kind == "message_start" and isinstance(event.message, _Message):
            if self.response_id is not None or self._reason is not None:
                self._fail("a second response began in the stream", data)
                return
            self.served_model = event.message.model or None
            self.response_id = event.message.id
            self._merge_usage(event.message.usage)
        elif kind == "content_block_start" and event.content_block is not None:
            self._start_block(event.index, event.content_block, events)
        elif kind == "content_block_stop":
            self._stop_block(event.index, events)
        elif kind == "message_delta":
            self._handle_message_delta(event)
        elif kind == "message_stop":
            self._finish(events)

    def _merge_usage(self, usage: WireUsage | None) -> None:
        """Merge counts: they are cumulative, and an event may omit some."""
        if usage is None:
            return
        for field in usage.__struct_fields__:
            value = getattr(usage, field)
            if value is not None:
                setattr(self._usage, field, value)

    def _start_block(self, index: int, block: WireBlock, events: list[StreamEvent]) -> None:
        self._blocks[index] = block
        if block.type == "text" and block.text:
            events.append(TextDelta(block.text))
        elif block.type == "thinking" and (block.thinking or block.signature):
            events.append(ReasoningDelta(block.thinking or "", signature=block.signature or None))
        elif block.type == "redacted_thinking":
            events.append(ReasoningDelta("", redacted=block.data or ""))
        elif block.type == "tool_use":
            # Anthropic starts with an empty input and sends it in pieces; others may send it whole here.
            arguments = encode_arguments(block.input) if block.input else ""
            # A reused index is a new call, not a piece of the previous one.
            used_indexes = self._call_indexes.values()
            self._call_indexes[index] = index_of_call = index if index not in used_indexes else max(used_indexes) + 1
            events.append(ToolCallDelta(index_of_call, block.id or "", block.name or "", arguments))

    def _delta(self, event: _Event, events: list[StreamEvent]) -> None:
        delta = event.delta
        if delta is None:
            return
        if delta.text and delta.type == "text_delta":
            events.append(TextDelta(delta.text))
        elif delta.type == "input_json_delta":
            block = self._blocks.get(event.index) or WireBlock(type="tool_use")
            if delta.partial_json and block.type == "tool_use":  # not a server-side tool
                index_of_call = self._call_indexes.setdefault(event.index, event.index)
                events.append(ToolCallDelta(index_of_call, block.id or "", block.name or "", delta.partial_json))
                self._calls_with_pieces.add(index_of_call)
        elif delta.thinking and delta.type == "thinking_delta":
            events.append(ReasoningDelta(delta.thinking))
        elif delta.type == "signature_delta" and delta.signature:
            events.append(ReasoningDelta("", signature=delta.signature))

    def _stop_block(self, index: int, events: list[StreamEvent]) -> None:
        block = self._blocks.pop(index, None)
        if block is None or block.type != "tool_use" or block.input:
            return
        index_of_call = self._call_indexes.get(index, index)
        if index_of_call not in self._calls_with_pieces:
            # A call without arguments has no pieces; its arguments are the empty object.
            events.append(ToolCallDelta(index_of_call, block.id or "", block.name or "", "{}"))

    def _handle_message_delta(self, event: _Event) -> None:
        self._merge_usage(event.usage)
        if event.delta is not None and event.delta.stop_reason is not None:
            self._raw_reason = event.delta.stop_reason
            self._reason = parse_finish_reason(event.delta.stop_reason)
            self._stop_sequence = event.delta.stop_sequence

    def _finish(self, events: list[StreamEvent]) -> None:
        if self._reason is None:
            self.failure = incomplete_error(self._raw_reason)
            return
        self.finished = True
        events.append(Finish(self._reason, parse_usage(self._usage), self._stop_sequence))
