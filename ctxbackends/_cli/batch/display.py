"""The output of the command batch: a live line or plain lines for people, events for programs."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

import attrs
import click
import msgspec

from ctxbackends._cli.batch.progress import BatchProgress, count_rows, format_row_rate
from ctxbackends._cli.error_messages import format_error
from ctxbackends._cli.live_line import LINE, can_redraw, window_size
from ctxbackends._cli.root import current_source
from ctxbackends._cli.terminal import print_json, printable, wrap
from ctxbackends._util.text import format_rate, one_line
from ctxbackends.batch._output import is_stream
from ctxbackends.errors import BackendError

if TYPE_CHECKING:
    from ctxbackends.batch import BatchAnswer, BatchReport, RowError

TICK = 0.5
"""Seconds between two updates of the live line."""

PLAIN_INTERVAL = 10.0
"""Seconds, at least, between two plain lines."""

LONGEST_INTERVAL = 60.0
"""Seconds after which a plain line is due, also if less than a tenth of the rows was done since the last one."""

MAX_ERROR_KINDS = 3
"""Kinds of errors that a report shows."""

EVENT_INTERVAL = 1.0
"""Seconds, at least, between two events with the progress."""


class Output(Protocol):
    """The output of a batch."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def start(self, **fields: Any) -> None:
        """Show the begin of the batch, with the names of its files and backends."""

    def phase(self, text: str) -> None:
        """Show the work before and after the requests."""

    def progress(self, progress: BatchProgress) -> None:
        """Show the progress. Called every ``TICK`` seconds."""

    def row_error(self, answer: BatchAnswer) -> None:
        """Show the error of a row."""

    def worker_died(self, message: str) -> None:
        """Show the death of a worker, which is replaced."""

    def finish(self, report: BatchReport, output: Path, errors: Path | None, journal: Path | None) -> None:
        """Show the report. ``journal`` is the directory of the journal if it is kept."""

    def plan(self, rows: int) -> None:
        """Show the number of rows of an input without problems."""

    def stop(self, text: str, exit_code: int) -> None:
        """Show how the batch can be continued after a signal."""


class TextOutput:
    """Output for people: a live line on a terminal, a line now and then elsewhere."""

    def __init__(self, *, is_quiet: bool = False) -> None:
        self._is_quiet = is_quiet or sys.stderr is None
        self._line = LINE if not self._is_quiet and can_redraw(sys.stderr) else None
        self._printed_at = time.monotonic()
        self._printed_done = 0
        self._errors = ErrorCounts()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        LINE.erase()

    def start(self, **fields: Any) -> None:
        """Show nothing: the command line has these names."""

    def phase(self, text: str) -> None:
        """Show the work on the live line."""
        if self._line is not None:
            self._line.show(text)

    def progress(self, progress: BatchProgress) -> None:
        """Draw the line, or print one if it is due."""
        if self._line is not None:
            self._line.show(progress.fit(window_size(sys.stderr)[0] - 1))  # the last column stays free
        elif not self._is_quiet and self._is_due(progress):
            self._print(str(progress))

    def _is_due(self, progress: BatchProgress) -> bool:
        now = time.monotonic()
        since = now - self._printed_at
        is_tenth = progress.rows is None or progress.done - self._printed_done >= progress.rows / 10
        if since < PLAIN_INTERVAL or not (is_tenth or since >= LONGEST_INTERVAL):
            return False
        self._printed_at, self._printed_done = now, progress.done
        return True

    def worker_died(self, message: str) -> None:
        """Print a line."""
        LINE.erase()
        self._print(f"note: {message}")

    def row_error(self, answer: BatchAnswer) -> None:
        """Count the error for the report."""
        if answer.error is not None:
            self._errors.add(answer.error)

    def finish(self, report: BatchReport, output: Path, errors: Path | None, journal: Path | None) -> None:
        """Print the report."""
        LINE.erase()
        for line in [*describe_report(report), *self._errors.describe()]:
            self._print(line)
        if files := describe_files(report, output, errors, journal):
            self._print(files)
        if report.failed:
            self._print("run the same command again to ask the failed rows again")

    def plan(self, rows: int) -> None:
        """Print the number."""
        LINE.erase()
        click.echo(f"{count_rows(rows)}, no problems")

    def stop(self, text: str, exit_code: int) -> None:  # noqa: ARG002  # of the protocol
        """Print the line, also with --quiet: it is about an error."""
        LINE.erase()
        self._write(text)

    def _print(self, text: str) -> None:
        if not self._is_quiet:
            self._write(text)

    def _write(self, text: str) -> None:
        if sys.stderr is not None:
            sys.stderr.write(f"{wrap(one_line(printable(text, err=True)), err=True)}\n")
            sys.stderr.flush()


def describe_report(report: BatchReport) -> list[str]:
    """Return the lines of a report for people."""
    parts = [f"{count_rows(report.rows)}: {report.answered:,} answered"]
    parts += [f"{report.resumed:,} of them in an earlier run"] if report.resumed else []
    parts += [f"{report.failed:,} failed"] if report.failed else []
    parts += [f"{report.truncated:,} cut off at max_tokens"] if report.truncated else []
    parts += [f"{report.repeated:,} asked more than once"] if report.repeated else []
    lines = [", ".join(parts)]
    asked = report.answered - report.resumed + report.failed
    if asked:
        seconds = max(report.seconds, 0.001)
        tokens = report.output_tokens or report.input_tokens
        rates = f"{report.seconds:.1f} s, {format_row_rate(asked / seconds)}"
        rates += f", {format_rate(tokens / seconds)} tokens/s" if tokens else ""
        counts = f"; {report.input_tokens:,} tokens in, {report.output_tokens:,} out" if tokens else ""
        lines += [f"{rates}{counts}"]
    if len(report.by_backend) > 1:
        lines += [", ".join(f"{name} {count:,}" for name, count in sorted(report.by_backend.items()))]
    return lines


def describe_files(report: BatchReport, output: Path, errors: Path | None, journal: Path | None) -> str:
    """Return the line that names the files of a batch, empty if there is nothing to name."""
    has_errors = report.failed > 0
    parts = []
    if not is_stream(output):
        content = "answers and errors" if has_errors and errors is None else "answers"
        if not report.answered:
            content = "errors" if has_errors and errors is None else ""
        parts += [f"{content} in {output}"] if content else []
    parts += [f"errors in {errors}"] if errors is not None and has_errors and not is_stream(errors) else []
    parts += [f"journal in {journal}"] if journal is not None else []
    return ", ".join(parts)


class ErrorCounts:
    """The most frequent errors of rows. Messages may differ in each row, so only the first of each kind is kept."""

    def __init__(self) -> None:
        self._counts: Counter[tuple[str, int | None]] = Counter()
        self._messages: dict[tuple[str, int | None], str] = {}
        self._mixed: set[tuple[str, int | None]] = set()

    def add(self, error: RowError) -> None:
        """Count an error."""
        kind = (error.type, error.status_code)
        self._counts[kind] += 1
        if self._messages.setdefault(kind, error.message) != error.message:
            self._mixed.add(kind)

    def describe(self) -> list[str]:
        """Return a line for each of the most frequent kinds."""
        return [
            f"{count:,} failed: {kind[0]}{', such as' if kind in self._mixed else ''}: {self._messages[kind]}"
            for kind, count in self._counts.most_common(MAX_ERROR_KINDS)
        ]


class JSONLines:
    """Output for programs: one JSON object per line, with its kind in ``event``."""

    def __init__(self) -> None:
        self._progress_at = -EVENT_INTERVAL

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        LINE.erase()

    def phase(self, text: str) -> None:
        """Print nothing: it is for people."""

    def start(self, **fields: Any) -> None:
        """Print the first event."""
        self._print("start", fields)

    def progress(self, progress: BatchProgress) -> None:
        """Print the progress, once a second."""
        now = time.monotonic()
        if now - self._progress_at >= EVENT_INTERVAL:
            self._progress_at = now
            self._print("progress", msgspec.to_builtins(progress))

    def worker_died(self, message: str) -> None:
        """Print the message."""
        self._print("worker_died", {"message": message})

    def row_error(self, answer: BatchAnswer) -> None:
        """Print the error of a row."""
        row = answer.row
        self._print("row_error", {"custom_id": row.id, "line": row.line, "error": msgspec.to_builtins(answer.error)})

    def finish(self, report: BatchReport, output: Path, errors: Path | None, journal: Path | None) -> None:
        """Print the report."""
        paths = {"output": output, "errors": errors, "journal": journal}
        fields = {name: None if path is None else str(path) for name, path in paths.items()}
        self._print("done", {**fields, "report": attrs.asdict(report)})

    def plan(self, rows: int) -> None:
        """Print the number."""
        self._print("plan", {"rows": rows})

    def stop(self, text: str, exit_code: int) -> None:
        """Print the line on standard error, and the event."""
        _print_error_event("Interrupted", text, exit_code)
        if sys.stderr is not None:
            LINE.erase()
            sys.stderr.write(f"{one_line(printable(text, err=True))}\n")

    def _print(self, name: str, fields: dict[str, Any]) -> None:
        LINE.erase()
        print_json({"event": name, **fields})
        sys.stdout.flush()


@contextmanager
def error_events() -> Iterator[None]:
    """Print the event of the error that ends the command. A wrong usage has none."""
    try:
        yield
    except (click.UsageError, BrokenPipeError):
        raise
    except click.ClickException as error:
        # The error of the batch, for which the one of the command was raised.
        origin = error.__context__ if isinstance(error.__context__, BackendError) else error
        _print_error_event(type(origin).__name__, error.format_message(), error.exit_code)
        raise
    except (BackendError, OSError) as error:
        _print_error_event(type(error).__name__, format_error(error, current_source()) or str(error), 1)
        raise


def _print_error_event(error_type: str, message: str, exit_code: int) -> None:
    print_json({"event": "error", "type": error_type, "message": message, "exit_code": exit_code})
    sys.stdout.flush()
