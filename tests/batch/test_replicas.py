"""The servers of a batch: least busy first, pauses, and servers that go away and come back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends import APIConnectionError, RateLimitError, open_backend
from ctxbackends._client.server_limits import find_limit, have_same_account
from ctxbackends.batch._asker import MAX_DEATHS
from ctxbackends.batch._limits import WINDOW
from ctxbackends.batch._replica import MAX_DOWN, MAX_IN_FLIGHT, MIN_DOWN, Replica, open_replicas
from ctxbackends.batch._replicas import (
    FIRST_INTERVAL,
    INTERVAL_DECAY,
    MAX_INTERVAL,
    MAX_PAUSE,
    MAX_PROBE_DELAY,
    REPEATED_PAUSE,
    Replicas,
)
from ctxbackends.errors import AuthenticationError, ModelLoadFailedError
from ctxbackends.testing import FaultServer, faults
from tests.batch.virtual_time import now, run

LIMITED = RateLimitError(429)


def refused(problem: str = "refused") -> APIConnectionError:
    return APIConnectionError(problem, refused=True)


class Server:
    """A backend whose server is down in some spans of time, and probed for ``ready_timeout``."""

    def __init__(self, name: str = "a", *, ready_timeout: float = 0.0, probe_seconds: float = 0.0) -> None:
        self.name = name
        self.ready_timeout = ready_timeout
        self.probe_seconds = probe_seconds
        self.up_at = 0.0
        self.probes: list[float] = []
        self.error: Exception = refused(f"{name} is down")

    async def wait_ready(self) -> None:
        self.probes.append(now())
        await asyncio.sleep(self.probe_seconds)
        if self.up_at - now() <= self.ready_timeout:
            await asyncio.sleep(max(0.0, self.up_at - now()))
            return
        await asyncio.sleep(self.ready_timeout)
        raise self.error


def build(server: Server | None = None, limit: int = 1) -> Replica:
    return Replica(server or Server(), limit)  # type: ignore[arg-type]  # only its readiness is asked


def replicas_of(*replicas: Replica, changes: list[tuple[str, bool]] | None = None) -> Replicas:
    def note(replica: Replica) -> None:
        if changes is not None:
            changes.append((replica.backend.name, replica.is_open))

    return Replicas(replicas, note)


# --- the least busy ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        pytest.param((4,), {4: 3}, id="one"),
        pytest.param((4, 4), {4: 4}, id="equal"),
        pytest.param((2, 6), {2: 1, 6: 3}, id="half of each"),
        pytest.param((1, 32), {1: 1, 32: 16}, id="small and large"),
    ],
)
async def test_the_share_of_the_slots_in_use(limits: Sequence[int], expected: dict[int, int]) -> None:
    several = [build(limit=limit) for limit in limits]
    replicas = replicas_of(*several)
    for _ in range(sum(limits) // 2 + (len(limits) == 1)):
        await replicas.acquire()
    shares = Counter({one.limit: 0 for one in several})
    for one in several:
        shares[one.limit] += one.in_flight
    assert all(abs(count - shares[limit]) <= 1 for limit, count in expected.items())


async def test_the_slot_of_the_faster_server_is_used_again() -> None:
    slow, fast = build(limit=2), build(limit=2)
    replicas = replicas_of(slow, fast)
    taken = [await replicas.acquire() for _ in range(4)]
    assert [2, 2] == [slow.in_flight, fast.in_flight]
    for _ in range(10):
        replicas.release(fast)
        assert fast is await replicas.acquire()
    assert Counter(taken) == Counter({slow: 2, fast: 2})


def test_a_slot_is_given_to_one_waiter_only() -> None:
    async def scenario() -> list[int]:
        replicas = replicas_of(build(limit=1))
        order = []

        async def work(number: int) -> None:
            replica = await replicas.acquire()
            assert replica.in_flight == 1
            order.append(number)
            await asyncio.sleep(1)
            replicas.release(replica)

        await asyncio.gather(*(work(number) for number in range(50)))
        assert now() == 50
        return order

    assert [*range(50)] == run(scenario())


@given(
    limits=st.lists(st.integers(1, 4), min_size=1, max_size=3),
    work=st.lists(
        st.tuples(st.floats(0, 2), st.sampled_from(["answer", "pause", "exclude", "cancel"])), min_size=1, max_size=40
    ),
)
def test_limits_order_and_slots_after_any_course(limits: Sequence[int], work: Sequence[tuple[float, str]]) -> None:
    async def scenario() -> None:
        several = [build(Server(str(number)), limit) for number, limit in enumerate(limits)]
        replicas = replicas_of(*several)
        done = []

        async def row(number: int, seconds: float, end: str) -> None:
            replica = await replicas.acquire()
            try:
                assert replica.in_flight <= replica.limit
                await asyncio.sleep(seconds)
                if end == "pause":
                    replicas.pause(replica, seconds, LIMITED)
                elif end == "exclude":
                    replicas.exclude(replica, refused())
                else:
                    replica.answers += 1
                done.append(number)
            finally:
                replicas.release(replica)

        tasks = [asyncio.create_task(row(number, *one)) for number, one in enumerate(work)]
        await asyncio.sleep(0)
        expected = []
        for number, (seconds, end) in enumerate(work):
            if end == "cancel":
                asyncio.get_running_loop().call_later(seconds, tasks[number].cancel)
            else:
                expected.append(number)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert {None} >= {one for one in results if not isinstance(one, asyncio.CancelledError)}
        assert {*expected} <= {*done}
        assert [0] * len(limits) == [one.in_flight for one in several]
        await asyncio.sleep(2 * MAX_DOWN)
        assert all(one.is_open for one in several)
        await replicas.aclose()

    run(scenario())


async def test_a_cancelled_waiter_gives_its_slot_on() -> None:
    replica = build(limit=1)
    replicas = replicas_of(replica)
    await replicas.acquire()
    first, second = (asyncio.create_task(replicas.acquire()) for _ in range(2))
    await asyncio.sleep(0)
    replicas.release(replica)
    first.cancel()  # it has the slot by now
    assert replica is await second
    assert first.cancelled()
    assert replica.in_flight == 1


# --- limits -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "configured", "slots", "expected"),
    [
        (None, None, None, MAX_IN_FLIGHT),
        (5, None, None, 5),
        (100, None, None, 100),
        (None, 3, None, 3),
        (8, 3, None, 3),
        (2, 3, None, 2),
        (None, None, 6, 6),
        (4, None, 6, 4),
        (8, None, 6, 6),
        (None, 2, 6, 2),
    ],
)
async def test_the_limit_of_a_server(
    asked: int | None, configured: int | None, slots: int | None, expected: int
) -> None:
    async with FaultServer() as server:
        if slots is not None:
            server.play_always(props(slots), probes=True)
        async with open_backend("llamacpp", endpoint=server.url, max_concurrency=configured) as backend:
            (replica,) = await open_replicas([backend], asked)
            assert expected == replica.limit == replicas_of(replica).capacity


def props(slots: int) -> faults.Script:
    def script(response: faults.ResponseBuilder) -> Iterator[faults.Step]:
        if response.route == "/props":
            body = b'{"total_slots": %d, "default_generation_settings": {"n_ctx": 4096}}' % slots
            yield b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        else:
            yield from faults.respond(response)

    return script


async def test_a_limit_that_the_backend_learns_later() -> None:
    async with FaultServer() as server, open_backend("llamacpp", endpoint=server.url, default_model="m") as backend:
        server.play_always(faults.loading(), probes=True)
        (replica,) = await open_replicas([backend], None)
        assert replica.limit == MAX_IN_FLIGHT
        server.play_always(props(4), probes=True)
        replicas = replicas_of(replica)
        await replicas.acquire()
        await backend.complete("hi")
        replicas.release(replica)
        assert 4 == replica.limit == find_limit(backend) == replicas.capacity


async def test_the_slots_of_a_server_that_starts_are_awaited_for_workers() -> None:
    async with FaultServer() as server, open_backend("llamacpp", endpoint=server.url) as backend:
        server.play(faults.loading(0.3), probes=True)
        server.play_always(props(4), probes=True)
        (replica,) = await open_replicas([backend], None, wait=True)
        assert replica.limit == 4


async def test_a_server_that_never_starts_is_not_awaited_for_ever() -> None:
    async with FaultServer() as server, open_backend("llamacpp", endpoint=server.url, ready_timeout=0.2) as backend:
        server.play_always(faults.loading(), probes=True)
        (replica,) = await open_replicas([backend], None, wait=True)
        assert replica.limit == MAX_IN_FLIGHT


# --- Retry-After ------------------------------------------------------------------------------------


def test_a_paused_server_gets_nothing() -> None:
    async def scenario() -> list[tuple[str, float]]:
        one, other = build(Server("one"), 2), build(Server("other"), 1)
        changes: list[tuple[str, bool]] = []
        replicas = replicas_of(one, other, changes=changes)
        await replicas.acquire()
        replicas.pause(one, 30, LIMITED)
        replicas.release(one)
        assert other is await replicas.acquire()
        waiting = [asyncio.create_task(replicas.acquire()) for _ in range(2)]
        await asyncio.sleep(10)
        assert not any(task.done() for task in waiting)
        replicas.release(other)
        assert other is await waiting[0]
        assert (one, 30) == (await waiting[1], now())
        assert [("one", False), ("one", True)] == changes
        return []

    run(scenario())


def test_the_longest_retry_after_counts() -> None:
    async def scenario() -> float:
        replica = build(limit=4)
        replicas = replicas_of(replica)
        for _ in range(3):
            await replicas.acquire()
        for seconds in (5, 20, 10):
            replicas.pause(replica, seconds, LIMITED)
            replicas.release(replica)
        await replicas.acquire()
        return now()

    assert run(scenario()) == 20


def test_a_retry_after_that_was_too_short_is_doubled() -> None:
    async def scenario() -> tuple[list[float], list[float]]:
        replica = build(limit=1)
        replicas = replicas_of(replica)

        async def reject_until(count: int) -> list[float]:
            times = []
            for _ in range(count):
                await replicas.acquire()
                times.append(now())
                replicas.pause(replica, 1, LIMITED)
                replicas.release(replica)
            return [later - earlier for earlier, later in pairwise(times)]

        before = await reject_until(10)
        await replicas.acquire()
        replica.answers += 1
        replicas.release(replica)
        return before, await reject_until(3)

    before, after = run(scenario())
    assert [1, 2, 4, 8, 16, 30, 30, 30, 30] == before
    assert [1, 2] == after


def test_fewer_at_once_after_a_pause_and_then_more() -> None:
    async def scenario() -> list[int]:
        replica = build(limit=8)
        replicas = replicas_of(replica)
        for _ in range(8):
            await replicas.acquire()
        replica.answers += 100
        replicas.pause(replica, 1, LIMITED)
        for _ in range(8):
            replicas.release(replica)
        most = 0
        in_flight = []

        async def row() -> None:
            nonlocal most
            await replicas.acquire()
            most = max(most, replica.in_flight)
            in_flight.append(replica.in_flight)
            await asyncio.sleep(1)
            replicas.release(replica)

        await asyncio.gather(*(row() for _ in range(100)))
        return [max(in_flight[:4]), most]

    assert [4, 8] == run(scenario())


def test_one_at_once_after_a_pause_without_an_answer() -> None:
    async def scenario() -> int:
        replica = build(limit=8)
        replicas = replicas_of(replica)
        for _ in range(8):
            await replicas.acquire()
        for _ in range(8):
            replicas.pause(replica, 1, LIMITED)
            replicas.release(replica)
        waiting = [asyncio.create_task(replicas.acquire()) for _ in range(8)]
        await asyncio.sleep(5)
        sent = replica.in_flight
        for task in waiting:
            task.cancel()
        return sent

    assert run(scenario()) == 1


def test_rejected_rows_wait_first_and_in_their_order() -> None:
    async def scenario() -> list[str]:
        replica = build(limit=1)
        replicas = replicas_of(replica)
        await replicas.acquire()
        order: list[str] = []

        async def wait(name: str, *, first: bool) -> None:
            await replicas.acquire(first=first)
            order.append(name)
            replicas.release(replica)

        names = [("a", False), ("b", True), ("c", False), ("d", True), ("e", True)]
        tasks = []
        for name, first in names:
            tasks.append(asyncio.create_task(wait(name, first=first)))
            await asyncio.sleep(0)
        tasks[3].cancel()
        await asyncio.sleep(0)
        replicas.release(replica)
        await asyncio.gather(*tasks, return_exceptions=True)
        return order

    assert ["b", "e", "a", "c"] == run(scenario())


@pytest.mark.parametrize("seconds", [0.2, 2])
@pytest.mark.parametrize("limit", [10, 30, 100])
def test_a_server_with_a_limit_of_a_minute_rejects_no_row_often(limit: int, seconds: float) -> None:
    async def scenario() -> tuple[int, float]:
        replica = build(limit=32)
        replicas = replicas_of(replica)
        accepted: list[float] = []
        rejected: Counter[int] = Counter()

        async def row(number: int) -> None:
            is_answered = False
            while not is_answered:
                await replicas.acquire(first=rejected[number] > 0)
                while accepted and accepted[0] <= now() - 60:
                    del accepted[0]
                is_answered = len(accepted) < limit
                if is_answered:
                    accepted.append(now())
                    await asyncio.sleep(seconds)
                    replica.answers += 1
                else:
                    retry_after = accepted[0] + 60 - now()
                    await asyncio.sleep(0.05)
                    rejected[number] += 1
                    replicas.pause(replica, retry_after, LIMITED)
                replicas.release(replica)

        rows = iter(range(300))

        async def work() -> None:
            for number in rows:
                await row(number)

        await asyncio.gather(*(work() for _ in range(64)))
        await replicas.aclose()
        return max(rejected.values()), now()

    most, duration = run(scenario())
    assert most <= 6  # a Retry-After counts half
    assert duration <= 1.2 * 300 / limit * 60


def test_all_ask_for_more_than_an_hour() -> None:
    async def scenario() -> None:
        one, other = build(Server("one")), build(Server("other"))
        replicas = replicas_of(one, other)
        await replicas.acquire()
        await replicas.acquire()
        waiting = asyncio.create_task(replicas.acquire())
        await asyncio.sleep(0)
        replicas.pause(one, MAX_PAUSE + 1, LIMITED)
        await asyncio.sleep(0)
        assert not waiting.done()
        replicas.pause(other, MAX_PAUSE + 1, LIMITED)
        with pytest.raises(RateLimitError):
            await waiting
        with pytest.raises(RateLimitError):
            await replicas.acquire()
        await replicas.aclose()

    run(scenario())


async def test_backends_of_one_account_pause_together() -> None:
    options: dict[str, Any] = {"endpoint": "http://127.0.0.1:9/v1", "api_key": "sk-one"}
    async with (
        open_backend("openai", name="a", **options) as a,
        open_backend("openai", name="b", **options) as b,
        open_backend("openai", name="c", **options | {"api_key": "sk-two"}) as c,
        open_backend("openai", name="d", **options | {"endpoint": "http://127.0.0.1:10/v1"}) as d,
    ):
        several = [Replica(one) for one in (a, b, c, d)]
        replicas = replicas_of(*several)
        replicas.pause(several[0], 10, LIMITED)
        assert [True, True, False, False] == [one.is_paused for one in several]
        await replicas.aclose()
        assert [have_same_account(a, other) for other in (a, b, c, d)] == [True, True, False, False]
        assert not have_same_account(a, Server())  # type: ignore[arg-type]


# --- busy servers without a Retry-After -------------------------------------------------------------


def test_the_rate_of_a_server_is_found() -> None:
    async def scenario() -> tuple[int, int, int, float]:
        replica = build(limit=32)
        replicas = replicas_of(replica)
        last = -1.0
        rejected: Counter[int] = Counter()

        async def row(number: int) -> None:
            nonlocal last
            while True:
                await replicas.acquire()
                accepts = now() - last >= 1  # one request in each second
                last = now() if accepts else last
                await asyncio.sleep(0.1)
                if accepts:
                    replica.answers += 1
                else:
                    replicas.slow_down(replica)
                    rejected[number] += 1
                replicas.release(replica)
                if accepts:
                    return
                await asyncio.sleep(0.5)

        rows = iter(range(300))

        async def work() -> None:
            for number in rows:
                await row(number)

        await asyncio.gather(*(work() for _ in range(64)))
        await replicas.aclose()
        return replica.answers, max(rejected.values()), rejected.total(), now()

    answers, most, total, seconds = run(scenario())
    assert answers == 300
    assert most <= 3  # fewer than a row is sent again
    assert total <= 100
    assert seconds <= 600


def test_a_single_busy_response_slows_only_for_a_moment() -> None:
    async def scenario() -> float:
        replica = build(limit=4)
        replicas = replicas_of(replica)
        replicas.slow_down(replica)
        for _ in range(1000):
            await replicas.acquire()
            replica.answers += 1
            replicas.release(replica)
        return now()

    assert 0.1 < run(scenario()) < 2


def test_the_other_server_is_not_slowed() -> None:
    async def scenario() -> list[Replica]:
        busy, other = build(limit=4), build(limit=4)
        replicas = replicas_of(busy, other)
        replicas.slow_down(busy)
        taken = [await replicas.acquire() for _ in range(4)]
        assert now() == 0
        await replicas.acquire()
        assert now() == pytest.approx(0.05)
        await replicas.aclose()
        return [one for one in taken if one is not other]

    assert [] == run(scenario())


# --- servers that go away ---------------------------------------------------------------------------


def test_a_server_is_left_out_and_comes_back() -> None:
    async def scenario() -> None:
        server = Server("one")
        one, other = build(server, 1), build(Server("other"), 1)
        changes: list[tuple[str, bool]] = []
        replicas = replicas_of(one, other, changes=changes)
        assert one is await replicas.acquire()
        server.up_at = 20
        replicas.exclude(one, refused())
        replicas.release(one)
        for _ in range(15):
            assert other is await replicas.acquire()
            await asyncio.sleep(1)
            replicas.release(other)
        assert {"one"} == {name for name, _ in changes}
        await asyncio.sleep(20)
        assert one is await replicas.acquire()
        assert [("one", False), ("one", True)] == changes
        gaps = [later - earlier for earlier, later in pairwise(server.probes)]
        assert gaps == sorted(gaps)
        assert len(gaps) < 15

    run(scenario())


def test_a_probe_that_fails_for_ever_does_not_spin() -> None:
    async def scenario() -> int:
        server = Server("one")
        server.up_at = 1e9
        one, other = build(server), build(Server("other"))
        replicas = replicas_of(one, other)
        replicas.exclude(one, refused())
        await asyncio.sleep(3600)
        assert other is await replicas.acquire()
        await replicas.aclose()
        return len(server.probes)

    assert run(scenario()) < 800


def test_all_wait_for_a_server_that_starts() -> None:
    async def scenario() -> float:
        server = Server(ready_timeout=90)
        server.up_at = 60
        replica = build(server, 4)
        replicas = replicas_of(replica)
        for _ in range(4):
            await replicas.acquire()
        waiting = [asyncio.create_task(replicas.acquire()) for _ in range(4)]
        await asyncio.sleep(0)
        for _ in range(4):
            replicas.exclude(replica, refused())
            replicas.release(replica)
        assert [replica] * 4 == await asyncio.gather(*waiting)
        assert len(server.probes) == 1
        return now()

    assert run(scenario()) == 60


@pytest.mark.parametrize("answers", [0, 5])
def test_a_server_that_does_not_start(answers: int) -> None:
    async def scenario() -> float:
        server = Server(ready_timeout=90)
        server.up_at = 1e9
        replica = build(server, 2)
        replicas = replicas_of(replica)
        replica.answers = answers
        await replicas.acquire()
        replicas.exclude(replica, refused("at first"))
        replicas.release(replica)
        results = await asyncio.gather(*(replicas.acquire() for _ in range(5)), return_exceptions=True)
        assert ["a is down"] * 5 == [str(error) for error in results]
        assert len({id(error) for error in results}) == 5
        with pytest.raises(APIConnectionError, match="a is down"):
            await replicas.acquire()
        return now()

    assert run(scenario()) == 90


@pytest.mark.parametrize(("answers", "seconds"), [(0, 0), (5, MIN_DOWN)])
def test_a_server_that_has_no_cold_start_may_restart(answers: int, seconds: float) -> None:
    async def scenario() -> tuple[float, int]:
        server = Server()
        server.up_at = 1e9
        replica = build(server)
        replica.answers = answers
        replicas = replicas_of(replica)
        replicas.exclude(replica, refused())
        with pytest.raises(APIConnectionError, match="a is down"):
            await replicas.acquire()
        return now(), len(server.probes)

    at, probes = run(scenario())
    assert seconds <= at <= seconds + 5
    assert probes <= 10


def test_all_are_dead() -> None:
    async def scenario() -> float:
        servers = [Server("one", ready_timeout=90), Server("other", ready_timeout=30)]
        for server in servers:
            server.up_at = 1e9
        one, other = (build(server) for server in servers)
        replicas = replicas_of(one, other)
        replicas.exclude(one, refused())
        await asyncio.sleep(500)
        replicas.exclude(other, refused())
        with pytest.raises(APIConnectionError):
            await replicas.acquire()
        await replicas.aclose()
        return now()

    assert 530 <= run(scenario()) <= 590


def test_the_others_are_probed_at_once_when_the_last_one_goes_away() -> None:
    async def scenario() -> float:
        first = Server("first")
        first.up_at = 102
        last = Server("last")
        last.up_at = 1e9
        one, other = build(first), build(last)
        other.answers = 1
        replicas = replicas_of(one, other)
        replicas.exclude(one, refused())
        await asyncio.sleep(103)
        if one.is_open:
            await replicas.acquire()  # keep it busy
        replicas.exclude(other, refused())
        assert one is await replicas.acquire()
        await replicas.aclose()
        return now()

    assert 103 <= run(scenario()) < 104


def test_a_server_that_is_ready_but_never_answers() -> None:
    async def scenario() -> tuple[float, int]:
        server = Server()
        replica = build(server, 4)
        replicas = replicas_of(replica)
        sent = 0

        async def row() -> None:
            nonlocal sent
            while True:
                await replicas.acquire()
                sent += 1
                replicas.exclude(replica, refused("no answer"))
                replicas.release(replica)

        results = await asyncio.gather(*(row() for _ in range(8)), return_exceptions=True)
        assert {"no answer"} == {str(error) for error in results}
        return now(), sent

    seconds, sent = run(scenario())
    assert MAX_DOWN <= seconds <= MAX_DOWN + 10
    assert sent < 60


def test_a_server_that_answers_between_its_failures_stays() -> None:
    async def scenario() -> None:
        replica = build(limit=1)
        replicas = replicas_of(replica)
        for _ in range(500):
            await replicas.acquire()
            replica.answers += 1
            replicas.release(replica)
            await replicas.acquire()
            replicas.exclude(replica, refused())
            replicas.release(replica)
        assert now() < 1

    run(scenario())


def test_one_flapping_server_and_one_dead_one() -> None:
    async def scenario() -> float:
        dead = Server("dead", ready_timeout=90)
        dead.up_at = 1e9
        flapping, other = build(Server("flapping")), build(dead)
        replicas = replicas_of(flapping, other)
        replicas.exclude(other, refused())
        with pytest.raises(APIConnectionError):
            while True:
                replica = await replicas.acquire()
                replicas.exclude(replica, refused("no answer"))
                replicas.release(replica)
        await replicas.aclose()
        return now()

    assert run(scenario()) <= MAX_DOWN + 100


@pytest.mark.parametrize("error", [AuthenticationError(401), ModelLoadFailedError(500), ValueError("a bug")])
def test_a_probe_that_fails_otherwise(error: Exception) -> None:
    async def scenario() -> None:
        server = Server()
        server.up_at = 1e9
        server.error = error
        replica = build(server)
        replicas = replicas_of(replica)
        replicas.exclude(replica, refused())
        with pytest.raises(type(error)):
            await replicas.acquire()
        await replicas.aclose()

    run(scenario())


def test_close_while_probing() -> None:
    async def scenario() -> None:
        server = Server(ready_timeout=90)
        server.up_at = 50
        replica = build(server)
        replicas = replicas_of(replica)
        replicas.exclude(replica, refused())
        replicas.pause(replica, 10, LIMITED)
        await asyncio.sleep(1)
        await replicas.aclose()
        assert now() == 1
        assert {asyncio.current_task()} == asyncio.all_tasks()

    run(scenario())


def test_the_documented_numbers() -> None:
    text = " ".join((Path(__file__).parents[2] / "docs/reference/batch-servers.md").read_text(encoding="utf-8").split())
    assert f"or {MAX_IN_FLIGHT} |" in text
    assert f"a minute counts as {WINDOW:g} seconds" in text
    assert (
        f"from {FIRST_INTERVAL:g} to {MAX_INTERVAL:g} seconds; each answer shortens them by {1 - INTERVAL_DECAY:.0%}"
        in text
    )
    assert f"at most {MAX_DEATHS} times in all" in text
    assert f"probed every {MAX_PROBE_DELAY:g} seconds" in text
    assert f"at least {MIN_DOWN:g} seconds" in text
    assert (30, 120, 3600) == (REPEATED_PAUSE, MAX_DOWN, MAX_PAUSE)  # half a minute, two minutes, an hour
