"""A stream while it is read, and after it was left, closed or broke off: the part of the answer that has arrived."""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any, Self

import attrs
import pytest

from ctxbackends import (
    APITimeoutError,
    Backend,
    BackendConfig,
    BackendError,
    ClosedError,
    Loading,
    PartialCompletion,
    Registry,
    RequestOptions,
    Stream,
    StreamEvent,
    StreamInterruptedError,
    TextDelta,
    open_backend,
)
from ctxbackends.testing import FaultServer, faults
from ctxbackends.testing.faults import Do, Fault, ResponseBuilder, Script, Step

WIRES = (("vllm", "chat_completions"), ("anthropic", "messages"), ("ollama", "ollama"))
PIECES = ("One, ", "two, ", "three.")


def paused(resume: asyncio.Event | Do, after: int = 2) -> Script:
    """Sends ``after`` pieces of the text, and the rest after the event."""

    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield response.head(x_request_id="req-7")
        for event in response.text_events[:after]:
            yield response.frame(event)
        yield resume
        for event in (*response.text_events[after:], response.finish_event(), response.terminal_marker):
            yield response.frame(event)
        yield response.last_chunk

    return script


@pytest.fixture
async def server() -> AsyncIterator[FaultServer]:
    async with FaultServer(pieces=PIECES) as server:
        yield server


async def read_text(stream: Stream, text: str) -> None:
    """Read until ``text`` has arrived."""
    while stream.text_so_far != text:
        await anext(stream)


def settings(server: FaultServer) -> dict[str, Any]:
    return {"endpoint": server.url, "default_model": "m", "api_key": "k"}


@pytest.fixture(params=WIRES, ids=lambda wire: wire[1])
async def backend(server: FaultServer, request: pytest.FixtureRequest) -> AsyncIterator[Backend]:
    type_, wire = request.param
    async with open_backend(type_, wire_api=wire, **settings(server)) as backend:
        yield backend


async def test_the_facts_of_a_stream_are_there_as_they_arrive(server: FaultServer, backend: Backend) -> None:
    resume = asyncio.Event()
    server.play(paused(resume))
    stream = backend.stream("Hi")
    assert (None, None, None, "") == (stream.served_model, stream.response_id, stream.request_id, stream.text_so_far)
    assert PartialCompletion() == stream.partial
    async with stream:
        assert "req-7" == stream.request_id
        await read_text(stream, "One, two, ")
        assert "m" == stream.served_model
        assert PartialCompletion(text="One, two, ", served_model="m") == attrs.evolve(stream.partial, usage=None)
        response_id = stream.response_id
        assert (response_id is None) == (backend.type == "ollama")  # Ollama has none
        assert not stream.is_complete
        resume.set()
        completion = await stream.get_final_completion()
    assert (completion.text, "m", response_id, "req-7") == (
        stream.text_so_far,
        stream.served_model,
        completion.response_id,
        completion.request_id,
    )
    assert (completion.text, completion.usage) == (stream.partial.text, stream.partial.usage)


async def test_the_part_is_there_after_leaving_early(server: FaultServer, backend: Backend) -> None:
    server.play(paused(Do.HANG))
    async with backend.stream("Hi") as stream:
        await read_text(stream, "One, two, ")
    assert ("One, two, ", "One, two, ") == (stream.partial.text, stream.text_so_far)
    assert ("m", "req-7", False) == (stream.served_model, stream.request_id, stream.is_complete)
    await server.wait_idle()
    with pytest.raises(ClosedError, match="inside `async with`") as exc_info:
        await anext(stream)
    assert stream.partial == exc_info.value.partial


async def test_aclose_frees_the_server(server: FaultServer, backend: Backend) -> None:
    server.play(paused(Do.HANG))
    async with backend.stream("Hi") as stream:
        await read_text(stream, "One, two, ")
        await stream.aclose()
        await server.wait_idle()
        await stream.aclose()
        with pytest.raises(ClosedError) as exc_info:
            await stream.get_final_completion()
    assert exc_info.value.partial is not None
    assert "One, two, " == exc_info.value.partial.text


async def test_aclose_ends_a_read_in_another_task(server: FaultServer, backend: Backend) -> None:
    server.play(paused(Do.HANG))
    async with backend.stream("Hi") as stream:
        await read_text(stream, "One, two, ")
        reading = asyncio.ensure_future(stream.get_final_completion())
        await asyncio.sleep(0)  # it waits for the next event
        await stream.aclose()
        with pytest.raises(ClosedError, match="the stream was closed before the answer was complete") as exc_info:
            await reading
    assert exc_info.value.partial is not None
    assert ("One, two, ", backend.name) == (exc_info.value.partial.text, exc_info.value.backend)


async def test_a_stream_that_was_closed_is_not_opened(server: FaultServer, backend: Backend) -> None:
    stream = backend.stream("Hi")
    await stream.aclose()
    with pytest.raises(ClosedError):
        await stream.__aenter__()
    assert [] == server.requests


async def test_aclose_after_the_end_keeps_the_completion(backend: Backend) -> None:
    async with backend.stream("Hi") as stream:
        completion = await stream.get_final_completion()
        await stream.aclose()
        assert completion is await stream.get_final_completion() is stream.completion


@pytest.mark.parametrize(
    ("fault", "error"),
    [(faults.reset_in_body(), StreamInterruptedError), (faults.stall(), APITimeoutError)],
    ids=["reset", "stall"],
)
async def test_the_part_is_there_after_an_error(
    fault: Fault, error: type[BackendError], server: FaultServer, backend: Backend
) -> None:
    server.play(fault)
    with pytest.raises(error) as exc_info:
        async with backend.stream("Hi", request_options=RequestOptions(idle_timeout=0.05)) as stream:
            await stream.get_final_completion()
    assert "One, two, " == stream.text_so_far
    assert isinstance(exc_info.value, StreamInterruptedError | APITimeoutError)
    assert stream.partial == exc_info.value.partial


async def test_calls_are_a_part_too(server: FaultServer) -> None:
    server.play(faults.interleaved_tool_calls())
    async with (
        open_backend("vllm", **settings(server)) as backend,
        backend.stream("Hi") as stream,
    ):
        while not stream.partial.tool_calls:
            await anext(stream)
        assert "look" == stream.partial.tool_calls[0].name
        assert "" == stream.text_so_far


# --- closing the registry ---------------------------------------------------------------------------


async def test_a_closing_registry_ends_streams_with_their_part(server: FaultServer) -> None:
    server.play_always(paused(Do.HANG))
    registry = Registry([BackendConfig(name="vllm", **settings(server))])
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(registry.default().stream("Hi")) for _ in range(3)]
        for stream in streams:
            await read_text(stream, "One, two, ")
        reading = [asyncio.ensure_future(stream.get_final_completion()) for stream in streams[:2]]
        completing = asyncio.ensure_future(registry.default().complete("Hi"))
        while len(server.generations) < 4:
            await asyncio.sleep(0.001)
        await registry.aclose()
        reading.append(asyncio.ensure_future(streams[2].get_final_completion()))  # nobody read it when it was closed
        results = await asyncio.gather(*reading, completing, return_exceptions=True)
    assert [ClosedError] * 4 == [type(result) for result in results]
    parts = [result.partial for result in results if isinstance(result, ClosedError)]
    assert ["One, two, "] * 3 == [part.text for part in parts[:3] if part is not None]


async def test_a_closing_registry_ends_a_stream_that_waits_for_its_server(server: FaultServer) -> None:
    server.play_always(faults.loading(seconds=60))
    registry = Registry([BackendConfig(name="vllm", **settings(server))])
    async with registry.default().stream("Hi") as stream:
        assert isinstance(await anext(stream), Loading)
        await registry.aclose()
        with pytest.raises(ClosedError) as exc_info:
            await stream.get_final_completion()
    assert PartialCompletion() == exc_info.value.partial


# --- the protocol -----------------------------------------------------------------------------------


class LoudStream:
    """A wrapper that changes the text, written against the protocol alone."""

    def __init__(self, stream: Stream) -> None:
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    async def __aenter__(self) -> Self:
        await self._stream.__aenter__()
        return self

    async def __aexit__(self, *exc_info: Any) -> None:  # noqa: PYI036  # passed on
        await self._stream.__aexit__(*exc_info)

    def __aiter__(self) -> AsyncIterator[StreamEvent]:
        return self

    async def __anext__(self) -> StreamEvent:
        event = await anext(self._stream)
        return TextDelta(event.text.upper()) if isinstance(event, TextDelta) else event


async def test_streams_and_wrappers_are_streams(server: FaultServer) -> None:
    async with open_backend("vllm", **settings(server)) as backend:
        stream = backend.stream("Hi")
        assert isinstance(stream, Stream)
        assert not isinstance(backend, Stream)
        assert not isinstance(object(), Stream)
        wrapper = LoudStream(stream)
        assert isinstance(wrapper, Stream) is (sys.version_info < (3, 12)), "later, it does not ask __getattr__"
        async with wrapper:
            texts = [event.text async for event in wrapper if isinstance(event, TextDelta)]
        assert ["ONE, ", "TWO, ", "THREE."] == texts
        assert "One, two, three." == wrapper.completion.text
