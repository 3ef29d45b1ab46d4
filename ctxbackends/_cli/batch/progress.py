"""The progress of a batch: its rates, and the line that shows it."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import msgspec

from ctxbackends._util.text import format_duration, format_rate

if TYPE_CHECKING:
    from ctxbackends.batch import BatchReport

WINDOW = 30.0
"""Seconds over which the rates are measured."""

_SHORTEST_WINDOW = 1.0
"""Seconds after which there is a rate."""


def count_rows(count: int) -> str:
    """Return a number of rows for people: 1 row, 2,000 rows."""
    return f"{count:,} row" if count == 1 else f"{count:,} rows"


def format_row_rate(rate: float) -> str:
    """Return a rate of rows for people: 38 rows/s, 1.5 rows/min."""
    return f"{format_rate(rate * 60)} rows/min" if 0 < rate < 0.1 else f"{format_rate(rate)} rows/s"


class BatchProgress(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a batch at a moment.

    Attributes:
        rows: Rows of the input; None while they are not counted.
        done: Rows with an answer or an error.
        answered: Rows with an answer.
        resumed: Rows with an answer from an earlier run.
        failed: Rows with an error.
        seconds: Seconds since the start.
        rows_per_second: Rows that were answered in each of the last seconds; None at the beginning.
        tokens_per_second: Tokens of their answers, or of the texts that were embedded.
        seconds_left: Estimated seconds to the end; None at the beginning.
        unavailable: Names of the backends that do not answer now.
        paused: Names of the backends that get no requests now, after a Retry-After.
        is_rate_limited: Whether rows wait for ``--rpm`` or ``--tpm``.
    """

    rows: int | None
    done: int
    answered: int
    resumed: int
    failed: int
    seconds: float
    rows_per_second: float | None = None
    tokens_per_second: float | None = None
    seconds_left: float | None = None
    unavailable: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()
    is_rate_limited: bool = False

    def __str__(self) -> str:
        return ", ".join(text for _, text in self._parts())

    def fit(self, columns: int) -> str:
        """Return the line in at most ``columns``, if it can: without some parts."""
        parts = self._parts()
        while len(line := ", ".join(text for _, text in parts)) > columns and len(parts) > 1:
            parts.remove(max(parts))
        return line

    def _parts(self) -> list[tuple[int, str]]:
        """Return the parts of the line, those with a higher number to be left out first."""
        parts = [(0, count_rows(self.done) if self.rows is None else f"{self.done:,} of {count_rows(self.rows)}")]
        parts += [(1, f"{self.failed:,} failed")] if self.failed else []
        parts += [(5, f"{self.resumed:,} resumed")] if self.resumed else []
        if self.rows_per_second is not None:
            parts += [(4, format_row_rate(self.rows_per_second))]
        if self.tokens_per_second:
            parts += [(6, f"{format_rate(self.tokens_per_second)} tokens/s")]
        parts += [(3, f"{format_duration(self.seconds_left)} left")] if self.seconds_left is not None else []
        parts += [(2, f"waiting for {', '.join(self.unavailable)}")] if self.unavailable else []
        parts += [(2, f"paused by {', '.join(self.paused)}")] if self.paused else []
        parts += [(2, "waiting for the rate limit")] if self.is_rate_limited else []
        return parts


class Meter:
    """Measures the rates of a batch.

    Args:
        clock: Seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._started = clock()
        self._samples: deque[tuple[float, int, int]] = deque()

    def measure(self, report: BatchReport, *, is_counted: bool) -> BatchProgress:
        """Return the progress at this moment.

        Args:
            report: The figures of the batch.
            is_counted: Whether its ``rows`` are those of the whole input.
        """
        now = self._clock()
        done = report.answered + report.failed
        asked = done - report.resumed  # rows from the journal cost no time
        tokens = report.output_tokens or report.input_tokens
        self._samples.append((now, asked, tokens))
        while len(self._samples) > 2 and self._samples[1][0] <= now - WINDOW:
            self._samples.popleft()
        since, first_rows, first_tokens = self._samples[0]
        rate = token_rate = left = None
        if now - since >= _SHORTEST_WINDOW and asked:
            rate = (asked - first_rows) / (now - since)
            token_rate = (tokens - first_tokens) / (now - since)
            if is_counted and rate:
                left = (report.rows - done) / rate
        return BatchProgress(
            rows=report.rows if is_counted else None,
            done=done,
            answered=report.answered,
            resumed=report.resumed,
            failed=report.failed,
            seconds=now - self._started,
            rows_per_second=rate,
            tokens_per_second=token_rate,
            seconds_left=left,
            unavailable=report.unavailable,
            paused=report.paused,
            is_rate_limited=report.is_rate_limited,
        )
