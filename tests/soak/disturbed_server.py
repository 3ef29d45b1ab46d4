"""A real llama-server on a fixed port that is killed, terminated and paused by a schedule from a seed."""

from __future__ import annotations

import asyncio
import math
import os
import random
import signal
import sys
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator

import attrs

from ctxbackends import LocalServer, ServerDiedError
from ctxbackends.testing import VARIANTS, cached_model

MODEL = "tiny"
SLOTS = 2
CONTEXT_TOKENS = 4096  # over both slots
TERM_GRACE = 5.0
"""Seconds after which a server that was told to end is killed: llama-server waits for clients that wait for it. Longer
than the clients' limits between tokens and to the first one, which are what ends those waits."""

MAX_DISTURBANCES = 200  # disturbances: no request lives as long as these took


@attrs.frozen
class Act:
    """``quiet``: seconds before it. ``kind``: kill, term, pause or flap. ``length``: seconds that the server is then
    down, or stopped."""

    quiet: float
    kind: str
    length: float


def schedule(chance: random.Random) -> Iterator[Act]:
    """Without end. Half of the times down and stopped are shorter than a client waits for, some are longer."""
    while True:
        kind = chance.choices(("kill", "term", "pause", "flap"), (4, 3, 3, 1))[0]
        length = chance.choice((0.0, 0.3, chance.uniform(0.5, 2.0), chance.uniform(2.0, 4.0), chance.uniform(6.0, 8.0)))
        yield Act(round(chance.uniform(0.5, 4.0), 2), kind, round(min(length, 5.0) if kind == "pause" else length, 2))


@attrs.define
class _Disturbance:
    kind: str
    start: float
    end: float = math.inf


class DisturbedServer:
    """The server. ``report`` is called for everything that is done to it."""

    def __init__(self, port: int, report: Callable[[str], None]) -> None:
        self._server = LocalServer(
            cached_model(VARIANTS[MODEL]),
            alias=MODEL,
            port=port,
            parallel=SLOTS,
            ctx_size=CONTEXT_TOKENS,
            threads=1,
            embeddings=True,
        )
        self._port = port
        self._report = report
        self._disturbances: deque[_Disturbance] = deque(maxlen=MAX_DISTURBANCES)
        self.acts: Counter[str] = Counter()
        self.starts = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Start it, and wait until it serves."""
        while True:
            try:
                await self._server.start()
                break
            except ServerDiedError:  # that it ended is told for a second to everyone who asks, us included
                await asyncio.sleep(0.05)
        self.starts += 1

    async def start_and_wait(self) -> None:
        await self.start()
        await self._ready()

    async def close(self) -> None:
        await self._server.aclose()

    def done_within(self, start: float, end: float) -> frozenset[str]:
        """The kinds of what was done to it between two times."""
        return frozenset(
            disturbance.kind
            for disturbance in self._disturbances
            if disturbance.start <= end and start <= disturbance.end
        )

    async def disturb(self, act: Act) -> None:
        """Do it, and return when the server serves again."""
        await asyncio.sleep(act.quiet)
        self._report(f"{act.kind} {act.length:g} s")
        now = _Disturbance(act.kind, time.monotonic())
        self._disturbances.append(now)
        self.acts[act.kind] += 1
        if sys.platform == "win32":
            raise NotImplementedError
        if act.kind == "pause":
            os.kill(self._pid, signal.SIGSTOP)
            await asyncio.sleep(act.length)
            os.kill(self._pid, signal.SIGCONT)
        elif act.kind == "term":
            await self._end_gently()
            await asyncio.sleep(act.length)
            await self.start()
        else:
            await self._kill()
            await asyncio.sleep(act.length)
            await self.start()
            if act.kind == "flap":  # it dies again where it loads, or has just loaded
                await asyncio.sleep(act.length / 4)
                await self._kill()
                await self.start()
        await self._ready()
        now.end = time.monotonic()

    @property
    def _pid(self) -> int:
        pid = self._server.pid
        assert pid is not None, "it was started"
        return pid

    async def _kill(self) -> None:
        if sys.platform == "win32":
            raise NotImplementedError
        os.kill(self._pid, signal.SIGKILL)
        while self._server.running:
            await asyncio.sleep(0.01)

    async def _end_gently(self) -> None:
        os.kill(self._pid, signal.SIGTERM)
        deadline = time.monotonic() + TERM_GRACE
        while self._server.running:
            if time.monotonic() > deadline:
                self._report("it did not end; killed")
                self.acts["term, then kill"] += 1
                await self._kill()
            await asyncio.sleep(0.02)

    async def _ready(self) -> None:
        """By a connection of our own, so that the SDK is not its own judge."""
        deadline = time.monotonic() + 60
        while not await self._is_healthy():
            if time.monotonic() > deadline:
                raise RuntimeError(f"the server does not become ready: {self._server.log_tail()}")
            await asyncio.sleep(0.02)

    async def _is_healthy(self) -> bool:
        try:
            async with asyncio.timeout(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
                try:
                    writer.write(b"GET /health HTTP/1.1\r\nHost: soak\r\nConnection: close\r\n\r\n")
                    return b" 200 " in await reader.readline()
                finally:
                    writer.close()
        except (OSError, TimeoutError):
            return False
