"""One answer on the terminal: text on standard output, progress and notes on standard error.

Imports rich only to draw Markdown.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from typing import Literal, Protocol, TypeAlias

from ctxbackends._chat.events import (
    Finish,
    Loading,
    PromptProgress,
    ReasoningDelta,
    RefusalDelta,
    StreamEvent,
    TextDelta,
    ToolCallDelta,
)
from ctxbackends._chat.responses import Completion
from ctxbackends._chat.tool_runs import RoundEnd, RoundStart, ToolEnd, ToolEvent, ToolRun, ToolStart
from ctxbackends._cli.live_line import LINE, can_redraw, window_size
from ctxbackends._cli.terminal import PLAIN_INTERVAL, PlainInterval, StopAdvice, printable
from ctxbackends._util.event_loops import running_loop
from ctxbackends._util.text import one_line, pluralize

ReasoningView: TypeAlias = Literal["full", "line", "none"]
"""How reasoning is shown: its text, one line with the seconds, or not."""

Item: TypeAlias = StreamEvent | ToolEvent | ToolRun

TICK = 0.5
"""Seconds between two updates of the live line."""

_SECONDS_COLUMNS = len(", 999 s") + 1  # the last column stays free
"""Columns of the live line after its text."""

PROBE_SECONDS = 3.0
"""Seconds after a probe of a server that starts, at least, within which the next one follows."""

_WAITING = "waiting for the answer"
_ARGUMENTS_SHOWN = 200  # characters
_LOAD_AFTER = 0.05  # seconds in which the request is sent


class Display(Protocol):
    """One answer on the terminal."""

    def start(self) -> None:
        """Show that the answer is awaited. Call it as early as possible, and again in the event loop."""

    def progress(self, loading: Loading) -> None:
        """Show one probe of a server that starts. It is ``on_progress`` of the request."""

    def event(self, event: Item) -> None:
        """Show an item of `stream()` or `stream_tools()`."""

    @property
    def is_waiting(self) -> bool:
        """Whether the request has been sent, and nothing has arrived."""
        ...

    def show_slots(self, busy: int, total: int) -> None:
        """Show how many slots the server uses. A request that finds none free waits in the server's queue."""

    def pause(self) -> None:
        """Erase what is drawn over, since something else is about to be printed."""

    def finish(self, answer: Completion | None) -> None:
        """End the lines; None if the answer broke off. A second call does nothing."""


class TextOutput(Protocol):
    """The text of the answer on standard output."""

    def write(self, text: str) -> None:
        """Show the next piece."""

    def finish(self, is_complete: bool) -> None:
        """End the last line."""


class RawText:
    """The text as it arrives, with control characters escaped on a terminal."""

    def __init__(self) -> None:
        self._is_terminal = sys.stdout.isatty()
        self._last = ""

    def write(self, text: str) -> None:
        """Write the piece at once."""
        if text:
            self._last = text
            sys.stdout.write(printable(text) if self._is_terminal else text)
            sys.stdout.flush()

    def finish(self, is_complete: bool) -> None:
        """End the last line, if the text has not ended it."""
        if not self._last.endswith("\n") and (self._last or is_complete):
            self._last = "\n"
            sys.stdout.write("\n")
            sys.stdout.flush()


class DrawnText:
    """The text as Markdown. rich is imported while the answer is awaited, so that the wait is seen before."""

    def __init__(self) -> None:
        self._text: TextOutput | None = None

    def load(self) -> TextOutput:
        """Import rich."""
        if self._text is None:
            from ctxbackends._cli.chat.markdown import MarkdownText  # needs rich

            self._text = MarkdownText()
        return self._text

    def write(self, text: str) -> None:
        """Show the next piece."""
        self.load().write(text)

    def finish(self, is_complete: bool) -> None:
        """End the last line."""
        if self._text is not None or is_complete:
            self.load().finish(is_complete)


class Status:
    """The state of the wait on standard error, with its seconds: a live line on a terminal, else a line now and then.

    Args:
        is_quiet: Show nothing.

    Attributes:
        phase: The state whose seconds are shown, empty if none is.
    """

    def __init__(self, *, is_quiet: bool = False) -> None:
        self._is_quiet = is_quiet or sys.stderr is None
        self._line = LINE if not self._is_quiet and can_redraw(sys.stderr) else None
        self._text = self.phase = ""
        self._since = 0.0
        self._interval = PlainInterval()
        self._advice = StopAdvice()
        self._timer: asyncio.TimerHandle | None = None
        self._next: asyncio.TimerHandle | None = None  # shows that the answer is awaited, after the last probe

    @property
    def columns(self) -> int | None:
        """The room for a text on the live line, before its seconds; None without such a line."""
        return None if self._line is None else window_size(sys.stderr)[0] - _SECONDS_COLUMNS

    def show(self, text: str, *, phase: str | None = None) -> None:
        """Show ``text`` with the seconds of the phase, which is the text itself by default."""
        if self._is_quiet:
            return
        phase = phase or text
        if self._next is not None:
            self._next.cancel()
            self._next = None
        if phase != self.phase:
            self.phase, self._since = phase, time.monotonic()
        if text != self._text:
            self._text = text
            self._draw()
        if self._timer is None:
            self._schedule()

    def replace(self, text: str) -> None:
        """Show ``text`` in the phase that is shown, from the next update."""
        if self._text:
            self._text = text

    def report(self, loading: Loading, *, then: str) -> None:
        """Show a probe, which has its own seconds, and ``then`` if no other one follows soon."""
        if self._is_quiet:
            return
        self._stop_clock()
        loop = running_loop()
        if loop is not None:
            self._next = loop.call_later(PROBE_SECONDS, self.show, then)
        advice = self._advice.find(loading)
        if advice is not None:
            self.print(advice)
        if self._line is not None:
            self._line.show(str(loading))
        elif self._interval.is_due(loading.state):
            self.print(str(loading))

    def clear(self) -> None:
        """Erase the live line and stop the clock."""
        self._stop_clock()
        if self._line is not None:
            self._line.erase()

    def _stop_clock(self) -> None:
        self._text = self.phase = ""
        for timer in (self._timer, self._next):
            if timer is not None:
                timer.cancel()
        self._timer = self._next = None

    def print(self, text: str) -> None:
        """Print a line that stays."""
        if not self._is_quiet:
            if self._line is not None:
                self._line.erase()
            sys.stderr.write(f"{one_line(text)}\n")
            sys.stderr.flush()

    def _draw(self) -> None:
        if self._line is not None:
            self._line.show(f"{self._text}, {time.monotonic() - self._since:.0f} s")

    def _schedule(self) -> None:
        loop = running_loop()
        if loop is None:  # the first line is drawn before the loop runs
            return
        self._timer = loop.call_later(TICK if self._line is not None else PLAIN_INTERVAL, self._tick)

    def _tick(self) -> None:
        if self._line is None:
            self.print(f"{self._text}, {time.monotonic() - self._since:.0f} s")
        self._draw()
        self._schedule()


class CountedText:
    """The number of characters, on the status line: the caller prints the answer, in another form and when it is whole.

    Args:
        status: The state of the wait.
    """

    def __init__(self, status: Status) -> None:
        self._status = status
        self._count = 0

    def write(self, text: str) -> None:
        """Count the piece."""
        is_first = not self._count
        self._count += len(text)
        shown = f"receiving the answer ({pluralize(self._count, 'character')})"
        if is_first:
            self._status.show(shown, phase="receiving")
        else:
            self._status.replace(shown)

    def finish(self, is_complete: bool) -> None:  # noqa: ARG002  # the same for each output
        """Begin again."""
        self._count = 0


class ReasoningText:
    """The whole reasoning on standard error, dimmed on a terminal."""

    def __init__(self) -> None:
        is_dimmed = can_redraw(sys.stderr) and not os.environ.get("NO_COLOR")
        self._begin, self._end = ("\x1b[2m", "\x1b[0m") if is_dimmed else ("", "")
        self._last = ""

    def write(self, text: str) -> None:
        """Write the piece at once."""
        if text:
            self._last = text
            sys.stderr.write(f"{self._begin}{printable(text, err=True)}{self._end}")
            sys.stderr.flush()

    def finish(self) -> None:
        """End the last line, and leave an empty one."""
        if self._last:
            sys.stderr.write("\n" if self._last.endswith("\n") else "\n\n")
            sys.stderr.flush()
            self._last = ""


class AnswerDisplay:
    """Shows each event of an answer where it belongs."""

    def __init__(self, status: Status, text: TextOutput, reasoning: ReasoningText | None, *, counts: bool) -> None:
        self._status = status
        self._text = text
        self._reasoning = reasoning
        self._counts = counts  # whether reasoning is shown as a line with the seconds
        self._is_writing = False
        self._is_finished = False

    def start(self) -> None:
        """Show that the answer is awaited."""
        self._status.show(_WAITING)
        loop = running_loop()
        if isinstance(self._text, DrawnText) and loop is not None:
            loop.call_later(_LOAD_AFTER, self._text.load)

    @property
    def is_waiting(self) -> bool:
        """Whether the request has been sent, and nothing has arrived."""
        return self._status.phase == _WAITING

    def show_slots(self, busy: int, total: int) -> None:
        """Show how many slots the server uses."""
        self._status.show(f"{_WAITING} (the server uses {busy} of {pluralize(total, 'slot')})", phase=_WAITING)

    def progress(self, loading: Loading) -> None:
        """Show one probe of a server that starts."""
        self._status.report(loading, then=_WAITING)

    def event(self, event: Item) -> None:
        """Show an item of the stream."""
        if type(event) is TextDelta:
            if not self._is_writing:
                self._begin_text()
            self._text.write(event.text)
        elif isinstance(event, ReasoningDelta):
            self._show_reasoning(event.text)
        elif isinstance(event, PromptProgress):
            self._status.show(str(event), phase="reading")
        elif isinstance(event, ToolCallDelta | RefusalDelta):
            self._end_pieces()
            if isinstance(event, ToolCallDelta) and event.name:
                self._status.show(f"preparing a call of {event.name}")
        elif isinstance(event, RoundStart):
            self._status.show(_WAITING)
        elif isinstance(event, Finish | ToolStart | ToolEnd):
            self._end_pieces()
            self._status.clear()
            if isinstance(event, ToolStart):
                self._status.print(f"{event.call.name}({event.call.arguments:.{_ARGUMENTS_SHOWN}})")
                self._status.show(f"running {event.call.name}")
            elif isinstance(event, ToolEnd) and event.outcome.status != "ok":
                self._status.print(f"{event.outcome.call.name}: {event.outcome.status}")
        elif isinstance(event, RoundEnd | ToolRun):
            self._status.clear()

    def pause(self) -> None:
        """Erase what is drawn over."""
        self._end_pieces()
        self._status.clear()

    def finish(self, answer: Completion | None) -> None:
        """End the lines."""
        if self._is_finished:
            return
        self._is_finished = True
        self._status.clear()
        if self._reasoning is not None:
            self._reasoning.finish()
        self._text.finish(is_complete=answer is not None)

    def _begin_text(self) -> None:
        self._status.clear()
        if self._reasoning is not None:
            self._reasoning.finish()
        self._is_writing = True

    def _show_reasoning(self, text: str) -> None:
        if self._reasoning is not None:
            self._end_text()
            self._status.clear()
            self._reasoning.write(text)
        elif self._counts:
            self._end_text()
            self._status.show("thinking")

    def _end_pieces(self) -> None:
        if self._reasoning is not None:
            self._reasoning.finish()
        self._end_text()

    def _end_text(self) -> None:
        if self._is_writing:
            self._is_writing = False
            self._text.finish(is_complete=False)


def create_display(
    *, raw: bool = False, quiet: bool = False, reasoning: ReasoningView = "line", text: bool = True
) -> Display:
    """Return the display for the standard streams.

    Args:
        raw: Print the text as it arrives, also on a terminal.
        quiet: Print nothing on standard error.
        reasoning: How to show reasoning.
        text: Whether to print the text; if not, the number of its characters is shown, since the caller prints it.
    """
    status = Status(is_quiet=quiet)
    output: TextOutput = CountedText(status)
    if text and not raw and can_redraw(sys.stdout):
        output = DrawnText()
    elif text:
        output = RawText()
    full = ReasoningText() if reasoning == "full" and not quiet and sys.stderr is not None else None
    return AnswerDisplay(status, output, full, counts=reasoning == "line")
