"""One streamed answer: open, iterate, time, close. Knows no wire format (the decoder does) and no HTTP library (the
transport does).

One timer watches a whole stream: a timer for each chunk would cost more than the chunk. It looks at how long the
*server* has been waited for, so that a slow consumer is never a server timeout, and at events instead of bytes, so that
keep-alive comments are no progress.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, Protocol, Self

import attrs

from ctxbackends.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BackendError,
    ClosedError,
    ResponseTooLargeError,
    StreamInterruptedError,
)
from ctxbackends.types import Completion, Loading, OnProgress, PartialCompletion, PromptProgress, StreamEvent, TextDelta
from ctxbackends.wire.accumulate import Accumulator
from ctxbackends.wire.http import StreamDecoder
from ctxbackends.wire.status import request_id_of

MAX_STREAM_BYTES = 512 * 1024 * 1024
"""The longest body of a stream: more than a model with a context of a million tokens writes, log probabilities
included. What never ends must not fill the memory."""

DRAIN_SECONDS = 0.25
"""How long the end of the body is awaited after the answer is whole, so that the connection can be pooled."""


class Body(Protocol):
    """The bytes of an answer, as the transport hands them out."""

    async def read(self) -> bytes: ...

    @property
    def headers(self) -> Mapping[str, str]: ...

    @property
    def at_end(self) -> bool: ...

    def close(self) -> None: ...


@attrs.frozen(kw_only=True)
class StreamLimits:
    """Seconds, None for no limit: until the first token, between tokens, and for the whole answer."""

    first_token: float | None
    idle: float | None
    total: float | None


def timeout_key(phase: str) -> str:
    """The configuration key that tunes a phase."""
    return "timeout" if phase == "total" else f"{phase}_timeout"


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

    def __init__(
        self,
        open_body: Callable[[Callable[[], None], OnProgress], Coroutine[Any, Any, Body]],
        decoder: StreamDecoder,
        *,
        requested_model: str,
        limits: StreamLimits,
        on_progress: OnProgress | None = None,
        check_model: Callable[[str], None],
        explain: Callable[[BackendError], BackendError],
        pooled: bool,
        keep_raw: bool = False,
    ) -> None:
        self._open_body = open_body
        self._decoder = decoder
        self._requested_model = requested_model
        self._limits = limits
        self._on_progress = on_progress
        self._check_model = check_model
        self._explain = explain
        self._pooled = pooled
        self._raw: list[bytes] | None = [] if keep_raw else None
        self._size = 0
        self._folded = Accumulator()
        self._events: list[StreamEvent] = []
        self._next = 0
        self._opening: asyncio.Task[Body] | None = None
        self._news: asyncio.Future[None] | None = None
        self._loading: list[StreamEvent] = []
        self._body: Body | None = None
        self._closed = False
        self._error: Exception | None = None
        self._completion: Completion | None = None
        self._model_checked = False
        # times of the event loop's clock
        self._sent_at = 0.0
        self._left_at = 0.0  # since then, who iterates has the events, and does not wait for the server
        self._away = 0.0  # how long that was so, in all
        self._waiting_since: float | None = None
        self._seen_first = False
        self._progressed = False
        self._reading = False
        self._timed_out: APITimeoutError | None = None
        self._watch: asyncio.TimerHandle | None = None

    # --- open and close ---------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        if self._opening is not None or self._closed:
            raise ClosedError("a stream is opened once; call stream() again")
        loop = asyncio.get_running_loop()

        def sent() -> None:  # each attempt starts the clocks anew: waiting for a cold start has a budget of its own
            self._sent_at = loop.time()

        # A task of its own, so that who iterates sees each Loading when it happens.
        self._opening = loop.create_task(self._open_body(sent, self._report_loading))
        self._opening.add_done_callback(self._opened)
        try:
            await self._opened_or_loading(loop)
        except BaseException:
            await self._abandon()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._abandon()

    def _report_loading(self, seen: Loading) -> None:
        if self._on_progress is not None:
            self._on_progress(seen)
        self._loading.append(seen)
        self._tell()

    def _opened(self, opening: asyncio.Task[Body]) -> None:
        if not opening.cancelled():
            opening.exception()  # looked at here, so that a stream that nobody reads or leaves logs nothing
        self._tell()

    def _tell(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    async def _opened_or_loading(self, loop: asyncio.AbstractEventLoop) -> None:
        """Return when the answer has begun, or when there is something to say about the wait for it."""
        assert self._opening is not None, "only an entered stream waits"
        while not self._opening.done() and not self._loading:
            self._news = loop.create_future()
            await self._news
        if self._body is None and self._opening.done():
            self._body = self._opening.result()
            self._waiting_since = self._sent_at
            self._left_at = loop.time()
            self._arm(loop)

    async def _abandon(self) -> None:
        """Close; an opening that is under way ends first, so that nothing of it is left."""
        self._close()
        opening = self._opening
        if opening is None or self._body is not None:
            return
        opening.cancel()
        # Not after the wait: that can be cancelled, too.
        opening.add_done_callback(_close_opened)
        await asyncio.wait([opening])

    def _close(self) -> None:
        self._closed = True
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        if self._body is not None:
            self._body.close()

    # --- read -------------------------------------------------------------------------------------

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> StreamEvent:
        while self._next >= len(self._events):
            if self._completion is not None:
                raise StopAsyncIteration
            await self._fill()
        event = self._events[self._next]
        self._next += 1
        return event

    async def text(self) -> AsyncIterator[str]:
        """The pieces of the answer's text, without the other events."""
        async for event in self:
            if isinstance(event, TextDelta):
                yield event.text

    async def completed(self) -> Completion:
        """Read on to the end, and return the whole answer."""
        while self._completion is None:
            await self._fill()
        self._next = len(self._events)  # they are in the answer: nobody iterates over the last of them again
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

    async def _fill(self) -> None:
        """Wait for the next events, or for the end."""
        if self._reading:
            raise BackendError("this stream is being read by another task; one task reads a stream")
        if self._error is not None:
            raise self._error
        if self._opening is None or self._closed:
            raise ClosedError("the stream is not open; use it inside `async with`")
        loop = asyncio.get_running_loop()
        if self._body is None:
            await self._opened_or_loading(loop)
        if self._loading:
            self._events, self._next, self._loading = self._loading, 0, []
            return
        assert self._body is not None, "it is open, or there was something to say"
        now = loop.time()
        self._away += now - self._left_at
        if self._seen_first or self._progressed:
            self._waiting_since = now
        if self._watch is None or not self._seen_first:
            self._arm(loop)
        self._reading = True
        try:
            events = await self._receive(self._body)
        except BackendError as error:
            self._error = explained = self._explain(error)
            self._close()
            raise explained from error.__cause__
        except Exception as error:
            self._error = error  # a warning that is raised: what had come with it is lost, so there is no answer
            self._close()
            raise
        finally:
            self._reading = False
            self._left_at = loop.time()
        self._waiting_since = None
        self._events, self._next = events, 0
        if not self._seen_first and all(isinstance(event, PromptProgress) for event in events):
            self._progressed = True  # the first token is still awaited, and this is a sign of life
        elif not self._seen_first:
            self._seen_first = True
            self._arm(loop)  # from here on the limit between tokens holds, which may pass sooner
        if self._decoder.finished:
            await self._finish(self._body)

    async def _receive(self, body: Body) -> list[StreamEvent]:
        """At least one event, or the failure. Events that came before a failure are handed on first."""
        while True:
            if self._decoder.failure is not None:
                raise self._interrupted(self._decoder.failure, body)
            try:
                data = await body.read()
            except APIConnectionError as error:
                if self._timed_out is not None:
                    raise self._timed_out from error.__cause__
                raise self._interrupted(error, body) from error
            self._size += len(data)
            if self._size > MAX_STREAM_BYTES:
                raise self._interrupted(ResponseTooLargeError("the stream", MAX_STREAM_BYTES), body)
            if self._raw is not None:
                self._raw.append(data)
            events = self._decoder.feed(data) if data else self._decoder.close()
            if not self._model_checked and self._decoder.served_model is not None:
                self._model_checked = True
                self._check_model(self._decoder.served_model)
            for event in events:
                self._folded.add(event)
            if events:
                return events

    async def _finish(self, body: Body) -> None:
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        # Before the drain: the answer is whole, and a cancel in the drain must not lose it.
        self._completion = self._folded.completion(
            requested_model=self._requested_model,
            served_model=self._decoder.served_model,
            response_id=self._decoder.response_id,
            request_id=request_id_of(body.headers),
            raw=b"".join(self._raw) if self._raw is not None else b"",
        )
        try:
            if self._pooled and not body.at_end:
                # A connection that breaks now is lost, and nothing else.
                with suppress(TimeoutError, APIConnectionError):
                    async with asyncio.timeout(DRAIN_SECONDS):
                        while await body.read():
                            pass
        finally:
            body.close()

    def _interrupted(self, error: BackendError, body: Body) -> BackendError:
        """``error`` with what had arrived. One that says more than that the stream broke stays what it is, as the
        cause."""
        partial = self._folded.partial(served_model=self._decoder.served_model)
        if isinstance(error, StreamInterruptedError):
            error.partial = partial
            error.request_id = request_id_of(body.headers)
            return error
        if isinstance(error, APIStatusError) and partial == PartialCompletion(served_model=partial.served_model):
            return error  # nothing had come: the request was refused, only later than by its status
        interrupted = StreamInterruptedError(str(error.problem), partial=partial)
        interrupted.__cause__ = error
        interrupted.request_id = request_id_of(body.headers)
        return interrupted

    # --- time -------------------------------------------------------------------------------------

    def _arm(self, loop: asyncio.AbstractEventLoop) -> None:
        """Set the timer to the next moment at which a limit can have passed."""
        moments = []
        if self._limits.total is not None:
            moments.append(self._sent_at + self._away + self._limits.total)
        limit = self._limits.idle if self._seen_first else self._limits.first_token
        if limit is not None:
            moments.append((self._waiting_since if self._waiting_since is not None else loop.time()) + limit)
        if self._watch is not None:
            self._watch.cancel()
        # It holds the stream by a weak reference: one that somebody forgot is not to live until a limit passes.
        self._watch = loop.call_at(min(moments), _look, weakref.ref[ChatStream](self), loop) if moments else None

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._watch = None
        if not self._reading:
            return  # nobody waits for the server, and what is awaited may have come long ago; reading arms it again
        now = loop.time()
        if self._limits.total is not None and now >= self._sent_at + self._away + self._limits.total:
            self._expire("total", self._limits.total)
            return
        phase, limit = ("idle", self._limits.idle) if self._seen_first else ("first_token", self._limits.first_token)
        if limit is not None and self._waiting_since is not None and now >= self._waiting_since + limit:
            self._expire(phase, limit)
            return
        self._arm(loop)

    def _expire(self, phase: str, limit: float) -> None:
        self._timed_out = APITimeoutError(
            phase, limit, key=timeout_key(phase), partial=self._folded.partial(served_model=self._decoder.served_model)
        )
        if self._body is not None:
            self._body.close()  # the pending read ends, and the server sees that nobody waits any more


def _close_opened(opening: asyncio.Task[Body]) -> None:
    if not opening.cancelled() and opening.exception() is None:
        opening.result().close()


def _look(stream: weakref.ref[ChatStream], loop: asyncio.AbstractEventLoop) -> None:
    watched = stream()
    if watched is not None:
        watched._look(loop)
