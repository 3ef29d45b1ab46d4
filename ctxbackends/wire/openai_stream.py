"""A stream of OpenAI chat completion chunks to events; knows no request.

Contract: a completion is whole only if a known ``finish_reason`` came for choice 0 and no error came before the end;
``[DONE]`` is no proof (vLLM sends it after an error, too), and its absence no fault (several servers leave it out).
Usage comes after the finish reason, so ``Finish`` is handed on at ``[DONE]`` or at the end.
"""

from __future__ import annotations

from typing import Any

import msgspec

from ctxbackends.errors import BackendError, ResponseTooLargeError, StreamInterruptedError
from ctxbackends.types import (
    Finish,
    FinishReason,
    PromptProgress,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
)
from ctxbackends.wire.framing import SSEDecoder
from ctxbackends.wire.http import encode_json
from ctxbackends.wire.openai_parts import (
    WireLogprobs,
    WireMessage,
    WireTimings,
    WireToolCall,
    WireUsage,
    parse_finish_reason,
    parse_logprobs,
    parse_usage,
)
from ctxbackends.wire.status import error_from_event, parse_error_body


class _Progress(msgspec.Struct, gc=False):
    """llama-server, with ``return_progress``."""

    total: int = 0
    cache: int = 0
    processed: int = 0
    time_ms: float | None = None


class _ChunkChoice(msgspec.Struct, gc=False):
    """``stop_reason`` is vLLM's: the stop sequence that was hit. ``message`` stands in the place of ``delta`` where a
    proxy makes a stream of an answer in one piece, ``error`` where it could not."""

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
    """Whether an event that is not as expected is one of a kind that nobody here expects anything of."""
    try:
        kind = _kind_decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return False
    return kind.object not in _KNOWN_OBJECTS and kind.choices is None and kind.error is None


class OpenAIStreamDecoder:
    """See the module for the contract, :class:`ctxbackends.wire.http.StreamDecoder` for the protocol."""

    __slots__ = (
        "_calls",
        "_frames",
        "_ids",
        "_places",
        "_reason",
        "_stop",
        "_timings",
        "_usage",
        "failure",
        "finished",
        "response_id",
        "served_model",
    )

    def __init__(self) -> None:
        self._frames = SSEDecoder()
        self._reason: FinishReason | None = None
        self._usage: WireUsage | None = None
        self._timings: WireTimings | None = None
        self._stop: str | None = None
        self._calls: list[str] = []
        self._ids: dict[str, int] = {}  # the places of the calls by id: looking through all of them is quadratic
        self._places: dict[int, int] = {}
        self.served_model: str | None = None
        self.response_id: str | None = None
        self.failure: BackendError | None = None
        self.finished = False

    def feed(self, data: bytes) -> list[StreamEvent]:
        if self._ended():
            return []
        try:
            frames = self._frames.feed(data)
        except ResponseTooLargeError as error:
            self.failure = error
            return []
        events: list[StreamEvent] = []
        self._read(frames, events)
        return events

    def close(self) -> list[StreamEvent]:
        if self._ended():
            return []
        events: list[StreamEvent] = []
        try:
            frames = self._frames.close()
        except ResponseTooLargeError as error:
            self.failure = error
            return []
        self._read(frames, events)
        if not self._ended():
            self._end(events, "the stream ended without a finish_reason", self._frames.stray_line)
        return events

    def _ended(self) -> bool:
        return self.failure is not None or self.finished

    def _read(self, frames: list[tuple[bytes, bytes]], events: list[StreamEvent]) -> None:
        decode, append = _chunk_decoder.decode, events.append
        for place, (name, data) in enumerate(frames):
            try:
                chunk = decode(data)
            except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
                if self._is_no_chunk(data, place, error, events):
                    return
                continue
            choices = chunk.choices
            # Nearly every chunk is a piece of text and nothing else. That is told here by looks at its members, in one
            # place and without a call: the general way makes framing and decoding take a fifth longer.
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
                if not self._is_error(chunk, name, data.strip()):
                    continue
                return
            self._take(chunk, events)
            if self.failure is not None:
                return

    def _is_no_chunk(self, data: bytes, place: int, error: Exception, events: list[StreamEvent]) -> bool:
        """Whether what cannot be decoded ends the answer: the marker of the end does, and what is malformed."""
        said = data.strip()
        if said == b"[DONE]":
            self._end(events, "[DONE] came without a finish_reason", self._frames.stray_line_before(place))
            return True
        if not said or _is_unknown_event(said):
            return False
        self.failure = StreamInterruptedError(f"an event of the stream is malformed: {error}", body=said)
        return True

    def _is_error(self, chunk: _Chunk, name: bytes, data: bytes) -> bool:
        """Errors come under ``error`` (object or string), as ``event: error``, or with their members at the top
        level."""
        facts = parse_error_body(data)  # not the chunk decoder: what that skipped may be no valid JSON
        told = facts.message is not None and chunk.object in _KNOWN_OBJECTS
        if chunk.error is None and name != b"error" and chunk.object != "error" and not told:
            return False  # an event of a kind that this format does not know
        self.failure = error_from_event(data)
        return True

    def _take(self, chunk: _Chunk, events: list[StreamEvent]) -> None:
        if chunk.model and self.served_model is None:
            self.served_model = chunk.model
            self.response_id = chunk.id
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.timings is not None:
            self._timings = chunk.timings
        if chunk.prompt_progress is not None:
            done = chunk.prompt_progress
            seconds = None if done.time_ms is None else done.time_ms / 1000
            events.append(PromptProgress(done.processed, done.total, done.cache, seconds))
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
                self._take_delta(delta, choice.logprobs, events)
            if isinstance(choice.stop_reason, str):
                self._stop = choice.stop_reason
            if choice.finish_reason:  # some servers say "" until the last
                self._reason = parse_finish_reason(choice.finish_reason, called=bool(self._calls))
                if self._reason is None:
                    self.failure = StreamInterruptedError(
                        f"the server ended the response with finish_reason {choice.finish_reason!r}"
                    )
                    return

    def _take_delta(self, delta: WireMessage, logprobs: WireLogprobs | None, events: list[StreamEvent]) -> None:
        reasoning = delta.reasoning or delta.reasoning_content
        if reasoning:
            events.append(ReasoningDelta(reasoning))
        if logprobs is not None:  # tokens that make no character yet have them, too
            events.append(TextDelta(delta.content or "", parse_logprobs(logprobs)))
        elif delta.content:
            events.append(TextDelta(delta.content))
        if delta.refusal:
            events.append(RefusalDelta(delta.refusal))
        for call in delta.tool_calls or ():
            place = self._place(call)
            events.append(ToolCallDelta(place, self._calls[place], call.name, call.arguments))

    def _place(self, call: WireToolCall) -> int:
        """Which of the parallel calls a delta belongs to: by id, then by index. Servers repeat the index 0 for every
        call, leave it out, or do not begin with 0; an index means the call that used it last."""
        if call.id and call.id in self._ids:
            place = self._ids[call.id]
        elif call.id and call.index in self._places and not self._calls[self._places[call.index]]:
            place = self._places[call.index]  # its id comes late
            self._calls[place] = call.id
        elif not call.id and self._calls and (call.index is None or call.index in self._places):
            place = len(self._calls) - 1 if call.index is None else self._places[call.index]
        else:
            place = len(self._calls)
            self._calls.append(call.id or "")
        if call.id:
            self._ids[call.id] = place
        if call.index is not None:
            self._places[call.index] = place
        return place

    def _end(self, events: list[StreamEvent], problem: str, stray: bytes) -> None:
        if self._reason is None:
            said = f"; last line received: {stray.decode('utf-8', 'replace')}" if stray else ""
            self.failure = StreamInterruptedError(problem + said, body=stray)
            return
        self.finished = True
        events.append(Finish(self._reason, parse_usage(self._usage, self._timings), self._stop))
