"""A lock for each key, on one event loop after another."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


class KeyedLock(Generic[K]):
    """Admits one task at a time for each key. The tasks of another event loop do not count."""

    def __init__(self) -> None:
        self._locks: dict[K, asyncio.Future[None]] = {}

    @asynccontextmanager
    async def acquire(self, key: K) -> AsyncIterator[None]:
        """Wait for the lock of ``key``, and release it at the end of the block."""
        loop = asyncio.get_running_loop()
        while (other := self._locks.get(key)) is not None and other.get_loop() is loop:
            await asyncio.wait([other])
        done = self._locks[key] = loop.create_future()
        try:
            yield
        finally:
            self._locks.pop(key, None)
            done.set_result(None)
