"""The conversion between LangChain's messages and tools and those of ctxbackends, without loss."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolCallChunk, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.utils.function_calling import convert_to_openai_tool
from langchain_core.utils.json import parse_partial_json

from ctxbackends import (
    AudioPart,
    Completion,
    FilePart,
    ImagePart,
    Message,
    NamedTool,
    ReasoningDelta,
    ReasoningPart,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    TextPart,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
    Usage,
    strict_schema,
)
from ctxbackends.errors import UnsupportedOptionError
from ctxbackends.integrations._common import UnsupportedOptions

MESSAGE = "ctxbackends_message"
"""The member of ``additional_kwargs`` with the unmodified message, where LangChain's has no room for all of it."""

FIRST_CALL_INDEX = 1000
"""The index of the first tool call of a stream. With ``output_version="v1"``, LangChain counts all other blocks from 0
and merges the blocks of the same index."""

_ROLES = {"human": "user", "user": "user", "system": "system", "developer": "system", "ai": "assistant"}


# --- to the model ---------------------------------------------------------------------------------


def to_messages(messages: Sequence[BaseMessage], unsupported: UnsupportedOptions) -> list[Message]:
    """Return the messages for a request. The names of their authors, and their IDs, are not sent.

    Raises:
        UnsupportedOptionError: A message or a part of one has a type that no backend supports, or ``cache_control``
            without ``drop``.
    """
    if unsupported == "error":
        for message in messages:
            if any(isinstance(block, dict) and "cache_control" in block for block in message.content):
                raise UnsupportedOptionError("cache_control", "pass it in extra_body, and remove it from the message")
    names = {call["id"]: call["name"] for message in messages for call in getattr(message, "tool_calls", ())}
    return [_to_message(message, names) for message in messages]


def _to_message(message: BaseMessage, names: Mapping[str | None, str]) -> Message:
    if isinstance(message, ToolMessage):
        content: Any = message.content if isinstance(message.content, str) else _to_parts(message)
        name = message.name or names.get(message.tool_call_id)
        return Message.tool(
            content or "", tool_call_id=message.tool_call_id, name=name, is_error=message.status == "error"
        )
    if isinstance(message, AIMessage):
        return _to_assistant_message(message)
    role = _ROLES.get(message.role if message.type == "chat" else message.type)  # type: ignore[attr-defined]
    if role is None:
        raise UnsupportedOptionError(f"message: {message.type}", "use system, human, ai or tool messages")
    return Message(role, message.content if isinstance(message.content, str) else tuple(_to_parts(message)) or "")  # type: ignore[arg-type]  # _ROLES has only roles


def _to_parts(message: BaseMessage) -> list[TextPart | ImagePart | AudioPart | FilePart]:
    """Return the parts of a list of content blocks, which LangChain converts from the vendors' forms to its own."""
    return [_to_part(block) for block in message.content_blocks]


def _to_part(block: Mapping[str, Any]) -> TextPart | ImagePart | AudioPart | FilePart:
    match block:
        case {"type": "text" | "text-plain", "text": str(text)}:
            return TextPart(text)
        case {"type": "image", "url": str(url)} | {
            "type": "non_standard",
            "value": {"type": "image_url", "image_url": str(url)},
        }:
            return ImagePart.from_url(url)
        case {"type": "image", "base64": str(data)}:
            return ImagePart.from_bytes(base64.b64decode(data), media_type=block.get("mime_type"))
        case {"type": "audio", "base64": str(data)}:
            media_type = block.get("mime_type")
            audio = base64.b64decode(data)
            return AudioPart(audio, media_type) if media_type else AudioPart.from_bytes(audio)
        case {"type": "file", "base64": str(data)}:
            extras = block.get("extras") or {}
            name = extras.get("filename") or block.get("filename") or extras.get("name") or "document.pdf"
            return FilePart.from_bytes(base64.b64decode(data), name=name)
    kind = block["value"].get("type") if block["type"] == "non_standard" else block["type"]
    problem = f"no backend supports a block with {', '.join(sorted(block))}; use text, image, audio or file with base64"
    raise UnsupportedOptionError(f"message: {kind}", problem)


def _to_assistant_message(message: AIMessage) -> Message:
    calls = [ToolCall(call["id"] or "", call["name"], json.dumps(call["args"])) for call in message.tool_calls]
    calls += [ToolCall(call["id"] or "", call["name"] or "", call["args"] or "") for call in message.invalid_tool_calls]
    stored = message.additional_kwargs.get(MESSAGE)
    if stored is not None:
        parts = _restore(Message.from_dict(stored), str(message.text), calls)
    else:
        blocks = [message.content] if isinstance(message.content, str) else message.content
        parts = [part for block in blocks for part in _to_assistant_parts(block)]
        reasoning = message.additional_kwargs.get("reasoning_content")
        if reasoning and not any(isinstance(part, ReasoningPart) for part in parts):
            parts.insert(0, ReasoningPart(str(reasoning)))
        parts += calls
    refusal = message.additional_kwargs.get("refusal")
    if not parts and refusal:
        parts = [TextPart(str(refusal))]
    only_text = len(parts) == 1 and parts[0] == TextPart(str(message.text))
    return Message("assistant", str(message.text) if only_text or not parts else tuple(parts))


def _restore(stored: Message, text: str, calls: list[ToolCall]) -> list[Any]:
    """Return the parts of a stored message, with the text and the calls that a program may have changed since."""
    is_same_text = stored.text == text
    parts: list[Any] = []
    for part in stored.parts:
        if isinstance(part, ToolCall):
            call = next((call for call in calls if call.id == part.id), None)
            if call is not None:
                calls.remove(call)
                parts.append(part if _is_same_call(part, call) else call)
        elif is_same_text or not isinstance(part, TextPart):
            parts.append(part)
    if text and not is_same_text:
        first = next((at for at, part in enumerate(parts) if isinstance(part, ToolCall)), len(parts))
        parts.insert(first, TextPart(text))
    return [*parts, *calls]


def _is_same_call(stored: ToolCall, call: ToolCall) -> bool:
    return stored.name == call.name and parse_arguments(stored.arguments) == parse_arguments(call.arguments)


def _to_assistant_parts(block: str | Mapping[Any, Any]) -> Iterator[TextPart | ReasoningPart]:
    """Yield the part for a block of a message of the model, also in the form of Anthropic's API."""
    match block:
        case str(text) | {"type": "text", "text": str(text)} | {"type": "refusal", "refusal": str(text)}:
            if text:
                yield TextPart(text)
        case {"type": "reasoning"}:
            yield ReasoningPart(block.get("reasoning") or "", (block.get("extras") or {}).get("signature"))
        case {"type": "thinking", "thinking": str(text)}:
            yield ReasoningPart(text, block.get("signature"))
        case {"type": "redacted_thinking", "data": str(data)}:
            yield ReasoningPart("", redacted=data)
        case {"type": "tool_call" | "tool_call_chunk" | "invalid_tool_call" | "tool_use" | "input_json_delta"}:
            return  # in tool_calls too, which programs change
        case _:
            raise UnsupportedOptionError(f"message: {block.get('type')}", "not supported in a message of the model")


def to_tool(tool: Any, strict: bool | None = None) -> dict[str, Any]:
    """Return a tool in OpenAI's form.

    Raises:
        ValueError: The tool cannot be converted, or its schema cannot be strict.
    """
    converted: dict[str, Any] = convert_to_openai_tool(tool)
    if strict is None or "function" not in converted:
        return converted
    function = converted["function"]
    parameters = function.get("parameters") or {"type": "object", "properties": {}}
    changed = {"parameters": strict_schema(parameters) if strict else parameters, "strict": strict}
    return {**converted, "function": {**function, **changed}}


def to_tool_choice(choice: Any) -> Any:
    """Return the choice with LangChain's own forms converted: ``any``, the name of a tool, and a bool."""
    if isinstance(choice, bool):
        return "required" if choice else None
    if not isinstance(choice, str) or choice in ("auto", "none", "required"):
        return choice
    return "required" if choice == "any" else NamedTool(choice)


# --- from the model -------------------------------------------------------------------------------


def to_ai_message(completion: Completion) -> AIMessage:
    """Return the message for a completion."""
    calls, invalid = [], []
    for call in completion.tool_calls:
        arguments = parse_arguments(call.arguments)
        if arguments is not None:
            calls.append({"id": call.id, "name": call.name, "args": arguments})
        else:
            error = f"not a JSON object; finish_reason: {completion.finish_reason}"
            invalid.append({"id": call.id, "name": call.name, "args": call.arguments, "error": error})
    extra = {"reasoning_content": completion.reasoning, "refusal": completion.refusal}
    return AIMessage(
        completion.text,
        tool_calls=calls,
        invalid_tool_calls=invalid,
        additional_kwargs={name: text for name, text in extra.items() if text} | _build_stored(completion),
        response_metadata=_build_metadata(completion),
        usage_metadata=_to_usage(completion.usage),
    )


def to_chunk(event: StreamEvent) -> ChatGenerationChunk | None:
    """Return the chunk for an event of a stream, None for an event without a part of the message."""
    if isinstance(event, TextDelta):
        message = AIMessageChunk(content=event.text)
    elif isinstance(event, ReasoningDelta) and event.text:
        message = AIMessageChunk(content="", additional_kwargs={"reasoning_content": event.text})
    elif isinstance(event, RefusalDelta):
        message = AIMessageChunk(content="", additional_kwargs={"refusal": event.text})
    elif isinstance(event, ToolCallDelta):
        message = _build_call_chunk(event.index, event.id or None, event.name or None, event.arguments)
    else:
        return None
    return ChatGenerationChunk(message=message)


def build_last_chunks(completion: Completion) -> Iterator[ChatGenerationChunk]:
    """Yield the chunks after the last event: what LangChain needs only once."""
    for index, call in enumerate(completion.tool_calls):
        if parse_arguments(call.arguments) is None and isinstance(parse_partial_json(call.arguments), dict):
            yield ChatGenerationChunk(message=_build_call_chunk(index, None, None, _find_ending(call.arguments)))
    yield ChatGenerationChunk(
        message=AIMessageChunk(
            content="",
            additional_kwargs=_build_stored(completion),
            response_metadata=_build_metadata(completion),
            usage_metadata=_to_usage(completion.usage),
            chunk_position="last",
        )
    )


def _build_call_chunk(index: int, id_: str | None, name: str | None, arguments: str) -> AIMessageChunk:
    chunk = ToolCallChunk(index=FIRST_CALL_INDEX + index, id=id_, name=name, args=arguments)
    return AIMessageChunk(content="", tool_call_chunks=[chunk])


def _find_ending(arguments: str) -> str:
    """Return the end of a call that was cut off, which keeps it from being called.

    LangChain completes cut JSON when it adds up chunks, so that a command that was cut would look like a whole one.
    Only a bracket that closes nothing makes it an invalid call.
    """
    endings = ("]", "}", '"]', '"}', '""]', '""}')
    return next(ending for ending in endings if not isinstance(parse_partial_json(arguments + ending), dict))


def parse_arguments(arguments: str) -> dict[str, Any] | None:
    """Return the arguments of a call, None if they are not a JSON object."""
    try:
        parsed = json.loads(arguments) if arguments.strip() else {}
    except ValueError:
        return None
    return {} if parsed is None else parsed if isinstance(parsed, dict) else None


def _build_stored(completion: Completion) -> dict[str, Any]:
    """Return the unmodified message if a text and calls are not all of it: signatures, other data, another order."""
    message = completion.message
    plain = Message.assistant(completion.text, tool_calls=completion.tool_calls)
    return {} if message.parts == plain.parts else {MESSAGE: message.to_dict()}


def _build_metadata(completion: Completion) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "model_name": completion.served_model or completion.requested_model,
        "model_provider": "ctxbackends",
        "finish_reason": completion.finish_reason,
        "raw_finish_reason": completion.raw_finish_reason,
        "stop_sequence": completion.stop_sequence,
        "response_id": completion.response_id,
        "request_id": completion.request_id,
        "citations": [msgspec.to_builtins(citation) for citation in completion.citations] or None,
        "logprobs": {"content": [_to_logprob(item) for item in completion.logprobs]} if completion.logprobs else None,
    }
    return {name: value for name, value in metadata.items() if value is not None}


def _to_logprob(item: TokenLogprob) -> dict[str, Any]:
    """Return a token in the form of OpenAI, as LangChain's own models do."""
    data = None if item.bytes is None else list(item.bytes)
    top = [_to_logprob(other) for other in item.top]
    return {"token": item.token, "logprob": item.logprob, "bytes": data, "top_logprobs": top}


def _to_usage(usage: Usage | None) -> UsageMetadata | None:
    if usage is None:
        return None
    metadata = UsageMetadata(
        input_tokens=usage.input_tokens,
        output_tokens=usage.output_tokens,
        total_tokens=usage.input_tokens + usage.output_tokens,
    )
    details = {"cache_read": usage.cached_input_tokens, "cache_creation": usage.cache_write_tokens}
    known = {name: count for name, count in details.items() if count is not None}
    if known:
        metadata["input_token_details"] = known  # type: ignore[typeddict-item]  # the names are those of the type
    if usage.reasoning_tokens is not None:
        metadata["output_token_details"] = {"reasoning": usage.reasoning_tokens}
    return metadata
