"""The server of the benchmark, a process of its own: reads just enough of a request to choose an answer that is made
already, and writes it. Prints its address; answers each line on stdin with the CPU time that it has used.

Standard library alone. Knows no client. It must not be what is measured, so it tells its own CPU time.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeAlias

from tests.benchmarks.answers import LIST, LOADING, NOT_FOUND, Answer, all_answers

with suppress(ImportError):  # not on Windows
    import resource

Answers: TypeAlias = dict[tuple[bytes, bytes, bool], Answer]
_LENGTH = re.compile(rb"\r\n[Cc]ontent-[Ll]ength: *(\d+)")
_MODEL = re.compile(rb'"model": ?"([^"]*)"')
_STREAM = re.compile(rb'"stream": ?true')


@dataclass
class Listener:
    """One port. ``ready_at``: on the monotonic clock, since when it answers; None: not yet. ``requests``: all that
    came."""

    port: int = 0
    ready_at: float | None = None
    requests: int = 0


class Connection(asyncio.Protocol):
    """One connection of a client: a request, its answer, the next one."""

    def __init__(self, listener: Listener, answers: Answers) -> None:
        self._listener = listener
        self._answers = answers
        self._data = b""
        self._pacing: asyncio.TimerHandle | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport  # asyncio sets TCP_NODELAY: what is written at once is a segment

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio gives it
        if self._pacing is not None:
            self._pacing.cancel()

    def data_received(self, data: bytes) -> None:
        self._data = data = self._data + data if self._data else data
        end = data.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(data, 0, end)
        end_of_request = end + 4 + (int(length[1]) if length else 0)
        if len(data) < end_of_request:
            return
        self._data = data[end_of_request:]
        self._answer(data[: data.index(b"\r\n")].split(b" "), data[end + 4 : end_of_request])

    def _answer(self, line: list[bytes], body: bytes) -> None:
        self._listener.requests += 1
        if self._listener.ready_at is None:
            self._transport.write(LOADING)
            return
        model = _MODEL.search(body)
        answer = self._answers.get((line[1], model[1], _STREAM.search(body) is not None)) if model else None
        if answer is None:
            self._transport.write(LIST if line[1] == b"/v1/models" else NOT_FOUND)
        elif answer.hangs:
            self._transport.write(answer.writes[0])
        elif answer.pause:
            self._write_paced(answer, 0, asyncio.get_running_loop())
        else:
            for part in answer.writes:
                self._transport.write(part)

    def _write_paced(self, answer: Answer, at: int, loop: asyncio.AbstractEventLoop) -> None:
        self._transport.write(answer.writes[at])
        self._pacing = None
        if at + 1 < len(answer.writes):
            self._pacing = loop.call_later(answer.pause, self._write_paced, answer, at + 1, loop)


async def listen(listener: Listener, answers: Answers, on: socket.socket) -> asyncio.Server:
    """Serve on a bound socket."""
    server = await asyncio.get_running_loop().create_server(
        lambda: Connection(listener, answers), sock=on, backlog=4096
    )
    listener.port = on.getsockname()[1]
    return server


def bind_port() -> socket.socket:
    """A port on loopback that refuses connections until somebody listens on the socket."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    return listener


async def serve_commands(act: Callable[[dict[str, Any]], dict[str, Any]]) -> None:
    """Answer each line of JSON on stdin with what ``act`` gives for it, until who started this process is gone."""
    loop = asyncio.get_running_loop()
    is_done = loop.create_future()
    pending = b""

    def read_lines() -> None:
        nonlocal pending
        data = os.read(sys.stdin.fileno(), 65536)
        if not data:
            loop.remove_reader(sys.stdin.fileno())
            is_done.set_result(None)
            return
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            write_line(act(json.loads(line)))

    loop.add_reader(sys.stdin.fileno(), read_lines)
    await is_done


def write_line(answer: dict[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


async def _serve() -> None:
    if sys.platform == "win32":
        raise NotImplementedError
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    listener = Listener(ready_at=time.monotonic())
    server = await listen(listener, all_answers(), bind_port())
    write_line({"url": f"http://127.0.0.1:{listener.port}"})
    await serve_commands(lambda _: {"cpu": time.process_time(), "requests": listener.requests})
    server.close()


def main() -> None:
    asyncio.run(_serve())


if __name__ == "__main__":
    main()
