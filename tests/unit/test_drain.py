"""Registry.drain(): no new requests, those in flight end, and then everything is closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest

from ctxbackends import Backend, BackendConfig, ClosedError, Loading, Registry
from ctxbackends.testing import FaultServer, faults
from ctxbackends.testing.faults import Do, ResponseBuilder, Script, Step


def paused(resume: asyncio.Event | Do) -> Script:
    """Sends the first half of the response, and the rest after the event."""

    def script(response: ResponseBuilder) -> Iterator[Step]:
        steps = [step for step in faults.respond(response) if isinstance(step, bytes)]
        whole = b"".join(steps)
        yield whole[: len(whole) // 2]
        yield resume
        yield whole[len(whole) // 2 :]

    return script


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer() as server:
        yield server


@pytest.fixture
async def registry(server: FaultServer) -> AsyncIterator[Registry]:
    config = {"endpoint": server.url, "default_model": "m", "api_key": "k"}
    configs = [BackendConfig(name=name, **config) for name in ("vllm", "openai", "ollama")]  # type: ignore[arg-type]
    async with Registry(configs, default="vllm") as registry:
        yield registry


async def arrive(server: FaultServer, count: int) -> None:
    """Wait until the server has ``count`` generations."""
    while len(server.generations) < count:
        await asyncio.sleep(0.001)


CALLS: dict[str, Callable[[Backend], Awaitable[object]]] = {
    "complete": lambda backend: backend.complete("Hi"),
    "stream": lambda backend: backend.stream("Hi").__aenter__(),
    "embed": lambda backend: backend.embed("Hi"),
    "count_tokens": lambda backend: backend.count_tokens("Hi"),
    "load": lambda backend: backend.load("m"),
    "unload": lambda backend: backend.unload("m"),
    "models": lambda backend: backend.models(),
    "ping": lambda backend: backend.ping(),
    "wait_ready": lambda backend: backend.wait_ready(),
}


OPTIONAL = ("count_tokens", "load", "unload")


@pytest.mark.parametrize("name", ["vllm", "openai", "ollama"])
async def test_requests_in_flight_end_and_new_ones_are_refused(
    name: str, server: FaultServer, registry: Registry
) -> None:
    backend, resume = registry.resolve(name), asyncio.Event()
    server.play_always(paused(resume))
    before = backend.stream("Hi")  # entered too late
    async with backend.stream("Hi") as stream:
        flights: list[asyncio.Future[Any]] = [
            asyncio.ensure_future(stream.get_final_completion()),
            asyncio.ensure_future(backend.complete("Hi")),
            asyncio.ensure_future(backend.embed(["one", "two"], batch_size=1)),
        ]
        await arrive(server, 3)
        draining = asyncio.ensure_future(registry.drain())
        await asyncio.sleep(0)
        calls = [
            call for operation, call in CALLS.items() if operation not in OPTIONAL or backend.refusal(operation) is None
        ]
        late: Callable[[Backend], Awaitable[object]] = lambda _: before.__aenter__()  # noqa: E731  # as the others are
        for call in (*calls, late):
            with pytest.raises(ClosedError, match="the registry is draining and takes no new requests") as exc_info:
                await call(backend)
            assert name == exc_info.value.backend
        if name != "ollama":  # whose status the server does not have
            assert "ready" == (await backend.status()).state
        assert not draining.done()
        resume.set()
        streamed, completion, embeddings = await asyncio.gather(*flights)
        assert await draining
    assert "Hello, world." == streamed.text == completion.text
    assert 2 == len(embeddings.vectors)  # the second batch belongs to the call in flight
    with pytest.raises(ClosedError, match="closed"):
        registry.resolve()
    await server.wait_idle()


async def test_what_does_not_end_in_time_is_closed(server: FaultServer, registry: Registry) -> None:
    server.play_always(paused(Do.HANG))
    async with registry.default().stream("Hi") as stream:
        reading = asyncio.ensure_future(stream.get_final_completion())
        completing = asyncio.ensure_future(registry.resolve("openai").complete("Hi"))
        await arrive(server, 2)
        assert not await registry.drain(timeout=0.05)
        results = await asyncio.gather(reading, completing, return_exceptions=True)
    assert [ClosedError, ClosedError] == [type(result) for result in results]
    assert isinstance(results[0], ClosedError)
    assert stream.partial == results[0].partial
    await server.wait_idle()


@pytest.mark.parametrize("seconds", [None, 0, 5.0])
async def test_without_requests_it_only_closes(seconds: float | None, server: FaultServer, registry: Registry) -> None:
    await registry.default().complete("Hi")
    assert await registry.drain(seconds)
    assert await registry.drain(seconds)
    await server.wait_idle()
    with pytest.raises(ClosedError):
        registry.resolve()


async def test_an_answer_that_has_arrived_is_not_waited_for(server: FaultServer, registry: Registry) -> None:
    server.play(faults.close_after_response())
    async with registry.default().stream("Hi") as stream:
        await anext(stream)  # and the rest is in the buffer
        await server.connections[0].wait_closed()
        assert await registry.drain(timeout=5)
        assert "Hello, world." == (await stream.get_final_completion()).text


async def test_a_call_that_waits_for_its_server_is_in_flight(server: FaultServer, registry: Registry) -> None:
    server.play_always(faults.loading(seconds=60))
    seen = asyncio.Event()

    def on_progress(_: Loading) -> None:
        seen.set()

    completing = asyncio.ensure_future(registry.default().complete("Hi", on_progress=on_progress))
    await seen.wait()
    draining = asyncio.ensure_future(registry.drain())
    server.play_always(faults.respond)
    assert "Hello, world." == (await completing).text
    assert await draining


async def test_a_call_that_waits_for_a_slot_is_in_flight(server: FaultServer) -> None:
    config = BackendConfig(name="vllm", endpoint=server.url, default_model="m", max_concurrency=1)
    async with Registry([config]) as registry:
        resume = asyncio.Event()
        server.play(paused(resume))
        calls = [asyncio.ensure_future(registry.default().complete("Hi")) for _ in range(2)]
        await arrive(server, 1)
        draining = asyncio.ensure_future(registry.drain())
        await asyncio.sleep(0)
        resume.set()
        assert ["Hello, world."] * 2 == [completion.text for completion in await asyncio.gather(*calls)]
        assert await draining


async def test_a_drain_that_is_cancelled_closes(server: FaultServer, registry: Registry) -> None:
    server.play_always(paused(Do.HANG))
    completing = asyncio.ensure_future(registry.default().complete("Hi"))
    await arrive(server, 1)
    draining = asyncio.ensure_future(registry.drain())
    await asyncio.sleep(0)
    draining.cancel()
    results = await asyncio.gather(draining, completing, return_exceptions=True)
    assert [asyncio.CancelledError, ClosedError] == [type(result) for result in results]
    await server.wait_idle()


async def test_requests_of_other_loops_are_in_flight() -> None:
    with FaultServer() as server:
        config = BackendConfig(name="vllm", endpoint=server.url, default_model="m")
        async with Registry([config]) as registry:
            resume = server.call(asyncio.Event)
            server.play(paused(resume))
            texts: list[str] = []

            async def complete() -> None:
                texts.append((await registry.default().complete("Hi")).text)

            thread = threading.Thread(target=lambda: asyncio.run(complete()))
            thread.start()
            await arrive(server, 1)
            draining = asyncio.ensure_future(registry.drain())
            await asyncio.sleep(0)
            server.call(resume.set)
            assert await draining
            await asyncio.to_thread(thread.join)
            assert ["Hello, world."] == texts


@pytest.mark.parametrize("value", ["soon", "30", -1, True, [1]])
async def test_an_invalid_timeout_drains_nothing(registry: Registry, value: Any) -> None:
    with pytest.raises(ValueError, match=r"^timeout: "):
        await registry.drain(value)
    assert "Hello, world." == (await registry.default().complete("Hello")).text


async def test_a_timeout_as_text(registry: Registry) -> None:
    assert await registry.drain("2s")
