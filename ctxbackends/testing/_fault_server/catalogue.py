"""The catalogue of faults, and helpers that several faults share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ParamSpec

from ctxbackends.testing._fault_server.answers import Fault, Kind, ResponseBuilder, WireName
from ctxbackends.testing._fault_server.steps import Step

P = ParamSpec("P")

MEBIBYTE = 1024 * 1024
STREAMS: tuple[Kind, ...] = ("stream",)
GENERATIONS: tuple[Kind, ...] = ("stream", "plain")
EVENTS: tuple[WireName, ...] = ("chat_completions", "messages")
"""The wires whose streams are server-sent events."""

FACTORIES: dict[str, Callable[..., Fault]] = {}
"""The functions that build a fault, by name. Each can be called without arguments."""


def register(factory: Callable[P, Fault]) -> Callable[P, Fault]:
    """Add a function that builds a fault to the catalogue."""
    FACTORIES[factory.__name__] = factory
    return factory


def error_body(message: str, type_: str, code: Any = None, **members: Any) -> dict[str, Any]:
    """Build the body of an error as OpenAI's API sends it."""
    return {"error": {"message": message, "type": type_, "code": code, **members}}


def start_response(response: ResponseBuilder, after: int = 2) -> Iterator[Step]:
    """Send the headers and the start of the body: ``after`` text events, or half of a body that is not streamed."""
    yield response.head()
    if response.is_stream:
        for event in response.text_events[:after]:
            yield response.frame(event)
    else:
        yield response.body[: len(response.body) // 2]
