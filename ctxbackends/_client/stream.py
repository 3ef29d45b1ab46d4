"""One streamed answer: open, iterate, time, close. Knows no wire format (the decoder does) and no HTTP library (the
transport does).

One timer watches a whole stream: a timer for each chunk would cost more than the chunk. It looks at how long the
*server* has been waited for, so that a slow consumer is never a server timeout, and at events instead of bytes, so that
keep-alive comments are no progress.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Self

from ctxbackends._chat.events import Loading, OnProgress, PromptProgress, StreamEvent, TextDelta
from ctxbackends._chat.responses import Completion, PartialCompletion
from ctxbackends._client.stream_source import Body, StreamSource, StreamTimeouts, timeout_key
from ctxbackends._wire.accumulator import Accumulator
from ctxbackends._wire.base import StreamDecoder
from ctxbackends._wire.errors import find_request_id
from ctxbackends.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BackendError,
    ClosedError,
    ResponseTooLargeError,
    StreamInterruptedError,
)

MAX_STREAM_BYTES = 512 * 1024 * 1024
"""The longest body of a stream: more than a model with a context of a million tokens writes, log probabilities
included. What never ends must not fill the memory."""

DRAIN_SECONDS = 0.25
"""How long the end of the body is awaited after the answer is whole, so that the connection can be pooled."""


class ChatStream:
    """An answer as it is written. Use it with ``async with``, and iterate it for events, or ``text()`` for the text
    alone.

    Entering the ``async with`` sends the request. Where the server is not ready, the wait for it goes on while you
    iterate, and each look at it is a :class:`Loading` event.
    Leaving the ``async with`` early cancels the generation: the connection is closed at once. ``completion`` is there
    once the last event came.
    Raises StreamInterruptedError with ``partial`` where the answer does not become whole, APITimeoutError where a limit
    passes.
    """

    __slots__ = (
        "__weakref__",
        "_accumulator",
        "_body",
        "_closed",
        "_completion",
        "_decoder",
        "_due",
        "_entered",
        "_error",
        "_has_first",
        "_has_progress",
        "_loading",
        "_model_checked",
        "_on_progress",
        "_opening",
        "_paused_at",
        "_paused_total",
        "_pooled",
        "_raw",
        "_reading",
        "_ready",
        "_requested_model",
        "_sent_at",
        "_size",
        "_source",
        "_timeout_error",
        "_timeouts",
        "_timer",
        "_waiting_since",
        "_wakeup",
    )

    def __init__(
        self,
        source: StreamSource,
        decoder: StreamDecoder,
        *,
        requested_model: str,
        timeouts: StreamTimeouts,
        on_progress: OnProgress | None = None,
        pooled: bool,
        keep_raw: bool = False,
    ) -> None:
        self._source = source
        self._decoder = decoder
        self._requested_model = requested_model
        self._timeouts = timeouts
        self._on_progress = on_progress
        self._pooled = pooled
        self._raw: list[bytes] | None = [] if keep_raw else None
        self._size = 0
        self._accumulator = Accumulator()
        self._ready: Iterator[StreamEvent] = iter(())
        self._entered = False
        self._opening: asyncio.Task[Body] | None = None
        self._wakeup: asyncio.Future[None] | None = None
        self._loading: list[StreamEvent] = []
        self._body: Body | None = None
        self._closed = False
        self._error: Exception | None = None
        self._completion: Completion | None = None
        self._model_checked = False
        # times of the event loop's clock
        self._sent_at = 0.0
        self._paused_at = 0.0  # since then, who iterates has the events, and does not wait for the server
        self._paused_total = 0.0  # how long that was so, in all
        self._waiting_since: float | None = None
        self._has_first = False
        self._has_progress = False
        self._reading = False
        self._timeout_error: APITimeoutError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    # --- open and close ---------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._entered or self._closed:
            raise ClosedError("a stream is opened once; call stream() again")
        self._entered = True
        loop = asyncio.get_running_loop()
        first: BackendError | None = None
        if self._source.can_open_immediately:
            try:
                self._begin(await self._source.open(), loop)
                return self
            except BackendError as error:
                first = error
            except BaseException:
                self._close()
                raise
        # A task of its own, so that who iterates sees each Loading when it happens.
        self._opening = loop.create_task(self._source.reopen(first, on_progress=self._report_loading))
        self._opening.add_done_callback(self._on_open)
        try:
            await self._wait_for_open_or_loading(loop)
        except BaseException:
            await self._abandon()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._abandon()

    def _begin(self, body: Body, loop: asyncio.AbstractEventLoop) -> None:
        self._body = body
        # Each attempt starts the clocks anew: waiting for a cold start has a budget of its own.
        self._waiting_since = self._sent_at = body.sent_at
        self._paused_at = loop.time()

    def _report_loading(self, loading: Loading) -> None:
        if self._on_progress is not None:
            self._on_progress(loading)
        self._loading.append(loading)
        self._notify()

    def _on_open(self, opening: asyncio.Task[Body]) -> None:
        if not opening.cancelled():
            opening.exception()  # looked at here, so that a stream that nobody reads or leaves logs nothing
        self._notify()

    def _notify(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    async def _wait_for_open_or_loading(self, loop: asyncio.AbstractEventLoop) -> None:
        """Return when the answer has begun, or when there is something to say about the wait for it."""
        assert self._opening is not None, "the request did not go straight through"
        while not self._opening.done() and not self._loading:
            self._wakeup = loop.create_future()
            await self._wakeup
        if self._body is None and self._opening.done():
            self._begin(self._opening.result(), loop)

    async def _abandon(self) -> None:
        """Close; an opening that is under way ends first, so that nothing of it is left."""
        self._close()
        opening = self._opening
        if opening is None or self._body is not None:
            return
        opening.cancel()
        # Not after the wait: that can be cancelled, too.
        opening.add_done_callback(lambda _: self._source.close())
        await asyncio.wait([opening])

    def _close(self) -> None:
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._source.close()

    # --- read -------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        while True:
            for event in self._ready:  # goes on where it was: it is an iterator
                return event
            if self._completion is not None:
                raise StopAsyncIteration
            await self._read_events()

    async def text(self) -> AsyncIterator[str]:
        """The pieces of the answer's text, without the other events."""
        while True:
            for event in self._ready:
                if isinstance(event, TextDelta):
                    yield event.text
            if self._completion is not None:
                return
            await self._read_events()

    async def completed(self) -> Completion:
        """Read on to the end, and return the whole answer."""
        while self._completion is None:
            await self._read_events()
        self._ready = iter(())  # they are in the answer: nobody iterates over the last of them again
        return self._completion

    @property
    def is_complete(self) -> bool:
        """Whether the last event has come, so that there is a completion."""
        return self._completion is not None

    @property
    def completion(self) -> Completion:
        """The whole answer. Raises ClosedError before the last event has come: there is none yet."""
        if self._completion is None:
            raise ClosedError("there is no completion: the stream has not been read to its end")
        return self._completion

    async def _read_events(self) -> None:
        """Wait for the next events, or for the end."""
        if self._reading:
            raise BackendError("this stream is being read by another task; one task reads a stream")
        if self._error is not None:
            raise self._error
        if not self._entered or self._closed:
            raise ClosedError("the stream is not open; use it inside `async with`")
        loop = asyncio.get_running_loop()
        if self._body is None:
            await self._wait_for_open_or_loading(loop)
        if self._loading:
            self._ready, self._loading = iter(self._loading), []
            return
        body = self._body
        assert body is not None, "it is open, or there was something to say"
        now = loop.time()
        self._paused_total += now - self._paused_at
        self._reading = True
        try:
            # The first event mostly comes with the headers: it is not to wait until its time limit is set up.
            events = [] if self._has_first else self._decode_buffered(body)
            if not events:
                if self._has_first or self._has_progress:
                    self._waiting_since = now
                if self._timer is None:
                    self._schedule_timeout(loop)
            while not events:
                if self._decoder.failure is not None:  # the events that came before it were handed on first
                    raise self._build_interruption(self._decoder.failure, body)
                try:  # what was read has no name here: reports of an error show the values of frames
                    events = self._decode(await body.read_chunk(), body)
                except APIConnectionError as error:
                    if self._timeout_error is not None:
                        raise self._timeout_error from error.__cause__
                    raise self._build_interruption(error, body) from error
        except BackendError as error:
            self._error = explained = self._source.annotate(error)
            self._close()
            raise explained from error.__cause__
        except Exception as error:
            self._error = error  # a warning that is raised: what had come with it is lost, so there is no answer
            self._close()
            raise
        finally:
            self._reading = False
            self._paused_at = loop.time()
        self._waiting_since = None
        self._ready = iter(events)
        if not self._has_first:
            if all(isinstance(event, PromptProgress) for event in events):
                self._has_progress = True  # the first token is still awaited, and this is a sign of life
            else:
                self._has_first = True
                if self._timer is not None:
                    self._schedule_timeout(loop)  # from here on the limit between tokens holds, which may pass sooner
        if self._decoder.finished:
            await self._finish(body)

    def _decode_buffered(self, body: Body) -> list[StreamEvent]:
        data = body.read_buffered() if self._decoder.failure is None else b""
        return self._decode(data, body) if data else []

    def _decode(self, data: bytes, body: Body) -> list[StreamEvent]:
        """The events that ``data`` completes, b"" the end; none where more must come."""
        self._size += len(data)
        if self._size > MAX_STREAM_BYTES:
            raise self._build_interruption(ResponseTooLargeError("the stream", MAX_STREAM_BYTES), body)
        if self._raw is not None:
            self._raw.append(data)
        decoder = self._decoder
        events = decoder.feed(data) if data else decoder.close()
        if not self._model_checked and decoder.served_model is not None:
            self._model_checked = True
            self._source.check_model(decoder.served_model)
        self._accumulator.add(*events)
        return events

    async def _finish(self, body: Body) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Before the drain: the answer is whole, and a cancel in the drain must not lose it.
        self._completion = self._accumulator.completion(
            requested_model=self._requested_model,
            served_model=self._decoder.served_model,
            response_id=self._decoder.response_id,
            request_id=find_request_id(body.headers),
            raw=b"".join(self._raw) if self._raw is not None else b"",
        )
        try:
            if self._pooled and not body.at_end:
                # A connection that breaks now is lost, and nothing else.
                with suppress(TimeoutError, APIConnectionError):
                    async with asyncio.timeout(DRAIN_SECONDS):
                        while await body.read_chunk():
                            pass
        finally:
            body.close()

    def _build_interruption(self, error: BackendError, body: Body) -> BackendError:
        """``error`` with what had arrived. One that says more than that the stream broke stays what it is, as the
        cause."""
        partial = self._accumulator.partial(served_model=self._decoder.served_model)
        if isinstance(error, StreamInterruptedError):
            error.partial = partial
            error.request_id = find_request_id(body.headers)
            return error
        if isinstance(error, APIStatusError) and partial == PartialCompletion(served_model=partial.served_model):
            return error  # nothing had come: the request was refused, only later than by its status
        interrupted = StreamInterruptedError(str(error.problem), partial=partial)
        interrupted.__cause__ = error
        interrupted.request_id = find_request_id(body.headers)
        return interrupted

    # --- time -------------------------------------------------------------------------------------

    def _schedule_timeout(self, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that there is a look before a limit can have passed. The times only move on while a stream is read,
        so a look that is set stays as it is, and finds out what to do next."""
        limit = self._timeouts.idle if self._has_first else self._timeouts.first_token
        since = self._waiting_since if self._waiting_since is not None else loop.time()
        due = math.inf if limit is None else since + limit
        if self._timeouts.total is not None:
            due = min(due, self._sent_at + self._paused_total + self._timeouts.total)
        if due == math.inf:
            return
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due = due
        # It holds the stream by a weak reference: one that somebody forgot is not to live until a limit passes.
        self._timer = loop.call_at(due, _check_timeouts, weakref.ref[ChatStream](self), loop)

    def _check_timeouts(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if not self._reading:
            return  # nobody waits for the server, and what is awaited may have come long ago; reading arms it again
        now = loop.time()
        if self._timeouts.total is not None and now >= self._sent_at + self._paused_total + self._timeouts.total:
            self._time_out("total", self._timeouts.total)
            return
        phase, limit = ("idle", self._timeouts.idle) if self._has_first else ("first_token", self._timeouts.first_token)
        if limit is not None and self._waiting_since is not None and now >= self._waiting_since + limit:
            self._time_out(phase, limit)
            return
        self._schedule_timeout(loop)

    def _time_out(self, phase: str, limit: float) -> None:
        self._timeout_error = APITimeoutError(
            phase,
            limit,
            key=timeout_key(phase),
            partial=self._accumulator.partial(served_model=self._decoder.served_model),
        )
        if self._body is not None:
            self._body.close()  # the pending read ends, and the server sees that nobody waits any more


def _check_timeouts(stream: weakref.ref[ChatStream], loop: asyncio.AbstractEventLoop) -> None:
    live = stream()
    if live is not None:
        live._check_timeouts(loop)
