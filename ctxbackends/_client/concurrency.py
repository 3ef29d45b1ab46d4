"""The limit on concurrent requests of one backend, configured or probed once.

A server with four slots processes four requests. A fifth would wait at the server while its first-token timeout runs;
the limiter makes it wait before it is sent instead, in arrival order.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from ctxbackends._client.slots import Release, Slots
from ctxbackends.errors import BackendError

SlotProbe: TypeAlias = Callable[[], Awaitable[int | None]]
"""Asks the server for its number of slots: None if it never tells, 0 if it does not tell now."""


class Limiter:
    """Limits the concurrent requests of one backend, over all event loops and threads of the process together.

    Args:
        limit: The configured number of requests, None to ask the server.
        probe: Asks the server.
    """

    def __init__(self, limit: int | None = None, *, probe: SlotProbe | None = None) -> None:
        self._configured = limit
        self._slots = Slots(limit)
        self._probe = probe
        self._is_known = limit is not None or probe is None
        self._probing: dict[asyncio.AbstractEventLoop, asyncio.Future[BackendError | None]] = {}

    @property
    def limit(self) -> int | None:
        """The number of requests at once, None for any number."""
        return self._slots.limit

    @property
    def is_unlimited(self) -> bool:
        """Whether there is no limit, and no need to ask for one."""
        return self._is_known and self._slots.limit is None

    # --- the limit --------------------------------------------------------------------------------

    def set_limit(self, limit: int | None) -> None:
        """Set the limit from the server, None if it never tells one.

        A configured limit stays. Numbers below one are ignored.
        """
        if self._configured is not None or (limit is not None and limit < 1):
            return
        self._slots.resize(limit)
        self._is_known = True

    def invalidate(self) -> None:
        """Ask the server again: it went away, or has loaded another model."""
        self._is_known = self._configured is not None or self._probe is None

    async def _probe_limit(self, probe: SlotProbe) -> None:
        """Ask once for all tasks of a loop that wait. Each of them gets the error of a probe that fails."""
        loop = asyncio.get_running_loop()
        probing = self._probing.get(loop)
        if probing is not None:
            await asyncio.wait([probing])
            if probing.cancelled():
                await self._probe_limit(probe)
            elif (probe_error := probing.result()) is not None:
                # A copy for each task: one error raised in a thousand tasks would collect all their frames.
                raise copy.copy(probe_error) from probe_error.__cause__
            return
        probing = self._probing[loop] = loop.create_future()
        try:
            self.set_limit(await probe())
            probing.set_result(None)
        except BackendError as error:
            probing.set_result(error)
            raise
        finally:
            self._probing.pop(loop, None)
            probing.cancel()  # if still pending: the task was cancelled, and the next one asks

    # --- slots ------------------------------------------------------------------------------------

    async def acquire(self, on_wait: Callable[[], None] | None = None) -> Release:
        """Acquire a slot. Return an idempotent release callback, or raise the error of the probe.

        ``on_wait`` is called if no slot is free.
        """
        if not self._is_known and self._probe is not None:
            await self._probe_limit(self._probe)
        return await self._slots.acquire(on_wait)
