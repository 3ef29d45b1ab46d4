"""Measures the fast paths: each pair does the same work in two implementations, and the ratio of their times is
printed. ``python -m tests.benchmarks.parts``. Comments in the code quote these ratios.

The two are timed alternately, and the median of the ratios is printed, so that a busy machine changes little.
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
from ctxbackends._wire.formats.openai_stream import OpenAIStreamDecoder
from ctxbackends._wire.sse import SSEDecoder
from tests.benchmarks.answers import WIRES, streamed_body
from tests.benchmarks.processes import Child, command

ROUNDS = 15
_OPENAI = streamed_body("openai", "s1000-many")
_ANTHROPIC = streamed_body("anthropic", "s1000-many")
_FINISH = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n'
_EVENTS: Sequence[StreamEvent] = (TextDelta("a word " * 100), Finish("stop"))
_FIELDS: dict[str, Any] = {"requested_model": "m", "served_model": "m", "response_id": "i"}


@attrs.frozen
class AttrsDelta:
    """TextDelta as an attrs class."""

    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


def split_in_one_pass(data: bytes) -> list[tuple[bytes, bytes]]:
    return SSEDecoder().feed(data)


def split_by_lines(data: bytes) -> list[tuple[bytes, bytes]]:
    frames = SSEDecoder()
    frames.feed(b"\r")  # its LF could follow, which only the parser of lines handles
    return frames.feed(data)


def decode_fast() -> list[StreamEvent]:
    return OpenAIStreamDecoder().feed(_OPENAI)


def decode_generally() -> list[StreamEvent]:
    decoder = OpenAIStreamDecoder()
    decoder.feed(_FINISH)  # after it, no chunk takes the fast path
    return decoder.feed(_OPENAI)


def _accumulate() -> None:
    accumulator = Accumulator()
    accumulator.add(*_EVENTS)
    accumulator.completion(**_FIELDS)


PAIRS: dict[str, tuple[int, Callable[[], object], Callable[[], object]]] = {
    "framing: line by line / in one pass, events without names": (
        3,
        lambda: split_by_lines(_OPENAI),
        lambda: split_in_one_pass(_OPENAI),
    ),
    "framing: line by line / in one pass, events with names": (
        3,
        lambda: split_by_lines(_ANTHROPIC),
        lambda: split_in_one_pass(_ANTHROPIC),
    ),
    "decoding: general path / fast path": (3, decode_generally, decode_fast),
    "an event: attrs class / struct": (5000, lambda: AttrsDelta("a"), lambda: TextDelta("a")),
    "a short completion: Accumulator / build_completion": (
        500,
        _accumulate,
        lambda: build_completion(_EVENTS, **_FIELDS),
    ),
}
"""The runs of a round, the slower implementation, and the one in use."""


def ratio(times: int, slow: Callable[[], object], fast: Callable[[], object]) -> float:
    return statistics.median(_measure(times, slow) / _measure(times, fast) for _ in range(ROUNDS))


def _measure(times: int, act: Callable[[], object]) -> float:
    start = time.process_time()
    for _ in range(times):
        act()
    return time.process_time() - start


async def _measure_aiohttp(url: str) -> dict[str, float]:
    """Return the cost of a TraceConfig and of asyncio.timeout, as ratios to a plain request."""

    async def on_reuse(*_: object) -> None: ...

    traces = aiohttp.TraceConfig()
    traces.on_connection_reuseconn.append(on_reuse)
    body = b'{"model":"c1k","stream":false}'

    async def post(session: aiohttp.ClientSession) -> None:
        await (await session.post(url, data=body)).read()

    async def post_with_timeout(session: aiohttp.ClientSession) -> None:
        async with asyncio.timeout(60):
            await post(session)

    async def measure(act: Callable[[aiohttp.ClientSession], Awaitable[None]], session: aiohttp.ClientSession) -> float:
        start = time.process_time()
        for _ in range(200):
            await act(session)
        return time.process_time() - start

    quiet = aiohttp.ClientTimeout(total=None)
    async with (
        aiohttp.ClientSession(timeout=quiet) as plain,
        aiohttp.ClientSession(timeout=quiet, trace_configs=[traces]) as tracing,
    ):
        rounds = [
            (await measure(post, plain), await measure(post, tracing), await measure(post_with_timeout, plain))
            for _ in range(ROUNDS)
        ]
    return {
        "a request: with a TraceConfig / without": statistics.median(traced / plain_ for plain_, traced, _ in rounds),
        "a request: under asyncio.timeout / without": statistics.median(
            limited / plain_ for plain_, _, limited in rounds
        ),
    }


def main() -> None:
    ratios = {name: ratio(*pair) for name, pair in PAIRS.items()}
    with Child(command(sys.executable, "tests.benchmarks.stub")) as server:
        ratios |= asyncio.run(_measure_aiohttp(server.hello["url"] + WIRES["openai"]))
    for name, value in ratios.items():
        print(f"{name:60} {value:5.2f}")


if __name__ == "__main__":
    main()
