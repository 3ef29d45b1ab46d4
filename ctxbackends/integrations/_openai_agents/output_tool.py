"""The output type of an agent as a tool, where a grammar would keep the model from calling tools."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

from ctxbackends._chat.events import Finish, StreamEvent, TextDelta, ToolCallDelta
from ctxbackends._chat.messages import Part, TextPart, ToolCall
from ctxbackends._chat.requests import JSONSchemaFormat, Tool
from ctxbackends._client.backend import Backend
from ctxbackends.integrations._common import logger

OUTPUT_TOOL = "final_output"


def needs_output_tool(backend: Backend, options: Mapping[str, Any]) -> bool:
    """Return whether the schema and the tools of a request exclude each other."""
    return backend.schema_enforcement == "grammar" and options["tool_choice"] != "none"


def build_output_tool(response_format: JSONSchemaFormat) -> Tool:
    """Return the tool that the model calls to answer."""
    description = "Give the final answer. Call it alone, after the results of the other tools."
    return Tool(OUTPUT_TOOL, description, response_format.schema, bool(response_format.strict))


async def read_output_call(events: AsyncIterator[StreamEvent]) -> AsyncIterator[StreamEvent]:
    """Return the events with the arguments of a call of the tool as text, and without other text."""
    text: list[TextDelta] = []
    output_index: int | None = None
    async for event in events:
        if isinstance(event, TextDelta):
            text.append(event)
        elif isinstance(event, ToolCallDelta) and event.name == OUTPUT_TOOL and output_index is None:
            output_index = event.index
            yield TextDelta(event.arguments)
        elif isinstance(event, ToolCallDelta) and event.index == output_index:
            yield TextDelta(event.arguments)
        elif isinstance(event, Finish):
            if output_index is None:
                for delta in text:
                    yield delta
            elif text:
                logger.info("The text next to a call of %s is left out", OUTPUT_TOOL)
            yield event
        else:
            yield event


def read_output_part(parts: list[Part]) -> list[Part]:
    """Return the parts of a message as :func:`read_output_call` does for its events."""
    calls = [part for part in parts if isinstance(part, ToolCall) and part.name == OUTPUT_TOOL]
    if not calls:
        return parts
    kept = [part for part in parts if not isinstance(part, TextPart)]
    return [TextPart(part.arguments) if part is calls[0] else part for part in kept]  # type: ignore[union-attr]
