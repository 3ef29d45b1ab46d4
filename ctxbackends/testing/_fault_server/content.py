"""Faults in the content of a body: no end marker, an error, another model, unusual tool calls."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

from ctxbackends.testing._fault_server.answers import (
    KINDS,
    WIRES,
    Fault,
    Kind,
    ResponseBuilder,
    ToolCallDelta,
    WireName,
    dump,
    plain,
    respond,
)
from ctxbackends.testing._fault_server.catalogue import (
    EVENTS,
    GENERATIONS,
    STREAMS,
    error_body,
    register,
    start_response,
)
from ctxbackends.testing._fault_server.steps import Step


@register
def no_terminal_marker(after: int = 2) -> Fault:
    """End the body cleanly without its end marker: no finish reason, ``message_stop`` or ``done``.

    Args:
        after: The number of text events that come first. A response that is not streamed is cut in half instead.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        if response.is_stream:
            yield from start_response(response, after)
            yield response.last_chunk
        else:
            yield plain(200, response.build_body(None))

    return Fault("no_terminal_marker", script, kinds=GENERATIONS)


@register
def done_without_finish_reason() -> Fault:
    """Send ``[DONE]`` or ``message_stop`` without a finish reason before it."""

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield from start_response(response)
        yield response.frame(response.terminal_marker) + response.last_chunk

    return Fault("done_without_finish_reason", script, kinds=STREAMS, wires=EVENTS)


@register
def finish_reason_without_done() -> Fault:
    """Send a finish reason and end without ``[DONE]`` or ``message_stop``.

    Several servers leave ``[DONE]`` out; none leaves ``message_stop`` out.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield from start_response(response, after=len(response.pieces))
        yield response.frame(response.finish_event()) + response.last_chunk

    return Fault("finish_reason_without_done", script, kinds=STREAMS, wires=EVENTS)


def _error_after_status(
    name: str,
    value: Mapping[str, Any],
    *,
    event: str | None = None,
    marker: bool = False,
    kinds: Collection[Kind] = KINDS,
    wires: Collection[WireName] = WIRES,
) -> Fault:
    """Build a fault that sends an error after status 200: after the first events, or as the body."""

    def script(response: ResponseBuilder) -> Iterator[Step]:
        if response.is_stream:
            yield from start_response(response)
            ending = response.terminal_marker if marker else b""
            yield response.frame(response.event(value, name=event) + ending) + response.last_chunk
        else:
            yield plain(200, dump(value))

    return Fault(name, script, kinds=kinds, wires=wires)


_ERROR_MESSAGE = "the engine broke"


@register
def error_object() -> Fault:
    """Send ``{"error": {...}}`` under status 200, in a stream after the first events."""
    return _error_after_status("error_object", error_body(_ERROR_MESSAGE, "server_error", 500), event="")


@register
def error_string() -> Fault:
    """Send ``{"error": "text"}`` under status 200, in a stream after the first events."""
    return _error_after_status("error_string", {"error": _ERROR_MESSAGE}, event="")


@register
def error_top_level() -> Fault:
    """Send the members of an error under status 200 without ``error`` around them."""
    return _error_after_status(
        "error_top_level", {"object": "error", "message": _ERROR_MESSAGE, "type": "server_error", "code": 500}, event=""
    )


@register
def error_code(code: int = 429) -> Fault:
    """Send an error with the code of another status under status 200, in a stream after the first events.

    Args:
        code: The code.
    """
    return _error_after_status("error_code", error_body("slow down", "upstream_error", code), event="")


@register
def error_event() -> Fault:
    """Send ``event: error`` in the stream, as Anthropic's API does."""
    value = {"type": "error", "error": {"type": "api_error", "message": _ERROR_MESSAGE}}
    return _error_after_status("error_event", value, event="error", kinds=STREAMS, wires=EVENTS)


@register
def done_after_error() -> Fault:
    """Send an error in the stream and ``[DONE]`` after it, as vLLM does."""
    value = error_body(_ERROR_MESSAGE, "InternalServerError", 500)
    return _error_after_status("done_after_error", value, event="", marker=True, kinds=STREAMS, wires=EVENTS)


@register
def empty_delta() -> Fault:
    """Send an empty delta and end, as Ollama's OpenAI-compatible endpoint does on an error."""

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield from start_response(response)
        yield response.frame(response.text_event("")) + response.last_chunk

    return Fault("empty_delta", script, kinds=STREAMS)


@register
def abort() -> Fault:
    """Finish with ``finish_reason: "abort"``, as vLLM does when it shuts down."""
    return _finish_with("abort", "abort")


@register
def unknown_finish_reason() -> Fault:
    """Finish with an unknown finish reason."""
    return _finish_with("unknown_finish_reason", "tired")


@register
def max_tokens_reached() -> Fault:
    """Finish with ``length``: the text is truncated at ``max_tokens``."""
    return _finish_with("max_tokens_reached", "length")


def _finish_with(name: str, reason: str) -> Fault:
    def script(response: ResponseBuilder) -> Iterator[Step]:
        if response.is_stream:
            yield from start_response(response, after=len(response.pieces))
            yield response.frame(response.finish_event(reason) + response.terminal_marker) + response.last_chunk
        else:
            yield plain(200, response.build_body(reason))

    return Fault(name, script, kinds=GENERATIONS)


@register
def plain_text_event() -> Fault:
    """Send plain text instead of an event, as a llama-server router does when the server behind it dies."""
    return _replace_event("plain_text_event", b"proxy error: Failed to read connection\n\n")


@register
def malformed_event() -> Fault:
    """Send half an event, and a correct event after it."""

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield from start_response(response)
        event = response.text_event("never")
        yield (
            response.frame(event[: len(event) // 2] + b"\n\n" + response.finish_event() + response.terminal_marker)
            + response.last_chunk
        )

    return Fault("malformed_event", script, kinds=STREAMS)


@register
def invalid_utf8() -> Fault:
    """Send an incomplete UTF-8 sequence."""

    def script(response: ResponseBuilder) -> Iterator[Step]:
        if response.is_stream:
            yield from start_response(response)
            event = response.text_event("never").replace(b"never", b"\xf0\x9f")
            yield response.frame(event + response.finish_event() + response.terminal_marker) + response.last_chunk
        else:
            yield plain(200, response.body.replace(b'"%s"' % response.model.encode(), b'"\xf0\x9f"'))

    return Fault("invalid_utf8", script)


def _replace_event(name: str, data: bytes) -> Fault:
    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield from start_response(response)
        yield response.frame(data) + response.last_chunk

    return Fault(name, script, kinds=STREAMS)


def _respond_with_body(name: str, body: bytes, content_type: str) -> Fault:
    return Fault(name, lambda _: (plain(200, body, content_type=content_type),))


@register
def html_page() -> Fault:
    """Send an HTML page under status 200, like a proxy or a captive portal."""
    return _respond_with_body(
        "html_page", b"<!DOCTYPE html>\n<html><body>\n<h1>Please log in</h1>\n</body></html>\n", "text/html"
    )


@register
def empty_body() -> Fault:
    """Send status 200 with an empty body."""
    return _respond_with_body("empty_body", b"", "application/json")


@register
def unexpected_json() -> Fault:
    """Send JSON of an unexpected shape."""
    return _respond_with_body("unexpected_json", b'["this", "is", "no", "answer"]', "application/json")


@register
def empty_choices() -> Fault:
    """Send a well-formed response without choices, content or vectors."""

    def script(response: ResponseBuilder) -> Iterator[Step]:
        empty: dict[str, Any] = {"model": response.model, "object": "chat.completion", "choices": []}
        if response.kind == "embed":
            empty = {"model": response.model, "object": "list", "data": [], "embeddings": []}
        elif response.wire == "messages":
            empty = {"model": response.model, "type": "message", "role": "assistant", "content": []}
        elif response.wire == "ollama":
            empty = {"model": response.model, "done": False}
        body = response.event(empty) if response.is_stream else dump(empty)
        yield plain(200, body, content_type=response.content_type)

    return Fault("empty_choices", script)


@register
def wrong_content_type() -> Fault:
    """Send a correct response as ``text/plain``."""

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield response.head(content_type="text/plain")
        events = (
            [*response.text_events, response.finish_event() + response.terminal_marker] if response.is_stream else []
        )
        for event in events:
            yield response.frame(event)
        yield response.last_chunk if response.is_stream else response.body

    return Fault("wrong_content_type", script)


@register
def plain_response() -> Fault:
    """Ignore ``stream`` and send the response as one JSON body."""

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield plain(200, response.build_body("stop"))

    return Fault("plain_response", script, kinds=STREAMS)


@register
def other_model(model: str = "another-model") -> Fault:
    """Send a correct response from another model.

    Args:
        model: The model that the response names.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield from respond(ResponseBuilder(response.request, response.pieces, model))

    return Fault("other_model", script)


def _stream_tool_calls(name: str, pieces: Iterable[ToolCallDelta], *, wires: Collection[WireName] = WIRES) -> Fault:
    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield response.head()
        yield response.frame(response.stream_start)
        for piece in pieces:
            yield response.frame(response.tool_event(piece))
        yield response.frame(response.finish_event("tool_calls") + response.terminal_marker) + response.last_chunk

    return Fault(name, script, kinds=STREAMS, wires=wires)


@register
def repeated_tool_index() -> Fault:
    """Stream two tool calls with the same index and different ids, as Ollama did."""
    return _stream_tool_calls(
        "repeated_tool_index",
        (
            ToolCallDelta(index=0, id="call_a", name="look", arguments='{"x":1}'),
            ToolCallDelta(index=0, id="call_b", name="find", arguments='{"y":2}'),
        ),
    )


@register
def interleaved_tool_calls() -> Fault:
    """Stream two tool calls whose deltas alternate."""
    return _stream_tool_calls(
        "interleaved_tool_calls",
        (
            ToolCallDelta(index=1, id="call_a", name="look"),
            ToolCallDelta(index=2, id="call_b", name="find"),
            ToolCallDelta(index=1, arguments='{"x":'),
            ToolCallDelta(index=2, arguments='{"y":'),
            ToolCallDelta(index=1, arguments="1}"),
            ToolCallDelta(index=2, arguments="2}"),
        ),
        wires=EVENTS,
    )
