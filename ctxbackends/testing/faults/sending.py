"""Faults of how a body is sent: cut, slow, too large, never ending."""

from __future__ import annotations

import functools
import gzip
import itertools
from collections.abc import Iterator

from ctxbackends.testing.faults.answers import Answer, Fault, plain
from ctxbackends.testing.faults.catalogue import EVENTS, MEBIBYTE, STREAMS, begun, catalogued
from ctxbackends.testing.faults.scripts import Do, Step


@catalogued
def close_in_chunk(after: int = 2) -> Fault:
    """Closes in the middle of a chunk, or of a body whose length it had told."""

    def script(answer: Answer) -> Iterator[Step]:
        yield from begun(answer, after)
        if answer.streams:
            yield b"ffff\r\n" + answer.piece("never")[:9]
        yield Do.CLOSE

    return Fault("close_in_chunk", script)


@catalogued
def reset_in_body(after: int = 2) -> Fault:
    """Resets the connection after the first pieces."""

    def script(answer: Answer) -> Iterator[Step]:
        yield from begun(answer, after)
        yield 0.02  # a reset overtakes what was written just before it
        yield Do.RESET

    return Fault("reset_in_body", script)


@catalogued
def stall(after: int = 2) -> Fault:
    """Says nothing more after the first pieces, and keeps the connection: a server that was terminated, or that
    hangs."""

    def script(answer: Answer) -> Iterator[Step]:
        yield from begun(answer, after)
        yield Do.HOLD

    return Fault("stall", script)


@catalogued
def byte_by_byte() -> Fault:
    """The whole answer one byte at a time: no fault, and it shows who cuts characters and events."""

    def script(answer: Answer) -> Iterator[Step]:
        yield answer.head()
        events = [*answer.texts, answer.reason() + answer.marker] if answer.streams else [answer.body]
        for byte in b"".join(events):
            yield answer.part(bytes([byte]))
            yield 0.0
        yield answer.end

    return Fault("byte_by_byte", script)


@catalogued
def endless_trickle(every: float = 0.05) -> Fault:
    """One byte at a time of an event that never ends: each byte keeps a naive timeout from passing."""

    def script(answer: Answer) -> Iterator[Step]:
        yield answer.head(content_length="" if answer.streams else str(MEBIBYTE))
        yield answer.part(answer.piece("never").partition(b"never")[0] if answer.streams else answer.body[:20])
        for _ in itertools.count():
            yield answer.part(b"x")
            yield every

    return Fault("endless_trickle", script)


@catalogued
def comments_only(every: float = 0.05) -> Fault:
    """Keep-alive comments and never an event; white space, where there are no comments. Servers and proxies send them
    while they work, and a wedged one for ever."""

    def script(answer: Answer) -> Iterator[Step]:
        yield answer.head(content_length="" if answer.streams else str(MEBIBYTE))
        for _ in itertools.count():
            yield answer.part(b":\n\n" if answer.streams and answer.wire != "ollama" else b"\n")
            yield every

    return Fault("comments_only", script)


@catalogued
def pings_only(every: float = 0.05) -> Fault:
    """``event: ping`` and never a token, as Anthropic's API keeps a connection open."""

    def script(answer: Answer) -> Iterator[Step]:
        yield answer.head()
        for _ in itertools.count():
            yield answer.part(answer.event({"type": "ping"}, name="ping"))
            yield every

    return Fault("pings_only", script, kinds=STREAMS, wires=EVENTS)


@catalogued
def comments_after(after: int = 2, every: float = 0.05) -> Fault:
    """Keep-alive comments and nothing else after the first pieces."""

    def script(answer: Answer) -> Iterator[Step]:
        yield from begun(answer, after)
        for _ in itertools.count():
            yield answer.part(b":\n\n" if answer.wire != "ollama" else b"\n")
            yield every

    return Fault("comments_after", script, kinds=STREAMS)


@catalogued
def short_body() -> Fault:
    """A ``Content-Length`` greater than the body, and then the end."""

    def script(answer: Answer) -> Iterator[Step]:
        body = b"".join(answer.texts) if answer.streams else answer.body
        yield answer.head(content_length=str(len(body) + 100))
        yield body
        yield Do.CLOSE

    return Fault("short_body", script)


@catalogued
def long_body() -> Fault:
    """A ``Content-Length`` smaller than the body: what comes after it belongs to nothing."""

    def script(answer: Answer) -> Iterator[Step]:
        body = b"".join([*answer.texts, answer.reason(), answer.marker]) if answer.streams else answer.body
        yield answer.head(content_length=str(len(b"".join(answer.texts)) if answer.streams else len(body) - 10))
        yield body

    return Fault("long_body", script)


@catalogued
def bad_chunk() -> Fault:
    """The size of a chunk is no number."""

    def script(answer: Answer) -> Iterator[Step]:
        yield answer.head(content_length="", transfer_encoding="chunked")
        yield b"xyz\r\n" + answer.body + b"\r\n0\r\n\r\n"

    return Fault("bad_chunk", script)


@functools.cache
def _bomb(mebibytes: int) -> bytes:
    return gzip.compress(b" " * (mebibytes * MEBIBYTE), 1)


@catalogued
def gzip_bomb(mebibytes: int = 64) -> Fault:
    """A small compressed body that would become ``mebibytes`` in memory. Nobody had asked for compression."""

    def script(answer: Answer) -> Iterator[Step]:
        yield plain(200, _bomb(mebibytes), content_type=answer.content_type, content_encoding="gzip")

    return Fault("gzip_bomb", script)


@catalogued
def giant_line(mebibytes: int = 12) -> Fault:
    """A line of a stream without an end, or a body far too large."""

    def script(answer: Answer) -> Iterator[Step]:
        size = mebibytes * MEBIBYTE
        yield answer.head(content_length="" if answer.streams else str(size))
        yield answer.part(b"data: {" if answer.streams else b"{")
        for _ in range(mebibytes):
            yield answer.part(b'"x":"' + b"x" * MEBIBYTE + b'",')
        yield Do.HOLD

    return Fault("giant_line", script)


@catalogued
def giant_event(mebibytes: int = 12) -> Fault:
    """An event made of many short lines."""

    def script(answer: Answer) -> Iterator[Step]:
        yield answer.head()
        line = b"data: " + b" " * 1018 + b"\n"
        for _ in range(mebibytes * 16):
            yield answer.part(line * 64)
        yield Do.HOLD

    return Fault("giant_event", script, kinds=STREAMS, wires=EVENTS)


@catalogued
def giant_error() -> Fault:
    """500 with a body that does not end."""

    def script(_: Answer) -> Iterator[Step]:
        yield b"HTTP/1.1 500 Internal Server Error\r\ncontent-type: text/plain\r\n\r\n"
        while True:
            yield b"it went wrong; " * 4096

    return Fault("giant_error", script)


@catalogued
def endless_stream(every: float = 0.0) -> Fault:
    """Tokens without an end."""

    def script(answer: Answer) -> Iterator[Step]:
        yield answer.head()
        yield answer.part(answer.opening)
        while True:
            yield answer.part(answer.piece("again "))
            yield every

    return Fault("endless_stream", script, kinds=STREAMS)
