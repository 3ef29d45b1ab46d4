"""Waits for a server that can be ended from outside: because their time is over, or because the client is closed. Knows
no server and no error of one.

One timer for all waits of a client. asyncio.timeout makes and cancels one for each request, for a time that next to
never passes; here a wait that ends before its time leaves the timer alone, which then finds nothing to do.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from ctxbackends.errors import ClosedError

_CLOSED = "this registry or backend is closed"
_TOGETHER = 0.01


class Waits:
    """Those of one client, on one event loop after another."""

    __slots__ = ("_due", "_loop", "_timer", "closed", "open")

    def __init__(self) -> None:
        self.closed = False
        self.open: set[Wait] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    def wait(self, seconds: float | None = None) -> Wait:
        """``with waits.wait(seconds):`` around everything that waits for a server. What comes out is TimeoutError when
        the time is over (None: there is no limit), and ClosedError after :meth:`close`."""
        return Wait(self, seconds)

    def close(self) -> None:
        """End all of them at once, and those that begin later at their beginning."""
        self.closed = True
        for wait in list(self.open):
            loop = wait.task.get_loop()
            if loop is asyncio.get_running_loop():
                wait.end(ClosedError(_CLOSED))
            elif not loop.is_closed():
                loop.call_soon_threadsafe(wait.end, ClosedError(_CLOSED))
        if self._timer is not None and self._loop is asyncio.get_running_loop():
            self._timer.cancel()
            self._timer = None

    def watch(self, due: float, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that there is a look at ``due``, or before."""
        if self._timer is not None and self._loop is loop:
            if self._due <= due:
                return
            self._timer.cancel()
        self._loop, self._due = loop, due
        self._timer = loop.call_at(due, self._look, loop)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        left = [wait for wait in self.open if wait.due is not None and wait.task.get_loop() is loop]
        for wait in left:
            if wait.due is not None and wait.due <= now:
                wait.end(TimeoutError())
        nexts = [wait.due for wait in left if wait.due is not None and wait.due > now]
        if nexts:
            # Many that end one after another are ended in groups: each look goes through all that are left.
            self.watch(max(min(nexts), now + _TOGETHER), loop)


class Wait:
    """One task's wait. It is ended as asyncio.timeout ends one: the task is cancelled, and the error comes out unless
    somebody else had cancelled the task as well."""

    __slots__ = ("_cancelling", "_end", "_seconds", "_waits", "due", "task")

    def __init__(self, waits: Waits, seconds: float | None) -> None:
        self._waits = waits
        self._seconds = seconds
        self._end: Exception | None = None
        self.due: float | None = None

    def __enter__(self) -> None:
        if self._waits.closed:
            raise ClosedError(_CLOSED)
        task = asyncio.current_task()
        assert task is not None, "only a task waits"
        self.task = task
        self._cancelling = task.cancelling()
        if self._seconds is not None:
            loop = task.get_loop()
            self.due = due = loop.time() + self._seconds
            self._waits.watch(due, loop)
        self._waits.open.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._waits.open.discard(self)
        if self._end is None:
            return
        if self.task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._end from None

    def end(self, error: Exception) -> None:
        """On the task's own loop. Nothing happens where it is over by now."""
        if self._end is None and self in self._waits.open:
            self._end = error
            self.task.cancel()
