"""An HTTP server on raw sockets that answers each request as it is told to, faults included. Knows how to play a script
and to keep account of what came; what the scripts do is in the modules beside it.

Needs neither this SDK's client nor aiohttp: whatever talks HTTP to a model server can be tested against it.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections import deque
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Self

from anyio.from_thread import start_blocking_portal

from ctxbackends.testing.faults.answers import MODEL, PIECES, Answer, Fault, Script, whole
from ctxbackends.testing.faults.scripts import Connection, Do, Received, Step


class FaultServer:
    """A server on loopback that does to each request what it is told. Use it with ``async with``, on the event loop of
    the test, or with ``with``, in a thread of its own.

    ``play(...)`` tells it what to do to the next requests, one fault for each; ``always(...)`` to all that no ``play``
    is left for. Both are for generations and embeddings (``POST``); what a client asks to look at the server (``GET``)
    is answered well, unless ``looks=True``. Where nothing was told, the answer is a whole one in the format of
    the route: ``pieces`` are the texts that it is made of, ``model`` the model that answers.

    ``requests`` are those that came whole, in their order, and ``connections`` the TCP connections.
    """

    def __init__(self, *, pieces: Sequence[str] = PIECES, model: str = MODEL) -> None:
        self.pieces = pieces
        self.model = model
        self.requests: list[Received] = []
        self.connections: list[Connection] = []
        self._queue: deque[tuple[Script, bool]] = deque()
        self._always: tuple[Script, bool] | None = None
        self._since: float | None = None
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None
        self._port = 0
        self._players: set[_Player] = set()
        self._playing: set[asyncio.Task[None]] = set()
        self._later: asyncio.TimerHandle | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = ExitStack()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        return self._port

    @property
    def generations(self) -> list[Received]:
        """The requests that were no looks: what a server would have worked for."""
        return [request for request in self.requests if request.method == "POST"]

    @property
    def open_connections(self) -> int:
        return sum(connection.closed_at is None for connection in self.connections)

    async def idle(self) -> None:
        """Return when no connection is open. On the event loop of the server only."""
        for connection in list(self.connections):
            await connection.closed()

    def wait_idle(self) -> None:
        """Block until no connection is open: for a server that runs in a thread of its own."""
        assert self._loop is not None, "it was started"
        asyncio.run_coroutine_threadsafe(self.idle(), self._loop).result()

    def forget(self) -> None:
        """Take back all that it was told."""
        self._queue.clear()
        self._always = None
        self._since = None

    # --- what it is told --------------------------------------------------------------------------

    def play(self, *scripts: Script, looks: bool = False) -> None:
        """Do these to the next requests, one to each. ``looks``: also to those that only look at the server."""
        for script in scripts:
            self._queue.append((script, looks))
        self._refuse()

    def always(self, script: Script, *, looks: bool = False) -> None:
        """Do this to every request that nothing else is left for."""
        self._always = (script, looks)

    def script_for(self, request: Received) -> Script:
        """What is done to this request."""
        work = request.method == "POST"
        while self._queue and (work or self._queue[0][1]):
            script = self._queue[0][0]
            seconds = script.seconds if isinstance(script, Fault) else 0.0
            if seconds:
                self._since = self._since if self._since is not None else time.monotonic()
                if time.monotonic() < self._since + seconds:
                    return script
            self._queue.popleft()
            self._since = None
            self._refuse()
            if not seconds:
                return script
        if self._always is not None and (work or self._always[1]):
            return self._always[0]
        return whole

    def steps_for(self, request: Received) -> Iterable[Step]:
        return self.script_for(request)(Answer(request, self.pieces, self.model))

    def _refuse(self) -> None:
        """Where the next fault is that nothing listens: begin with it."""
        if self._loop is None or not self._queue:
            return
        script = self._queue[0][0]
        if isinstance(script, Fault) and script.refuses:
            self._queue.popleft()
            if self._loop is _running_loop():
                self._refuse_for(script.refuses)
            else:
                asyncio.run_coroutine_threadsafe(self._refuse_from_afar(script.refuses), self._loop).result()

    async def _refuse_from_afar(self, seconds: float) -> None:
        self._refuse_for(seconds)

    def _refuse_for(self, seconds: float) -> None:
        assert self._loop is not None, "it was started"
        self._stop_listening()
        for player in list(self._players):
            player.abort()  # a process that is not there has no connections either
        self._later = self._loop.call_later(seconds, self._listen_again)

    # --- listening --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen. The port is kept until ``stop``, also while nothing listens on it."""
        self._loop = asyncio.get_running_loop()
        # Bound twice: a socket that is bound and does not listen keeps the port, and the kernel refuses for it.
        self._socket = _bound(0)
        self._port = self._socket.getsockname()[1]
        await self._listen()
        self._refuse()

    async def _listen(self) -> None:
        assert self._loop is not None, "it was started"
        self._server = await self._loop.create_server(lambda: _Player(self), sock=_bound(self._port))

    def _listen_again(self) -> None:
        assert self._loop is not None, "it was started"
        self._listening = self._loop.create_task(self._listen())

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def stop(self) -> None:
        """Close everything."""
        if self._later is not None:
            self._later.cancel()
        self._stop_listening()
        for player in list(self._players):
            player.abort()
        if self._playing:
            await asyncio.wait(self._playing)
        if self._socket is not None:
            self._socket.close()
        self._loop = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        portal = self._thread.enter_context(start_blocking_portal())
        self._thread.enter_context(portal.wrap_async_context_manager(self))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.close()


def _running_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def _bound(port: int) -> socket.socket:
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made


class _Player(asyncio.Protocol):
    """One connection: reads requests, and plays to each what the server is told."""

    def __init__(self, server: FaultServer) -> None:
        self._server = server
        self._received = bytearray()
        self._task: asyncio.Task[None] | None = None
        self._deaf = False
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport), "it is a TCP connection"
        self._transport = transport
        # Each piece goes out when it is written: a fault is where the bytes are cut.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = Connection(len(self._server.connections))
        self._server.connections.append(self.connection)
        self._server._players.add(self)

    def data_received(self, data: bytes) -> None:
        if self._deaf:
            self._end(Do.RESET)
            return
        self._received += data
        self._begin()

    def eof_received(self) -> bool:
        self.connection.close("client")
        return False

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # asyncio names it
        self.connection.close("client")
        self._writable.set()
        if self._task is not None:
            self._task.cancel()
        self._server._players.discard(self)

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def abort(self) -> None:
        """The server stops."""
        self._end(Do.CLOSE)

    # --- a request and its script -----------------------------------------------------------------

    def _begin(self) -> None:
        if self._task is not None and not self._task.done():
            return  # the next one waits for the answer to the last
        taken = _take_request(self._received)
        if taken is None:
            return
        method, path, headers, body = taken
        request = Received(
            method=method, path=path, headers=headers, body=body, connection=self.connection, at=time.monotonic()
        )
        self.connection.requests += 1
        self._server.requests.append(request)
        self._task = asyncio.get_running_loop().create_task(self._play(self._server.steps_for(request)))
        self._server._playing.add(self._task)
        self._task.add_done_callback(self._server._playing.discard)

    async def _play(self, steps: Iterable[Step]) -> None:
        for step in steps:
            if isinstance(step, bytes):
                self._transport.write(step)
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
            else:
                self._end(step)
            if self.connection.closed_at is not None:
                return
        self._task = None
        self._begin()

    def _end(self, how: Do) -> None:
        self.connection.close("server")
        if how is Do.RESET:
            # Nothing lingers: the kernel sends a reset in the place of an orderly end.
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()
        self._transport.close()


def _take_request(received: bytearray) -> tuple[str, str, dict[str, str], bytes] | None:
    """The first request, taken out of what was received; None while it is not whole."""
    end = received.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = received[:end].decode("latin-1").split("\r\n")
    method, path, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    start = end + 4
    if "chunked" in headers.get("transfer-encoding", ""):
        taken = _dechunked(received, start)
    else:
        size = int(headers.get("content-length", "0"))
        taken = (bytes(received[start : start + size]), start + size) if len(received) >= start + size else None
    if taken is None:
        return None
    body, after = taken
    del received[:after]
    return method, path, headers, body


def _dechunked(received: bytearray, start: int) -> tuple[bytes, int] | None:
    """The body that begins at ``start`` and the place after it. Without trailers, which no client here sends."""
    parts = []
    while (line := received.find(b"\r\n", start)) >= 0:
        size = int(received[start:line].split(b";")[0], 16)
        start = line + 2
        if len(received) < start + size + 2:
            return None
        parts.append(bytes(received[start : start + size]))
        start += size + 2
        if not size:
            return b"".join(parts), start
    return None
