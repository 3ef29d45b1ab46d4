"""Pseudo-terminals for tests: a program at one, and the screen that its output leaves."""

from __future__ import annotations

import codecs
import os
import re
import select
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from unicodedata import east_asian_width

import ctxbackends

with suppress(ImportError):  # not on Windows
    import fcntl
    import pty
    import termios

WITHIN = 30.0
_CODE = re.compile(r"\x1b\[(\??[0-9;]*)([A-Za-z])|([\r\n])|([^\x1b\r\n]+)")

# In the new session: take the terminal, so that its Ctrl-C reaches the program, and become the program.
_START = """
import fcntl, os, signal, sys, termios
signal.signal(signal.SIGINT, signal.SIG_DFL)
for stream in (0, 1, 2):
    if os.isatty(stream):
        fcntl.ioctl(stream, termios.TIOCSCTTY, 0)
        break
os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
"""


class Screen:
    """The lines that a terminal shows. Knows the sequences that the display uses, and refuses all others.

    A line that is longer than the window continues on the next row. If the window narrows or widens, it is broken
    again, and the cursor stays on its character, as tmux and most terminals do it.
    """

    def __init__(self, columns: int, rows: int = 24) -> None:
        self.columns = columns
        self.rows = rows
        self._grid: list[list[str]] = [[]]
        self._continues: list[bool] = [False]  # whether a row continues on the next one
        self._row = self._column = 0

    def feed(self, text: str) -> None:
        position = 0
        while position < len(text):
            match = _CODE.match(text, position)
            assert match is not None, f"unknown sequence: {text[position : position + 20]!r}"
            position = match.end()
            argument, code, control, plain = match.groups()
            if plain:
                for character in plain:
                    self._put(character)
            elif control == "\r":
                self._column = 0
            elif control == "\n":
                self._move_down(continues=False)
            else:
                self._do(code, argument)

    def _put(self, character: str) -> None:
        width = 2 if east_asian_width(character) in "WF" else 1
        if self._column + width > self.columns:
            self._move_down(continues=True)
            self._column = 0
        row = self._grid[self._row]
        row += [" "] * (self._column - len(row))
        row[self._column : self._column + width] = [character, *[""] * (width - 1)]
        self._column += width

    def _move_down(self, *, continues: bool) -> None:
        self._continues[self._row] = continues
        self._row += 1
        if self._row == len(self._grid):
            self._grid.append([])
            self._continues.append(False)

    def _do(self, code: str, argument: str) -> None:
        if code == "K" and argument in ("", "0"):
            del self._grid[self._row][self._column :]
        elif code == "J" and argument in ("", "0"):
            del self._grid[self._row][self._column :]
            del self._grid[self._row + 1 :], self._continues[self._row + 1 :]
            self._continues[self._row] = False
        elif code == "A":
            self._row = max(self._row - int(argument or 1), len(self._grid) - self.rows, 0)
        else:
            assert code == "m" or (argument, code) in (("?25", "l"), ("?25", "h")), f"unknown code: {argument}{code}"

    def resize(self, columns: int) -> None:
        lines: list[list[str]] = []
        cursor = (0, 0)
        is_new = True
        for index, row in enumerate(self._grid):
            if is_new:
                lines.append([])
            if index == self._row:
                cursor = (len(lines) - 1, len(lines[-1]) + self._column)
            lines[-1] += row
            is_new = not self._continues[index]
        self.columns = columns
        self._grid, self._continues = [], []
        for number, line in enumerate(lines):
            begin = len(self._grid)
            pieces = [line[at : at + columns] for at in range(0, len(line), columns)] or [[]]
            self._grid += pieces
            self._continues += [True] * (len(pieces) - 1) + [False]
            if number == cursor[0]:
                self._row, self._column = begin + min(cursor[1] // columns, len(pieces) - 1), cursor[1] % columns

    @property
    def lines(self) -> list[str]:
        """All rows, also those that have left the window, without the empty ones at the end."""
        lines = ["".join(row).rstrip() for row in self._grid]
        while lines and not lines[-1]:
            lines.pop()
        return lines


def environment(**variables: str) -> dict[str, str]:
    """For a process that imports the same package as this one, and knows its terminal."""
    unset = ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE", "COLUMNS", "LINES")
    inherited = {name: value for name, value in os.environ.items() if name not in unset}
    package = str(Path(ctxbackends.__file__).parent.parent)
    return {**inherited, "PYTHONPATH": package, "TERM": "xterm-256color", **variables}


class PseudoTerminal:
    """A program at a pseudo-terminal. ``raw``: all that it wrote there."""

    process: subprocess.Popen[bytes]
    within = WITHIN
    _master: int

    def __init__(self) -> None:
        self.raw = ""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    @staticmethod
    def _set_size(terminal: int, columns: int, rows: int = 24) -> None:
        if sys.platform == "win32":
            raise NotImplementedError
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read(self) -> bool:
        """Wait a moment for more; whether there can be more."""
        if not select.select([self._master], [], [], 0.05)[0]:
            return True
        try:
            data = os.read(self._master, 65536)
        except OSError:  # EIO: the last process that had it has gone
            return False
        self._keep(data)
        return bool(data)

    def _keep(self, data: bytes) -> None:
        self.raw += self._decoder.decode(data)

    def end(self) -> int:
        """Read to the end; the exit code."""
        deadline = time.monotonic() + self.within
        while self.read():
            assert time.monotonic() < deadline, f"it does not end: {self.raw}"
        return self.process.wait(self.within)

    def interrupt(self) -> int:
        """Type Ctrl-C, and again when nothing happens, as a person does; the exit code.

        CPython's input() misses a signal between its prompt and its read, in about 1 % of the runs on a busy machine.
        """
        deadline, again = time.monotonic() + self.within, 0.0
        while True:
            if time.monotonic() >= again:
                os.write(self._master, b"\x03")
                again = time.monotonic() + 2
            if not self.read():
                return self.process.wait(self.within)
            assert time.monotonic() < deadline, f"it does not end: {self.raw}"

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self._master)


class Terminal(PseudoTerminal):
    """A pseudo-terminal of the tests of the command line."""

    def __init__(
        self,
        *arguments: str,
        columns: int = 80,
        stdin: Path | None = None,
        stdout: Path | None = None,
        stderr: Path | None = None,
        program: Sequence[str] = ("-m", "ctxbackends"),
        **variables: str,
    ) -> None:
        if sys.platform == "win32":
            raise NotImplementedError
        super().__init__()
        self._master, slave = pty.openpty()
        self._set_size(slave, columns)
        # Nobody here answers the question for the cursor's position.
        known = environment(**variables, PROMPT_TOOLKIT_NO_CPR="1")
        source = slave if stdin is None else os.open(stdin, os.O_RDONLY)
        with _opened(stdout, slave) as out, _opened(stderr, slave) as err:
            self.process = subprocess.Popen(
                [sys.executable, "-c", _START, *program, *arguments],
                env=known,
                stdin=source,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
        for file in {source, slave}:
            os.close(file)

    def resize(self, columns: int) -> None:
        self._set_size(self._master, columns)

    def read_until(self, text: str | Callable[[str], object], *, after: int = 0) -> int:
        """Wait for ``text`` in what it writes after the position ``after``; return the position behind the text."""
        deadline = time.monotonic() + self.within
        while True:
            if isinstance(text, str):
                if (at := self.raw.find(text, after)) >= 0:
                    return at + len(text)
            elif text(self.raw[after:]):
                return len(self.raw)
            assert self.read(), f"it ended too soon: {self.raw}"
            assert time.monotonic() < deadline, f"{text!r} did not come: {self.raw!r}"

    def type(self, text: str) -> int:
        """Type ``text``, and return the position in ``raw``."""
        at = len(self.raw)
        os.write(self._master, text.encode("utf-8", "surrogateescape"))
        return at

    def echoes(self) -> bool:
        """Whether the terminal shows what is typed."""
        if sys.platform == "win32":
            raise NotImplementedError
        return bool(termios.tcgetattr(self._master)[3] & termios.ECHO)


@contextmanager
def _opened(path: Path | None, default: int) -> Iterator[int]:
    if path is None:
        yield default
        return
    with path.open("wb") as file:
        yield file.fileno()


@contextmanager
def terminal(*arguments: str, **options: str | int | Path | Sequence[str]) -> Iterator[Terminal]:
    at = Terminal(*arguments, **options)  # type: ignore[arg-type]  # the keywords of Terminal
    try:
        yield at
    finally:
        with suppress(OSError):
            at.close()
