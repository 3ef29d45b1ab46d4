"""A batch in this process: tasks that take rows, ask, and store the answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

from ctxbackends.batch._answers import to_entry
from ctxbackends.batch._asker import Asker
from ctxbackends.batch._journal import Journal
from ctxbackends.batch._queue import AnswerQueue
from ctxbackends.batch._rows import BatchRow

T = TypeVar("T")


async def ask_here(
    rows: AsyncGenerator[tuple[BatchRow, bytes], None],
    answers: AnswerQueue,
    *,
    asker: Asker,
    journal: Journal | None,
    tasks: int,
) -> None:
    """Ask rows, and put their answers into the queue when they are in the journal.

    Args:
        rows: The rows and their keys.
        answers: The queue.
        asker: Sends a row.
        journal: The journal, None for none.
        tasks: Rows at once, with those that wait after an error or for the disk.

    Raises:
        BackendError: The first error that concerns all rows. Rows that were sent are still answered, and no others are
            asked.
    """
    lock = asyncio.Lock()
    working = [asyncio.create_task(_work(rows, answers, asker, journal, lock)) for _ in range(tasks)]
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


async def _work(
    rows: AsyncIterator[tuple[BatchRow, bytes]],
    answers: AnswerQueue,
    asker: Asker,
    journal: Journal | None,
    lock: asyncio.Lock,
) -> None:
    while not asker.is_stopped:
        async with lock:
            following = await asker.wait(_next(rows))
        if following is None:
            return
        row, key = following
        answer = await asker.ask(row)
        if journal is not None:
            await journal.append([to_entry(key, answer)])
        await answers.put(answer)


async def _next(values: AsyncIterator[T]) -> T | None:
    """Return the next value, None after the last one."""
    try:  # anext() with a default fails in a chain of coroutines: https://github.com/python/cpython/issues/128078
        return await anext(values)
    except StopAsyncIteration:
        return None
