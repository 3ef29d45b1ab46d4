"""The output of the commands extract, compact and ingest."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any, Self

import click
import msgspec

from ctxbackends._chat.events import Loading
from ctxbackends._cli.chat.display import Status
from ctxbackends._cli.live_line import LINE
from ctxbackends._cli.terminal import print_json, printable
from ctxbackends._util.text import format_duration, pluralize
from ctxbackends.knowledge._extract.activity import Activity
from ctxbackends.knowledge._extract.progress import ANSWER_TOKENS, Event, Plan, Progress, ResumePoint
from ctxbackends.knowledge._sources.base import SkippedInput

if TYPE_CHECKING:
    from ctxbackends.knowledge._records import Row
    from ctxbackends.knowledge._run import Outcome


class TextOutput:
    """Output for people: a live line on a terminal, a line every few seconds elsewhere."""

    def __init__(self, *, is_quiet: bool = False) -> None:
        self._is_quiet = is_quiet
        self._status = Status(is_quiet=is_quiet)
        self._last = self._left = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._status.clear()

    def event(self, event: Event) -> None:
        """Show the progress of a run."""
        if isinstance(event, Activity):
            room = self._status.columns
            text = str(event) if room is None else event.fit(room - len(self._left))
            self._last = f"{text}{self._left}"
            self._status.show(self._last, phase=f"{event.chunk} {event.phase}")
        elif isinstance(event, Loading):
            self._status.report(event, then=self._last)
        elif isinstance(event, Progress):
            left = event.seconds_left
            self._left = f", {format_duration(left)} left" if left is not None else ""
        elif isinstance(event, SkippedInput):
            self._print(f"skipped: {event}")
        elif isinstance(event, ResumePoint):
            self._status.clear()
            self._print(f"{pluralize(event.answers, 'answer')} in the journal; use --resume to continue")

    def _print(self, text: str) -> None:
        if not self._is_quiet:
            self._status.print(printable(text, err=True))

    def row(self, row: Row) -> None:
        """Print nothing: rows are in the proposal."""

    def plan(self, plan: Plan, rates: tuple[float, float]) -> None:
        """Show the plan of a dry run, with the time at the rates of reading and writing."""
        self._status.clear()
        for one in plan.inputs:
            click.echo(f"{printable(one.name)}  {one.size:,} bytes")
        context = f"{plan.context_length} tokens" if plan.context_length else "unknown"
        chunks = f"{pluralize(plan.chunks, 'chunk')} of at most {plan.chunk_tokens} tokens"
        requests = f" in {pluralize(plan.requests, 'request')}" if plan.requests != plan.chunks else ""
        if plan.endpoint is None:
            click.echo(f"{chunks} would be sent{requests}; use --backend to ask a server")
        else:
            model = plan.model or "no model"
            click.echo(f"{chunks} would be sent{requests} to {model} at {plan.endpoint} (context: {context})")
        click.echo(
            f"{plan.tokens:,} tokens in all prompts, counted by the server"
            if plan.is_counted
            else f"about {plan.tokens:,} tokens in all prompts (3 bytes count as one)"
        )
        read, write = rates
        seconds = plan.estimate_seconds(read_rate=read, write_rate=write)
        click.echo(
            f"about {format_duration(seconds)}, if the server reads {read:g} and writes {write:g} tokens per second "
            f"(--rate), {ANSWER_TOKENS} in each answer"
        )
        if plan.masked:
            click.echo(f"{pluralize(plan.masked, 'secret')} would be masked")

    def outcome(self, outcome: Outcome) -> None:
        """Show the report; print the path of the proposal."""
        self._status.clear()
        report = outcome.report
        if report.masked:
            self._print(f"{pluralize(report.masked, 'secret')} masked before sending")
        if outcome.path is None:
            self._print(f"nothing found in {pluralize(report.chunks, 'chunk')}; no proposal written")
            return
        known_count = sum(row.known_at is not None for row in outcome.rows)
        parts = [pluralize(len(outcome.rows), "row")]
        parts += [f"{known_count} already in .context"] if known_count else []
        parts += [f"{report.recovered} recovered by a second look"] if report.recovered else []
        parts += [f"{report.quarantined} quarantined"] if report.quarantined else []
        parts += [f"{pluralize(report.cut, 'answer')} cut"] if report.cut else []
        parts += [f"{pluralize(len(report.skipped), 'part')} skipped"] if report.skipped else []
        chunks = pluralize(report.chunks, "chunk")
        chunks += f" ({pluralize(report.requests, 'request')})" if report.requests > report.chunks else ""
        self._print(f"{', '.join(parts)} in {chunks}, {report.elapsed:.1f} s")
        click.echo(str(outcome.path))
        if outcome.rows:
            self._print(f"review them: ctxbackends proposals review {outcome.path.stem}")
        else:
            self._print(f"show them: ctxbackends proposals show {outcome.path.stem} --quarantined")


ACTIVITY_INTERVAL = 0.9
"""Seconds, at least, between two activities in the output for programs."""

_EVENT_NAMES = {"SkippedInput": "skipped", "QuarantinedRow": "quarantined", "ResumePoint": "resume_point"}


class JSONLines:
    """Output for programs: one JSON object per line, with its kind in ``event``."""

    def __init__(self) -> None:
        self._activity_at = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    def event(self, event: Event) -> None:
        """Print the progress of a run; its activity once a second."""
        if isinstance(event, Activity):
            now = time.monotonic()
            if now - self._activity_at < ACTIVITY_INTERVAL:
                return
            self._activity_at = now
        name = _EVENT_NAMES.get(type(event).__name__) or type(event).__name__.lower()
        more: dict[str, Any] = {}
        if isinstance(event, Progress):
            more = {"tokens_per_second": event.tokens_per_second, "seconds_left": event.seconds_left}
        self._print(name, event, **more)

    def row(self, row: Row) -> None:
        """Print a row that was found."""
        self._print("row", row)

    def plan(self, plan: Plan, rates: tuple[float, float]) -> None:
        """Print the plan of a dry run, with the time at the rates of reading and writing."""
        seconds = plan.estimate_seconds(read_rate=rates[0], write_rate=rates[1])
        self._print("plan", plan, rate=rates, answer_tokens=ANSWER_TOKENS, seconds=seconds)

    def outcome(self, outcome: Outcome) -> None:
        """Print the report."""
        path = None if outcome.path is None else str(outcome.path)
        self._print("done", {"proposal": path, "report": outcome.report})

    def _print(self, name: str, value: Any, **more: Any) -> None:
        LINE.erase()
        print_json({"event": name, **msgspec.to_builtins(value), **more})
        sys.stdout.flush()
