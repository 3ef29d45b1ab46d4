"""Content blocks that several agents share: those of the APIs of Anthropic and OpenAI."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ctxbackends.knowledge._records import Speaker
from ctxbackends.knowledge._sources.base import Piece
from ctxbackends.knowledge._sources.transcripts.passages import Object, Passages, Turn, as_object, objects_in

_LEFT_OUT = {
    "thinking": "thinking block",
    "redacted_thinking": "thinking block",
    "reasoning": "thinking block",
    "image": "image",
    "input_image": "image",
    "image_url": "image",
}


def read_block(passages: Passages, turn: Turn, block: Object, speaker: Speaker) -> Iterator[Piece]:
    """Yield a block that is neither text nor the result of a tool; count what has no text."""
    kind = str(block.get("type"))
    if kind in _LEFT_OUT:
        passages.leave_out(_LEFT_OUT[kind])
    elif kind in ("tool_use", "server_tool_use", "mcp_tool_use"):
        name = str(block.get("name") or "tool")
        yield from passages.call(turn, name, block.get("input") or {}, call_id=block.get("id"))
    elif kind == "document":
        yield from _read_document(passages, turn, block, speaker)
    elif kind.endswith("_tool_result"):
        yield from passages.result(turn, text_in(block.get("content")), call_id=block.get("tool_use_id"))
    else:
        passages.leave_out(f"{kind[:40]} block")


def _read_document(passages: Passages, turn: Turn, block: Object, speaker: Speaker) -> Iterator[Piece]:
    source = as_object(block.get("source"))
    text = source.get("data") if source.get("type") == "text" else text_in(source.get("content"))
    if isinstance(text, str) and text.strip():
        title = block.get("title")
        label = f"{speaker} (document {title[:80]})" if isinstance(title, str) and title else f"{speaker} (document)"
        yield from passages.say(turn, speaker, text, label)
    else:
        passages.leave_out("document")


def text_in(content: Any, kinds: tuple[str, ...] = ("text", "input_text", "output_text")) -> str:
    """Return the text of a string, or of the text blocks of a list."""
    if isinstance(content, str):
        return content
    texts = (part.get("text") for part in objects_in(content) if part.get("type") in kinds)
    return "\n".join(text for text in texts if isinstance(text, str))


def count_images(content: Any) -> int:
    """Return the number of image blocks in a list."""
    return sum(1 for part in objects_in(content) if _LEFT_OUT.get(str(part.get("type"))) == "image")
