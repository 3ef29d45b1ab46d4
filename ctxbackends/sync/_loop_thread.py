"""One thread with one event loop, on which all synchronous calls of the process run.

It is started by the first call, and closed at the interpreter's exit. A forked process starts its own.
"""

from __future__ import annotations

import asyncio
import atexit
import contextvars
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, Generic, Protocol, TypeVar

from ctxbackends._chat.events import OnProgress
from ctxbackends._util.forks import Lock, reset_in_child
from ctxbackends.errors import ClosedError, EventLoopError

T = TypeVar("T")

CANCEL_SECONDS = 2.0
"""How long an interrupted call waits for the end of its request."""
EXIT_SECONDS = 5.0
"""How long the interpreter's exit waits for the registries, which may have servers to stop, and then for the thread."""
_WINDOWS_SECONDS = 0.1
"""Ctrl-C does not end the wait for a lock on Windows, but is noticed after it."""


class Closable(Protocol):
    """An object that is closed at the interpreter's exit."""

    async def aclose(self) -> None:
        """Close it."""
        ...


class LoopThread:
    """A daemon thread with an event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._thread = threading.Thread(target=self._run, name="ctxbackends-sync", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._stop.wait())

    @property
    def is_alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread.is_alive()

    def call(
        self,
        make: Callable[[], Coroutine[Any, Any, T]],
        *,
        inbox: SimpleQueue[Any] | None = None,
        report: Callable[[Any], object] | None = None,
        cancel: bool = True,
    ) -> T:
        """Run a coroutine on the loop and return its result, or raise its error.

        Args:
            make: Creates the coroutine. Called on the loop, with the context variables of the caller.
            inbox: Receives the items to report, and the end of the call.
            report: Called in this thread with each item.
            cancel: Cancel the coroutine if this thread is interrupted.

        Raises:
            EventLoopError: This is the thread of the loop, which the call would block.
            ClosedError: The loop is closed.
        """
        if threading.current_thread() is self._thread:
            raise EventLoopError(
                "a synchronous call on the event loop of ctxbackends.sync would block it; use the async backend there"
            )
        call = _Call(self._loop, make, SimpleQueue() if inbox is None else inbox)
        self.call_soon(call.start)
        try:
            while (item := _receive(call.inbox)) is not call:
                if report is not None and not isinstance(item, _Call):  # else the end of a call that was interrupted
                    report(item)
        except BaseException:
            if cancel:
                self._cancel(call)
            raise
        result: T = call.result()
        return result

    def _cancel(self, call: _Call[Any]) -> None:
        with suppress(ClosedError, Empty):
            self.call_soon(call.cancel)
            while call.inbox.get(timeout=CANCEL_SECONDS) is not call:
                pass

    def call_soon(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` on the loop with the context variables of the caller. Raise ClosedError if it is closed."""
        try:
            self._loop.call_soon_threadsafe(callback, context=contextvars.copy_context())
        except RuntimeError:
            raise ClosedError("ctxbackends.sync is closed: the interpreter exits") from None

    def start(self, make: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run a coroutine on the loop, and ignore its result."""

        def begin() -> None:
            task = self._loop.create_task(make())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

        self.call_soon(begin)

    def close(self) -> None:
        """End all calls and the thread."""
        with suppress(ClosedError):
            self.call_soon(self._stop.set)
        self._thread.join(EXIT_SECONDS)


class _Call(Generic[T]):
    """One call. It puts itself into its inbox at its end."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, make: Callable[[], Coroutine[Any, Any, T]], inbox: SimpleQueue[Any]
    ) -> None:
        self._loop = loop
        self._make = make
        self._task: asyncio.Task[T] | None = None
        self.inbox = inbox

    def start(self) -> None:
        self._task = self._loop.create_task(self._run())
        self._task.add_done_callback(lambda _: self.inbox.put(self))

    async def _run(self) -> T:
        return await self._make()  # here, so that its errors end the call as well

    def cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def result(self) -> T:
        """Return the result. An error has the frames of both threads."""
        task, self._task = self._task, None
        assert task is not None, "it has ended"
        if task.cancelled():
            raise ClosedError("ctxbackends.sync is closed: the interpreter exits")
        try:
            return task.result()
        finally:
            del task  # the error refers to this frame


def _receive(inbox: SimpleQueue[Any]) -> Any:
    while sys.platform == "win32":
        with suppress(Empty):
            return inbox.get(timeout=_WINDOWS_SECONDS)
    return inbox.get()


class _Shared:
    """The thread of the process."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._thread: LoopThread | None = None
        self._left_to_parent: list[LoopThread | None] = []
        self._to_close: weakref.WeakSet[Closable] = weakref.WeakSet()
        self._exiting = False
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        # Kept: a loop that is collected closes its selector's descriptors, which are the parent's as well.
        self._left_to_parent.append(self._thread)
        self._thread = None

    @property
    def thread(self) -> LoopThread:
        thread = self._thread
        if thread is not None and thread.is_alive:
            return thread
        with self._lock:
            if self._exiting:
                raise ClosedError("ctxbackends.sync is closed: the interpreter exits")
            if self._thread is None or not self._thread.is_alive:
                self._thread = LoopThread()
            return self._thread

    def close_at_exit(self, target: Closable) -> None:
        self._to_close.add(target)

    def close_soon(self, make: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Run a coroutine if there is a loop, on which something may be open."""
        if self._thread is not None:
            with suppress(ClosedError):
                self._thread.start(make)

    def exit(self) -> None:
        with self._lock:
            self._exiting = True
            thread = self._thread
        if thread is None:
            return
        targets = list(self._to_close)

        async def close_all() -> None:
            with suppress(TimeoutError):
                async with asyncio.timeout(EXIT_SECONDS):
                    await asyncio.gather(*(target.aclose() for target in targets), return_exceptions=True)

        with suppress(ClosedError):
            thread.call(close_all)
        thread.close()


class Closer:
    """Refers to what must be closed on the loop: when the last reference to this is deleted, ``close`` runs there.

    The garbage collector may run in any thread.
    """

    __slots__ = ("__weakref__", "_finalizer")

    def __init__(self, close: Callable[[], Coroutine[Any, Any, object]]) -> None:
        self._finalizer = weakref.finalize(self, shared.close_soon, close)
        self._finalizer.atexit = False

    def detach(self) -> None:
        """Do not close it."""
        self._finalizer.detach()


shared = _Shared()
atexit.register(shared.exit)


def run(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run a coroutine on the loop, and return its result or raise its error."""
    return shared.thread.call(make)


def close(make: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Run a coroutine that closes something, also if this thread is interrupted.

    At the interpreter's exit, everything on the loop is closed already.
    """
    with suppress(ClosedError):
        shared.thread.call(make, cancel=False)


def run_with_progress(make: Callable[[OnProgress | None], Coroutine[Any, Any, T]], on_progress: OnProgress | None) -> T:
    """Run a coroutine like :func:`run`, and call ``on_progress`` in this thread."""
    if on_progress is None:
        return shared.thread.call(lambda: make(None))
    inbox: SimpleQueue[Any] = SimpleQueue()
    return shared.thread.call(lambda: make(inbox.put), inbox=inbox, report=on_progress)
