"""The servers of a batch: which one is sent the next row, and which one is left out."""

from __future__ import annotations

import asyncio
import copy
import time
from collections import deque
from collections.abc import Callable, Sequence

from ctxbackends._client.backend import Backend
from ctxbackends.errors import BackendError

MAX_IN_FLIGHT = 32
"""Requests at once at a server that does not report its slots."""
MAX_PROBE_DELAY = 5.0
"""Seconds. The pauses between the probes of a server that is left out double up to this one."""
FIRST_PROBE_DELAY = 0.05
MAX_RETURNS = 120.0
"""Seconds after which a server that is ready, and answers no row, counts as failed."""


class Replica:
    """A server of a batch.

    Attributes:
        backend: The backend.
        limit: Requests at once.
        in_flight: Requests that are sent and not answered.
        paused_until: ``time.monotonic()`` before which nothing is sent, after a Retry-After.
        error: The error for which the server is left out, None while it answers.
        has_failed: Whether it was probed for its whole ``ready_timeout`` since it was left out.
        exclusions: How often it was left out since it last answered.
        excluded_at: ``time.monotonic()`` of the first of these.
    """

    __slots__ = (
        "backend",
        "error",
        "excluded_at",
        "exclusions",
        "has_failed",
        "in_flight",
        "limit",
        "paused_until",
        "timer",
        "wake",
    )

    def __init__(self, backend: Backend, limit: int) -> None:
        self.backend = backend
        self.limit = limit
        self.in_flight = 0
        self.paused_until = 0.0
        self.error: BackendError | None = None
        self.has_failed = False
        self.exclusions = 0
        self.excluded_at = 0.0
        self.timer: asyncio.TimerHandle | None = None
        self.wake = asyncio.Event()

    @property
    def load(self) -> float:
        """The share of the slots that is in use."""
        return self.in_flight / self.limit

    @property
    def is_open(self) -> bool:
        """Whether it can be sent requests: it answers, and is not paused."""
        return self.error is None and self.timer is None


class Replicas:
    """Servers of one model. The next row goes to the one that is least busy; rows wait in their order.

    A server that does not answer is left out, and probed until it is ready again. When all are left out,
    :meth:`acquire` waits for them, and raises the last error when none was ready within its ``ready_timeout``.

    Args:
        replicas: The servers.
        on_change: Called when a server is left out, or is back.
    """

    def __init__(self, replicas: Sequence[Replica], on_change: Callable[[Replica], None]) -> None:
        self._replicas = tuple(replicas)
        self._on_change = on_change
        self._waiting: deque[asyncio.Future[Replica]] = deque()
        self._probes: dict[Replica, asyncio.Task[None]] = {}
        self._failure: Exception | None = None

    @property
    def capacity(self) -> int:
        """Requests at once, at all servers together."""
        return sum(replica.limit for replica in self._replicas)

    # --- slots ------------------------------------------------------------------------------------

    async def acquire(self) -> Replica:
        """Wait for a free slot, and take it at the least busy server.

        Raises:
            BackendError: No server answers any more.
        """
        if self._failure is not None:
            raise _copy(self._failure)
        if not self._waiting and (replica := self._find_free()) is not None:
            replica.in_flight += 1
            return replica
        future: asyncio.Future[Replica] = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled() and future.exception() is None:  # it has the slot by now
                self.release(future.result())
            raise

    def release(self, replica: Replica) -> None:
        """Give back a slot."""
        replica.in_flight -= 1
        if replica.error is None:
            replica.exclusions = 0  # it was not this request that excluded it
        if self._waiting:
            self._admit()

    def _find_free(self) -> Replica | None:
        free = None
        least = 1.0
        for replica in self._replicas:
            if replica.error is None and replica.timer is None and replica.in_flight < least * replica.limit:
                free, least = replica, replica.in_flight / replica.limit
        return free

    def _admit(self) -> None:
        """Give the free slots to the tasks that wait."""
        while self._waiting:
            if self._waiting[0].done():  # cancelled
                self._waiting.popleft()
                continue
            replica = self._find_free()
            if replica is None:
                return
            replica.in_flight += 1
            self._waiting.popleft().set_result(replica)

    # --- Retry-After ------------------------------------------------------------------------------

    def pause(self, replica: Replica, seconds: float) -> None:
        """Send nothing more to a server for some time, as its Retry-After asks."""
        until = time.monotonic() + seconds
        if until <= replica.paused_until:
            return
        replica.paused_until = until
        if replica.timer is not None:
            replica.timer.cancel()
        replica.timer = asyncio.get_running_loop().call_later(seconds, self._resume, replica)

    def _resume(self, replica: Replica) -> None:
        replica.timer = None
        self._admit()

    # --- servers that do not answer ---------------------------------------------------------------

    def exclude(self, replica: Replica, error: BackendError) -> None:
        """Leave out a server until it is ready again."""
        if replica.error is not None:
            return
        replica.error = error
        replica.has_failed = False
        if not replica.exclusions:
            replica.excluded_at = time.monotonic()
        replica.exclusions += 1
        self._probes[replica] = asyncio.create_task(self._probe(replica))
        if all(other.error is not None for other in self._replicas):
            for other in self._replicas:  # the others may be ready by now
                if other is not replica:
                    other.has_failed = False
                    other.wake.set()
        self._on_change(replica)

    async def _probe(self, replica: Replica) -> None:
        """Wait until a server is ready. It is probed before its first pause, unless it was ready without an answer."""
        delay = FIRST_PROBE_DELAY
        try:
            for _ in range(1, replica.exclusions):
                delay = min(2 * delay, MAX_PROBE_DELAY)
            if replica.exclusions > 1:
                await self._sleep(replica, delay)
            while not await self._is_ready(replica):
                replica.has_failed = True
                if all(other.has_failed for other in self._replicas):
                    assert replica.error is not None, "a server is left out for an error"
                    self._fail(replica.error)
                    return
                await self._sleep(replica, delay)
                delay = min(2 * delay, MAX_PROBE_DELAY)
        except Exception as error:
            self._fail(error)
            return
        finally:
            self._probes.pop(replica, None)
        replica.error = None
        replica.has_failed = False
        self._on_change(replica)
        self._admit()

    async def _is_ready(self, replica: Replica) -> bool:
        try:
            await replica.backend.wait_ready()
        except BackendError as error:
            replica.error = error
            return False
        return replica.exclusions == 1 or time.monotonic() - replica.excluded_at < MAX_RETURNS

    async def _sleep(self, replica: Replica, seconds: float) -> None:
        replica.wake.clear()
        try:
            async with asyncio.timeout(seconds):
                await replica.wake.wait()
        except TimeoutError:
            pass

    def _fail(self, error: Exception) -> None:
        self._failure = error
        for future in self._waiting:
            if not future.done():
                future.set_exception(_copy(error))
        self._waiting.clear()

    async def aclose(self) -> None:
        """End the probes and the pauses."""
        for replica in self._replicas:
            if replica.timer is not None:
                replica.timer.cancel()
        probes = [*self._probes.values()]
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)


def _copy(error: Exception) -> Exception:
    """Return a copy: one error raised in a thousand tasks would collect all their frames."""
    one = copy.copy(error)
    one.__cause__ = error.__cause__
    return one
