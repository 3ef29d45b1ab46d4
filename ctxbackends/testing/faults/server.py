"""An HTTP/1.1 server on raw sockets that answers each request as it is told to, faults included. Knows how to play a
script and to keep account of what came; what the scripts do is in the modules beside it.

Needs neither this SDK's client nor aiohttp: whatever talks HTTP to a model server can be tested against it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import ssl
import struct
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from anyio.from_thread import start_blocking_portal

from ctxbackends.testing.faults.answers import MODEL, PIECES, Answer, Fault, Script, dump, plain, whole
from ctxbackends.testing.faults.reading import BODY_MOST, NotARequest, RequestReader
from ctxbackends.testing.faults.scripts import Connection, Do, Received, Step

T = TypeVar("T")


class FaultServer:
    """A server on 127.0.0.1 that does to each request what it is told. Use it with ``async with``, on the event loop of
    the test, or with ``with``, in a thread of its own; the fixture ``fault_server`` is the latter.

    ``play(...)`` tells it what to do to the next requests, one fault for each; ``always(...)`` to all that no ``play``
    is left for. Both are for generations and embeddings (``POST``); what a client asks to look at the server (``GET``)
    is answered well, unless ``looks=True``. Where nothing was told, the answer is a whole one in the format of
    the route: ``pieces`` are the texts that it is made of, ``model`` the model that answers. With ``tls`` it speaks
    HTTPS.

    ``requests`` are those that came whole, in their order, and ``connections`` the TCP connections. What is no HTTP/1.1
    is answered with 400 and the like, and stands in neither ``requests`` nor the queue.

    It can be told and asked from any thread and any event loop. An ``asyncio.Event`` in a script belongs to the event
    loop of the server, and is set with ``call(event.set)``.
    """

    obeys_close = True
    """Whether a connection is closed after the answer to a request that asks for it."""

    def __init__(
        self, *, pieces: Sequence[str] = PIECES, model: str = MODEL, tls: ssl.SSLContext | None = None
    ) -> None:
        self.pieces = pieces
        self.model = model
        self._tls = tls
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
        self._away = False
        self._later: asyncio.TimerHandle | None = None
        self._listening: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = ExitStack()
        self._failures: list[Exception] = []

    @property
    def url(self) -> str:
        """What a client is given, without a path and without a ``/`` at its end."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """It is another after each start."""
        return self._port

    @property
    def generations(self) -> list[Received]:
        """The requests that were no looks: what a server would have worked for."""
        return [request for request in self.requests if request.method == "POST"]

    @property
    def open_connections(self) -> int:
        """How many connections neither side has closed."""
        return sum(connection.closed_at is None for connection in self.connections)

    async def idle(self) -> None:
        """Return when no connection is open."""
        if self._loop is None or self._loop is _running_loop():
            await self._idle()
        else:
            await asyncio.wrap_future(self._send_over(self._idle()))

    def wait_idle(self, timeout: float = 10.0) -> None:
        """Return when no connection is open, for tests that are not async. Raises TimeoutError."""
        if self._loop is None:
            return
        if self._loop is _running_loop():
            raise RuntimeError("this would block the event loop of the server: await idle()")
        waiting = self._send_over(self._idle())
        try:
            waiting.result(timeout)
        except TimeoutError:
            waiting.cancel()
            raise TimeoutError(f"{self.open_connections} connections are still open after {timeout:g} s") from None

    async def _idle(self) -> None:
        while still := [connection for connection in self.connections if connection.closed_at is None]:
            await still[0].closed()

    def call(self, function: Callable[[], T]) -> T:
        """Call ``function`` on the event loop of the server, and return what it returns."""
        if self._loop is None or self._loop is _running_loop() or not self._loop.is_running():
            return function()

        async def called() -> T:
            return function()

        return self._send_over(called()).result()

    def _send_over(self, what: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        assert self._loop is not None, "it was started"
        return asyncio.run_coroutine_threadsafe(what, self._loop)

    # --- what it is told --------------------------------------------------------------------------

    def play(self, *scripts: Script, looks: bool = False) -> None:
        """Do these to the next requests, one to each. ``looks``: also to those that only look at the server.

        ``faults.refuse`` is for no request: it begins at once, or when what was told before it was played.
        """
        self.call(lambda: self._told((script, looks) for script in scripts))

    def _told(self, scripts: Iterable[tuple[Script, bool]]) -> None:
        next_one = not self._queue
        self._queue.extend(scripts)
        if next_one:
            self._refuse()

    def always(self, script: Script, *, looks: bool = False) -> None:
        """Do this to every request that nothing else is left for."""
        if isinstance(script, Fault) and script.refuses:
            raise ValueError(f"{script.name} is for play(): a server that always refuses is one that was stopped")
        self._always = (script, looks)

    def forget(self) -> None:
        """Take back all that it was told and was not played yet."""
        self.call(self._forget)

    def _forget(self) -> None:
        self._queue.clear()
        self._always = None
        self._since = None

    def script_for(self, request: Received) -> Script:
        """What is done to this request."""
        work = request.method == "POST"
        while self._queue and (work or self._queue[0][1]):
            script = self._queue[0][0]
            if self._refuse():
                return _not_there
            seconds = script.seconds if isinstance(script, Fault) else 0.0
            if seconds:
                self._since = self._since if self._since is not None else time.monotonic()
                if time.monotonic() < self._since + seconds:
                    return script
            self._queue.popleft()
            self._since = None
            if not seconds:
                return script
        if self._always is not None and (work or self._always[1]):
            return self._always[0]
        return whole

    def steps_for(self, request: Received) -> Iterable[Step]:
        """The steps of what is done to it. A subclass may choose otherwise."""
        return self.script_for(request)(Answer(request, self.pieces, self.model))

    def _refuse(self) -> bool:
        """Where the next fault is that nothing listens: begin with it. While it lasts, the next one waits."""
        script = self._queue[0][0] if self._queue else None
        refuses = isinstance(script, Fault) and script.refuses
        if self._loop is None or self._away or not refuses:
            return False
        self._away = True
        self._queue.popleft()
        self._stop_listening()
        for player in list(self._players):
            player.leave()  # a process that is not there has no connections either
        self._later = self._loop.call_later(refuses, self._listen_again)
        return True

    def _played(self, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            self._playing.discard(task)
        if not self._playing:
            self._refuse()

    # --- listening --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Listen. The port is kept until ``stop``, also while nothing listens on it."""
        if self._loop is not None:
            raise RuntimeError("this server was started already")
        self._loop = asyncio.get_running_loop()
        # Bound twice: a socket that is bound and does not listen keeps the port, and the kernel refuses for it.
        self._socket = _bound(0)
        self._port = self._socket.getsockname()[1]
        await self._listen()

    async def _listen(self) -> None:
        assert self._loop is not None, "it was started"
        self._server = await self._loop.create_server(lambda: _Player(self), sock=_bound(self._port), ssl=self._tls)
        self._away = False
        self._refuse()

    def _listen_again(self) -> None:
        assert self._loop is not None, "it was started"
        self._away = False
        if self._refuse():
            return
        self._away = True  # until it does listen
        self._listening = self._loop.create_task(self._listen())

    @property
    def _listens(self) -> bool:
        return self._server is not None

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def stop(self) -> None:
        """Close everything. Raises what a script raised, if one did."""
        self._queue.clear()
        if self._later is not None:
            self._later.cancel()
        if self._listening is not None:
            await self._listening
            self._listening = None
        self._stop_listening()
        for player in list(self._players):
            player.abort()
        for player in list(self._players):
            await player.lost.wait()
        if self._playing:
            await asyncio.wait(self._playing)
        if self._socket is not None:
            self._socket.close()
        self._away = False
        self._loop = None
        failures, self._failures = self._failures, []
        if failures:
            raise ExceptionGroup("scripts of the fault server failed", failures)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    def __enter__(self) -> Self:
        with ExitStack() as thread:
            portal = thread.enter_context(start_blocking_portal("asyncio"))
            thread.enter_context(portal.wrap_async_context_manager(self))
            self._thread = thread.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.close()


def _not_there(_: Answer) -> Iterator[Step]:
    """What is done to a request that came when nothing was to listen."""
    yield Do.CLOSE


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


class _Player(asyncio.Protocol):
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
            linger = struct.pack("ii", 1, 0)
            self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            self._transport.abort()
        self._transport.close()
