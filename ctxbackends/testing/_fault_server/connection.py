"""One connection of the fault server: reads requests, and runs the steps for each."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from ctxbackends.testing._fault_server.answers import dump, plain
from ctxbackends.testing._fault_server.parser import MAX_BODY, InvalidRequest, RequestParser
from ctxbackends.testing._fault_server.steps import Connection, Do, RecordedRequest, Step

if TYPE_CHECKING:
    from ctxbackends.testing._fault_server.server import FaultServer


def _drop_body(steps: Iterable[Step]) -> Iterator[Step]:
    """Return the steps of a response to HEAD: those for GET without the body (RFC 9110, 9.3.2)."""
    headers_sent = False
    for step in steps:
        if not isinstance(step, bytes):
            yield step
            continue
        if headers_sent:
            return
        head, separator, _ = step.partition(b"\r\n\r\n")
        headers_sent = bool(separator) and not head.startswith(b"HTTP/1.1 1")
        yield head + separator


class ConnectionHandler(asyncio.Protocol):
    """Read requests from a connection and run the steps for each."""

    def __init__(self, server: FaultServer) -> None:
        self._server = server
        self._parser = RequestParser()
        self._task: asyncio.Task[None] | None = None
        self._closes_on_next_request = False
        self._writable = asyncio.Event()
        self._writable.set()
        self.lost_event = asyncio.Event()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "the connection is TCP"
        self._transport = transport
        # Send each write at once: faults depend on where the bytes are cut.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = Connection(len(self._server.connections))
        self._server.connections.append(self.connection)
        self._server._handlers.add(self)
        if not self._server._is_listening:
            self.abort()  # accepted while the server stopped listening

    def data_received(self, data: bytes) -> None:
        if self._closes_on_next_request:
            self._close(Do.RESET)
            return
        if self.connection.closed_at is not None:
            return  # arrived after the server closed
        self._parser.feed(data)
        self._start_next()

    def eof_received(self) -> bool:
        """Treat a half-closed connection as closed: no client of model servers reads on after it closes its half."""
        self.connection.mark_closed("client")
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio names it
        self.connection.mark_closed("client")
        self._writable.set()
        if self._task is not None:
            self._task.cancel()
        self._server._handlers.discard(self)
        self.lost_event.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def abort(self) -> None:
        """Close the connection at once, even if the client does not read."""
        self.connection.mark_closed("server")
        self._transport.abort()

    def close(self) -> None:
        """Close the connection; a response that was written completely still arrives."""
        if self._task is None:
            self._close(Do.CLOSE)
        else:
            self.abort()

    # --- a request and its script -----------------------------------------------------------------

    def _start_next(self) -> None:
        """Handle the next request if it is complete and the last one has its response."""
        if self._task is not None:
            if self._parser.pending > MAX_BODY:
                self._close(Do.RESET)
            return
        if self._closes_on_next_request and self._parser.pending:
            self._close(Do.RESET)
            return
        try:
            parsed = self._parser.next_request()
        except InvalidRequest as error:
            body = {"error": {"message": f"FaultServer: {error}", "type": "fault_server_error", "code": error.status}}
            self._transport.write(plain(error.status, dump(body), connection="close"))
            self._close(Do.CLOSE)
            return
        if parsed is None:
            return
        request = RecordedRequest(
            method=parsed.method,
            path=parsed.path,
            headers=parsed.headers,
            body=parsed.body,
            connection=self.connection,
            received_at=time.monotonic(),
        )
        self.connection.requests += 1
        self._server.requests.append(request)
        self._task = asyncio.get_running_loop().create_task(self._handle(request))
        self._server._tasks.add(self._task)
        self._task.add_done_callback(self._server._on_task_done)  # also if it is cancelled before it starts

    async def _handle(self, request: RecordedRequest) -> None:
        try:
            steps = self._server.select_steps(request)
            await self._run_steps(_drop_body(steps) if request.method == "HEAD" else steps)
            closes = self._server.closes_on_request and request.headers.get("connection", "").lower() == "close"
            if closes and self.connection.closed_at is None:
                self._close(Do.CLOSE)
        except Exception as error:  # noqa: BLE001  # raised by a script; stop() raises it in the test
            self._server._failures.append(error)
            self._close(Do.RESET)
        finally:
            self._task = None
            self._server._on_task_done(asyncio.current_task())
        if self.connection.closed_at is None:
            self._start_next()

    async def _run_steps(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if isinstance(step, bytes):
                self._transport.write(step)
                await asyncio.sleep(0)  # else a fast reader would block the event loop
                await self._writable.wait()
                if self._transport.is_closing():
                    return
            elif isinstance(step, asyncio.Event):
                await step.wait()
            elif isinstance(step, float | int):
                await asyncio.sleep(step)
            elif step is Do.HANG:
                await self.connection.wait_closed()
            elif step is Do.CLOSE_ON_NEXT_REQUEST:
                self._closes_on_next_request = True
            elif isinstance(step, Do):
                self._close(step)
            else:
                raise TypeError(f"unknown step in a script: {step!r}; yield bytes, seconds, an asyncio.Event or a Do")
            if self.connection.closed_at is not None:
                return

    def _close(self, how: Do) -> None:
        self.connection.mark_closed("server")
        if how is Do.RESET:
            # With a linger time of 0, the kernel sends a reset instead of closing the connection in order.
            linger = struct.pack("hh" if os.name == "nt" else "ii", 1, 0)  # `struct linger` of the C library
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()
        self._transport.close()
