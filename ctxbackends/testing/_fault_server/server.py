"""FaultServer: an HTTP/1.1 server on raw sockets that simulates server failures.

Plays a script for each request and records requests and connections; the scripts are in the modules next to it. Imports
neither the SDK's client nor aiohttp, so that any HTTP client can be tested against it.
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
from typing import Any, Self, TypeVar

from anyio.from_thread import start_blocking_portal

from ctxbackends._util.event_loops import running_loop
from ctxbackends.testing._fault_server.answers import MODEL, PIECES, Fault, ResponseBuilder, Script, respond
from ctxbackends.testing._fault_server.connection import ConnectionHandler
from ctxbackends.testing._fault_server.steps import Connection, Do, RecordedRequest, Step

T = TypeVar("T")


class FaultServer:
    """A server on 127.0.0.1 that simulates server failures.

    Use ``async with`` to run it on the event loop of the test, or ``with`` to run it in a thread; the fixture
    ``fault_server`` does the latter.

    ``play`` queues faults for the next requests, and ``play_always`` sets the fault for all requests that the queue has
    none for. Both apply to generations and embeddings (``POST``); probes (``GET``) get a correct response unless
    ``probes=True``. Without a fault, each request gets a correct response in the format of its route. A request that is
    not valid HTTP/1.1 gets status 400, 413, 431, 501 or 505; it is not recorded and takes no fault from the queue.

    All methods can be called from any thread and event loop. An ``asyncio.Event`` in a script belongs to the event loop
    of the server; set it with ``call(event.set)``.

    Attributes:
        pieces: The texts that a stream sends one by one.
        model: The model that the responses name.
        requests: The complete requests in the order of their arrival.
        connections: The TCP connections in the order in which they were accepted.
    """

    closes_on_request = True
    """Whether the server closes a connection if the request has ``Connection: close``. A subclass may turn it off."""

    def __init__(
        self, *, pieces: Sequence[str] = PIECES, model: str = MODEL, tls: ssl.SSLContext | None = None
    ) -> None:
        """Create the server without starting it.

        Args:
            pieces: The texts that a stream sends one by one. A response that is not streamed has them joined.
            model: The model that the responses name.
            tls: Serve HTTPS with this context.
        """
        self.pieces = pieces
        self.model = model
        self._tls = tls
        self.requests: list[RecordedRequest] = []
        self.connections: list[Connection] = []
        self._queue: deque[tuple[Script, bool]] = deque()
        self._default: tuple[Script, bool] | None = None
        self._duration_start: float | None = None
        self._server: asyncio.Server | None = None
        self._socket: socket.socket | None = None
        self._port = 0
        self._handlers: set[ConnectionHandler] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_down = False
        self._restart_timer: asyncio.TimerHandle | None = None
        self._restart_task: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread = ExitStack()
        self._failures: list[Exception] = []

    @property
    def url(self) -> str:
        """The base URL, without a path or a trailing slash."""
        return f"{'http' if self._tls is None else 'https'}://127.0.0.1:{self._port}"

    @property
    def port(self) -> int:
        """The TCP port. It changes with each start."""
        return self._port

    @property
    def generations(self) -> list[RecordedRequest]:
        """The recorded ``POST`` requests: generations and embeddings."""
        return [request for request in self.requests if request.method == "POST"]

    @property
    def open_connections(self) -> int:
        """The number of connections that neither side has closed."""
        return sum(connection.closed_at is None for connection in self.connections)

    async def wait_idle(self) -> None:
        """Wait until no connection is open."""
        if self._loop is None or self._loop is running_loop():
            await self._wait_idle()
        else:
            await asyncio.wrap_future(self._submit(self._wait_idle()))

    def wait_idle_sync(self, timeout: float = 10.0) -> None:
        """Wait until no connection is open, in a test that is not async.

        Args:
            timeout: Seconds to wait.

        Raises:
            TimeoutError: Connections are still open after ``timeout``.
            RuntimeError: Called on the event loop of the server, which it would block.
        """
        if self._loop is None:
            return
        if self._loop is running_loop():
            raise RuntimeError("wait_idle_sync() would block the event loop of the server; use await wait_idle()")
        future = self._submit(self._wait_idle())
        try:
            future.result(timeout)
        except TimeoutError:
            future.cancel()
            raise TimeoutError(f"{self.open_connections} connections are still open after {timeout:g} s") from None

    async def _wait_idle(self) -> None:
        while open_connections := [connection for connection in self.connections if connection.closed_at is None]:
            await open_connections[0].wait_closed()

    def call(self, function: Callable[[], T]) -> T:
        """Call a function on the event loop of the server, and return its result.

        Args:
            function: A function without arguments, such as ``event.set``.
        """
        if self._loop is None or self._loop is running_loop() or not self._loop.is_running():
            return function()

        async def run() -> T:
            return function()

        return self._submit(run()).result()

    def _submit(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        assert self._loop is not None, "the server was started"
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop)

    # --- the scripts ------------------------------------------------------------------------------

    def play(self, *scripts: Script, probes: bool = False) -> None:
        """Queue scripts for the next requests, one for each.

        ``faults.refuse`` is not for a request: it starts at once, or after the scripts that were queued before it.

        Args:
            *scripts: Faults, or functions from a :class:`~ctxbackends.testing.faults.ResponseBuilder` to steps.
            probes: Apply them to probes (``GET``) too.
        """
        self.call(lambda: self._enqueue((script, probes) for script in scripts))

    def _enqueue(self, scripts: Iterable[tuple[Script, bool]]) -> None:
        was_empty = not self._queue
        self._queue.extend(scripts)
        if was_empty:
            self._start_downtime()

    def play_always(self, script: Script, *, probes: bool = False) -> None:
        """Play a script for every request that the queue has none for.

        Args:
            script: A fault, or a function from a :class:`~ctxbackends.testing.faults.ResponseBuilder` to steps.
            probes: Apply it to probes (``GET``) too.

        Raises:
            ValueError: The script is ``faults.refuse``; use ``stop`` instead.
        """
        if isinstance(script, Fault) and script.downtime:
            raise ValueError(f"{script.name} cannot be played always; use play(), or stop() the server")
        self._default = (script, probes)

    def clear(self) -> None:
        """Remove all scripts that have not been played yet."""
        self.call(self._clear)

    def _clear(self) -> None:
        self._queue.clear()
        self._default = None
        self._duration_start = None

    def select_script(self, request: RecordedRequest) -> Script:
        """Return the script for a request, and remove it from the queue.

        Args:
            request: The request that arrived.
        """
        is_post = request.method == "POST"
        while self._queue and (is_post or self._queue[0][1]):
            script = self._queue[0][0]
            if self._start_downtime():
                return _close
            duration = script.duration if isinstance(script, Fault) else 0.0
            if duration:
                self._duration_start = self._duration_start if self._duration_start is not None else time.monotonic()
                if time.monotonic() < self._duration_start + duration:
                    return script
            self._queue.popleft()
            self._duration_start = None
            if not duration:
                return script
        if self._default is not None and (is_post or self._default[1]):
            return self._default[0]
        return respond

    def select_steps(self, request: RecordedRequest) -> Iterable[Step]:
        """Return the steps for a request. A subclass may override it.

        Args:
            request: The request that arrived.
        """
        return self.select_script(request)(ResponseBuilder(request, self.pieces, self.model))

    def _start_downtime(self) -> bool:
        """Stop listening if the next fault says so, and return whether it did. The faults after it wait."""
        script = self._queue[0][0] if self._queue else None
        downtime = script.downtime if isinstance(script, Fault) else 0.0
        if self._loop is None or self._is_down or not downtime:
            return False
        self._is_down = True
        self._queue.popleft()
        self._stop_listening()
        for handler in list(self._handlers):
            handler.close()  # a process that has exited has no connections
        self._restart_timer = self._loop.call_later(downtime, self._listen_again)
        return True

    def _on_task_done(self, task: asyncio.Task[None] | None) -> None:
        if task is not None:
            self._tasks.discard(task)
        if not self._tasks:
            self._start_downtime()

    # --- listening --------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start listening. The port stays reserved until ``stop``, even while nothing listens on it.

        Raises:
            RuntimeError: The server is running.
        """
        if self._loop is not None:
            raise RuntimeError("the fault server is already running; call stop() first")
        self._loop = asyncio.get_running_loop()
        # Bound twice: a bound socket that does not listen reserves the port, and the kernel refuses connections to it.
        self._socket = _bind(0)
        self._port = self._socket.getsockname()[1]
        await self._listen()

    async def _listen(self) -> None:
        assert self._loop is not None, "the server was started"
        self._server = await self._loop.create_server(
            lambda: ConnectionHandler(self), sock=_bind(self._port), ssl=self._tls
        )
        self._is_down = False
        self._start_downtime()

    def _listen_again(self) -> None:
        assert self._loop is not None, "the server was started"
        self._is_down = False
        if self._start_downtime():
            return
        self._is_down = True  # until it listens
        self._restart_task = self._loop.create_task(self._listen())

    @property
    def _is_listening(self) -> bool:
        return self._server is not None

    def _stop_listening(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None

    async def stop(self) -> None:
        """Close the server and all connections.

        Raises:
            ExceptionGroup: Scripts raised these errors.
        """
        self._queue.clear()
        if self._restart_timer is not None:
            self._restart_timer.cancel()
        if self._restart_task is not None:
            await self._restart_task
            self._restart_task = None
        self._stop_listening()
        for handler in list(self._handlers):
            handler.abort()
        for handler in list(self._handlers):
            await handler.lost_event.wait()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if self._socket is not None:
            self._socket.close()
        self._is_down = False
        self._loop = None
        failures, self._failures = self._failures, []
        if failures:
            raise ExceptionGroup("scripts of the fault server failed", failures)

    async def __aenter__(self) -> Self:
        """Start the server on this event loop."""
        await self.start()
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Stop the server; see :meth:`stop`."""
        await self.stop()

    def __enter__(self) -> Self:
        """Start the server in a thread."""
        with ExitStack() as thread:
            portal = thread.enter_context(start_blocking_portal("asyncio"))
            thread.enter_context(portal.wrap_async_context_manager(self))
            self._thread = thread.pop_all()
        return self

    def __exit__(self, kind: object, value: BaseException | None, trace: object) -> None:
        """Stop the server and its thread; see :meth:`stop`."""
        self._thread.close()


def _close(_: ResponseBuilder) -> Iterator[Step]:
    """Close the connection of a request that arrived during a downtime."""
    yield Do.CLOSE


def _bind(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if sys.platform != "win32":  # on Windows, SO_REUSEADDR alone lets two sockets share a port
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", port))
    return listener
