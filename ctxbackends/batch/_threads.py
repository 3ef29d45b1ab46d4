"""A pass over all rows in a thread, which ends soon after the task that waits for it is cancelled."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

import anyio.to_thread

R = TypeVar("R")
T = TypeVar("T")


async def run_in_thread(call: Callable[[Iterable[R]], T], rows: Iterable[R]) -> T:
    """Return ``call(rows)``. Python waits for its threads when it exits, so the thread must not read all rows then."""
    is_cancelled = threading.Event()

    def read() -> Iterator[R]:
        for row in rows:
            if is_cancelled.is_set():
                raise InterruptedError("the task was cancelled")
            yield row

    try:
        return await anyio.to_thread.run_sync(call, read())
    finally:
        is_cancelled.set()
