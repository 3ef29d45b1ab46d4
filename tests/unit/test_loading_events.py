"""A stream from a server that is starting: each probe is an event, and the answer follows."""

from __future__ import annotations

import asyncio
import gc
from typing import Any

import pytest

from ctxbackends import APIConnectionError, Finish, Loading, ModelLoadingError, PromptProgress, TextDelta, open_backend
from tests.conftest import EVENT_STREAM, Do, RawServerFactory, http_chunk, http_response

LOADING = http_response(
    503, b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}', Connection="close"
)
CHUNK = b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"Hi"}}]}\n\n'
PROGRESS = (
    b'data: {"model":"m","choices":[{"index":0,"delta":{}}],'
    b'"prompt_progress":{"total":9,"cache":1,"processed":4,"time_ms":250}}\n\n'
)
END = b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'


def stream_script(*parts: bytes) -> list[Any]:
    return [EVENT_STREAM, *(http_chunk(part) for part in parts), b"0\r\n\r\n"]


def backend(url: str, **settings: Any) -> Any:
    return open_backend("llamacpp", endpoint=url, default_model="m", **settings)


async def test_each_probe_is_an_event(raw_server: RawServerFactory) -> None:
    server = await raw_server([[LOADING]], [[LOADING]], [stream_script(CHUNK, END)])
    progress: list[Loading] = []
    async with backend(server.url) as local, local.stream("Hello", on_progress=progress.append) as stream:
        events = [event async for event in stream]
    assert ["loading", "loading"] == [event.state for event in events[:2]]
    assert [TextDelta("Hi"), Finish("stop")] == events[2:]
    assert progress == events[:2]
    assert "Hi" == stream.completion.text


async def test_the_first_event_arrives_while_the_server_loads(raw_server: RawServerFactory) -> None:
    """The block is entered, and the event is there, before the server has answered a second time."""
    ready = asyncio.Event()
    server = await raw_server([[LOADING]], [[ready, *stream_script(CHUNK, END)]])
    async with backend(server.url) as local, local.stream("Hello") as stream:
        first = await anext(stream)
        assert isinstance(first, Loading)
        assert not ready.is_set()
        ready.set()
        assert [TextDelta("Hi"), Finish("stop")] == [event async for event in stream]


async def test_a_ready_server_has_no_loading_event(raw_server: RawServerFactory) -> None:
    server = await raw_server([stream_script(PROGRESS, CHUNK, END)])
    async with backend(server.url) as local, local.stream("Hello") as stream:
        events = [event async for event in stream]
    assert [PromptProgress(4, 9, 1, 0.25), TextDelta("Hi"), Finish("stop")] == events


async def test_iteration_raises_at_the_end_of_the_budget(raw_server: RawServerFactory) -> None:
    server = await raw_server([[LOADING]])
    progress = []
    async with backend(server.url, ready_timeout=0.3) as local:
        with pytest.raises(ModelLoadingError) as exc_info:
            async with local.stream("Hello") as stream:
                async for event in stream:
                    progress.append(event)
    assert exc_info.value.waited is not None
    assert progress
    assert all(isinstance(event, Loading) for event in progress)


async def test_an_error_at_once_is_raised_on_entering(raw_server: RawServerFactory) -> None:
    server = await raw_server([[http_response(400, b'{"error":{"message":"no"}}')]])
    is_entered = False
    async with backend(server.url) as local:
        with pytest.raises(Exception, match="HTTP 400"):
            async with local.stream("Hello"):
                is_entered = True
    assert not is_entered


async def test_leaving_early_ends_the_wait(raw_server: RawServerFactory) -> None:
    server = await raw_server([[LOADING]], [[Do.HANG]])
    async with backend(server.url) as local:
        async with local.stream("Hello") as stream:
            assert isinstance(await anext(stream), Loading)
            while len(server.requests) < 2:
                await asyncio.sleep(0.005)
        assert await server.client_closed(1)
    assert 2 == len(server.requests)


async def test_a_cancel_while_it_opens_closes_the_connection(raw_server: RawServerFactory) -> None:
    server = await raw_server([[Do.HANG]])
    async with backend(server.url) as local:

        async def ask() -> None:
            async with local.stream("Hello"):
                raise AssertionError("it never answers")

        task = asyncio.create_task(ask())
        while not server.requests:
            await asyncio.sleep(0.005)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await server.client_closed(0)


async def test_an_exception_of_the_callback_is_raised(raw_server: RawServerFactory) -> None:
    server = await raw_server([[LOADING]])

    def complain(_: Loading) -> None:
        raise LookupError("enough")

    async with backend(server.url) as local:
        with pytest.raises(LookupError, match="enough"):
            async with local.stream("Hello", on_progress=complain) as stream:
                await stream.get_final_completion()


async def test_prompt_progress_resets_the_first_token_timeout(raw_server: RawServerFactory) -> None:
    """It begins the time to the first token anew, and does not begin the time between tokens."""
    script = [
        EVENT_STREAM,
        http_chunk(PROGRESS),
        0.25,
        http_chunk(PROGRESS),
        0.25,
        http_chunk(PROGRESS),
        0.25,
        http_chunk(CHUNK),
    ]
    server = await raw_server([[*script, http_chunk(END), b"0\r\n\r\n"]])
    limits = {"first_token_timeout": 0.5, "idle_timeout": 0.2}
    async with backend(server.url, **limits) as local, local.stream("Hello") as stream:
        assert "Hi" == (await stream.get_final_completion()).text


async def test_a_refused_connection_without_a_cold_start_is_an_error(refusing_url: str) -> None:
    async with open_backend("openai-compatible", endpoint=refusing_url, default_model="m") as plain:
        with pytest.raises(APIConnectionError):
            async with plain.stream("Hello"):
                pass


async def test_abandoned_opening_stream_logs_nothing(refusing_url: str) -> None:
    contexts: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: contexts.append(context))
    async with backend(refusing_url, ready_timeout=0.2) as local:
        stream = local.stream("Hello")
        tasks = asyncio.all_tasks()
        await stream.__aenter__()
        await asyncio.wait(asyncio.all_tasks() - tasks)  # the one that opens the stream, until its budget ends
        del stream
        gc.collect()
    assert [] == contexts
