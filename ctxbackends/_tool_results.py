"""The value that a tool returns, as the content of its result. Accepts results of MCP tools."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from typing import Any

import msgspec

from ctxbackends._chat.media import ImagePart
from ctxbackends._chat.messages import TextPart, ToolCall, ToolResult
from ctxbackends._util.json_text import json_or_text


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
    if isinstance(value, bytes | bytearray | memoryview):  # msgspec would write them as base64
        raise TypeError(f"invalid result of a tool: {type(value).__name__}; decode it, or pass an ImagePart")
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
    parts = [part for block in value.content for part in _convert_block(block)]
    structured = _get(value, "structured_content", "structuredContent")
    if structured is not None and not _repeats(value.content, structured):
        parts.append(TextPart(json.dumps(structured, ensure_ascii=False)))
    if all(isinstance(part, TextPart) for part in parts):
        return "\n".join(part.text for part in parts if isinstance(part, TextPart))
    return tuple(parts)


def _repeats(blocks: Iterable[Any], structured: Any) -> bool:
    """Return whether the texts of a result have its structured content already, as the specification recommends.

    Python servers put a value that is not an object into the member ``result``, and send each item of a list as a text.
    """
    texts = [block.text for block in blocks if getattr(block, "type", None) == "text"]
    values = [json_or_text(text) for text in texts]
    inner = structured["result"] if isinstance(structured, dict) and [*structured] == ["result"] else structured
    return any(value in (*texts, texts, *values, values) for value in (structured, inner))


def _convert_block(block: Any) -> Iterable[TextPart | ImagePart]:
    match getattr(block, "type", None):
        case "text":
            yield TextPart(block.text)
        case "image":
            yield ImagePart.from_bytes(base64.b64decode(block.data), media_type=_get(block, "mime_type", "mimeType"))
        case "resource" if hasattr(block.resource, "text"):
            yield TextPart(block.resource.text)
        case "resource" if str(_get(block.resource, "mime_type", "mimeType")).startswith("image/"):
            media_type = _get(block.resource, "mime_type", "mimeType")
            yield ImagePart.from_bytes(base64.b64decode(block.resource.blob), media_type=media_type)
        case "resource_link":
            yield TextPart(str(block.uri))
        case kind:  # audio and binary resources: no wire format has them in a result
            yield TextPart(f"[{kind}: not supported as the result of a tool]")
