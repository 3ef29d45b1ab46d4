"""The servers of a batch: which one is sent the next row, and which one is left out."""

from __future__ import annotations

import asyncio
import copy
from collections import deque
from collections.abc import Callable, Sequence

from ctxbackends._client.server_limits import have_same_account
from ctxbackends.batch._replica import Replica
from ctxbackends.errors import BackendError

FIRST_PROBE_DELAY = 0.05
MAX_PROBE_DELAY = 5.0
"""Seconds. The pauses between the probes of a server that is left out double up to this one."""
FIRST_INTERVAL = 0.05
MAX_INTERVAL = 5.0
"""Seconds between two requests to a server that is too busy and sends no Retry-After. They double up to this one."""
INTERVAL_DECAY = 0.95
"""The factor of the interval after each answer, so that about one request of 14 is too early."""
MIN_INTERVAL = 0.01
"""Seconds. The shortest interval; a shorter one is none."""
MAX_PAUSE = 3600.0
"""Seconds. A batch whose servers all ask for a longer pause ends."""
REPEATED_PAUSE = 30.0
"""Seconds. A Retry-After that was too short is doubled up to this pause."""


class Replicas:
    """Servers of one model. The next row goes to the one that is least busy; rows wait in their order.

    A server that does not answer is left out, and probed until it is ready again. When all are left out,
    :meth:`acquire` waits for them, and raises the last error when none was ready within its ``ready_timeout``.

    Args:
        replicas: The servers.
        on_change: Called when a server is left out or paused, and when it is back.
        on_pause: Called after each Retry-After with the server, the seconds of its pause, and the error.
    """

    def __init__(
        self,
        replicas: Sequence[Replica],
        on_change: Callable[[Replica], None],
        on_pause: Callable[[Replica, float, BackendError], None] = lambda *_: None,
    ) -> None:
        self._replicas = tuple(replicas)
        self._on_change = on_change
        self._on_pause = on_pause
        self._waiting: deque[asyncio.Future[Replica]] = deque()
        self._rejected = 0  # those at the head of the queue that wait first
        self._probes: dict[Replica, asyncio.Task[None]] = {}
        self._failure: Exception | None = None

    @property
    def has_failed(self) -> bool:
        """Whether no server answers any more."""
        return self._failure is not None

    @property
    def capacity(self) -> int:
        """Requests at once, at all servers together."""
        return sum(replica.limit for replica in self._replicas)

    # --- slots ------------------------------------------------------------------------------------

    async def acquire(self, *, first: bool = False) -> Replica:
        """Wait for a free slot, and take it at the least busy server.

        Args:
            first: Wait before the others: the row was rejected, and would be again and again behind all others.

        Raises:
            BackendError: No server answers any more.
        """
        if self._failure is not None:
            raise _copy(self._failure)
        if (replica := self.take_free()) is not None:
            return replica
        future: asyncio.Future[Replica] = asyncio.get_running_loop().create_future()
        if first:  # behind those that were rejected earlier
            self._waiting.insert(self._rejected, future)
            self._rejected += 1
        else:
            self._waiting.append(future)
        try:
            return await future
        except asyncio.CancelledError:
            if not future.cancelled() and future.exception() is None:  # it has the slot by now
                self.release(future.result())
            raise

    def take_free(self) -> Replica | None:
        """Take a slot at the least busy server. Return None if none is free, or others wait."""
        if self._waiting or self._failure is not None or (replica := self._find_free()) is None:
            return None
        return self._take(replica)

    def release(self, replica: Replica) -> None:
        """Give back a slot."""
        replica.in_flight -= 1
        replica.update_limit()
        if replica.window < replica.limit and replica.is_open:
            replica.window = min(replica.limit, replica.window + 1 / replica.window)
        if replica._interval:
            replica._interval *= INTERVAL_DECAY ** (replica.answers - replica._interval_answers)
            replica._interval_answers = replica.answers
            if replica._interval < MIN_INTERVAL:
                replica._interval = 0.0
        if self._waiting:
            self._admit()

    def _take(self, replica: Replica) -> Replica:
        replica.in_flight += 1
        if replica._interval:
            replica._next_at = _now() + replica._interval
        return replica

    def _find_free(self) -> Replica | None:
        free = None
        least = 1.0
        for replica in self._replicas:
            load = replica.in_flight / replica.limit
            if load < least and replica.in_flight + 1 <= replica.window and replica.is_open and self._is_due(replica):
                free, least = replica, load
        return free

    def _is_due(self, replica: Replica) -> bool:
        """Return whether the interval since the last request is over, and set the timer if it is not."""
        if not replica._interval or replica._next_at <= _now():
            return True
        if replica._interval_timer is None:
            replica._interval_timer = asyncio.get_running_loop().call_at(replica._next_at, self._end_interval, replica)
        return False

    def _end_interval(self, replica: Replica) -> None:
        replica._interval_timer = None
        self._admit()

    def _admit(self) -> None:
        """Give the free slots to the tasks that wait."""
        while self._waiting:
            if self._waiting[0].done():  # cancelled
                self._pop_waiting()
                continue
            replica = self._find_free()
            if replica is None:
                return
            self._pop_waiting().set_result(self._take(replica))

    def _pop_waiting(self) -> asyncio.Future[Replica]:
        self._rejected = max(0, self._rejected - 1)
        return self._waiting.popleft()

    # --- servers that are busy --------------------------------------------------------------------

    def slow_down(self, replica: Replica) -> None:
        """Send requests at longer intervals: the server is too busy, and does not say for how long."""
        now = _now()
        if now < replica._slows_at:  # a response to a request of the same moment
            return
        replica._interval = min(max(2 * replica._interval, FIRST_INTERVAL), MAX_INTERVAL)
        replica._interval_answers = replica.answers
        replica._next_at = now + replica._interval
        replica._slows_at = now + 2 * replica._interval

    def pause(self, replica: Replica, seconds: float, error: BackendError) -> None:
        """Send nothing to a server for some time, as its Retry-After asks.

        Other backends with its host, port and key are paused with it. The pause is longer if the server asks again
        before it has answered a row.

        Args:
            replica: The server.
            seconds: The Retry-After.
            error: The error of the response. It ends the batch if all servers ask for more than an hour.
        """
        for one in self._replicas:
            if have_same_account(one.backend, replica.backend):
                self._pause(one, seconds)
        self._on_pause(replica, replica._resumes_at - _now(), error)
        self._check_pauses(error)

    def share_pause(self, names: Sequence[str], seconds: float, error: BackendError) -> None:
        """Send nothing to servers for some time, since another process received a Retry-After."""
        for one in self._replicas:
            if one.backend.name in names:
                self._pause(one, seconds, is_shared=True)
        self._check_pauses(error)

    def _check_pauses(self, error: BackendError) -> None:
        now = _now()
        if all(one.is_paused and one._resumes_at - now > MAX_PAUSE for one in self._replicas):
            self._fail(error)

    def _pause(self, replica: Replica, seconds: float, *, is_shared: bool = False) -> None:
        replica.note_answers()
        if not replica.is_paused:  # the other responses of the same moment say it again
            replica.window = max(1.0, min(replica.window / 2, replica.answers - replica._paused_answers))
            replica._paused_answers = replica.answers
            if not is_shared:  # else the other process has doubled it
                seconds = max(seconds, min(seconds * 2**replica._pauses, REPEATED_PAUSE))
            replica._pauses = min(replica._pauses + 1, 30)
        resumes_at = _now() + seconds
        if replica._timer is not None:
            if resumes_at <= replica._resumes_at:
                return
            replica._timer.cancel()
        replica._resumes_at = resumes_at
        was_paused = replica.is_paused
        replica._timer = asyncio.get_running_loop().call_later(seconds, self._resume, replica)
        if not was_paused:
            self._on_change(replica)

    def _resume(self, replica: Replica) -> None:
        replica._timer = None
        self._on_change(replica)
        self._admit()

    # --- servers that do not answer ---------------------------------------------------------------

    def exclude(self, replica: Replica, error: BackendError) -> None:
        """Leave out a server until it is ready again.

        Args:
            replica: The server.
            error: Why. It ends the batch if no other server answers, and this one is not ready in time.
        """
        if replica.error is not None or self._failure is not None:
            return
        replica.error = error
        replica.note_answers()
        replica._exclusions = min(replica._exclusions + 1, 30)
        if replica._exclusions == 1:
            replica._excluded_at = _now()
            if all(other.error is not None for other in self._replicas):
                for other in self._replicas:  # they may be ready by now
                    other._has_failed = False
                    other._wake.set()
        self._probes[replica] = asyncio.create_task(self._probe(replica))
        self._on_change(replica)

    async def _probe(self, replica: Replica) -> None:
        """Wait until a server is ready, and send it rows again."""
        delay = min(FIRST_PROBE_DELAY * 2**replica._exclusions, MAX_PROBE_DELAY)
        is_again = replica._exclusions > 1  # it was ready the last time, and did not answer
        try:
            if is_again:
                await asyncio.sleep(delay)
            while True:
                is_ready = await self._is_ready(replica)
                if not (is_ready and not is_again) and _now() - replica._excluded_at >= replica._patience:
                    replica._has_failed = True
                    if all(other._has_failed for other in self._replicas):
                        assert replica.error is not None, "a server is left out for an error"
                        self._fail(replica.error)
                        return
                if is_ready:
                    break
                replica._wake.clear()
                try:
                    async with asyncio.timeout(delay):
                        await replica._wake.wait()
                except TimeoutError:
                    delay = min(2 * delay, MAX_PROBE_DELAY)
        except Exception as error:  # noqa: BLE001  # raised to those that wait
            self._fail(error)
            return
        finally:
            self._probes.pop(replica, None)
        replica.error = None
        replica.update_limit()
        if is_again:
            replica.window = 1.0
        self._on_change(replica)
        self._admit()

    async def _is_ready(self, replica: Replica) -> bool:
        try:
            await replica.backend.wait_ready()
        except BackendError as error:
            replica.error = error
            return False
        return True

    def _fail(self, error: Exception) -> None:
        """Raise an error in all tasks that wait, and in those that follow."""
        self._failure = error
        for future in self._waiting:
            if not future.done():
                future.set_exception(_copy(error))
        self._waiting.clear()
        self._rejected = 0

    async def aclose(self) -> None:
        """End the probes and the pauses."""
        for replica in self._replicas:
            for timer in (replica._timer, replica._interval_timer):
                if timer is not None:
                    timer.cancel()
        probes = [*self._probes.values()]
        for probe in probes:
            probe.cancel()
        await asyncio.gather(*probes, return_exceptions=True)


def _now() -> float:
    return asyncio.get_running_loop().time()


def _copy(error: Exception) -> Exception:
    """Return a copy: one error raised in a thousand tasks would collect all their frames."""
    one = copy.copy(error)
    one.__cause__ = error.__cause__
    return one
