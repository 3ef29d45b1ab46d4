"""Converts requests in OpenAI's or Anthropic's format to Ollama's messages."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import attrs

from ctxbackends.testing._stand_ins.scripted import ModelInput

Message = dict[str, Any]

ANY_OBJECT: Mapping[str, Any] = {"type": "object"}
_DATA_URI = re.compile(r"data:(?:image/(\w+))?;base64,(.*)", re.DOTALL)
_BASE64 = re.compile(r"[A-Za-z0-9+/]*={0,2}")


@attrs.frozen
class Invalid(Exception):
    """An invalid request, with the server's error message."""

    message: str

    def __str__(self) -> str:
        return self.message


def from_openai(
    messages: Iterable[Mapping[str, Any]], *, formats: Collection[str], no_image: str = "invalid image input"
) -> list[Message]:
    """Convert OpenAI's messages; each part becomes a separate message, as in Ollama's ``FromChatRequest``.

    Images in ``formats`` are read; ``no_image`` is the error for other formats, and for images outside the request.
    """
    read: list[Message] = []
    names: dict[str, str] = {}
    for message in messages:
        role, content = message.get("role"), message.get("content")
        calls = [_call(call) for call in message.get("tool_calls") or ()]
        names |= {call["id"]: call["function"]["name"] for call in calls}
        more: Message = {}
        if message.get("reasoning"):
            more["thinking"] = message["reasoning"]
        if role == "tool":
            more["tool_name"] = message.get("name") or names.get(message.get("tool_call_id", ""), "")
        if isinstance(content, list):
            read += [{"role": role, **_part(part, formats, no_image)} for part in content]
            if calls and read:
                read[-1] |= {"tool_calls": calls}
        elif isinstance(content, str) or calls:
            read.append({"role": role, "content": content or "", **more, **({"tool_calls": calls} if calls else {})})
        else:
            raise Invalid("invalid message content type: <nil>")
    return read


def _part(part: Any, formats: Collection[str], no_image: str) -> Message:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind == "text" and isinstance(part.get("text"), str):
        return {"content": part["text"]}
    if kind != "image_url":
        raise Invalid("invalid message format")
    url = part["image_url"]["url"] if isinstance(part["image_url"], dict) else part["image_url"]
    found = _DATA_URI.fullmatch(url)
    if found is None or (found[1] is not None and found[1] not in formats):
        raise Invalid(no_image)
    if wrong_base64(found[2]) is not None:
        raise Invalid("invalid message format")
    return {"content": "", "images": [found[2]]}


def _call(call: Mapping[str, Any]) -> Message:
    function = call["function"]
    try:
        arguments = json.loads(function["arguments"])
    except ValueError:
        raise Invalid("invalid tool call arguments") from None
    return {"id": call.get("id", ""), "function": {"name": function["name"], "arguments": arguments}}


def from_anthropic(body: Mapping[str, Any]) -> list[Message]:
    """Convert Anthropic's system prompt and messages.

    Tool results come before the text of their message, as in Ollama's ``convertMessage``.
    """
    read: list[Message] = []
    system = body.get("system")
    if system:
        text = system if isinstance(system, str) else "".join(block.get("text", "") for block in system)
        read.append({"role": "system", "content": text})
    for message in body.get("messages") or ():
        content = message["content"]
        blocks: list[Mapping[str, Any]] = [{"type": "text", "text": content}] if isinstance(content, str) else content
        written: Message = {"role": message["role"], "content": ""}
        for block in blocks:
            match block["type"]:
                case "text":
                    written["content"] += block["text"]
                case "image":
                    written.setdefault("images", []).append(_image(block["source"]))
                case "thinking":
                    written["thinking"] = block["thinking"]
                case "tool_use":
                    function = {"name": block["name"], "arguments": block["input"]}
                    written.setdefault("tool_calls", []).append({"id": block["id"], "function": function})
                case "tool_result":
                    read.append({"role": "tool", "content": _result(block.get("content"))})
                case _:
                    pass
        if len(written) > 2 or written["content"]:
            read.append(written)
    return read


def _image(source: Mapping[str, Any]) -> str:
    if source["type"] != "base64":
        raise Invalid(f"invalid image source type: {source['type']}. Only base64 images are supported.")
    return str(source["data"])


def _result(content: Any) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(block["text"] for block in content if block["type"] == "text")


def tools_from_anthropic(tools: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Anthropic's tools in the form of OpenAI's, which is Ollama's too."""
    return [
        {
            "type": "function",
            "function": {
                "name": tool["name"],
                "description": tool.get("description", ""),
                "parameters": tool.get("input_schema", {}),
            },
        }
        for tool in tools
    ]


def question(
    messages: Sequence[Mapping[str, Any]],
    *,
    tools: Sequence[Mapping[str, Any]] = (),
    must_call: bool = False,
    schema: Mapping[str, Any] | None = None,
    max_tokens: int | None = None,
    stop: Sequence[str] = (),
    think: bool = True,
) -> ModelInput:
    """The question that messages in the one form ask."""
    parameters = {tool["function"]["name"]: tool["function"].get("parameters") or {} for tool in tools}
    read = [text for message in messages for text in _texts(message)]
    if tools:
        read.append(json.dumps(list(tools)))
    return ModelInput(
        prompt=_prompt(messages),
        read="\n".join(read),
        tools=parameters,
        must_call=tuple(parameters) if must_call else (),
        schema=schema,
        max_tokens=max_tokens,
        stop=stop,
        think=think,
    )


def _texts(message: Mapping[str, Any]) -> list[str]:
    found = [message.get("thinking"), message.get("content")]
    found += [json.dumps(call["function"]) for call in message.get("tool_calls") or ()]
    return [text for text in found if text]


def _prompt(messages: Sequence[Mapping[str, Any]]) -> str:
    """Return the text to answer: the tool results at the end, else the last user messages.

    Several user messages count, since the parts of one message may have become several.
    """
    found: list[str] = []
    role = "tool" if messages and messages[-1].get("role") == "tool" else "user"
    for message in reversed(messages):
        if message.get("role") == role:
            found.append(message.get("content") or "")
        elif found:
            break
    return "\n".join(reversed(found))


def wrong_base64(text: str) -> int | None:
    """Where ``text`` stops being base64, None if it does not."""
    valid = _BASE64.match(text)
    end = valid.end() if valid else 0
    if end < len(text):
        return end
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        return len(text)
    return None
