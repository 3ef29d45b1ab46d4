"""One streamed answer without async."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import partial
from queue import SimpleQueue
from typing import Any, Generic, Protocol, Self, TypeVar

from ctxbackends._chat.events import OnProgress, StreamEvent, TextDelta
from ctxbackends._chat.responses import Completion, PartialCompletion
from ctxbackends._client.backend import Stream
from ctxbackends.sync._loop_thread import Closer, close, shared

T = TypeVar("T")
Item = TypeVar("Item")
AsyncT = TypeVar("AsyncT", bound="AsyncReader")


class AsyncReader(Protocol):
    """An async stream of any kind."""

    async def __aenter__(self) -> Any: ...

    async def __aexit__(self, kind: Any, error: Any, trace: Any, /) -> Any: ...  # noqa: PYI036  # of any kind

    def __aiter__(self) -> AsyncIterator[Any]: ...


class SyncReader(Generic[AsyncT, Item]):
    """Opens, iterates and closes an async stream.

    Args:
        make: Creates the stream from the callback for its progress.
        on_progress: Called in the thread that reads.
        registry_closer: Keeps the registry of the stream open.
    """

    def __init__(
        self,
        make: Callable[[OnProgress | None], AsyncT],
        on_progress: OnProgress | None = None,
        *,
        registry_closer: Closer | None = None,
    ) -> None:
        self._registry_closer = registry_closer
        self._inbox: SimpleQueue[Any] = SimpleQueue()
        self._on_progress = on_progress
        self._items: Iterator[Item] = iter(())
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
        """Close the stream, which cancels a generation that has not ended. Idempotent."""
        if self._closer is not None:
            self._closer.detach()
            self._closer = None
        close(partial(_leave, self._stream))

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Item:
        for item in self._items:  # an iterator: continues where it stopped
            return item
        self._items = iter(self._call(partial(_read, self._stream)))
        return next(self._items)


class SyncStream(SyncReader[Stream, StreamEvent]):
    """A :class:`~ctxbackends.ChatStream` without async. Use it with ``with``, and iterate over it, or over ``text()``.

    Entering the ``with`` sends the request. Leaving it early closes the connection, which cancels the generation. Use
    it from one thread at a time.

    Raises:
        StreamInterruptedError: The stream ended before the answer was complete; ``partial`` is what arrived.
        APITimeoutError: A timeout passed; ``phase`` names it.
        BackendError: The request failed.
    """

    def text(self) -> Iterator[str]:
        """Iterate over the pieces of the text, without the other events."""
        for event in self:
            if isinstance(event, TextDelta):
                yield event.text

    def get_final_completion(self) -> Completion:
        """Read to the end and return the whole answer."""
        completion = self._call(self._stream.get_final_completion)
        self._items = iter(())  # they are in the completion
        return completion

    @property
    def is_complete(self) -> bool:
        """Whether the last event has arrived, so that there is a completion."""
        return self._stream.is_complete

    @property
    def completion(self) -> Completion:
        """The whole answer.

        Raises:
            ClosedError: The stream has not been read to its end.
        """
        return self._stream.completion

    @property
    def partial(self) -> PartialCompletion:
        """The part of the answer that has arrived: while it is read, and after leaving early or an error."""
        return self._stream.partial

    @property
    def text_so_far(self) -> str:
        """The text that has arrived."""
        return self._stream.text_so_far

    @property
    def served_model(self) -> str | None:
        """The model that the server names, None until it does."""
        return self._stream.served_model

    @property
    def response_id(self) -> str | None:
        """The server's ID of the response, None until it arrives."""
        return self._stream.response_id

    @property
    def request_id(self) -> str | None:
        """The server's ID of the request from the response headers, None until they arrive or without one."""
        return self._stream.request_id


async def _read(stream: AsyncReader) -> list[Any]:
    """Return the next item and those that arrived with it, empty at the end.

    A change of threads for each event of a stream would cost more than the event.
    """
    async for item in stream:
        return [item, *getattr(stream, "_ready", ())]
    return []


async def _leave(stream: AsyncReader) -> None:
    await stream.__aexit__(None, None, None)
