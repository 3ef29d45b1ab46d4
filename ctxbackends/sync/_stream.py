"""One streamed answer without async."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from functools import partial
from queue import SimpleQueue
from typing import Any, Self, TypeVar

from ctxbackends._chat.events import OnProgress, StreamEvent, TextDelta
from ctxbackends._chat.responses import Completion
from ctxbackends._client.stream import ChatStream
from ctxbackends.sync._loop_thread import Closer, close, shared

T = TypeVar("T")


class SyncStream:
    """A :class:`ChatStream` without async. Use it with ``with``, and iterate over its events, or over ``text()``.

    Entering the ``with`` sends the request. Leaving it early closes the connection, which cancels the generation. Use
    it from one thread at a time.

    Raises:
        StreamInterruptedError: The stream ended before the answer was complete; ``partial`` is what arrived.
        APITimeoutError: A timeout passed; ``phase`` names it.
        BackendError: The request failed.
    """

    def __init__(
        self,
        make: Callable[[OnProgress | None], ChatStream],
        on_progress: OnProgress | None,
        *,
        registry_closer: Closer | None = None,
    ) -> None:
        self._registry_closer = registry_closer
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        self._on_progress = on_progress
        self._events: Iterator[StreamEvent] = iter(())
        self._stream = make(None if on_progress is None else self._inbox.put)
        self._closer: Closer | None = None

    def _call(self, make: Callable[[], Coroutine[Any, Any, T]]) -> T:
        return shared.thread.call(make, inbox=self._inbox, report=self._on_progress)

    def __enter__(self) -> Self:
        is_open = self._closer is not None
        if not is_open:
            self._closer = Closer(partial(_leave, self._stream))
        try:
            self._call(self._stream.__aenter__)
        except BaseException:
            if not is_open:
                self._closer = None  # which closes it: this thread may have been interrupted after it was opened
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection, which cancels the generation. Idempotent."""
        if self._closer is not None:
            self._closer.detach()
            self._closer = None
            close(partial(_leave, self._stream))

    # --- read -------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[StreamEvent]:
        return self

    def __next__(self) -> StreamEvent:
        for event in self._events:  # an iterator: continues where it stopped
            return event
        events = self._call(partial(_read, self._stream))
        self._events = iter(events)
        return next(self._events)

    def text(self) -> Iterator[str]:
        """Iterate over the pieces of the text, without the other events."""
        for event in self:
            if isinstance(event, TextDelta):
                yield event.text

    def get_final_completion(self) -> Completion:
        """Read to the end and return the whole answer."""
        completion = self._call(self._stream.get_final_completion)
        self._events = iter(())  # they are in the completion
        return completion

    @property
    def is_complete(self) -> bool:
        """See :attr:`ChatStream.is_complete`."""
        return self._stream.is_complete

    @property
    def completion(self) -> Completion:
        """See :attr:`ChatStream.completion`."""
        return self._stream.completion


async def _read(stream: ChatStream) -> list[StreamEvent]:
    """Return the next event and those that arrived with it, empty at the end.

    A change of threads for each event would cost more than the event.
    """
    async for event in stream:
        return [event, *stream._ready]
    return []


async def _leave(stream: ChatStream) -> None:
    await stream.__aexit__(None, None, None)
