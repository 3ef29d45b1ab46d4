"""Converts stream events and completions to llm's events."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any

import llm
from llm.parts import StreamEvent

from ctxbackends._chat.events import ReasoningDelta, RefusalDelta, TextDelta, ToolCallDelta
from ctxbackends._chat.messages import OpaquePart, ReasoningPart, TextPart, ToolCall
from ctxbackends._chat.responses import Completion
from ctxbackends.integrations._llm.messages import METADATA

logger = logging.getLogger("ctxbackends")

_CUT = {"length": "it reached max_tokens or the context length", "content_filter": "the server's filter ended it"}


class EventConverter:
    """Converts the events of one answer.

    Args:
        backend_type: The type of the backend, which marks the data that it needs back.
    """

    def __init__(self, backend_type: str) -> None:
        self._type = backend_type
        self._count = 0
        self._family = ""
        self._calls: dict[int, tuple[int, str]] = {}

    def convert(self, event: object) -> Iterator[StreamEvent]:
        """Yield llm's events for an event of a stream."""
        if isinstance(event, TextDelta | RefusalDelta):
            if event.text:
                yield StreamEvent("text", event.text, self._continue("text"))
        elif isinstance(event, ReasoningDelta):
            metadata = self._build_metadata(signature=event.signature, redacted=event.redacted)
            yield StreamEvent("reasoning", event.text, self._continue("reasoning"), provider_metadata=metadata)
            if event.signature or event.redacted:
                self._family = ""  # the block ends
        elif isinstance(event, ToolCallDelta):
            yield from self._convert_call(event)
        elif isinstance(event, OpaquePart):
            metadata = self._build_metadata(opaque={"wire": event.wire, "json": event.json})
            yield StreamEvent("reasoning", "", self._begin(""), provider_metadata=metadata)

    def convert_completion(self, completion: Completion) -> Iterator[StreamEvent]:
        """Yield llm's events for an answer in one piece."""
        calls = 0
        for part in completion.message.parts:
            if isinstance(part, TextPart):
                yield from self.convert(TextDelta(part.text))
            elif isinstance(part, ReasoningPart):
                yield from self.convert(ReasoningDelta(part.text, part.signature, part.redacted))
            elif isinstance(part, ToolCall):
                yield from self.convert(ToolCallDelta(calls, part.id, part.name, part.arguments, part.opaque))
                calls += 1
            else:
                yield from self.convert(part)
        if completion.refusal:
            yield from self.convert(RefusalDelta(completion.refusal))

    def _convert_call(self, event: ToolCallDelta) -> Iterator[StreamEvent]:
        if event.index not in self._calls:
            self._calls[event.index] = self._begin("tool_call"), event.id
            yield StreamEvent("tool_call_name", event.name, self._calls[event.index][0], event.id)
        index, call_id = self._calls[event.index]
        metadata = None
        if event.opaque is not None:
            metadata = self._build_metadata(opaque={"wire": event.opaque.wire, "json": event.opaque.json})
        if event.arguments or metadata:
            yield StreamEvent("tool_call_args", event.arguments, index, call_id, provider_metadata=metadata)

    def _begin(self, family: str) -> int:
        self._family = family
        self._count += 1
        return self._count - 1

    def _continue(self, family: str) -> int:
        return self._count - 1 if family == self._family else self._begin(family)

    def _build_metadata(self, **values: Any) -> dict[str, Any]:
        return {METADATA: {"type": self._type, **{name: value for name, value in values.items() if value is not None}}}


def finish_response(response: Any, completion: Completion) -> None:
    """Give llm's response what is known at the end: tool calls, token counts, the served model and IDs.

    Raises:
        llm.ModelError: The answer to a schema is not complete.
    """
    for call in completion.tool_calls:
        response.add_tool_call(llm.ToolCall(call.name, _parse_arguments(call.arguments), call.id))
    usage = completion.usage
    if usage is not None:
        counts = {name: getattr(usage, name) for name in usage.__struct_fields__ if not name.endswith("put_tokens")}
        counts["cached_input_tokens"] = usage.cached_input_tokens
        details = {name: count for name, count in counts.items() if count}
        response.set_usage(input=usage.input_tokens, output=usage.output_tokens, details=details or None)
    if completion.served_model:
        response.set_resolved_model(completion.served_model)
    facts = {
        "id": completion.response_id,
        "request_id": completion.request_id,
        "model": completion.served_model,
        "finish_reason": completion.finish_reason,
        "stop_sequence": completion.stop_sequence,
        "citations": [
            {"url": citation.url, "title": citation.title, "text": citation.text} for citation in completion.citations
        ],
    }
    response.response_json = {name: value for name, value in facts.items() if value}
    if completion.finish_reason in _CUT:
        problem = f"the answer is not complete: {_CUT[completion.finish_reason]}"
        if response.prompt.schema:
            raise llm.ModelError(problem)
        logger.warning("%s", problem)


def _parse_arguments(text: str) -> dict[str, Any]:
    """Return the arguments of a call; what is not a JSON object as ``_raw``, as llm does in a history."""
    try:
        arguments = json.loads(text or "{}")
    except ValueError:
        arguments = None
    return arguments if isinstance(arguments, dict) else {"_raw": text}
