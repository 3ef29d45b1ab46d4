"""Faults of keep-alive connections."""

from __future__ import annotations

from collections.abc import Iterator

import attrs

from ctxbackends.testing._fault_server.answers import Fault, ResponseBuilder, respond
from ctxbackends.testing._fault_server.catalogue import register
from ctxbackends.testing._fault_server.steps import Do, Step


@register
def close_after_response() -> Fault:
    """Announce keep-alive, and close the connection right after a correct response.

    llama-server does this after every stream.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield from _respond_keep_alive(response)
        yield Do.CLOSE

    return Fault("close_after_response", script)


@register
def close_on_reuse() -> Fault:
    """Send a correct response, and close the connection when the next request arrives on it.

    That request is not read.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield Do.CLOSE_ON_NEXT_REQUEST
        yield from _respond_keep_alive(response)

    return Fault("close_on_reuse", script)


@register
def unsolicited_response(text: str = "nobody asked") -> Fault:
    """Send a correct response, and shortly after it a second one on the same connection.

    Args:
        text: The text of the second response.
    """

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield from _respond_keep_alive(response)
        yield 0.01
        yield from _respond_keep_alive(attrs.evolve(response, pieces=(text, ".")))

    return Fault("unsolicited_response", script)


def _respond_keep_alive(response: ResponseBuilder) -> Iterator[Step]:
    """Respond with headers that announce keep-alive."""
    first, *rest = respond(response)
    assert isinstance(first, bytes), "a response begins with its headers"
    yield first.replace(b"\r\n", b"\r\nconnection: keep-alive\r\nkeep-alive: timeout=5, max=100\r\n", 1)
    yield from rest
