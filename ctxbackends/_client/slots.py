"""Slots that the tasks of all event loops and threads of the process share."""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict, deque
from collections.abc import Callable
from typing import TypeAlias

from ctxbackends._util.event_loops import call_on
from ctxbackends._util.forks import reset_in_child

Release: TypeAlias = Callable[[], None]


def _release_nothing() -> None:
    return None


class Slots:
    """A semaphore over event loops: the task that has waited longest gets the next slot.

    A loop that does not run is passed over until it runs again, and the slots of a closed loop are free.

    Args:
        limit: The number of slots, None for any number, which are not counted.

    Attributes:
        limit: The number of slots. Set it with :meth:`resize`.
    """

    __slots__ = ("__weakref__", "_in_use", "_in_use_by", "_lock", "_released", "_waiting", "limit")

    def __init__(self, limit: int | None) -> None:
        self.limit = limit
        self.reset_after_fork()
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """Forget the claims of the parent process."""
        # For bookkeeping only. The garbage collector may release a claim while its thread has the lock. So a release
        # does not wait for the lock: whoever has it looks for released claims afterwards.
        self._lock = threading.Lock()
        self._released: deque[_Claim] = deque()
        self._waiting: OrderedDict[_Claim, None] = OrderedDict()
        self._in_use = 0
        self._in_use_by: dict[asyncio.AbstractEventLoop, int] = {}

    def resize(self, limit: int | None) -> None:
        """Set the number of slots. Tasks that have one keep it."""
        with self._lock:
            self.limit = limit
            self._admit()
        self._settle()

    async def acquire(self, on_wait: Callable[[], None] | None = None) -> Release:
        """Wait for a slot. Return its release callback, which is idempotent and may be called in any thread.

        ``on_wait`` is called if no slot is free.
        """
        claim = _Claim(self, asyncio.get_running_loop())
        with self._lock:
            if self.limit is None:
                return _release_nothing
            if self._in_use < self.limit and not self._waiting:
                self._give_slot(claim)
            else:
                claim.future = claim.loop.create_future()
                self._waiting[claim] = None
                self._admit()
        if self._released:
            self._settle()
        if claim.future is not None:
            try:
                if on_wait is not None and not claim.has_slot:
                    on_wait()
                await claim.future
            except BaseException:
                claim.release()  # it may have the slot by now
                raise
        return claim.release

    def release(self, claim: _Claim) -> None:
        """Release the slot of ``claim``, or end its wait."""
        self._released.append(claim)
        self._settle()

    def _settle(self) -> None:
        while self._released and self._lock.acquire(blocking=False):
            try:
                self._admit()
            finally:
                self._lock.release()

    def _give_slot(self, claim: _Claim) -> None:
        claim.has_slot = True
        self._in_use += 1
        self._in_use_by[claim.loop] = self._in_use_by.get(claim.loop, 0) + 1

    def _admit(self) -> None:
        """Take back the released slots, and give the free ones to waiting tasks. Called with the lock."""
        while self._released:
            claim = self._released.popleft()
            if not claim.has_slot:
                self._waiting.pop(claim, None)
            elif claim.loop in self._in_use_by:
                self._in_use -= 1
                self._in_use_by[claim.loop] -= 1
                if not self._in_use_by[claim.loop]:
                    del self._in_use_by[claim.loop]  # with it, the reference to the loop
            claim.has_slot = False
        if self._waiting and not self._is_free():
            for loop in [loop for loop in self._in_use_by if loop.is_closed()]:
                self._in_use -= self._in_use_by.pop(loop)
        paused: list[_Claim] = []
        while self._waiting and self._is_free():
            claim, _ = self._waiting.popitem(last=False)
            if not claim.loop.is_running():
                paused.append(claim)
            elif call_on(claim.loop, claim.wake):
                self._give_slot(claim)
        for claim in reversed(paused):
            if claim.is_noted or call_on(claim.loop, self._resume, claim):  # else its loop is closed
                claim.is_noted = True
                self._waiting[claim] = None
                self._waiting.move_to_end(claim, last=False)

    def _is_free(self) -> bool:
        return self.limit is None or self._in_use < self.limit

    def _resume(self, claim: _Claim) -> None:
        """Called when the loop of a waiting task runs again."""
        with self._lock:
            claim.is_noted = False
            self._admit()
        self._settle()


class _Claim:
    """A slot, or the wait for one. It belongs to a request and not to its task, which may have several."""

    __slots__ = ("_slots", "future", "has_slot", "is_noted", "loop")

    def __init__(self, slots: Slots, loop: asyncio.AbstractEventLoop) -> None:
        self._slots = slots
        self.loop = loop
        self.future: asyncio.Future[None] | None = None
        self.has_slot = False
        self.is_noted = False

    def release(self) -> None:
        self._slots.release(self)

    def wake(self) -> None:
        if self.future is not None and not self.future.done():
            self.future.set_result(None)
