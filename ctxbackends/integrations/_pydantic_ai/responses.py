"""Builds pydantic-ai's responses and stream events from ours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic_ai import messages as ai
from pydantic_ai.usage import RequestUsage

from ctxbackends._chat.events import CitationDelta, ReasoningDelta, StreamEvent, TextDelta, ToolCallDelta
from ctxbackends._chat.messages import OpaquePart, Part, ReasoningPart, TextPart, ToolCall
from ctxbackends._chat.responses import Completion, Usage
from ctxbackends.integrations._pydantic_ai.messages import REDACTED


def build_response(completion: Completion, *, provider_name: str, provider_url: str) -> ai.ModelResponse:
    """Build the response for a whole answer."""
    return ai.ModelResponse(
        parts=build_parts(completion, provider_name),
        usage=build_usage(completion.usage),
        model_name=completion.served_model or completion.requested_model,
        provider_name=provider_name,
        provider_url=provider_url,
        provider_details=build_details(completion),
        provider_response_id=completion.response_id,
        finish_reason=build_finish_reason(completion),
    )


def build_parts(completion: Completion, system: str) -> list[ai.ModelResponsePart]:
    """Build the parts of a whole answer, marked with the provider name."""
    return [built for part in completion.message.parts if (built := _build_part(part, system)) is not None]


def _build_part(part: Part, system: str) -> ai.ModelResponsePart | None:
    if isinstance(part, TextPart):
        return ai.TextPart(part.text, **_build_opaque(part.opaque, system))
    if isinstance(part, ToolCall):
        return ai.ToolCallPart(part.name, part.arguments, part.id, **_build_opaque(part.opaque, system))
    if isinstance(part, OpaquePart):
        return ai.ThinkingPart("", **_build_opaque(part, system))
    if isinstance(part, ReasoningPart) and part.redacted is not None:
        return ai.ThinkingPart("", id=REDACTED, signature=part.redacted, provider_name=system)
    assert isinstance(part, ReasoningPart), "the other parts are not in an answer"
    return ai.ThinkingPart(part.text, signature=part.signature, provider_name=system)


def _build_opaque(part: OpaquePart | None, system: str) -> dict[str, Any]:
    """Return the arguments for a part with data that only the server understands; it survives JSON."""
    if part is None:
        return {}
    return {"provider_name": system, "provider_details": {"opaque": {"wire": part.wire, "json": part.json}}}


def build_details(completion: Completion) -> dict[str, Any]:
    """Build the details of an answer that pydantic-ai has no field for."""
    reasoning = [part for part in completion.parts if isinstance(part, ReasoningPart)]
    details = {
        "finish_reason": completion.raw_finish_reason or completion.finish_reason,
        "request_id": completion.request_id,
        "stop_sequence": completion.stop_sequence,
        "refusal": completion.refusal,
        "reasoning_member": reasoning[0].member if reasoning else None,
        "citations": [
            {"url": source.url, "title": source.title, "text": source.text} for source in completion.citations
        ],
        "logprobs": [{"token": token.token, "logprob": token.logprob} for token in completion.logprobs],
    }
    return {name: value for name, value in details.items() if value}


def build_finish_reason(completion: Completion) -> ai.FinishReason:
    """Return pydantic-ai's finish reason. A refusal is filtered content, as in its model for OpenAI."""
    if completion.refusal:
        return "content_filter"
    return "tool_call" if completion.finish_reason == "tool_calls" else completion.finish_reason


def build_usage(usage: Usage | None) -> RequestUsage:
    """Build the usage of one request, marked as not measured if the server reports none."""
    if usage is None:
        return RequestUsage(unmeasured_requests=1)
    return RequestUsage(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        cache_read_tokens=usage.cached_input_tokens or 0,
        cache_write_tokens=usage.cache_write_tokens or 0,
        output_reasoning_tokens=usage.reasoning_tokens or 0,
    )


class ResponseEvents:
    """Converts the events of a stream with pydantic-ai's manager of parts."""

    def __init__(self, manager: Any, system: str) -> None:
        self._manager = manager
        self._system = system
        self._kind = ""
        self._block = 0  # the ID of the current block of text or reasoning

    def convert(self, event: StreamEvent) -> Iterator[ai.ModelResponseStreamEvent]:
        """Yield the events for one event of a stream; none for progress, refusals and the end."""
        if isinstance(event, TextDelta):
            yield from self._manager.handle_text_delta(vendor_part_id=self._enter("text"), content=event.text)
        elif isinstance(event, ToolCallDelta):
            self._kind = "tool call"
            converted = self._manager.handle_tool_call_delta(
                vendor_part_id=f"call {event.index}",
                tool_name=event.name or None,
                args=event.arguments or None,
                tool_call_id=event.id or None,
                **_build_opaque(event.opaque, self._system),
            )
            if converted is not None:
                yield converted
        elif isinstance(event, ReasoningDelta):
            yield from self._convert_reasoning(event)
        elif isinstance(event, OpaquePart):
            self._kind = ""
            opaque = _build_opaque(event, self._system)
            yield from self._manager.handle_thinking_delta(vendor_part_id=self._enter("opaque"), content="", **opaque)
        elif isinstance(event, CitationDelta) and event.opaque is not None:
            opaque = _build_opaque(event.opaque, self._system)
            yield from self._manager.handle_text_delta(vendor_part_id=self._enter("text"), content="", **opaque)

    def _enter(self, kind: str) -> int:
        if kind != self._kind:
            self._kind = kind
            self._block += 1
        return self._block

    def _convert_reasoning(self, event: ReasoningDelta) -> Iterator[ai.ModelResponseStreamEvent]:
        if event.redacted is not None:
            self._kind = ""
            yield from self._manager.handle_thinking_delta(
                vendor_part_id=self._enter("redacted"),
                id=REDACTED,
                content="",
                signature=event.redacted,
                provider_name=self._system,
            )
            return
        yield from self._manager.handle_thinking_delta(
            vendor_part_id=self._enter("reasoning"),
            content=event.text,
            signature=event.signature,
            provider_name=self._system,
        )
        if event.signature is not None:
            self._kind = ""  # a signature ends a block
