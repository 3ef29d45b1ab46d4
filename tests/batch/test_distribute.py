"""Blocks over workers that die, do not start, or fail: with an engine that runs them in the process of the test."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import attrs
import pytest

from ctxbackends._engines.contract import EngineError, WorkerDiedError, WorkerStartError
from ctxbackends._engines.distribute import WorkerDeath, distribute, plan_blocks
from ctxbackends.errors import BackendError


@attrs.define(eq=False)
class LocalWorker:
    """A worker of the test's process.

    Attributes:
        slot: Its slot.
        on_note: Gets its notes.
        blocks: The blocks that it has.
        notes: The notes of the driver.
    """

    engine: LocalEngine
    slot: int
    on_note: Callable[[Any], None]
    host: str = "here"
    blocks: list[Sequence[int]] = attrs.field(factory=list)
    death: asyncio.Future[WorkerDiedError] = attrs.field(factory=lambda: asyncio.get_running_loop().create_future())
    is_closed: bool = False
    notes: list[Any] = attrs.field(factory=list)

    def send(self, note: Any, /) -> None:
        self.notes.append(note)

    async def answer(self, items: Sequence[int], /) -> Sequence[int]:
        engine = self.engine
        if self.death.done():
            raise self.death.result()
        self.blocks.append(items)
        engine.peak = max(engine.peak, len(self.blocks))
        engine.sent += items
        engine.notify()
        try:
            if engine.deadly in items:
                self.die()
            answering = asyncio.ensure_future(engine.answer(self, items))
            either: list[asyncio.Future[Any]] = [self.death, answering]
            await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
            if self.death.done():
                answering.cancel()
                raise self.death.result()
            return await answering
        finally:
            self.blocks.remove(items)

    def die(self) -> None:
        if not self.death.done():
            self.engine.died_at = asyncio.get_running_loop().time()
            self.death.set_result(WorkerDiedError(f"worker {self.slot + 1} ended: killed", settle=self.engine.settle))

    async def aclose(self) -> None:
        self.is_closed = True


@attrs.define(eq=False, slots=False)
class LocalEngine:
    """An engine whose workers answer an item with its square, once :attr:`gate` is open."""

    gate: asyncio.Event = attrs.field(factory=asyncio.Event)
    deadly: int | None = None
    settle: float = 0.0
    start_errors: list[Exception | None] = attrs.field(factory=list)
    workers: list[LocalWorker] = attrs.field(factory=list)
    stored: dict[int, int] = attrs.field(factory=dict)
    sent: list[int] = attrs.field(factory=list)
    specs: list[tuple[int, int]] = attrs.field(factory=list)
    deaths: list[WorkerDeath] = attrs.field(factory=list)
    source: AsyncIterator[Sequence[int]] | None = None
    peak: int = 0
    pulled: int = 0
    died_at: float = 0.0
    started_at: float = 0.0
    changed: asyncio.Event = attrs.field(factory=asyncio.Event)

    def notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def start(self, spec: Any, name: str, on_note: Any) -> LocalWorker:
        self.started_at = asyncio.get_running_loop().time()
        if self.start_errors and (error := self.start_errors.pop(0)) is not None:
            raise error
        assert f"worker {spec[0] + 1}" == name
        self.specs.append(spec)
        self.workers.append(worker := LocalWorker(self, spec[0], on_note))
        self.notify()
        return worker

    async def answer(self, worker: LocalWorker, items: Sequence[int]) -> Sequence[int]:
        await self.gate.wait()
        if worker.death.done():
            return []
        self.stored |= {item: item * item for item in items}
        return [item * item for item in items]

    async def recover(self, items: Sequence[int]) -> tuple[Sequence[int], Sequence[int]]:
        stored = [self.stored[item] for item in items if item in self.stored]
        return stored, [item for item in items if item not in self.stored]

    async def blocks(self, count: int, size: int = 2) -> AsyncIterator[Sequence[int]]:
        for start in range(0, count * size, size):
            self.pulled += 1
            yield list(range(start, start + size))

    def distribute(self, count: int, *, size: int = 2, workers: int = 2, **options: Any) -> Any:
        return distribute(
            self,  # type: ignore[arg-type]  # an engine of one kind of spec
            lambda slot, generation: (slot, generation),  # type: ignore[arg-type, return-value]
            self.blocks(count, size) if self.source is None else self.source,
            workers=workers,
            recover=self.recover,
            on_death=self.deaths.append,
            **options,
        )

    async def run(self, count: int, **options: Any) -> list[int]:
        return [result async for results in self.distribute(count, **options) for result in results]

    async def wait_blocks(self, count: int) -> None:
        while sum(len(worker.blocks) for worker in self.workers) < count:
            await self.changed.wait()


@pytest.fixture
async def engine() -> LocalEngine:
    return LocalEngine()


def squares(count: int) -> list[int]:
    return [item * item for item in range(count)]


async def test_every_item_is_answered_once(engine: LocalEngine) -> None:
    engine.gate.set()
    assert squares(200) == sorted(await engine.run(100))
    assert list(range(200)) == sorted(engine.sent)
    assert [(0, 0), (1, 0)] == sorted(engine.specs)
    assert all(worker.is_closed for worker in engine.workers)


async def test_without_blocks_no_worker_starts(engine: LocalEngine) -> None:
    assert [] == await engine.run(0)
    assert [] == engine.workers


@pytest.mark.parametrize("outstanding", [1, 2, 5])
async def test_a_worker_has_so_many_blocks_and_the_rest_is_not_read(engine: LocalEngine, outstanding: int) -> None:
    run = asyncio.ensure_future(engine.run(100, outstanding=outstanding))
    await engine.wait_blocks(2 * outstanding)
    for _ in range(10):
        await asyncio.sleep(0)
    assert outstanding == engine.peak
    assert 2 * outstanding + 2 == engine.pulled  # one for each worker is read ahead
    engine.gate.set()
    assert squares(200) == sorted(await run)
    assert outstanding == engine.peak


async def test_results_that_nobody_takes_stop_the_workers(engine: LocalEngine) -> None:
    engine.gate.set()
    run = engine.distribute(100)
    results = [*await anext(run)]
    for _ in range(200):
        await asyncio.sleep(0)
    assert 20 > engine.pulled
    async for more in run:
        results += more
    assert squares(200) == sorted(results)


async def test_nothing_is_sent_before_all_workers_are_open(engine: LocalEngine) -> None:
    engine.gate.set()
    engine.start_errors = [None, BackendError("no key on host b")]
    with pytest.raises(BackendError, match=r"^no key on host b$"):
        await engine.run(100)
    assert [] == engine.sent
    assert all(worker.is_closed for worker in engine.workers)


async def test_an_error_of_a_worker_ends_the_run_after_the_results(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(worker: LocalWorker, items: Sequence[int]) -> Sequence[int]:
        if 20 in items:
            raise BackendError("invalid API key")
        return items

    monkeypatch.setattr(LocalEngine, "answer", lambda _, *arguments: answer(*arguments))
    results = []
    with pytest.raises(BackendError, match=r"^invalid API key$"):
        async for some in engine.distribute(100, workers=1, outstanding=1):
            results += some
    assert list(range(20)) == results
    assert all(worker.is_closed for worker in engine.workers)


async def test_an_error_of_the_input_ends_the_run(engine: LocalEngine) -> None:
    async def blocks() -> AsyncIterator[Sequence[int]]:
        yield [1]
        raise ValueError("line 2")

    engine.gate.set()
    engine.source = blocks()
    with pytest.raises(ValueError, match=r"^line 2$"):
        await engine.run(1)


async def test_an_error_of_the_input_before_the_first_block(engine: LocalEngine) -> None:
    async def blocks() -> AsyncIterator[Sequence[int]]:
        raise ValueError("line 1")
        yield []

    engine.source = blocks()
    with pytest.raises(ValueError, match=r"^line 1$"):
        await engine.run(1)
    assert [] == engine.workers


async def test_cancelling_closes_the_workers(engine: LocalEngine) -> None:
    run = asyncio.ensure_future(engine.run(100))
    await engine.wait_blocks(4)
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert [True, True] == [worker.is_closed for worker in engine.workers]
    assert [[], []] == [worker.blocks for worker in engine.workers]


# --- deaths ---------------------------------------------------------------------------------------


async def test_the_blocks_of_a_dead_worker_are_asked_again(
    engine: LocalEngine, caplog: pytest.LogCaptureFixture
) -> None:
    run = asyncio.ensure_future(engine.run(20))
    await engine.wait_blocks(4)
    lost = [item for block in engine.workers[0].blocks for item in block]
    engine.workers[0].die()
    engine.gate.set()
    assert squares(40) == sorted(await run)
    assert Counter(range(40)) + Counter(lost) == Counter(engine.sent)
    assert [("worker 1 ended: killed", 4)] == [(str(death.error), death.items) for death in engine.deaths]
    assert ["worker 1 ended: killed; 4 items sent again"] == caplog.messages


async def test_items_that_a_dead_worker_stored_are_not_asked_again(engine: LocalEngine) -> None:
    run = asyncio.ensure_future(engine.run(20))
    await engine.wait_blocks(4)
    lost = [item for block in engine.workers[0].blocks for item in block]
    engine.stored = {item: item * item for item in lost[:3]}
    engine.workers[0].die()
    engine.gate.set()
    assert squares(40) == sorted(await run)
    assert Counter(range(40)) + Counter(lost[3:]) == Counter(engine.sent)
    assert [1] == [death.items for death in engine.deaths]


async def test_a_lost_block_does_not_wait_for_blocks_that_wait_for_its_results(engine: LocalEngine) -> None:
    """As in a run that yields its results in order, and reads a few blocks ahead of them."""
    arrived = asyncio.Event()

    async def source() -> AsyncIterator[Sequence[int]]:
        for start in range(4):
            yield [start]
        await arrived.wait()
        yield [4]

    engine.source = source()
    results = []

    async def collect() -> None:
        async for block in engine.distribute(5):
            results.extend(block)
            if len(results) == 4:
                arrived.set()

    run = asyncio.ensure_future(collect())
    await engine.wait_blocks(4)
    engine.workers[0].die()
    engine.gate.set()
    await asyncio.wait_for(run, 10)
    assert squares(5) == sorted(results)


async def test_when_all_items_of_the_last_worker_are_stored_the_run_is_complete(engine: LocalEngine) -> None:
    run = asyncio.ensure_future(engine.run(2, workers=1))
    await engine.wait_blocks(2)
    engine.stored = {item: item * item for item in range(4)}
    engine.workers[0].die()
    assert squares(4) == sorted(await run)
    assert 1 == len(engine.workers)


@pytest.mark.parametrize("settle", [0.05, 0.0])
async def test_a_replacement_waits_and_has_the_slot_of_the_dead_worker(engine: LocalEngine, settle: float) -> None:
    engine.settle = settle
    run = asyncio.ensure_future(engine.run(20, workers=1))
    await engine.wait_blocks(2)
    engine.workers[0].die()
    engine.gate.set()
    assert squares(40) == sorted(await run)
    assert [(0, 0), (0, 1)] == engine.specs
    assert settle <= engine.started_at - engine.died_at


async def test_items_that_kill_every_worker_end_the_run_after_all_others(engine: LocalEngine) -> None:
    engine.gate.set()
    engine.deadly = 7
    results = []
    with pytest.raises(EngineError, match=r"^worker \d ended: killed; it died 3 times in a row without an answer$"):
        async for some in engine.distribute(20):
            results += some
    assert [item * item for item in range(40) if item not in (6, 7)] == sorted(results)


async def test_a_worker_that_dies_on_opening_is_replaced(engine: LocalEngine) -> None:
    engine.gate.set()
    engine.start_errors = [WorkerDiedError("worker 1 ended: exit status 1", settle=0.0)] * 2
    assert squares(40) == sorted(await engine.run(20, workers=1))
    assert [(0, 2)] == engine.specs


async def test_a_worker_that_cannot_start_is_an_error(engine: LocalEngine) -> None:
    engine.start_errors = [None, WorkerStartError("no CPU is free")]
    with pytest.raises(WorkerStartError, match=r"^no CPU is free$"):
        await engine.run(20)


async def test_a_replacement_that_cannot_start_leaves_the_work_to_the_others(engine: LocalEngine) -> None:
    run = asyncio.ensure_future(engine.run(20))
    await engine.wait_blocks(4)
    engine.start_errors = [WorkerStartError("no CPU is free")]
    engine.workers[0].die()
    engine.gate.set()
    assert squares(40) == sorted(await run)
    assert 2 == len(engine.specs)


async def test_a_replacement_that_cannot_start_while_another_one_starts(engine: LocalEngine) -> None:
    run = asyncio.ensure_future(engine.run(20))
    await engine.wait_blocks(4)
    engine.start_errors = [WorkerStartError("no CPU is free")]
    for worker in engine.workers[:2]:
        worker.die()
    engine.gate.set()
    assert squares(40) == sorted(await run)
    assert 3 == len(engine.specs)


async def test_a_replacement_that_cannot_start_and_no_other_worker(engine: LocalEngine) -> None:
    run = asyncio.ensure_future(engine.run(20, workers=1))
    await engine.wait_blocks(2)
    engine.start_errors = [WorkerStartError("no CPU is free")]
    engine.workers[0].die()
    with pytest.raises(WorkerStartError, match=r"^no CPU is free$"):
        await run


@pytest.mark.parametrize("in_flight", [1, 2, 15, 16, 17, 64])
def test_blocks_have_twice_the_items_in_flight(in_flight: int) -> None:
    size, outstanding = plan_blocks(in_flight)
    assert 2 * in_flight <= size * outstanding < 2 * in_flight + size
    assert size <= max(1, in_flight / 8)


async def test_slow_items_leave_the_slots_of_a_worker_to_others(engine: LocalEngine) -> None:
    """One of eight items is never answered until all others are."""
    size, outstanding = plan_blocks(8)
    others = asyncio.Event()

    async def answer(worker: LocalWorker, items: Sequence[int]) -> Sequence[int]:
        if 0 in items:
            await others.wait()
        return [item * item for item in items]

    engine.answer = answer  # type: ignore[method-assign]
    results: list[int] = []
    async for some in engine.distribute(100, size=size, workers=1, outstanding=outstanding):
        results += some
        if len(results) == 99:
            others.set()
    assert squares(100) == sorted(results)
