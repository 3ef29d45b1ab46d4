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
Look: TypeAlias = Callable[[], Awaitable[int | None]]
"""Asks the server how many it works on at once: None where it does not tell, 0 where it does not tell now."""


def _nothing() -> None:
    return None


class Limiter:
    """``limit``: what the configuration says, None where it leaves it to the server, which ``look`` asks.

    One for all event loops on which a backend is used, one loop after another.
    """

    def __init__(self, limit: int | None = None, *, look: Look | None = None) -> None:
        self._given = limit
        self._limit = limit
        self._look = look
        self._known = limit is not None or look is None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._places: anyio.CapacityLimiter | None = None
        self._asking: asyncio.Future[BackendError | None] | None = None

    @property
    def limit(self) -> int | None:
        """How many there may be at once; None for any number."""
        return self._limit

    @property
    def is_unlimited(self) -> bool:
        """Whether everybody may go on: there is no limit, and nothing to ask for one."""
        return self._known and self._limit is None

    # --- how many ---------------------------------------------------------------------------------

    def set_limit(self, told: int | None) -> None:
        """What the server tells: how many, or None where it never does. What is configured stands, and a number below
        one tells nothing."""
        if self._given is not None or (told is not None and told < 1):
            return
        self._known = True
        self._limit = told
        if told is not None and self._places is not None and self._loop is asyncio.get_running_loop():
            self._places.total_tokens = told

    def invalidate(self) -> None:
        """The server went away, or holds another model now: it is asked anew."""
        self._known = self._given is not None or self._look is None

    async def _ask(self, look: Look) -> None:
        """Ask once for all who come meanwhile. An error of the look is one for each of them."""
        loop = asyncio.get_running_loop()
        asking = self._asking
        if asking is not None and asking.get_loop() is loop:
            await asyncio.wait([asking])
            if asking.cancelled():
                await self._ask(look)
            elif (failed := asking.result()) is not None:
                # One for each: an error that is raised in a thousand tasks would gather all of their frames.
                raise copy.copy(failed) from failed.__cause__
            return
        asking = self._asking = loop.create_future()
        try:
            self.set_limit(await look())
            asking.set_result(None)
        except BackendError as error:
            asking.set_result(error)
            raise
        finally:
            self._asking = None
            asking.cancel()  # where it is still open: who asked was cancelled, and leaves it to the next

    # --- a place ----------------------------------------------------------------------------------

    async def acquire(self) -> Release:
        """Wait for a place, and return what gives it back, which may be called more than once. Raises what the look at
        the server raises."""
        if not self._known and self._look is not None:
            await self._ask(self._look)
        if self._limit is None:
            return _nothing
        loop = asyncio.get_running_loop()
        places = self._places
        if places is None or self._loop is not loop:
            places = self._places = anyio.CapacityLimiter(self._limit)
            self._loop = loop
        place = _Place(places, loop)
        try:
            places.acquire_on_behalf_of_nowait(place)  # without a trip through the event loop
        except anyio.WouldBlock:
            await places.acquire_on_behalf_of(place)
        return place.release


class _Place:
    """Taken by a request, and not by its task: one task may have several."""

    __slots__ = ("_loop", "_places")

    def __init__(self, places: anyio.CapacityLimiter, loop: asyncio.AbstractEventLoop) -> None:
        self._places: anyio.CapacityLimiter | None = places
        self._loop = loop

    def release(self) -> None:
        places, self._places = self._places, None
        if places is None or self._loop.is_closed():
            return
        if _running_loop() is self._loop:
            places.release_on_behalf_of(self)
        else:  # the garbage collector may run in any thread
            self._loop.call_soon_threadsafe(places.release_on_behalf_of, self)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
