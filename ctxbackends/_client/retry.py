"""When a failed request is retried. The only importer of tenacity.

There are two budgets. The cold start (``ready_timeout``) waits for a server that is not ready yet. The transient budget
retries requests that were certainly not processed a few times. tenacity is used only after a first attempt has failed.
Requests that may have been processed are never retried: a generation is a job on somebody's GPU.

A starting server is probed after 50 ms, then with growing gaps: up to 250 ms on this machine and in private networks,
and up to a second elsewhere and after the first two minutes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable
from typing import TypeVar

import attrs
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception

from ctxbackends._chat.events import Loading, OnProgress
from ctxbackends._chat.servers import LoadState
from ctxbackends._client.observation import current_observation
from ctxbackends.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BackendError,
    InsufficientQuotaError,
    ModelLoadFailedError,
    ModelLoadingError,
    RateLimitError,
    ServerDiedError,
    ServiceUnavailableError,
)

T = TypeVar("T")

FIRST_POLL = 0.05
POLL_GROWTH = 1.5
LOCAL_POLL = 0.25
REMOTE_POLL = 1.0
"""The longest gaps between two probes in seconds, for local (loopback or private) and remote addresses."""
LOCAL_POLL_FOR = 120.0
"""Seconds after which a local server is probed as rarely as a remote one."""
MAX_RETRIES = 2
MAX_BACKOFF = 30.0
"""Seconds. The delays double up to this one."""
RETRY_AFTER_CAP = 60.0

_logger = logging.getLogger("ctxbackends")
_logger.addHandler(logging.NullHandler())  # https://docs.python.org/3/howto/logging.html#library-config


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """The retry policy of one backend.

    Attributes:
        endpoint: The server's base URL, for progress and logs.
        ready_timeout: Seconds to wait for a cold start, None to raise a refused connection at once.
        local: The server is on this machine or in a private network, and is probed more often.
        starts_server: The SDK has started the server, which thus is starting while it refuses connections.
        max_retries: Retries of a request that was not processed.
        retry_after_cap: Seconds. An error with a longer ``retry_after`` is raised at once.
    """

    endpoint: str
    ready_timeout: float | None
    local: bool = False
    starts_server: bool = False
    max_retries: int = MAX_RETRIES
    retry_after_cap: float = RETRY_AFTER_CAP

    async def retry(
        self,
        attempt: Callable[[], Awaitable[T]],
        error: BackendError,
        *,
        started: float,
        probe: bool = False,
        on_progress: OnProgress | None = None,
    ) -> T:
        """Retry ``attempt`` and return its result, or raise the last error with ``waited`` for a cold start.

        Args:
            attempt: The attempt to repeat.
            error: The failure of its first call.
            started: When the first call began (``time.monotonic()``).
            probe: The attempt changes nothing on the server, and is also retried if the server does not respond.
            on_progress: Called with a ``Loading`` before each wait for a cold start.
        """
        cold_start = _ColdStart(self, started=started, probe=probe, on_progress=on_progress)
        transient = _Transient(self, cold_start)
        try:
            while True:
                budget = next((budget for budget in (cold_start, transient) if budget.covers(error)), None)
                if budget is None:
                    raise error
                try:
                    return await budget.retry(attempt, error)
                except BackendError as latest:
                    error = latest
                if budget.covers(error):  # the budget is spent
                    error.waited = budget.waited
                    raise error
        finally:
            cold_start.log_end()


class _Budget(ABC):
    """The attempts after one kind of failure."""

    @property
    def waited(self) -> float | None:
        return None

    @abstractmethod
    def covers(self, error: BaseException) -> bool:
        """Return whether to retry after ``error``."""

    @abstractmethod
    def is_spent(self, attempts: int, /) -> bool: ...

    @abstractmethod
    def delay(self, error: BaseException | None, attempts: int, /) -> float:
        """Return the seconds to wait after ``attempts`` failed attempts, the last one with ``error``."""

    @abstractmethod
    def report(self, error: BaseException | None, attempts: int, delay: float, /) -> None:
        """Report that the next attempt follows after ``delay`` seconds."""

    async def retry(self, attempt: Callable[[], Awaitable[T]], error: BackendError) -> T:
        """Repeat ``attempt`` after ``error``, until it returns, fails in another way, or the budget is spent."""
        if self.is_spent(1):
            raise error
        delay = self.delay(error, 1)
        self.report(error, 1, delay)
        await asyncio.sleep(delay)  # tenacity makes its first attempt without a delay
        retrying = AsyncRetrying(
            retry=retry_if_exception(self.covers),
            stop=lambda state: self.is_spent(1 + state.attempt_number),
            wait=lambda state: self.delay(_failure(state), 1 + state.attempt_number),
            before_sleep=lambda state: self.report(_failure(state), 1 + state.attempt_number, state.upcoming_sleep),
            reraise=True,
        )
        return await retrying(attempt)


def _failure(state: RetryCallState) -> BaseException | None:
    return state.outcome.exception() if state.outcome is not None else None


class _ColdStart(_Budget):
    """One wait for a starting server."""

    def __init__(self, policy: RetryPolicy, *, started: float, probe: bool, on_progress: OnProgress | None) -> None:
        self._policy = policy
        self._seconds = policy.ready_timeout or 0.0
        self._started = started
        self._probe = probe
        self._on_progress = on_progress
        self._states: set[LoadState] = set()

    @property
    def waited(self) -> float:
        return time.monotonic() - self._started

    def covers(self, error: BaseException) -> bool:
        state = self._state(error)
        if state == "refused" and "loading" in self._states:
            raise ServerDiedError(
                "the server died while loading: it reported a loading model, and then refused connections"
            ) from error
        return state is not None

    def is_spent(self, _: int, /) -> bool:
        return self.waited >= self._seconds

    def delay(self, _: BaseException | None, attempts: int, /) -> float:
        longest = LOCAL_POLL if self._policy.local and self.waited < LOCAL_POLL_FOR else REMOTE_POLL
        gap = FIRST_POLL * POLL_GROWTH ** min(attempts - 1, 20)
        return max(0.0, min(gap, longest, self._seconds - self.waited))

    def report(self, error: BaseException | None, _attempts: int, delay: float, /) -> None:
        state = self._state(error)
        assert state is not None, "only a starting server is waited for"
        is_first = not self._states
        self._states.add(state)
        if state == "refused" and self._policy.starts_server:
            state = "starting"
        if is_first:
            _logger.info("Waiting for %s to start (%s), up to %g s", self._policy.endpoint, state, self._seconds)
        loading = Loading(endpoint=self._policy.endpoint, state=state, elapsed=self.waited, budget=self._seconds)
        observation = current_observation()
        if observation is not None:
            observation.report_loading(loading, error, delay)
        if self._on_progress is not None:
            self._on_progress(loading)

    def log_end(self) -> None:
        if self._states:
            _logger.info("Waited %.2f s for %s to start", self.waited, self._policy.endpoint)

    def _state(self, error: BaseException | None) -> LoadState | None:
        return _load_state(error, probe=self._probe) if self._policy.ready_timeout is not None else None


class _Transient(_Budget):
    """The attempts for a request that was not processed, unless the failure belongs to the cold start."""

    def __init__(self, policy: RetryPolicy, cold_start: _ColdStart) -> None:
        self._policy = policy
        self._cold_start = cold_start

    def covers(self, error: BaseException) -> bool:
        if isinstance(error, APIConnectionError):
            return not error.sent and not error.refused and not error.permanent
        if isinstance(error, APITimeoutError):
            return error.phase == "connect"
        if not isinstance(error, RateLimitError | ServiceUnavailableError) or self._cold_start.covers(error):
            return False
        if isinstance(error, InsufficientQuotaError):
            return False  # a payment helps, and no waiting
        return error.retry_after is None or error.retry_after <= self._policy.retry_after_cap

    def is_spent(self, attempts: int, /) -> bool:
        return attempts > self._policy.max_retries

    def delay(self, error: BaseException | None, attempts: int, /) -> float:
        retry_after = error.retry_after if isinstance(error, APIStatusError) else None
        return float(retry_after if retry_after is not None else min(0.5 * 2.0 ** min(attempts - 1, 10), MAX_BACKOFF))

    def report(self, error: BaseException | None, attempts: int, delay: float, /) -> None:
        # The error's text may come from the server, and may contain the prompt.
        reason = f"HTTP {error.status_code}" if isinstance(error, APIStatusError) else type(error).__name__
        endpoint, total = self._policy.endpoint, 1 + self._policy.max_retries
        _logger.info("Retrying %s in %g s (%s, attempt %d of %d)", endpoint, delay, reason, attempts + 1, total)
        observation = current_observation()
        if observation is not None:
            observation.report_retry(error, delay)


def _load_state(error: BaseException | None, *, probe: bool) -> LoadState | None:
    """Return the state of a starting server from ``error``, or None for any other error."""
    if isinstance(error, ModelLoadingError):
        return "loading"
    if isinstance(error, ModelLoadFailedError):
        return None
    if isinstance(error, APIConnectionError):
        if error.refused:
            return "refused"
        # Port forwarders accept before the server behind them listens, and then close. A generation may be running
        # behind one; a probe can be repeated.
        return "silent" if probe and error.sent else None
    if probe and isinstance(error, APITimeoutError):
        return "silent"
    # A swap proxy that starts the server behind it: the body is not the model server's. With 502, a generation may have
    # been processed.
    if (
        isinstance(error, APIStatusError)
        and error.message is None
        and error.status_code in ((502, 503) if probe else (503,))
    ):
        return "starting"
    return None
