"""Where each fault puts itself, and what several of them are made with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, ParamSpec

from ctxbackends.testing.faults.answers import Answer, Fault, Kind, WireName
from ctxbackends.testing.faults.scripts import Step

P = ParamSpec("P")

MEBIBYTE = 1024 * 1024
STREAMS: tuple[Kind, ...] = ("stream",)
GENERATIONS: tuple[Kind, ...] = ("stream", "plain")
EVENTS: tuple[WireName, ...] = ("chat_completions", "messages")
"""The wires whose streams are server-sent events."""

makers: dict[str, Callable[..., Fault]] = {}
"""The functions that make a fault, by its name; each can be called without arguments."""


def catalogued(make: Callable[P, Fault]) -> Callable[P, Fault]:
    """Put what ``make`` makes by default into the catalogue."""
    makers[make.__name__] = make
    return make


def error(message: str, type_: str, code: Any = None, **more: Any) -> dict[str, Any]:
    return {"error": {"message": message, "type": type_, "code": code, **more}}


def begun(answer: Answer, after: int = 2) -> Iterator[Step]:
    """The beginning of a good answer: the headers, and ``after`` pieces of a stream or the half of a body."""
    yield answer.head()
    if answer.streams:
        for event in answer.texts[:after]:
            yield answer.part(event)
    else:
        yield answer.body[: len(answer.body) // 2]
