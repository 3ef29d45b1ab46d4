"""An HTTP/1.1 server on raw sockets that answers each request as it is told to, faults included. Knows how to play a
script and to keep account of what came; what the scripts do is in the modules beside it.

Needs neither this SDK's client nor aiohttp: whatever talks HTTP to a model server can be tested against it.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import socket
import ssl
import sys
import time
from collections import deque
from collections.abc import Callable, Coroutine, Iterable, Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType
from typing import Any, Self, TypeVar

from anyio.from_thread import start_blocking_portal

from ctxbackends.testing.faults.answers import MODEL, PIECES, Answer, Fault, Script, whole
from ctxbackends.testing.faults.playing import Player
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
        self._players: set[Player] = set()
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
        self._server = await self._loop.create_server(lambda: Player(self), sock=_bound(self._port), ssl=self._tls)
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
    if sys.platform != "win32":  # where SO_REUSEADDR alone lets two sockets have one port
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    made.bind(("127.0.0.1", port))
    return made
