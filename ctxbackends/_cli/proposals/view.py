"""A row for the review: its fields, and its quotes in their sources."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from ctxbackends._cli.live_line import LINE, can_redraw, window_size
from ctxbackends._util.text import escape_for_review as clean
from ctxbackends.knowledge._proposals.passages import Line, Passage, Passages, label_lines, split_marks
from ctxbackends.knowledge._proposals.review import Review
from ctxbackends.knowledge._records import (
    ONLY_FROM_SUMMARY,
    Evidence,
    QuarantinedRow,
    describe_place,
    fields_of,
    kind_of,
    title_of,
)

LINES = 3
"""Lines of the source before and after a quote."""

_NARROW = 60
_UNBROKEN = 10_000  # columns of an output without a window
_MARK = "bold underline black on yellow"
_STATES = {"accepted": "bold green", "rejected": "bold red", "quarantined": "bold yellow"}


class RowView:
    """Prints rows to standard output, for the width that its window has at that time.

    Args:
        review: The review.
        passages: The passages of its proposal.
    """

    def __init__(self, review: Review, passages: Passages) -> None:
        self._review = review
        self._passages = passages
        self._console = Console()
        self._width = 0

    def is_ready(self, name: str) -> bool:
        """Return whether the sources of a row were read."""
        return all(self._passages.is_read(source) for source in self._find_sources(name))

    def prepare(self, name: str) -> None:
        """Read the sources of a row."""
        with LINE:
            for source in self._find_sources(name):
                if can_redraw(sys.stderr) and not self._passages.is_read(source):
                    LINE.show(f"reading {source}")
                self._passages.load(source)

    def print(self, name: str, heading: str) -> None:
        """Print a row."""
        self._width = window_size(sys.stdout)[0] if sys.stdout.isatty() else _UNBROKEN
        self._console = Console(
            file=sys.stdout, width=self._width, highlight=False, markup=False, emoji=False, legacy_windows=False
        )
        for line in ("", *self._hang("", Text(heading, "dim")), *self._build(name)):
            self._console.print(line, soft_wrap=True)

    def _find_sources(self, name: str) -> list[str]:
        quarantined = self._review.quarantined().get(name)
        if quarantined is not None:
            return self._passages.find_sources(quarantined)
        return list(dict.fromkeys(evidence.source for evidence in self._review.row(name).evidence))

    # --- the lines --------------------------------------------------------------------------------

    def _build(self, name: str) -> Iterator[Text]:
        verdict = self._review.verdict(name)
        quarantined = self._review.quarantined().get(name)
        row = quarantined or self._review.row(name)
        original = quarantined or self._review.original_rows()[name]
        record = row.record
        state = "quarantined" if quarantined is not None and verdict.state == "undecided" else verdict.state
        title = Text.assemble((f"{name}  {kind_of(record)}: ", "dim"), (clean(title_of(record)), "bold"))
        if state != "undecided":
            title.append(f"  [{state}{f': {clean(verdict.reason)}' if verdict.reason else ''}]", _STATES[state])
        yield from self._hang("", title, indent=len(name) + 2)
        fields = fields_of(record)
        for number, (field, value) in enumerate(fields.items()):
            if number:
                yield from self._hang(self._indent, _label(field, value), indent=2)
            if field in verdict.fields:
                was = fields_of(original.record)[field]
                yield from self._hang(self._indent, Text(f"  (edited; was: {clean(was)})", "dim"))
        if isinstance(row, QuarantinedRow):
            yield from self._build_quarantined(row)
            return
        if row.is_only_from_summary:
            yield from self._hang(self._indent, _label("only evidence", ONLY_FROM_SUMMARY, "yellow"))
        if row.known_at is not None:
            yield from self._hang(self._indent, _label("already in", row.known_at, "yellow"))
        for evidence in row.evidence:
            yield from self._build_evidence(evidence)

    def _build_evidence(self, evidence: Evidence) -> Iterator[Text]:
        where = Text(clean(describe_place(evidence)), "cyan")
        passage = self._passages.find(evidence)
        yield Text()
        if isinstance(passage, str):
            yield from self._hang(f"{self._indent}> ", Text(clean(evidence.quote), "bold"), indent=2)
            yield from self._hang(f"{self._indent}  ", where)
            yield from self._hang(f"{self._indent}  ", Text(f"(source: {passage})", "dim"))
        else:
            yield from self._hang(self._indent, where)
            yield from self._build_passage(passage)

    def _build_quarantined(self, row: QuarantinedRow) -> Iterator[Text]:
        yield from self._hang(self._indent, _label("quarantined", f"{row.reason} ({row.where})", "yellow"))
        yield from self._hang(self._indent, _label("quote of the model", row.quote or "(none)"))
        passage = self._passages.find_nearest(row)
        yield Text()
        if isinstance(passage, str):
            yield from self._hang(self._indent, Text(f"(source: {passage})", "dim"))
        else:
            yield from self._hang(self._indent, Text(f"the nearest words, in {clean(passage.source)}:", "cyan"))
            yield from self._build_passage(passage)

    def _build_passage(self, passage: Passage) -> Iterator[Text]:
        digits = max(len(str(line.number or "")) for line in passage.lines)
        for speaker, number, line in label_lines(passage.lines):
            if speaker:
                yield from self._hang(f"{self._indent}{' ' * digits} | ", Text(f"{clean(speaker)}:", "dim italic"))
            yield from self._hang(f"{self._indent}{number:>{digits}} | ", self._mark(line), indent=0)

    def _mark(self, line: Line) -> Text:
        has_styles = can_redraw(sys.stdout)
        text = Text()
        for part, is_quote in split_marks(line):
            quote = clean(part) if has_styles or not is_quote else f">>>{clean(part)}<<<"
            text.append(quote, _MARK if is_quote else None)
        return text

    @property
    def _indent(self) -> str:
        return "  " if self._width < _NARROW else "    "

    def _hang(self, prefix: str, text: Text, *, indent: int = 0) -> Iterator[Text]:
        """Break a text to the width of the window. The lines after the first are indented as the prefix and more."""
        gutter = re.sub("[^|]", " ", prefix)
        width = max(self._width - 1 - len(prefix) - indent, 10)
        text.expand_tabs(4)
        for number, line in enumerate(text.wrap(self._console, width, overflow="fold")):
            line.rstrip()
            yield Text.assemble((prefix, "dim") if number == 0 else (gutter + " " * indent, "dim"), line)


def _label(label: str, value: str, style: str = "") -> Text:
    return Text.assemble((f"{label}: ", "dim"), (clean(value), style))
