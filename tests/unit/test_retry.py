"""The two budgets, on a clock of their own: nothing here waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from types import SimpleNamespace
from typing import NoReturn

import attrs
import pytest

from ctxbackends import retry
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
from ctxbackends.retry import RetryPolicy
from ctxbackends.types import Loading

ENDPOINT = "http://127.0.0.1:8000"


def refused() -> APIConnectionError:
    return APIConnectionError("connection refused", refused=True)


def loading() -> ModelLoadingError:
    return ModelLoadingError(503, message="Loading model")


def starting(status: int = 503) -> APIStatusError:
    return (ServiceUnavailableError if status == 503 else InternalServerError)(status)


def busy(retry_after: float | None = None, status: int = 503) -> APIStatusError:
    kind = RateLimitError if status == 429 else ServiceUnavailableError
    return kind(status, message="too many requests", retry_after=retry_after)


def unanswered() -> APIConnectionError:
    return APIConnectionError("the server closed the connection before an answer came", sent=True)


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
    time = SimpleNamespace(monotonic=clock.monotonic)
    monkeypatch.setattr("ctxbackends.retry.time", time)
    monkeypatch.setattr("tenacity.time", time)
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


def planned(until: float) -> list[float]:
    """When a server that answers at once is looked at, in seconds since the wait began."""
    looks, at, gap = [], 0.0, retry.FIRST_POLL
    while at < until:
        looks.append(at)
        at += gap
        gap = min(gap * (retry.DENSE_GROWTH if at < retry.DENSE_FOR else retry.POLL_GROWTH), retry.SLOWEST_POLL)
    return looks


def policy(ready_timeout: float | None = 90.0) -> RetryPolicy:
    return RetryPolicy(endpoint=ENDPOINT, ready_timeout=ready_timeout)


# --- the first attempt ----------------------------------------------------------------------------


def _entered(*_: object, **__: object) -> NoReturn:
    raise AssertionError("tenacity was entered")


async def test_the_good_path_does_not_enter_tenacity(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retry, "AsyncRetrying", _entered)
    server = Server(clock, "answer")
    assert "answer" == await policy().call(server)
    assert (1, []) == (server.calls, clock.slept)


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
async def test_never_tried_again(
    error: BackendError, probe: bool, ready_timeout: float | None, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retry, "AsyncRetrying", _entered)
    server = Server(clock, error)
    with pytest.raises(type(error)) as caught:
        await policy(ready_timeout).call(server, probe=probe)
    assert error is caught.value
    assert (1, None, []) == (server.calls, error.waited, clock.slept)


@pytest.mark.parametrize("ready_timeout", [None, 90.0])
@pytest.mark.parametrize("error", [starting(502), unanswered(), silent()], ids=str)
async def test_a_generation_that_may_have_been_processed_is_never_sent_again(
    error: BackendError, ready_timeout: float | None, clock: Clock
) -> None:
    server = Server(clock, error)
    with pytest.raises(type(error)):
        await policy(ready_timeout).call(server)
    assert (1, []) == (server.calls, clock.slept)


async def test_an_exception_of_somebody_else_passes(clock: Clock) -> None:
    calls = 0

    async def attempt() -> str:
        nonlocal calls
        calls += 1
        raise refused() if calls == 1 else ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await policy().call(attempt)
    assert 2 == calls


# --- the cold start -------------------------------------------------------------------------------


async def test_refused_then_loading_then_ready(clock: Clock) -> None:
    seen: list[Loading] = []
    server = Server(clock, refused, refused, loading, loading, "answer", takes=0.25)
    assert "answer" == await policy().call(server, on_progress=seen.append)
    assert 5 == server.calls
    assert ["refused", "refused", "loading", "loading"] == [look.state for look in seen]
    assert {(ENDPOINT, 90.0)} == {(look.endpoint, look.budget) for look in seen}
    # 0.25 s for each attempt, and what was slept between them
    assert pytest.approx([0.25 * (place + 1) + planned(60.0)[place] for place in range(4)]) == [
        look.elapsed for look in seen
    ]


async def test_progress_is_told_of_every_state(clock: Clock) -> None:
    seen: list[Loading] = []
    server = Server(clock, refused, starting(502), unanswered, silent, starting, loading, "answer")
    await policy().call(server, probe=True, on_progress=seen.append)
    assert ["refused", "starting", "silent", "silent", "starting", "loading"] == [look.state for look in seen]
    assert f"waiting for {ENDPOINT} (refused, 0 s of 90 s)" == str(seen[0])


async def test_a_generation_waits_for_a_proxy_that_starts_the_server(clock: Clock) -> None:
    seen: list[Loading] = []
    assert "answer" == await policy().call(Server(clock, starting, "answer"), on_progress=seen.append)
    assert ["starting"] == [look.state for look in seen]


@pytest.mark.parametrize("error", [starting(502), unanswered(), silent()], ids=str)
async def test_a_probe_asks_a_silent_or_half_started_server_again(error: BackendError, clock: Clock) -> None:
    server = Server(clock, error, error, "answer")
    assert "answer" == await policy().call(server, probe=True)
    assert 3 == server.calls


async def test_a_probe_of_a_type_without_a_cold_start_does_not(clock: Clock) -> None:
    server = Server(clock, unanswered)
    with pytest.raises(APIConnectionError):
        await policy(None).call(server, probe=True)
    assert (1, []) == (server.calls, clock.slept)


async def test_refused_is_an_error_at_once_where_the_type_has_no_cold_start(clock: Clock) -> None:
    server, error = Server(clock, failure := refused()), failure
    with pytest.raises(APIConnectionError) as caught:
        await policy(None).call(server)
    assert error is caught.value
    assert (1, None, []) == (server.calls, error.waited, clock.slept)


async def test_the_looks_are_dense_at_first_and_grow_to_six_seconds(clock: Clock) -> None:
    looks = await looks_at(clock, policy(600.0))
    assert pytest.approx(planned(600.0)) == looks[:-1]
    assert pytest.approx(600.0, abs=1e-4) == looks[-1]
    gaps = [later - earlier for earlier, later in pairwise(looks[:-1])]
    assert gaps == pytest.approx(sorted(gaps))
    assert pytest.approx([0.05, 6.0]) == [gaps[0], gaps[-1]]
    assert all(gap <= 0.25 for look, gap in zip(looks, gaps, strict=False) if look < 0.9)


@pytest.mark.parametrize("budget", [60.0, 90.0, 300.0])
@pytest.mark.parametrize("takes", [0.0, 0.02, 1.0])
@pytest.mark.parametrize("signs", [None, 0.0, 0.01, 1.0, 7.0])
async def test_at_most_30_looks_in_a_minute(signs: float | None, takes: float, budget: float, clock: Clock) -> None:
    """From the start on, however often there are signs; and in no later minute more."""
    watch = None if signs is None else Watch(clock, *(signs * place for place in range(3000)))
    looks = await looks_at(clock, attrs.evolve(policy(budget), watch=lambda: watch), takes=takes)
    for start in looks[:: len(looks) // 20 or 1]:
        assert len([look for look in looks if start <= look <= start + 60.0]) <= 30


async def looks_at(clock: Clock, policy: RetryPolicy, takes: float = 0.0) -> list[float]:
    """When a server that is never ready is looked at, in seconds since the wait began."""
    began, looks = clock.now, []

    async def attempt() -> str:
        looks.append(clock.now - began)
        clock.now += takes
        raise refused()

    with pytest.raises(APIConnectionError):
        await policy.call(attempt)
    return looks


# --- signs ----------------------------------------------------------------------------------------


class Watch:
    """Signs at these seconds after the start, each told to who waits then or next."""

    def __init__(self, clock: Clock, *at: float) -> None:
        self._clock = clock
        self._at = [1000.0 + second for second in at]
        self.states: list[str] = []

    async def __call__(self, state: str, seconds: float) -> bool:
        self.states.append(state)
        end = self._clock.now + seconds
        if not self._at or self._at[0] >= end:
            await self._clock.sleep(seconds)
            return False
        await self._clock.sleep(max(0.0, self._at.pop(0) - self._clock.now))
        return True


async def test_a_sign_prompts_the_next_look(clock: Clock) -> None:
    watch = Watch(clock, 30.0)
    looks = await looks_at(clock, attrs.evolve(policy(), watch=lambda: watch))
    assert pytest.approx(sorted([*planned(90.0), 30.0, 90.0]), abs=0.01) == looks
    assert {"refused"} == set(watch.states)


async def test_the_watch_is_told_what_was_seen(clock: Clock) -> None:
    watch = Watch(clock)
    server = Server(clock, refused, loading, loading, "answer")
    await attrs.evolve(policy(), watch=lambda: watch).call(server)
    assert ["refused", "loading", "loading"] == watch.states


async def test_a_sign_that_may_prompt_nothing_yet_is_kept(clock: Clock) -> None:
    """Two were false; the third, soon after, waits for its time."""
    watch = Watch(clock, 17.0, 17.5, 18.0)  # the rhythm has looks at 15.9 and 21.9 s
    looks = await looks_at(clock, attrs.evolve(policy(60.0), watch=lambda: watch))
    prompted = [look for look in looks[1:-1] if min(abs(look - at) for at in planned(61.0)) > 0.01]
    assert pytest.approx([17.0, 17.5, retry.PROMPTED_EVERY], abs=0.01) == prompted


async def test_a_look_of_the_rhythm_answers_a_sign_that_waits(clock: Clock) -> None:
    watch = Watch(clock, 11.0, 11.5, 12.0)  # a third one would be prompted at 20 s, and the rhythm has one at 15.9 s
    looks = await looks_at(clock, attrs.evolve(policy(60.0), watch=lambda: watch))
    assert pytest.approx(sorted([*planned(60.0), 11.0, 11.5, 60.0]), abs=0.01) == looks


async def test_every_wait_has_signs_of_its_own_and_no_other_call_asks_for_any(clock: Clock) -> None:
    watched: list[None] = []
    watching = attrs.evolve(policy(), watch=lambda: watched.append(None))
    await watching.call(Server(clock, "answer"))
    await attrs.evolve(watching, ready_timeout=None).call(Server(clock, busy(), "answer"))
    assert 0 == len(watched)
    for _ in range(2):
        await watching.call(Server(clock, refused, refused, refused, "answer"))
    assert 2 == len(watched)


# --- its budget -----------------------------------------------------------------------------------


async def test_the_polls_never_pass_the_budget_and_the_last_error_says_how_long(clock: Clock) -> None:
    last = refused()
    server = Server(clock, last)
    with pytest.raises(APIConnectionError) as caught:
        await policy(0.4).call(server)
    assert last is caught.value
    assert pytest.approx(0.4, abs=1e-4) == sum(clock.slept)  # the last attempt is made at the very end of the budget
    assert len(clock.slept) + 1 == server.calls
    assert max(clock.slept) < 0.15
    assert pytest.approx(0.4, abs=1e-4) == last.waited
    assert str(last).endswith("(after waiting 0.4 s)")


async def test_an_attempt_that_takes_long_leaves_no_time_to_sleep(clock: Clock) -> None:
    server = Server(clock, refused, takes=7.0)
    with pytest.raises(APIConnectionError) as caught:
        await policy(10.0).call(server)
    assert pytest.approx([0.05]) == clock.slept[:1]
    assert 2 == server.calls  # the first one counts
    assert pytest.approx(14.0, abs=0.5) == caught.value.waited


async def test_503_seen_and_then_refused_is_a_server_that_died(clock: Clock) -> None:
    server = Server(clock, refused, loading, refused, "answer")
    with pytest.raises(ServerDiedError) as caught:
        await policy().call(server)
    assert 3 == server.calls
    assert isinstance(caught.value.__cause__, APIConnectionError)


async def test_what_went_wrong_after_the_cold_start_is_the_error(clock: Clock) -> None:
    server = Server(clock, refused, loading, ModelLoadFailedError(500, message="failed to load"))
    with pytest.raises(ModelLoadFailedError) as caught:
        await policy().call(server)
    assert (3, None) == (server.calls, caught.value.waited)


async def test_the_server_process_that_ended_is_the_error(clock: Clock) -> None:
    died = ServerDiedError("exit code 1", exit_code=1)
    looks: list[BackendError | None] = [None, None, died]  # after each attempt, and before each sleep
    with_process = RetryPolicy(endpoint=ENDPOINT, ready_timeout=90.0, liveness=lambda: looks.pop(0))
    server = Server(clock, refused)
    with pytest.raises(ServerDiedError) as caught:
        await with_process.call(server)
    assert died is caught.value
    assert 2 == server.calls
    assert isinstance(died.__cause__, APIConnectionError)


# --- the transient budget -------------------------------------------------------------------------


@pytest.mark.parametrize("ready_timeout", [None, 90.0])
@pytest.mark.parametrize("status", [429, 503])
async def test_what_was_not_processed_is_tried_three_times(
    status: int, ready_timeout: float | None, clock: Clock
) -> None:
    last = busy(status=status)
    server = Server(clock, busy(status=status), busy(status=status), last, "answer")
    with pytest.raises(APIStatusError) as caught:
        await policy(ready_timeout).call(server)
    assert last is caught.value
    assert (3, [0.5, 1.0], None) == (server.calls, clock.slept, last.waited)


async def test_a_place_becomes_free(clock: Clock) -> None:
    server = Server(clock, busy(), busy(status=429), "answer")
    assert "answer" == await policy().call(server)
    assert 3 == server.calls


@pytest.mark.parametrize("asked", [0.0, 0.2, 60.0])
async def test_retry_after_is_waited_for(asked: float, clock: Clock) -> None:
    server = Server(clock, busy(asked, 429), "answer")
    assert "answer" == await policy(None).call(server)
    assert [asked] == clock.slept


async def test_a_second_answer_that_asks_for_too_long_ends_it(clock: Clock) -> None:
    server = Server(clock, busy(1.0), busy(61.0), "answer")
    with pytest.raises(ServiceUnavailableError):
        await policy(None).call(server)
    assert (2, [1.0]) == (server.calls, clock.slept)


@pytest.mark.parametrize("status", [loading, starting], ids=["loading", "starting"])
async def test_without_a_cold_start_a_loading_server_is_a_busy_one(
    status: Callable[[], BackendError], clock: Clock
) -> None:
    server = Server(clock, status)
    with pytest.raises(ServiceUnavailableError):
        await policy(None).call(server)
    assert (3, [0.5, 1.0]) == (server.calls, clock.slept)


async def test_no_connection_is_tried_three_times(clock: Clock) -> None:
    server = Server(clock, no_route)
    with pytest.raises(APIConnectionError):
        await policy().call(server)
    assert 3 == server.calls


async def test_the_two_budgets_add_up(clock: Clock) -> None:
    server = Server(clock, refused, busy, busy, loading, busy, busy, "answer")
    assert "answer" == await policy().call(server)
    assert 7 == server.calls


async def test_a_process_is_known_to_be_dead_a_moment_after_its_connection_closed() -> None:
    looks = iter([None, None, ServerDiedError("it died")])
    policy = RetryPolicy(endpoint="http://x", ready_timeout=5.0, liveness=lambda: next(looks))

    async def attempt() -> str:
        raise APIConnectionError("the server closed the connection", sent=True)

    with pytest.raises(ServerDiedError, match="it died"):
        await policy.call(attempt)


async def test_a_process_that_lives_keeps_the_error_of_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxbackends.retry.DEATH_KNOWN_AFTER", 0.03)
    looks: list[None] = []
    policy = RetryPolicy(endpoint="http://x", ready_timeout=5.0, liveness=lambda: looks.append(None))

    async def attempt() -> str:
        raise APIConnectionError("the server closed the connection", sent=True)

    with pytest.raises(APIConnectionError):
        await policy.call(attempt)
    assert len(looks) > 1
