"""Builds completions from stream events, for every wire format."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NotRequired, TypeAlias, TypedDict, Unpack

import msgspec

from ctxbackends._chat.events import (
    CitationDelta,
    Finish,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
)
from ctxbackends._chat.messages import OpaquePart, Part, ReasoningPart, TextPart, ToolCall
from ctxbackends._chat.responses import Citation, Completion, PartialCompletion, TokenLogprob
from ctxbackends._wire.base import HTTPResponse, StreamDecoder
from ctxbackends._wire.errors import find_request_id
from ctxbackends.errors import StreamInterruptedError


class ResponseFields(TypedDict):
    """The fields of a completion that do not come from events."""

    requested_model: str
    served_model: str | None
    response_id: str | None
    request_id: NotRequired[str | None]
    raw_finish_reason: NotRequired[str | None]
    raw: NotRequired[bytes]


class _Call:
    """A tool call whose arguments arrive in pieces."""

    __slots__ = ("arguments", "id", "name", "opaque")

    def __init__(self, delta: ToolCallDelta) -> None:
        self.id = delta.id
        self.name = delta.name
        self.arguments = [delta.arguments]
        self.opaque = delta.opaque

    def build(self) -> ToolCall:
        return ToolCall(self.id, self.name, "".join(self.arguments), self.opaque)


class _Text:
    """A sequence of text pieces."""

    __slots__ = ("opaque", "pieces")

    def __init__(self, piece: str, opaque: OpaquePart | None = None) -> None:
        self.pieces = [piece]
        self.opaque = opaque


class _Reasoning:
    """A block of reasoning; a signature or an event of another type ends it."""

    __slots__ = ("pieces", "redacted", "signature")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.signature: str | None = None
        self.redacted: str | None = None

    @property
    def is_ended(self) -> bool:
        return self.signature is not None or self.redacted is not None


class _CitedBlock(msgspec.Struct):
    text: str | None = None


_Block: TypeAlias = _Text | _Reasoning | _Call | OpaquePart


class Accumulator:
    """Collects the events of a stream. ``finish`` is None until the last event arrives."""

    __slots__ = ("_blocks", "_calls", "_citations", "_last", "_logprobs", "_refusal", "finish")

    def __init__(self) -> None:
        self._blocks: list[_Block] = []
        self._last: _Block | None = None
        self._citations: list[Citation] = []
        self._calls: dict[int, _Call] = {}
        self._refusal: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self.finish: Finish | None = None

    def add(self, *events: StreamEvent) -> None:
        """Add events; the fast path is for text that continues."""
        last = self._last
        append_text = last.pieces.append if isinstance(last, _Text) else None
        for event in events:
            if type(event) is TextDelta:
                if append_text is None:
                    text = _Text(event.text)
                    self._append_block(text)
                    append_text = text.pieces.append
                else:
                    append_text(event.text)
                if event.logprobs:
                    self._logprobs += event.logprobs
                continue
            if isinstance(event, ReasoningDelta):
                self._add_reasoning(event)
            elif isinstance(event, ToolCallDelta):
                self._add_call(event)
            elif isinstance(event, RefusalDelta):
                self._refusal.append(event.text)
            elif isinstance(event, CitationDelta):
                self._add_citation(event)
            elif isinstance(event, OpaquePart):
                self._append_block(event)
            elif isinstance(event, Finish):
                self.finish = event
            append_text = self._last.pieces.append if isinstance(self._last, _Text) else None

    def _append_block(self, block: _Block) -> None:
        self._blocks.append(block)
        self._last = block

    def _add_reasoning(self, delta: ReasoningDelta) -> None:
        block = self._last
        if not isinstance(block, _Reasoning) or block.is_ended or delta.redacted is not None:
            block = _Reasoning()
            self._append_block(block)
        block.pieces.append(delta.text)
        block.signature = delta.signature
        block.redacted = delta.redacted

    def _add_call(self, delta: ToolCallDelta) -> None:
        existing = self._calls.get(delta.index)
        if existing is None:
            existing = self._calls[delta.index] = _Call(delta)
            self._append_block(existing)
            return
        existing.id = existing.id or delta.id
        existing.name = existing.name or delta.name
        existing.arguments.append(delta.arguments)
        existing.opaque = existing.opaque or delta.opaque

    def _add_citation(self, delta: CitationDelta) -> None:
        self._citations.append(delta.citation)
        block = self._last
        if delta.opaque is None or not isinstance(block, _Text):
            return
        # The cited block is the end of the text so far. It gets a separate part, and the next text begins another.
        text = "".join(block.pieces)
        cited = msgspec.json.decode(delta.opaque.json, type=_CitedBlock).text
        cited = text if cited is None or not text.endswith(cited) else cited
        block.pieces[:] = [text.removesuffix(cited)]
        self._append_block(_Text(cited, delta.opaque))
        self._last = None

    def _tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(call.build() for _, call in sorted(self._calls.items())) if self._calls else ()

    def _collect(self, reasoning_member: str | None = None) -> tuple[str, str, tuple[Part, ...]]:
        """Return all text, all reasoning, and the parts that are not empty in their order."""
        texts: list[str] = []
        reasoning_texts: list[str] = []
        parts: list[Part] = []
        for block in self._blocks:
            if isinstance(block, _Call):
                parts.append(block.build())
                continue
            if isinstance(block, OpaquePart):
                parts.append(block)
                continue
            joined_text = "".join(block.pieces)
            if isinstance(block, _Text):
                texts.append(joined_text)
                if joined_text:
                    parts.append(TextPart(joined_text, block.opaque))
            else:
                reasoning_texts.append(joined_text)
                if joined_text or block.is_ended:
                    parts.append(ReasoningPart(joined_text, block.signature, block.redacted, reasoning_member))
        return "".join(texts), "".join(reasoning_texts), tuple(parts)

    def completion(self, *, reasoning_member: str | None = None, **fields: Unpack[ResponseFields]) -> Completion:
        """Build the complete response. Requires that ``finish`` is set."""
        assert self.finish is not None, "a completion exists only after Finish"
        text, reasoning, parts = self._collect(reasoning_member)
        return Completion(
            text=text,
            finish_reason=self.finish.finish_reason,
            usage=self.finish.usage,
            reasoning=reasoning,
            refusal="".join(self._refusal),
            tool_calls=self._tool_calls(),
            logprobs=tuple(self._logprobs),
            stop_sequence=self.finish.stop_sequence,
            parts=parts,
            citations=tuple(self._citations),
            **fields,
        )

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(piece for block in self._blocks if isinstance(block, _Text) for piece in block.pieces)

    def count_pieces(self) -> int:
        """Return the number of pieces of text and reasoning so far."""
        return sum(len(block.pieces) for block in self._blocks if isinstance(block, _Text | _Reasoning))

    def partial(self, *, served_model: str | None = None) -> PartialCompletion:
        """Build the partial completion that an error carries."""
        text, reasoning, _ = self._collect()
        return PartialCompletion(
            text=text,
            reasoning=reasoning,
            tool_calls=self._tool_calls(),
            usage=self.finish.usage if self.finish else None,
            served_model=served_model,
        )


def complete_stream(decoder: StreamDecoder, response: HTTPResponse, *, requested_model: str) -> Completion:
    """Build the completion of a stream that came for a plain request, as some servers send it.

    Raises:
        BackendError: The stream is not complete, or contains an error.
    """
    accumulator = Accumulator()
    accumulator.add(*decoder.feed(response.body))
    accumulator.add(*decoder.close())
    failure = decoder.failure
    if failure is not None:
        if isinstance(failure, StreamInterruptedError):
            failure.partial = accumulator.partial(served_model=decoder.served_model)
            failure.request_id = find_request_id(response.headers)
        raise failure
    return accumulator.completion(
        requested_model=requested_model,
        served_model=decoder.served_model,
        response_id=decoder.response_id,
        request_id=find_request_id(response.headers),
        raw_finish_reason=decoder.raw_finish_reason,
        reasoning_member=decoder.reasoning_member,
        raw=response.body,
    )


def build_completion(
    events: Sequence[StreamEvent], *, reasoning_member: str | None = None, **fields: Unpack[ResponseFields]
) -> Completion:
    """Build the completion of a response from all its events; the last must be Finish."""
    first, finish = events[0], events[-1]
    if len(events) == 2 and isinstance(first, TextDelta) and isinstance(finish, Finish) and not first.logprobs:
        # Fast path for a single text, the common case: the accumulator takes three times as long.
        return Completion(
            text=first.text,
            finish_reason=finish.finish_reason,
            usage=finish.usage,
            stop_sequence=finish.stop_sequence,
            parts=(TextPart(first.text),) if first.text else (),
            **fields,
        )
    accumulator = Accumulator()
    accumulator.add(*events)
    return accumulator.completion(reasoning_member=reasoning_member, **fields)
