"""`LocalServer`: start a llama.cpp server process on a loopback port, monitor it, and end it.

It uses ``Popen`` and a log file instead of asyncio's subprocess, since the process belongs to a registry, which
outlives event loops.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import functools
import json
import logging
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any, Unpack

import attrs

from ctxbackends._util.forks import Lock, reset_in_child
from ctxbackends._util.pickling import NotPicklable
from ctxbackends.errors import BackendError, ClosedError, ConfigError, LocalServerUnavailableError, ServerDiedError
from ctxbackends.local._gguf import check_model_file, read_header
from ctxbackends.local._memory import fit_context
from ctxbackends.local._models import has_wheel, install_command
from ctxbackends.local._options import ServerKeywords, ServerOptions
from ctxbackends.local._worker import KEY_VARIABLE

GRACE_SECONDS = 2.0
SUPERVISED_SECONDS = 1.0
RELAUNCH_AFTER_SECONDS = 1.0
LOG_TAIL_LINES = 8
LOG_TAIL_BYTES = 16 * 1024
_WORKER = Path(__file__).with_name("_worker.py")
_REAPED_WITHIN = 5.0
_FOR_WORKER = attrs.filters.exclude("api_key", "environment", "inherit_log")  # arguments are visible to every user
if sys.platform == "win32":
    _CREATION_FLAGS = subprocess.CREATE_NEW_PROCESS_GROUP  # as a separate session elsewhere
else:
    _CREATION_FLAGS = 0

_logger = logging.getLogger("ctxbackends")


class LocalServer(NotPicklable):
    """A llama.cpp server for one model file. It is started by :meth:`start`.

    Args:
        model_path: The GGUF file.
        options: The fields of :class:`~ctxbackends.local.ServerOptions`.

    Attributes:
        model_path: The GGUF file.
        alias: Name of the model in requests.
        api_key: API key that clients must send; None for none.
    """

    _not_picklable = "it has a process; create one where it is needed"

    def __init__(self, model_path: str | Path, **options: Unpack[ServerKeywords]) -> None:
        if not isinstance(model_path, str | os.PathLike):
            raise ConfigError(f"must be a path, not {type(model_path).__name__}", key="model_path")
        self._options = ServerOptions(**options)
        self.model_path: Path = Path(model_path)
        self.alias: str = self._options.alias or self.model_path.name.removesuffix(".gguf")
        self.api_key: str | None = self._options.api_key
        self._process: subprocess.Popen[bytes] | None = None
        self._log: IO[bytes] | None = None
        self._end: weakref.finalize[Any, Any] | None = None
        self._death_seen_at: float | None = None
        self._url = ""
        self._closed = False
        self._lock = Lock()  # event loops in several threads may start it at once
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """Leave the process to the parent process; the first request here starts another one."""
        if self._end is not None and (finalizer := self._end.detach()) is not None:
            _, _, (process, *resources), _ = finalizer
            process.returncode = 0  # not a child of this process, which thus cannot wait for it
            for resource in (process.stdin, *resources):
                if resource is not None:
                    resource.close()
        self._process = self._end = self._log = self._death_seen_at = None

    @property
    def description(self) -> str:
        """The name of the model file."""
        return self.model_path.name

    @property
    def pid(self) -> int | None:
        """The ID of the process; None if there is none."""
        process = self._process
        return process.pid if process is not None else None

    @property
    def running(self) -> bool:
        """Whether the process is running."""
        process = self._process
        return process is not None and process.poll() is None

    @property
    def shares_context(self) -> bool:
        """Whether its slots share one context: with embeddings, and by default in a ``llama-server`` program."""
        parallel, embeddings = self._options.parallel, self._options.embeddings
        if parallel is None:
            return not has_wheel()
        return embeddings and parallel > 1

    async def start(self) -> str:
        """Start the process unless it is running, and return its base URL; the model may still be loading.

        After the process has exited, calls within a second raise the same ServerDiedError, so that concurrent tasks
        fail together; a later call starts a new process.

        Raises:
            ConfigError: The model file or the port cannot be used.
            LocalServerUnavailableError: No llama.cpp server is installed.
            ServerDiedError: The process has exited.
            ClosedError: The server was closed.
        """
        with self._lock:
            if self._closed:
                raise ClosedError(f"local server is closed: {self.model_path}; create a new LocalServer")
            failure = self.failure()
            if failure is not None:
                if time.monotonic() - (self._death_seen_at or 0.0) < RELAUNCH_AFTER_SECONDS:
                    raise failure
                self._stop()
            if self._process is None:
                self._launch()
            return self._url

    def _launch(self) -> None:
        check_model_file(self.model_path, key="model_path")
        ctx_size, batch_size = self._context()
        program = self._program(ctx_size, batch_size)
        reservation, port = _reserve_port(self._options.host, self._options.port)
        try:
            # It has no name in the file system, so it disappears with this process.
            if not self._options.inherit_log:
                self._log = tempfile.TemporaryFile()  # noqa: SIM115  # lives with the server
            options = {
                **attrs.asdict(self._options, filter=_FOR_WORKER),
                "ctx_size": ctx_size,
                "model_path": str(self.model_path),
                "port": port,
                "alias": self.alias,
                "reuse_port": reservation is not None,
                "batch_size": batch_size,
                "program": [*program, "--port", str(port)] if program else None,
                "parent": os.getpid(),
            }
            environment = {**os.environ, **(self._options.environment or {})}
            if self.api_key is not None:
                environment[KEY_VARIABLE] = self.api_key
            command = [sys.executable, "-P", str(_WORKER), json.dumps(options)]
            self._process = _spawn(command, self._log, environment)
        except BaseException:
            for resource in (reservation, self._log):
                if resource is not None:
                    resource.close()
            self._log = None
            raise
        self._death_seen_at = None
        self._url = f"http://{self._options.host}:{port}"
        _logger.info("Started a llama.cpp server for %s at %s", self.model_path, self._url)
        self._end = weakref.finalize(self, _end_process, self._process, reservation, self._log)

    def _program(self, ctx_size: int | None, batch_size: int | None) -> list[str] | None:
        """Return the command of the llama-server on the PATH; None if the wheel is installed, which serves then."""
        if has_wheel():
            return None
        executable = shutil.which("llama-server")
        if executable is None:
            raise LocalServerUnavailableError(
                f"cannot serve {self.model_path}: no llama.cpp server is installed; run {install_command()}"
            )
        command = [executable, "--model", str(self.model_path), "--host", self._options.host, "--alias", self.alias]
        options = self._options
        for flag, value in (
            ("--ctx-size", ctx_size),
            ("--parallel", options.parallel),
            ("--threads", options.threads),
            ("--batch-size", batch_size),
            ("--ubatch-size", batch_size),
        ):
            if value:
                command += [flag, str(value)]
        # _worker.py has the reason for --kv-unified.
        return [*command, "--embeddings", "--kv-unified"] if options.embeddings else command

    def _context(self) -> tuple[int | None, int | None]:
        """Return the tokens of context, and those that llama.cpp processes at once; None for its defaults.

        By default, a batch has 512 tokens, and most models embed only texts that fit into one. The size is not raised
        for other servers: with SmolLM2 (8,192 tokens of context, 49,152 words) it takes 1.6 GB of address space, and
        of memory once such a text is embedded. Chat is as fast, and as large in memory, with both (measured, b11549).
        """
        ctx_size, embeddings = self._options.ctx_size, self._options.embeddings
        if ctx_size is None and not embeddings:
            return None, None
        header = read_header(self.model_path)
        if ctx_size is not None:
            parallel = self._options.parallel or (1 if has_wheel() else None)
            ctx_size = fit_context(ctx_size, header, parallel=parallel)
        return ctx_size, (ctx_size or header.context_length) if embeddings and header.embeds_in_one_batch else None

    def failure(self) -> BackendError | None:
        """Return the error if the process has exited; None while it runs or if it was not started."""
        process = self._process
        if process is None or (code := process.poll()) is None:
            return None
        if self._death_seen_at is None:
            self._death_seen_at = time.monotonic()
        outcome = f"was killed by signal {-code}" if code < 0 else f"exited with code {code}"
        tail = self.log_tail()
        log = "".join(f"\n  {line}" for line in tail)
        return ServerDiedError(
            f"the llama.cpp server {outcome} while serving {self.model_path}{':' if log else ''}{log}",
            exit_code=code,
            log_tail=tail,
        )

    def log_tail(self) -> tuple[str, ...]:
        """Return the last lines of its log; empty with ``inherit_log``."""
        with self._lock:
            if self._log is None:
                return ()
            size = os.fstat(self._log.fileno()).st_size
            start = max(0, size - LOG_TAIL_BYTES)
            # The position in the file is shared with the process that writes it.
            if sys.platform == "win32":
                self._log.seek(start)
                tail = self._log.read(LOG_TAIL_BYTES)
                self._log.seek(0, os.SEEK_END)
            else:
                tail = os.pread(self._log.fileno(), LOG_TAIL_BYTES, start)
        lines = tail.decode("utf-8", "replace").splitlines()
        return tuple(line.rstrip() for line in lines if line.strip())[-LOG_TAIL_LINES:]

    async def aclose(self) -> None:
        """End the process. It is killed after two seconds, or at once if this is cancelled."""
        with self._lock:
            self._closed = True
            process = self._process
        if process is None:
            return
        try:
            if process.poll() is None:
                _terminate(process)
                deadline = time.monotonic() + GRACE_SECONDS
                while process.poll() is None and time.monotonic() < deadline:
                    await asyncio.sleep(0.02)
        finally:
            self._stop()

    def _stop(self) -> None:
        with self._lock:
            if self._end is not None:
                self._end()
            self._process = self._end = self._log = None


def _reserve_port(host: str, port: int | None) -> tuple[socket.socket | None, int]:
    """Return a port and, where supported, a socket that reserves it until the server listens on it.

    Otherwise another program could take a free port before the child process does, and would get the probes. The
    socket is bound, does not listen, and shares the port with the child process.
    """
    if port is not None:
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError as error:
                problem = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used: {error.strerror}"
                raise ConfigError(f"port {port} on {host} {problem}; choose another with --port") from None
        return None, port
    reservation = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if sys.platform == "linux" and has_wheel():
        reservation.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        reservation.bind((host, 0))
        return reservation, int(reservation.getsockname()[1])
    with reservation:
        reservation.bind((host, 0))
        return None, int(reservation.getsockname()[1])


def _spawn(command: list[str], log: IO[bytes] | None, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
    """Start the process from a thread that lives as long as this process.

    Linux sends the parent-death signal when the *thread* that started a process ends, and an event loop may run in a
    thread that ends earlier.
    """
    return (
        _spawner(os.getpid())
        .submit(
            subprocess.Popen,
            command,
            stdin=subprocess.PIPE,  # its end tells the child that this process has ended, where the kernel does not
            stdout=log if log is not None else 2,  # standard output is for data
            stderr=log,
            env=environment,
            # Ctrl-C must not end the server before its clients have handled it.
            start_new_session=True,
            creationflags=_CREATION_FLAGS,
        )
        .result()
    )


@functools.cache
def _spawner(_process: int) -> ThreadPoolExecutor:
    """Return one thread per process: a fork does not copy threads."""
    return ThreadPoolExecutor(1, thread_name_prefix="ctxbackends-spawn")


def _terminate(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        _close_input(process)  # terminate() would kill the worker alone there, and leave its llama-server running
    else:
        process.terminate()


def _close_input(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None, "it was started with a pipe"
    process.stdin.close()


def _end_process(process: subprocess.Popen[bytes], *resources: socket.socket | IO[bytes] | None) -> None:
    """End the process and close its resources; also called at the interpreter's exit."""
    _close_input(process)
    if sys.platform != "linux":
        # A worker that supervises llama-server kills it now; one that is killed itself would leave it running.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(SUPERVISED_SECONDS)
    if process.poll() is None:
        process.kill()
    process.wait(_REAPED_WITHIN)
    for resource in resources:
        if resource is not None:
            resource.close()
