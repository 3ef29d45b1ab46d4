"""One connection of the fault server: reads requests, and plays to each what the server is told. Chooses nothing."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ctxbackends.testing.faults.answers import dump, plain
from ctxbackends.testing.faults.reading import BODY_MOST, NotARequest, RequestReader
from ctxbackends.testing.faults.scripts import Connection, Do, Received, Step

if TYPE_CHECKING:
    from ctxbackends.testing.faults.server import FaultServer


def _without_body(steps: Iterable[Step]) -> Iterator[Step]:
    """The steps of an answer to HEAD: as to GET, and no body (RFC 9110, 9.3.2)."""
    headers_sent = False
    for step in steps:
        if not isinstance(step, bytes):
            yield step
            continue
        if headers_sent:
            return
        head, ended, _ = step.partition(b"\r\n\r\n")
        headers_sent = bool(ended) and not head.startswith(b"HTTP/1.1 1")
        yield head + ended


class Player(asyncio.Protocol):
    """One connection: reads requests, and plays to each what the server is told."""

    def __init__(self, server: FaultServer) -> None:
        self._server = server
        self._reader = RequestReader()
        self._task: asyncio.Task[None] | None = None
        self._deaf = False
        self._writable = asyncio.Event()
        self._writable.set()
        self.lost = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "it is a TCP connection"
        self._transport = transport
        # Each piece goes out when it is written: a fault is where the bytes are cut.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = Connection(len(self._server.connections))
        self._server.connections.append(self.connection)
        self._server._players.add(self)
        if not self._server._listens:
            self.abort()  # accepted in the moment in which the server stopped listening

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._end(Do.RESET)
            return
        if self.connection.closed_at is not None:
            return  # what comes after the server has closed
        self._reader.feed(data)
        self._begin()

    def eof_received(self) -> bool:
        """A client that closes its half has closed: none of those that talk to model servers does it to read on."""
        self.connection.close("client")
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio names it
        self.connection.close("client")
        self._writable.set()
        if self._task is not None:
            self._task.cancel()
        self._server._players.discard(self)
        self.lost.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def abort(self) -> None:
        """End it now: a client that does not read keeps nobody."""
        self.connection.close("server")
        self._transport.abort()

    def leave(self) -> None:
        """End it; an answer that was played to its end still arrives."""
        if self._task is None:
            self._end(Do.CLOSE)
        else:
            self.abort()

    # --- a request and its script -----------------------------------------------------------------

    def _begin(self) -> None:
        """Play to the next request, if it is whole and the answer to the last one is."""
        if self._task is not None:
            if self._reader.waiting > BODY_MOST:
                self._end(Do.RESET)
            return
        if self._deaf and self._reader.waiting:
            self._end(Do.RESET)
            return
        try:
            taken = self._reader.take()
        except NotARequest as error:
            said = {"error": {"message": f"FaultServer: {error}", "type": "fault_server_error", "code": error.status}}
            self._transport.write(plain(error.status, dump(said), connection="close"))
            self._end(Do.CLOSE)
            return
        if taken is None:
            return
        request = Received(
            method=taken.method,
            path=taken.path,
            headers=taken.headers,
            body=taken.body,
            connection=self.connection,
            at=time.monotonic(),
        )
        self.connection.requests += 1
        self._server.requests.append(request)
        self._task = asyncio.get_running_loop().create_task(self._answer(request))
        self._server._playing.add(self._task)
        self._task.add_done_callback(self._server._played)  # also of one that was cancelled before it began

    async def _answer(self, request: Received) -> None:
        try:
            steps = self._server.steps_for(request)
            await self._play(_without_body(steps) if request.method == "HEAD" else steps)
            asked_to_close = self._server.obeys_close and request.headers.get("connection", "").lower() == "close"
            if asked_to_close and self.connection.closed_at is None:
                self._end(Do.CLOSE)
        except (
            Exception
        ) as error:  # of a script: it is the test that is wrong, and it hears of it when the server stops
            self._server._failures.append(error)
            self._end(Do.RESET)
        finally:
            self._task = None
            self._server._played(asyncio.current_task())
        if self.connection.closed_at is None:
            self._begin()

    async def _play(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if isinstance(step, bytes):
                self._transport.write(step)
                await asyncio.sleep(0)  # a client that reads as fast as this writes would keep the loop for itself
                await self._writable.wait()
                if self._transport.is_closing():
                    return
            elif isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, float | int):
                await asyncio.sleep(step)
            elif step is Do.HOLD:
                await self.connection.closed()
            elif step is Do.DEAF:
                self._deaf = True
            elif isinstance(step, Do):
                self._end(step)
            else:
                raise TypeError(f"a script has no step {step!r}")
            if self.connection.closed_at is not None:
                return

    def _end(self, how: Do) -> None:
        self.connection.close("server")
        if how is Do.RESET:
            # Nothing lingers: the kernel sends a reset in the place of an orderly end.
            linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)  # `struct linger` of the C library
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()
        self._transport.close()
