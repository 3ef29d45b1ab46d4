"""Decodes a stream of OpenAI chat completion chunks.

Contract: a completion is whole only if a known ``finish_reason`` came for choice 0 and no error came before the end.
``[DONE]`` proves nothing (vLLM sends it after an error too), and may be missing (several servers omit it). Usage comes
after the finish reason, so ``Finish`` is emitted at ``[DONE]`` or at the end. A response in one piece, from a server
that ignores that a stream was requested, is decoded like a chunk.

Frames that are not JSON, and JSON without choices and an error, are passed over: gateways send ``: keepalive`` and
``{"status": "queued"}``. A frame that is cut JSON, or speaks of an error, is an error.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec

from ctxbackends._chat.events import CitationDelta, Finish, PromptProgress, ReasoningDelta, StreamEvent, TextDelta
from ctxbackends._chat.responses import FinishReason
from ctxbackends._wire.base import StreamDecoder, encode_json
from ctxbackends._wire.citations import parse_sources
from ctxbackends._wire.errors import error_from_event, parse_error_body, parse_error_value
from ctxbackends._wire.finish_reasons import parse_finish_reason
from ctxbackends._wire.formats.openai_parts import (
    REPAIRS,
    Opaque,
    WireLogprobs,
    WireMessage,
    add_message_events,
    parse_usage,
)
from ctxbackends._wire.lenient import DECODE_ERRORS, Lenient, LenientDecoder, SurrogateJoiner, parse_json
from ctxbackends._wire.sse import SSEDecoder, is_passed_over
from ctxbackends._wire.tool_calls import ToolCallAssembler
from ctxbackends.errors import BackendError, StreamInterruptedError

MISSING_REASON_HINT = "if this server never sends one, set allow_missing_finish_reason: true for the backend"


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

    index: int | None = 0
    delta: WireMessage | None = None
    message: WireMessage | None = None
    error: Any = None
    finish_reason: str | None = None
    native_finish_reason: Lenient[str] = None
    logprobs: Lenient[WireLogprobs] = None
    stop_reason: Any = None


class _Chunk(msgspec.Struct, gc=False):
    id: Lenient[str] = None
    model: Lenient[str] = None
    choices: list[_ChunkChoice] | None = None
    usage: Lenient[dict[str, Any]] = None
    error: Any = None
    object: Lenient[str] = None
    timings: Lenient[dict[str, Any]] = None
    prompt_progress: Lenient[_Progress] = None
    citations: Any = None
    search_results: Any = None


_Blank: TypeAlias = Literal[""] | None
_Empty: TypeAlias = tuple[()] | None


class _Text(msgspec.Struct, gc=False):
    content: Annotated[str, msgspec.Meta(min_length=1)]
    reasoning: _Blank = None
    reasoning_content: _Blank = None
    refusal: _Blank = None
    tool_calls: _Empty = None
    reasoning_details: _Empty = None
    reasoning_encrypted: None = None
    extra_content: None = None
    annotations: _Empty = None
    executed_tools: _Empty = None


class _TextChoice(msgspec.Struct, gc=False):
    delta: _Text
    index: Literal[0] | None = 0
    message: None = None
    error: None = None
    finish_reason: _Blank = None
    logprobs: None = None
    stop_reason: None = None


class _TextChunk(msgspec.Struct, gc=False):
    """A chunk with only text, which most are.

    The types of the other members let the decoder reject them in C, where a check of each in Python would make framing
    and decoding a third slower.
    """

    choices: tuple[_TextChoice]
    usage: None = None
    error: None = None
    timings: None = None
    prompt_progress: None = None
    citations: _Empty = None
    search_results: _Empty = None


class _Time(msgspec.Struct):
    """The time of a response, which is needed once and not in each chunk."""

    created: msgspec.Raw = msgspec.Raw()


_decode_text = msgspec.json.Decoder(_TextChunk).decode
_chunk_decoder = LenientDecoder(_Chunk, REPAIRS)
_decode_time = msgspec.json.Decoder(_Time).decode
_KNOWN_OBJECTS = frozenset({None, "", "error", "chat.completion.chunk", "chat.completion"})


class OpenAIStreamDecoder(StreamDecoder):
    """The stream decoder for chat completions; the module describes its contract.

    Args:
        allow_missing_finish_reason: See WireSettings.
    """

    __slots__ = (
        "_allow_missing_reason",
        "_calls",
        "_frames",
        "_has_choice",
        "_has_text_chunks",
        "_in_text",
        "_is_body",
        "_joiner",
        "_opaque",
        "_reason",
        "_sources",
        "_stop_sequence",
        "_timings",
        "_usage",
    )

    def __init__(self, *, allow_missing_finish_reason: bool = False) -> None:
        super().__init__()
        self._allow_missing_reason = allow_missing_finish_reason
        self._frames = SSEDecoder()
        self._joiner = SurrogateJoiner()
        self._reason: FinishReason | None = None
        self._usage: Mapping[str, Any] | None = None
        self._timings: Mapping[str, Any] | None = None
        self._stop_sequence: str | None = None
        self._calls = ToolCallAssembler()
        self._opaque = Opaque()
        self._sources: list[CitationDelta] = []
        self._is_body = False
        self._has_choice = False
        self._in_text = False  # the last chunk had only text, so the next is tried as a _TextChunk
        self._has_text_chunks = True  # False after a chunk with only text that is not a _TextChunk

    def feed(self, data: bytes) -> list[StreamEvent]:
        return self.decode_each(self._decode_frames, self._frames.feed, data)

    def close(self) -> list[StreamEvent]:
        events = self.decode_each(self._decode_frames, self._frames.close)
        if not self.is_ended():
            self._finish(events, "the stream ended without a finish_reason", self._frames.stray_line)
        return events

    def _decode_frames(self, frames: Sequence[tuple[bytes, bytes]], events: list[StreamEvent]) -> None:
        decode, append = _chunk_decoder.for_next(self._joiner), events.append
        for index, (name, data) in enumerate(frames):
            in_text = self._in_text and not name
            if in_text:
                try:
                    append(TextDelta(_decode_text(data).choices[0].delta.content))
                    continue
                except DECODE_ERRORS:
                    pass
            try:
                chunk = decode(data)
            except DECODE_ERRORS as error:
                self._in_text = False
                if self._handle_undecodable(name, data.strip(), index, error, events):
                    return
                decode = _chunk_decoder.for_next(self._joiner)
                continue
            before = len(events)
            if self._handle_event(name, data, chunk, events):
                return
            has_text = len(events) == before + 1 and type(events[-1]) is TextDelta
            if in_text and has_text:
                self._has_text_chunks = False
            self._in_text = (
                has_text and self._has_text_chunks and self._reason is None and self.served_model is not None
            )

    def _handle_event(self, name: bytes, data: bytes, chunk: _Chunk, events: list[StreamEvent]) -> bool:
        """Handle a chunk or an error; return whether it ends the response."""
        if name == b"error" or (chunk.error and not chunk.choices) or (chunk.choices is None and chunk.usage is None):
            return self._handle_error(chunk, name, data.strip())
        if chunk.error:
            self.failure = error_from_event(data.strip())
            return True
        if not self._calls.seed:
            self._calls.seed = f"{chunk.id or ''} {_find_time(data)}".strip()
        self._handle_chunk(chunk, events)
        return self.failure is not None

    def _handle_undecodable(
        self, name: bytes, data: bytes, index: int, error: Exception, events: list[StreamEvent]
    ) -> bool:
        """Handle an event that the strict decoder rejects; return whether it ends the response."""
        if data == b"[DONE]":
            stray = self._frames.stray_line_before(index)
            self._finish(events, "[DONE] came without a finish_reason", stray, done=True)
            return True
        if not data:
            return False
        try:
            value = parse_json(data)
        except ValueError:
            if is_passed_over(name, data):
                return False
            return self._fail_malformed(error, data)
        if not isinstance(value, dict):
            if parse_error_value(value).message is not None:
                self.failure = error_from_event(data)
                return True
            return bool(value) and isinstance(value, list) and self._fail_malformed(error, data)
        try:
            chunk = _chunk_decoder.convert(self._joiner.join(value))
        except DECODE_ERRORS as convert_error:
            if _is_unknown_event(value):
                return False
            return self._fail_malformed(convert_error, data)
        return self._handle_event(name, data, chunk, events)

    def _fail_malformed(self, error: Exception, data: bytes) -> bool:
        self.failure = StreamInterruptedError(f"an event of the stream is malformed: {error}", body=data)
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
        if chunk.citations or chunk.search_results:
            self._sources = list(parse_sources(chunk.citations, chunk.search_results))
        if chunk.usage is not None:
            self._usage = chunk.usage
        if chunk.timings is not None:
            self._timings = chunk.timings
        if chunk.prompt_progress is not None:
            progress = chunk.prompt_progress
            seconds = None if progress.time_ms is None else progress.time_ms / 1000
            events.append(PromptProgress(progress.processed, progress.total, progress.cache, seconds))
        for choice in chunk.choices or ():
            if choice.index:
                continue
            self._has_choice = True
            if choice.error:
                self.failure = error_from_event(encode_json({"error": choice.error}))
                return
            delta = choice.delta if choice.delta is not None else choice.message
            if delta is not None:
                if self._reason is not None and chunk.id != self.response_id and (delta.content or delta.tool_calls):
                    self.failure = StreamInterruptedError("a second response began in the stream")
                    return
                add_message_events(delta, choice.logprobs, events)
                self.reasoning_member = self.reasoning_member or delta.reasoning_member
                if delta.has_opaque:
                    self._opaque.add(delta)
                if delta.tool_calls:
                    events.extend(self._calls.add([call.to_piece() for call in delta.tool_calls]))
            if isinstance(choice.stop_reason, str):
                self._stop_sequence = choice.stop_reason
            # Some servers send "" until the last.
            if choice.finish_reason and not self._handle_finish_reason(choice.finish_reason, choice):
                return

    def _handle_finish_reason(self, reason: str, choice: _ChunkChoice) -> bool:
        """Return whether the answer ended as it should; otherwise set ``failure``."""
        self.raw_finish_reason = reason
        self._reason = parse_finish_reason(reason, called=self._calls.has_calls, native=choice.native_finish_reason)
        if self._reason is None:
            self.failure = StreamInterruptedError(f"the server ended the response with finish_reason {reason!r}")
        return self._reason is not None

    def _finish(self, events: list[StreamEvent], problem: str, stray: bytes, *, done: bool = False) -> None:
        body = bytes(self._frames.body)
        if self._reason is None and not self._is_body and (body.lstrip()[:1] == b"{" or parse_error_body(body).message):
            self._is_body = True
            self._decode_frames([(b"", body)], events)
            if self.is_ended():
                return
            if self._has_choice:
                problem, done = "the response in one piece has no finish_reason", True
        if self._reason is None and self._allow_missing_reason and done and (self._is_body or self._usage is not None):
            self._reason = "tool_calls" if self._calls.has_calls else "stop"
        if self._reason is None:
            text = f"; last line received: {stray.decode('utf-8', 'replace')}" if stray else ""
            hint = f"; {MISSING_REASON_HINT}" if done and (self._is_body or self._usage is not None) else ""
            self.failure = StreamInterruptedError(problem + text + hint, body=stray)
            return
        events.extend(
            ReasoningDelta("\ufffd") if name.startswith("reasoning") else TextDelta("\ufffd")
            for name in self._joiner.drain()
            if name in ("content", "text", "reasoning", "reasoning_content")
        )
        try:
            events.extend(self._calls.finish())
        except BackendError as error:
            self.failure = error
            return
        self.finished = True
        events.extend(self._sources)
        events.extend(self._opaque.build())
        events.append(Finish(self._reason, parse_usage(self._usage, self._timings), self._stop_sequence))


def _find_time(data: bytes) -> str:
    """Return the JSON of the time in a chunk, empty if there is none that can be read."""
    try:
        return bytes(_decode_time(data).created).decode()
    except DECODE_ERRORS:
        return ""


def _is_unknown_event(value: Mapping[str, Any]) -> bool:
    """Return whether an event that cannot be decoded is of a kind to skip."""
    kind = value.get("object")
    is_known = kind is None or (isinstance(kind, str) and kind in _KNOWN_OBJECTS)
    return not is_known and value.get("choices") is None and value.get("error") is None
