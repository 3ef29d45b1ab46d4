"""A child process that answers each line of JSON with one: the stub, the workers, the servers that start."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

ROOT = Path(__file__).resolve().parents[2]


class ChildError(Exception):
    """The process ended, did not answer in time, or reported an error."""


def command(python: str | Path, module: str, *arguments: str) -> list[str]:
    """``module.main()`` in another interpreter. The checkout is searched last, so that what is installed there is what
    is imported."""
    start = f"import sys; sys.path.append({str(ROOT)!r}); from {module} import main; main(*sys.argv[1:])"
    return [str(python), "-c", start, *arguments]


def child_environment() -> dict[str, str]:
    """The environment variables of a child: without those that would change what it imports or where it connects."""
    environment = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    environment.pop("PYTHONPATH", None)
    environment.pop("VIRTUAL_ENV", None)
    return {**environment, "PYTHONSAFEPATH": "1"}


class Child:
    """One process. Leaving the block ends it."""

    def __init__(self, arguments: Sequence[str], *, within: float = 60.0) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115  # closed with the process
        self._process = subprocess.Popen(
            arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,
            cwd=ROOT,
            env=child_environment(),
        )
        self._data = b""
        self.hello: dict[str, Any] = {}
        try:
            self.hello = self._line(within)
        except BaseException:
            self.close()
            raise

    def request(self, within: float = 60.0, **members: Any) -> dict[str, Any]:
        """Send a line and return its answer."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(json.dumps(members).encode() + b"\n")
        except BrokenPipeError:
            raise ChildError(self._last_words()) from None
        answer = self._line(within)
        if "error" in answer and len(answer) == 1:
            raise ChildError(answer["error"])
        return answer

    def _line(self, within: float) -> dict[str, Any]:
        """Return its next line of JSON; other output of a client is skipped."""
        assert self._process.stdout is not None
        until = time.monotonic() + within
        while True:
            line, separator, rest = self._data.partition(b"\n")
            if separator:
                self._data = rest
                if line.startswith(b"{"):
                    answer: dict[str, Any] = json.loads(line)
                    return answer
                continue
            if not select.select([self._process.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
                raise ChildError(f"no answer in {within:.0f} s")
            data = self._process.stdout.read(65536)
            if not data:
                raise ChildError(self._last_words())
            self._data += data

    def _last_words(self) -> str:
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines()
        return lines[-1][:500] if lines else f"it ended with {self._process.wait()}"

    def close(self) -> None:
        """Close its standard input, which ends it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()
        self._errors.close()

    def kill(self) -> None:
        self._process.kill()
        self.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
