"""A conversation as a file: Markdown to read, or JSON to read back."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from ctxbackends._chat.media import AudioPart, FilePart, ImagePart
from ctxbackends._chat.messages import Message, Part, ReasoningPart, TextPart, ToolCall, ToolResult
from ctxbackends._util.files import create_file


def save(path: Path, messages: Sequence[Message], **facts: str | None) -> bool:
    """Write the conversation unless the file exists, and return whether it was written.

    Args:
        path: The file; ``.json`` becomes JSON, everything else Markdown.
        messages: The conversation with its system message.
        facts: The backend and the model.

    Raises:
        OSError: The file cannot be written. None is left.
    """
    known = {name: fact for name, fact in facts.items() if fact}
    text = _to_json(messages, known) if path.suffix.lower() == ".json" else _to_markdown(messages, known)
    return create_file(path, text.encode("utf-8", "backslashreplace"))


def _to_json(messages: Sequence[Message], facts: dict[str, str]) -> str:
    value = {**facts, "messages": [message.to_dict() for message in messages]}
    return json.dumps(value, ensure_ascii=False, indent=2) + "\n"


def _to_markdown(messages: Sequence[Message], facts: dict[str, str]) -> str:
    lines = [", ".join(f"{name}: {fact}" for name, fact in facts.items())] if facts else []
    for message in messages:
        lines += [f"## {message.role.capitalize()}", *_describe_parts(message)]
    return "\n\n".join(lines) + "\n"


def _describe_parts(message: Message) -> Iterator[str]:
    for part in message.parts:
        text = _describe(part)
        if text:
            yield text


def _describe(part: Part) -> str:
    if isinstance(part, TextPart):
        return part.text.strip("\n")
    if isinstance(part, ReasoningPart):
        return "\n".join(f"> {line}".rstrip() for line in part.text.splitlines())
    if isinstance(part, ToolCall):
        return f"Called {part.name}:\n\n{_fence(part.arguments)}"
    if isinstance(part, ToolResult):
        return f"Result{f' of {part.name}' if part.name else ''}:\n\n{_fence(part.text)}"
    if isinstance(part, ImagePart):
        return f"(image: {part.url or part.media_type})"
    if isinstance(part, FilePart):
        return f"(file: {part.name})"
    return "(recording)" if isinstance(part, AudioPart) else ""


def _fence(text: str) -> str:
    """Return the text as a code block, with a fence that the text does not have."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}\n{text}\n{fence}"
