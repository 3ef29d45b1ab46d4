"""Decodes the events of Anthropic's Messages API.

Contract: a response is whole only if ``message_stop`` came after a known ``stop_reason``, and no error before it.
Unknown events are skipped, and unknown blocks are kept as opaque parts. Events: https://platform.claude.com/docs/en/build-with-claude/streaming
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from ctxbackends._chat.events import Finish, ReasoningDelta, StreamEvent, TextDelta
from ctxbackends._chat.messages import OpaquePart
from ctxbackends._chat.opaque_members import MESSAGES_WIRE
from ctxbackends._chat.responses import FinishReason
from ctxbackends._wire.base import StreamDecoder, encode_arguments
from ctxbackends._wire.errors import error_from_event, parse_error_value
from ctxbackends._wire.finish_reasons import parse_finish_reason
from ctxbackends._wire.formats.anthropic_parts import (
    WireBlock,
    answer_decoder,
    build_citations,
    decode_blocks,
    incomplete_error,
    parse_usage,
)
from ctxbackends._wire.lenient import (
    DECODE_ERRORS,
    Lenient,
    LenientDecoder,
    SurrogateJoiner,
    parse_json,
    parse_member,
    to_json,
)
from ctxbackends._wire.sse import SSEDecoder, is_passed_over
from ctxbackends._wire.tool_calls import Piece, ToolCallAssembler
from ctxbackends.errors import BackendError, StreamInterruptedError


class _Delta(msgspec.Struct, gc=False):
    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    partial_json: str | None = None
    stop_reason: str | None = None
    stop_sequence: Lenient[str] = None
    citation: Any = None


class _Message(msgspec.Struct):
    id: Lenient[str] = None
    model: Lenient[str] = None
    usage: Lenient[dict[str, Any]] = None


class _Event(msgspec.Struct, gc=False):
    type: str = ""
    index: int | None = 0
    message: _Message | str | None = None
    content_block: WireBlock | None = None
    delta: _Delta | None = None
    usage: Lenient[dict[str, Any]] = None
    error: Any = None


_event_decoder = LenientDecoder(_Event)
_PARTS = frozenset(
    {
        "message_start",
        "content_block_start",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    }
)
_KNOWN_TYPES = _PARTS | {"", "error"}


def _is_error(event: _Event) -> bool:
    """Return whether the event is an error by its type; llama-server sends its own errors with text in ``message``."""
    has_text = isinstance(event.message, str) and (not event.type or event.type.casefold().endswith("error"))
    return event.type == "error" or has_text


class AnthropicStreamDecoder(StreamDecoder):
    """The stream decoder for the Messages API; the module describes its contract."""

    __slots__ = (
        "_allow_missing_reason",
        "_assembler",
        "_blocks",
        "_frames",
        "_joiner",
        "_reason",
        "_stop_sequence",
        "_usage",
    )

    def __init__(self, *, allow_missing_finish_reason: bool = False) -> None:
        super().__init__()
        self._allow_missing_reason = allow_missing_finish_reason
        self._frames = SSEDecoder()
        self._joiner = SurrogateJoiner()
        self._blocks: dict[int, _Block] = {}
        self._assembler = ToolCallAssembler()
        self._usage: dict[str, Any] = {}
        self._reason: FinishReason | None = None
        self._stop_sequence: str | None = None

    def feed(self, data: bytes) -> list[StreamEvent]:
        return self.decode_each(self._decode_frames, self._frames.feed, data)

    def close(self) -> list[StreamEvent]:
        events = self.decode_each(self._decode_frames, self._frames.close)
        if not self.is_ended() and not self._decode_body(events):
            self._fail("the stream ended without message_stop")
        return events

    def _decode_body(self, events: list[StreamEvent]) -> bool:
        """Decode a response in one piece, from a server that ignored that a stream was requested; return whether."""
        body = bytes(self._frames.body)
        try:
            answer = answer_decoder.decode(body) if body else None
        except DECODE_ERRORS:
            return False
        if answer is None:
            return False
        if answer.error or answer.type == "error":
            self.failure = error_from_event(body)
        elif answer.content is None:
            return False
        else:
            self.served_model, self.response_id = answer.model or None, answer.id
            self._usage = answer.usage or {}
            self._set_reason(answer.stop_reason, answer.stop_sequence)
            try:
                events.extend(decode_blocks(answer, body, self._assembler))
            except BackendError as error:
                self.failure = error
            else:
                self._finish(events)
        return True

    def _fail(self, problem: str, body: bytes = b"") -> bool:
        stray = self._frames.stray_line
        suffix = f"; last line received: {stray.decode('utf-8', 'replace')}" if stray and not body else ""
        self.failure = StreamInterruptedError(problem + suffix, body=body or stray)
        return True

    def _decode_frames(self, frames: Sequence[tuple[bytes, bytes]], events: list[StreamEvent]) -> None:
        decode, append = _event_decoder.for_next(self._joiner), events.append
        for name, data in frames:
            try:
                event = decode(data)
            except DECODE_ERRORS as error:
                if self._handle_undecodable(name, data.strip(), error, events):
                    return
                decode = _event_decoder.for_next(self._joiner)
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

    def _handle_undecodable(self, name: bytes, data: bytes, error: Exception, events: list[StreamEvent]) -> bool:
        """Handle an event that the strict decoder rejects; return whether it ends the response."""
        if data in (b"", b"[DONE]"):
            return False
        try:
            value = parse_json(data)
        except ValueError:
            if is_passed_over(name, data):
                return False
            return self._fail(f"an event of the stream is malformed: {error}", data)
        if not isinstance(value, dict):
            if parse_error_value(value).message is not None:
                self.failure = error_from_event(data)
                return True
            is_list = bool(value) and isinstance(value, list)
            return is_list and self._fail(f"an event of the stream is malformed: {error}", data)
        try:
            event = _event_decoder.convert(self._joiner.join(value))
        except DECODE_ERRORS as convert_error:
            kind = value.get("type", "")
            if isinstance(kind, str) and kind not in _KNOWN_TYPES:
                return False
            return self._fail(f"an event of the stream is malformed: {convert_error}", data)
        self._handle_event(name, data, event, events)
        return self.is_ended()

    def _handle_event(self, name: bytes, data: bytes, event: _Event, events: list[StreamEvent]) -> None:
        kind = event.type
        if kind == "content_block_delta" and not event.error:
            self._delta(event, events)
        elif name == b"error" or event.error or (event.error is not None and kind not in _PARTS) or _is_error(event):
            # An object, a string, or members at the top level, as llama-server sends them here too.
            self.failure = error_from_event(data)
        elif kind == "message_start" and isinstance(event.message, _Message):
            if self.response_id is not None or self._reason is not None:
                self._fail("a second response began in the stream", data)
                return
            self.served_model = event.message.model or None
            self.response_id = event.message.id
            self._assembler.seed = event.message.id or ""
            self._merge_usage(event.message.usage)
        elif kind == "content_block_start" and event.content_block is not None:
            self._start_block(event.index or 0, event.content_block, data, events)
        elif kind == "content_block_stop":
            self._stop_block(event.index or 0, events)
        elif kind == "message_delta":
            self._merge_usage(event.usage)
            if event.delta is not None and event.delta.stop_reason is not None:
                self._set_reason(event.delta.stop_reason, event.delta.stop_sequence)
        elif kind == "message_stop":
            self._finish(events)

    def _merge_usage(self, usage: Mapping[str, Any] | None) -> None:
        """Merge counts: they are cumulative, and an event may omit some."""
        self._usage |= {name: value for name, value in (usage or {}).items() if value is not None}

    def _set_reason(self, word: str | None, stop_sequence: str | None) -> None:
        self.raw_finish_reason = word
        self._reason = parse_finish_reason(word)
        self._stop_sequence = stop_sequence

    def _start_block(self, index: int, block: WireBlock, data: bytes, events: list[StreamEvent]) -> None:
        if index in self._blocks:
            self._stop_block(index, events)  # a reused index is another block
        state = self._blocks[index] = _Block(block)
        if block.type == "text" and block.text:
            events.append(TextDelta(block.text))
        elif block.type == "thinking" and (block.thinking or block.signature):
            events.append(ReasoningDelta(block.thinking or "", signature=block.signature or None))
        elif block.type == "redacted_thinking":
            events.append(ReasoningDelta("", redacted=block.data or ""))
        elif block.type == "tool_use":
            # Anthropic starts with an empty input and sends it in pieces; others may send it whole here.
            events.extend(self._assembler.begin(self._place(index, block)))
        elif block.is_opaque:
            try:
                state.raw = parse_member(data, "content_block")
            except ValueError as error:
                self._fail(f"an event of the stream is malformed: {error}", data)

    @staticmethod
    def _place(index: int, block: WireBlock) -> Piece:
        return msgspec.structs.replace(block.to_piece(""), index=index)

    def _delta(self, event: _Event, events: list[StreamEvent]) -> None:
        delta, index = event.delta, event.index or 0
        if delta is None:
            return
        if delta.text and delta.type == "text_delta":
            events.append(TextDelta(delta.text))
        elif delta.type == "input_json_delta":
            if not delta.partial_json:
                return
            block = self._blocks.get(index)
            if block is None:
                block = self._blocks[index] = _Block(WireBlock(type="tool_use"))
            block.has_pieces = True
            if block.start.type == "tool_use":
                events.extend(self._assembler.add([Piece(index, "", "", delta.partial_json)]))
            else:
                block.pieces.append(delta.partial_json)
        elif delta.thinking and delta.type == "thinking_delta":
            events.append(ReasoningDelta(delta.thinking))
        elif delta.type == "signature_delta" and delta.signature:
            events.append(ReasoningDelta("", signature=delta.signature))
        elif delta.type == "citations_delta" and delta.citation is not None and index in self._blocks:
            self._blocks[index].citations.append(delta.citation)

    def _stop_block(self, index: int, events: list[StreamEvent]) -> None:
        block = self._blocks.pop(index, None)
        if block is None:
            return
        if block.start.type == "tool_use" and not block.has_pieces:
            # A call without pieces: its input came whole, or it has none, which is the empty object.
            arguments = encode_arguments(block.start.input or {})
            events.extend(self._assembler.add([Piece(index, "", "", arguments)]))
        elif block.start.type == "text":
            events.extend(build_citations(block.citations))
        elif block.raw is not None:
            raw = block.raw
            if block.pieces:
                try:
                    raw = {**raw, "input": parse_json("".join(block.pieces).encode())}
                except ValueError as error:
                    self._fail(f"the input of the block {block.start.type} is malformed: {error}")
                    return
            events.append(OpaquePart(MESSAGES_WIRE, to_json(raw)))

    def _finish(self, events: list[StreamEvent]) -> None:
        if self._reason is None and not self.raw_finish_reason and self._allow_missing_reason:
            self._reason = "tool_calls" if self._assembler.has_calls else "stop"
        if self._reason is None:
            self.failure = incomplete_error(self.raw_finish_reason)
            return
        for index in list(self._blocks):
            self._stop_block(index, events)
        events.extend(
            ReasoningDelta("\ufffd") if name == "thinking" else TextDelta("\ufffd")
            for name in self._joiner.drain()
            if name in ("text", "thinking")
        )
        try:
            events.extend(self._assembler.finish())
        except BackendError as error:
            self.failure = error
        if self.failure is not None:
            return
        self.finished = True
        events.append(Finish(self._reason, parse_usage(self._usage), self._stop_sequence))


class _Block:
    """A block that is being received."""

    __slots__ = ("citations", "has_pieces", "pieces", "raw", "start")

    def __init__(self, start: WireBlock) -> None:
        self.start = start
        self.has_pieces = False
        self.pieces: list[str] = []
        self.citations: list[Any] = list(start.citations) if isinstance(start.citations, list) else []
        self.raw: dict[str, Any] | None = None
