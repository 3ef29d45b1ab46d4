"""Ask before a tool runs."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from typing import TYPE_CHECKING

from ctxbackends._util.text import escape_controls

if TYPE_CHECKING:
    from ctxbackends._tool_loop import ToolRequest

_POLL_SECONDS = 0.1
_TERMINAL = "CONIN$" if sys.platform == "win32" else "/dev/tty"
_ANSWERS = {"y": "yes", "yes": "yes", "n": "no", "no": "no", "a": "always", "always": "always"}


def can_ask() -> bool:
    """Return whether somebody at a terminal can be asked; also if standard input is a pipe."""
    if not any(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stderr)):
        return False
    try:
        os.close(os.open(_TERMINAL, os.O_RDWR))
    except OSError:
        return False
    return True


class ToolAnswers:
    """The answers to the questions about calls; ``always`` approves all further calls of that tool."""

    CHOICES = "[y]es, [n]o, [a]lways: "

    def __init__(self) -> None:
        self._always: set[str] = set()

    def always_approve(self, tool: str) -> bool:
        """Return whether a tool needs no question any more."""
        return tool in self._always

    def parse(self, tool: str, line: str) -> bool | None:
        """Return whether the call may run, None if the line is not an answer."""
        answer = _ANSWERS.get(line.strip().lower())
        if answer == "always":
            self._always.add(tool)
        return None if answer is None else answer != "no"


class TerminalApproval:
    """Asks on the terminal before each call."""

    def __init__(self) -> None:
        self._answers = ToolAnswers()

    async def __call__(self, request: ToolRequest) -> bool:
        """Return whether the call may run."""
        call = request.call
        if self._answers.always_approve(call.name):
            return True
        question = f"run {call.name}({escape_controls(call.arguments.strip())})? {ToolAnswers.CHOICES}"
        while line := await _ask(question):
            may_run = self._answers.parse(call.name, line)
            if may_run is not None:
                return may_run
        return False  # the end of the input


async def _ask(question: str) -> str:
    """Return the line that is typed at the terminal, empty at the end of the input."""
    loop = asyncio.get_running_loop()
    line: asyncio.Future[str] = loop.create_future()
    is_over = threading.Event()

    def set_line(text: str) -> None:
        if not line.done():
            line.set_result(text)

    def set_error(error: OSError) -> None:
        if not line.done():
            line.set_exception(error)

    def read() -> None:
        # In a thread, so that the event loop runs on: a Ctrl-C ends the question, and the connection stays alive.
        try:
            terminal = os.open(_TERMINAL, os.O_RDWR)
            try:
                _discard_typed(terminal)
                _write(question)
                while not is_over.is_set():
                    if _has_line(terminal):
                        loop.call_soon_threadsafe(set_line, os.read(terminal, 4096).decode(errors="replace"))
                        return
            finally:
                os.close(terminal)
        except OSError as error:
            loop.call_soon_threadsafe(set_error, error)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    try:
        return await line
    finally:
        is_over.set()
        thread.join()


def _write(question: str) -> None:
    with open("CONOUT$" if sys.platform == "win32" else _TERMINAL, "w", encoding="utf-8", errors="replace") as terminal:
        terminal.write(question)


if sys.platform == "win32":
    import msvcrt
    import time

    def _discard_typed(_: int) -> None:
        while msvcrt.kbhit():
            msvcrt.getwch()

    def _has_line(_: int) -> bool:
        time.sleep(_POLL_SECONDS)
        return msvcrt.kbhit()

else:
    import select
    import termios

    def _discard_typed(terminal: int) -> None:
        """Discard lines that were typed before the question: they do not answer it."""
        termios.tcflush(terminal, termios.TCIFLUSH)

    def _has_line(terminal: int) -> bool:
        return bool(select.select([terminal], [], [], _POLL_SECONDS)[0])
