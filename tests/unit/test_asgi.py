"""The helpers for ASGI, with requests that need no framework."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from ctxbackends import Backend, BackendError, RateLimitError, StreamInterruptedError, open_backend
from ctxbackends.integrations.asgi import ClientDisconnectedError, sse_events, until_disconnect
from ctxbackends.testing import FaultServer, faults


class Request:
    """A request whose client leaves on `leave()`."""

    def __init__(self, *messages: str) -> None:
        self._messages = [*messages]
        self._left = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        if self._messages:
            return {"type": self._messages.pop(0)}
        await self._left.wait()
        return {"type": "http.disconnect"}

    def leave(self) -> None:
        self._left.set()


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer(pieces=("Hel", "lo")) as server:  # in a thread, so that its tasks are not among ours
        yield server


@pytest.fixture(params=["openai", "vllm"])
async def backend(request: pytest.FixtureRequest, server: FaultServer) -> AsyncIterator[Backend]:
    async with open_backend(request.param, endpoint=server.url, default_model="m", api_key="k") as backend:
        yield backend


async def generation_started(server: FaultServer) -> None:
    while not server.generations:
        await asyncio.sleep(0.001)


def decode(frames: list[bytes]) -> list[dict[str, Any]]:
    assert all(frame.startswith(b"data: ") and frame.endswith(b"\n\n") for frame in frames)
    return [json.loads(frame[6:]) for frame in frames]


# --- until_disconnect ---------------------------------------------------------------------------------


async def test_the_result_of_a_client_that_stays(backend: Backend) -> None:
    completion = await until_disconnect(Request("http.request"), backend.complete("Hi"))
    assert "Hello" == completion.text


async def test_an_error_is_raised_as_it_is(server: FaultServer, backend: Backend) -> None:
    server.play_always(faults.rate_limited(retry_after="90"))
    with pytest.raises(RateLimitError):
        await until_disconnect(Request(), backend.complete("Hi"))


async def test_a_client_that_leaves_cancels_the_generation(server: FaultServer, backend: Backend) -> None:
    server.play(faults.no_response())
    request, tasks = Request(), asyncio.all_tasks()
    waiting = asyncio.create_task(until_disconnect(request, backend.complete("Hi")))
    await generation_started(server)
    request.leave()
    with pytest.raises(ClientDisconnectedError, match="the client disconnected"):
        await waiting
    await server.wait_idle()
    assert tasks == asyncio.all_tasks()


async def test_a_handler_that_is_cancelled_cancels_the_generation(server: FaultServer, backend: Backend) -> None:
    server.play(faults.no_response())
    tasks = asyncio.all_tasks()
    waiting = asyncio.create_task(until_disconnect(Request(), backend.complete("Hi")))
    await generation_started(server)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await server.wait_idle()
    assert tasks == asyncio.all_tasks()


async def test_work_that_ends_with_an_error_when_it_is_cancelled_is_not_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            raise KeyError("clean-up")

    request = Request()
    request.leave()
    with caplog.at_level(logging.ERROR, "asyncio"), pytest.raises(ClientDisconnectedError):
        await until_disconnect(request, work())
    assert [] == caplog.messages


# --- sse_events ---------------------------------------------------------------------------------------


async def test_the_events_of_a_stream(backend: Backend) -> None:
    frames = [frame async for frame in sse_events(backend.stream("Hi"), request=Request())]
    events = decode(frames)
    assert "Hello" == "".join(event["text"] for event in events if event["type"] == "text")
    assert {"text", "finish"} == {event["type"] for event in events}
    assert {"type", "text"} == {*events[0]}
    finish = events[-1]
    assert ("finish", "stop", 3, 2) == (
        finish["type"],
        finish["finish_reason"],
        finish["usage"]["input_tokens"],
        finish["usage"]["output_tokens"],
    )


async def test_a_page_does_not_see_the_address_of_the_server(server: FaultServer) -> None:
    server.play(faults.loading())
    async with open_backend("vllm", endpoint=server.url, default_model="m") as backend:
        frames = [frame async for frame in sse_events(backend.stream("Hi"))]
    loading = decode(frames)[0]
    assert {"type", "state", "elapsed", "budget"} == {*loading}
    assert ("loading", "loading") == (loading["type"], loading["state"])


async def test_a_failure_is_the_last_event(server: FaultServer, backend: Backend) -> None:
    server.play(faults.no_terminal_marker())
    errors: list[BackendError] = []
    frames = [frame async for frame in sse_events(backend.stream("Hi"), on_error=errors.append)]
    (error,) = errors
    assert isinstance(error, StreamInterruptedError)
    assert {"type": "error", "error": "StreamInterruptedError", "status": 502} == decode(frames)[-1]
    assert str(error).encode() not in b"".join(frames)


async def test_a_failure_before_the_stream_is_an_event_too(server: FaultServer, backend: Backend) -> None:
    server.play_always(faults.rate_limited(retry_after="90"))
    frames = [frame async for frame in sse_events(backend.stream("Hi"))]
    assert [{"type": "error", "error": "RateLimitError", "status": 429}] == decode(frames)


@pytest.mark.parametrize("fault", [faults.no_response(), faults.stall()])
async def test_a_client_that_leaves_ends_a_silent_stream(server: FaultServer, backend: Backend, fault: Any) -> None:
    server.play(fault)
    request, tasks = Request(), asyncio.all_tasks()
    frames: list[bytes] = []

    async def read() -> None:
        frames.extend([frame async for frame in sse_events(backend.stream("Hi"), request=request)])

    reading = asyncio.create_task(read())
    await generation_started(server)
    request.leave()
    await reading  # ends without an error
    await server.wait_idle()
    assert "finish" not in {event["type"] for event in decode(frames)}
    assert tasks == asyncio.all_tasks()


async def test_a_client_that_has_left_between_two_events_ends_the_stream(server: FaultServer, backend: Backend) -> None:
    server.play(faults.endless_stream())
    request = Request()
    events = sse_events(backend.stream("Hi"), request=request)
    await anext(events)
    request.leave()
    async for _ in events:
        await asyncio.sleep(0)
    await server.wait_idle()


async def test_a_response_that_is_cancelled_cancels_the_generation(server: FaultServer, backend: Backend) -> None:
    server.play(faults.no_response())
    tasks = asyncio.all_tasks()
    events = sse_events(backend.stream("Hi"), request=Request())
    reading = asyncio.ensure_future(anext(events))
    await generation_started(server)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await events.aclose()
    await server.wait_idle()
    assert tasks == asyncio.all_tasks()


async def test_a_generator_that_is_closed_early_closes_the_stream(server: FaultServer, backend: Backend) -> None:
    server.play(faults.endless_stream())
    events = sse_events(backend.stream("Hi"), request=Request())
    await anext(events)
    await events.aclose()
    await server.wait_idle()
