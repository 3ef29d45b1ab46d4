"""ChatStream: events, errors, timeouts, and the end of the connection."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, ClassVar

import aiohttp
import pytest

from ctxbackends._chat.events import Finish, OnProgress, ReasoningDelta, StreamEvent, TextDelta
from ctxbackends._chat.messages import TextPart
from ctxbackends._chat.responses import Completion, PartialCompletion, Usage
from ctxbackends._client import stream as stream_module
from ctxbackends._client.backend import Backend
from ctxbackends._client.stream import ChatStream
from ctxbackends._client.stream_source import StreamTimeouts
from ctxbackends._registry import open_backend
from ctxbackends._wire.formats.openai_stream import OpenAIStreamDecoder
from ctxbackends.errors import (
    APIConnectionError,
    APITimeoutError,
    BackendError,
    ClosedError,
    ModelMismatchError,
    ResponseTooLargeError,
    StreamInterruptedError,
)
from tests.conftest import (
    DONE,
    EVENT_STREAM,
    LAST_CHUNK,
    Do,
    RawServer,
    RawServerFactory,
    Script,
    event,
    http_chunk,
    sse,
)

Part = bytes | float | BackendError


class ScriptedBody:
    """Gives its parts one after another, after the number of seconds that stands before them; b"" after the last one.
    ``endless`` is silent there."""

    def __init__(self, *parts: Part, endless: bool = False) -> None:
        self._parts = list(parts)
        self._endless = endless
        self._closing = asyncio.Event()
        self.reads = 0

    @property
    def is_closed(self) -> bool:
        return self._closing.is_set()

    @property
    def at_end(self) -> bool:
        return not self._parts and not self._endless

    headers: ClassVar[dict[str, str]] = {}
    sent_at = 0.0

    def read_buffered(self) -> bytes:
        if self.is_closed or not self._parts or not isinstance(self._parts[0], bytes):
            return b""
        self.reads += 1
        return self._parts.pop(0)  # type: ignore[return-value]  # as the line above found

    async def read_chunk(self) -> bytes:
        self.reads += 1
        if self.is_closed:
            raise APIConnectionError("the connection ended: Connection closed", sent=True)
        while self._parts and isinstance(self._parts[0], float):
            await self._wait(float(self._parts.pop(0)))  # type: ignore[arg-type]  # narrowed by the loop
        if not self._parts and self._endless:
            await self._wait(None)
        part = self._parts.pop(0) if self._parts else b""
        if isinstance(part, BackendError):
            raise part
        assert isinstance(part, bytes)
        return part

    async def _wait(self, seconds: float | None) -> None:
        try:
            await asyncio.wait_for(self._closing.wait(), seconds)
        except TimeoutError:
            return
        raise APIConnectionError("the connection ended: Connection closed", sent=True)

    def close(self) -> None:
        self._closing.set()


def connection_error() -> APIConnectionError:
    error = APIConnectionError("the connection broke before the response was complete", sent=True)
    error.__cause__ = aiohttp.ClientPayloadError("not enough data")
    return error


def no_check(_: str) -> None:
    return None


class Source:
    """Hands out ``body``, or raises it. ``immediately``: in the task of who enters the stream."""

    is_closed = False

    def __init__(
        self,
        body: ScriptedBody | BackendError,
        *,
        check_model: Callable[[str], None] = no_check,
        open_delay: float = 0.0,
        immediately: bool = True,
    ) -> None:
        self._body = body
        self._open_delay = open_delay
        self.can_open_immediately = immediately
        self._check_model = check_model

    def accepts_model(self, served: str) -> bool:  # noqa: ARG002  # as the protocol has it
        return False

    async def find_mismatch(self, served: str) -> ModelMismatchError | None:
        try:
            self._check_model(served)
        except ModelMismatchError as error:
            return error
        return None

    def annotate(self, error: BackendError) -> BackendError:
        error.backend = "local"
        return error

    async def open(self) -> ScriptedBody:
        sent_at = asyncio.get_running_loop().time()
        await asyncio.sleep(self._open_delay)
        if isinstance(self._body, BackendError):
            raise self._body
        self._body.sent_at = sent_at
        return self._body

    async def reopen(
        self,
        error: BackendError | None,
        *,
        on_progress: OnProgress,  # noqa: ARG002  # as the protocol has it
    ) -> ScriptedBody:
        if error is not None:
            raise error
        return await self.open()

    def close(self) -> None:
        if isinstance(self._body, ScriptedBody):
            self._body.close()


def stream_of(
    body: ScriptedBody | BackendError,
    *,
    first_token: float | None = None,
    idle: float | None = None,
    total: float | None = None,
    check_model: Callable[[str], None] = no_check,
    pooled: bool = True,
    keep_raw: bool = False,
    open_delay: float = 0.0,
    immediately: bool = True,
) -> ChatStream:
    return ChatStream(
        Source(body, check_model=check_model, open_delay=open_delay, immediately=immediately),
        OpenAIStreamDecoder(),
        requested_model="m",
        timeouts=StreamTimeouts(first_token=first_token, idle=idle, total=total),
        pooled=pooled,
        keep_raw=keep_raw,
    )


async def events_of(stream: ChatStream) -> list[StreamEvent]:
    return [event async for event in stream]


# --- a whole answer -------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_events_come_in_order(size: int) -> None:
    data = sse("Hel", "lo", " there", usage=(3, 2))
    body = ScriptedBody(*(data[start : start + size] for start in range(0, len(data), size)))
    async with stream_of(body) as stream:
        events = await events_of(stream)
        assert [TextDelta("Hel"), TextDelta("lo"), TextDelta(" there"), Finish("stop", Usage(3, 2))] == events
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
    expected = Completion(
        text="Hello there",
        finish_reason="stop",
        usage=Usage(3, 2),
        requested_model="m",
        served_model="m",
        response_id="r1",
        parts=(TextPart("Hello there"),),
    )
    assert expected == stream.completion
    assert b"" == stream.completion.raw
    assert body.is_closed


async def test_without_done() -> None:
    async with stream_of(ScriptedBody(event("Hi") + event(finish="length"))) as stream:
        assert [TextDelta("Hi"), Finish("length")] == await events_of(stream)


async def test_text_is_the_text_alone() -> None:
    thinking = b'data: {"choices":[{"index":0,"delta":{"reasoning_content":"Hm."}}]}\n\n'
    async with stream_of(ScriptedBody(thinking, sse("Hel", "lo"))) as stream:
        assert ["Hel", "lo"] == [text async for text in stream.text()]
    assert ("Hello", "Hm.") == (stream.completion.text, stream.completion.reasoning)


async def test_get_final_completion_reads_to_the_end() -> None:
    async with stream_of(ScriptedBody(event("Hel"), event("lo"), event(finish="stop") + DONE)) as stream:
        assert TextDelta("Hel") == await anext(stream)
        completion = await stream.get_final_completion()
        assert "Hello" == completion.text
        assert completion is await stream.get_final_completion() is stream.completion


async def test_the_body_is_kept_on_request() -> None:
    data = sse("Hello")
    async with stream_of(ScriptedBody(data[:20], data[20:]), keep_raw=True) as stream:
        assert data == (await stream.get_final_completion()).raw


async def test_no_completion_before_the_end() -> None:
    stream = stream_of(ScriptedBody(event("Hel"), sse("lo")))
    with pytest.raises(ClosedError):
        _ = stream.completion
    async with stream:
        await anext(stream)
        with pytest.raises(ClosedError, match="no completion"):
            _ = stream.completion
    with pytest.raises(ClosedError, match="no completion"):
        _ = stream.completion


async def test_only_inside_async_with() -> None:
    body = ScriptedBody(event("Hel"), sse("lo"))
    stream = stream_of(body)
    with pytest.raises(ClosedError, match="inside `async with`"):
        await anext(stream)
    async with stream:
        await anext(stream)
        with pytest.raises(ClosedError, match="opened only once"):
            await stream.__aenter__()
    for use in (stream.__anext__, stream.get_final_completion):
        with pytest.raises(ClosedError, match="inside `async with`"):
            await use()
    with pytest.raises(ClosedError, match="opened only once"):
        await stream.__aenter__()
    assert (1, True) == (body.reads, body.is_closed)


@pytest.mark.parametrize("immediately", [True, False])
async def test_a_failed_stream_cannot_be_opened_again(immediately: bool) -> None:
    stream = stream_of(APIConnectionError("connection refused", refused=True), immediately=immediately)
    with pytest.raises(APIConnectionError):
        await stream.__aenter__()
    with pytest.raises(ClosedError, match="opened only once"):
        await stream.__aenter__()
    await stream.__aexit__(None, None, None)


# --- the answer that never becomes whole ----------------------------------------------------------


ERROR = b'data: {"error":{"message":"EngineCore encountered an issue.","code":500}}\n\n'


@pytest.mark.parametrize(
    ("parts", "problem"),
    [
        ([event("Hel") + event("lo")], "the stream ended without a finish_reason"),
        ([event("Hel") + event("lo") + DONE], r"\[DONE\] came without a finish_reason"),
        ([event("Hel") + event("lo") + ERROR + DONE], "EngineCore encountered an issue"),
        ([event("Hel") + event("lo") + event(finish="abort") + DONE], "finish_reason 'abort'"),
        ([event("Hel") + event("lo") + b"data: {\n\n"], "malformed"),
        ([event("Hel") + event("lo"), connection_error()], "the connection broke"),
    ],
)
async def test_events_before_a_failure_are_returned_first(parts: list[Part], problem: str) -> None:
    body = ScriptedBody(*parts)
    async with stream_of(body) as stream:
        assert TextDelta("Hel") == await anext(stream)
        assert TextDelta("lo") == await anext(stream)
        with pytest.raises(StreamInterruptedError, match=problem) as exc_info:
            await anext(stream)
        assert body.is_closed  # before the `async with` is left
        assert PartialCompletion(text="Hello", served_model="m") == exc_info.value.partial
        assert "local" == exc_info.value.backend
        for use in (stream.__anext__, stream.get_final_completion):
            with pytest.raises(StreamInterruptedError) as second_info:
                await use()
            assert exc_info.value is second_info.value
        with pytest.raises(ClosedError):
            _ = stream.completion


async def test_the_partial_completion_has_reasoning_and_calls() -> None:
    thinking = b'data: {"choices":[{"index":0,"delta":{"reasoning":"Hm."}}]}\n\n'
    calling = (
        b'data: {"choices":[{"index":0,"delta":{"tool_calls":'
        b'[{"index":0,"id":"c1","function":{"name":"f","arguments":"{\\"a"}}]}}]}\n\n'
    )
    async with stream_of(ScriptedBody(thinking + calling)) as stream:
        assert ReasoningDelta("Hm.") == await anext(stream)
        with pytest.raises(StreamInterruptedError) as exc_info:
            await stream.get_final_completion()
    (call,) = exc_info.value.partial.tool_calls
    assert ("Hm.", "f", '{"a') == (exc_info.value.partial.reasoning, call.name, call.arguments)


async def test_the_broken_connection_is_the_cause() -> None:
    error = connection_error()
    async with stream_of(ScriptedBody(event("Hel"), error)) as stream:
        with pytest.raises(StreamInterruptedError) as exc_info:
            await stream.get_final_completion()
    assert error is exc_info.value.__cause__
    assert isinstance(error.__cause__, aiohttp.ClientPayloadError)


async def test_a_more_specific_error_is_the_cause() -> None:
    body = ScriptedBody(event("Hel"), b"data: " + b"x" * (9 * 1024 * 1024))
    async with stream_of(body) as stream:
        with pytest.raises(StreamInterruptedError, match="larger than") as exc_info:
            await stream.get_final_completion()
    assert isinstance(exc_info.value.__cause__, ResponseTooLargeError)
    assert "Hel" == exc_info.value.partial.text


async def test_a_model_mismatch_is_raised_before_the_events() -> None:
    models: list[str] = []

    def check(served: str) -> None:
        models.append(served)
        raise ModelMismatchError("m", served)

    body = ScriptedBody(sse("Hello", model="other"))
    async with stream_of(body, check_model=check) as stream:
        for _ in range(2):
            with pytest.raises(ModelMismatchError) as exc_info:
                await anext(stream)
        assert "local" == exc_info.value.backend
        assert body.is_closed
    assert ["other"] == models


async def test_a_warning_that_is_raised_ends_the_stream() -> None:
    """As with ``-W error``: what came with it must not be missing from an answer."""
    body = ScriptedBody(event("a"), sse("b"))

    def warn(_: str) -> None:
        raise UserWarning("another model")

    async with stream_of(body, check_model=warn) as stream:
        for _ in range(2):
            with pytest.raises(UserWarning):
                await stream.get_final_completion()
        assert not stream.is_complete
    assert body.is_closed


async def test_the_model_is_checked_once() -> None:
    models: list[str] = []
    async with stream_of(ScriptedBody(*[event("a")] * 3, sse("b")), check_model=models.append) as stream:
        await stream.get_final_completion()
    assert ["m"] == models


# --- time -----------------------------------------------------------------------------------------


async def wait_for_timeout(stream: ChatStream) -> APITimeoutError:
    with pytest.raises(APITimeoutError) as exc_info:
        await stream.get_final_completion()
    with pytest.raises(APITimeoutError) as second_info:
        await stream.get_final_completion()
    assert exc_info.value is second_info.value
    assert "local" == exc_info.value.backend
    return exc_info.value


async def test_first_token_timeout() -> None:
    body = ScriptedBody(endless=True)
    async with stream_of(body, first_token=0.05, idle=30.0, total=30.0) as stream:
        error = await wait_for_timeout(stream)
    assert ("first_token", 0.05, "first_token_timeout") == (error.phase, error.limit, error.key)
    assert PartialCompletion() == error.partial
    assert "no first token within 0.05 s; raise first_token_timeout" in str(error)
    assert isinstance(error, TimeoutError)
    assert body.is_closed


async def test_idle_timeout() -> None:
    body = ScriptedBody(event("Hel"), endless=True)
    async with stream_of(body, first_token=30.0, idle=0.05, total=30.0) as stream:
        error = await wait_for_timeout(stream)
    assert ("idle", 0.05, "idle_timeout") == (error.phase, error.limit, error.key)
    assert error.partial is not None
    assert "Hel" == error.partial.text
    assert body.is_closed


async def test_total_timeout() -> None:
    body = ScriptedBody(*[part for _ in range(200) for part in (0.01, event("a"))])
    async with stream_of(body, first_token=30.0, idle=30.0, total=0.1) as stream:
        error = await wait_for_timeout(stream)
    assert ("total", 0.1, "timeout") == (error.phase, error.limit, error.key)
    assert error.partial is not None
    assert set(error.partial.text) == {"a"}


async def test_the_shortest_timeout_is_named() -> None:
    async with stream_of(ScriptedBody(endless=True), first_token=0.2, total=0.05) as stream:
        assert "total" == (await wait_for_timeout(stream)).phase
    async with stream_of(ScriptedBody(event("a"), endless=True), first_token=0.05, idle=0.1) as stream:
        assert "idle" == (await wait_for_timeout(stream)).phase


async def test_the_time_until_the_headers_counts_for_the_first_token() -> None:
    body = ScriptedBody(0.06, sse("Hello"))
    async with stream_of(body, first_token=0.1, open_delay=0.06) as stream:
        assert "first_token" == (await wait_for_timeout(stream)).phase


@pytest.mark.parametrize("nothing", [b": ping\n\n", event(), event("")])
async def test_bytes_without_events_are_not_progress(nothing: bytes) -> None:
    pings: list[Part] = [part for _ in range(100) for part in (0.01, nothing)]
    async with stream_of(ScriptedBody(*pings, sse("late")), first_token=0.1) as stream:
        assert "first_token" == (await wait_for_timeout(stream)).phase
    async with stream_of(ScriptedBody(event("Hel"), *pings, sse("late")), idle=0.1) as stream:
        error = await wait_for_timeout(stream)
    assert "idle" == error.phase
    assert error.partial is not None
    assert "Hel" == error.partial.text


async def test_tokens_are_progress() -> None:
    parts: list[Part] = [part for _ in range(12) for part in (0.1, event("a"))]
    async with stream_of(ScriptedBody(*parts, sse("b")), first_token=1.0, idle=1.0) as stream:
        assert "a" * 12 + "b" == (await stream.get_final_completion()).text


async def test_a_slow_consumer_does_not_time_out() -> None:
    body = ScriptedBody(event("a") + event("b"), event("c"), sse("d"))
    async with stream_of(body, first_token=0.05, idle=0.05) as stream:
        async for _ in stream:
            await asyncio.sleep(0.06)
    assert "abcd" == stream.completion.text


async def test_the_time_of_a_slow_consumer_does_not_count() -> None:
    body = ScriptedBody(event("a") + event("b"), event("c"), 0.01, sse("d"))
    async with stream_of(body, total=0.15) as stream:
        async for _ in stream:
            await asyncio.sleep(0.06)
    assert "abcd" == stream.completion.text


async def test_the_total_timeout_continues_after_a_slow_consumer() -> None:
    async with stream_of(ScriptedBody(event("a"), endless=True), total=0.1) as stream:
        await anext(stream)
        await asyncio.sleep(0.15)
        error = await wait_for_timeout(stream)
    assert ("total", 0.1) == (error.phase, error.limit)


async def test_a_stream_without_an_end_does_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxbackends._client.stream.MAX_STREAM_BYTES", 2000)
    body = ScriptedBody(*[event("a") for _ in range(100)])
    events = []
    async with stream_of(body) as stream:
        with pytest.raises(StreamInterruptedError) as exc_info:
            async for item in stream:
                events.append(item)
    assert isinstance(exc_info.value.__cause__, ResponseTooLargeError)
    assert ("a" * len(events), 2000) == (exc_info.value.partial.text, exc_info.value.__cause__.limit)
    assert body.is_closed


async def test_a_consumer_that_begins_late_and_a_server_that_had_answered() -> None:
    body = ScriptedBody(sse("Hello"))
    async with stream_of(body, idle=0.05) as stream:
        await asyncio.sleep(0.06)
        assert "Hello" == (await stream.get_final_completion()).text


async def test_no_timer_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, timers = asyncio.get_running_loop(), []
    call_at = loop.call_at

    def recording(when: float, callback: Callable[..., object], *args: Any) -> asyncio.TimerHandle:
        timer = call_at(when, callback, *args)
        if callback.__name__ == "_check_timeouts":
            timers.append(timer)
        return timer

    monkeypatch.setattr(loop, "call_at", recording)
    cases: list[dict[str, Any]] = [{"total": 30.0}, {"idle": 30.0, "first_token": 30.0}, {}]
    for timeouts in cases:
        timers.clear()
        async with stream_of(ScriptedBody(sse("Hello")), **timeouts) as stream:
            await stream.get_final_completion()
        async with stream_of(ScriptedBody(event("Hello"), endless=True), **timeouts) as stream:
            await anext(stream)
        with pytest.raises(StreamInterruptedError):
            async with stream_of(ScriptedBody(event("Hello")), **timeouts) as stream:
                await stream.get_final_completion()
        assert bool(timeouts) == bool(timers)
        assert all(timer.cancelled() for timer in timers)


async def test_no_timeout_after_the_response_is_complete() -> None:
    async with stream_of(ScriptedBody(sse("Hello")), total=0.05) as stream:
        assert TextDelta("Hello") == await anext(stream)
        await asyncio.sleep(0.06)
        assert Finish("stop") == await anext(stream)
    assert "Hello" == stream.completion.text


# --- the end of the body --------------------------------------------------------------------------


async def test_the_body_is_read_to_its_end_for_the_pool() -> None:
    body = ScriptedBody(sse("Hello"), b"\n", b"")
    async with stream_of(body) as stream:
        await stream.get_final_completion()
        assert body.at_end
    assert body.is_closed


async def test_the_body_is_not_drained_if_the_server_closes() -> None:
    body = ScriptedBody(sse("Hello"), b"\n")
    async with stream_of(body, pooled=False) as stream:
        await stream.get_final_completion()
        assert (1, True) == (body.reads, body.is_closed)


@pytest.mark.parametrize("endless", [False, True])
async def test_a_body_that_does_not_end_costs_its_connection(endless: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "DRAIN_SECONDS", 0.02)
    body = ScriptedBody(sse("Hello"), *([] if endless else [connection_error()]), endless=endless)
    async with stream_of(body) as stream:
        assert "Hello" == (await stream.get_final_completion()).text
        assert body.is_closed


# --- over the real transport ----------------------------------------------------------------------


def stream_script(data: bytes, *more: Any) -> Script:
    return [EVENT_STREAM, http_chunk(data), *(more or [LAST_CHUNK])]


@pytest.fixture
async def backend_of() -> AsyncIterator[Callable[..., Any]]:
    """Opens a backend over a server. It is closed at the end of the test."""
    contexts = []

    async def make(server: RawServer, type_: str = "vllm", **settings: Any) -> Backend:
        context = open_backend(type_, endpoint=server.url, default_model="m", **settings)
        contexts.append(context)
        return await context.__aenter__()

    yield make
    for context in contexts:
        await context.__aexit__(None, None, None)


async def test_a_stream_from_a_server(raw_server: RawServerFactory, backend_of: Callable[..., Any]) -> None:
    more = asyncio.Event()
    server = await raw_server([[EVENT_STREAM, http_chunk(event("Hel")), more, http_chunk(sse("lo")), LAST_CHUNK]])
    backend = await backend_of(server)
    stream = backend.stream("Hi")
    assert [] == server.requests  # nothing is sent before the `async with`
    async with stream:
        assert TextDelta("Hel") == await anext(stream)
        more.set()
        assert [TextDelta("lo"), Finish("stop")] == await events_of(stream)
    assert {"include_usage": True} == server.requests[0].json["stream_options"]


@pytest.mark.parametrize("more", [[], [0.02]], ids=["at once", "later"])
async def test_the_connection_is_pooled_after_the_end(
    more: list[Any], raw_server: RawServerFactory, backend_of: Callable[..., Any]
) -> None:
    script = stream_script(sse("Hello"), *more, LAST_CHUNK)
    server = await raw_server([script, script, script])
    backend = await backend_of(server)
    for _ in range(3):
        async with backend.stream("Hi") as stream:
            await stream.get_final_completion()
    assert [0, 0, 0] == server.connection_numbers
    assert all("connection" not in request.headers for request in server.requests)


async def test_the_connection_is_closed_after_the_end_where_the_server_closes_it(
    raw_server: RawServerFactory, backend_of: Callable[..., Any]
) -> None:
    server = await raw_server([stream_script(sse("Hello"), Do.HANG)])
    backend = await backend_of(server, "llamacpp", max_concurrency=1)
    for _ in range(2):
        async with backend.stream("Hi") as stream:
            await stream.get_final_completion()
    assert [0, 1] == server.connection_numbers
    assert ["close", "close"] == [request.headers["connection"] for request in server.requests]
    assert await server.client_closed(0)
    assert await server.client_closed(1)


async def test_leaving_early_closes_the_connection(
    raw_server: RawServerFactory, backend_of: Callable[..., Any]
) -> None:
    server = await raw_server([stream_script(event("Hel"), Do.HANG)])
    backend = await backend_of(server)
    async with backend.stream("Hi") as stream:
        async for _ in stream:
            break
    assert await server.client_closed()


async def test_a_failure_in_the_block_closes_the_connection(
    raw_server: RawServerFactory, backend_of: Callable[..., Any]
) -> None:
    server = await raw_server([stream_script(event("Hel"), Do.HANG)])
    backend = await backend_of(server)
    with pytest.raises(ZeroDivisionError):
        async with backend.stream("Hi") as stream:
            await anext(stream)
            raise ZeroDivisionError
    assert await server.client_closed()


async def test_a_stream_whose_opening_was_cancelled_is_closed() -> None:
    stream = stream_of(ScriptedBody(), open_delay=60.0)
    opening = asyncio.create_task(stream.__aenter__())
    await asyncio.sleep(0)
    opening.cancel()
    await asyncio.wait([opening])
    assert opening.cancelled()
    with pytest.raises(ClosedError, match="not open"):
        await anext(stream)


@pytest.mark.parametrize("script", [[Do.HANG], stream_script(event("Hel"), Do.HANG)], ids=["headers", "body"])
async def test_a_cancelled_task_closes_the_connection(
    script: Script, raw_server: RawServerFactory, backend_of: Callable[..., Any]
) -> None:
    server = await raw_server([script])
    backend = await backend_of(server)
    first_event = asyncio.Event()

    async def consume() -> None:
        async with backend.stream("Hi") as stream:
            async for _ in stream:
                first_event.set()

    task = asyncio.create_task(consume())
    while not (first_event.is_set() or (server.requests and len(script) == 1)):
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await server.client_closed()
    assert 1 == len(server.requests)


@pytest.mark.parametrize("end", [Do.CLOSE, Do.RESET])
async def test_a_server_that_disappears(end: Do, raw_server: RawServerFactory, backend_of: Callable[..., Any]) -> None:
    server = await raw_server([stream_script(event("Hel"), 0.02, end)])
    backend = await backend_of(server)
    async with backend.stream("Hi") as stream:
        assert TextDelta("Hel") == await anext(stream)
        with pytest.raises(StreamInterruptedError) as exc_info:
            await anext(stream)
    assert "Hel" == exc_info.value.partial.text
    assert isinstance(exc_info.value.__cause__, APIConnectionError)
    assert (backend.name, backend.endpoint) == (exc_info.value.backend, exc_info.value.endpoint)
    assert 1 == len(server.requests)


async def test_events_received_with_the_break_are_returned(
    raw_server: RawServerFactory, backend_of: Callable[..., Any]
) -> None:
    for _ in range(5):
        server = await raw_server([[EVENT_STREAM + http_chunk(event("Hel")), Do.CLOSE]])
        backend = await backend_of(server)
        with pytest.raises(StreamInterruptedError) as exc_info:
            async with backend.stream("Hi") as stream:
                await stream.get_final_completion()
        assert "Hel" == exc_info.value.partial.text


async def freeze_clock(condition: Callable[[], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop's time stands still until something has happened, so that on a busy machine no limit passes
    before it."""
    loop = asyncio.get_running_loop()
    real, frozen_time = loop.time, loop.time()
    monkeypatch.setattr(loop, "time", lambda: frozen_time)
    while not condition():
        await asyncio.sleep(0)
    late = real() - frozen_time
    monkeypatch.setattr(loop, "time", lambda: real() - late)


@pytest.mark.parametrize(
    ("settings", "script", "phase"),
    [
        ({"first_token_timeout": 0.05}, [Do.HANG], "first_token"),
        ({"timeout": 0.05}, [Do.HANG], "total"),
        ({"first_token_timeout": 0.05, "timeout": 9.0}, [Do.HANG], "first_token"),
        ({"first_token_timeout": 9.0, "timeout": 0.05}, [Do.HANG], "total"),
        ({"first_token_timeout": 0.05}, stream_script(b": ping\n\n", Do.HANG), "first_token"),
        ({"idle_timeout": 0.05}, stream_script(event("Hel"), Do.HANG), "idle"),
        ({"timeout": 0.05}, stream_script(event("Hel"), Do.HANG), "total"),
    ],
)
async def test_a_silent_server_times_out(
    settings: dict[str, float],
    script: Script,
    phase: str,
    raw_server: RawServerFactory,
    backend_of: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = await raw_server([script])
    backend = await backend_of(server, **settings)
    moving = asyncio.create_task(freeze_clock(lambda: bool(server.requests), monkeypatch))
    with pytest.raises(APITimeoutError) as exc_info:
        async with backend.stream("Hi") as stream:
            await stream.get_final_completion()
    await moving
    key = "timeout" if phase == "total" else f"{phase}_timeout"
    assert (phase, 0.05, key, "vllm") == (
        exc_info.value.phase,
        exc_info.value.limit,
        exc_info.value.key,
        exc_info.value.backend,
    )
    assert await server.client_closed()
    assert 1 == len(server.requests)


async def test_two_streams_at_once(raw_server: RawServerFactory, backend_of: Callable[..., Any]) -> None:
    server = await raw_server([stream_script(sse("one"))], [stream_script(sse("two"))])
    backend = await backend_of(server)
    async with backend.stream("1") as first, backend.stream("2") as second:
        assert "two" == (await second.get_final_completion()).text
        assert "one" == (await first.get_final_completion()).text


async def test_a_late_consumer_does_not_time_out() -> None:
    """The first token was there all the time that nobody asked for it."""
    body = ScriptedBody(sse("Hello"))
    async with stream_of(body, first_token=0.02) as stream:
        await asyncio.sleep(0.06)
        assert "Hello" == (await stream.get_final_completion()).text


async def test_a_late_consumer_of_a_silent_server_times_out(
    raw_server: RawServerFactory, backend_of: Callable[..., Any]
) -> None:
    server = await raw_server([[EVENT_STREAM, Do.HANG]])
    backend = await backend_of(server, first_token_timeout=0.1, timeout=60.0)
    async with backend.stream("Hi") as stream:
        await asyncio.sleep(0.15)
        with pytest.raises(APITimeoutError) as exc_info:
            await stream.get_final_completion()
    assert "first_token" == exc_info.value.phase
