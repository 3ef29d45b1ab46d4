"""Encodes messages and tools for OpenAI's chat completions, also for the servers' token counters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ctxbackends._chat.media import AudioPart, FilePart, ImagePart
from ctxbackends._chat.messages import Message, OpaquePart, Part, ReasoningPart, TextPart, ToolCall, ToolResult
from ctxbackends._chat.opaque_members import CHAT_WIRE, MESSAGE_MEMBERS
from ctxbackends._chat.requests import ChatRequest, JSONSchemaFormat, Tool
from ctxbackends._wire.base import decode_opaque, normalize_arguments
from ctxbackends._wire.body_settings import add_instruction, describe_schema
from ctxbackends._wire.formats.openai_parts import CONTENT_MEMBER
from ctxbackends._wire.options import OptionTable, Supported, Transform, check_supported, lookup, prepare_parameters


def encode_messages(messages: Sequence[Message], table: OptionTable) -> list[dict[str, Any]]:
    """Encode the conversation for the OpenAI API.

    Each tool result is a message. Its images follow in a user message after all results of the turn, because a message
    of a tool contains only text.
    """
    wire: list[dict[str, Any]] = []
    images: list[dict[str, Any]] = []
    for message in messages:
        if images and message.role != "tool":
            wire.append({"role": "user", "content": images})
            images = []
        if isinstance(message.content, str):
            wire.append({"role": message.role, "content": message.content})
            continue
        wire += _encode_message(message, message.content, table)
        images += encode_result_images(message)
    return [*wire, {"role": "user", "content": images}] if images else wire


def encode_result_images(message: Message) -> list[dict[str, Any]]:
    """Return the images of the tool results in a message, each after a text that names its call."""
    parts: list[dict[str, Any]] = []
    for result in message.parts:
        if isinstance(result, ToolResult):
            for image in result.images:
                parts += [{"type": "text", "text": describe_result_image(result)}, _encode_part(image)]
    return parts


def describe_result_image(result: ToolResult) -> str:
    """Return the text before an image of a tool result, which is sent in a user message."""
    return f"Image in the result of the tool call {result.tool_call_id}:"


def _encode_message(message: Message, parts: Sequence[Part], table: OptionTable) -> list[dict[str, Any]]:
    if message.role == "tool":
        return [_encode_tool_result(part) for part in parts if isinstance(part, ToolResult)]
    if message.role == "assistant":
        return [_encode_assistant(message, table)]
    if all(isinstance(part, TextPart) for part in parts) and len(parts) == 1:
        return [{"role": message.role, "content": message.text}]
    return [{"role": message.role, "content": [_encode_part(part) for part in parts]}]


def _encode_assistant(message: Message, table: OptionTable) -> dict[str, Any]:
    wire: dict[str, Any] = {"role": "assistant", "content": message.text or None}
    reasoning = [part for part in message.content if isinstance(part, ReasoningPart)]
    support = table["message: reasoning"]
    text = "".join(part.text for part in reasoning)
    if text and isinstance(support, Supported):
        member = reasoning[0].member or support.path.rpartition(".")[2]
        if member == CONTENT_MEMBER:  # Mistral
            thinking = {"type": "thinking", "thinking": [{"type": "text", "text": text}]}
            wire["content"] = [thinking, *([{"type": "text", "text": message.text}] if message.text else [])]
        else:
            wire[member] = text
    for part in message.content:
        if isinstance(part, OpaquePart):
            members = decode_opaque(part, CHAT_WIRE)
            wire |= {name: members[name] for name in MESSAGE_MEMBERS if name in members}
    if message.tool_calls:
        wire["tool_calls"] = [_encode_tool_call(call) for call in message.tool_calls]
    elif wire["content"] is None:
        wire["content"] = ""
    return wire


def _encode_tool_call(call: ToolCall) -> dict[str, Any]:
    function = {"name": call.name, "arguments": normalize_arguments(call)}
    return {"id": call.id, "type": "function", "function": function, **decode_opaque(call.opaque, CHAT_WIRE)}


def _encode_tool_result(result: ToolResult) -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": result.tool_call_id, "content": format_tool_result(result)}


def format_tool_result(result: ToolResult) -> str:
    """Return the text of a result, for APIs without a member for a failed tool and without images in a result."""
    text = result.text
    if not text and result.images:
        text = "The result is an image, which follows."
    return f"Error: {text}" if result.is_error else text


def _encode_part(part: Part) -> dict[str, Any]:
    if isinstance(part, ImagePart):
        return {"type": "image_url", "image_url": {"url": part.data_url}}
    if isinstance(part, AudioPart):
        return {"type": "input_audio", "input_audio": {"data": part.base64, "format": part.format}}
    if isinstance(part, FilePart):
        data_url = f"data:application/pdf;base64,{part.base64}"
        return {"type": "file", "file": {"filename": part.name, "file_data": data_url}}
    assert isinstance(part, TextPart), "Message checks the parts for each role"
    return {"type": "text", "text": part.text}


def encode_prompt(request: ChatRequest, table: OptionTable) -> dict[str, Any]:
    """Encode the messages and tools of a request, for a server's token counter.

    A format that a grammar enforces is not part of the prompt.

    Raises:
        UnsupportedOptionError: The server does not support an option.
    """
    check_supported(request, table)
    body: dict[str, Any] = {"model": request.model, "messages": encode_messages(request.messages, table)}
    if request.tools:
        body["tools"] = [encode_tool(tool, lookup(table, "tools").transform) for tool in request.tools]
    response_format = request.response_format
    if isinstance(response_format, JSONSchemaFormat) and (
        lookup(table, "response_format: json_schema").transform == Transform.IN_PROMPT
    ):
        add_instruction(body["messages"], describe_schema(response_format))
    return body


def encode_tool(tool: Tool, transform: Transform = Transform.PLAIN) -> dict[str, Any]:
    """Encode the definition of a tool for the OpenAI API."""
    function = {"name": tool.name, "description": tool.description, "parameters": prepare_parameters(tool, transform)}
    return {"type": "function", "function": {**function, **({"strict": True} if tool.strict else {})}}
