"""One registry on several event loops at once: one limit for all, and one close."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from ctxbackends import BackendConfig, ClosedError, Registry, StreamInterruptedError
from ctxbackends.testing import FaultServer, faults
from ctxbackends.testing.faults import ResponseBuilder, Script, Step, respond

THREADS = 3


class Gauge:
    """Counts how many generations the server works on at once."""

    def __init__(self) -> None:
        self.now = self.most = 0

    def __call__(self, response: ResponseBuilder) -> Iterator[Step]:
        self.now += 1
        self.most = max(self.most, self.now)
        yield 0.002
        self.now -= 1
        yield from respond(response)


def slots(number: int, work: Script) -> Script:
    def play(response: ResponseBuilder) -> Iterator[Step]:
        body = b'{"total_slots": %d}' % number
        if response.route != "/props":
            return work(response)  # type: ignore[return-value]
        return iter([b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body])

    return play


def in_threads(work: Callable[[], object]) -> list[object]:
    with ThreadPoolExecutor(THREADS) as pool:
        return [done.result(60) for done in [pool.submit(work) for _ in range(THREADS)]]


@pytest.mark.parametrize("operation", ["complete", "stream", "embed"])
@pytest.mark.parametrize("type_", ["openai", "vllm", "anthropic", "ollama"])
def test_max_concurrency_is_for_all_threads(type_: str, operation: str) -> None:
    if (type_, operation) == ("anthropic", "embed"):
        return
    gauge = Gauge()
    with FaultServer() as server:
        server.play_always(gauge)
        config = BackendConfig(name="one", type=type_, endpoint=server.url, default_model="m", max_concurrency=2)
        registry = Registry([config])

        async def ask() -> None:
            backend = registry.default()
            if operation == "complete":
                await backend.complete("Hello")
            elif operation == "embed":
                await backend.embed("Hello")
            else:
                async with backend.stream("Hello") as stream:
                    async for _ in stream:
                        pass

        async def main() -> None:
            await asyncio.gather(*(ask() for _ in range(20)))

        in_threads(lambda: asyncio.run(main()))
        assert (2, 0, 20 * THREADS) == (gauge.most, gauge.now, len(server.generations))
        server.wait_idle_sync()
        asyncio.run(registry.aclose())


def test_the_servers_slots_are_for_all_threads() -> None:
    gauge = Gauge()
    with FaultServer() as server:
        server.play_always(slots(2, gauge), probes=True)
        registry = Registry([BackendConfig(name="one", type="llamacpp", endpoint=server.url, default_model="m")])

        async def main() -> None:
            await asyncio.gather(*(registry.default().complete("Hello") for _ in range(20)))

        in_threads(lambda: asyncio.run(main()))
        assert (2, 20 * THREADS) == (gauge.most, len(server.generations))
        asyncio.run(registry.aclose())


def test_threads_get_the_same_backend() -> None:
    created = []
    barrier = threading.Barrier(THREADS)
    registry = Registry()

    def create(config: BackendConfig, transport: object) -> object:
        created.append(config.name)
        return object()

    registry.register("own", create)  # type: ignore[arg-type]
    for number in range(20):
        registry.configure(BackendConfig(name=f"{number}", type="own"))

    def resolve() -> object:
        barrier.wait()
        return [id(registry.resolve(name)) for name in registry.names]

    first, *others = in_threads(resolve)
    assert [first] * len(others) == others
    assert sorted(registry.names) == sorted(created)


def test_a_cancelled_wait_on_one_loop_leaves_its_place_to_another() -> None:
    with FaultServer() as server:
        server.play(faults.no_response())
        config = BackendConfig(name="one", type="vllm", endpoint=server.url, default_model="m", max_concurrency=1)
        registry = Registry([config])
        is_waiting, may_leave = threading.Event(), threading.Event()

        async def leave() -> None:
            task = asyncio.create_task(registry.default().complete("Hello"))
            while not server.generations:
                await asyncio.sleep(0.01)
            is_waiting.set()
            await asyncio.to_thread(may_leave.wait)
            task.cancel()

        async def follow() -> str:
            waiting = asyncio.create_task(registry.default().complete("Hello"))
            await asyncio.sleep(0)
            may_leave.set()
            return (await waiting).text

        thread = threading.Thread(target=lambda: asyncio.run(leave()))
        thread.start()
        is_waiting.wait()
        assert "Hello, world." == asyncio.run(follow())
        thread.join()
        asyncio.run(registry.aclose())


@pytest.mark.parametrize("operation", ["complete", "stream"])
@pytest.mark.parametrize("fault", [faults.no_response(), faults.stall()], ids=lambda fault: fault.name)
def test_close_ends_the_requests_of_all_loops(operation: str, fault: faults.Fault) -> None:
    with FaultServer() as server:
        server.play_always(fault)
        registry = Registry([BackendConfig(name="one", type="vllm", endpoint=server.url, default_model="m")])

        async def ask() -> BaseException | None:
            try:
                if operation == "complete":
                    await registry.default().complete("Hello")
                else:
                    async with registry.default().stream("Hello") as stream:
                        async for _ in stream:
                            pass
            except (ClosedError, StreamInterruptedError) as error:
                return error
            return None

        async def close() -> None:
            while len(server.generations) < THREADS:
                await asyncio.sleep(0.01)
            await registry.aclose()
            async with asyncio.timeout(10):
                await server.wait_idle()

        with ThreadPoolExecutor(THREADS) as pool:
            asking = [pool.submit(lambda: asyncio.run(ask())) for _ in range(THREADS)]
            asyncio.run(close())
            errors = [done.result(30) for done in asking]
        assert all("closed" in str(error) for error in errors), errors
    gc.collect()  # an unclosed session would complain here


def test_close_does_not_wait_for_a_blocked_loop() -> None:
    """It closes its session when it runs again."""
    with FaultServer() as server:
        registry = Registry([BackendConfig(name="one", type="vllm", endpoint=server.url, default_model="m")])

        async def block() -> None:
            await registry.default().complete("Hello")
            thread = threading.Thread(target=lambda: asyncio.run(registry.aclose()))
            thread.start()
            thread.join()
            with pytest.raises(ClosedError):
                registry.default()

        asyncio.run(block())
        server.wait_idle_sync()
