"""The server of the benchmark, a process of its own: reads just enough of a request to choose an answer that is made
already, and writes it. Prints its address; obeys lines of JSON on stdin, and answers each with one.

Standard library alone. Knows no client. It must not be what is measured, so it tells its own CPU time.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import resource
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.benchmarks.answers import LIST, LOADING, NOT_FOUND, Answer, all_answers

_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)")
_MODEL = re.compile(rb'"model": ?"([^"]*)"')
_STREAMED = re.compile(rb'"stream": ?true')


@dataclass
class Listener:
    """One port. ``ready_at``: on the monotonic clock, since when it answers; None: not yet. ``requests``: all that
    came."""

    port: int = 0
    ready_at: float | None = None
    requests: int = 0


class Connection(asyncio.Protocol):
    """One connection of a client: a request, its answer, the next one."""

    def __init__(self, listener: Listener, answers: dict[tuple[bytes, bytes, bool], Answer]) -> None:
        self._listener = listener
        self._answers = answers
        self._data = b""
        self._pacing: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport  # asyncio sets TCP_NODELAY: what is written at once is a segment

    def connection_lost(self, exc: Exception | None) -> None:
        if self._pacing is not None:
            self._pacing.cancel()

    def data_received(self, data: bytes) -> None:
        self._data = data = self._data + data if self._data else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(data, 0, end)
        whole = end + 4 + (int(length[1]) if length else 0)
        if len(data) < whole:
            return
        self._data = data[whole:]
        self._answer(data[: data.index(b"\r\n")].split(b" "), data[end + 4 : whole])

    def _answer(self, line: list[bytes], body: bytes) -> None:
        self._listener.requests += 1
        if self._listener.ready_at is None:
            self._transport.write(LOADING)
            return
        model = _MODEL.search(body)
        answer = self._answers.get((line[1], model[1], _STREAMED.search(body) is not None)) if model else None
        if answer is None:
            self._transport.write(LIST if line[1] == b"/v1/models" else NOT_FOUND)
        elif answer.holds:
            self._transport.write(answer.writes[0])
        elif answer.pause:
            self._paced(answer, 0, asyncio.get_running_loop())
        else:
            for part in answer.writes:
                self._transport.write(part)

    def _paced(self, answer: Answer, at: int, loop: asyncio.AbstractEventLoop) -> None:
        self._transport.write(answer.writes[at])
        self._pacing = None
        if at + 1 < len(answer.writes):
            self._pacing = loop.call_later(answer.pause, self._paced, answer, at + 1, loop)


class Stub:
    """All ports, and the commands. ``say`` takes the answers to commands."""

    def __init__(self, say: Callable[[dict[str, Any]], None]) -> None:
        self._say = say
        self._answers = all_answers()
        self._listeners: list[Listener] = []
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def listen(self, listener: Listener) -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(
            lambda: Connection(listener, self._answers), "127.0.0.1", listener.port, backlog=4096
        )
        self._servers.append(server)
        self._listeners.append(listener)
        listener.port = server.sockets[0].getsockname()[1]

    def obey(self, command: dict[str, Any]) -> None:
        match command["do"]:
            case "account":
                self._say({"cpu": time.process_time(), "requests": self._listeners[0].requests})
            case "start":  # a cold start: `kind` is "refused" or "loading", `after` the seconds, None for never
                listener = Listener(port=free_port() if command["kind"] == "refused" else 0)
                task = asyncio.get_running_loop().create_task(self._start(listener, command["kind"], command["after"]))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
            case "starts":  # what became of the cold starts, by port
                self._say(
                    {str(one.port): {"ready_at": one.ready_at, "requests": one.requests} for one in self._listeners[1:]}
                )
            case other:
                raise ValueError(f"no such command: {other}")

    async def _start(self, listener: Listener, kind: str, after: float | None) -> None:
        if kind == "loading":
            await self.listen(listener)
        self._say({"port": listener.port})
        if after is None:
            return
        await asyncio.sleep(after)
        if kind == "refused":
            await self.listen(listener)
        listener.ready_at = time.monotonic()


def free_port() -> int:
    """Below the ports that the kernel gives to clients: one that connects to a port of those on which nobody listens
    can be given that very port, and talks to itself."""
    for port in range(15_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            if port not in _given:
                _given.add(port)
                return port
    raise OSError("there is no free port")


_given: set[int] = set()


def raise_file_limit() -> None:
    """As many sockets as this process may have."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _say(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


async def main() -> None:
    raise_file_limit()
    stub = Stub(_say)
    listener = Listener(ready_at=time.monotonic())
    await stub.listen(listener)
    _say({"url": f"http://127.0.0.1:{listener.port}"})
    loop = asyncio.get_running_loop()
    ended = loop.create_future()
    pending = b""

    def read() -> None:
        nonlocal pending
        data = os.read(sys.stdin.fileno(), 65536)
        if not data:
            loop.remove_reader(sys.stdin.fileno())
            ended.set_result(None)
            return
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            stub.obey(json.loads(line))

    loop.add_reader(sys.stdin.fileno(), read)
    await ended  # who started it is gone, or closed the pipe


if __name__ == "__main__":
    asyncio.run(main())
