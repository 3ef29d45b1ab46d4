"""Faults of connections that are kept for the next request."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from ctxbackends.testing.faults.answers import Answer, Fault, whole
from ctxbackends.testing.faults.catalogue import catalogued
from ctxbackends.testing.faults.scripts import Do, Step


@catalogued
def close_after_answer() -> Fault:
    """A good answer whose headers promise to keep the connection, which is closed with the last byte: what llama-server
    does after every stream."""

    def script(answer: Answer) -> Iterator[Step]:
        yield from _kept(answer)
        yield Do.CLOSE

    return Fault("close_after_answer", script)


@catalogued
def close_on_reuse() -> Fault:
    """A good answer; the connection is closed in the moment in which the next request comes on it, unread."""

    def script(answer: Answer) -> Iterator[Step]:
        yield Do.DEAF
        yield from _kept(answer)

    return Fault("close_on_reuse", script)


@catalogued
def unasked_answer(text: str = "nobody asked") -> Fault:
    """A good answer, and a moment later another one on the same connection, to nothing: a proxy that lost count."""

    def script(answer: Answer) -> Iterator[Step]:
        yield from _kept(answer)
        yield 0.01
        yield from _kept(attrs.evolve(answer, pieces=(text, ".")))

    return Fault("unasked_answer", script)


def _kept(answer: Answer) -> Iterator[Step]:
    first, *rest = whole(answer)
    assert isinstance(first, bytes), "an answer begins with its headers"
    yield first.replace(b"\r\n", b"\r\nconnection: keep-alive\r\nkeep-alive: timeout=5, max=100\r\n", 1)
    yield from rest
