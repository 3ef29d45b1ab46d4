"""Responses in Anthropic's format: messages, stream events and models.

https://platform.claude.com/docs/en/build-with-claude/streaming; the members are those of anthropic 2.12.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import attrs

from ctxbackends.testing._stand_ins.anthropic_checks import redacted, signature_of
from ctxbackends.testing._stand_ins.scripted import tokens

INPUT_PIECE = 6  # characters


@attrs.frozen(kw_only=True)
class Reply:
    """One message.

    ``thinking`` is None without a thinking block. ``redact`` sends the block redacted, ``omit`` without its text.
    ``calls`` has the id, name and input of each tool call.
    """

    id: str
    model: str
    thinking: str | None
    redact: bool
    omit: bool
    text: str
    calls: Sequence[tuple[str, str, Mapping[str, Any]]]
    stop_reason: str
    stop_sequence: str | None
    stop_details: Mapping[str, Any] | None
    usage: Mapping[str, Any]

    @property
    def content(self) -> list[dict[str, Any]]:
        blocks: list[dict[str, Any]] = []
        if self.thinking is not None and self.redact:
            blocks.append({"type": "redacted_thinking", "data": redacted(self.thinking)})
        elif self.thinking is not None:
            shown = "" if self.omit else self.thinking
            blocks.append({"type": "thinking", "thinking": shown, "signature": signature_of(shown)})
        if self.text:
            blocks.append({"type": "text", "text": self.text, "citations": None})
        return blocks + [
            {"type": "tool_use", "id": call, "name": name, "input": dict(given), "caller": {"type": "direct"}}
            for call, name, given in self.calls
        ]


def usage(*, total: int, cache_read: int, cache_5m: int, cache_1h: int, output: int, thinking: int) -> dict[str, Any]:
    """Build the token counts. ``total`` counts all input tokens; ``input_tokens`` excludes those of the cache."""
    return {
        "input_tokens": total - cache_read - cache_5m - cache_1h,
        "cache_creation_input_tokens": cache_5m + cache_1h,
        "cache_read_input_tokens": cache_read,
        "cache_creation": {"ephemeral_5m_input_tokens": cache_5m, "ephemeral_1h_input_tokens": cache_1h},
        "output_tokens": output,
        "output_tokens_details": {"thinking_tokens": thinking},
        "service_tier": "standard",
        "inference_geo": "global",
    }


def message(reply: Reply) -> dict[str, Any]:
    """Build a response that is not streamed."""
    return {
        "id": reply.id,
        "type": "message",
        "role": "assistant",
        "model": reply.model,
        "content": reply.content,
        "stop_reason": reply.stop_reason,
        "stop_sequence": reply.stop_sequence,
        "stop_details": reply.stop_details,
        "usage": reply.usage,
    }


def events(reply: Reply) -> Iterator[dict[str, Any]]:
    """Yield the events of a stream. The name of each event is its ``type``."""
    started = {name: value for name, value in reply.usage.items() if name != "output_tokens_details"}
    empty: dict[str, Any] = {"content": [], "stop_reason": None, "stop_sequence": None, "stop_details": None}
    yield {"type": "message_start", "message": {**message(reply), **empty, "usage": {**started, "output_tokens": 1}}}
    for index, block in enumerate(reply.content):
        start, deltas = _pieces(block)
        yield {"type": "content_block_start", "index": index, "content_block": start}
        if index == 0:
            yield {"type": "ping"}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    cumulative = (
        "input_tokens",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "output_tokens",
        "output_tokens_details",
    )
    yield {
        "type": "message_delta",
        "delta": {
            "stop_reason": reply.stop_reason,
            "stop_sequence": reply.stop_sequence,
            "stop_details": reply.stop_details,
        },
        "usage": {name: reply.usage[name] for name in cumulative},
    }
    yield {"type": "message_stop"}


def _pieces(block: Mapping[str, Any]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Return the start of a block and its deltas."""
    kind = block["type"]
    if kind == "thinking":
        deltas = [{"type": "thinking_delta", "thinking": piece} for piece in tokens(block["thinking"])]
        signature = {"type": "signature_delta", "signature": block["signature"]}
        return {**block, "thinking": "", "signature": ""}, [*deltas, signature]
    if kind == "text":
        return {**block, "text": ""}, [{"type": "text_delta", "text": piece} for piece in tokens(block["text"])]
    if kind == "tool_use":
        given = json.dumps(block["input"]) if block["input"] else ""
        fragments = ["", *(given[at : at + INPUT_PIECE] for at in range(0, len(given), INPUT_PIECE))]
        return {**block, "input": {}}, [{"type": "input_json_delta", "partial_json": piece} for piece in fragments]
    return dict(block), []


def model(name: str, *, context_length: int) -> dict[str, Any]:
    """Build an entry of the list of models."""

    def having(*, supported: bool, **more: Any) -> dict[str, Any]:
        return {"supported": supported, **more}

    yes, no = having(supported=True), having(supported=False)
    return {
        "type": "model",
        "id": name,
        "display_name": name.replace("-", " ").title(),
        "created_at": "2025-09-29T00:00:00Z",
        "lifecycle": "active",
        "deprecated_at": None,
        "retires_at": None,
        "line": None,
        "max_input_tokens": context_length,
        "max_tokens": context_length,
        "capabilities": {
            "batch": no,
            "citations": no,
            "code_execution": no,
            "context_management": no,
            "effort": having(supported=True, low=yes, medium=yes, high=yes, xhigh=yes, max=yes),
            "image_input": yes,
            "pdf_input": yes,
            "server_tools": having(supported=False, code_execution=no, web_search=no),
            "structured_outputs": yes,
            "thinking": having(
                supported=True, types={"adaptive": yes, "between_tools": yes, "disabled": yes, "enabled": yes}
            ),
        },
    }
