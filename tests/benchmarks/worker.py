"""The process of one client: obeys lines of JSON on stdin, and answers each with one. Runs in the environment of that
client, so it imports the standard library and the client's module alone.

One event loop, and one client object for each wire, live as long as the process. Between commands the loop stands
still, so that a client that is not measured costs nothing. Knows neither rounds nor ratios.
"""

from __future__ import annotations

import asyncio
import gc
import json
import platform
import sys
import time
import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from importlib import import_module, metadata
from typing import Any, Protocol, TypeAlias
from urllib.parse import urlsplit

with suppress(ImportError):  # not on Windows
    import resource

Sample: TypeAlias = dict[str, Any]

WARM_UP = 10
"""Requests before each sample of completions, which no figure counts. A stream is one."""


class Client(Protocol):
    """What the modules in ``clients/`` give."""

    async def complete(self, model: str) -> str: ...

    async def stream(self, model: str, take: Callable[[str], object]) -> None: ...

    async def close(self) -> None: ...


class Worker:
    """The commands. Each method is one, and takes the members of its line."""

    def __init__(self, module: Any, url: str) -> None:
        self._module = module
        self._url = url
        self._clients: dict[str, Client] = {}

    async def _client(self, wire: str) -> Client:
        if wire not in self._clients:
            self._clients[wire] = await self._module.open_client(wire, self._url)
        return self._clients[wire]

    async def complete(self, wire: str, model: str, count: int, at_once: int) -> Sample:
        """``count`` times ``at_once`` completions."""
        client = await self._client(wire)
        texts: list[str] = []

        async def batch() -> None:
            if at_once == 1:
                texts.append(await client.complete(model))
            else:
                texts.extend(await asyncio.gather(*[client.complete(model) for _ in range(at_once)]))

        async def warm_up() -> None:
            for _ in range(WARM_UP):
                await client.complete(model)

        return await self._sample(client, count, batch, texts, warm_up)

    async def stream(self, wire: str, model: str, count: int, at_once: int) -> Sample:
        """``count`` times ``at_once`` streams, read to their ends."""
        client = await self._client(wire)
        pieces: list[str] = []

        async def batch() -> None:
            if at_once == 1:
                await client.stream(model, pieces.append)
            else:
                own: list[list[str]] = [[] for _ in range(at_once)]
                await asyncio.gather(*[client.stream(model, one.append) for one in own])
                for item in own:
                    pieces.extend(item)

        async def warm_up() -> None:
            if count > 1:  # else it is long enough to warm itself
                await client.stream(model, _ignore)

        return await self._sample(client, count, batch, pieces, warm_up)

    async def _sample(
        self,
        client: Client,
        count: int,
        batch: Callable[[], Awaitable[None]],
        output: list[str],
        warm_up: Callable[[], Awaitable[None]],
    ) -> Sample:
        """Measure the batches after ``warm_up``, since the other processes have used the caches meanwhile."""
        await warm_up()
        reads = getattr(client, "reads", 0)
        gc.collect()
        wall, cpu = time.perf_counter(), time.process_time()
        for _ in range(count):
            await batch()
        cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
        return {**_summarize(output), "cpu": cpu, "wall": wall, "reads": getattr(client, "reads", 0) - reads}

    async def first(self, wire: str, model: str, count: int, at_once: int) -> Sample:
        """``count`` streams, one after the other: the time from each call to its first piece."""
        assert at_once == 1, "each is timed alone"
        client = await self._client(wire)
        delays: list[float] = []
        pieces: list[str] = []
        gc.collect()
        cpu = time.process_time()
        for _ in range(count):
            count_before = len(pieces)
            piece_time = 0.0

            def take(piece: str, count_before: int = count_before) -> None:
                nonlocal piece_time
                if len(pieces) == count_before:
                    piece_time = time.perf_counter()
                pieces.append(piece)

            call_time = time.perf_counter()
            await client.stream(model, take)
            delays.append(piece_time - call_time)
        return {**_summarize(pieces), "cpu": time.process_time() - cpu, "waits": delays, "wall": sum(delays)}

    async def idle(self, wire: str, model: str, count: int) -> Sample:
        """``count`` streams that stay open after their first piece: the memory of this process before and then."""
        client = await self._client(wire)
        for _ in range(3):
            await asyncio.gather(*[client.stream("tiny", _ignore) for _ in range(10)])
        gc.collect()
        before = resident()
        open_streams = 0
        is_complete = asyncio.Event()

        def watch_first() -> Callable[[str], object]:
            is_counted = False

            def take(_: str) -> None:
                nonlocal open_streams, is_counted
                if not is_counted:
                    is_counted = True
                    open_streams += 1
                    if open_streams == count:
                        is_complete.set()

            return take

        tasks = [asyncio.create_task(client.stream(model, watch_first())) for _ in range(count)]
        waiting = asyncio.create_task(is_complete.wait())
        # A stream that ends is one that failed: these do not end.
        await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED, timeout=60)
        gc.collect()
        growth = resident() - before
        ends = [task for task in tasks if task.done()]
        for task in (waiting, *tasks):
            task.cancel()
        await asyncio.gather(waiting, *tasks, return_exceptions=True)
        if open_streams < count:
            why = repr(ends[0].exception()) if ends and not ends[0].cancelled() else "the rest did not come in 60 s"
            raise RuntimeError(f"{open_streams} of {count} streams opened: {why}")
        return {"bytes": growth, "pieces": open_streams}

    async def give_up(self, wire: str, url: str, model: str) -> Sample:
        """One completion from a server that is not ready: how long it was tried, and how many connections were begun.
        Not from a pool: each client object is a new one."""
        connects = count_connects()
        client: Client = await self._module.open_client(wire, url)
        start_time = time.monotonic()
        try:
            await client.complete(model)
            error = ""
        except Exception as failure:  # each client has its own
            error = type(failure).__name__
        took = time.monotonic() - start_time
        with suppress(Exception):
            await client.close()
        return {
            "seconds": took,
            "ended_at": start_time + took,
            "connections": connects[urlsplit(url).port],
            "error": error,
        }

    async def prepare_cold(self, kind: str) -> Sample:
        """A cold start of a server that never starts: it loads the modules, which is not a part of waiting."""
        return dict(await self._module.cold_start(kind=kind, url="http://127.0.0.1:9", budget=0.1))

    async def cold(self, starts: list[Sample]) -> Sample:
        """Several cold starts at once, and the CPU time relative to the sum of the waits."""
        start_time, cpu = time.monotonic(), time.process_time()
        ended: list[Sample] = await asyncio.gather(*[self._module.cold_start(**start) for start in starts])
        cpu = time.process_time() - cpu
        return {"starts": ended, "cpu": cpu / sum(item["ended_at"] - start_time for item in ended)}

    async def close(self) -> None:
        for client in self._clients.values():
            await client.close()


def count_connects() -> Counter[int | None]:
    """Counts from now on, by port, how often this process began a connection. It does so to its end, which costs a
    little for everything that it does: for processes that are not measured."""
    counts: Counter[int | None] = Counter()

    def watch(event: str, details: tuple[Any, ...]) -> None:
        if event == "socket.connect" and isinstance(details[1], tuple):
            counts[details[1][1]] += 1

    sys.addaudithook(watch)
    return counts


def _ignore(_: str) -> None:
    pass


def _summarize(pieces: list[str]) -> Sample:
    """The length and the checksum of the text, which the driver compares with what the stub sends."""
    text = "".join(pieces)
    return {"pieces": len(pieces), "characters": len(text), "crc": zlib.crc32(text.encode())}


def resident() -> int:
    """Bytes of memory that this process has now."""
    if sys.platform == "win32":
        raise NotImplementedError
    with open("/proc/self/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


def versions(module: Any) -> dict[str, str]:
    file = {"python": platform.python_version()}
    for name in module.DISTRIBUTIONS:
        with suppress(metadata.PackageNotFoundError):
            file[name] = metadata.version(name)
    return file


def _write_line(answer: Sample) -> None:
    print(json.dumps(answer), flush=True)


def main(name: str, url: str) -> None:
    if sys.platform == "win32":
        raise NotImplementedError
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    module = import_module(f"tests.benchmarks.clients.{name}")
    new_event_loop = getattr(module, "new_event_loop", asyncio.new_event_loop)
    loop: asyncio.AbstractEventLoop = new_event_loop()
    asyncio.set_event_loop(loop)
    worker = Worker(module, url)
    _write_line({"versions": versions(module), "wires": list(module.WIRES)})
    for line in sys.stdin:
        command = json.loads(line)
        act: Callable[..., Coroutine[Any, Any, Sample]] = getattr(worker, command.pop("do"))
        try:
            _write_line(loop.run_until_complete(act(**command)))
        except Exception as error:  # told to the driver, which goes on with the others
            _write_line({"error": f"{type(error).__name__}: {error}"[:500]})
    loop.run_until_complete(worker.close())
    loop.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
