"""The queue of answers, from the tasks that ask to the one that iterates."""

from __future__ import annotations

import asyncio

from ctxbackends.batch._answers import BatchAnswer
from ctxbackends.batch._journal import LineGroup


class AnswerQueue:
    """A queue with room for some answers, and an end that needs no room.

    Args:
        room: Number of answers.
    """

    def __init__(self, room: int) -> None:
        self._room = asyncio.Semaphore(room)
        self._queue: asyncio.Queue[tuple[BatchAnswer | None, LineGroup | None]] = asyncio.Queue()

    async def put(self, answer: BatchAnswer, written: LineGroup | None = None) -> None:
        """Add an answer, when there is room.

        Args:
            answer: The answer.
            written: Its line in the journal, None if it is on the disk, or in no journal.
        """
        await self._room.acquire()
        self._queue.put_nowait((answer, written))

    def end(self) -> None:
        """Add the end."""
        self._queue.put_nowait((None, None))

    async def get(self) -> BatchAnswer | None:
        """Return the next answer when it is on the disk, None at the end.

        Raises:
            BatchJournalError: It cannot be written.
        """
        answer, written = await self._queue.get()
        self._room.release()
        if written is not None:
            await written.wait()
        return answer
