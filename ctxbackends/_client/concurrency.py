"""How many requests of one backend are at its server at once. Knows no request and no server: it is told how many, and
may ask for it once, for all who come meanwhile.

A server with four slots works on four requests; the fifth would wait there, with its time for the first token running.
Here it waits its turn before it is sent, in the order in which it came.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import TypeAlias

import anyio

from ctxbackends.errors import BackendError

Release: TypeAlias = Callable[[], None]
SlotProbe: TypeAlias = Callable[[], Awaitable[int | None]]
"""Asks the server how many it works on at once: None where it does not tell, 0 where it does not tell now."""


def _release_nothing() -> None:
    return None


class Limiter:
    """``limit``: what the configuration says, None where it leaves it to the server, which ``look`` asks.

    One for all event loops on which a backend is used, one loop after another.
    """

    def __init__(self, limit: int | None = None, *, probe: SlotProbe | None = None) -> None:
        self._configured = limit
        self._limit = limit
        self._probe = probe
        self._is_known = limit is not None or probe is None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._slots: anyio.CapacityLimiter | None = None
        self._probing: asyncio.Future[BackendError | None] | None = None

    @property
    def limit(self) -> int | None:
        """How many there may be at once; None for any number."""
        return self._limit

    @property
    def is_unlimited(self) -> bool:
        """Whether everybody may go on: there is no limit, and nothing to ask for one."""
        return self._is_known and self._limit is None

    # --- how many ---------------------------------------------------------------------------------

    def set_limit(self, limit: int | None) -> None:
        """What the server tells: how many, or None where it never does. What is configured stands, and a number below
        one tells nothing."""
        if self._configured is not None or (limit is not None and limit < 1):
            return
        self._is_known = True
        self._limit = limit
        if limit is not None and self._slots is not None and self._loop is asyncio.get_running_loop():
            self._slots.total_tokens = limit

    def invalidate(self) -> None:
        """The server went away, or holds another model now: it is asked anew."""
        self._is_known = self._configured is not None or self._probe is None

    async def _probe_limit(self, probe: SlotProbe) -> None:
        """Ask once for all who come meanwhile. An error of the look is one for each of them."""
        loop = asyncio.get_running_loop()
        probing = self._probing
        if probing is not None and probing.get_loop() is loop:
            await asyncio.wait([probing])
            if probing.cancelled():
                await self._probe_limit(probe)
            elif (probe_error := probing.result()) is not None:
                # One for each: an error that is raised in a thousand tasks would gather all of their frames.
                raise copy.copy(probe_error) from probe_error.__cause__
            return
        probing = self._probing = loop.create_future()
        try:
            self.set_limit(await probe())
            probing.set_result(None)
        except BackendError as error:
            probing.set_result(error)
            raise
        finally:
            self._probing = None
            probing.cancel()  # where it is still open: who asked was cancelled, and leaves it to the next

    # --- a place ----------------------------------------------------------------------------------

    async def acquire(self) -> Release:
        """Wait for a place, and return what gives it back, which may be called more than once. Raises what the look at
        the server raises."""
        if not self._is_known and self._probe is not None:
            await self._probe_limit(self._probe)
        if self._limit is None:
            return _release_nothing
        loop = asyncio.get_running_loop()
        slots = self._slots
        if slots is None or self._loop is not loop:
            slots = self._slots = anyio.CapacityLimiter(self._limit)
            self._loop = loop
        slot = _Slot(slots, loop)
        try:
            slots.acquire_on_behalf_of_nowait(slot)  # without a trip through the event loop
        except anyio.WouldBlock:
            await slots.acquire_on_behalf_of(slot)
        return slot.release


class _Slot:
    """Taken by a request, and not by its task: one task may have several."""

    __slots__ = ("_loop", "_slots")

    def __init__(self, slots: anyio.CapacityLimiter, loop: asyncio.AbstractEventLoop) -> None:
        self._slots: anyio.CapacityLimiter | None = slots
        self._loop = loop

    def release(self) -> None:
        slots, self._slots = self._slots, None
        if slots is None or self._loop.is_closed():
            return
        if _running_loop() is self._loop:
            slots.release_on_behalf_of(self)
        else:  # the garbage collector may run in any thread
            self._loop.call_soon_threadsafe(slots.release_on_behalf_of, self)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
