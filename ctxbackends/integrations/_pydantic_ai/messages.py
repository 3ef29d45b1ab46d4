"""Builds the messages of a request from pydantic-ai's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from pydantic_ai import messages as ai
from pydantic_ai.exceptions import UserError
from pydantic_ai.models import download_item

from ctxbackends._chat.media import AudioPart, FilePart, ImagePart
from ctxbackends._chat.messages import Message, OpaquePart, ReasoningPart, TextPart, ToolCall

REDACTED = "redacted_thinking"
"""The ID that pydantic-ai's own model for Anthropic gives to encrypted reasoning."""

UserPart: TypeAlias = TextPart | ImagePart | AudioPart | FilePart


async def build_messages(
    messages: Sequence[ai.ModelMessage],
    instructions: Sequence[ai.InstructionPart],
    *,
    system: str,
    takes_reasoning: bool,
) -> list[Message]:
    """Build the messages of a request. Leading system prompts and the instructions become one system message.

    Args:
        messages: The history.
        instructions: The instructions of the request.
        system: The provider name of the model, which marks the parts that it generated itself.
        takes_reasoning: Whether the backend accepts reasoning of earlier turns.
    """
    leading: list[str] = []
    built: list[Message] = []
    for message in messages:
        if isinstance(message, ai.ModelResponse):
            parts = list(_build_response_parts(message, system, takes_reasoning))
            built += [Message.assistant(parts)] if parts else []
            continue
        files: list[UserPart] = []
        for part in message.parts:
            if isinstance(part, ai.SystemPromptPart) and not built:
                leading.append(part.content)
            elif isinstance(part, ai.SystemPromptPart):
                built.append(Message.system(part.content))
            elif isinstance(part, ai.UserPromptPart):
                built.append(Message.user(await _build_user_content(part.content)))
            elif isinstance(part, ai.ToolReturnPart):
                text, extras = part.model_response_str_and_user_content(wrap_if_error=False)
                files += await _build_user_parts(extras)
                is_error = part.outcome in ("failed", "retried")
                built.append(Message.tool(text, tool_call_id=part.tool_call_id, name=part.tool_name, is_error=is_error))
            else:
                raise UserError(
                    f"cannot send a {type(part).__name__}; call model.prepare_messages(messages) first, as agents do"
                )
        built += [Message.user(files)] if files else []
    leading += [part.content for part in instructions]
    return [Message.system("\n\n".join(leading)), *built] if leading else built


def _build_response_parts(response: ai.ModelResponse, system: str, takes_reasoning: bool) -> Iterator[Any]:
    """Yield the parts of an answer. Reasoning, data and tools of another provider are left out."""
    member = (response.provider_details or {}).get("reasoning_member")
    for part in response.parts:
        is_own = getattr(part, "provider_name", None) == system
        details = (getattr(part, "provider_details", None) or {}) if is_own else {}
        opaque = OpaquePart(**details["opaque"]) if "opaque" in details else None
        if isinstance(part, ai.TextPart) and (part.content or opaque):
            yield TextPart(part.content, opaque)
        elif isinstance(part, ai.ToolCallPart):
            yield ToolCall(part.tool_call_id, part.tool_name, part.args_as_json_str(), opaque)
        elif isinstance(part, ai.ThinkingPart) and opaque is not None:
            yield opaque
        elif isinstance(part, ai.ThinkingPart) and is_own and takes_reasoning:
            if part.id == REDACTED:
                yield ReasoningPart("", redacted=part.signature)
            elif part.signature is not None or (part.content and system != "anthropic"):
                yield ReasoningPart(part.content, part.signature, member=member)


async def _build_user_content(content: str | Sequence[ai.UserContent]) -> str | list[UserPart]:
    if isinstance(content, str):
        return content
    return await _build_user_parts(content) or ""


async def _build_user_parts(content: Sequence[ai.UserContent]) -> list[UserPart]:
    return [await _build_user_part(item) for item in content if not isinstance(item, ai.CachePoint)]


async def _build_user_part(item: Any) -> UserPart:
    if isinstance(item, str):
        return TextPart(item)
    if isinstance(item, ai.TextContent):
        return TextPart(item.content)
    if isinstance(item, ai.ImageUrl) and not item.force_download:
        return ImagePart.from_url(item.url)
    if isinstance(item, ai.ImageUrl | ai.AudioUrl | ai.DocumentUrl):
        if not item.force_download:
            raise UserError(
                f"cannot send a {type(item).__name__} by its URL; pass BinaryContent, or set force_download=True"
            )
        downloaded = await download_item(item, data_format="bytes")
        return _build_file(downloaded["data"], downloaded["data_type"], item.identifier)
    if isinstance(item, ai.BinaryContent):
        return _build_file(item.data, item.media_type, item.identifier)
    raise UserError(f"cannot send a {type(item).__name__} to this backend; pass text or BinaryContent")


def _build_file(data: bytes, media_type: str, identifier: str) -> UserPart:
    if media_type.startswith("image/"):
        return ImagePart(data, media_type)
    if media_type.startswith("audio/"):
        return AudioPart(data, media_type)
    if media_type == "application/pdf":
        return FilePart(data)
    if media_type.startswith("text/") or media_type in ("application/json", "application/xml", "application/yaml"):
        text = data.decode("utf-8")
        return TextPart(
            f'-----BEGIN FILE id="{identifier}" type="{media_type}"-----\n{text}\n-----END FILE id="{identifier}"-----'
        )
    raise UserError(f"cannot send a file of the type {media_type}; send an image, audio, a PDF or text")
