"""One client object with event loops and threads: one loop after another, two at once, and closing at any time."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

import ctxbackends
from ctxbackends import Backend, BackendConfig, ClosedError, Registry, StreamInterruptedError, TextDelta
from ctxbackends.testing import FaultServer, faults

TYPES = ("openai", "vllm", "anthropic", "ollama")


def registry_of(url: str, *types: str) -> Registry:
    return Registry([BackendConfig(name=type_, type=type_, endpoint=url, default_model="m") for type_ in types])


async def use(registry: Registry, type_: str) -> None:
    backend = registry.resolve(type_)
    assert "Hello, world." == (await backend.complete("Hello")).text
    async with backend.stream("Hello") as stream:
        assert "Hello, world." == "".join([text async for text in stream.text()])


# --- one after another ------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", TYPES)
def test_one_registry_over_several_loops(type_: str) -> None:
    with FaultServer() as server:
        registry = registry_of(server.url, type_)
        for _ in range(3):
            asyncio.run(use(registry, type_))
            server.wait_idle_sync()
        asyncio.run(registry.aclose())


@pytest.mark.parametrize("type_", TYPES)
def test_one_registry_over_several_loops_in_threads(type_: str) -> None:
    with FaultServer() as server:
        registry = registry_of(server.url, type_)
        for _ in range(3):
            thread = threading.Thread(target=lambda: asyncio.run(use(registry, type_)))
            thread.start()
            thread.join()
        asyncio.run(registry.aclose())


def test_a_loop_that_ends_during_requests() -> None:
    """A stream, a completion and a wait for a cold start are cut by the end of their loop; the next loop knows nothing
    of it."""
    with FaultServer() as server:
        registry = registry_of(server.url, "vllm", "openai")

        async def leave_all() -> None:
            server.play(faults.stall(), faults.no_response(), faults.loading(1000))
            is_reading = asyncio.Event()

            async def read() -> None:
                async with registry.resolve("vllm").stream("Hello") as stream:
                    async for _ in stream:
                        is_reading.set()

            reading = asyncio.create_task(read())
            await is_reading.wait()
            tasks = asyncio.create_task(registry.resolve("openai").complete("Hello"))
            waiting = asyncio.create_task(registry.resolve("vllm").complete("Hello"))
            while len(server.generations) < 3:
                await asyncio.sleep(0.01)
            assert not any(task.done() for task in (reading, tasks, waiting))

        asyncio.run(leave_all())
        server.wait_idle_sync()
        server.clear()
        asyncio.run(use(registry, "vllm"))
        asyncio.run(use(registry, "openai"))
        asyncio.run(registry.aclose())


PROGRAM = """
import asyncio, sys
from ctxbackends import BackendConfig, Registry

registry = Registry([BackendConfig(name="one", type=sys.argv[1], endpoint=sys.argv[2], default_model="m")])

async def use():
    backend = registry.resolve("one")
    await backend.complete("Hello")
    async with backend.stream("Hello") as stream:
        async for event in stream:
            if sys.argv[3] == "break":
                break
    async for text in leave_the_block(backend):
        break

async def leave_the_block(backend):
    async with backend.stream("Hello") as stream:
        async for text in stream.text():
            yield text

for _ in range(3):
    asyncio.run(use())
if sys.argv[3] == "close":
    asyncio.run(registry.aclose())
print("done")
"""


@pytest.mark.parametrize("how", ["break", "close", "leave open"])
@pytest.mark.parametrize("type_", TYPES)
def test_no_resource_warnings(type_: str, how: str) -> None:
    """``-X dev -W error``: no socket, transport, task or generator is left to the garbage collector."""
    with FaultServer() as server:
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, type_, server.url, how],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(Path(ctxbackends.__file__).parents[1])},
        )
        server.wait_idle_sync()
    # asyncio's debug mode tells of a slow machine as well.
    lines = [line for line in done.stderr.splitlines() if not line.startswith("Executing ")]
    assert ("done\n", [], 0) == (done.stdout, lines, done.returncode)


# --- two at once ------------------------------------------------------------------------------------


async def test_two_loops_at_once() -> None:
    async with FaultServer() as server, registry_of(server.url, "vllm") as registry:
        backend = registry.resolve("vllm")
        for ask in (lambda: backend.complete("Hello"), lambda: backend.embed("Hello"), backend.models):
            async with backend.stream("Hello") as stream:
                await anext(stream)
                await asyncio.to_thread(asyncio.run, _await(ask))
                assert "Hello, world." == (await stream.get_final_completion()).text


async def _await(ask: Callable[[], Awaitable[object]]) -> object:
    return await ask()


# --- close ------------------------------------------------------------------------------------------


async def test_closed_twice_and_at_once() -> None:
    async with FaultServer() as server:
        registry = registry_of(server.url, *TYPES)
        for type_ in TYPES:
            await use(registry, type_)
        await asyncio.gather(*(registry.aclose() for _ in range(5)))
        await registry.aclose()
        await server.wait_idle()
        with pytest.raises(ClosedError):
            registry.resolve("vllm")


@pytest.mark.parametrize(
    "fault", [faults.no_response(), faults.stall(), faults.loading(1000)], ids=lambda fault: fault.name
)
@pytest.mark.parametrize("operation", ["complete", "stream", "embed"])
@pytest.mark.parametrize("type_", TYPES)
async def test_closed_while_requests_run(type_: str, operation: str, fault: faults.Fault) -> None:
    """Each ends with an error that says why, and nothing is left."""
    if type_ == "anthropic" and operation == "embed":
        return
    async with FaultServer() as server:
        server.play_always(fault)
        registry = registry_of(server.url, type_)
        tasks = [asyncio.create_task(ask(registry.resolve(type_), operation)) for _ in range(5)]
        while len(server.generations) < 5:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)  # so that the beginning of a stream has been read; nothing depends on it
        await registry.aclose()
        async with asyncio.timeout(20):
            results = await asyncio.gather(*tasks, return_exceptions=True)
        for error in results:
            assert isinstance(error, ClosedError | StreamInterruptedError), error
            assert "closed" in str(error)
        count = len(server.requests)
        await server.wait_idle()
        assert count == len(server.requests)
    gc.collect()  # what was left to the collector would complain here


async def ask(backend: Backend, operation: str) -> object:
    if operation == "stream":
        async with backend.stream("Hello") as stream:
            return [event async for event in stream if isinstance(event, TextDelta)]
    return await (backend.complete("Hello") if operation == "complete" else backend.embed("Hello"))


async def test_a_cancelled_close_closes() -> None:
    async with FaultServer() as server:
        registry = registry_of(server.url, "vllm")
        await use(registry, "vllm")
        closing = asyncio.create_task(registry.aclose())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        await registry.aclose()
        await server.wait_idle()


def test_closed_from_another_thread() -> None:
    """The sessions of all loops are closed."""
    with FaultServer() as server:
        registry = registry_of(server.url, "vllm")
        is_closed = threading.Event()

        def close() -> None:
            asyncio.run(registry.aclose())
            is_closed.set()

        async def work() -> None:
            await use(registry, "vllm")
            threading.Thread(target=close).start()
            await asyncio.to_thread(is_closed.wait)
            with pytest.raises(ClosedError):
                registry.resolve("vllm")

        asyncio.run(work())
        server.wait_idle_sync()
