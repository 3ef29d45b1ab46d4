"""The servers as all workers know them: pauses that are passed on, and the state in the report."""

from __future__ import annotations

import asyncio
from itertools import groupby

import pytest

from ctxbackends import Backend, RateLimitError, open_backend
from ctxbackends.batch import BatchReport
from ctxbackends.batch._board import AvailabilityNote, PauseNote, RateLimitNote, ServerBoard
from ctxbackends.batch._replicas import MAX_PAUSE, Replicas
from ctxbackends.errors import BackendError
from tests.batch.test_replicas import Server, build
from tests.batch.virtual_time import now, run

LIMITED = RateLimitError(429)


class Watch:
    """A board of servers, and the states of its report with their times."""

    def __init__(self, *names: str) -> None:
        self.report = BatchReport()
        self.states: list[tuple[float, tuple[str, ...], tuple[str, ...], bool]] = []
        servers = [Server(name) for name in names]
        self.board = ServerBoard(servers, self.report, self._note)  # type: ignore[arg-type]  # only names

    def _note(self) -> None:
        report = self.report
        self.states.append((now(), report.paused, report.unavailable, report.is_rate_limited))


def pause(name: str, seconds: float) -> PauseNote:
    return PauseNote((name,), seconds, LIMITED)


# --- the board ------------------------------------------------------------------------------------


def test_a_pause_is_passed_on_and_ends() -> None:
    async def check() -> None:
        watch = Watch("a", "b")
        assert pause("a", 2.0) == watch.board.receive(0, pause("a", 2.0))
        await asyncio.sleep(3.0)
        assert [(0.0, ("a",), (), False), (2.0, (), (), False)] == watch.states

    run(check())


def test_only_a_longer_pause_is_passed_on() -> None:
    async def check() -> None:
        watch = Watch("a")
        watch.board.receive(0, pause("a", 2.0))
        await asyncio.sleep(1.0)
        assert watch.board.receive(1, pause("a", 0.5)) is None
        assert pause("a", 1.5) == watch.board.receive(1, pause("a", 1.5))
        await asyncio.sleep(5.0)
        assert [(0.0, ("a",), (), False), (2.5, (), (), False)] == watch.states

    run(check())


def test_a_worker_that_starts_gets_the_rest_of_the_pauses() -> None:
    async def check() -> None:
        watch = Watch("a", "b")
        watch.board.receive(0, pause("a", 2.0))
        watch.board.receive(1, pause("b", 5.0))
        await asyncio.sleep(0.5)
        assert [pause("a", 1.5), pause("b", 4.5)] == [*watch.board.add_worker(0)]
        await asyncio.sleep(2.0)
        assert [pause("b", 2.5)] == [*watch.board.add_worker(1)]
        watch.board.close()

    run(check())


async def test_backends_of_one_account_are_paused_together() -> None:
    """A worker may have only one of them."""
    async with (
        open_backend("openai-compatible", name="a", endpoint="http://127.0.0.1:9", default_model="m") as a,
        open_backend("openai-compatible", name="b", endpoint="http://127.0.0.1:9", default_model="m") as b,
        open_backend("openai-compatible", name="c", endpoint="http://127.0.0.1:10", default_model="m") as c,
    ):
        backends: list[Backend] = [a, b, c]
        report = BatchReport()
        board = ServerBoard(backends, report, lambda: None)
        assert PauseNote(("a", "b"), 5.0, LIMITED) == board.receive(0, pause("a", 5.0))
        assert ("a", "b") == report.paused
        board.close()


def test_a_server_is_unavailable_while_it_is_for_one_worker() -> None:
    async def check() -> None:
        watch = Watch("a", "b")
        for slot, name, is_available in [(0, "a", False), (1, "a", False), (1, "b", False), (0, "a", True)]:
            assert watch.board.receive(slot, AvailabilityNote(name, is_available)) is None
        assert ("a", "b") == watch.report.unavailable
        watch.board.remove_worker(1)
        assert [("a",), ("a", "b"), ()] == [unavailable for _, _, unavailable, _ in watch.states]

    run(check())


def test_the_rate_limit_of_one_worker() -> None:
    async def check() -> None:
        watch = Watch("a")
        for slot, is_waiting in [(0, True), (1, True), (0, False), (1, False), (1, True)]:
            assert watch.board.receive(slot, RateLimitNote(is_waiting)) is None
        watch.board.add_worker(1)
        assert [True, False, True, False] == [state for state, _ in groupby(watch.states, lambda state: state[3])]

    run(check())


# --- the servers of the other workers -------------------------------------------------------------


def test_a_shared_pause_is_obeyed_and_makes_no_other() -> None:
    async def check() -> None:
        notes: list[float] = []
        first, second = build(Server("a")), build(Server("b"))
        replicas = Replicas([first, second], lambda _: None, lambda _, seconds, __: notes.append(seconds))
        replicas.share_pause(("a",), 2.0, LIMITED)
        assert second is await replicas.acquire()
        assert first is await replicas.acquire()
        assert (2.0, []) == (now(), notes)

    run(check())


def test_a_pause_after_a_shared_one_is_doubled_once() -> None:
    """The server has asked all workers for a second, and asks again when it is over."""

    async def check() -> None:
        notes: list[float] = []
        replica = build()
        replicas = Replicas([replica], lambda _: None, lambda _, seconds, __: notes.append(seconds))
        replicas.share_pause(("a",), 1.0, LIMITED)
        await asyncio.sleep(1.5)
        replicas.pause(replica, 1.0, LIMITED)
        await asyncio.sleep(0.5)
        replicas.pause(replica, 1.0, LIMITED)  # the response to another request of the same moment
        assert [2.0, 1.5] == notes

    run(check())


@pytest.mark.parametrize("names", [("a",), ("a", "other")])
def test_a_shared_pause_of_more_than_an_hour(names: tuple[str, ...]) -> None:
    async def check() -> None:
        replicas = Replicas([build()], lambda _: None)
        replicas.share_pause(names, MAX_PAUSE + 1, LIMITED)
        with pytest.raises(BackendError):
            await replicas.acquire()
        assert replicas.has_failed
        await replicas.aclose()

    run(check())
