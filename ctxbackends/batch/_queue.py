"""The queue of answers, from the tasks that ask to the one that iterates."""

from __future__ import annotations

import asyncio

from ctxbackends.batch._answers import BatchAnswer


class AnswerQueue:
    """A queue with room for some answers, and an end that needs no room.

    Args:
        room: Number of answers.
    """

    def __init__(self, room: int) -> None:
        self._room = asyncio.Semaphore(room)
        self._queue: asyncio.Queue[BatchAnswer | None] = asyncio.Queue()

    async def put(self, answer: BatchAnswer) -> None:
        """Add an answer, when there is room."""
        await self._room.acquire()
        self._queue.put_nowait(answer)

    def end(self) -> None:
        """Add the end."""
        self._queue.put_nowait(None)

    async def get(self) -> BatchAnswer | None:
        """Return the next answer, None at the end."""
        answer = await self._queue.get()
        self._room.release()
        return answer
