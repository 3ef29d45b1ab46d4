"""Events to a completion: the one fold for every wire format."""

from __future__ import annotations

from collections.abc import Sequence

from ctxbackends.messages import Part, ReasoningPart, TextPart, ToolCall
from ctxbackends.types import (
    Completion,
    Finish,
    PartialCompletion,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    TokenLogprob,
    ToolCallDelta,
)


class _Call:
    """A tool call that is being written."""

    __slots__ = ("arguments", "id", "name")

    def __init__(self, delta: ToolCallDelta) -> None:
        self.id = delta.id
        self.name = delta.name
        self.arguments = [delta.arguments]

    def call(self) -> ToolCall:
        return ToolCall(self.id, self.name, "".join(self.arguments))


class _Text:
    """A run of text."""

    __slots__ = ("pieces",)

    def __init__(self, piece: str) -> None:
        self.pieces = [piece]


class _Reasoning:
    """A block of reasoning: a signature ends it, and so does anything that is no reasoning."""

    __slots__ = ("pieces", "redacted", "signature")

    def __init__(self) -> None:
        self.pieces: list[str] = []
        self.signature: str | None = None
        self.redacted: str | None = None

    @property
    def ended(self) -> bool:
        return self.signature is not None or self.redacted is not None


class Accumulator:
    """Holds what a stream has handed on so far. ``finish`` is None until the last event has come."""

    __slots__ = ("_blocks", "_calls", "_last", "_logprobs", "_refusal", "finish")

    def __init__(self) -> None:
        self._blocks: list[_Text | _Reasoning | _Call] = []
        self._last: _Text | _Reasoning | _Call | None = None
        self._calls: dict[int, _Call] = {}
        self._refusal: list[str] = []
        self._logprobs: list[TokenLogprob] = []
        self.finish: Finish | None = None

    def add(self, *events: StreamEvent) -> None:
        """Take the next events, all that one read brought at once: nearly all of them are text that goes on."""
        last = self._last
        goes_on = last.pieces.append if isinstance(last, _Text) else None
        for event in events:
            if type(event) is TextDelta:
                if goes_on is None:
                    text = _Text(event.text)
                    self._begin(text)
                    goes_on = text.pieces.append
                else:
                    goes_on(event.text)
                if event.logprobs:
                    self._logprobs += event.logprobs
                continue
            if isinstance(event, ReasoningDelta):
                self._add_reasoning(event)
            elif isinstance(event, ToolCallDelta):
                self._add_call(event)
            elif isinstance(event, RefusalDelta):
                self._refusal.append(event.text)
            elif isinstance(event, Finish):
                self.finish = event
            goes_on = self._last.pieces.append if isinstance(self._last, _Text) else None

    def _begin(self, block: _Text | _Reasoning | _Call) -> None:
        self._blocks.append(block)
        self._last = block

    def _add_reasoning(self, delta: ReasoningDelta) -> None:
        block = self._last
        if not isinstance(block, _Reasoning) or block.ended or delta.redacted is not None:
            block = _Reasoning()
            self._begin(block)
        block.pieces.append(delta.text)
        block.signature = delta.signature
        block.redacted = delta.redacted

    def _add_call(self, delta: ToolCallDelta) -> None:
        known = self._calls.get(delta.index)
        if known is None:
            known = self._calls[delta.index] = _Call(delta)
            self._begin(known)
            return
        known.id = known.id or delta.id
        known.name = known.name or delta.name
        known.arguments.append(delta.arguments)

    def _tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(call.call() for _, call in sorted(self._calls.items())) if self._calls else ()

    def _collect(self) -> tuple[str, str, tuple[Part, ...]]:
        """All text, all reasoning, and what is not empty as parts in their order."""
        texts: list[str] = []
        thoughts: list[str] = []
        parts: list[Part] = []
        for block in self._blocks:
            if isinstance(block, _Call):
                parts.append(block.call())
                continue
            written = "".join(block.pieces)
            if isinstance(block, _Text):
                texts.append(written)
                if written:
                    parts.append(TextPart(written))
            else:
                thoughts.append(written)
                if written or block.ended:
                    parts.append(ReasoningPart(written, block.signature, block.redacted))
        return "".join(texts), "".join(thoughts), tuple(parts)

    def completion(
        self,
        *,
        requested_model: str,
        served_model: str | None,
        response_id: str | None,
        request_id: str | None = None,
        raw: bytes = b"",
    ) -> Completion:
        """The whole answer. Only to be called when ``finish`` is set."""
        assert self.finish is not None, "a completion exists only after Finish"
        text, reasoning, parts = self._collect()
        return Completion(
            text=text,
            finish_reason=self.finish.finish_reason,
            usage=self.finish.usage,
            requested_model=requested_model,
            served_model=served_model,
            reasoning=reasoning,
            refusal="".join(self._refusal),
            tool_calls=self._tool_calls(),
            logprobs=tuple(self._logprobs),
            stop_sequence=self.finish.stop_sequence,
            response_id=response_id,
            request_id=request_id,
            parts=parts,
            raw=raw,
        )

    def partial(self, *, served_model: str | None = None) -> PartialCompletion:
        """What there is, for an error to carry."""
        text, reasoning, _ = self._collect()
        return PartialCompletion(
            text=text,
            reasoning=reasoning,
            tool_calls=self._tool_calls(),
            usage=self.finish.usage if self.finish else None,
            served_model=served_model,
        )


def build_completion(
    events: Sequence[StreamEvent],
    *,
    requested_model: str,
    served_model: str | None,
    response_id: str | None,
    request_id: str | None = None,
    raw: bytes = b"",
) -> Completion:
    """The completion that all the events of an answer make; the last is Finish."""
    first, finish = events[0], events[-1]
    if len(events) == 2 and isinstance(first, TextDelta) and isinstance(finish, Finish) and not first.logprobs:
        # One text, as most answers that come in one piece: without the fold, which takes three times as long.
        return Completion(
            text=first.text,
            finish_reason=finish.finish_reason,
            usage=finish.usage,
            requested_model=requested_model,
            served_model=served_model,
            stop_sequence=finish.stop_sequence,
            response_id=response_id,
            request_id=request_id,
            parts=(TextPart(first.text),) if first.text else (),
            raw=raw,
        )
    whole = Accumulator()
    whole.add(*events)
    return whole.completion(
        requested_model=requested_model,
        served_model=served_model,
        response_id=response_id,
        request_id=request_id,
        raw=raw,
    )
