"""The parts that plain and streamed OpenAI chat responses share. Unknown members are skipped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ctxbackends._chat.events import ReasoningDelta, RefusalDelta, StreamEvent, TextDelta
from ctxbackends._chat.messages import OpaquePart
from ctxbackends._chat.opaque_members import CALL_MEMBERS, CHAT_WIRE, MESSAGE_MEMBERS
from ctxbackends._chat.responses import TokenLogprob, Usage
from ctxbackends._wire import usage as wire_usage
from ctxbackends._wire.base import encode_arguments
from ctxbackends._wire.citations import parse_annotations
from ctxbackends._wire.lenient import Lenient, Repair, to_json
from ctxbackends._wire.tool_calls import Piece

CONTENT_MEMBER = "content"
"""The ``member`` of reasoning that came as a part of the content (Mistral)."""


class _Function(msgspec.Struct):
    name: str | None = None
    arguments: str | dict[str, Any] | None = None


class WireToolCall(msgspec.Struct):
    """A tool call or a piece of one.

    The opaque members are Gemini's signature of the thought behind the call, under its own name and that of gateways.
    """

    index: int | None = None
    id: Lenient[str] = None
    function: _Function | None = None
    extra_content: Any = None
    thought_signature: Any = None

    def to_piece(self) -> Piece:
        """Return the piece for the assembler."""
        function = self.function or _Function()
        arguments = encode_arguments(function.arguments)
        return Piece(self.index, self.id or "", function.name or "", arguments, build_opaque(self, CALL_MEMBERS))


class WireMessage(msgspec.Struct, gc=False):
    """A delta or a message. vLLM and Ollama name the reasoning ``reasoning``, llama-server ``reasoning_content``."""

    content: str | None = None
    reasoning: str | None = None
    reasoning_content: str | None = None
    refusal: str | None = None
    tool_calls: list[WireToolCall] | None = None
    # outside the answer
    reasoning_details: Any = None
    reasoning_encrypted: Any = None
    extra_content: Any = None
    annotations: Any = None
    executed_tools: Any = None
    # set by split_content()
    has_content_list: bool = False

    @property
    def has_opaque(self) -> bool:
        """Whether there is data for :class:`Opaque`."""
        return bool(self.reasoning_details or self.reasoning_encrypted or self.extra_content or self.executed_tools)

    @property
    def reasoning_member(self) -> str | None:
        """The name of the member with the reasoning, None without reasoning."""
        if self.reasoning:
            return CONTENT_MEMBER if self.has_content_list else "reasoning"
        return "reasoning_content" if self.reasoning_content else None


def split_content(message: dict[str, Any]) -> dict[str, Any]:
    """Return a message whose content is a list of parts with its text and reasoning as texts.

    Mistral's reasoning models write such a list: https://docs.mistral.ai/capabilities/reasoning. Parts of an unknown
    type are passed over; a text that is not a text stays, and is an error.
    """
    parts = message.get("content")
    message = {name: value for name, value in message.items() if name != "has_content_list"}
    if not isinstance(parts, list) or not parts:
        return message
    members: dict[str, list[str]] = {"content": [], "reasoning": [], "refusal": []}
    for part in parts:
        if isinstance(part, str):
            part = {"type": "text", "text": part}
        if not isinstance(part, dict):
            return message
        kind = part.get("type")
        if kind in ("thinking", "reasoning"):
            name, text = "reasoning", _join_texts(part.get("thinking", part.get("text")))
        elif kind == "refusal":
            name, text = "refusal", part.get("refusal")
        elif kind in ("text", "output_text", None):
            name, text = "content", part.get("text")
        else:
            continue
        if not isinstance(text, str):
            return message
        members[name].append(text)
    texts = {name: "".join(pieces) for name, pieces in members.items() if pieces}
    return {**message, "content": None, **texts, "has_content_list": True}


def _join_texts(thinking: object) -> object:
    """Return the text of a thinking part, which is a list of text parts or a text."""
    if not isinstance(thinking, list):
        return thinking
    texts = [part.get("text") for part in thinking if isinstance(part, dict) and part.get("type") == "text"]
    pieces = [text for text in texts if isinstance(text, str)]
    return "".join(pieces) if len(pieces) == len(texts) else None


REPAIRS: Mapping[type, Repair] = {WireMessage: split_content}


class Opaque:
    """Collects the opaque members of a message over the deltas of a stream."""

    __slots__ = ("_members",)

    def __init__(self) -> None:
        self._members: dict[str, Any] = {}

    def add(self, message: WireMessage) -> None:
        """Add the members of a delta or message: lists continue, and other values replace earlier ones."""
        for name in (*MESSAGE_MEMBERS, "executed_tools"):
            value = getattr(message, name)
            if isinstance(value, list) and value:
                merge_details(self._members.setdefault(name, []), value)
            elif value and not isinstance(value, list):
                self._members[name] = value

    def build(self) -> list[StreamEvent]:
        """Return the part with all members, none if there are none."""
        return [OpaquePart(CHAT_WIRE, to_json(self._members))] if self._members else []


def merge_details(details: Any, pieces: list[Any]) -> None:
    """Add pieces of ``reasoning_details``: one that has the index and type of the last continues its text."""
    if not isinstance(details, list):
        return
    for piece in pieces:
        last = details[-1] if details else None
        if not (isinstance(piece, dict) and isinstance(last, dict) and _is_continued(last, piece)):
            details.append(dict(piece) if isinstance(piece, dict) else piece)
            continue
        for name, value in piece.items():
            if name in ("text", "summary") and isinstance(value, str) and isinstance(last.get(name), str):
                last[name] += value
            elif last.get(name) is None:
                last[name] = value


def _is_continued(last: dict[str, Any], piece: dict[str, Any]) -> bool:
    return (
        piece.get("type") in ("reasoning.text", "reasoning.summary")
        and all(last.get(name) == piece.get(name) for name in ("type", "index"))
        and not (last.get("signature") and piece.get("signature"))
    )


def build_opaque(value: object, names: tuple[str, ...]) -> OpaquePart | None:
    """Return the opaque members of a wire value, None if there are none."""
    members = {name: member for name in names if (member := getattr(value, name)) is not None}
    return OpaquePart(CHAT_WIRE, to_json(members)) if members else None


class _OneLogprob(msgspec.Struct):
    token: str
    logprob: float
    bytes: Lenient[list[int]] = None


class Logprob(_OneLogprob):
    """A token with its alternatives, which have none: a recursive type would let a server nest them too deeply."""

    top_logprobs: list[_OneLogprob] | None = None


class WireLogprobs(msgspec.Struct):
    content: list[Logprob] | None = None


def parse_usage(usage: Mapping[str, Any] | None, timings: Mapping[str, Any] | None = None) -> Usage | None:
    """Convert the token counts. ``timings`` are llama-server's, in milliseconds."""
    if timings is None:
        return wire_usage.parse_usage(usage)
    return wire_usage.parse_usage(
        usage,
        prompt_seconds=_to_seconds(timings.get("prompt_ms")),
        generation_seconds=_to_seconds(timings.get("predicted_ms")),
    )


def _to_seconds(milliseconds: object) -> float | None:
    is_number = isinstance(milliseconds, int | float) and not isinstance(milliseconds, bool)
    return milliseconds / 1000 if is_number and 0 <= milliseconds < _MAX_MILLISECONDS else None  # type: ignore[operator]


_MAX_MILLISECONDS = 2**62


def add_message_events(message: WireMessage, logprobs: WireLogprobs | None, events: list[StreamEvent]) -> None:
    """Add the events of a message or delta, except its tool calls."""
    reasoning = message.reasoning or message.reasoning_content
    if reasoning:
        events.append(ReasoningDelta(reasoning))
    if logprobs is not None:  # also for tokens without a character yet
        events.append(TextDelta(message.content or "", tuple(parse_logprob(one) for one in logprobs.content or ())))
    elif message.content:
        events.append(TextDelta(message.content))
    if message.refusal:
        events.append(RefusalDelta(message.refusal))
    if message.annotations:
        events.extend(parse_annotations(message.annotations))


def parse_logprob(one: Logprob) -> TokenLogprob:
    """Convert one token, which Ollama sends in the same form."""
    return _build_logprob(one, tuple(_build_logprob(other) for other in one.top_logprobs or ()))


def _build_logprob(one: _OneLogprob, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    raw = one.bytes
    token_bytes = bytes(raw) if raw is not None and all(0 <= byte < 256 for byte in raw) else None
    return TokenLogprob(one.token, one.logprob, token_bytes, top)
