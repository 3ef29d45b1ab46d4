"""The value that a tool returns, as the content of its result; also results of MCP tools, which are not imported."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

import msgspec

from ctxbackends._chat.media import ImagePart
from ctxbackends._chat.messages import TextPart, ToolCall, ToolResult


def build_result(call: ToolCall, value: Any) -> ToolResult:
    """Return the result of a call.

    Raises:
        TypeError: The value is not text, parts, a JSON value, an object that can be written as JSON, or an MCP result.
    """
    content = getattr(value, "content", None)
    if isinstance(content, list | tuple) and _has_error_flag(value):
        return ToolResult(call.id, _from_mcp(value), call.name, bool(_get(value, "is_error", "isError")))
    if isinstance(value, ToolResult):
        return ToolResult(call.id, value.content, call.name, value.is_error)
    return ToolResult(call.id, _to_content(value), call.name)


def build_error(call: ToolCall, problem: str) -> ToolResult:
    """Return the result of a call that failed."""
    return ToolResult(call.id, problem, call.name, is_error=True)


def _to_content(value: Any) -> Any:
    if hasattr(value, "model_dump"):  # a pydantic model
        return value.model_dump(mode="json")
    try:
        return ToolResult("", value).content
    except TypeError:
        return msgspec.to_builtins(value)  # a dataclass, an attrs class, a Struct; TypeError for others


# --- MCP ------------------------------------------------------------------------------------------
#
# https://modelcontextprotocol.io/specification/2025-11-25/schema#calltoolresult. The Python SDK has snake_case names
# since 2.0 (is_error) and camelCase names before (isError).


def _get(value: Any, *names: str) -> Any:
    return next((getattr(value, name) for name in names if hasattr(value, name)), None)


def _has_error_flag(value: Any) -> bool:
    return hasattr(value, "is_error") or hasattr(value, "isError")


def _from_mcp(value: Any) -> str | tuple[TextPart | ImagePart, ...]:
    structured = _get(value, "structured_content", "structuredContent")
    parts = [part for block in value.content for part in _convert_block(block)]
    if not parts:
        return "" if structured is None else json.dumps(structured, ensure_ascii=False)
    if all(isinstance(part, TextPart) for part in parts):
        return "\n".join(part.text for part in parts if isinstance(part, TextPart))
    return tuple(parts)


def _convert_block(block: Any) -> Iterable[TextPart | ImagePart]:
    match getattr(block, "type", None):
        case "text":
            yield TextPart(block.text)
        case "image":
            yield ImagePart.from_bytes(base64.b64decode(block.data), media_type=_get(block, "mime_type", "mimeType"))
        case "resource" if hasattr(block.resource, "text"):
            yield TextPart(block.resource.text)
        case "resource_link":
            yield TextPart(str(block.uri))
        case kind:  # audio and binary resources: no wire format has them in a result
            yield TextPart(f"[{kind}: not supported as the result of a tool]")
