"""Requests that are cancelled or closed at every step of the event loop lose no slot, task or socket."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from ctxbackends import Backend, BackendConfig, BackendError, Registry, open_backend
from ctxbackends.testing import FaultServer, faults

pytestmark = pytest.mark.full

STEPS = 45
"""More than any of these requests takes."""

TYPES = ("openai", "vllm", "llamacpp")
OPERATIONS = ("complete", "stream", "embed")


async def use(backend: Backend, operation: str) -> None:
    if operation == "complete":
        assert "Hello, world." == (await backend.complete("Hello")).text
    elif operation == "stream":
        async with backend.stream("Hello") as stream:
            assert "Hello, world." == (await stream.get_final_completion()).text
    else:
        assert 1 == len((await backend.embed("Hello")).vectors)


async def start_request(backend: Backend, operation: str, steps: int) -> asyncio.Task[None]:
    """A request that has taken so many steps, or has ended before."""
    task = asyncio.create_task(use(backend, operation))
    for _ in range(steps):
        await asyncio.sleep(0)
    return task


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("fault", [None, faults.stall()])
@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("type_", TYPES)
async def test_cancelled(type_: str, operation: str, fault: faults.Fault | None, times: int) -> None:
    """With one slot: if it is lost, the next request hangs."""
    tasks = asyncio.all_tasks()
    async with FaultServer() as server:
        async with open_backend(type_, endpoint=server.url, default_model="m", max_concurrency=1) as backend:
            for steps in range(STEPS):
                server.play(*([fault] if fault is not None else []))
                task = await start_request(backend, operation, steps)
                for _ in range(times):
                    task.cancel()
                    await asyncio.sleep(0)
                with suppress(asyncio.CancelledError):
                    await task
                server.clear()
                async with asyncio.timeout(20):
                    await use(backend, operation)
        await server.wait_idle()
    assert tasks == asyncio.all_tasks()


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("type_", TYPES)
async def test_closed(type_: str, operation: str) -> None:
    tasks = asyncio.all_tasks()
    async with FaultServer() as server:
        config = BackendConfig(name="one", type=type_, endpoint=server.url, default_model="m")
        for steps in range(STEPS):
            registry = Registry([config])
            task = await start_request(registry.default(), operation, steps)
            await registry.aclose()
            async with asyncio.timeout(20):
                with suppress(BackendError):
                    await task
            await server.wait_idle()
    assert tasks == asyncio.all_tasks()
