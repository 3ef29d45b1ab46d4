"""Deadlines for waits for a server. They end when their time is over or when the client is closed.

All waits of a client on one loop share one timer. asyncio.timeout creates and cancels a timer for each request,
although it almost never fires; here a wait that ends in time leaves the timer alone, which then has nothing to do.
"""

from __future__ import annotations

import asyncio
from typing import Any

from ctxbackends.errors import ClosedError

_CLOSED = "this registry or backend is closed"
_GROUP_SECONDS = 0.01


class Deadlines:
    """The deadlines of one client on one event loop."""

    __slots__ = ("_due", "_timer", "active", "closed")

    def __init__(self) -> None:
        self.closed: bool = False
        self.active: set[Deadline] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._due = 0.0

    def limit(self, seconds: float | None = None) -> Deadline:
        """Return a context for a wait of at most ``seconds``, or without a limit.

        It raises TimeoutError when the time is over, and ClosedError after :meth:`close`.
        """
        return Deadline(self, seconds)

    def close(self) -> None:
        """End all active deadlines now, and later ones when they begin. Call this on the loop."""
        self.closed = True
        for deadline in list(self.active):
            deadline.end(ClosedError(_CLOSED))
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def schedule(self, due: float, loop: asyncio.AbstractEventLoop) -> None:
        """Schedule a check at ``due``, or keep an earlier one."""
        if self._timer is not None:
            if self._due <= due:
                return
            self._timer.cancel()
        self._due = due
        self._timer = loop.call_at(due, self._check, loop)

    def _check(self, loop: asyncio.AbstractEventLoop) -> None:
        self._timer = None
        now = loop.time()
        pending = [deadline for deadline in self.active if deadline.due is not None]
        for deadline in pending:
            if deadline.due is not None and deadline.due <= now:
                deadline.end(TimeoutError())
        due_times = [deadline.due for deadline in pending if deadline.due is not None and deadline.due > now]
        if due_times:
            # Deadlines close together end in groups, since each check visits all that are left.
            self.schedule(max(min(due_times), now + _GROUP_SECONDS), loop)


class Deadline:
    """The deadline of one task. It ends like asyncio.timeout.

    The task is cancelled, and the error is raised unless the task was cancelled from elsewhere as well.
    """

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
        self.task: asyncio.Task[Any] = task
        self._prior_cancels = task.cancelling()
        if self._seconds is not None:
            loop = task.get_loop()
            self.due = due = loop.time() + self._seconds
            self._deadlines.schedule(due, loop)
        self._deadlines.active.add(self)

    def __exit__(self, kind: object, value: BaseException | None, trace: object) -> None:
        self._deadlines.active.discard(self)
        if self._error is None:
            return
        if self.task.uncancel() <= self._prior_cancels and kind is asyncio.CancelledError:
            raise self._error from None

    def end(self, error: Exception) -> None:
        """Cancel the task, unless its wait is over. Call this on the task's own loop."""
        if self._error is None and self in self._deadlines.active:
            self._error = error
            self.task.cancel()
