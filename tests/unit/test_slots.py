"""Slots that several event loops and threads share: fair, none lost, none too many."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial

import pytest

from ctxbackends._client.keyed_lock import KeyedLock
from ctxbackends._client.slots import Release, Slots


class LoopThread:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def start(self, call: Callable[[], Awaitable[object]]) -> Future[object]:
        async def work() -> object:
            return await call()

        return asyncio.run_coroutine_threadsafe(work(), self.loop)

    def settle(self) -> None:
        """Return when the loop has run what is ready."""
        self.start(lambda: asyncio.sleep(0)).result(10)
        self.start(lambda: asyncio.sleep(0)).result(10)

    def pause(self) -> None:
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join()

    def resume(self) -> None:
        self._thread = threading.Thread(target=self.loop.run_forever)
        self._thread.start()

    def end(self) -> None:
        if self._thread.is_alive():
            self.pause()
        for task in asyncio.all_tasks(self.loop):
            task.cancel()
        if not self.loop.is_closed():
            self.loop.run_until_complete(asyncio.sleep(0))
            self.loop.close()


@pytest.fixture
def threads() -> Iterator[list[LoopThread]]:
    running = [LoopThread() for _ in range(3)]
    yield running
    for thread in running:
        thread.end()


class Gauge:
    """Counts how many have a slot at once, over all threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.now = self.most = self.total = 0

    def __enter__(self) -> None:
        with self._lock:
            self.now += 1
            self.total += 1
            self.most = max(self.most, self.now)

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self.now -= 1


@pytest.mark.parametrize("limit", [1, 3])
def test_the_limit_is_for_all_threads_together(limit: int) -> None:
    slots, gauge = Slots(limit), Gauge()

    async def work() -> None:
        release = await slots.acquire()
        with gauge:
            await asyncio.sleep(0)
        release()

    async def main() -> None:
        await asyncio.gather(*(work() for _ in range(300)))

    with ThreadPoolExecutor(4) as pool:
        for done in [pool.submit(asyncio.run, main()) for _ in range(4)]:
            done.result(60)
    assert (limit, 1200, 0) == (gauge.most, gauge.total, gauge.now)


def test_slots_go_to_whoever_has_waited_longest(threads: list[LoopThread]) -> None:
    slots = Slots(1)
    order: list[int] = []

    async def work(number: int) -> None:
        release = await slots.acquire()
        order.append(number)
        release()

    release = acquire(slots, threads[0])
    waiting = []
    for number in range(9):
        waiting.append(threads[number % 3].start(partial(work, number)))
        threads[number % 3].settle()
    release()
    for done in waiting:
        done.result(10)
    assert list(range(9)) == order


def test_cancelled_tasks_of_several_loops_lose_no_slot(threads: list[LoopThread]) -> None:
    slots = Slots(2)

    async def work() -> None:
        release = await slots.acquire()
        try:
            await asyncio.sleep(0)
        finally:
            release()

    for _ in range(50):
        waiting = [thread.start(work) for thread in threads for _ in range(4)]
        for done in waiting[::2]:
            done.cancel()
        for done in waiting[1::2]:
            done.result(10)
    first, second = acquire(slots, threads[0]), acquire(slots, threads[1])
    third = threads[2].start(slots.acquire)
    threads[2].settle()
    assert not third.done()
    first()
    second()
    assert third.result(10)


def test_a_loop_that_is_paused_is_passed_over_and_woken_later(threads: list[LoopThread]) -> None:
    slots = Slots(1)
    release = acquire(slots, threads[0])
    paused = threads[1].start(slots.acquire)
    threads[1].settle()
    threads[1].pause()
    later = threads[2].start(slots.acquire)
    release()
    second = later.result(10)
    assert callable(second)
    second()
    assert not paused.done()
    threads[1].resume()
    third = paused.result(10)
    assert callable(third)
    third()
    acquire(slots, threads[0])()


def test_a_paused_loop_keeps_its_place(threads: list[LoopThread]) -> None:
    slots = Slots(1)
    release = acquire(slots, threads[0])
    first = threads[1].start(slots.acquire)
    threads[1].settle()
    threads[1].pause()
    slots.resize(1)  # looks at the waiting tasks without a free slot
    threads[1].resume()
    threads[1].settle()
    second = threads[2].start(slots.acquire)
    threads[2].settle()
    release()
    assert first.result(10)
    assert not second.done()


def test_the_slots_of_a_closed_loop_are_free(threads: list[LoopThread]) -> None:
    slots = Slots(2)
    releases = [acquire(slots, threads[0]), acquire(slots, threads[0])]
    threads[0].end()
    third, fourth = acquire(slots, threads[1]), acquire(slots, threads[2])
    for release in releases:
        release()  # too late to count
    fifth = threads[1].start(slots.acquire)
    threads[1].settle()
    assert not fifth.done()
    third()
    fourth()
    assert fifth.result(10)


def test_a_task_that_waits_on_a_closed_loop_is_forgotten() -> None:
    slots = Slots(1)
    loop = asyncio.new_event_loop()
    release = loop.run_until_complete(slots.acquire())
    waiting = loop.create_task(slots.acquire())
    loop.run_until_complete(asyncio.sleep(0))
    loop.close()
    asyncio.run(asyncio.wait_for(slots.acquire(), 10))
    waiting._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio would log it
    del waiting
    gc.collect()
    release()
    asyncio.run(asyncio.wait_for(slots.acquire(), 10))


async def test_a_release_while_the_thread_has_the_lock() -> None:
    """As the garbage collector may do it at any time."""
    slots = Slots(1)
    release = await slots.acquire()
    waiting = asyncio.create_task(slots.acquire())
    await asyncio.sleep(0)
    with slots._lock:
        release()
    slots.resize(1)
    async with asyncio.timeout(10):
        (await waiting)()
        (await slots.acquire())()


async def test_a_larger_limit_from_another_thread() -> None:
    slots = Slots(1)
    await slots.acquire()
    waiting = asyncio.create_task(slots.acquire())
    await asyncio.sleep(0)
    await asyncio.to_thread(slots.resize, 2)
    async with asyncio.timeout(10):
        await waiting


def test_a_lock_for_each_key_over_loops() -> None:
    lock: KeyedLock[str] = KeyedLock()
    gauges = {"a": Gauge(), "b": Gauge()}

    async def work(key: str) -> None:
        async with lock.acquire(key):
            with gauges[key]:
                await asyncio.sleep(0)

    async def main() -> None:
        await asyncio.gather(*(work("ab"[number % 2]) for number in range(100)))

    with ThreadPoolExecutor(3) as pool:
        for done in [pool.submit(asyncio.run, main()) for _ in range(3)]:
            done.result(60)
    assert [(1, 150), (1, 150)] == [(gauge.most, gauge.total) for gauge in gauges.values()]


def acquire(slots: Slots, thread: LoopThread) -> Release:
    release = thread.start(slots.acquire).result(10)
    assert callable(release)
    return release
