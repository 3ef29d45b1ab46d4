"""Limits on the requests and tokens of a minute."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable

MINUTE = 60.0


class RateLimit:
    """At most ``requests`` requests and ``tokens`` tokens in any minute.

    The tokens of a request are not known before its answer. A request is sent while the tokens of the last minute, those
    of the answers and an estimate for each request in flight, leave room for one more estimate: the average so far.

    Args:
        requests: Requests in a minute, None for any number.
        tokens: Tokens of prompts and answers in a minute, None for any number.
        clock: Seconds that only grow.
    """

    def __init__(
        self, requests: int | None, tokens: int | None, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._requests = requests
        self._tokens = tokens
        self._clock = clock
        self._sent: deque[float] = deque()
        self._used: deque[tuple[float, int]] = deque()
        self._used_sum = 0
        self._in_flight = 0
        self._answers = self._answer_tokens = 0
        self._changed = asyncio.Event()

    async def acquire(self) -> None:
        """Wait until another request may be sent, and count it."""
        while (delay := self._delay()) > 0:
            self._changed.clear()
            try:
                async with asyncio.timeout(delay):
                    await self._changed.wait()
            except TimeoutError:
                pass
        self._sent.append(self._clock())
        self._in_flight += 1

    def release(self, tokens: int) -> None:
        """Count the tokens of a request that has ended: 0 after an error."""
        self._in_flight -= 1
        if tokens:
            self._used.append((self._clock(), tokens))
            self._used_sum += tokens
            self._answers += 1
            self._answer_tokens += tokens
        self._changed.set()

    def _delay(self) -> float:
        now = self._clock()
        while self._sent and self._sent[0] <= now - MINUTE:
            self._sent.popleft()
        while self._used and self._used[0][0] <= now - MINUTE:
            self._used_sum -= self._used.popleft()[1]
        if self._requests is not None and len(self._sent) >= self._requests:
            return self._sent[len(self._sent) - self._requests] + MINUTE - now
        if self._tokens is None:
            return 0.0
        if not self._answers:  # nothing is known of the size of an answer
            return MINUTE if self._in_flight else 0.0
        estimate = self._answer_tokens / self._answers
        excess = self._used_sum + (self._in_flight + 1) * estimate - self._tokens
        if excess <= 0 or not (self._used or self._in_flight):
            return 0.0
        freed = 0
        for at, tokens in self._used:
            freed += tokens
            if freed >= excess:
                return max(at + MINUTE - now, 0.001)
        return MINUTE
