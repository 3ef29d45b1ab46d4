"""Helpers for services on ASGI, such as FastAPI and Starlette. They need no extra.

A server that speaks ASGI tells a handler that its client has left only if the handler asks. Without that, a generation
goes on for a client that has gone, and keeps a slot of the model server busy.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, MutableMapping
from typing import Any, Protocol, TypeVar

import msgspec

from ctxbackends._chat.events import (
    CitationDelta,
    Finish,
    Loading,
    PromptProgress,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
)
from ctxbackends._client.backend import Stream
from ctxbackends.errors import BackendError, http_status_of

T = TypeVar("T")

_TYPES: dict[type, str] = {
    TextDelta: "text",
    ReasoningDelta: "reasoning",
    RefusalDelta: "refusal",
    ToolCallDelta: "tool_call",
    CitationDelta: "citation",
    PromptProgress: "progress",
    Loading: "loading",
    Finish: "finish",
}
_FOR_SERVERS = frozenset({"logprobs", "signature", "redacted", "opaque", "endpoint"})
"""Members that a page has no use for, or must not see."""


class ClientDisconnectedError(Exception):
    """The client left before the response was complete, and the work for it was cancelled."""


class ASGIRequest(Protocol):
    """A request of Starlette or FastAPI, or anything else with the ASGI function ``receive``."""

    @property
    def receive(self) -> Callable[[], Awaitable[MutableMapping[str, Any]]]:
        """Return the next ASGI message."""
        ...


async def until_disconnect(request: ASGIRequest, awaitable: Awaitable[T]) -> T:
    """Return the result of ``awaitable``, and cancel it if the client disconnects.

    Call it after the body of the request has been read, as in a handler of FastAPI.

    Args:
        request: The request of the client.
        awaitable: The work for it, such as ``backend.complete(...)``.

    Raises:
        ClientDisconnectedError: The client disconnected. The work has ended by then.
    """
    work = asyncio.ensure_future(awaitable)
    disconnect = asyncio.create_task(_wait_for_disconnect(request))
    try:
        await asyncio.wait([work, disconnect], return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            disconnect.result()
            raise ClientDisconnectedError("the client disconnected")
        return work.result()
    finally:
        await _cancel(work, disconnect)


async def sse_events(
    stream: Stream,
    *,
    request: ASGIRequest | None = None,
    on_error: Callable[[BackendError], object] | None = None,
) -> AsyncGenerator[bytes]:
    """Yield the events of a stream as server-sent events, for a streaming response.

    Each is a JSON object with a ``type``: ``text``, ``reasoning``, ``refusal``, ``tool_call``, ``citation``,
    ``progress``, ``loading``, ``finish``, or ``error`` for a failure, which is the last. An error has its class as
    ``error`` and an HTTP ``status``; its text may name your servers, and is left out.

    Args:
        stream: The stream, which is opened and closed here.
        request: The request of the client. Its disconnect then ends the stream at once, also if the model is silent.
        on_error: Called with a failure of the stream, to log it.
    """
    watch = _DisconnectWatch(request)
    try:
        await watch.run(stream.__aenter__)
        events = aiter(stream)
        while True:
            event = await watch.run(events.__anext__)
            kind = _TYPES.get(type(event))
            if kind is not None:  # else data for the next request only
                yield _encode({"type": kind, **_describe(event)})
    except (StopAsyncIteration, ClientDisconnectedError):
        return
    except BackendError as error:
        if on_error is not None:
            on_error(error)
        yield _encode({"type": "error", "error": type(error).__name__, "status": http_status_of(error)})
    finally:
        await stream.aclose()
        await watch.aclose()


class _DisconnectWatch:
    """Cancels the task that waits in :meth:`run` when the client disconnects."""

    def __init__(self, request: ASGIRequest | None) -> None:
        self._has_left = False
        self._waiting: asyncio.Task[Any] | None = None
        self._task = None if request is None else asyncio.create_task(self._watch(request))

    async def _watch(self, request: ASGIRequest) -> None:
        await _wait_for_disconnect(request)
        self._has_left = True
        if self._waiting is not None:
            self._waiting.cancel()

    async def run(self, function: Callable[[], Awaitable[T]]) -> T:
        """Return the result of ``function``, or raise ClientDisconnectedError."""
        task = asyncio.current_task()
        assert task is not None, "runs in a task"
        if self._has_left:
            raise ClientDisconnectedError("the client disconnected")
        self._waiting = task
        try:
            return await function()
        except asyncio.CancelledError:
            if self._has_left and task.uncancel() == 0:
                raise ClientDisconnectedError("the client disconnected") from None
            raise  # somebody else cancelled the task too
        finally:
            self._waiting = None

    async def aclose(self) -> None:
        if self._task is not None:
            await _cancel(self._task)


async def _wait_for_disconnect(request: ASGIRequest) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _cancel(*tasks: asyncio.Future[Any]) -> None:
    """Cancel ``tasks`` and wait until they have ended."""
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()  # retrieved, so that asyncio does not log it


def _describe(event: StreamEvent) -> dict[str, Any]:
    values: dict[str, Any] = msgspec.to_builtins(event)
    return {name: value for name, value in values.items() if name not in _FOR_SERVERS}


def _encode(value: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"
