"""The line on standard error that is redrawn. Its first text comes before a command is imported.

Imports nothing that Python has not loaded: click alone takes longer than 100 ms.
"""

from __future__ import annotations

import os
import stat
import sys

TYPE_CHECKING = False  # `typing` takes 3 ms
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import TextIO

FIRST_TEXT = "starting"
"""Shown until the modules are imported."""

COMMANDS = frozenset(
    (
        "batch",
        "chat",
        "compact",
        "count",
        "doctor",
        "embed",
        "extract",
        "ingest",
        "load",
        "models",
        "ping",
        "pull",
        "serve",
        "status",
        "unload",
    )
)
"""The commands that wait for a server. Each erases the line before it prints."""

ERASE = "\r\x1b[J"


def can_redraw(stream: TextIO | None) -> bool:
    """Return whether a line on ``stream`` can be drawn over: it is a terminal that knows escape sequences."""
    if stream is None or not stream.isatty() or os.environ.get("TERM") in ("", "dumb", "unknown"):
        return False
    # The old console of Windows prints the sequences.
    return "WT_SESSION" in os.environ if sys.platform == "win32" else "TERM" in os.environ


def window_size(stream: TextIO) -> tuple[int, int]:
    """Return the columns and rows of the terminal; 80 and 24 if they are not known."""
    try:
        size = os.get_terminal_size(stream.fileno())
    except (OSError, ValueError):
        return 80, 24
    return size.columns or 80, size.lines or 24


def cut(text: str, columns: int) -> str:
    """Return the beginning of ``text`` that fits into ``columns``."""
    if text.isascii():
        return text[:columns]
    from unicodedata import combining, east_asian_width  # as below

    used = 0
    for index, character in enumerate(text):
        used += 0 if combining(character) else 1 + (east_asian_width(character) in "WF")
        if used > columns:
            return text[:index]
    return text


class LiveLine:
    """The line, whoever draws it.

    The cursor stays at its start. So if the window narrows and breaks the line into rows, erasing from the cursor to
    the end of the screen erases all of them.

    Attributes:
        is_drawn: Whether it is on the screen.
    """

    def __init__(self) -> None:
        self.is_drawn = False

    def show(self, text: str) -> None:
        """Draw ``text``, cut to the width of the window."""
        from ctxbackends._util.text import one_line  # help needs none of it

        columns, _ = window_size(sys.stderr)
        sys.stderr.write(f"\r{cut(one_line(text), columns - 1)}\x1b[J\r")
        sys.stderr.flush()
        self.is_drawn = True

    def erase(self) -> None:
        """Erase the line, if it is drawn."""
        if self.is_drawn:
            self.is_drawn = False
            sys.stderr.write(ERASE)
            sys.stderr.flush()

    def __enter__(self) -> LiveLine:  # noqa: PYI034  # typing takes longer to import than the rest
        return self

    def __exit__(self, *_: object) -> None:
        self.erase()


LINE = LiveLine()


def draw_first(arguments: Sequence[str]) -> None:
    """Draw the first text, if ``arguments`` call a command that waits for a server.

    It is not drawn if another program may use the terminal, whose output would be erased: one that writes into the pipe
    which the command reads.
    """
    words = [argument for argument in arguments if argument != "--debug"]
    name = next((word for word in words if word != "ai"), None)
    if name in COMMANDS and not any(map(_prevents, words)) and can_redraw(sys.stderr) and not _reads_pipe():
        LINE.show(FIRST_TEXT)


def _prevents(argument: str) -> bool:
    """Return whether the argument asks for help or for silence, or reads what is typed on the terminal."""
    if argument.startswith("--"):
        return argument in ("--help", "--quiet")
    # -q and -h may be joined with other short options.
    return argument == "-" or (argument.startswith("-") and ("q" in argument or "h" in argument))


def _reads_pipe() -> bool:
    try:
        mode = os.fstat(0).st_mode
    except OSError:  # standard input is closed
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)
