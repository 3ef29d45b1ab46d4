"""Find the Go tool ``ctx`` on the PATH, and run it."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO

import attrs
import click

from ctxbackends._cli.dispatch import find_next
from ctxbackends._util.text import one_line

_PROBE_TIMEOUT = 10.0
_GRACE = 5.0
"""Seconds that a running program gets to end after a Ctrl-C."""
_MAX_OUTPUT = 64 * 1024
_MAX_MESSAGE = 500
_JSON_OPTION = "--json-file"

if sys.platform == "win32":
    _FLAGS = subprocess.CREATE_NEW_PROCESS_GROUP
else:
    _FLAGS = 0


@attrs.frozen(kw_only=True)
class ProgramResult:
    """The end of a program.

    Attributes:
        code: The exit code, negative for a signal; None if it was killed because it did not end in time.
        message: Its output on standard error, or else on standard output, on one line.
        output: Its whole output, up to 64 KB of each stream.
        is_interrupted: Whether there was a Ctrl-C while it ran. It has not seen it.
    """

    code: int | None
    message: str
    output: str
    is_interrupted: bool


def find_go_tool(name: str | None = None) -> str:
    """Return the path of the Go tool: the program with this name or path, else the first one on the PATH.

    Launchers of this package, which have the same name, are recognised by their content or their ``--version``.

    Raises:
        ClickException: There is none that can add entries from a file.
    """
    if name is not None:
        path = shutil.which(name)
        if path is None:
            raise click.ClickException(f"no such program: {name}; --ctx names the Go tool ctx (https://ctx.ist)")
        problem = _find_problem(path)
        if problem is not None:
            raise click.ClickException(f"not usable: {path} {problem}; --ctx names the Go tool ctx (https://ctx.ist)")
        return os.path.abspath(path)
    problems: dict[str, str] = {}
    while (path := find_next(problems)) is not None:
        problem = _find_problem(path)
        if problem is None:
            return os.path.abspath(path)
        problems[os.path.realpath(path)] = f"{path} {problem}"
    reasons = f" ({'; '.join(problems.values())})" if problems else ""
    raise click.ClickException(
        f"the Go tool ctx is not on the PATH{reasons}; install it (https://ctx.ist), or name it with --ctx PATH"
    )


def _find_problem(path: str) -> str | None:
    try:
        answer = run_program([path, "--version"], timeout=_PROBE_TIMEOUT)
        if "ctxbackends" in answer.output:
            return "is the ctx of the Python package ctxbackends"
        if answer.code is not None and not answer.is_interrupted:
            answer = run_program([path, "decision", "add", "--help"], timeout=_PROBE_TIMEOUT)
    except click.ClickException as error:
        return f"does not work: {error.message}"
    if answer.is_interrupted:
        raise KeyboardInterrupt
    if answer.code is None:
        return f"did not end within {_PROBE_TIMEOUT:.0f} s"
    return None if _JSON_OPTION in answer.output else f"has no command decision add {_JSON_OPTION}"


def add_entry(program: str, kind: str, file: Path, *, context: Path, timeout: float) -> ProgramResult:
    """Run ``ctx <kind> add --json-file FILE`` in the project of a context directory."""
    return run_program(
        [program, kind, "add", _JSON_OPTION, str(file)],
        timeout=timeout,
        directory=context.parent,  # the newest Go tool reads .context of the working directory, older ones CTX_DIR
        variables={"CTX_DIR": str(context)},
    )


def run_program(
    command: Sequence[str],
    *,
    timeout: float,
    directory: Path | None = None,
    variables: Mapping[str, str] | None = None,
) -> ProgramResult:
    """Run a program without a shell and without input, and wait until it ends.

    It does not see a Ctrl-C, so that it can end what it does.

    Args:
        command: The program and its arguments.
        timeout: Seconds after which it is killed.
        directory: The working directory; that of this process by default.
        variables: Environment variables to add.

    Raises:
        ClickException: It cannot be started.
    """
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=directory,
            env={**os.environ, **(variables or {})},
            start_new_session=True,  # without effect on Windows
            creationflags=_FLAGS,
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise click.ClickException(f"cannot start {command[0]}: {reason}") from error
    streams = [_Stream(process.stdout), _Stream(process.stderr)]
    is_interrupted = False
    try:
        code, is_interrupted = _wait(process, timeout)
    finally:
        if process.poll() is None:
            _kill(process)
    output, errors = (stream.close() for stream in streams)
    message = one_line(errors.strip() or output.strip())
    message = message if len(message) <= _MAX_MESSAGE else f"{message[:_MAX_MESSAGE]}..."
    return ProgramResult(code=code, message=message, output=f"{output}\n{errors}", is_interrupted=is_interrupted)


def _wait(process: subprocess.Popen[bytes], timeout: float) -> tuple[int | None, bool]:
    """Return the exit code, None if it did not end, and whether there was a Ctrl-C; a second one ends the wait."""
    try:
        return process.wait(timeout), False
    except subprocess.TimeoutExpired:
        return None, False
    except KeyboardInterrupt:
        with suppress(subprocess.TimeoutExpired, KeyboardInterrupt):
            return process.wait(min(_GRACE, timeout)), True
        return None, True


def _kill(process: subprocess.Popen[bytes]) -> None:
    if sys.platform == "win32":
        process.kill()
    else:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # it leads its session, and may have started others
    with suppress(subprocess.TimeoutExpired):
        process.wait(_GRACE)


class _Stream:
    """Reads a stream of a program to its end in a thread, and keeps the beginning."""

    def __init__(self, stream: IO[bytes] | None) -> None:
        assert stream is not None
        self._stream = stream
        self._content = bytearray()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        while block := os.read(self._stream.fileno(), 65536):
            self._content += block[: _MAX_OUTPUT - len(self._content)]

    def close(self) -> str:
        self._thread.join(1.0)
        if not self._thread.is_alive():  # else another process has the stream open
            self._stream.close()
        return bytes(self._content).decode(errors="replace")
