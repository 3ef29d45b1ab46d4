"""Events to a completion: the one fold for every wire format."""

from __future__ import annotations

from ctxbackends.types import (
    Completion,
    Finish,
    PartialCompletion,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCall,
    ToolCallDelta,
)


class Accumulator:
    """Holds what a stream has handed on so far. ``finish`` is None until the last event has come."""

    __slots__ = ("_calls", "_reasoning", "_refusal", "_text", "finish")

    def __init__(self) -> None:
        self._text: list[str] = []
        self._reasoning: list[str] = []
        self._refusal: list[str] = []
        self._calls: dict[int, tuple[str, str, list[str]]] = {}
        self.finish: Finish | None = None

    def add(self, event: StreamEvent) -> None:
        if isinstance(event, TextDelta):
            self._text.append(event.text)
        elif isinstance(event, ReasoningDelta):
            self._reasoning.append(event.text)
        elif isinstance(event, ToolCallDelta):
            self._add_call(event)
        elif isinstance(event, RefusalDelta):
            self._refusal.append(event.text)
        else:
            self.finish = event

    def _add_call(self, delta: ToolCallDelta) -> None:
        known = self._calls.get(delta.index)
        if known is None:
            self._calls[delta.index] = (delta.id, delta.name, [delta.arguments])
            return
        identifier, name, arguments = known
        arguments.append(delta.arguments)
        self._calls[delta.index] = (identifier or delta.id, name or delta.name, arguments)

    def _tool_calls(self) -> tuple[ToolCall, ...]:
        return tuple(
            ToolCall(identifier, name, "".join(parts)) for _, (identifier, name, parts) in sorted(self._calls.items())
        )

    def completion(
        self, *, requested_model: str, served_model: str | None, response_id: str | None, raw: bytes = b""
    ) -> Completion:
        """The whole answer. Only to be called when ``finish`` is set."""
        assert self.finish is not None, "a completion exists only after Finish"
        return Completion(
            text="".join(self._text),
            finish_reason=self.finish.finish_reason,
            usage=self.finish.usage,
            requested_model=requested_model,
            served_model=served_model,
            reasoning="".join(self._reasoning),
            refusal="".join(self._refusal),
            tool_calls=self._tool_calls(),
            response_id=response_id,
            raw=raw,
        )

    def partial(self, *, served_model: str | None = None) -> PartialCompletion:
        """What there is, for an error to carry."""
        return PartialCompletion(
            text="".join(self._text),
            reasoning="".join(self._reasoning),
            tool_calls=self._tool_calls(),
            usage=self.finish.usage if self.finish else None,
            served_model=served_model,
        )
