"""A batch in this process: tasks that take rows and ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

from ctxbackends.batch._asker import Asker
from ctxbackends.batch._queue import AnswerQueue
from ctxbackends.batch._rows import BatchRow

T = TypeVar("T")


async def ask_here(rows: AsyncGenerator[BatchRow, None], answers: AnswerQueue, *, asker: Asker, slots: int) -> None:
    """Ask rows, and put their answers into the queue.

    Args:
        rows: The rows.
        answers: The queue.
        asker: Sends a row, and stores its answer.
        slots: Rows at once. Those that wait after an error leave theirs to others.

    Raises:
        BackendError: The first error that concerns all rows. Rows that were sent are still answered, and no others are
            asked.
    """
    tasks = _Tasks(rows, answers, asker, slots)
    try:
        await tasks.run()
    finally:
        await tasks.aclose()
        await rows.aclose()


class _Tasks:
    """The tasks that take rows: one for each slot, and one more for each row that waits after an error."""

    def __init__(self, rows: AsyncGenerator[BatchRow, None], answers: AnswerQueue, asker: Asker, slots: int) -> None:
        self._rows = rows
        self._answers = answers
        self._asker = asker
        self._slots = slots
        self._lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors: list[BaseException] = []
        self._have_ended = asyncio.Event()
        asker.on_pause = self._start

    async def run(self) -> None:
        for _ in range(self._slots):
            self._start()
        await self._have_ended.wait()
        if self._errors:
            raise self._errors[0]

    async def aclose(self) -> None:
        self._asker.on_pause = None
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _start(self) -> None:
        if self._asker.is_stopped or len(self._tasks) >= 2 * self._slots:
            return
        task = asyncio.create_task(self._work())
        self._tasks.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._errors.append(error)
            self._asker.stop()
        if not self._tasks:
            self._have_ended.set()

    async def _work(self) -> None:
        while not self._asker.is_stopped and len(self._tasks) - self._asker.pausing <= self._slots:
            async with self._lock:
                row = await self._asker.wait(_next(self._rows))
            if row is None:
                return
            await self._answers.put(*await self._asker.ask(row))


async def _next(values: AsyncIterator[T]) -> T | None:
    """Return the next value, None after the last one."""
    try:  # anext() with a default fails in a chain of coroutines: https://github.com/python/cpython/issues/128078
        return await anext(values)
    except StopAsyncIteration:
        return None
