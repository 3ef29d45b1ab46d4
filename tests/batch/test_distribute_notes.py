"""Notes and warnings of workers, and workers that cannot answer: with an engine in the process of the test."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from typing import Any

import attrs
import pytest

from ctxbackends._engines import distribute as module
from ctxbackends._engines.contract import WorkerUnavailableError
from ctxbackends._engines.hosting import WorkerWarning
from ctxbackends.errors import BackendError, EndpointWarning
from tests.batch.test_distribute import LocalEngine, LocalWorker, squares


@pytest.fixture
async def engine() -> LocalEngine:
    return LocalEngine()


@attrs.define
class LocalBoard:
    """A board that passes on the notes that are text."""

    events: list[tuple[Any, ...]] = attrs.field(factory=list)

    def add_worker(self, slot: int, /) -> Sequence[Any]:
        self.events.append(("add", slot))
        return [f"hello {slot}"]

    def remove_worker(self, slot: int, /) -> None:
        self.events.append(("remove", slot))

    def receive(self, slot: int, note: Any, /) -> Any:
        self.events.append((note, slot))
        return note if isinstance(note, str) else None


async def test_a_note_is_shared_with_the_other_workers(engine: LocalEngine) -> None:
    board = LocalBoard()
    run = asyncio.ensure_future(engine.run(20, workers=3, board=board))
    await engine.wait_blocks(3)
    engine.workers[1].on_note("news")
    engine.workers[0].on_note(5)
    engine.gate.set()
    assert squares(40) == sorted(await run)
    assert [["hello 0", "news"], ["hello 1"], ["hello 2", "news"]] == [worker.notes for worker in engine.workers]
    assert [("add", 0), ("add", 1), ("add", 2), ("news", 1), (5, 0)] == board.events


async def test_the_worker_of_a_dead_one_gets_the_notes_first(engine: LocalEngine) -> None:
    board = LocalBoard()
    run = asyncio.ensure_future(engine.run(20, board=board))
    await engine.wait_blocks(4)
    engine.workers[0].die()
    await engine.wait_blocks(4)
    while len(engine.workers) < 3:
        await engine.changed.wait()
    engine.workers[1].on_note("news")
    engine.gate.set()
    assert squares(40) == sorted(await run)
    assert [("add", 0), ("add", 1), ("remove", 0), ("add", 0), ("news", 1)] == sorted(
        board.events, key=lambda event: event == ("news", 1)
    )
    assert "hello 0" == engine.workers[2].notes[0]


async def test_a_warning_is_issued_once_for_each_text(engine: LocalEngine) -> None:
    engine.gate.set()
    with warnings.catch_warnings(record=True) as issued:
        warnings.simplefilter("always")
        run = engine.distribute(10, workers=2)
        results = [*await anext(run)]
        for worker in engine.workers:
            worker.on_note(WorkerWarning(EndpointWarning("the route was removed")))
            worker.on_note(WorkerWarning(UserWarning("the route was removed")))
            worker.on_note(WorkerWarning(EndpointWarning("another")))
        async for more in run:
            results += more
    assert squares(20) == sorted(results)
    expected = [(EndpointWarning, "the route was removed"), (UserWarning, "the route was removed")]
    assert [*expected, (EndpointWarning, "another")] == [(one.category, str(one.message)) for one in issued]


async def test_a_filter_can_turn_a_warning_of_a_worker_into_an_error(engine: LocalEngine) -> None:
    engine.gate.set()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = engine.distribute(10, workers=2)
        await anext(run)
        engine.workers[0].on_note(WorkerWarning(UserWarning("strange")))
        with pytest.raises(UserWarning, match="strange"):
            async for _ in run:
                pass
    assert all(worker.is_closed for worker in engine.workers)


# --- workers that cannot answer -------------------------------------------------------------------


def answer_unless(unavailable: dict[int, int]) -> Any:
    """An answer of a worker; ``unavailable`` has for how many workers of a slot the servers are gone."""

    async def answer(engine: LocalEngine, worker: LocalWorker, items: Sequence[int]) -> Sequence[int]:
        await asyncio.sleep(0)
        generation = sum(other.slot == worker.slot for other in engine.workers)
        if generation <= unavailable.get(worker.slot, 0):
            raise WorkerUnavailableError(BackendError(f"no server of {worker.slot}"))
        return [item * item for item in items]

    return answer


async def test_the_others_answer_the_items_of_a_worker_that_cannot(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(LocalEngine, "answer", answer_unless({0: 1}))
    assert squares(40) == sorted(await engine.run(20))
    assert ["worker 1 cannot answer: no server of 0; the other workers go on"] == caplog.messages
    assert [] == engine.deaths
    assert all(worker.is_closed for worker in engine.workers)


async def test_a_worker_that_could_not_answer_is_replaced(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "RESTART_SECONDS", 0.001)
    monkeypatch.setattr(LocalEngine, "answer", answer_unless({0: 3}))

    async def blocks_until_it_answers() -> Any:
        at = 0
        while sum(worker.slot == 0 for worker in engine.workers) < 4 or not engine.workers[-1].blocks:
            yield [at]
            at += 1
            await asyncio.sleep(0)

    engine.source = blocks_until_it_answers()
    results = await engine.run(0)
    assert squares(len(results)) == sorted(results)
    assert [(0, 0), (0, 1), (0, 2), (0, 3)] == [spec for spec in engine.specs if spec[0] == 0]


async def test_no_worker_can_answer(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalEngine, "answer", answer_unless({0: 9, 1: 9}))
    with pytest.raises(BackendError, match=r"^no server of [01]$") as caught:
        await engine.run(20)
    assert BackendError is type(caught.value)
    assert all(worker.is_closed for worker in engine.workers)


async def test_results_that_were_stored_before_a_worker_could_not_answer(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []

    async def answer(_: LocalEngine, worker: LocalWorker, items: Sequence[int]) -> Sequence[int]:
        if worker.slot == 0:
            engine.stored |= {item: item * item for item in items}
            raise WorkerUnavailableError(BackendError("no server"))
        sent.extend(items)
        return [item * item for item in items]

    monkeypatch.setattr(LocalEngine, "answer", answer)
    assert squares(40) == sorted(await engine.run(20))
    assert engine.stored
    assert sorted(set(range(40)) - set(engine.stored)) == sorted(sent)
