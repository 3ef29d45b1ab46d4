"""Faults of what a body says: no end, an error, another shape, another model, tool calls in disorder."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from ctxbackends.testing.faults.answers import (
    KINDS,
    WIRES,
    Answer,
    Fault,
    Kind,
    ToolPiece,
    WireName,
    dump,
    plain,
    whole,
)
from ctxbackends.testing.faults.catalogue import EVENTS, GENERATIONS, STREAMS, begun, catalogued, error
from ctxbackends.testing.faults.scripts import Step


@catalogued
def no_terminal_marker(after: int = 2) -> Fault:
    """A clean end without what ends an answer on this wire: no finish reason, no ``message_stop``, no ``done``."""

    def script(answer: Answer) -> Iterator[Step]:
        if answer.streams:
            yield from begun(answer, after)
            yield answer.end
        else:
            yield plain(200, answer.body_with(None))

    return Fault("no_terminal_marker", script, kinds=GENERATIONS)


@catalogued
def done_without_reason() -> Fault:
    """``[DONE]``, or ``message_stop``, without a finish reason before it."""

    def script(answer: Answer) -> Iterator[Step]:
        yield from begun(answer)
        yield answer.part(answer.marker) + answer.end

    return Fault("done_without_reason", script, kinds=STREAMS, wires=EVENTS)


@catalogued
def reason_without_done() -> Fault:
    """The finish reason, and then the end without ``[DONE]`` (several servers leave it out) or without
    ``message_stop`` (none does)."""

    def script(answer: Answer) -> Iterator[Step]:
        yield from begun(answer, after=len(answer.pieces))
        yield answer.part(answer.reason()) + answer.end

    return Fault("reason_without_done", script, kinds=STREAMS, wires=EVENTS)


def _said_in_body(
    name: str,
    value: Mapping[str, Any],
    *,
    event: str | None = None,
    marker: bool = False,
    kinds: Collection[Kind] = KINDS,
    wires: Collection[WireName] = WIRES,
) -> Fault:
    """An error that comes when the status was sent already: after the first pieces of a stream, or as the body."""

    def script(answer: Answer) -> Iterator[Step]:
        if answer.streams:
            yield from begun(answer)
            ending = answer.marker if marker else b""
            yield answer.part(answer.event(value, name=event) + ending) + answer.end
        else:
            yield plain(200, dump(value))

    return Fault(name, script, kinds=kinds, wires=wires)


_BROKE = "the engine broke"


@catalogued
def error_object() -> Fault:
    """``{"error": {...}}`` after the first pieces, or under status 200."""
    return _said_in_body("error_object", error(_BROKE, "server_error", 500), event="")


@catalogued
def error_string() -> Fault:
    """``{"error": "text"}`` after the first pieces, or under status 200."""
    return _said_in_body("error_string", {"error": _BROKE}, event="")


@catalogued
def error_top_level() -> Fault:
    """The members of an error without ``error`` around them."""
    return _said_in_body(
        "error_top_level", {"object": "error", "message": _BROKE, "type": "server_error", "code": 500}, event=""
    )


@catalogued
def error_event() -> Fault:
    """``event: error``, as Anthropic's API sends it."""
    value = {"type": "error", "error": {"type": "api_error", "message": _BROKE}}
    return _said_in_body("error_event", value, event="error", kinds=STREAMS, wires=EVENTS)


@catalogued
def done_after_error() -> Fault:
    """An error, and ``[DONE]`` after it, as vLLM sends it: the end is no proof."""
    value = error(_BROKE, "InternalServerError", 500)
    return _said_in_body("done_after_error", value, event="", marker=True, kinds=STREAMS, wires=EVENTS)


@catalogued
def empty_delta() -> Fault:
    """An empty piece and a clean end: what Ollama's OpenAI-compatible route makes of an error."""

    def script(answer: Answer) -> Iterator[Step]:
        yield from begun(answer)
        yield answer.part(answer.piece("")) + answer.end

    return Fault("empty_delta", script, kinds=STREAMS)


@catalogued
def abort() -> Fault:
    """``finish_reason: "abort"``, as vLLM says when it is shut down: no whole answer."""
    return _ended_with("abort", "abort")


@catalogued
def unknown_reason() -> Fault:
    """A finish reason that nobody knows."""
    return _ended_with("unknown_reason", "tired")


@catalogued
def cut_by_length() -> Fault:
    """A good answer that ended at its limit of tokens: no fault of a text, and no object."""
    return _ended_with("cut_by_length", "length")


def _ended_with(name: str, reason: str) -> Fault:
    def script(answer: Answer) -> Iterator[Step]:
        if answer.streams:
            yield from begun(answer, after=len(answer.pieces))
            yield answer.part(answer.reason(reason) + answer.marker) + answer.end
        else:
            yield plain(200, answer.body_with(reason))

    return Fault(name, script, kinds=GENERATIONS)


@catalogued
def plain_text_event() -> Fault:
    """A sentence in the place of an event, as a llama-server router says when the server behind it died."""
    return _in_place_of_an_event("plain_text_event", b"proxy error: Failed to read connection\n\n")


@catalogued
def malformed_event() -> Fault:
    """An event that is cut in its middle, and the next one."""

    def script(answer: Answer) -> Iterator[Step]:
        yield from begun(answer)
        event = answer.piece("never")
        yield answer.part(event[: len(event) // 2] + b"\n\n" + answer.reason() + answer.marker) + answer.end

    return Fault("malformed_event", script, kinds=STREAMS)


@catalogued
def invalid_utf8() -> Fault:
    """A character that was cut, and is no UTF-8 any more."""

    def script(answer: Answer) -> Iterator[Step]:
        if answer.streams:
            yield from begun(answer)
            event = answer.piece("never").replace(b"never", b"\xf0\x9f")
            yield answer.part(event + answer.reason() + answer.marker) + answer.end
        else:
            yield plain(200, answer.body.replace(b'"%s"' % answer.model.encode(), b'"\xf0\x9f"'))

    return Fault("invalid_utf8", script)


def _in_place_of_an_event(name: str, data: bytes) -> Fault:
    def script(answer: Answer) -> Iterator[Step]:
        yield from begun(answer)
        yield answer.part(data) + answer.end

    return Fault(name, script, kinds=STREAMS)


def _body_of(name: str, body: bytes, content_type: str) -> Fault:
    return Fault(name, lambda _: (plain(200, body, content_type=content_type),))


@catalogued
def html() -> Fault:
    """A page under status 200, as a proxy or a hotel sends it."""
    return _body_of("html", b"<!DOCTYPE html>\n<html><body>\n<h1>Please log in</h1>\n</body></html>\n", "text/html")


@catalogued
def empty_body() -> Fault:
    """Status 200 and nothing."""
    return _body_of("empty_body", b"", "application/json")


@catalogued
def no_object() -> Fault:
    """JSON of another shape."""
    return _body_of("no_object", b'["this", "is", "no", "answer"]', "application/json")


@catalogued
def empty_choices() -> Fault:
    """A well-formed answer without an answer in it."""

    def script(answer: Answer) -> Iterator[Step]:
        nothing: dict[str, Any] = {"model": answer.model, "object": "chat.completion", "choices": []}
        if answer.kind == "embed":
            nothing = {"model": answer.model, "object": "list", "data": [], "embeddings": []}
        elif answer.wire == "messages":
            nothing = {"model": answer.model, "type": "message", "role": "assistant", "content": []}
        elif answer.wire == "ollama":
            nothing = {"model": answer.model, "done": False}
        body = answer.event(nothing) if answer.streams else dump(nothing)
        yield plain(200, body, content_type=answer.content_type)

    return Fault("empty_choices", script)


@catalogued
def wrong_content_type() -> Fault:
    """A good answer that says it is plain text: no fault, since what it holds is looked at."""

    def script(answer: Answer) -> Iterator[Step]:
        yield answer.head(content_type="text/plain")
        events = [*answer.texts, answer.reason() + answer.marker] if answer.streams else []
        for event in events:
            yield answer.part(event)
        yield answer.end if answer.streams else answer.body

    return Fault("wrong_content_type", script)


@catalogued
def no_stream() -> Fault:
    """An answer in one piece to who asked for a stream."""

    def script(answer: Answer) -> Iterator[Step]:
        yield plain(200, answer.body_with("stop"))

    return Fault("no_stream", script, kinds=STREAMS)


@catalogued
def other_model(name: str = "another-model") -> Fault:
    """A good answer of a model that was not asked for."""

    def script(answer: Answer) -> Iterator[Step]:
        yield from whole(Answer(answer.request, answer.pieces, name))

    return Fault("other_model", script)


def _called(name: str, pieces: Iterable[ToolPiece], *, wires: Collection[WireName] = WIRES) -> Fault:
    def script(answer: Answer) -> Iterator[Step]:
        yield answer.head()
        yield answer.part(answer.opening)
        for piece in pieces:
            yield answer.part(answer.tool_piece(piece))
        yield answer.part(answer.reason("tool_calls") + answer.marker) + answer.end

    return Fault(name, script, kinds=STREAMS, wires=wires)


@catalogued
def repeated_tool_index() -> Fault:
    """Two tool calls that both say they are the first, as Ollama wrote them: no fault to who reads their ids."""
    return _called(
        "repeated_tool_index",
        (
            ToolPiece(index=0, id="call_a", name="look", arguments='{"x":1}'),
            ToolPiece(index=0, id="call_b", name="find", arguments='{"y":2}'),
        ),
    )


@catalogued
def interleaved_tool_calls() -> Fault:
    """Two tool calls whose pieces take turns: no fault to who reads their indexes."""
    return _called(
        "interleaved_tool_calls",
        (
            ToolPiece(index=1, id="call_a", name="look"),
            ToolPiece(index=2, id="call_b", name="find"),
            ToolPiece(index=1, arguments='{"x":'),
            ToolPiece(index=2, arguments='{"y":'),
            ToolPiece(index=1, arguments="1}"),
            ToolPiece(index=2, arguments="2}"),
        ),
        wires=EVENTS,
    )
