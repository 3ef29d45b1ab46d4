"""Terminal output of the commands: the live status line, tables and JSON.

Only data goes to standard output, everything else to standard error.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ctxbackends._cli.live_line import LINE, can_redraw, window_size
from ctxbackends._util.text import escape_controls

if TYPE_CHECKING:
    from ctxbackends._chat.events import Loading, PromptProgress

PLAIN_INTERVAL = 5.0
"""Seconds between two lines about the same state, without a terminal."""

ADVISED_AFTER = 3.0
"""Seconds of refused connections after which the user is told how to stop waiting."""

SHOWN_AFTER = 0.5
"""Seconds of prompt processing after which it is shown."""


class StopAdvice:
    """The line that says how to stop a wait: once, if the server has refused connections for some seconds."""

    def __init__(self) -> None:
        self._is_given = False

    def find(self, loading: Loading) -> str | None:
        """Return the line, None if it is not the time for it."""
        is_address = "://" in loading.endpoint  # not a model file, whose server the command starts itself
        if self._is_given or loading.state != "refused" or loading.elapsed < ADVISED_AFTER or not is_address:
            return None
        self._is_given = True
        return f"nothing listens at {loading.endpoint} yet; press Ctrl-C to stop waiting, or use --no-wait"


class PlainInterval:
    """Tells when a plain line about a wait is due: at once in a new state, then every ``PLAIN_INTERVAL`` seconds."""

    def __init__(self) -> None:
        self._last: tuple[str, float] | None = None

    def is_due(self, state: str = "") -> bool:
        """Return whether a line is due, which begins the next interval."""
        now = time.monotonic()
        if self._last is not None and self._last[0] == state and now - self._last[1] < PLAIN_INTERVAL:
            return False
        self._last = (state, now)
        return True


class Waiting:
    """Shows the state of a wait: one live line on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._line = LINE if can_redraw(sys.stderr) else None
        self._interval = PlainInterval()
        self._advice = StopAdvice()

    @property
    def is_live(self) -> bool:
        """Whether there is a live line."""
        return self._line is not None

    def __call__(self, loading: Loading) -> None:
        advice = self._advice.find(loading)
        if advice is not None:
            self.stop()
            say(advice)
        if self._line is not None:
            self._line.show(str(loading))
        elif self._interval.is_due(loading.state):
            click.echo(str(loading), err=True)

    def reading(self, progress: PromptProgress) -> None:
        """Show the progress of prompt processing, on a terminal and if it is slow."""
        slow = (progress.seconds or 0.0) >= SHOWN_AFTER
        if slow and progress.processed < progress.total:
            self.show(str(progress))

    def show(self, text: str) -> None:
        """Show ``text`` on the live line, if there is one."""
        if self._line is not None:
            self._line.show(text)

    def stop(self) -> None:
        """Erase the live line."""
        if self._line is not None:
            self._line.erase()


@contextmanager
def waiting() -> Iterator[Waiting]:
    """Yield the status line and remove it at the end."""
    line = Waiting()
    try:
        yield line
    finally:
        line.stop()


def print_table(rows: Sequence[Mapping[str, str]]) -> None:
    """Print rows with a header; empty columns are omitted. Lines are not truncated.

    In a window that is too narrow for it, each row is a block with a line for each of its cells.
    """
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in columns}
    lines = [
        "  ".join(f"{row[name]:{widths[name]}}" for name in columns).rstrip()
        for row in ({name: name for name in columns}, *rows)
    ]
    if sys.stdout.isatty() and max(map(len, lines)) > window_size(sys.stdout)[0]:
        lines = _build_blocks(rows, columns, window_size(sys.stdout)[0])
    for line in lines:
        click.echo(printable(line))


def _build_blocks(rows: Sequence[Mapping[str, str]], columns: Sequence[str], window: int) -> list[str]:
    import textwrap  # needed only in a narrow window

    indent = 2 + max(map(len, columns))
    lines: list[str] = []
    for row in rows:
        lines += [""] if lines else []
        for name in columns:
            lines += textwrap.wrap(
                row[name],
                max(window, indent + 1),
                initial_indent=f"{name:{indent}}",
                subsequent_indent=" " * indent,
                break_long_words=False,  # the terminal breaks a URL, which can then be copied
                break_on_hyphens=False,
            )
    return lines


def print_json(value: Any) -> None:
    """Print ``value`` as JSON on one line."""
    click.echo(json.dumps(value, ensure_ascii=False))


def printable(text: str, *, err: bool = False) -> str:
    """Return ``text`` with control characters escaped if stdout (``err``: stderr) is a terminal."""
    return escape_controls(text) if (sys.stderr if err else sys.stdout).isatty() else text


def say(text: str) -> None:
    """Print a line on standard error, with control characters escaped if it is a terminal."""
    click.echo(printable(text, err=True), err=True)


def wrap(text: str, *, err: bool = False) -> str:
    """Return ``text`` with its lines broken between words if stdout (``err``: stderr) is a terminal.

    A URL or path that is longer than a line is left to the terminal, so that it can be copied.
    """
    stream = sys.stderr if err else sys.stdout
    if stream is None or not stream.isatty():
        return text
    import textwrap  # needed only on a terminal

    return "\n".join(
        textwrap.fill(
            line,
            window_size(stream)[0],
            subsequent_indent=line[: len(line) - len(line.lstrip(" "))],
            break_long_words=False,
            break_on_hyphens=False,
        )
        for line in text.split("\n")
    )


def utf8(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """Return the text of an option. Raises BadParameter if its bytes are not UTF-8."""
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise click.BadParameter("is not UTF-8") from None
    return value
