"""The retry policy and its two budgets, on a simulated clock."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import NoReturn

import attrs
import pytest

from ctxbackends._chat.events import Loading, OnProgress
from ctxbackends._client import retry
from ctxbackends._client.retry import FIRST_POLL, LOCAL_POLL, LOCAL_POLL_FOR, POLL_GROWTH, REMOTE_POLL, RetryPolicy
from ctxbackends.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BackendError,
    InternalServerError,
    ModelLoadFailedError,
    ModelLoadingError,
    NotFoundError,
    RateLimitError,
    ResponseError,
    ServerDiedError,
    ServiceUnavailableError,
    StreamInterruptedError,
)

ENDPOINT = "http://127.0.0.1:8000"


def refusal() -> APIConnectionError:
    return APIConnectionError("connection refused", refused=True)


def loading() -> ModelLoadingError:
    return ModelLoadingError(503, message="Loading model")


def starting(status: int = 503) -> APIStatusError:
    return (ServiceUnavailableError if status == 503 else InternalServerError)(status)


def busy(retry_after: float | None = None, status: int = 503) -> APIStatusError:
    kind = RateLimitError if status == 429 else ServiceUnavailableError
    return kind(status, message="too many requests", retry_after=retry_after)


def no_response() -> APIConnectionError:
    return APIConnectionError("the server closed the connection before a response", sent=True)


def no_route() -> APIConnectionError:
    return APIConnectionError("No route to host")


def no_name() -> APIConnectionError:
    return APIConnectionError("the name does not resolve", permanent=True)


def silent() -> APITimeoutError:
    return APITimeoutError("total", 10.0, key="timeout")


class Clock:
    """Passes only when somebody sleeps."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += max(seconds, 1e-6)  # no clock stands still


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    fake = SimpleNamespace(monotonic=clock.monotonic)
    monkeypatch.setattr(sys.modules[__name__], "time", fake)
    monkeypatch.setattr("ctxbackends._client.retry.time", fake)
    monkeypatch.setattr("tenacity.time", fake)
    monkeypatch.setattr(asyncio, "sleep", clock.sleep)
    return clock


Outcome = str | BackendError | Callable[[], BackendError]


class Server:
    """Gives its outcomes one after another, and the last one for ever."""

    def __init__(self, clock: Clock, *outcomes: Outcome, takes: float = 0.0) -> None:
        self._clock = clock
        self._outcomes = outcomes
        self._takes = takes
        self.calls = 0

    async def __call__(self) -> str:
        outcome = self._outcomes[min(self.calls, len(self._outcomes) - 1)]
        self.calls += 1
        self._clock.now += self._takes
        if isinstance(outcome, str):
            return outcome
        raise outcome if isinstance(outcome, BackendError) else outcome()


def probe_plan(until: float, *, local: bool = True) -> list[float]:
    """Return when a server that answers at once is probed, in seconds since the wait began."""
    probes, at, gap = [], 0.0, FIRST_POLL
    while at < until:
        probes.append(at)
        at += min(gap, LOCAL_POLL if local and at < LOCAL_POLL_FOR else REMOTE_POLL)
        gap *= POLL_GROWTH
    return probes


def policy(ready_timeout: float | None = 90.0, *, local: bool = True) -> RetryPolicy:
    return RetryPolicy(endpoint=ENDPOINT, ready_timeout=ready_timeout, local=local)


async def call(
    policy: RetryPolicy,
    attempt: Callable[[], Awaitable[str]],
    *,
    probe: bool = False,
    on_progress: OnProgress | None = None,
) -> str:
    """Return the result of ``attempt``, retried as a backend retries it."""
    start = time.monotonic()
    try:
        return await attempt()
    except BackendError as error:
        return await policy.retry(attempt, error, started=start, probe=probe, on_progress=on_progress)


# --- the first attempt ----------------------------------------------------------------------------


def fail_if_called(*_: object, **__: object) -> NoReturn:
    raise AssertionError("tenacity was entered")


@pytest.mark.parametrize("ready_timeout", [None, 90.0])
@pytest.mark.parametrize("probe", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        AuthenticationError(401),
        NotFoundError(404),
        InternalServerError(500),
        InternalServerError(500, message="broken"),
        InternalServerError(502, message="the server behind the proxy said no"),
        ModelLoadFailedError(503, message="failed to load"),
        no_name(),
        ResponseError("no answer"),
        StreamInterruptedError("cut"),
        busy(60.1),
    ],
    ids=str,
)
async def test_errors_that_are_not_retried(
    error: BackendError, probe: bool, ready_timeout: float | None, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "AsyncRetrying", fail_if_called)
    server = Server(clock, error)
    with pytest.raises(type(error)) as exc_info:
        await call(policy(ready_timeout), server, probe=probe)
    assert error is exc_info.value
    assert (1, None, []) == (server.calls, error.waited, clock.slept)


@pytest.mark.parametrize("ready_timeout", [None, 90.0])
@pytest.mark.parametrize("error", [starting(502), no_response(), silent()], ids=str)
async def test_a_generation_that_may_have_been_processed_is_not_retried(
    error: BackendError, ready_timeout: float | None, clock: Clock
) -> None:
    server = Server(clock, error)
    with pytest.raises(type(error)):
        await call(policy(ready_timeout), server)
    assert (1, []) == (server.calls, clock.slept)


async def test_foreign_exceptions_propagate(clock: Clock) -> None:
    calls = 0

    async def attempt() -> str:
        nonlocal calls
        calls += 1
        raise refusal() if calls == 1 else ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await call(policy(), attempt)
    assert 2 == calls


# --- the cold start -------------------------------------------------------------------------------


async def test_refused_then_loading_then_ready(clock: Clock) -> None:
    progress: list[Loading] = []
    server = Server(clock, refusal, refusal, loading, loading, "answer", takes=0.25)
    assert "answer" == await call(policy(), server, on_progress=progress.append)
    assert 5 == server.calls
    assert ["refused", "refused", "loading", "loading"] == [event.state for event in progress]
    assert {(ENDPOINT, 90.0)} == {(event.endpoint, event.budget) for event in progress}
    # 0.25 s for each attempt, and what was slept between them
    assert pytest.approx([0.25 * (index + 1) + probe_plan(60.0)[index] for index in range(4)]) == [
        event.elapsed for event in progress
    ]


async def test_a_server_that_the_sdk_has_started(clock: Clock) -> None:
    progress: list[Loading] = []
    server = Server(clock, refusal, loading, "answer")
    await call(attrs.evolve(policy(), starts_server=True), server, on_progress=progress.append)
    assert ["starting", "loading"] == [event.state for event in progress]
    assert f"waiting for {ENDPOINT} (starting, 0 s of 90 s)" == str(progress[0])
    with pytest.raises(ServerDiedError):
        await call(attrs.evolve(policy(), starts_server=True), Server(clock, loading, refusal))


async def test_progress_reports_every_state(clock: Clock) -> None:
    progress: list[Loading] = []
    server = Server(clock, refusal, starting(502), no_response, silent, starting, loading, "answer")
    await call(policy(), server, probe=True, on_progress=progress.append)
    assert ["refused", "starting", "silent", "silent", "starting", "loading"] == [event.state for event in progress]
    assert f"waiting for {ENDPOINT} (refused, 0 s of 90 s)" == str(progress[0])


async def test_a_generation_waits_for_a_proxy_that_starts_the_server(clock: Clock) -> None:
    progress: list[Loading] = []
    assert "answer" == await call(policy(), Server(clock, starting, "answer"), on_progress=progress.append)
    assert ["starting"] == [event.state for event in progress]


@pytest.mark.parametrize("error", [starting(502), no_response(), silent()], ids=str)
async def test_a_probe_retries_a_silent_or_starting_server(error: BackendError, clock: Clock) -> None:
    server = Server(clock, error, error, "answer")
    assert "answer" == await call(policy(), server, probe=True)
    assert 3 == server.calls


async def test_a_probe_of_a_type_without_a_cold_start_does_not(clock: Clock) -> None:
    server = Server(clock, no_response)
    with pytest.raises(APIConnectionError):
        await call(policy(None), server, probe=True)
    assert (1, []) == (server.calls, clock.slept)


async def test_refused_is_an_error_at_once_where_the_type_has_no_cold_start(clock: Clock) -> None:
    server, error = Server(clock, failure := refusal()), failure
    with pytest.raises(APIConnectionError) as exc_info:
        await call(policy(None), server)
    assert error is exc_info.value
    assert (1, None, []) == (server.calls, error.waited, clock.slept)


@pytest.mark.parametrize(("local", "longest"), [(True, 0.25), (False, 1.0)], ids=["local", "remote"])
async def test_the_gaps_between_probes_grow(local: bool, longest: float, clock: Clock) -> None:
    probes = await probes_of(clock, policy(110.0, local=local))
    assert pytest.approx(probe_plan(110.0, local=local)) == probes[:-1]
    assert pytest.approx(110.0, abs=1e-4) == probes[-1]
    gaps = [later - earlier for earlier, later in pairwise(probes[:-1])]
    assert pytest.approx(sorted(gaps)) == gaps
    assert pytest.approx([0.05, longest]) == [gaps[0], gaps[-1]]


@pytest.mark.parametrize("local", [True, False], ids=["local", "remote"])
async def test_after_two_minutes_every_server_is_probed_once_a_second(local: bool, clock: Clock) -> None:
    probes = await probes_of(clock, policy(300.0, local=local))
    gaps = [later - earlier for earlier, later in pairwise(probes[:-1]) if earlier >= 120.0]
    assert pytest.approx([1.0] * len(gaps)) == gaps
    assert 178 <= len(gaps) <= 180


@pytest.mark.parametrize(("local", "median", "ninth"), [(True, 0.15, 0.3), (False, 0.6, 1.1)], ids=["local", "remote"])
async def test_a_ready_server_is_noticed_soon(local: bool, median: float, ninth: float, clock: Clock) -> None:
    probes = await probes_of(clock, policy(120.0, local=local))
    ready = [0.1 * index for index in range(1, 1190)]
    late = sorted(next(probe for probe in probes if probe >= moment) - moment for moment in ready)
    assert late[len(late) // 2] <= median
    assert late[len(late) * 9 // 10] <= ninth


async def probes_of(clock: Clock, policy: RetryPolicy) -> list[float]:
    """Return when a server that is never ready is probed, in seconds since the wait began."""
    start, probes = clock.now, []

    async def attempt() -> str:
        probes.append(clock.now - start)
        raise refusal()

    with pytest.raises(APIConnectionError):
        await call(policy, attempt)
    return probes


# --- its budget -----------------------------------------------------------------------------------


async def test_the_polls_never_pass_the_budget_and_the_last_error_says_how_long(clock: Clock) -> None:
    last = refusal()
    server = Server(clock, last)
    with pytest.raises(APIConnectionError) as exc_info:
        await call(policy(0.4), server)
    assert last is exc_info.value
    assert pytest.approx(0.4, abs=1e-4) == sum(clock.slept)  # the last attempt is made at the very end of the budget
    assert len(clock.slept) + 1 == server.calls
    assert max(clock.slept) < 0.2
    assert pytest.approx(0.4, abs=1e-4) == last.waited
    assert str(last).endswith("(after waiting 0.4 s)")


async def test_an_attempt_that_takes_long_leaves_no_time_to_sleep(clock: Clock) -> None:
    server = Server(clock, refusal, takes=7.0)
    with pytest.raises(APIConnectionError) as exc_info:
        await call(policy(10.0), server)
    assert pytest.approx([0.05]) == clock.slept[:1]
    assert 2 == server.calls  # the first one counts
    assert pytest.approx(14.0, abs=0.5) == exc_info.value.waited


async def test_a_refused_connection_after_503_is_a_dead_server(clock: Clock) -> None:
    server = Server(clock, refusal, loading, refusal, "answer")
    with pytest.raises(ServerDiedError) as exc_info:
        await call(policy(), server)
    assert 3 == server.calls
    assert isinstance(exc_info.value.__cause__, APIConnectionError)


async def test_the_error_after_the_cold_start_is_raised(clock: Clock) -> None:
    server = Server(clock, refusal, loading, ModelLoadFailedError(500, message="failed to load"))
    with pytest.raises(ModelLoadFailedError) as exc_info:
        await call(policy(), server)
    assert (3, None) == (server.calls, exc_info.value.waited)


# --- the transient budget -------------------------------------------------------------------------


@pytest.mark.parametrize("ready_timeout", [None, 90.0])
@pytest.mark.parametrize("status", [429, 503])
async def test_unprocessed_requests_are_tried_three_times(
    status: int, ready_timeout: float | None, clock: Clock
) -> None:
    last = busy(status=status)
    server = Server(clock, busy(status=status), busy(status=status), last, "answer")
    with pytest.raises(APIStatusError) as exc_info:
        await call(policy(ready_timeout), server)
    assert last is exc_info.value
    assert (3, [0.5, 1.0], None) == (server.calls, clock.slept, last.waited)


@pytest.mark.parametrize("max_retries", [0, 1, 2, 5, 1200])
async def test_max_retries_bounds_the_attempts_and_the_delays(max_retries: int, clock: Clock) -> None:
    server = Server(clock, busy())
    own = RetryPolicy(endpoint=ENDPOINT, ready_timeout=None, max_retries=max_retries)
    with pytest.raises(ServiceUnavailableError):
        await call(own, server)
    delays = [0.5, 1.0, 2.0, 4.0, 8.0, 16.0, *([30.0] * max_retries)]
    assert (1 + max_retries, delays[:max_retries]) == (server.calls, clock.slept)


async def test_max_retries_does_not_bound_the_cold_start(clock: Clock) -> None:
    server = Server(clock, *([loading()] * 40), "ready")
    assert "ready" == await call(RetryPolicy(endpoint=ENDPOINT, ready_timeout=90.0, max_retries=0), server)
    assert 41 == server.calls


async def test_a_busy_server_becomes_free(clock: Clock) -> None:
    server = Server(clock, busy(), busy(status=429), "answer")
    assert "answer" == await call(policy(), server)
    assert 3 == server.calls


@pytest.mark.parametrize("retry_after", [0.0, 0.2, 60.0])
async def test_retry_after_is_waited_for(retry_after: float, clock: Clock) -> None:
    server = Server(clock, busy(retry_after, 429), "answer")
    assert "answer" == await call(policy(None), server)
    assert [retry_after] == clock.slept


async def test_a_second_retry_after_that_is_too_long_is_an_error(clock: Clock) -> None:
    server = Server(clock, busy(1.0), busy(61.0), "answer")
    with pytest.raises(ServiceUnavailableError):
        await call(policy(None), server)
    assert (2, [1.0]) == (server.calls, clock.slept)


@pytest.mark.parametrize("status", [loading, starting], ids=["loading", "starting"])
async def test_a_loading_server_without_a_cold_start_is_busy(status: Callable[[], BackendError], clock: Clock) -> None:
    server = Server(clock, status)
    with pytest.raises(ServiceUnavailableError):
        await call(policy(None), server)
    assert (3, [0.5, 1.0]) == (server.calls, clock.slept)


async def test_no_connection_is_tried_three_times(clock: Clock) -> None:
    server = Server(clock, no_route)
    with pytest.raises(APIConnectionError):
        await call(policy(), server)
    assert 3 == server.calls


async def test_the_two_budgets_add_up(clock: Clock) -> None:
    server = Server(clock, refusal, busy, busy, loading, busy, busy, "answer")
    assert "answer" == await call(policy(), server)
    assert 7 == server.calls


def test_logs_nothing_without_a_configuration() -> None:
    """A library with no handler would write warnings to stderr."""
    code = "import logging; import ctxbackends; ctxbackends.open_backend; logging.getLogger('ctxbackends').warning('x')"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (0, "", "") == (done.returncode, done.stdout, done.stderr)
