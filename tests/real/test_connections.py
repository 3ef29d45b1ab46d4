"""Connections to a real server: after streams, after idle times, and what a cancelled request leaves behind."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from pathlib import Path

import pytest

import ctxbackends
from ctxbackends import Backend, TextDelta
from tests.real.conftest import busy_slots, wait_for_slots

pytestmark = pytest.mark.real


async def test_a_hundred_requests_each_the_instant_a_stream_has_ended(backend: Backend) -> None:
    count = 0
    for number in range(100):
        async with backend.stream(f"Hello {number}", max_tokens=2) as stream:
            async for _ in stream:
                pass
        await backend.embed("at once")  # a plain POST, which takes its connection from the pool
        count += 1
    assert count == 100


async def test_streams_back_to_back(backend: Backend) -> None:
    answers = [await backend.complete(f"Hello {number}", max_tokens=2) for number in range(60)]
    assert len(answers) == 60


@pytest.mark.slow
async def test_requests_after_idle_times_around_the_servers_limit(backend: Backend) -> None:
    async def embed_after_pause(seconds: float) -> int:
        await backend.embed("before")
        await asyncio.sleep(seconds)  # the idle time is what is tested
        return len((await backend.embed("after")).vectors)

    idle_times = [3.9, 4.0, 4.1, *(4.95 + 0.005 * step for step in range(24)), 5.2, 5.5]
    assert await asyncio.gather(*(embed_after_pause(seconds) for seconds in idle_times)) == [1] * len(idle_times)


@pytest.mark.parametrize("how", ["break", "cancel a stream", "cancel a completion", "exception", "timeout", "Ctrl-C"])
async def test_a_cancelled_request_frees_its_slot_while_another_generates(slow_backend: Backend, how: str) -> None:
    endpoint = slow_backend.endpoint
    assert await wait_for_slots(0, endpoint, within=5) == 0
    async with slow_backend.stream("The other one", max_tokens=100_000) as other:
        await anext(other)
        await _start_and_cancel(slow_backend, how)
        reading = asyncio.create_task(_read_on(other))  # the other slot produces tokens all the while
        assert await wait_for_slots(1, endpoint, within=5) == 1
        assert not reading.done()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
    assert await wait_for_slots(0, endpoint, within=5) == 0


async def _start_and_cancel(backend: Backend, how: str) -> None:
    if how == "break":
        async with backend.stream("This one", max_tokens=100_000) as stream:
            async for event in stream:
                if isinstance(event, TextDelta):
                    break
        return
    if how == "exception":
        with pytest.raises(ZeroDivisionError):
            async with backend.stream("This one", max_tokens=100_000) as stream:
                async for _ in stream:
                    raise ZeroDivisionError
        return
    if how == "timeout":
        with pytest.raises(TimeoutError):
            async with backend.stream("This one", max_tokens=100_000) as stream:
                await anext(stream)
                async with asyncio.timeout(0.2):
                    await _read_on(stream)
        return
    if how == "Ctrl-C":
        await _interrupt(backend)
        return
    task = asyncio.create_task(_stream(backend) if how == "cancel a stream" else _complete(backend))
    while await busy_slots(backend.endpoint) < 2:
        await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


PROGRAM = """
import asyncio, sys
from ctxbackends import open_backend

async def main():
    async with open_backend("llamacpp", endpoint=sys.argv[1], default_model=sys.argv[2]) as backend:
        await backend.complete("This one", max_tokens=100_000)

asyncio.run(main())
"""


async def _interrupt(backend: Backend) -> None:
    """Another program asks, and is interrupted."""
    program = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", PROGRAM, backend.endpoint, str(backend.default_model)),
        env={**os.environ, "PYTHONPATH": str(Path(ctxbackends.__file__).parents[1])},
        stderr=asyncio.subprocess.DEVNULL,
    )
    while await busy_slots(backend.endpoint) < 2:
        await asyncio.sleep(0.05)
    program.send_signal(signal.SIGINT)
    assert -signal.SIGINT == await program.wait()


async def _stream(backend: Backend) -> None:
    async with backend.stream("This one", max_tokens=100_000) as stream:
        await _read_on(stream)


async def _complete(backend: Backend) -> None:
    await backend.complete("This one", max_tokens=100_000)


async def _read_on(stream: object) -> None:
    async for _ in stream:  # type: ignore[attr-defined]  # a ChatStream; typed loosely, as any async iterable would do
        pass
