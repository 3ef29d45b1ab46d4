"""Deadlines of waits for a server, which end when their time is over or the client is closed. Knows no server and no
error of one.

One timer for all waits of a client. asyncio.timeout makes and cancels one for each request, for a time that next to
never passes; here a wait that ends before its time leaves the timer alone, which then finds nothing to do.
"""

from __future__ import annotations

import asyncio
from types import TracebackType

from ctxbackends.errors import ClosedError

_CLOSED = "this registry or backend is closed"
_GROUP_SECONDS = 0.01


class Deadlines:
    """Those of one client, on one event loop after another."""

    __slots__ = ("_due", "_loop", "_timer", "active", "closed")

    def __init__(self) -> None:
        self.closed = False
        self.active: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    def limit(self, seconds: float | None = None) -> Deadline:
        """Return a context for everything that waits for a server. It raises TimeoutError when the time is over (None:
        there is no limit), and ClosedError after :meth:`close`."""
        return Deadline(self, seconds)

    def close(self) -> None:
        """End all of them at once, and those that begin later at their beginning."""
        self.closed = True
        for deadline in list(self.active):
            loop = deadline.task.get_loop()
            if loop is asyncio.get_running_loop():
                deadline.end(ClosedError(_CLOSED))
            elif not loop.is_closed():
                loop.call_soon_threadsafe(deadline.end, ClosedError(_CLOSED))
        if self._timer is not None and self._loop is asyncio.get_running_loop():
            self._timer.cancel()
            self._timer = None

    def schedule(self, due: float, loop: asyncio.AbstractEventLoop) -> None:
        """See to it that there is a look at ``due``, or before."""
        if self._timer is not None and self._loop is loop:
            if self._due <= due:
                return
            self._timer.cancel()
        self._loop, self._due = loop, due
        self._timer = loop.call_at(due, self._check, loop)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        pending = [
            deadline for deadline in self.active if deadline.due is not None and deadline.task.get_loop() is loop
        ]
        for deadline in pending:
            if deadline.due is not None and deadline.due <= now:
                deadline.end(TimeoutError())
        due_times = [deadline.due for deadline in pending if deadline.due is not None and deadline.due > now]
        if due_times:
            # Many that end one after another are ended in groups: each look goes through all that are left.
            self.schedule(max(min(due_times), now + _GROUP_SECONDS), loop)


class Deadline:
    """That of one task. It is ended as asyncio.timeout ends one: the task is cancelled, and the error comes out unless
    somebody else had cancelled the task as well."""

    __slots__ = ("_deadlines", "_error", "_prior_cancels", "_seconds", "due", "task")

    def __init__(self, deadlines: Deadlines, seconds: float | None) -> None:
        self._deadlines = deadlines
        self._seconds = seconds
        self._error: Exception | None = None
        self.due: float | None = None

    def __enter__(self) -> None:
        if self._deadlines.closed:
            raise ClosedError(_CLOSED)
        task = asyncio.current_task()
        assert task is not None, "only a task waits"
        self.task = task
        self._prior_cancels = task.cancelling()
        if self._seconds is not None:
            loop = task.get_loop()
            self.due = due = loop.time() + self._seconds
            self._deadlines.schedule(due, loop)
        self._deadlines.active.add(self)

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadlines.active.discard(self)
        if self._error is None:
            return
        if self.task.uncancel() <= self._prior_cancels and kind is asyncio.CancelledError:
            raise self._error from None

    def end(self, error: Exception) -> None:
        """On the task's own loop. Nothing happens where it is over by now."""
        if self._error is None and self in self._deadlines.active:
            self._error = error
            self.task.cancel()
