"""Workers for the tests of engines, which send one request for each item, and the server that counts them.

Worker processes import this module, and so do the drivers that a test kills. It is no part of a test by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import attrs
from aiohttp import web

from ctxbackends._engines.contract import Channel, Engine, divide
from ctxbackends._engines.distribute import distribute
from ctxbackends._engines.processes import ProcessEngine
from ctxbackends._engines.ray import RayEngine
from ctxbackends.errors import AuthenticationError
from tests.processes import kill


@attrs.frozen
class CountSpec:
    """A worker that sends each item to the server, and appends the answer to its part of the journal.

    The item ``die`` kills its process, ``fail`` raises an error of all items, ``odd`` one that cannot be pickled.
    """

    url: str
    part: Path
    max_in_flight: int = 4
    key_variable: str | None = None

    async def open(self, _: Channel, /) -> CountWorker:
        key = os.environ[self.key_variable] if self.key_variable is not None else ""
        return CountWorker(self, key)


class CountWorker:
    def __init__(self, spec: CountSpec, key: str) -> None:
        self._url = spec.url
        self._slots = asyncio.Semaphore(spec.max_in_flight)
        with open(spec.part.with_name("pids"), "a", encoding="utf-8") as pids:
            pids.write(f"{os.getpid()}\n")
        self._part = open(spec.part, "a", encoding="utf-8")  # noqa: SIM115  # closed by aclose()
        self._session = aiohttp.ClientSession(headers={"Authorization": f"Bearer {key}"})

    async def answer(self, items: Sequence[str]) -> Sequence[str]:
        return await asyncio.gather(*(self._answer(item) for item in items))

    async def _answer(self, item: str) -> str:
        if item == "die":
            kill(os.getpid())
        if item == "fail":
            raise AuthenticationError(401, body=b'{"error": {"message": "invalid API key"}}')
        if item == "odd":
            raise OddError(item, 2)
        if item == "print":
            print("printed by a worker", flush=True)  # noqa: T201
        async with self._slots, self._session.get(f"{self._url}/{item}") as response:
            answer = f"{item}={await response.text()}"
        self._part.write(answer + "\n")
        self._part.flush()
        return answer

    async def aclose(self) -> None:
        await self._session.close()
        self._part.close()


class OddError(Exception):
    """Takes more arguments than it keeps, so that pickle cannot rebuild it."""

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.number = number


# --- the server -----------------------------------------------------------------------------------


class CountingServer:
    """Answers each path after a while, and counts the requests, and those in flight."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.url = ""
        self.requests: Counter[str] = Counter()
        self.answered: Counter[str] = Counter()
        self.keys: set[str] = set()
        self.in_flight = 0
        self.peak = 0
        self.changed = asyncio.Event()

    async def handle(self, request: web.Request) -> web.Response:
        item = request.path[1:]
        self.requests[item] += 1
        self.keys.add(request.headers["Authorization"].removeprefix("Bearer "))
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        self._notify()
        try:
            await asyncio.sleep(self._seconds)
            self.answered[item] += 1
            return web.Response(text="ok")
        finally:
            self.in_flight -= 1
            self._notify()

    def _notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    async def wait_requests(self, count: int) -> None:
        """Wait until so many requests arrived."""
        while self.requests.total() < count:
            await self.changed.wait()

    async def wait_idle(self) -> None:
        """Wait until no request is in flight."""
        while self.in_flight:
            await self.changed.wait()


@asynccontextmanager
async def counting_server(seconds: float = 0.005) -> AsyncIterator[CountingServer]:
    server = CountingServer(seconds)
    application = web.Application()
    application.router.add_get("/{item}", server.handle)
    # A request ends when its connection is closed, as at vLLM.
    runner = web.AppRunner(application, handler_cancellation=True, shutdown_timeout=0)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield server
    finally:
        await runner.cleanup()


# --- the journal ----------------------------------------------------------------------------------


class Parts:
    """The answers that the workers stored in a directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def spec(self, server_url: str, name: str, **options: object) -> CountSpec:
        return CountSpec(server_url, self.directory / f"part-{name}", **options)  # type: ignore[arg-type]

    def pids(self) -> list[int]:
        """The processes that had a worker, in the order in which they started."""
        return [int(line) for line in (self.directory / "pids").read_text().split()]

    def read(self) -> list[str]:
        lines = [line for file in self.directory.glob("part-*") for line in file.read_text().splitlines(keepends=True)]
        return [line[:-1] for line in lines if line.endswith("\n")]

    async def recover(self, items: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        stored = {answer.split("=")[0]: answer for answer in self.read()}
        return [stored[item] for item in items if item in stored], [item for item in items if item not in stored]

    def unanswered(self, count: int) -> list[str]:
        stored = {answer.split("=")[0] for answer in self.read()}
        return [str(item) for item in range(count) if str(item) not in stored]


def ignore(_: Any) -> None:
    """Ignore the notes of a worker."""


def numbers(count: int) -> list[str]:
    return [str(item) for item in range(count)]


def ids(answers: Sequence[str]) -> Counter[str]:
    return Counter(answer.split("=")[0] for answer in answers)


async def blocks_of(items: Sequence[str], size: int) -> AsyncIterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


async def ask(
    engine: Engine,
    parts: Parts,
    url: str,
    items: Sequence[str],
    *,
    workers: int = 2,
    size: int = 4,
    key_variable: str | None = None,
    **options: Any,
) -> list[str]:
    """Open the engine, and return the answers of its workers."""
    shares = divide(size * workers, workers, "max_in_flight")
    await engine.open(workers)
    run = distribute(
        engine,
        lambda slot, generation: parts.spec(
            url, f"{slot}-{generation}", max_in_flight=shares[slot], key_variable=key_variable
        ),
        blocks_of(items, size),
        workers=workers,
        recover=parts.recover,
        **options,
    )
    return [answer async for results in run for answer in results]


# --- a driver that a test kills -------------------------------------------------------------------

_START = """
import sys; sys.path.append({root!r})
import asyncio
from tests.engine_workers import drive
asyncio.run(drive({arguments!r}))
"""


@asynccontextmanager
async def driver_process(**arguments: Any) -> AsyncIterator[asyncio.subprocess.Process]:
    """Run :func:`drive` in a process."""
    start = _START.format(root=str(Path(__file__).parents[1]), arguments=arguments)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", start, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.communicate()


async def drive(arguments: dict[str, Any]) -> None:
    """Ask the items that are not in the parts yet, and print the answers."""
    engine = create_engine(arguments["engine"])
    parts = Parts(Path(arguments["directory"]))
    workers = arguments["workers"]
    shares = divide(arguments["max_in_flight"], workers, "max_in_flight")
    run = os.getpid()  # each run has parts of its own
    await engine.open(workers)
    try:
        answers = distribute(
            engine,
            lambda slot, generation: parts.spec(
                arguments["url"], f"{run}-{slot}-{generation}", max_in_flight=shares[slot]
            ),
            blocks_of(parts.unanswered(arguments["items"]), max(1, arguments["max_in_flight"] // workers)),
            workers=workers,
            recover=parts.recover,
        )
        async for results in answers:
            print(*results, sep="\n", flush=True)  # noqa: T201  # the test reads it
    finally:
        await engine.aclose()


def create_engine(name: str) -> Engine:
    if name == "processes":
        return ProcessEngine()
    return RayEngine() if name == "local" else RayEngine(name)
