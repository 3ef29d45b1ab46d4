"""Reads the body of a chat request in any wire format as a :class:`Question`."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from ctxbackends._chat.media import AudioPart, FilePart, ImagePart
from ctxbackends._chat.messages import Message, OpaquePart, Part, ReasoningPart, Role, TextPart, ToolCall, ToolResult
from ctxbackends._chat.requests import JSONObjectFormat, JSONSchemaFormat, NamedTool, Tool, ToolChoice
from ctxbackends._profiles.profile import WireAPI
from ctxbackends.testing._stand_ins.answers import AnswerError, Question

Body = Mapping[str, Any]
_OWN_MEMBERS = frozenset(["messages", "model", "stream", "tools", "tool_choice"])


def read_question(wire: WireAPI, body: Body) -> Question:
    """Return the question in the body of a valid request.

    Raises:
        AnswerError: A message cannot be read.
    """
    try:
        match wire:
            case WireAPI.CHAT_COMPLETIONS:
                return _from_chat_completions(body)
            case WireAPI.MESSAGES:
                return _from_messages(body)
            case WireAPI.OLLAMA:
                return _from_ollama(body)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise AnswerError(f"the stand-in could not read the request for answer=: {error!r}") from error


def _options(body: Body, *own: str) -> dict[str, Any]:
    return {name: value for name, value in body.items() if name not in _OWN_MEMBERS and name not in own}


def _message(role: Role, parts: Sequence[Part]) -> Message:
    """Return a message; one text becomes a plain one, as in the messages that programs write."""
    if len(parts) == 1 and isinstance(parts[0], TextPart):
        return Message(role, parts[0].text)
    return Message(role, tuple(parts) or "")


def _data(url: str) -> bytes:
    return base64.b64decode(url.partition(",")[2] or url)


# --- chat completions -----------------------------------------------------------------------------


def _from_chat_completions(body: Body) -> Question:
    names = {call["id"]: call["function"]["name"] for message in body["messages"] for call in _calls_in(message)}
    tools = tuple(_function_tool(tool["function"]) for tool in body.get("tools") or () if "function" in tool)
    choice = body.get("tool_choice")
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        allowed = [tool["function"]["name"] for tool in choice["allowed_tools"]["tools"]]
        tools, choice = tuple(tool for tool in tools if tool.name in allowed), choice["allowed_tools"]["mode"]
    return Question(
        wire=WireAPI.CHAT_COMPLETIONS,
        model=body["model"],
        messages=tuple(_openai_message(message, names) for message in body["messages"]),
        tools=tools,
        tool_choice=NamedTool(choice["function"]["name"]) if isinstance(choice, dict) else choice,
        response_format=_openai_format(body.get("response_format") or {}),
        options=_options(body, "response_format"),
        stream=bool(body.get("stream")),
    )


def _calls_in(message: Body) -> Sequence[Any]:
    return message.get("tool_calls") or ()


def _function_tool(function: Body) -> Tool:
    parameters = function.get("parameters") or {}
    return Tool(function["name"], function.get("description") or "", parameters, bool(function.get("strict")))


def _openai_message(message: Body, names: Mapping[str, str]) -> Message:
    role, content = message["role"], message.get("content")
    parts = [TextPart(content)] if isinstance(content, str) else [*_openai_parts(content or ())]
    match role:
        case "tool":
            id_ = message.get("tool_call_id") or ""
            texts = cast("tuple[TextPart | ImagePart, ...]", tuple(parts))
            result = content if isinstance(content, str) else texts
            return Message("tool", (ToolResult(id_, result, message.get("name") or names.get(id_)),))
        case "assistant":
            reasoning = message.get("reasoning_content") or message.get("reasoning")
            before: list[Part] = [ReasoningPart(reasoning)] if reasoning else []
            refusal = [TextPart(message["refusal"])] if message.get("refusal") else []
            calls = [
                ToolCall(call["id"], call["function"]["name"], call["function"]["arguments"])
                for call in _calls_in(message)
            ]
            texts_or_none = [part for part in parts if part != TextPart("")]
            return _message("assistant", [*before, *texts_or_none, *refusal, *calls])
        case "system" | "developer":
            return _message("system", parts)
        case _:
            return _message("user", parts)


def _openai_parts(content: Iterable[Body]) -> Iterable[Part]:
    for part in content:
        match part.get("type"):
            case "text" | "refusal" as kind:
                yield TextPart(part[kind])
            case "image_url":
                url = part["image_url"]
                yield ImagePart.from_url(url if isinstance(url, str) else url["url"])
            case "input_audio":
                audio = part["input_audio"]
                yield AudioPart(base64.b64decode(audio["data"]), f"audio/{audio['format']}")
            case "file" if "file_data" in part["file"]:
                yield FilePart(_data(part["file"]["file_data"]), part["file"].get("filename") or "document.pdf")


def _openai_format(wanted: Body) -> JSONObjectFormat | JSONSchemaFormat | None:
    match wanted.get("type"):
        case "json_object":
            return JSONObjectFormat()
        case "json_schema":
            named = wanted["json_schema"]
            return JSONSchemaFormat(named.get("name") or "", named.get("schema") or {})
    return None


# --- messages -------------------------------------------------------------------------------------


def _from_messages(body: Body) -> Question:
    contents = [message["content"] for message in body["messages"]]
    blocks = [block for content in contents if not isinstance(content, str) for block in content]
    names = {block["id"]: block["name"] for block in blocks if block["type"] == "tool_use"}
    messages = [message for entry in body["messages"] for message in _anthropic_messages(entry, names)]
    if body.get("system"):
        messages.insert(0, _message("system", [*_anthropic_parts(body["system"])]))
    output = body.get("output_config") or {}
    schema = (output.get("format") or {}).get("schema")
    rest = {name: value for name, value in output.items() if name != "format"}
    options = _options(body, "system", "output_config") | ({"output_config": rest} if rest else {})
    return Question(
        wire=WireAPI.MESSAGES,
        model=body["model"],
        messages=tuple(messages),
        tools=tuple(
            Tool(tool["name"], tool.get("description") or "", tool["input_schema"], bool(tool.get("strict")))
            for tool in body.get("tools") or ()
            if "input_schema" in tool
        ),
        tool_choice=_anthropic_choice(body.get("tool_choice") or {}),
        response_format=None if schema is None else JSONSchemaFormat("", schema),
        options=options,
        stream=bool(body.get("stream")),
    )


def _anthropic_choice(choice: Body) -> ToolChoice | None:
    kind = choice.get("type")
    if kind == "tool":
        return NamedTool(choice["name"])
    return {"any": "required", "auto": "auto", "none": "none"}.get(kind or "")  # type: ignore[return-value]


def _anthropic_messages(message: Body, names: Mapping[str, str]) -> Iterable[Message]:
    """Yield the message; the tool results in a user message become one before it."""
    role, content = message["role"], message["content"]
    blocks = [] if isinstance(content, str) else content
    results = tuple(_anthropic_result(block, names) for block in blocks if block["type"] == "tool_result")
    if results:
        yield Message("tool", results)
    parts = [*_anthropic_parts(content)]
    if parts or not results:
        yield _message(role, parts)


def _anthropic_result(block: Body, names: Mapping[str, str]) -> ToolResult:
    content = block.get("content") or ""
    texts = cast("tuple[TextPart | ImagePart, ...]", tuple(_anthropic_parts(content)))
    result = content if isinstance(content, str) else texts
    return ToolResult(block["tool_use_id"], result, names.get(block["tool_use_id"]), bool(block.get("is_error")))


def _anthropic_parts(content: str | Iterable[Body]) -> Iterable[Part]:
    for block in [{"type": "text", "text": content}] if isinstance(content, str) else content:
        match block["type"]:
            case "text":
                yield TextPart(block["text"])
            case "image" | "document":
                yield from _anthropic_media(block)
            case "thinking":
                yield ReasoningPart(block["thinking"], block.get("signature"))
            case "redacted_thinking":
                yield ReasoningPart("", redacted=block["data"])
            case "tool_use":
                yield ToolCall(block["id"], block["name"], json.dumps(block["input"]))
            case "server_tool_use" | "web_search_tool_result" | "web_fetch_tool_result":
                yield OpaquePart(WireAPI.MESSAGES, json.dumps(block))


def _anthropic_media(block: Body) -> Iterable[Part]:
    source = block["source"]
    match block["type"], source["type"]:
        case "image", "base64":
            yield ImagePart(base64.b64decode(source["data"]), source["media_type"])
        case "image", "url":
            yield ImagePart.from_url(source["url"])
        case "document", "base64":
            yield FilePart(base64.b64decode(source["data"]), block.get("title") or "document.pdf")
        case "document", "text":
            yield TextPart(source["data"])


# --- Ollama's own ---------------------------------------------------------------------------------


def _from_ollama(body: Body) -> Question:
    wanted = body.get("format")
    return Question(
        wire=WireAPI.OLLAMA,
        model=body["model"],
        messages=tuple(_ollama_message(message) for message in body["messages"]),
        tools=tuple(_function_tool(tool["function"]) for tool in body.get("tools") or ()),
        response_format=JSONObjectFormat()
        if wanted == "json"
        else JSONSchemaFormat("", wanted)
        if isinstance(wanted, dict)
        else None,
        options=_options(body, "format"),
        stream=body.get("stream") is not False,
    )


def _ollama_message(message: Body) -> Message:
    role, text = message["role"], message.get("content") or ""
    if role == "tool":
        return Message.tool(text, tool_call_id=message.get("tool_call_id") or "", name=message.get("tool_name"))
    reasoning = [ReasoningPart(message["thinking"])] if message.get("thinking") else []
    texts = [TextPart(text)] if text else []
    images = [ImagePart.from_bytes(base64.b64decode(image)) for image in message.get("images") or ()]
    calls = [
        ToolCall(call.get("id") or "", call["function"]["name"], json.dumps(call["function"]["arguments"]))
        for call in _calls_in(message)
    ]
    return _message(role, [*reasoning, *texts, *images, *calls])
