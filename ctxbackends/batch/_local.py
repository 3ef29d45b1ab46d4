"""A batch in this process: tasks that take rows and ask."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

from ctxbackends.batch._asker import Asker
from ctxbackends.batch._queue import AnswerQueue
from ctxbackends.batch._rows import BatchRow

T = TypeVar("T")


async def ask_here(
    rows: AsyncGenerator[BatchRow, None],
    answers: AnswerQueue,
    *,
    asker: Asker,
    tasks: int,
) -> None:
    """Ask rows, and put their answers into the queue.

    Args:
        rows: The rows.
        answers: The queue.
        asker: Sends a row, and stores its answer.
        tasks: Rows at once, with those that wait after an error.

    Raises:
        BackendError: The first error that concerns all rows. Rows that were sent are still answered, and no others are
            asked.
    """
    lock = asyncio.Lock()
    working = [asyncio.create_task(_work(rows, answers, asker, lock)) for _ in range(tasks)]
    try:
        _, pending = await asyncio.wait(working, return_when=asyncio.FIRST_EXCEPTION)
        if pending:
            asker.stop()
            await asyncio.wait(pending)
        for task in working:
            if not task.cancelled() and (error := task.exception()) is not None:
                raise error
    finally:
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        await rows.aclose()


async def _work(rows: AsyncIterator[BatchRow], answers: AnswerQueue, asker: Asker, lock: asyncio.Lock) -> None:
    while not asker.is_stopped:
        async with lock:
            row = await asker.wait(_next(rows))
        if row is None:
            return
        await answers.put(await asker.ask(row))


async def _next(values: AsyncIterator[T]) -> T | None:
    """Return the next value, None after the last one."""
    try:  # anext() with a default fails in a chain of coroutines: https://github.com/python/cpython/issues/128078
        return await anext(values)
    except StopAsyncIteration:
        return None
