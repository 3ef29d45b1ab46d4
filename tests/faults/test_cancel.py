"""Cancelled requests: the server sees the connection close at once, and none stays in the pool."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import pytest

import ctxbackends
from ctxbackends import Backend, Message, extract, open_backend
from ctxbackends.testing import FaultServer, faults
from ctxbackends.testing.faults import Do, Fault, ResponseBuilder, Script, Step
from tests.faults.test_table import Title

CLOSE_WITHIN = 0.05
"""Seconds until the server sees the close."""

ATTEMPTS = 5
"""The machines are shared: one attempt of five in time shows that nothing of ours takes longer."""

Use = Callable[[Backend], Awaitable[object]]
Stop = Callable[[Awaitable[object], asyncio.Event], Awaitable[float]]


async def complete(backend: Backend) -> object:
    return await backend.complete("Hello")


async def stream(backend: Backend) -> object:
    async with backend.stream([Message.user("Hello")]) as chat_stream:
        return [event async for event in chat_stream]


async def texts(backend: Backend) -> object:
    async with backend.stream("Hello") as chat_stream:
        return [text async for text in chat_stream.text()]


async def extract_title(backend: Backend) -> object:
    return await extract(backend, Title, "Hello")


async def embed(backend: Backend) -> object:
    return await backend.embed(["Hello"])


async def by_cancel(working: Awaitable[object], underway: asyncio.Event) -> float:
    task = asyncio.ensure_future(working)
    await underway.wait()
    stop_time = time.monotonic()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return stop_time


async def by_timeout(working: Awaitable[object], underway: asyncio.Event) -> float:
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(None) as limit:
            loop = asyncio.get_running_loop()
            reschedule = asyncio.ensure_future(underway.wait())
            reschedule.add_done_callback(lambda _: limit.reschedule(loop.time()))
            await working
    return limit.when() or 0.0


async def by_group(working: Awaitable[object], underway: asyncio.Event) -> float:
    """Another task of the same group fails."""
    failure_time = 0.0

    async def fail() -> None:
        nonlocal failure_time
        await underway.wait()
        failure_time = time.monotonic()
        raise ZeroDivisionError

    async def work() -> None:
        await working

    with pytest.raises(ExceptionGroup):
        async with asyncio.TaskGroup() as group:
            group.create_task(work())
            group.create_task(fail())
    return failure_time


def with_event(underway: asyncio.Event, fault: Fault) -> Script:
    """``fault``, which tells when all that comes has come."""

    def script(response: ResponseBuilder) -> Iterator[Step]:
        for step in fault(response):
            if step is Do.HANG:
                underway.set()
            yield step

    return script


USES: tuple[Use, ...] = (complete, stream, texts, extract_title, embed)
STOPS: tuple[Stop, ...] = (by_cancel, by_timeout, by_group)


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("use", USES)
@pytest.mark.parametrize("fault", [faults.no_response(), faults.stall()], ids=lambda fault: fault.name)
@pytest.mark.parametrize("type_", ["openai", "vllm", "ollama"])
async def test_the_server_sees_a_stopped_request_at_once(type_: str, fault: Fault, use: Use, stop: Stop) -> None:
    delays = []
    for _ in range(ATTEMPTS):
        async with FaultServer() as server, open_backend(type_, endpoint=server.url, default_model="m") as backend:
            underway = asyncio.Event()
            server.play(with_event(underway, fault))
            stop_time = await stop(use(backend), underway)
            await server.wait_idle()  # while the backend is still open: nothing stays in its pool
            connection = server.generations[0].connection
            assert ("client", 1) == (connection.closed_by, len(server.generations))
            assert connection.closed_at is not None
            delays.append(connection.closed_at - stop_time)
            # And the next request is not the worse for it.
            assert await complete(backend)
        if delays[-1] < CLOSE_WITHIN:
            return
    pytest.fail(f"the server saw the close after {delays} s")


@pytest.mark.parametrize("how", ["break", "exception", "KeyboardInterrupt", "asyncio.CancelledError"])
async def test_leaving_the_block_early(how: str) -> None:
    delays = []
    for _ in range(ATTEMPTS):
        async with FaultServer() as server, open_backend("vllm", endpoint=server.url, default_model="m") as backend:
            server.play(faults.stall())
            stop_time = await leave(backend, how)
            await server.wait_idle()
            connection = server.generations[0].connection
            assert "client" == connection.closed_by
            assert connection.closed_at is not None
            delays.append(connection.closed_at - stop_time)
        if delays[-1] < CLOSE_WITHIN:
            return
    pytest.fail(f"the server saw the close after {delays} s")


async def leave(backend: Backend, how: str) -> float:
    stop_time = 0.0
    errors = {"exception": ZeroDivisionError, "KeyboardInterrupt": KeyboardInterrupt}
    error = errors.get(how, asyncio.CancelledError)
    try:
        async with backend.stream("Hello") as chat_stream:
            async for _ in chat_stream:
                stop_time = time.monotonic()
                if how == "break":
                    break
                raise error
    except error:
        assert how != "break"
    return stop_time


@pytest.mark.parametrize("stop", STOPS)
@pytest.mark.parametrize("type_", ["vllm", "llamacpp"])
async def test_a_wait_for_a_cold_start_can_be_stopped(type_: str, stop: Stop) -> None:
    """Nothing is sent any more, and nothing waits."""
    underway = asyncio.Event()
    async with FaultServer() as server:
        server.play_always(faults.loading(1000), probes=True)
        async with open_backend(type_, endpoint=server.url, default_model="m") as backend:
            await stop(backend.complete("Hello", on_progress=lambda _: underway.set()), underway)
            count = len(server.requests)
            await server.wait_idle()
        assert count == len(server.requests)


@pytest.mark.parametrize("stop", STOPS)
async def test_a_wait_for_a_retry_can_be_stopped(stop: Stop) -> None:
    underway = asyncio.Event()

    def busy(response: ResponseBuilder) -> Iterator[Step]:
        yield from faults.rate_limited("50")(response)
        underway.set()

    async with FaultServer() as server, open_backend("openai", endpoint=server.url, default_model="m") as backend:
        server.play_always(busy)
        await stop(backend.complete("Hello"), underway)
        assert 1 == len(server.generations)


PROGRAM = """
import asyncio, sys
from ctxbackends import open_backend

async def main():
    async with open_backend(sys.argv[1], endpoint=sys.argv[2], default_model="m") as backend:
        if sys.argv[3] == "complete":
            await backend.complete("Hello")
        async with backend.stream("Hello") as stream:
            async for event in stream:
                print(event, flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("use", ["complete", "stream"])
@pytest.mark.parametrize("type_", ["openai", "vllm"])
async def test_ctrl_c(type_: str, use: str) -> None:
    """A program that is interrupted closes its connection, and complains about nothing but the interrupt."""
    underway = asyncio.Event()
    async with FaultServer() as server:
        server.play(with_event(underway, faults.stall()))
        program = await asyncio.create_subprocess_exec(
            *(sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, type_, server.url, use),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(Path(ctxbackends.__file__).parents[1])},
        )
        await underway.wait()
        program.send_signal(signal.SIGINT)
        await server.wait_idle()
        assert program.returncode is None or program.returncode == -signal.SIGINT
        _, errors = await program.communicate()
    assert -signal.SIGINT == program.returncode
    assert b"KeyboardInterrupt" == errors.splitlines()[-1]
    assert 1 == len(server.generations)
    for complaint in (b"Unclosed", b"unclosed", b"ResourceWarning", b"never awaited", b"never retrieved", b"ignored"):
        assert complaint not in errors
