"""What the commands share at the terminal: the live line of a wait, data on stdout, the prompt from stdin. Everything
but data goes to stderr."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ctxbackends._chat.events import Loading, PromptProgress
from ctxbackends._util.text import escape_controls

if TYPE_CHECKING:
    from rich.status import Status

PLAIN_INTERVAL = 5.0
"""Seconds between two lines about the same state, where there is no terminal to write over."""

SHOWN_AFTER = 0.5
"""Seconds of reading a prompt after which it is shown."""


class Waiting:
    """Shows what a wait sees: one live line on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self._status: Status | None = None
        self._last: tuple[str, float] | None = None

    def __call__(self, seen: Loading) -> None:
        if sys.stderr.isatty():
            self.show(str(seen))
            return
        now = time.monotonic()
        if self._last is None or self._last[0] != seen.state or now - self._last[1] >= PLAIN_INTERVAL:
            self._last = (seen.state, now)
            click.echo(str(seen), err=True)

    def reading(self, progress: PromptProgress) -> None:
        """How far the server is with the prompt: on a terminal, and where it takes long enough to be read."""
        slow = (progress.seconds or 0.0) >= SHOWN_AFTER
        if sys.stderr.isatty() and slow and progress.processed < progress.total:
            self.show(str(progress))

    def show(self, text: str) -> None:
        from rich.console import Console  # noqa: PLC0415  # only who waits at a terminal pays for it
        from rich.text import Text  # noqa: PLC0415

        if self._status is None:
            self._status = Console(stderr=True).status(Text(text))
            self._status.start()
        else:
            self._status.update(Text(text))

    def stop(self) -> None:
        """Take the line away."""
        if self._status is not None:
            self._status.stop()
            self._status = None


@contextmanager
def waiting() -> Iterator[Waiting]:
    """The line, taken away on every way out."""
    shown = Waiting()
    try:
        yield shown
    finally:
        shown.stop()


def print_table(rows: Sequence[Mapping[str, str]]) -> None:
    """Rows of the same columns, under their names; a column without any content is left out. Lines are never cut: the
    last column may be a sentence."""
    columns = [name for name in rows[0] if any(row[name] for row in rows)]
    widths = {name: max(len(name), *(len(row[name]) for row in rows)) for name in columns}
    for row in ({name: name for name in columns}, *rows):
        click.echo(printable("  ".join(f"{row[name]:{widths[name]}}" for name in columns).rstrip()))


def print_json(value: Any) -> None:
    click.echo(json.dumps(value, ensure_ascii=False))


def printable(text: str, *, err: bool = False) -> str:
    """Model text as it may go to a terminal; unchanged where stdout (``err``: stderr) is a file or a pipe."""
    return escape_controls(text) if (sys.stderr if err else sys.stdout).isatty() else text


def utf8(_: click.Context, __: click.Parameter, value: str | None) -> str | None:
    """An option's text. Raises BadParameter where its bytes were no UTF-8."""
    try:
        (value or "").encode()
    except UnicodeEncodeError:
        raise click.BadParameter("is not UTF-8") from None
    return value


def read_prompt(argument: str | None) -> str:
    """The prompt: the argument, or standard input. Raises UsageError where it is empty or no UTF-8."""
    if argument is None or argument == "-":
        if sys.stdin is None or (argument is None and sys.stdin.isatty()):  # None: it was closed
            raise click.UsageError("no prompt: pass it as an argument, or on standard input")
        raw = sys.stdin.buffer.read()
        where = "the prompt on standard input"
    else:
        raw = argument.encode("utf-8", "surrogateescape")
        where = "the prompt"
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise click.ClickException(
            f"{where} is not UTF-8 (byte {error.start + 1}); convert it, for example with iconv -t UTF-8"
        ) from None
    if not text.strip():
        raise click.UsageError(f"{where} is empty")
    return text
