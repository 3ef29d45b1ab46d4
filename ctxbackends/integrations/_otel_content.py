"""Messages in the form of the GenAI semantic conventions."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from ctxbackends._chat.media import AudioPart, FilePart, ImagePart
from ctxbackends._chat.messages import Message, OpaquePart, ReasoningPart, TextPart, ToolCall, ToolResult
from ctxbackends._chat.responses import Completion
from ctxbackends._util.json_text import json_or_text


def describe_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Return the messages of a prompt, in their order."""
    return [{"role": message.role, "parts": _describe_content(message.content)} for message in messages]


def describe_completion(completion: Completion) -> list[dict[str, Any]]:
    """Return the answer as the only message."""
    (message,) = describe_messages([completion.message])
    return [message]


def _describe_content(content: str | Sequence[Any]) -> list[dict[str, Any]]:
    if isinstance(content, str):
        return [{"type": "text", "content": content}]
    return [_describe_part(part) for part in content]


def _describe_part(part: Any) -> dict[str, Any]:
    match part:
        case TextPart():
            return {"type": "text", "content": part.text}
        case ReasoningPart():
            return {"type": "reasoning", "content": part.text}
        case ToolCall():
            return {"type": "tool_call", "id": part.id, "name": part.name, "arguments": json_or_text(part.arguments)}
        case ToolResult():
            response = part.content if isinstance(part.content, str) else _describe_content(part.content)
            return {"type": "tool_call_response", "id": part.tool_call_id, "response": response}
        case ImagePart(url=str(url)):
            return {"type": "uri", "modality": "image", "uri": url}
        case ImagePart():
            return _describe_blob("image", part.media_type, part.data or b"")
        case AudioPart():
            return _describe_blob("audio", part.media_type, part.data)
        case FilePart():
            return _describe_blob("document", None, part.data)
        case OpaquePart():
            return {"type": "opaque", "wire": part.wire, "json": part.json}
        case _:
            return {"type": type(part).__name__}


def _describe_blob(modality: str, media_type: str | None, data: bytes) -> dict[str, Any]:
    mime_type = {} if media_type is None else {"mime_type": media_type}
    return {"type": "blob", "modality": modality, **mime_type, "content": base64.b64encode(data).decode()}
