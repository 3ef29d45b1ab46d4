"""Builds the messages of a request from llm's."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import llm
from llm import parts as llm_parts

from ctxbackends._chat.media import AUDIO_TYPES, AudioPart, FilePart, ImagePart
from ctxbackends._chat.messages import Message, OpaquePart, ReasoningPart, TextPart, ToolCall, ToolResult
from ctxbackends._client.backend import Backend

METADATA = "ctxbackends"
"""The member of ``provider_metadata`` with what the server needs back."""

IMAGE_TYPES = frozenset({"image/png", "image/jpeg", "image/webp", "image/gif"})
SOUND_TYPES = frozenset({*AUDIO_TYPES.values(), "audio/wave", "audio/x-wav", "audio/vnd.wave", "audio/mp3"})
PDF = "application/pdf"

File: TypeAlias = ImagePart | AudioPart | FilePart


def build_messages(messages: Sequence[llm.Message], backend: Backend) -> list[Message]:
    """Build the messages of a request. Reasoning and data of other providers, and calls of their tools, are left out.

    A system prompt that is repeated is sent once.
    """
    ids = _CallIDs()
    built: list[Message] = []
    for message in messages:
        parts = list(_build_parts(message, backend, ids))
        if not parts:
            continue
        if message.role == "system":
            text = "".join(part.text for part in parts)
            systems = [earlier.text for earlier in built if earlier.role == "system"]
            built += [Message.system(text)] if systems[-1:] != [text] else []
        else:
            role: Any = message.role
            built.append(Message(role, tuple(parts)))
    return built


class _CallIDs:
    """The IDs of calls and results, which some of llm's plugins leave out."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._open: list[str] = []

    def of_call(self, given: str | None) -> str:
        self._open += [given or f"call_{next(self._numbers)}"]
        return self._open[-1]

    def of_result(self, given: str | None) -> str:
        call_id = given or (self._open[0] if self._open else f"call_{next(self._numbers)}")
        self._open = [open_id for open_id in self._open if open_id != call_id]
        return call_id


def _build_parts(message: llm.Message, backend: Backend, ids: _CallIDs) -> Iterator[Any]:
    for part in message.parts:
        metadata = _read_metadata(part, backend)
        if isinstance(part, llm_parts.TextPart) and part.text:
            yield TextPart(part.text)
        elif isinstance(part, llm_parts.AttachmentPart) and part.attachment is not None:
            yield build_file(part.attachment, backend)
        elif isinstance(part, llm_parts.ReasoningPart):
            yield from _build_reasoning(part, metadata, backend)
        elif isinstance(part, llm_parts.ToolCallPart) and not part.server_executed:
            opaque = OpaquePart(**metadata["opaque"]) if "opaque" in metadata else None
            given: Any = part.arguments  # a model may have written a list
            arguments = given if isinstance(given, dict) else {}
            call_id = ids.of_call(part.tool_call_id)
            yield ToolCall(call_id, part.name, json.dumps(arguments, ensure_ascii=False), opaque)
        elif isinstance(part, llm_parts.ToolResultPart) and not part.server_executed:
            content: Any = part.output
            if part.attachments:
                content = [TextPart(part.output), *(build_file(file, backend) for file in part.attachments)]
            is_error = part.exception is not None
            yield ToolResult(ids.of_result(part.tool_call_id), content, part.name, is_error)


def _read_metadata(part: llm_parts.Part, backend: Backend) -> dict[str, Any]:
    """Return what a backend of the same type stored in a part."""
    metadata = (getattr(part, "provider_metadata", None) or {}).get(METADATA) or {}
    return metadata if metadata.get("type") == backend.type else {}


def _build_reasoning(part: llm_parts.ReasoningPart, metadata: dict[str, Any], backend: Backend) -> Iterator[Any]:
    if "opaque" in metadata:
        yield OpaquePart(**metadata["opaque"])
        return
    signature, redacted = metadata.get("signature"), metadata.get("redacted")
    is_complete = signature or redacted or (metadata and backend.capabilities.wire_api != "messages")
    if is_complete and "reasoning" in backend.capabilities.message_parts:
        yield ReasoningPart("" if redacted else part.text, signature, redacted)


def build_file(attachment: Any, backend: Backend) -> File:
    """Return an attachment of llm as a part of a message.

    An image with a URL is fetched by the server if it supports that; anything else is read or downloaded here.

    Raises:
        ValueError: The type is not supported.
    """
    media_type = attachment.resolve_type() or ""
    if media_type in IMAGE_TYPES and attachment.url and "image url" in backend.capabilities.message_parts:
        return ImagePart.from_url(attachment.url)
    data = attachment.content_bytes()
    if media_type in IMAGE_TYPES:
        return ImagePart(data, media_type)
    if media_type in SOUND_TYPES:
        return AudioPart(data, media_type)
    if media_type == PDF:
        return FilePart(data)
    raise ValueError(f"cannot send an attachment of the type {media_type}; send an image, audio or a PDF")
