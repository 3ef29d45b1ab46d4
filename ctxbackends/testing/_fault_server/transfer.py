"""Faults in the transfer of a body: cut off, slow, too large or endless."""

from __future__ import annotations

import functools
import gzip
import itertools
from collections.abc import Iterator

from ctxbackends.testing._fault_server.answers import Fault, ResponseBuilder, plain
from ctxbackends.testing._fault_server.catalogue import EVENTS, MEBIBYTE, STREAMS, register, start_response
from ctxbackends.testing._fault_server.steps import Do, Step


@register
def close_in_chunk(after: int = 2) -> Fault:
    """Close the connection in the middle of a chunk, or of a body with a ``Content-Length``.

    Args:
        after: The number of text events that come first. A response that is not streamed is cut in half instead.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield from start_response(response, after)
        if response.is_stream:
            yield b"ffff\r\n" + response.text_event("never")[:9]
        yield Do.CLOSE

    return Fault("close_in_chunk", script)


@register
def reset_in_body(after: int = 2) -> Fault:
    """Reset the connection in the middle of the body.

    Args:
        after: The number of text events that come first. A response that is not streamed is cut in half instead.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield from start_response(response, after)
        yield 0.02  # a reset overtakes what was written just before it
        yield Do.RESET

    return Fault("reset_in_body", script)


@register
def stall(after: int = 2) -> Fault:
    """Stop sending in the middle of the body and keep the connection open, like a server that hangs.

    Args:
        after: The number of text events that come first. A response that is not streamed is cut in half instead.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield from start_response(response, after)
        yield Do.HANG

    return Fault("stall", script)


@register
def byte_by_byte() -> Fault:
    """Send a correct response one byte at a time.

    Each read ends in the middle of an event or a character.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield response.head()
        events = (
            [*response.text_events, response.finish_event() + response.terminal_marker]
            if response.is_stream
            else [response.body]
        )
        for byte in b"".join(events):
            yield response.frame(bytes([byte]))
            yield 0.0
        yield response.last_chunk

    return Fault("byte_by_byte", script)


@register
def endless_trickle(interval: float = 0.05) -> Fault:
    """Send an event one byte at a time without end, so that a timeout per read never expires.

    Args:
        interval: Seconds between two writes.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield response.head(content_length="" if response.is_stream else str(MEBIBYTE))
        yield response.frame(
            response.text_event("never").partition(b"never")[0] if response.is_stream else response.body[:20]
        )
        for _ in itertools.count():
            yield response.frame(b"x")
            yield interval

    return Fault("endless_trickle", script)


@register
def comments_only(interval: float = 0.05) -> Fault:
    """Send keep-alive comments and never an event, or whitespace where there are no comments.

    Servers and proxies send them while they work; a server that hangs sends them forever.

    Args:
        interval: Seconds between two writes.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield response.head(content_length="" if response.is_stream else str(MEBIBYTE))
        for _ in itertools.count():
            yield response.frame(b":\n\n" if response.is_stream and response.wire != "ollama" else b"\n")
            yield interval

    return Fault("comments_only", script)


@register
def pings_only(interval: float = 0.05) -> Fault:
    """Send ``event: ping`` and never a token; Anthropic's API keeps connections open with them.

    Args:
        interval: Seconds between two writes.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield response.head()
        for _ in itertools.count():
            yield response.frame(response.event({"type": "ping"}, name="ping"))
            yield interval

    return Fault("pings_only", script, kinds=STREAMS, wires=EVENTS)


@register
def comments_after(after: int = 2, interval: float = 0.05) -> Fault:
    """Send only keep-alive comments after the first events.

    Args:
        after: The number of text events that come first.
        interval: Seconds between two writes.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield from start_response(response, after)
        for _ in itertools.count():
            yield response.frame(b":\n\n" if response.wire != "ollama" else b"\n")
            yield interval

    return Fault("comments_after", script, kinds=STREAMS)


@register
def short_body() -> Fault:
    """Close the connection before the body is as long as its ``Content-Length``."""

    def script(response: ResponseBuilder) -> Iterator[Step]:
        body = b"".join(response.text_events) if response.is_stream else response.body
        yield response.head(content_length=str(len(body) + 100))
        yield body
        yield Do.CLOSE

    return Fault("short_body", script)


@register
def long_body() -> Fault:
    """Send a body longer than its ``Content-Length``."""

    def script(response: ResponseBuilder) -> Iterator[Step]:
        body = (
            b"".join([*response.text_events, response.finish_event(), response.terminal_marker])
            if response.is_stream
            else response.body
        )
        yield response.head(
            content_length=str(len(b"".join(response.text_events)) if response.is_stream else len(body) - 10)
        )
        yield body

    return Fault("long_body", script)


@register
def bad_chunk() -> Fault:
    """Send a chunk size that is not a number."""

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield response.head(content_length="", transfer_encoding="chunked")
        yield b"xyz\r\n" + response.body + b"\r\n0\r\n\r\n"

    return Fault("bad_chunk", script)


@functools.cache
def _bomb(mebibytes: int) -> bytes:
    return gzip.compress(b" " * (mebibytes * MEBIBYTE), 1)


@register
def gzip_bomb(mebibytes: int = 64) -> Fault:
    """Send a small gzip body that expands to a large one, although the client did not accept gzip.

    Args:
        mebibytes: The size of the expanded body.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield plain(200, _bomb(mebibytes), content_type=response.content_type, content_encoding="gzip")

    return Fault("gzip_bomb", script)


@register
def giant_line(mebibytes: int = 12) -> Fault:
    """Send a line without end in a stream, or a JSON body that is far too large.

    Args:
        mebibytes: The size of the line or body.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        size = mebibytes * MEBIBYTE
        yield response.head(content_length="" if response.is_stream else str(size))
        yield response.frame(b"data: {" if response.is_stream else b"{")
        for _ in range(mebibytes):
            yield response.frame(b'"x":"' + b"x" * MEBIBYTE + b'",')
        yield Do.HANG

    return Fault("giant_line", script)


@register
def giant_event(mebibytes: int = 12) -> Fault:
    """Send an event that consists of many short lines.

    Args:
        mebibytes: The size of the event.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield response.head()
        line = b"data: " + b" " * 1018 + b"\n"
        for _ in range(mebibytes * 16):
            yield response.frame(line * 64)
        yield Do.HANG

    return Fault("giant_event", script, kinds=STREAMS, wires=EVENTS)


@register
def giant_error() -> Fault:
    """Return 500 with a body that never ends."""

    def script(_: ResponseBuilder) -> Iterator[Step]:
        yield b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\n\r\n"
        while True:
            yield b"it went wrong; " * 4096

    return Fault("giant_error", script)


@register
def endless_stream(interval: float = 0.0) -> Fault:
    """Stream tokens without end.

    Args:
        interval: Seconds between two tokens.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield response.head()
        yield response.frame(response.stream_start)
        while True:
            yield response.frame(response.text_event("again "))
            yield interval

    return Fault("endless_stream", script, kinds=STREAMS)
