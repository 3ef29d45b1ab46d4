"""What stands in ``.context/*.md`` already: the titles of its entries and their places. Opens the files to read them,
and for nothing else.

Entries are headings (``## [2026-02-26-100000] Title``), tasks and list items, and the rows of index tables, as the
``ctx`` tools write them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from ctxbackends.knowledge._records import Row, normalize_title
from ctxbackends.knowledge._sources.base import SkippedInput

_HEADING = re.compile(r"#{2,6}\s+(?:\[[0-9-]{10,17}\]\s*)?(.+?)\s*#*$")
_ITEM = re.compile(r"\s*[-*+]\s+(?:\[[ xX-]\]\s+)?(.+)$")
_BOLD = re.compile(r"\*\*(.+?)\*\*\s*:?|__(.+?)__\s*:?")
_TABLE = re.compile(r"\s*\|(.+)\|\s*$")
_TAGS = re.compile(r"\s+`?#[a-z]+:\S+`?|\s+—\s+Completed\s+[0-9-]+$")
_FENCE = re.compile(r" {0,3}(```|~~~)")
# Headings and bold words that are the form of an entry and not its title.
_FORM = frozenset(
    (
        *("context", "rationale", "consequence", "consequences", "lesson", "application", "decision", "status"),
        *("impact", "mitigation", "definition", "alternatives considered", "discovered"),
        *("in progress", "next up", "completed", "completed recent", "blocked"),
    )
)


class ExistingEntries:
    """Titles to places. ``skipped``: files that could not be read."""

    def __init__(self) -> None:
        self._places: dict[str, str] = {}
        self.skipped: tuple[SkippedInput, ...] = ()

    @classmethod
    def read(cls, context: Path) -> ExistingEntries:
        """What stands in the files of the directory ``context``, those below it not included."""
        known = cls()
        skipped = []
        for path in sorted(context.glob("*.md")):
            try:
                lines = path.read_bytes().decode().split("\n")
            except (OSError, UnicodeDecodeError) as error:
                why = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror or "cannot be read"
                skipped.append(SkippedInput(source=f"{context.name}/{path.name}", reason=f"not compared with: {why}"))
                continue
            for number, title in _titles(lines):
                known._places.setdefault(normalize_title(title), f"{path.name}:{number}")
        known.skipped = tuple(skipped)
        return known

    def where(self, row: Row) -> str | None:
        """Where the row stands already (``DECISIONS.md:12``), or None."""
        return self._places.get(normalize_title(row.title))


def _titles(lines: list[str]) -> Iterator[tuple[int, str]]:
    fenced = False
    for number, line in enumerate(lines, 1):
        if _FENCE.match(line):
            fenced = not fenced
        elif not fenced:
            for title in _of_line(line.rstrip("\r")):
                if normalize_title(title) not in _FORM:
                    yield number, title


def _of_line(line: str) -> Iterator[str]:
    heading = _HEADING.match(line)
    if heading is not None:
        yield heading[1]
        return
    table = _TABLE.match(line)
    if table is not None:
        yield from (cell.strip().strip("*`") for cell in table[1].split("|") if cell.strip(" -:"))
        return
    item = _ITEM.match(line)
    if item is not None:
        text = _TAGS.sub("", item[1])
        bold = _BOLD.match(text)
        if bold is not None:
            yield bold[1] or bold[2] or ""
        yield re.sub(r"\*\*|__|`", "", text).strip()
