"""Limits on the requests and tokens of a minute."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

WINDOW = 60.5
"""Seconds. A minute, and the time that a request may take to the server: the first one opens a connection."""


class RateLimit:
    """At most so many requests and tokens in any minute. The task that has waited longest sends next.

    The tokens of a request are not known before its answer. A request is sent while the tokens of the last minute,
    those of the answers and an estimate for each request in flight, leave room for one more estimate: the average so
    far. Until the first answer, one request is sent at a time. A request that is larger than the limit is sent alone.

    Args:
        requests: Requests in a minute, None for any number.
        tokens: Tokens of prompts and answers in a minute, None for any number.
        closed_for: Seconds before the first request: what is left of the minute of a process that has ended.
        on_change: Called when tasks begin to wait, with True, and when none waits any more, with False.
        clock: Returns seconds that only grow.
    """

    def __init__(
        self,
        requests: int | None,
        tokens: int | None,
        *,
        closed_for: float = 0.0,
        on_change: Callable[[bool], None] = lambda _: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._requests = requests
        self._tokens = tokens
        self._clock = clock
        self.is_unlimited = requests is None and tokens is None
        self._sent: deque[float] = deque()
        self._used: deque[tuple[float, int]] = deque()
        self._used_sum = 0
        self._in_flight = 0
        self._answers = self._answer_tokens = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._opens_at = clock() + closed_for if closed_for else None
        self._on_change = on_change
        self._has_waiting = False

    async def acquire(self) -> None:
        """Wait until another request may be sent, and count it."""
        if self.is_unlimited:
            return
        if not self._waiting and self._delay() <= 0:
            self._count()
            return
        future = asyncio.get_running_loop().create_future()
        self._waiting.append(future)
        self._admit()
        try:
            await future
        except asyncio.CancelledError:
            if not future.cancelled():  # it was admitted; it counts as sent
                self.release(0)
            raise

    def release(self, tokens: int) -> None:
        """Count the tokens of a request that has ended: 0 after an error, and for one that was not sent."""
        if self.is_unlimited:
            return
        self._in_flight -= 1
        if tokens and self._tokens is not None:
            self._used.append((self._clock(), tokens))
            self._used_sum += tokens
            self._answers += 1
            self._answer_tokens += tokens
        self._admit()

    # --- who is next ------------------------------------------------------------------------------

    def _count(self) -> None:
        if self._requests is not None:
            self._sent.append(self._clock())
        self._in_flight += 1

    def _admit(self) -> None:
        """Wake the tasks that may send, and set the timer for the next one."""
        self._admit_due()
        if self._has_waiting != bool(self._waiting):
            self._has_waiting = not self._has_waiting
            self._on_change(self._has_waiting)

    def _admit_due(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiting:
            if self._waiting[0].done():  # cancelled
                self._waiting.popleft()
                continue
            delay = self._delay()
            if delay > 0:
                loop = asyncio.get_running_loop()
                self._timer = loop.call_later(max(delay, 0.001), self._admit)  # a clock may be coarse
                return
            self._count()
            self._waiting.popleft().set_result(None)

    def _delay(self) -> float:
        """Return the seconds until the next request may be sent, unless one in flight ends before."""
        now = self._clock()
        if self._opens_at is not None:
            if now < self._opens_at:
                return self._opens_at - now
            self._opens_at = None
        return max(self._delay_of_requests(now), self._delay_of_tokens(now))

    def _delay_of_requests(self, now: float) -> float:
        sent = self._sent
        while sent and sent[0] <= now - WINDOW:
            sent.popleft()
        if self._requests is None or len(sent) < self._requests:
            return 0.0
        return sent[-self._requests] + WINDOW - now

    def _delay_of_tokens(self, now: float) -> float:
        if self._tokens is None:
            return 0.0
        used = self._used
        while used and used[0][0] <= now - WINDOW:
            self._used_sum -= used.popleft()[1]
        if not used and not self._in_flight:
            return 0.0
        if not self._answers:  # nothing is known of the size of an answer
            return WINDOW
        estimate = self._answer_tokens / self._answers
        excess = self._used_sum + (self._in_flight + 1) * estimate - self._tokens
        if excess <= 0:
            return 0.0
        for at, tokens in used:
            excess -= tokens
            if excess <= 0:
                return at + WINDOW - now
        return WINDOW if self._in_flight else used[-1][0] + WINDOW - now  # it is larger than the limit
