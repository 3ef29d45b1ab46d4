"""The engine of local processes. Each worker is a Python process that gets its blocks through a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import queue
import signal
import struct
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import IO, Any, Generic, TypeAlias

from ctxbackends._engines.contract import EngineError, Item, Result, WorkerDiedError, WorkerSpec
from ctxbackends._engines.hosting import WorkerHost, decode, decode_outcome, encode, encode_spec, end_process

GRACE_SECONDS = 5.0
"""For the worker to close. It is killed then."""

_OPEN, _ANSWER, _CLOSE, _NOTE = range(4)
_HEADER = struct.Struct(">BQQ")
"""Of a message: its kind, the number of its call, and the length of its data. A worker sends outcomes and notes."""

_Receive: TypeAlias = Callable[[int, int, bytes], None]

# Like multiprocessing's `spawn`, but without the main module of the program, which need not guard against its import.
_START = "import sys; sys.path[:] = sys.argv[1:]; from ctxbackends._engines.processes import run_worker; run_worker()"


class ProcessEngine:
    """Runs workers as processes of this machine. A worker ends when the process that started it has ended."""

    def __init__(self) -> None:
        self._workers: set[ProcessWorker[Any, Any]] = set()

    async def open(self, workers: int) -> None:
        """Check the number of workers."""
        if workers < 1:
            raise EngineError(f"invalid number of workers: {workers}; use at least 1")

    async def start(
        self, spec: WorkerSpec[Item, Result], name: str, on_note: Callable[[Any], None]
    ) -> ProcessWorker[Item, Result]:
        """Start a process, and open its worker."""
        worker = ProcessWorker[Item, Result](name, on_note)
        self._workers.add(worker)
        await worker.open(encode_spec(spec))
        return worker

    async def aclose(self) -> None:
        """Kill the workers that are left."""
        for worker in self._workers:
            await worker.kill()
        self._workers.clear()


class ProcessWorker(Generic[Item, Result]):
    """A worker process. See :class:`~ctxbackends._engines.contract.EngineWorker`."""

    host = ""

    def __init__(self, name: str, on_note: Callable[[Any], None]) -> None:
        # In a separate process group: Ctrl-C ends the driver, which closes its workers.
        options: dict[str, Any] = {"start_new_session": True}
        if sys.platform == "win32":
            options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _START, *sys.path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, **options
        )
        assert self._process.stdin is not None
        self.pid = self._process.pid
        self._name = name
        self._on_note = on_note
        self._loop = asyncio.get_running_loop()
        self._writer = _Writer(self._process.stdin, lambda: None)  # the thread that reads notices the end
        self._numbers = itertools.count()
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._death: WorkerDiedError | None = None
        self._ended = asyncio.Event()
        threading.Thread(target=self._read, daemon=True).start()

    async def open(self, spec: bytes) -> None:
        """Open the worker; without success, its process ends."""
        try:
            self.host = await self._call(_OPEN, spec)
        except BaseException:
            await self.kill()
            raise

    async def answer(self, items: Sequence[Item], /) -> Sequence[Result]:
        """Return the results of a block."""
        results: Sequence[Result] = await self._call(_ANSWER, encode(items))
        return results

    def send(self, note: Any, /) -> None:
        """Send a note to the worker."""
        self._writer.send(_NOTE, 0, encode(note))

    async def aclose(self) -> None:
        """Close the worker, and end its process."""
        try:
            self._writer.send(_CLOSE, 0, b"")
            async with asyncio.timeout(GRACE_SECONDS):
                await self._ended.wait()
        except TimeoutError:
            pass
        finally:
            await self.kill()

    async def kill(self) -> None:
        """End the process at once."""
        self._process.kill()
        await self._ended.wait()

    async def _call(self, kind: int, data: bytes) -> Any:
        if self._death is not None:
            raise self._death
        number = next(self._numbers)
        call = self._calls[number] = self._loop.create_future()
        try:
            self._writer.send(kind, number, data)
            return decode_outcome(await call)
        finally:
            del self._calls[number]

    def _read(self) -> None:
        """Receive outcomes in a thread, until the process ends."""
        process = self._process
        assert process.stdout is not None
        with process.stdout as pipe:
            _read_messages(pipe, lambda *message: self._call_in_loop(self._receive, *message))
        try:
            status = process.wait(GRACE_SECONDS)
        except subprocess.TimeoutExpired:  # it closed its end of the pipe, so it is of no use
            process.kill()
            status = process.wait()
        self._writer.close()
        self._call_in_loop(self._end, status)

    def _call_in_loop(self, function: Callable[..., None], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(function, *arguments)

    def _receive(self, kind: int, number: int, outcome: bytes) -> None:
        if kind == _NOTE:
            self._on_note(decode(outcome))
            return
        call = self._calls.get(number)
        if call is not None and not call.done():
            call.set_result(outcome)

    def _end(self, status: int) -> None:
        self._death = WorkerDiedError(f"{self._name} ended: {_describe(status)}")
        self._ended.set()
        for call in self._calls.values():
            if not call.done():
                call.set_exception(self._death)


def _describe(status: int) -> str:
    if status < 0:
        with contextlib.suppress(ValueError):
            return f"killed by {signal.Signals(-status).name}"
    return f"exit status {status}"


# --- in the process of the worker -----------------------------------------------------------------


def run_worker() -> None:
    """Answer the messages of standard input on standard output, until the driver closes them."""
    requests, responses = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.dup2(2, 1)  # what the worker prints must not get between the messages
    asyncio.run(_serve(requests, responses))


async def _serve(requests: IO[bytes], responses: IO[bytes]) -> None:
    loop = asyncio.get_running_loop()
    messages: asyncio.Queue[tuple[int, int, bytes]] = asyncio.Queue()
    writer = _Writer(responses, end_process)
    host = WorkerHost(partial(writer.send, _NOTE, 0))
    host.forward_warnings()
    calls: set[asyncio.Task[None]] = set()

    def receive(*message: Any) -> None:
        loop.call_soon_threadsafe(messages.put_nowait, message)

    def read() -> None:
        # In a thread, which notices the end of the driver while the event loop is busy.
        _read_messages(requests, receive)
        end_process()

    async def call(method: Callable[[bytes], Awaitable[bytes]], number: int, data: bytes) -> None:
        writer.send(_ANSWER, number, await method(data))

    threading.Thread(target=read, daemon=True).start()
    methods = {_OPEN: host.open, _ANSWER: host.answer}
    while (message := await messages.get())[0] != _CLOSE:
        kind, number, data = message
        if kind == _NOTE:
            host.receive(data)
            continue
        task = loop.create_task(call(methods[kind], number, data))
        calls.add(task)
        task.add_done_callback(calls.discard)
    await host.aclose()


# --- the pipes of both ----------------------------------------------------------------------------


class _Writer:
    """Writes messages to a pipe in a thread, since the other end may be busy.

    Args:
        pipe: The pipe. It is closed at the end.
        handle_error: Called in the thread if the other end is closed.
    """

    def __init__(self, pipe: IO[bytes], handle_error: Callable[[], object]) -> None:
        self._pipe = pipe
        self._handle_error = handle_error
        self._messages: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        threading.Thread(target=self._write, daemon=True).start()

    def send(self, kind: int, number: int, data: bytes) -> None:
        """Write a message, later."""
        self._messages.put(_HEADER.pack(kind, number, len(data)) + data)

    def close(self) -> None:
        """Write what was sent, and close the pipe."""
        self._messages.put(None)

    def _write(self) -> None:
        try:
            with self._pipe:
                while (message := self._messages.get()) is not None:
                    self._pipe.write(message)
                    if self._messages.empty():
                        self._pipe.flush()
        except OSError:
            self._handle_error()


def _read_messages(pipe: IO[bytes], receive: _Receive) -> None:
    """Read messages until the other end is closed."""
    with contextlib.suppress(OSError):
        while len(header := pipe.read(_HEADER.size)) == _HEADER.size:
            kind, number, length = _HEADER.unpack(header)
            data = pipe.read(length)
            if len(data) < length:
                return
            receive(kind, number, data)
