"""A pass over all rows in a thread, and its end after a cancel."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable, Iterator

import pytest

from ctxbackends.batch._threads import run_in_thread


async def test_the_result() -> None:
    assert 6 == await run_in_thread(sum, [1, 2, 3])


async def test_an_error() -> None:
    def fail(rows: Iterable[int]) -> None:
        raise ValueError(f"rows: {[*rows]}")

    with pytest.raises(ValueError, match=r"rows: \[1, 2\]"):
        await run_in_thread(fail, [1, 2])


async def test_a_cancelled_pass_reads_no_more_rows() -> None:
    has_begun, may_continue, has_ended = threading.Event(), threading.Event(), threading.Event()
    numbers: list[int] = []

    def rows() -> Iterator[int]:
        for number in range(1000):
            has_begun.set()
            assert may_continue.wait(30)
            yield number

    def collect(rows: Iterable[int]) -> None:
        try:
            numbers.extend(rows)
        finally:
            has_ended.set()

    task = asyncio.create_task(run_in_thread(collect, rows()))
    await asyncio.to_thread(has_begun.wait, 30)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    may_continue.set()
    assert await asyncio.to_thread(has_ended.wait, 30)
    assert [] == numbers
