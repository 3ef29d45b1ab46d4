"""Messages from dicts: those of `Message.to_dict()`, of OpenAI and of Anthropic.

A dict may mix the vendors' forms. Each member is converted or an error; none is dropped. Formats:
https://platform.openai.com/docs/api-reference/chat/create, https://platform.claude.com/docs/en/api/messages
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, cast

import msgspec

from ctxbackends._chat.media import AUDIO_TYPES, AudioPart, FilePart, ImagePart, parse_data_url
from ctxbackends._chat.members import Members, decode_base64, dump_json
from ctxbackends._chat.messages import (
    MESSAGE_VERSION,
    Message,
    OpaquePart,
    Part,
    ReasoningPart,
    Role,
    TextPart,
    ToolCall,
    ToolResult,
)
from ctxbackends._chat.opaque_members import CALL_MEMBERS, CHAT_WIRE, MESSAGE_MEMBERS, MESSAGES_WIRE
from ctxbackends._suggestions import suggest

_ROLES = ("system", "developer", "user", "assistant", "tool")
_OTHER_ROLES = {"human": "user", "ai": "assistant", "model": "assistant", "bot": "assistant", "function": "tool"}
_HINTS = {
    "annotations": "the sources of an answer are not sent back; remove it",
    "audio": "recordings of the model cannot be sent back; remove it",
    "cache_control": "pass cache_control in extra_body, and remove it here",
    "function_call": "use tool_calls",
    "name": "write the name into the text, and remove it here",
}


def parse_message(data: object) -> Message:
    """Return the one message of a dict. See :meth:`Message.from_dict`."""
    messages = parse_prompt_message(data, "message")
    if len(messages) != 1:
        raise ValueError("message.content has results of tools and other parts, which are several messages; split it")
    return messages[0]


def parse_prompt_message(data: object, place: str) -> tuple[Message, ...]:
    """Return the messages of a dict: several if a user message has results of tools and other parts.

    Raises:
        TypeError: A member has the wrong type.
        ValueError: A member is unknown, missing or not supported.
    """
    members = Members(data, place)
    if "version" in members:
        return (_decode(cast("Mapping[str, Any]", data), place),)
    role = members.select("role", _ROLES, _OTHER_ROLES)
    if role == "assistant":
        return (_build("assistant", _parse_assistant(members) or "", place),)
    if role == "tool":
        return (_build("tool", (_parse_tool_message(members),), place),)
    content = members.take("content")
    members.finish(_HINTS)
    if isinstance(content, str):
        return (_build("user" if role == "user" else "system", content, place),)
    parts = list(_parse_content(content, f"{place}.content", _USER_PARTS if role == "user" else _TEXT_PARTS))
    if role != "user":
        return (_build("system", parts, place),)
    if not parts:
        return (_build("user", parts, place),)  # the error for a message without content
    runs = itertools.groupby(parts, lambda part: isinstance(part, ToolResult))
    return tuple(_build("tool" if are_results else "user", tuple(run), place) for are_results, run in runs)


def _build(role: Role, content: str | Sequence[Part], place: str) -> Message:
    try:
        return Message(role, content if isinstance(content, str) else tuple(content))
    except (TypeError, ValueError) as error:
        raise type(error)(f"{place}: {error}") from error


# --- the form of to_dict() --------------------------------------------------------------------------


def _decode(data: Mapping[str, Any], place: str) -> Message:
    version = data["version"]
    if type(version) is not int or version != MESSAGE_VERSION:
        raise ValueError(f"unknown version of a message: {place}.version is {version!r:.80}; use {MESSAGE_VERSION}")
    values = dict(data)
    del values["version"]
    unknown = values.keys() - {"role", "content"}
    if unknown:
        raise ValueError(f"unsupported member: {place}.{min(map(str, unknown))}; remove it")
    try:
        return msgspec.convert(values, Message)
    except msgspec.ValidationError as error:
        raise ValueError(f"invalid dict of a message: {str(error).replace('`$', f'`{place}')}") from error


# --- messages of the model and of tools ---------------------------------------------------------------


def _parse_assistant(members: Members) -> str | Sequence[Part]:
    content = members.take("content")
    reasoning = [
        ReasoningPart(text, member=member)
        for member in ("reasoning", "reasoning_content")
        if (text := members.optional(member, str))
    ]
    refusal = members.optional("refusal", str)
    opaque = members.to_json(MESSAGE_MEMBERS)
    calls = members.optional("tool_calls", list) or []
    if members.optional("annotations", list):
        raise ValueError(f"unsupported member: {members.path('annotations')}; {_HINTS['annotations']}")
    tool_calls = [_parse_call(call, f"{members.path('tool_calls')}[{index}]") for index, call in enumerate(calls)]
    members.finish(_HINTS)
    if len(reasoning) > 1:
        if reasoning[0].text != reasoning[1].text:
            raise ValueError(f"{members.place} has reasoning and reasoning_content; remove one")
        del reasoning[1]
    if isinstance(content, str):
        if not (reasoning or refusal or opaque or tool_calls):
            return content
        parts: list[Part] = [TextPart(content)] if content else []
    elif content is None:
        parts = []
    else:
        parts = list(_parse_content(content, members.path("content"), _ASSISTANT_PARTS))
    refusals = [TextPart(refusal)] if refusal else []
    opaques = [OpaquePart(CHAT_WIRE, opaque)] if opaque else []
    return [*reasoning, *parts, *refusals, *opaques, *tool_calls]


def _parse_call(data: object, place: str) -> ToolCall:
    if isinstance(data, ToolCall):
        return data
    members = Members(data, place)
    if "type" in members:
        members.select("type", ("function",))
    members.take("index")  # the position in the list
    function = members.object("function")
    arguments = function.take("arguments")
    name = function.require("name", str)
    function.finish()
    opaque = members.to_json(CALL_MEMBERS)
    call_id = members.require("id", str)
    members.finish()
    if not isinstance(arguments, str):
        arguments = "" if arguments is None else dump_json(arguments, function.path("arguments"))
    return ToolCall(call_id, name, arguments, OpaquePart(CHAT_WIRE, opaque) if opaque else None)


def _parse_tool_message(members: Members) -> ToolResult:
    content = members.take("content")
    call_id = members.require("tool_call_id", str)
    name = members.optional("name", str) or members.optional("tool_name", str)
    members.finish(_HINTS)
    return _build_result(call_id, content, members.path("content"), name=name)


def _build_result(
    call_id: str, content: object, place: str, *, name: str | None = None, is_error: bool = False
) -> ToolResult:
    if content is None:
        raise ValueError(f"missing member: {place}")
    if not isinstance(content, str):
        content = tuple(_parse_content(content, place, _RESULT_PARTS))
    return ToolResult(call_id, cast("Any", content) or "", name, is_error)


# --- parts of a content ---------------------------------------------------------------------------------


def _parse_content(content: object, place: str, parsers: Mapping[str, Callable[[Members], Part]]) -> Iterator[Part]:
    if content is None:
        raise ValueError(f"missing member: {place}")
    if isinstance(content, Mapping | bytes) or not isinstance(content, Sequence):
        raise TypeError(f"{place} must be a string or a list of parts, not {type(content).__name__}")
    for index, item in enumerate(content):
        here = f"{place}[{index}]"
        if isinstance(item, str):
            yield TextPart(item)
        elif isinstance(item, Part):
            yield item  # Message checks whether the role allows it
        else:
            yield _parse_part(Members(item, here), parsers)


def _parse_part(members: Members, parsers: Mapping[str, Callable[[Members], Part]]) -> Part:
    kind = members.require("type", str)
    parse = parsers.get(kind)
    if parse is None and parsers is _ASSISTANT_PARTS and (kind in _SERVER_BLOCKS or kind.endswith(_SERVER_RESULT)):
        return OpaquePart(MESSAGES_WIRE, dump_json(members.data, members.place))
    if parse is None:
        raise ValueError(f"unsupported value: {members.path('type')} is {kind!r:.80}; {suggest(kind, parsers)}")
    part = parse(members)
    members.finish(_HINTS)
    return part


_SERVER_BLOCKS = ("server_tool_use", "mcp_tool_use", "compaction")
_SERVER_RESULT = "_tool_result"
"""Blocks of a tool that Anthropic's server ran. They go back unchanged."""


def _parse_text(members: Members) -> Part:
    text = members.require("text", str)
    citations = members.optional("citations", list)
    if not citations:
        return TextPart(text)
    block = dump_json({"text": text, "citations": citations}, members.path("citations"))
    return TextPart(text, OpaquePart(MESSAGES_WIRE, block))


def _parse_refusal(members: Members) -> Part:
    return TextPart(members.require("refusal", str))


def _parse_image_url(members: Members) -> Part:
    if "image_url" in members and isinstance(members.rest["image_url"], str):  # Mistral
        return _build_image(members.require("image_url", str), members.path("image_url"))
    image = members.object("image_url")
    url = image.require("url", str)
    if "detail" in image:
        image.select("detail", ("auto",), {"low": _NO_DETAIL, "high": _NO_DETAIL, "original": _NO_DETAIL})
    image.finish()
    return _build_image(url, image.path("url"))


_NO_DETAIL = "send the image in the size that the model should see, and remove it"


def _build_image(url: str, place: str) -> ImagePart:
    try:
        return ImagePart.from_url(url)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _parse_input_audio(members: Members) -> Part:
    audio = members.object("input_audio")
    data = decode_base64(audio.require("data", str), audio.path("data"))
    media_type = AUDIO_TYPES[audio.select("format", tuple(AUDIO_TYPES))]
    audio.finish()
    return AudioPart(data, media_type)


def _parse_file(members: Members) -> Part:
    file = members.object("file")
    url = file.require("file_data", str) if "file_id" not in file else ""
    name = file.optional("filename", str) or "document.pdf"
    file.finish({"file_id": "send the document itself, in file_data"})
    place = file.path("file_data")
    if not url.startswith("data:"):
        return _build_file(decode_base64(url, place), name, place)
    try:
        return _build_file(parse_data_url(url)[0], name, place)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _build_file(data: bytes, name: str, place: str) -> FilePart:
    try:
        return FilePart(data, name)
    except ValueError as error:
        raise ValueError(f"{place}: {error}") from error


def _parse_image(members: Members) -> Part:
    source = members.object("source")
    if source.select("type", ("base64", "url"), {"file": "send the image itself"}) == "url":
        image = _build_image(source.require("url", str), source.path("url"))
    else:
        media_type = source.require("media_type", str)
        data = decode_base64(source.require("data", str), source.path("data"))
        try:
            image = ImagePart(data, media_type)
        except ValueError as error:
            raise ValueError(f"{source.place}: {error}") from error
    source.finish()
    return image


def _parse_document(members: Members) -> Part:
    source = members.object("source")
    source.select("type", ("base64",), {"text": "send it as a text", "url": _SEND_PDF, "file": _SEND_PDF})
    source.select("media_type", ("application/pdf",))
    data = decode_base64(source.require("data", str), source.path("data"))
    source.finish()
    return _build_file(data, members.optional("title", str) or "document.pdf", source.path("data"))


_SEND_PDF = "send the document itself, as base64"


def _parse_thinking(members: Members) -> Part:
    thinking = members.take("thinking")
    if isinstance(thinking, str):
        return ReasoningPart(thinking, members.optional("signature", str) or None)
    texts = list(_parse_content(thinking, members.path("thinking"), _TEXT_PARTS))  # Mistral
    return ReasoningPart("".join(part.text for part in texts if isinstance(part, TextPart)), member="content")


def _parse_redacted_thinking(members: Members) -> Part:
    return ReasoningPart("", redacted=members.require("data", str))


def _parse_tool_use(members: Members) -> Part:
    arguments = dump_json(members.object("input").data, members.path("input"))
    caller = members.to_json(("caller",))
    opaque = OpaquePart(MESSAGES_WIRE, caller) if caller else None
    return ToolCall(members.require("id", str), members.require("name", str), arguments, opaque)


def _parse_tool_result(members: Members) -> Part:
    content = members.take("content")
    return _build_result(
        members.require("tool_use_id", str),
        "" if content is None else content,
        members.path("content"),
        is_error=bool(members.optional("is_error", bool)),
    )


_TEXT_PARTS = {"text": _parse_text}
_RESULT_PARTS = {"text": _parse_text, "image_url": _parse_image_url, "image": _parse_image}
_USER_PARTS = {
    **_RESULT_PARTS,
    "input_audio": _parse_input_audio,
    "file": _parse_file,
    "document": _parse_document,
    "tool_result": _parse_tool_result,
}
_ASSISTANT_PARTS = {
    "text": _parse_text,
    "refusal": _parse_refusal,
    "thinking": _parse_thinking,
    "redacted_thinking": _parse_redacted_thinking,
    "tool_use": _parse_tool_use,
}
