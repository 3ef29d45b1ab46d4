"""The limit on concurrent requests of one backend: configured, or probed once for all waiting requests.

A server with four slots processes four requests. A fifth would wait at the server while its first-token timeout runs;
the limiter makes it wait before it is sent instead, in arrival order.
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
"""Asks the server for its number of slots: None if it never tells, 0 if it does not tell now."""


def _release_nothing() -> None:
    return None


class Limiter:
    """Limits the concurrent requests of one backend, on one event loop after another.

    Args:
        limit: The configured number of requests, None to ask the server.
        probe: Asks the server.
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
        """The number of requests at once, None for any number."""
        return self._limit

    @property
    def is_unlimited(self) -> bool:
        """Whether there is no limit, and no need to ask for one."""
        return self._is_known and self._limit is None

    # --- the limit --------------------------------------------------------------------------------

    def set_limit(self, limit: int | None) -> None:
        """Set the limit from the server, None if it never tells one.

        A configured limit stays. Numbers below one are ignored.
        """
        if self._configured is not None or (limit is not None and limit < 1):
            return
        self._is_known = True
        self._limit = limit
        if limit is not None and self._slots is not None and self._loop is asyncio.get_running_loop():
            self._slots.total_tokens = limit

    def invalidate(self) -> None:
        """Ask the server again: it went away, or has loaded another model."""
        self._is_known = self._configured is not None or self._probe is None

    async def _probe_limit(self, probe: SlotProbe) -> None:
        """Ask once for all tasks that wait. Each of them gets the error of a probe that fails."""
        loop = asyncio.get_running_loop()
        probing = self._probing
        if probing is not None and probing.get_loop() is loop:
            await asyncio.wait([probing])
            if probing.cancelled():
                await self._probe_limit(probe)
            elif (probe_error := probing.result()) is not None:
                # A copy for each task: one error raised in a thousand tasks would collect all their frames.
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
            probing.cancel()  # if still pending: the task was cancelled, and the next one asks

    # --- slots ------------------------------------------------------------------------------------

    async def acquire(self, on_wait: Callable[[], None] | None = None) -> Release:
        """Acquire a slot. Return an idempotent release callback, or raise the error of the probe.

        ``on_wait`` is called if no slot is free.
        """
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
            if on_wait is not None:
                on_wait()
            await slots.acquire_on_behalf_of(slot)
        return slot.release


class _Slot:
    """A slot, owned by a request and not by its task, which may own several."""

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
