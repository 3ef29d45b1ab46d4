"""One streamed answer: open, iterate, time out, close. Knows no wire format and no HTTP library.

One timer covers a whole stream: a timer for each chunk would cost more than the chunk. It measures how long the reader
has waited for the *server*, so a slow consumer causes no timeout, and for events instead of bytes, so keep-alive
comments do not count.
"""

from __future__ import annotations

import asyncio
import math
import weakref
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Self

from ctxbackends._chat.events import Loading, OnProgress, PromptProgress, StreamEvent, TextDelta
from ctxbackends._chat.responses import Completion
from ctxbackends._client.stream_errors import build_interruption
from ctxbackends._client.stream_progress import StreamProgress
from ctxbackends._client.stream_source import Body, StreamSource, StreamTimeouts, timeout_key
from ctxbackends._wire.base import StreamDecoder
from ctxbackends._wire.errors import find_request_id
from ctxbackends.errors import APIConnectionError, APITimeoutError, BackendError, ClosedError, ResponseTooLargeError

MAX_STREAM_BYTES = 512 * 1024 * 1024
"""The longest body of a stream: more than a million tokens with their log probabilities, and not endless."""

DRAIN_SECONDS = 0.25
"""How long to wait for the end of the body after the last event, so that the connection can be pooled."""


class ChatStream(StreamProgress):
    """A streamed answer. Use it with ``async with``, and iterate over its events, or over ``text()``.

    Entering the ``async with`` sends the request. If the server is not ready, the wait continues while you iterate, and
    each probe is a :class:`Loading` event. Leaving the ``async with`` early closes the connection, which cancels the
    generation. After the last event, ``completion`` is the whole answer; ``partial`` is the part that has arrived.

    Raises:
        StreamInterruptedError: The stream ended before the answer was complete; ``partial`` is what arrived.
        ClosedError: The stream, the backend or the registry was closed; ``partial`` is what arrived.
        APITimeoutError: A timeout passed; ``phase`` names it.
        BackendError: The request failed.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
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
        super().__init__(decoder)
        self._source = source
        self._requested_model = requested_model
        self._timeouts = timeouts
        self._on_progress = on_progress
        self._pooled = pooled
        self._raw: list[bytes] | None = [] if keep_raw else None
        self._size = 0
        self._ready: Iterator[StreamEvent] = iter(())
        self._entered = False
        self._opening: asyncio.Task[Body] | None = None
        self._wakeup: asyncio.Future[None] | None = None
        self._loading: list[StreamEvent] = []
        self._closed = False
        self._error: Exception | None = None
        self._model_checked = False
        # times of the event loop's clock
        self._sent_at = 0.0
        self._paused_at = 0.0  # when the reader got its events and stopped waiting for the server
        self._paused_total = 0.0  # total seconds without a waiting reader
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
            raise ClosedError("a stream can be opened only once; call stream() again")
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
        # A separate task, so that the reader gets each Loading when it happens.
        self._opening = loop.create_task(self._source.reopen(first, on_progress=self._report_loading))
        self._opening.add_done_callback(self._on_open)
        try:
            await self._wait_for_open_or_loading(loop)
        except BaseException:
            await self.aclose()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def _begin(self, body: Body, loop: asyncio.AbstractEventLoop) -> None:
        self._body = body
        # Each attempt restarts the clocks: a cold start has its own budget.
        self._waiting_since = self._sent_at = body.sent_at
        self._paused_at = loop.time()

    def _report_loading(self, loading: Loading) -> None:
        if self._on_progress is not None:
            self._on_progress(loading)
        self._loading.append(loading)
        self._notify()

    def _on_open(self, opening: asyncio.Task[Body]) -> None:
        if not opening.cancelled():
            opening.exception()  # retrieved, so that asyncio does not log it for an abandoned stream
        self._notify()

    def _notify(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)

    async def _wait_for_open_or_loading(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait until the response begins or a Loading event is there."""
        assert self._opening is not None, "the request was not opened immediately"
        while not self._opening.done() and not self._loading:
            self._wakeup = loop.create_future()
            await self._wakeup
        if self._body is None and self._opening.done():
            try:
                self._begin(self._opening.result(), loop)
            except ClosedError as error:
                error.partial = self.partial
                raise

    async def aclose(self) -> None:
        """Close the stream, which cancels a generation that has not ended. Idempotent."""
        self._close()
        opening = self._opening
        if opening is None or self._body is not None:
            return
        opening.cancel()
        # Not after the wait, which can be cancelled too.
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
            for event in self._ready:  # an iterator: continues where it stopped
                return event
            if self._completion is not None:
                raise StopAsyncIteration
            await self._read_events()

    async def text(self) -> AsyncIterator[str]:
        """Iterate over the pieces of the text, without the other events."""
        while True:
            for event in self._ready:
                if isinstance(event, TextDelta):
                    yield event.text
            if self._completion is not None:
                return
            await self._read_events()

    async def get_final_completion(self) -> Completion:
        """Read to the end and return the whole answer."""
        while self._completion is None:
            await self._read_events()
        self._ready = iter(())  # they are in the completion, and are not iterated again
        return self._completion

    async def _read_events(self) -> None:
        """Wait for the next events, or for the end."""
        if self._reading or self._error is not None or self._closed or not self._entered:
            raise self._build_refusal()
        loop = asyncio.get_running_loop()
        if self._body is None:
            await self._wait_for_open_or_loading(loop)
        if self._loading:
            self._ready, self._loading = iter(self._loading), []
            return
        body = self._body
        assert body is not None, "open, or there was a Loading event"
        now = loop.time()
        self._paused_total += now - self._paused_at
        self._reading = True
        try:
            # The first event often arrives with the headers; return it before a timeout is scheduled.
            events = [] if self._has_first else self._decode_buffered(body)
            if not events:
                if self._has_first or self._has_progress:
                    self._waiting_since = now
                if self._timer is None:
                    self._schedule_timeout(loop)
            while not events:
                if self._decoder.failure is not None:  # the events before it were returned first
                    raise self._build_failure(self._decoder.failure)
                try:  # no name for the bytes: error reports show the variables of frames
                    events = self._decode(await body.read_chunk())
                except APIConnectionError as error:
                    failure = self._build_failure(error)
                    raise failure from failure.__cause__
            if not self._model_checked and self._decoder.served_model is not None:
                await self._check_model(self._decoder.served_model, body, loop)
        except BackendError as error:
            self._error = explained = self._source.annotate(error)
            self._close()
            raise explained from error.__cause__
        except Exception as error:
            self._error = error  # a warning raised as an error: its events are lost, so there is no completion
            self._close()
            raise
        finally:
            self._reading = False
            self._paused_at = loop.time()
        self._waiting_since = None
        self._ready = iter(events)
        if not self._has_first:
            self._note_first(events, loop)
        if self._decoder.finished:
            await self._finish(body)

    def _build_refusal(self) -> Exception:
        """Return the error of a read that cannot begin."""
        if self._reading:
            return BackendError("another task is reading this stream; read it from one task")
        if self._error is not None:
            return self._error
        partial = self.partial if self._entered else None
        return ClosedError("the stream is not open; use it inside `async with`", partial=partial)

    def _note_first(self, events: list[StreamEvent], loop: asyncio.AbstractEventLoop) -> None:
        if all(isinstance(event, PromptProgress) for event in events):
            self._has_progress = True  # restarts the first-token timeout
        else:
            self._begin_answer(loop)

    def _begin_answer(self, loop: asyncio.AbstractEventLoop) -> None:
        self._has_first = True
        if self._timer is not None:
            self._schedule_timeout(loop)  # the idle timeout now applies, and may pass sooner

    def _decode_buffered(self, body: Body) -> list[StreamEvent]:
        data = body.read_buffered() if self._decoder.failure is None else b""
        return self._decode(data) if data else []

    def _decode(self, data: bytes) -> list[StreamEvent]:
        """Return the events that ``data`` completes; b"" is the end of the body."""
        self._size += len(data)
        if self._size > MAX_STREAM_BYTES:
            raise self._build_failure(ResponseTooLargeError("the stream", MAX_STREAM_BYTES))
        if self._raw is not None:
            self._raw.append(data)
        decoder = self._decoder
        events = decoder.feed(data) if data else decoder.close()
        self._accumulator.add(*events)
        return events

    async def _check_model(self, served: str, body: Body, loop: asyncio.AbstractEventLoop) -> None:
        """Raise ModelMismatchError if another model answers: with its whole answer, of which no event is returned."""
        self._model_checked = True
        if self._source.accepts_model(served):
            return
        self._waiting_since = None  # the server's list is asked, and the stream is not silent meanwhile
        mismatch = await self._source.find_mismatch(served)
        if mismatch is None:
            return
        self._has_first = True
        while not self._decoder.finished:
            self._waiting_since = loop.time()
            self._schedule_timeout(loop)
            if self._decoder.failure is not None:
                raise self._build_failure(self._decoder.failure)
            try:
                self._decode(await body.read_chunk())
            except APIConnectionError as error:
                failure = self._build_failure(error)
                raise failure from failure.__cause__
        mismatch.completion = self._build_completion(body)
        raise mismatch

    def _build_completion(self, body: Body) -> Completion:
        return self._accumulator.completion(
            requested_model=self._requested_model,
            served_model=self._decoder.served_model,
            response_id=self._decoder.response_id,
            request_id=find_request_id(body.headers),
            raw_finish_reason=self._decoder.raw_finish_reason,
            reasoning_member=self._decoder.reasoning_member,
            raw=b"".join(self._raw) if self._raw is not None else b"",
        )

    async def _finish(self, body: Body) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        # Before the drain, since a cancellation there must not lose the completion.
        self._completion = self._build_completion(body)
        try:
            if self._pooled and not body.at_end:
                # If the connection breaks now, only the connection is lost.
                with suppress(TimeoutError, APIConnectionError):
                    async with asyncio.timeout(DRAIN_SECONDS):
                        while await body.read_chunk():
                            pass
        finally:
            body.close()

    def _build_failure(self, error: BackendError) -> BackendError:
        """Return the error to raise for ``error``, with the part of the answer that arrived."""
        if isinstance(error, APIConnectionError):
            if self._timeout_error is not None:
                self._timeout_error.__cause__ = error.__cause__
                return self._timeout_error
            if self._closed or self._source.is_closed:
                closed = "the stream" if self._closed else "the registry or backend"
                return ClosedError(f"{closed} was closed before the answer was complete", partial=self.partial)
        return build_interruption(error, partial=self.partial, request_id=self.request_id)

    # --- time -------------------------------------------------------------------------------------

    def _schedule_timeout(self, loop: asyncio.AbstractEventLoop) -> None:
        """Schedule a check for the next timeout, or keep an earlier one.

        Timeouts only move later while a stream is read, so a scheduled check stays, and schedules the next one.
        """
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
        # A weak reference, so that a forgotten stream does not live until a timeout.
        self._timer = loop.call_at(due, _check_timeouts, weakref.ref[ChatStream](self), loop)

    def _check_timeouts(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        if not self._reading:
            return  # nobody waits for the server; the next read schedules a check again
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
            partial=self.partial,
        )
        if self._body is not None:
            self._body.close()  # ends the pending read, and the server notices


def _check_timeouts(stream: weakref.ref[ChatStream], loop: asyncio.AbstractEventLoop) -> None:
    live = stream()
    if live is not None:
        live._check_timeouts(loop)
