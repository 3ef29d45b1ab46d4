"""The limits of a minute: never more than allowed, in order, and no longer than needed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends.batch._limits import WINDOW, RateLimit
from tests.batch.virtual_time import now, run

MINUTE = 60.0


def limit(requests: int | None = None, tokens: int | None = None, *, spent: bool = False) -> RateLimit:
    return RateLimit(requests, tokens, closed_for=WINDOW if spent else 0.0, clock=asyncio.get_running_loop().time)


async def send(rate_limit: RateLimit, seconds: float, tokens: int, sent: list[float] | None = None) -> float:
    await rate_limit.acquire()
    if sent is not None:
        sent.append(now())
    await asyncio.sleep(seconds)
    rate_limit.release(tokens)
    return now()


# --- requests ---------------------------------------------------------------------------------------


@given(
    requests=st.integers(1, 5),
    gaps=st.lists(st.floats(0, 50), max_size=40),
    seconds=st.floats(0, 90),
    spent=st.booleans(),
)
def test_never_more_requests_than_the_limit_in_any_minute(
    requests: int, gaps: Sequence[float], seconds: float, spent: bool
) -> None:
    async def scenario() -> list[float]:
        rate_limit = limit(requests, spent=spent)
        sent: list[float] = []
        tasks = []
        for gap in gaps:
            await asyncio.sleep(gap)
            tasks.append(asyncio.create_task(send(rate_limit, seconds, 10, sent)))
        await asyncio.gather(*tasks)
        return sent

    sent = run(scenario())
    assert len(gaps) == len(sent)
    assert [] == [(first, last) for first, last in zip(sent, sent[requests:], strict=False) if last - first <= MINUTE]
    assert not spent or all(at > MINUTE for at in sent)


def test_a_burst_is_sent_at_once_and_the_rest_in_the_next_windows() -> None:
    async def scenario() -> list[float]:
        rate_limit = limit(3)
        sent: list[float] = []
        await asyncio.gather(*(send(rate_limit, 1, 10, sent) for _ in range(8)))
        return sent

    windows = [0, 0, 0, 1, 1, 1, 2, 2]
    assert [pytest.approx(WINDOW * window, abs=0.01) for window in windows] == run(scenario())


def test_the_window_slides() -> None:
    async def scenario() -> list[float]:
        rate_limit = limit(2)
        sent: list[float] = []
        for delay in (0, 20, 0, 0):
            await asyncio.sleep(delay)
            await send(rate_limit, 0, 10, sent)
        return sent

    assert [pytest.approx(at, abs=0.01) for at in (0, 20, WINDOW, WINDOW + 20)] == run(scenario())


def test_errors_count_as_requests() -> None:
    async def scenario() -> float:
        rate_limit = limit(1)
        await send(rate_limit, 0, 0)
        return await send(rate_limit, 0, 0)

    assert pytest.approx(WINDOW, abs=0.01) == run(scenario())


def test_a_replacement_starts_with_a_spent_minute() -> None:
    async def scenario() -> list[float]:
        rate_limit = limit(2, spent=True)
        await asyncio.sleep(10)
        sent: list[float] = []
        await asyncio.gather(*(send(rate_limit, 1, 10, sent) for _ in range(3)))
        return sent

    assert [pytest.approx(WINDOW * window, abs=0.01) for window in (1, 1, 2)] == run(scenario())


def test_a_replacement_without_limits_starts_at_once() -> None:
    async def scenario() -> float:
        return await send(limit(spent=True), 0, 10)

    assert run(scenario()) == 0


def test_no_limit() -> None:
    async def scenario() -> float:
        rate_limit = limit()
        await asyncio.gather(*(send(rate_limit, 1, 10**9) for _ in range(1000)))
        return now()

    assert run(scenario()) == 1


# --- order and cancelling ---------------------------------------------------------------------------


@given(requests=st.integers(1, 3), cancelled=st.sets(st.integers(0, 19)))
def test_the_longest_waiting_is_next_and_cancelled_ones_lose_nothing(requests: int, cancelled: set[int]) -> None:
    async def scenario() -> tuple[list[int], float]:
        rate_limit = limit(requests)
        order: list[int] = []

        async def ask(number: int) -> None:
            await rate_limit.acquire()
            order.append(number)
            rate_limit.release(10)

        await asyncio.gather(*(ask(-1) for _ in range(requests)))
        tasks = [asyncio.create_task(ask(number)) for number in range(20)]
        await asyncio.sleep(0)
        for number in cancelled:
            tasks[number].cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        return order[requests:], now()

    order, seconds = run(scenario())
    expected = [number for number in range(20) if number not in cancelled]
    assert expected == order
    assert pytest.approx(-(-len(expected) // requests) * WINDOW, abs=0.1) == seconds


def test_one_that_is_cancelled_when_it_is_admitted_counts_as_sent() -> None:
    async def scenario() -> list[float]:
        rate_limit = limit(requests=2, tokens=100)
        await rate_limit.acquire()
        admitted = asyncio.create_task(rate_limit.acquire())
        sent: list[float] = []
        following = [asyncio.create_task(send(rate_limit, 0, 10, sent)) for _ in range(2)]
        await asyncio.sleep(0)
        rate_limit.release(10)
        admitted.cancel()
        await asyncio.gather(admitted, *following, return_exceptions=True)
        assert admitted.cancelled()
        return sent

    assert [pytest.approx(WINDOW, abs=0.01)] * 2 == run(scenario())


# --- tokens -----------------------------------------------------------------------------------------


@given(tokens=st.integers(1, 50), size=st.integers(1, 50), seconds=st.lists(st.floats(0, 90), min_size=1, max_size=30))
def test_never_more_tokens_than_the_limit_in_any_minute(tokens: int, size: int, seconds: Sequence[float]) -> None:
    async def scenario() -> list[float]:
        rate_limit = limit(tokens=tokens)
        return await asyncio.gather(*(send(rate_limit, each, size) for each in seconds))

    ends = sorted(run(scenario()))
    at_once = max(1, tokens // size)
    assert [] == [(first, last) for first, last in zip(ends, ends[at_once:], strict=False) if last - first <= MINUTE]


@given(
    tokens=st.integers(1, 100),
    rows=st.lists(st.tuples(st.integers(0, 200), st.floats(0, 90)), max_size=30),
    requests=st.none() | st.integers(1, 3),
)
def test_every_row_is_sent(tokens: int, rows: Sequence[tuple[int, float]], requests: int | None) -> None:
    async def scenario() -> int:
        rate_limit = limit(requests, tokens)
        return len(await asyncio.gather(*(send(rate_limit, seconds, size) for size, seconds in rows)))

    assert len(rows) == run(scenario())


def test_the_first_answer_tells_how_many_fit() -> None:
    async def scenario() -> list[float]:
        rate_limit = limit(tokens=100)
        sent: list[float] = []
        await asyncio.gather(*(send(rate_limit, 1, 30, sent) for _ in range(5)))
        return sent

    assert [0, 1, 1, WINDOW + 1, WINDOW + 2] == [pytest.approx(at, abs=0.01) for at in run(scenario())]


def test_the_estimate_grows_with_the_answers() -> None:
    async def scenario() -> list[float]:
        rate_limit = limit(tokens=100)
        sent: list[float] = []
        await send(rate_limit, 1, 10, sent)  # then 9 would fit
        await send(rate_limit, 1, 50, sent)  # the average is 30 then, and one more fits
        await asyncio.gather(*(send(rate_limit, 1, 30, sent) for _ in range(2)))
        return sent

    # The tokens of the first answer do not suffice for the fourth row.
    assert [0, 1, 2, WINDOW + 2] == [pytest.approx(at, abs=0.01) for at in run(scenario())]


def test_a_row_larger_than_the_limit_is_sent_alone() -> None:
    async def scenario() -> list[tuple[float, float]]:
        rate_limit = limit(tokens=100)
        spans = []

        async def ask() -> None:
            await rate_limit.acquire()
            started = now()
            await asyncio.sleep(5)
            rate_limit.release(500)
            spans.append((started, now()))

        await asyncio.gather(*(ask() for _ in range(3)))
        return spans

    assert all(end + MINUTE < start for (_, end), (start, _) in pairwise(run(scenario())))


def test_a_request_without_tokens_leaves_room() -> None:
    async def scenario() -> float:
        rate_limit = limit(tokens=10)
        for _ in range(50):
            await send(rate_limit, 0, 0)
        return now()

    assert run(scenario()) == 0


def test_the_tokens_of_requests_in_flight_are_reserved() -> None:
    async def scenario() -> list[float]:
        rate_limit = limit(tokens=100)
        sent: list[float] = []
        await send(rate_limit, 0, 40, sent)
        await asyncio.gather(*(send(rate_limit, 30, 40, sent) for _ in range(2)))
        return sent

    assert [0, 0, WINDOW] == [pytest.approx(at, abs=0.01) for at in run(scenario())]
