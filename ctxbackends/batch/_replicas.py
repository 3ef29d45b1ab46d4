"""The servers of a batch: which one is sent the next row, and which one is left out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from ctxbackends._client.backend import Backend
from ctxbackends.errors import BackendError


class Replica:
    """A server of a batch.

    Attributes:
        backend: The backend.
        limit: Requests at once.
        in_flight: Requests that are sent and not answered.
        paused_until: ``time.monotonic()`` before which nothing is sent, after a Retry-After.
        error: The error for which the server is left out, None while it answers.
    """

    def __init__(self, backend: Backend, limit: int) -> None:
        self.backend = backend
        self.limit = limit
        self.in_flight = 0
        self.paused_until = 0.0
        self.error: BackendError | None = None

    @property
    def load(self) -> float:
        """The share of the slots that is in use."""
        return self.in_flight / self.limit


class Replicas:
    """Servers of one model. The next row goes to the one that is least busy.

    A server that does not answer is left out, and probed until it is ready again. When none is left, :meth:`acquire`
    waits for their probes, and raises the last error when all of them have failed.

    Args:
        replicas: The servers.
        tasks: Runs the probes.
        on_change: Called when a server is left out, or is back.
    """

    def __init__(
        self, replicas: Sequence[Replica], tasks: asyncio.TaskGroup, on_change: Callable[[Replica], None]
    ) -> None:
        self._replicas = replicas
        self._tasks = tasks
        self._on_change = on_change
        self._changed = asyncio.Event()
        self._probes: dict[Replica, asyncio.Task[None]] = {}

    @property
    def capacity(self) -> int:
        """Requests at once, at all servers together."""
        return sum(replica.limit for replica in self._replicas)

    async def acquire(self) -> Replica:
        """Wait for a free slot, and take it at the least busy server.

        Raises:
            BackendError: No server answers any more.
        """
        while True:
            now = time.monotonic()
            ready = [replica for replica in self._replicas if replica.error is None]
            if not ready and not self._probes:
                error = self._replicas[-1].error
                assert error is not None, "a server is left out for an error"
                raise error
            free = [one for one in ready if one.in_flight < one.limit and one.paused_until <= now]
            if free:
                replica = min(free, key=lambda one: one.load)
                replica.in_flight += 1
                return replica
            paused = [one.paused_until - now for one in ready if one.paused_until > now]
            self._changed.clear()
            try:
                async with asyncio.timeout(min(paused, default=None)):
                    await self._changed.wait()
            except TimeoutError:
                pass

    def release(self, replica: Replica) -> None:
        """Give back a slot."""
        replica.in_flight -= 1
        self._changed.set()

    def pause(self, replica: Replica, seconds: float) -> None:
        """Send nothing more to a server for some time: it said Retry-After."""
        replica.paused_until = max(replica.paused_until, time.monotonic() + seconds)

    def exclude(self, replica: Replica, error: BackendError) -> None:
        """Leave out a server until it is ready again."""
        if replica.error is None:
            replica.error = error
            self._on_change(replica)
            self._probes[replica] = self._tasks.create_task(self._probe(replica))

    async def _probe(self, replica: Replica) -> None:
        try:
            while True:
                try:
                    await replica.backend.wait_ready()
                    break
                except BackendError as error:
                    replica.error = error
                    if all(other.error is not None for other in self._replicas):
                        return
                    await asyncio.sleep(1.0)  # another server goes on; this one may come back
            replica.error = None
            self._on_change(replica)
        finally:
            del self._probes[replica]
            self._changed.set()

    async def aclose(self) -> None:
        """End the probes."""
        for probe in [*self._probes.values()]:
            probe.cancel()
