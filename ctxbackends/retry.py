"""When a failed request is sent again, and when not. The only tenacity import; knows no HTTP library and no wire
format.

Two budgets. The cold start (``ready_timeout``): a server that is not ready is a state, and is waited for. The transient
budget: a few more tries for what provably was not processed. The first attempt goes straight through; tenacity is
entered only after a failure. What may have been processed is never sent again: a generation is a job on somebody's GPU.

A cold start is looked at in a fixed rhythm, and sooner where a sign says that it is worth while: at most 30 looks in 60
seconds, with all signs. What a sign is, and where it comes from, this module does not know (``signs`` does).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias, TypeVar

import attrs
from tenacity import AsyncRetrying, RetryCallState, retry_if_exception, stop_after_attempt
from tenacity.wait import wait_base

from ctxbackends.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BackendError,
    ModelLoadFailedError,
    ModelLoadingError,
    RateLimitError,
    ServerDiedError,
    ServiceUnavailableError,
)
from ctxbackends.types import Loading, LoadState, OnProgress

T = TypeVar("T")
Liveness: TypeAlias = Callable[[], BackendError | None]
Watch: TypeAlias = Callable[[LoadState, float], Awaitable[bool]]
"""Waits as many seconds for a sign that a server, last seen in this state, is worth a look: whether there was one."""

# Gaps of 50 to 200 ms in the first second, where a small model is ready; then ever longer, or 30 looks would not do for
# a minute. 24 looks in 60 s; with the one at the end of a budget, and those that signs prompt, at most 30.
FIRST_POLL = 0.05
DENSE_GROWTH = 1.2
DENSE_FOR = 1.0
POLL_GROWTH = 1.6
SLOWEST_POLL = 6.0
PROMPTED_AT_ONCE = 2
PROMPTED_EVERY = 20.0
"""Signs may prompt two looks, and one more for every 20 seconds: a sign may be wrong, again and again."""
TRANSIENT_ATTEMPTS = 3
RETRY_AFTER_CAP = 60.0
DEATH_KNOWN_AFTER = 0.5
"""Seconds after which a process that closed a connection is taken to be alive."""


def _alive() -> None:
    return None


def _blind() -> None:
    return None


@attrs.frozen(kw_only=True)
class RetryPolicy:
    """How one backend is retried. ``ready_timeout`` in seconds; None: a refused connection is an error at once.

    ``endpoint`` names the server in the progress. ``liveness`` returns the error of a server process that has ended,
    where this SDK started it. ``watch`` is called where a wait begins, and returns what then waits for signs, or None
    where there are none to be had.
    """

    endpoint: str
    ready_timeout: float | None
    liveness: Liveness = _alive
    watch: Callable[[], Watch | None] = _blind
    transient_attempts: int = TRANSIENT_ATTEMPTS
    retry_after_cap: float = RETRY_AFTER_CAP

    async def call(
        self, attempt: Callable[[], Awaitable[T]], *, probe: bool = False, on_progress: OnProgress | None = None
    ) -> T:
        """The result of ``attempt``, tried again as the module says. ``probe``: it changes nothing on the server, so
        that also a silent or half-started server may be asked again. Raises the last error; ``waited`` on it says how
        long the cold start was waited for."""
        started = time.monotonic()
        try:
            return await attempt()
        except BackendError as first:
            return await self.recover(attempt, first, started=started, probe=probe, on_progress=on_progress)

    async def recover(
        self,
        attempt: Callable[[], Awaitable[T]],
        first: BackendError,
        *,
        started: float,
        probe: bool = False,
        on_progress: OnProgress | None = None,
    ) -> T:
        """What follows a first attempt that began at ``started`` (``time.monotonic()``) and failed with ``first``. Who
        has this comes here on the bad path alone: a good request makes no policy object and passes no layer of one."""
        try:
            if isinstance(first, APIConnectionError) and first.refused:
                died = self.liveness()
                if died is not None:
                    raise died from first
            if _not_ready(first, probe=probe) is None and not self._is_transient(first):
                raise first
            return await self._recover(attempt, first, started=started, probe=probe, on_progress=on_progress)
        except APIConnectionError as error:
            died = await self._death(error)
            if died is not None:
                raise died from error
            raise

    async def _death(self, error: APIConnectionError) -> BackendError | None:
        """Why the server's process ended, where it did. A process closes its connections before it is known to have
        ended, so it is looked at for a moment longer."""
        died = self.liveness()
        if self.liveness is _alive or not error.sent:
            return died
        deadline = time.monotonic() + DEATH_KNOWN_AFTER
        while died is None and time.monotonic() < deadline:
            await asyncio.sleep(FIRST_POLL / 5)
            died = self.liveness()
        return died

    async def _recover(
        self,
        attempt: Callable[[], Awaitable[T]],
        first: BackendError,
        *,
        started: float,
        probe: bool,
        on_progress: OnProgress | None,
    ) -> T:
        waiting = _ColdStart(self, started=started, probe=probe, on_progress=on_progress)
        pending = [first]

        async def again() -> T:
            # The first attempt was made before tenacity was entered: its failure is replayed, so that it counts in both
            # budgets.
            if pending:
                raise pending.pop()
            return await attempt()

        async def settled() -> T:
            transient = AsyncRetrying(
                retry=retry_if_exception(self._is_transient),
                stop=stop_after_attempt(self.transient_attempts),
                wait=_WaitTransient(),
                reraise=True,
            )
            return await transient(again)

        if self.ready_timeout is None:
            return await settled()
        cold_start = AsyncRetrying(
            retry=retry_if_exception(waiting.goes_on),
            stop=lambda _: waiting.elapsed >= waiting.budget,
            wait=waiting.left,
            sleep=waiting.sleep,
            before_sleep=waiting.report,
            reraise=True,
        )
        return await waiting.run(lambda: cold_start(settled))

    def _is_transient(self, error: BaseException) -> bool:
        """Provably not processed, and worth another try soon."""
        if isinstance(error, APIConnectionError):
            return not error.sent and not error.refused and not error.permanent
        if isinstance(error, APITimeoutError):
            return error.phase == "connect"
        if (
            self.ready_timeout is not None
            and isinstance(error, BackendError)
            and _not_ready(error, probe=False) is not None
        ):
            return False  # the cold start's
        if isinstance(error, RateLimitError | ServiceUnavailableError):
            return error.retry_after is None or error.retry_after <= self.retry_after_cap
        return False


class _ColdStart:
    """What was seen of one server while it starts."""

    def __init__(self, policy: RetryPolicy, *, started: float, probe: bool, on_progress: OnProgress | None) -> None:
        self._policy = policy
        self._started = started
        self._probe = probe
        self._on_progress = on_progress
        self._seen_loading = False
        self._state: LoadState = "refused"
        self._gaps = _rhythm()
        self._rest = 0.0  # of a gap that a sign cut short
        self._watch = None if policy.ready_timeout is None else policy.watch()
        self._prompted = 0

    @property
    def budget(self) -> float:
        return self._policy.ready_timeout or 0.0

    @property
    def elapsed(self) -> float:
        return time.monotonic() - self._started

    def goes_on(self, error: BaseException) -> bool:
        """Whether ``error`` is a sign of a server that is starting."""
        if not isinstance(error, BackendError):
            return False
        state = _not_ready(error, probe=self._probe)
        if state is None:
            return False
        self._state = state
        died = self._policy.liveness()
        if died is not None:
            raise died from error
        if state == "loading":
            self._seen_loading = True
        elif state == "refused" and self._seen_loading:
            raise ServerDiedError(
                "the server said that it loads its model, and then stopped listening: it died while loading"
            ) from error
        return True

    def left(self, _: RetryCallState) -> float:
        """Seconds until the next look, if no sign prompts one; never past the budget."""
        gap, self._rest = self._rest or next(self._gaps), 0.0
        return max(0.0, min(gap, self.budget - self.elapsed))

    async def sleep(self, seconds: float) -> None:
        """Until the next look: as long as said, or until there is a sign."""
        if self._watch is None:
            await asyncio.sleep(seconds)
            return
        end = self.elapsed + seconds
        if not await self._watch(self._state, seconds):
            return
        allowed = PROMPTED_EVERY * max(0, self._prompted + 1 - PROMPTED_AT_ONCE)
        if self.elapsed < allowed:  # the sign is kept until then
            await asyncio.sleep(max(0.0, min(allowed, end) - self.elapsed))
        if allowed < end:
            self._prompted += 1
            self._rest = max(0.0, end - self.elapsed)

    def report(self, state: RetryCallState) -> None:
        error = state.outcome.exception() if state.outcome else None
        if self._on_progress is not None and isinstance(error, BackendError):
            seen = _not_ready(error, probe=self._probe)
            assert seen is not None, "only a server that is not ready is slept for"
            self._on_progress(
                Loading(
                    endpoint=self._policy.endpoint,
                    state=seen,
                    elapsed=self.elapsed,
                    budget=self.budget,
                )
            )

    async def run(self, loop: Callable[[], Awaitable[T]]) -> T:
        try:
            return await loop()
        except BackendError as error:
            if _not_ready(error, probe=self._probe) is not None:
                error.waited = self.elapsed
            raise


def _not_ready(error: BackendError, *, probe: bool) -> LoadState | None:
    """The state of a server that ``error`` shows to be starting, or None where it shows something else."""
    if isinstance(error, ModelLoadingError):
        return "loading"
    if isinstance(error, ModelLoadFailedError):
        return None
    if isinstance(error, APIConnectionError):
        if error.refused:
            return "refused"
        # Port forwarders accept before the server behind them listens, and close. A generation could be running behind
        # it; a probe can ask again.
        return "silent" if probe and error.sent else None
    if probe and isinstance(error, APITimeoutError):
        return "silent"
    # A swap proxy while it starts the server behind it: its body is not the model server's. After 502 a generation may
    # have been processed.
    if (
        isinstance(error, APIStatusError)
        and error.message is None
        and error.status_code in ((502, 503) if probe else (503,))
    ):
        return "starting"
    return None


def _rhythm() -> Iterator[float]:
    """The gaps between the looks of a cold start, as long as no sign prompts one."""
    at, gap = 0.0, FIRST_POLL
    while True:
        yield gap
        at += gap
        gap = min(gap * (DENSE_GROWTH if at < DENSE_FOR else POLL_GROWTH), SLOWEST_POLL)


class _WaitTransient(wait_base):
    """What the server asked for; half a second, then one, where it asked for nothing."""

    def __call__(self, retry_state: RetryCallState) -> float:
        error = retry_state.outcome.exception() if retry_state.outcome else None
        asked = error.retry_after if isinstance(error, APIStatusError) else None
        return float(asked if asked is not None else 0.5 * 2.0 ** (retry_state.attempt_number - 1))
