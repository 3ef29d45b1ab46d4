"""Passes blocks of items to the workers of an engine, and replaces workers that die."""

from __future__ import annotations

import asyncio
import logging
import warnings
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Coroutine, Iterable, Sequence
from functools import partial
from typing import Any, Generic, Protocol

import attrs

from ctxbackends._engines.contract import (
    Engine,
    EngineError,
    EngineWorker,
    Item,
    Result,
    WorkerDiedError,
    WorkerSpec,
    WorkerStartError,
    WorkerUnavailableError,
)
from ctxbackends._engines.hosting import WorkerWarning
from ctxbackends._engines.shared_directory import SharedDirectory
from ctxbackends._util.text import pluralize

_logger = logging.getLogger("ctxbackends")

MAX_DEATHS = 3
"""A worker that dies so often in a row without an answer ends the run."""
RESTART_SECONDS = 5.0
"""Between attempts to start a worker for which the engine has no resources, or after one that cannot answer."""
MAX_RESTART_SECONDS = 60.0
"""The pause doubles up to this one while the workers of a slot cannot answer."""


@attrs.frozen
class WorkerDeath:
    """The death of a worker, which is replaced.

    Attributes:
        error: Its cause, with the name of the worker.
        items: Items that other workers ask again.
    """

    error: WorkerDiedError
    items: int


class Board(Protocol):
    """The state that workers share through their driver. It gets all notes but warnings."""

    def add_worker(self, slot: int, /) -> Iterable[Any]:
        """Forget the notes of the worker that the slot had. Return those for the new one, which it gets first."""
        ...

    def remove_worker(self, slot: int, /) -> None:
        """Forget the notes of the worker of a slot, which has died."""
        ...

    def receive(self, slot: int, note: Any, /) -> Any:
        """Take a note of a worker. Return the note that the other workers get, None for none."""
        ...


def plan_blocks(in_flight: int) -> tuple[int, int]:
    """Return the size of blocks, and how many a worker should have that sends so many requests at once.

    Together they have twice as many items, of which half wait in the worker for a slot. Small blocks keep the slots
    busy: the next block is sent when all items of one are answered, and its slowest one takes a multiple of the mean.
    """
    size = 1 if in_flight < 16 else 2
    return size, -(-2 * in_flight // size)


async def distribute(
    engine: Engine,
    make_spec: Callable[[int, int], WorkerSpec[Item, Result]],
    blocks: AsyncIterable[Sequence[Item]],
    *,
    workers: int,
    recover: Callable[[Sequence[Item]], Awaitable[tuple[Sequence[Result], Sequence[Item]]]],
    outstanding: int = 2,
    directory: SharedDirectory | None = None,
    board: Board | None = None,
    on_death: Callable[[WorkerDeath], None] | None = None,
    on_open: Callable[[int], None] | None = None,
) -> AsyncGenerator[Sequence[Result], None]:
    """Yield the results of each block, in the order in which they arrive.

    No block is sent before all workers are open. No worker is started if there are no blocks. A replacement gets the
    share of the dead worker, and starts when the servers have none of the dead one's requests any more. A worker that
    cannot answer is replaced after a pause; the others get its items. The run ends when no worker can answer.

    A warning of a worker is issued here, once for each text.

    Args:
        engine: An open engine; the caller closes it.
        make_spec: Called with a slot, from 0 to ``workers - 1``, and a generation: the number of workers that the slot
            had before. The limits of the workers of a slot have to be the same.
        blocks: The work. It is read as the workers need it.
        workers: Number of workers.
        recover: Called with a block of a dead worker. Returns the results that are stored, and the items without one.
        outstanding: Blocks that a worker has at once. Together they should be at most twice its requests in flight.
        directory: Directory that the workers must prove to share.
        board: Gets the notes of the workers, None for none.
        on_death: Called when a worker has died.
        on_open: Called when a worker is open, with the number of slots that had one.

    Raises:
        EngineError: Workers cannot be started, or die again and again.
        Exception: The exception of a worker.
    """
    run = _Distribution(engine, make_spec, workers, recover, outstanding, directory, board, on_death, on_open)
    tasks = [run.create_task(run.pump(blocks))]
    try:
        while True:
            while run.results:
                yield run.take_results()
            if run.error is not None:
                raise run.error
            if run.is_done:
                break
            if len(tasks) == 1 and run.has_blocks:
                tasks += [run.create_task(run.run_slot(slot)) for slot in range(workers)]
            await run.changed()
        run.cancel_idle()
        await asyncio.gather(*tasks, return_exceptions=True)  # the workers are closed
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@attrs.define
class _Generation(Generic[Item]):
    """The worker of a slot at a time.

    Attributes:
        blocks: Number of blocks that it has.
        is_retrying: Whether one of them was lost by another worker.
        lost: Blocks that it had when it died.
        has_answered: Whether it answered a block.
    """

    blocks: int = 0
    is_retrying: bool = False
    lost: list[Sequence[Item]] = attrs.field(factory=list)
    has_answered: bool = False


@attrs.define(eq=False)
class _Distribution(Generic[Item, Result]):
    """The state of a run. It changes in one event loop, and never across an await."""

    _engine: Engine
    _make_spec: Callable[[int, int], WorkerSpec[Item, Result]]
    _workers: int
    _recover: Callable[[Sequence[Item]], Awaitable[tuple[Sequence[Result], Sequence[Item]]]]
    _outstanding: int
    _directory: SharedDirectory | None
    _board: Board | None
    _on_death: Callable[[WorkerDeath], None] | None
    _on_open: Callable[[int], None] | None
    _event: asyncio.Event = attrs.field(factory=asyncio.Event, init=False)
    _waiting: deque[asyncio.Future[None]] = attrs.field(factory=deque, init=False)  # lanes without a block
    _blocks: deque[Sequence[Item]] = attrs.field(factory=deque, init=False)
    _lost: deque[Sequence[Item]] = attrs.field(factory=deque, init=False)
    _is_exhausted: bool = attrs.field(default=False, init=False)
    _unfinished: int = attrs.field(default=0, init=False)  # blocks that workers have, or died with
    _opened: set[int] = attrs.field(factory=set, init=False)  # slots that had a worker
    _stuck: set[int] = attrs.field(factory=set, init=False)  # slots whose worker lacks the resources, or cannot answer
    _running: dict[int, EngineWorker[Item, Result]] = attrs.field(factory=dict, init=False)  # by slot
    _warnings: set[tuple[type[Warning], str]] = attrs.field(factory=set, init=False)  # those that were issued
    _idle: set[asyncio.Task[None]] = attrs.field(factory=set, init=False)  # the tasks of slots without a worker
    results: deque[Sequence[Result]] = attrs.field(factory=deque, init=False)
    error: BaseException | None = attrs.field(default=None, init=False)

    # --- state ------------------------------------------------------------------------------------

    @property
    def is_done(self) -> bool:
        """Whether all blocks are answered."""
        return self._is_exhausted and not self.has_blocks and not self._unfinished

    @property
    def has_blocks(self) -> bool:
        """Whether blocks wait for a worker."""
        return bool(self._blocks or self._lost)

    async def changed(self) -> None:
        """Wait until the state changes."""
        await self._event.wait()

    def _notify(self, lanes: int = 0) -> None:
        """Wake the run and the pump, and so many lanes."""
        self._event.set()
        self._event = asyncio.Event()
        while lanes and self._waiting:
            lane = self._waiting.popleft()
            if not lane.done():
                lane.set_result(None)
                lanes -= 1

    def _notify_all(self) -> None:
        self._notify(lanes=len(self._waiting))

    def create_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Run something in a task, whose exception is the one of the run."""
        task = asyncio.create_task(work)
        task.add_done_callback(self._handle_end)
        return task

    def _handle_end(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and task.exception() is not None:
            self.error = self.error or task.exception()
        self._notify_all()

    def take_results(self) -> Sequence[Result]:
        """Return the results that arrived first."""
        results = self.results.popleft()
        self._notify(lanes=1)
        return results

    def cancel_idle(self) -> None:
        """End the slots that wait for a worker."""
        for task in self._idle:
            task.cancel()

    # --- blocks -----------------------------------------------------------------------------------

    async def pump(self, blocks: AsyncIterable[Sequence[Item]]) -> None:
        """Read blocks ahead, one for each worker."""
        async for items in blocks:
            self._blocks.append(items)
            self._notify(lanes=1)
            while len(self._blocks) >= self._workers:
                await self.changed()
        self._is_exhausted = True
        self._notify_all()

    async def _next_block(self, state: _Generation[Item]) -> Sequence[Item] | None:
        """Return a block for a worker when there is room for its results; None when all are answered."""
        while not self.is_done:
            has_room = len(self.results) < self._workers * self._outstanding
            if has_room and len(self._opened) == self._workers and (queue := self._choose_queue(state)):
                state.is_retrying = queue is self._lost
                state.blocks += 1
                self._unfinished += 1
                self._notify()
                return queue.popleft()
            self._waiting.append(lane := asyncio.get_running_loop().create_future())
            await lane
        return None

    def _choose_queue(self, state: _Generation[Item]) -> deque[Sequence[Item]] | None:
        # A block that was lost may be what kills the workers. It comes after those that wait, and alone. It does not
        # wait for the end of the blocks, since more may be read only when its results are there.
        if state.is_retrying:
            return None
        if self._blocks:
            return self._blocks
        return None if state.blocks else self._lost

    # --- workers ----------------------------------------------------------------------------------

    async def run_slot(self, slot: int) -> None:
        """Keep a worker alive until all blocks are answered."""
        name = f"worker {slot + 1}"
        task = asyncio.current_task()
        assert task is not None
        deaths = generation = 0
        pause = RESTART_SECONDS
        while not self.is_done:
            state = _Generation[Item]()
            self._idle.add(task)
            try:
                worker = await self._start(slot, generation, name)
                self._idle.discard(task)
                await self._feed(slot, worker, state)
            except WorkerStartError as error:
                self._stuck.add(slot)
                if slot not in self._opened or len(self._stuck) == self._workers:
                    raise
                _logger.warning("%s; the other workers go on", error)
                await asyncio.sleep(RESTART_SECONDS)
            except WorkerUnavailableError as error:
                await self._put_back(state, self._blocks)
                self._stuck.add(slot)
                if len(self._stuck) == self._workers:
                    raise error.error from None
                _logger.warning("%s cannot answer: %s; the other workers go on", name, error)
                self._idle.add(task)
                if state.has_answered:
                    pause = RESTART_SECONDS
                await asyncio.sleep(pause)
                pause = min(2 * pause, MAX_RESTART_SECONDS)
            except WorkerDiedError as error:
                self._idle.discard(task)
                await self._handle_death(slot, error, state)
                deaths = 0 if state.has_answered else deaths + 1
                if deaths == MAX_DEATHS:
                    raise EngineError(f"{error}; it died {MAX_DEATHS} times in a row without an answer") from error
                self._idle.add(task)
                await asyncio.sleep(error.settle)
            generation += 1

    async def _start(self, slot: int, generation: int, name: str) -> EngineWorker[Item, Result]:
        spec = self._make_spec(slot, generation)
        on_note = partial(self._handle_note, slot)
        if self._directory is None:
            worker = await self._engine.start(spec, name, on_note)
        else:
            shared = self._directory.wrap(spec)
            worker = await self._engine.start(shared, name, on_note)
            try:
                await self._directory.verify(shared, worker.host)
            except BaseException:
                await worker.aclose()
                raise
        self._opened.add(slot)
        if self._on_open is not None:
            self._on_open(len(self._opened))
        self._stuck.discard(slot)
        self._notify_all()
        return worker

    async def _feed(self, slot: int, worker: EngineWorker[Item, Result], state: _Generation[Item]) -> None:
        """Pass blocks to a worker until all are answered."""
        self._running[slot] = worker
        if self._board is not None:
            for note in self._board.add_worker(slot):
                worker.send(note)
        lanes = [asyncio.create_task(self._run_lane(worker, state)) for _ in range(self._outstanding)]
        try:
            await asyncio.gather(*lanes)
        finally:
            for lane in lanes:
                lane.cancel()
            await asyncio.gather(*lanes, return_exceptions=True)
            del self._running[slot]
            await worker.aclose()

    async def _run_lane(self, worker: EngineWorker[Item, Result], state: _Generation[Item]) -> None:
        while (block := await self._next_block(state)) is not None:
            try:
                results = await worker.answer(block)
            except BaseException:  # also CancelledError, when the worker has died
                state.lost.append(block)
                raise
            state.has_answered = True
            state.is_retrying = False
            state.blocks -= 1
            self._unfinished -= 1
            self.results.append(results)
            if self.is_done:
                self._notify_all()
            else:
                self._notify()

    async def _handle_death(self, slot: int, error: WorkerDiedError, state: _Generation[Item]) -> None:
        if self._board is not None:
            self._board.remove_worker(slot)
        items = await self._put_back(state, self._lost)
        _logger.warning("%s; %s sent again", error, pluralize(items, "item"))
        if self._on_death is not None:
            self._on_death(WorkerDeath(error, items))

    async def _put_back(self, state: _Generation[Item], queue: deque[Sequence[Item]]) -> int:
        """Take the results that a worker stored, and put back the items that have none. Return their number."""
        items = 0
        for block in state.lost:
            stored, remaining = await self._recover(block)
            if stored:
                state.has_answered = True
                self.results.append(stored)
            self._unfinished -= 1
            if remaining:
                items += len(remaining)
                queue.append(remaining)
        self._notify_all()
        return items

    # --- notes ------------------------------------------------------------------------------------

    def _handle_note(self, slot: int, note: Any) -> None:
        """Issue the warning of a worker, or share its note with the others."""
        if isinstance(note, WorkerWarning):
            self._warn(note.warning)
        elif self._board is not None and (shared := self._board.receive(slot, note)) is not None:
            for other, worker in self._running.items():
                if other != slot:
                    worker.send(shared)

    def _warn(self, warning: Warning) -> None:
        if (key := (type(warning), str(warning))) in self._warnings:
            return
        self._warnings.add(key)
        try:
            warnings.warn(warning, stacklevel=1)
        except Warning as error:  # a filter turns it into an error
            self.error = self.error or error
            self._notify_all()
