"""A lock for each key, over all event loops and threads of the process."""

from __future__ import annotations

from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

from ctxbackends._client.slots import Slots

K = TypeVar("K", bound=Hashable)


class KeyedLock(Generic[K]):
    """Admits one task at a time for each key."""

    def __init__(self) -> None:
        self._slots: dict[K, Slots] = {}

    @asynccontextmanager
    async def acquire(self, key: K) -> AsyncIterator[None]:
        """Wait for the lock of ``key``, and release it at the end of the block."""
        release = await self._slots.setdefault(key, Slots(1)).acquire()
        try:
            yield
        finally:
            release()
