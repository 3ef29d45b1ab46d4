"""The parts that plain and streamed responses of the Messages API share. Unknown members are skipped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from ctxbackends._chat.events import CitationDelta, ReasoningDelta, StreamEvent, TextDelta
from ctxbackends._chat.messages import OpaquePart
from ctxbackends._chat.opaque_members import MESSAGES_WIRE
from ctxbackends._chat.responses import Usage
from ctxbackends._wire import usage as wire_usage
from ctxbackends._wire.base import encode_arguments
from ctxbackends._wire.citations import parse_block_citation
from ctxbackends._wire.lenient import Lenient, LenientDecoder, parse_member, to_json
from ctxbackends._wire.tool_calls import Piece, ToolCallAssembler
from ctxbackends.errors import MalformedResponseError, StreamInterruptedError

_KNOWN_BLOCKS = frozenset({"", "text", "thinking", "redacted_thinking", "tool_use"})


class WireBlock(msgspec.Struct):
    """A block of content: text, thinking, redacted_thinking (``data``) or tool_use."""

    type: str = ""
    text: str | None = None
    thinking: str | None = None
    signature: str | None = None
    data: str | None = None
    id: Lenient[str] = None
    name: str | None = None
    input: dict[str, Any] | None = None
    citations: Any = None
    caller: Any = None

    @property
    def is_opaque(self) -> bool:
        """Whether only the server understands the block: a tool that it ran, or the result of one."""
        return self.type not in _KNOWN_BLOCKS

    def to_piece(self, arguments: str) -> Piece:
        """Return the piece for the assembler. ``caller`` is the code that called the tool, and goes back with it.

        https://platform.claude.com/docs/en/agents-and-tools/tool-use/programmatic-tool-calling
        """
        opaque = OpaquePart(MESSAGES_WIRE, to_json({"caller": self.caller})) if self.caller is not None else None
        return Piece(None, self.id or "", self.name or "", arguments, opaque)


class Answer(msgspec.Struct):
    """A response in one piece."""

    id: Lenient[str] = None
    type: str | None = None
    model: Lenient[str] = None
    content: list[WireBlock] | None = None
    stop_reason: str | None = None
    stop_sequence: Lenient[str] = None
    usage: Lenient[dict[str, Any]] = None
    error: Any = None


answer_decoder = LenientDecoder(Answer)


def decode_blocks(answer: Answer, body: bytes, calls: ToolCallAssembler) -> Iterator[StreamEvent]:
    """Yield the events of a response in one piece, except Finish.

    Raises:
        MalformedResponseError: A tool call is not valid.
    """
    calls.seed = answer.id or ""
    blocks = answer.content or []
    try:
        raw = parse_member(body, "content") if any(block.is_opaque for block in blocks) else []
    except ValueError as error:
        raise MalformedResponseError(f"unexpected response from the Messages API: {error}", body=body) from error
    for index, block in enumerate(blocks):
        if block.type == "text":
            yield TextDelta(block.text or "")
            yield from build_citations(block.citations, block.text or "")
        elif block.type == "thinking":
            yield ReasoningDelta(block.thinking or "", signature=block.signature or None)
        elif block.type == "redacted_thinking":
            yield ReasoningDelta("", redacted=block.data or "")
        elif block.type == "tool_use":
            yield from calls.begin(block.to_piece(encode_arguments(block.input)))
        elif block.is_opaque:
            yield OpaquePart(MESSAGES_WIRE, to_json(raw[index]))
    yield from calls.finish()


def build_citations(citations: object, text: str | None = None) -> Sequence[StreamEvent]:
    """Return the events for the citations of a text block. The last has the block, which goes back unchanged.

    ``text`` is the text of the block, None for all text since the block before.
    """
    if not isinstance(citations, list) or not citations:
        return ()
    events = [event for item in citations if (event := parse_block_citation(item)) is not None]
    if not events:
        return ()
    members = {"citations": citations} if text is None else {"text": text, "citations": citations}
    return [*events[:-1], CitationDelta(events[-1].citation, OpaquePart(MESSAGES_WIRE, to_json(members)))]


def parse_usage(usage: Mapping[str, Any] | None) -> Usage | None:
    """Convert the token counts. Unlike elsewhere, their input excludes the tokens that the cache read and wrote."""
    return wire_usage.parse_usage(usage, input_excludes_cache=True)


def incomplete_error(reason: str | None, *, body: bytes = b"") -> StreamInterruptedError:
    """Return the error for a response without the stop reason of a complete one."""
    return StreamInterruptedError(f"incomplete response: stop_reason is {reason!r}", body=body)
