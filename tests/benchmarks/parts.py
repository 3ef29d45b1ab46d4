"""What the choices on the hot paths were made by: each pair does the same work in two ways, and the ratio of their
times is printed. ``python -m tests.benchmarks.parts``. The comments in the code quote these ratios.

Each way is timed in turn, and the median of the ratios is taken, so that a busy machine changes little.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import aiohttp
import attrs

from ctxbackends._chat.events import Finish, StreamEvent, TextDelta
from ctxbackends._chat.responses import TokenLogprob
from ctxbackends._wire.accumulator import Accumulator, build_completion
from ctxbackends._wire.formats import openai_stream
from ctxbackends._wire.sse import SSEDecoder
from tests.benchmarks.answers import WIRES, streamed_body
from tests.benchmarks.processes import Child, command

ROUNDS = 15
_OPENAI = streamed_body("openai", "s1000-many")
_ANTHROPIC = streamed_body("anthropic", "s1000-many")
_EVENTS: Sequence[StreamEvent] = (TextDelta("a word " * 100), Finish("stop"))
_FACTS: dict[str, Any] = {"requested_model": "m", "served_model": "m", "response_id": "i"}


@attrs.frozen
class AttrsDelta:
    """As TextDelta would be."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


def _in_one_pass(data: bytes) -> None:
    SSEDecoder().feed(data)


def _line_by_line(data: bytes) -> None:
    frames = SSEDecoder()
    frames._parse_lines(frames._lines.feed(data))


def _told_in_place() -> list[StreamEvent]:
    return openai_stream.OpenAIStreamDecoder().feed(_OPENAI)


def _in_the_general_way() -> list[StreamEvent]:
    decoder = openai_stream.OpenAIStreamDecoder()
    events: list[StreamEvent] = []
    for _, data in decoder._frames.feed(_OPENAI)[:-1]:  # the last is [DONE]
        decoder._handle_chunk(openai_stream._chunk_decoder.decode(data), events)
    return events


def _accumulated() -> None:
    whole = Accumulator()
    whole.add(*_EVENTS)
    whole.completion(**_FACTS)


PAIRS: dict[str, tuple[int, Callable[[], object], Callable[[], object]]] = {
    "framing: line by line / in one pass, events without names": (
        3,
        lambda: _line_by_line(_OPENAI),
        lambda: _in_one_pass(_OPENAI),
    ),
    "framing: line by line / in one pass, events with names": (
        3,
        lambda: _line_by_line(_ANTHROPIC),
        lambda: _in_one_pass(_ANTHROPIC),
    ),
    "decoding: the general way / told in place": (3, _in_the_general_way, _told_in_place),
    "an event: attrs class / struct": (5000, lambda: AttrsDelta("a"), lambda: TextDelta("a")),
    "a short completion: accumulated / folded": (500, _accumulated, lambda: build_completion(_EVENTS, **_FACTS)),
}
"""How often in a round, the way that was left, and the way that was taken."""


def ratio(times: int, left: Callable[[], object], taken: Callable[[], object]) -> float:
    return statistics.median(_spent(times, left) / _spent(times, taken) for _ in range(ROUNDS))


def _spent(times: int, act: Callable[[], object]) -> float:
    began = time.process_time()
    for _ in range(times):
        act()
    return time.process_time() - began


async def _around_aiohttp(url: str) -> dict[str, float]:
    """How many times of a plain request one with a TraceConfig costs, and one under asyncio.timeout."""

    async def told(*_: object) -> None: ...

    traces = aiohttp.TraceConfig()
    traces.on_connection_reuseconn.append(told)
    body = b'{"model":"c1k","stream":false}'

    async def post(session: aiohttp.ClientSession) -> None:
        await (await session.post(url, data=body)).read()

    async def timed(session: aiohttp.ClientSession) -> None:
        async with asyncio.timeout(60):
            await post(session)

    async def spent(way: Callable[[aiohttp.ClientSession], Awaitable[None]], session: aiohttp.ClientSession) -> float:
        began = time.process_time()
        for _ in range(200):
            await way(session)
        return time.process_time() - began

    quiet = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(timeout=quiet) as plain,
        aiohttp.ClientSession(timeout=quiet, trace_configs=[traces]) as traced,
    ):
        rounds = [
            (await spent(post, plain), await spent(post, traced), await spent(timed, plain)) for _ in range(ROUNDS)
        ]
    return {
        "a request: with a TraceConfig / without": statistics.median(one[1] / one[0] for one in rounds),
        "a request: under asyncio.timeout / without": statistics.median(one[2] / one[0] for one in rounds),
    }


def main() -> None:
    found = {name: ratio(*pair) for name, pair in PAIRS.items()}
    with Child(command(sys.executable, "tests.benchmarks.stub")) as server:
        found |= asyncio.run(_around_aiohttp(server.hello["url"] + WIRES["openai"]))
    for name, value in found.items():
        print(f"{name:60} {value:5.2f}")


if __name__ == "__main__":
    main()
