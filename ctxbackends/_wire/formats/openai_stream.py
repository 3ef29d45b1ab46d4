"""Decodes a stream of OpenAI chat completion chunks.

Contract: a completion is whole only if a known ``finish_reason`` came for choice 0 and no error came before the end.
``[DONE]`` proves nothing (vLLM sends it after an error too), and may be missing (several servers omit it). Usage comes
after the finish reason, so ``Finish`` is emitted at ``[DONE]`` or at the end.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from ctxbackends._chat.events import Finish, PromptProgress, StreamEvent, TextDelta, ToolCallDelta
from ctxbackends._chat.responses import FinishReason
from ctxbackends._wire.base import StreamDecoder, encode_json
from ctxbackends._wire.errors import error_from_event, parse_error_body
from ctxbackends._wire.formats.openai_parts import (
    WireLogprobs,
    WireMessage,
    WireTimings,
    WireToolCall,
    WireUsage,
    add_message_events,
    parse_finish_reason,
    parse_usage,
)
from ctxbackends._wire.sse import SSEDecoder
from ctxbackends.errors import StreamInterruptedError


class _Progress(msgspec.Struct, gc=False):
    """llama-server's progress, with ``return_progress``."""

    total: int = 0
    cache: int = 0
    processed: int = 0
    time_ms: float | None = None


class _ChunkChoice(msgspec.Struct, gc=False):
    """One choice of a chunk.

    ``stop_reason`` is vLLM's stop sequence. A proxy that streams a plain response sends ``message`` for ``delta``,
    or ``error`` if it failed.
    """

    index: int = 0
    delta: WireMessage | None = None
    message: WireMessage | None = None
    error: Any = None
    finish_reason: str | None = None
    logprobs: WireLogprobs | None = None
    stop_reason: Any = None


class _Chunk(msgspec.Struct, gc=False):
    id: str | None = None
    model: str | None = None
    choices: list[_ChunkChoice] | None = None
    usage: WireUsage | None = None
    error: Any = None
    object: str | None = None
    timings: WireTimings | None = None
    prompt_progress: _Progress | None = None


class _Kind(msgspec.Struct):
    object: str | None = None
    choices: Any = None
    error: Any = None


_chunk_decoder = msgspec.json.Decoder(_Chunk)
_kind_decoder = msgspec.json.Decoder(_Kind)
_KNOWN_OBJECTS = frozenset({None, "", "error", "chat.completion.chunk", "chat.completion"})


def _is_unknown_event(data: bytes) -> bool:
    """Return whether an event that cannot be decoded is of a kind to skip."""
    try:
        kind = _kind_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return kind.object not in _KNOWN_OBJECTS and kind.choices is None and kind.error is None


class OpenAIStreamDecoder(StreamDecoder):
    """The stream decoder for chat completions; the module describes its contract."""

    __slots__ = (
        "_by_wire_index",
        "_call_ids",
        "_frames",
        "_index_by_id",
        "_reason",
        "_stop_sequence",
        "_timings",
        "_usage",
    )

    def __init__(self) -> None:
        super().__init__()
        self._frames = SSEDecoder()
        self._reason: FinishReason | None = None
        self._usage: WireUsage | None = None
        self._timings: WireTimings | None = None
        self._stop_sequence: str | None = None
        self._call_ids: list[str] = []
        self._index_by_id: dict[str, int] = {}  # call index by ID: a search would be quadratic
        self._by_wire_index: dict[int, int] = {}

    def feed(self, data: bytes) -> list[StreamEvent]:
        return self.decode_each(self._decode_frames, self._frames.feed, data)

    def close(self) -> list[StreamEvent]:
        events = self.decode_each(self._decode_frames, self._frames.close)
        if not self.is_ended():
            self._finish(events, "the stream ended without a finish_reason", self._frames.stray_line)
        return events

    def _decode_frames(self, frames: Sequence[tuple[bytes, bytes]], events: list[StreamEvent]) -> None:
        decode, append = _chunk_decoder.decode, events.append
        for index, (name, data) in enumerate(frames):
            try:
                chunk = decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if self._handle_undecodable(data, index, error, events):
                    return
                continue
            choices = chunk.choices
            # Fast path for a chunk with only text, the common case: without a call, which would make framing and
            # decoding a fifth slower.
            if (
                choices
                and len(choices) == 1
                and not name
                and chunk.error is None
                and chunk.usage is None
                and chunk.timings is None
                and chunk.prompt_progress is None
                and self._reason is None
                and self.served_model is not None
            ):
                choice = choices[0]
                delta = choice.delta
                if (
                    delta is not None
                    and delta.content
                    and not delta.reasoning
                    and not delta.reasoning_content
                    and not delta.refusal
                    and not delta.tool_calls
                    and not choice.finish_reason
                    and choice.index == 0
                    and choice.logprobs is None
                    and choice.stop_reason is None
                    and choice.error is None
                ):
                    append(TextDelta(delta.content))
                    continue
            if chunk.error is not None or name == b"error" or (choices is None and chunk.usage is None):
                if not self._handle_error(chunk, name, data.strip()):
                    continue
                return
            self._handle_chunk(chunk, events)
            if self.failure is not None:
                return

    def _handle_undecodable(self, data: bytes, index: int, error: Exception, events: list[StreamEvent]) -> bool:
        """Handle an event that cannot be decoded; return whether it ends the response: ``[DONE]`` or malformed."""
        text = data.strip()
        if text == b"[DONE]":
            self._finish(events, "[DONE] came without a finish_reason", self._frames.stray_line_before(index))
            return True
        if not text or _is_unknown_event(text):
            return False
        self.failure = StreamInterruptedError(f"an event of the stream is malformed: {error}", body=text)
        return True

    def _handle_error(self, chunk: _Chunk, name: bytes, data: bytes) -> bool:
        """Set ``failure`` for an error: in ``error``, as ``event: error``, or with its members at the top level."""
        facts = parse_error_body(data)  # the chunk decoder may have skipped invalid JSON
        has_message = facts.message is not None and chunk.object in _KNOWN_OBJECTS
        if chunk.error is None and name != b"error" and chunk.object != "error" and not has_message:
            return False  # an event of a kind that this format does not know
        self.failure = error_from_event(data)
        return True

    def _handle_chunk(self, chunk: _Chunk, events: list[StreamEvent]) -> None:
        if chunk.model and self.served_model is None:
            self.served_model = chunk.model
            self.response_id = chunk.id
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.timings is not None:
            self._timings = chunk.timings
        if chunk.prompt_progress is not None:
            progress = chunk.prompt_progress
            seconds = None if progress.time_ms is None else progress.time_ms / 1000
            events.append(PromptProgress(progress.processed, progress.total, progress.cache, seconds))
        for choice in chunk.choices or ():
            if choice.index != 0:
                continue
            if choice.error is not None:
                self.failure = error_from_event(encode_json({"error": choice.error}))
                return
            delta = choice.delta if choice.delta is not None else choice.message
            if delta is not None:
                if self._reason is not None and chunk.id != self.response_id and (delta.content or delta.tool_calls):
                    self.failure = StreamInterruptedError("a second response began in the stream")
                    return
                add_message_events(delta, choice.logprobs, events)
                for call in delta.tool_calls or ():
                    index = self._find_call_index(call)
                    events.append(ToolCallDelta(index, self._call_ids[index], call.name, call.arguments))
            if isinstance(choice.stop_reason, str):
                self._stop_sequence = choice.stop_reason
            if choice.finish_reason:  # some servers send "" until the last
                self._reason = parse_finish_reason(choice.finish_reason, called=bool(self._call_ids))
                if self._reason is None:
                    self.failure = StreamInterruptedError(
                        f"the server ended the response with finish_reason {choice.finish_reason!r}"
                    )
                    return

    def _find_call_index(self, call: WireToolCall) -> int:
        """Return the index of the tool call that a delta continues: by ID, then by index.

        Servers repeat index 0 for every call, omit it, or do not start with 0; an index means its last call.
        """
        if call.id and call.id in self._index_by_id:
            index = self._index_by_id[call.id]
        elif call.id and call.index in self._by_wire_index and not self._call_ids[self._by_wire_index[call.index]]:
            index = self._by_wire_index[call.index]  # its id comes late
            self._call_ids[index] = call.id
        elif not call.id and self._call_ids and (call.index is None or call.index in self._by_wire_index):
            index = len(self._call_ids) - 1 if call.index is None else self._by_wire_index[call.index]
        else:
            index = len(self._call_ids)
            self._call_ids.append(call.id or "")
        if call.id:
            self._index_by_id[call.id] = index
        if call.index is not None:
            self._by_wire_index[call.index] = index
        return index

    def _finish(self, events: list[StreamEvent], problem: str, stray: bytes) -> None:
        if self._reason is None:
            text = f"; last line received: {stray.decode('utf-8', 'replace')}" if stray else ""
            self.failure = StreamInterruptedError(problem + text, body=stray)
            return
        self.finished = True
        events.append(Finish(self._reason, parse_usage(self._usage, self._timings), self._stop_sequence))
