"""The entries of ``.context/*.md``: their titles and places. The files are only read.

Entries are headings (``## [2026-02-26-100000] Title``), tasks and list items, and rows of index tables, in the format
of the Go tool ``ctx``.
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
_SOURCE = re.compile(r"\s+\[source: .*\](?=\s+#|\s*$)")  # the quotes at the end of a task that was applied
_FENCE = re.compile(r" {0,3}(```|~~~)")
# Headings and bold words that label a part of an entry.
_LABELS = frozenset(
    (
        *("context", "rationale", "consequence", "consequences", "lesson", "application", "decision", "status"),
        *("impact", "mitigation", "definition", "alternatives considered", "discovered"),
        *("in progress", "next up", "completed", "completed recent", "blocked"),
    )
)


class ExistingEntries:
    """The entries by title. ``skipped``: files that could not be read."""

    def __init__(self) -> None:
        self._places: dict[str, str] = {}
        self.skipped: tuple[SkippedInput, ...] = ()

    @classmethod
    def read(cls, context: Path) -> ExistingEntries:
        """Read the ``*.md`` files of a directory, without its subdirectories."""
        entries = cls()
        skipped = []
        for path in sorted(context.glob("*.md")):
            try:
                lines = path.read_bytes().decode().split("\n")
            except (OSError, UnicodeDecodeError) as error:
                reason = "is not UTF-8" if isinstance(error, UnicodeDecodeError) else error.strerror or "cannot be read"
                skipped.append(
                    SkippedInput(source=f"{context.name}/{path.name}", reason=f"not searched for duplicates: {reason}")
                )
                continue
            for number, title in _find_titles(lines):
                entries._places.setdefault(normalize_title(title), f"{path.name}:{number}")
        entries.skipped = tuple(skipped)
        return entries

    def find(self, row: Row) -> str | None:
        """Return the place of the entry with the row's title (``DECISIONS.md:12``), or None."""
        return self._places.get(normalize_title(row.title))


def _find_titles(lines: list[str]) -> Iterator[tuple[int, str]]:
    in_fence = False
    for number, line in enumerate(lines, 1):
        if _FENCE.match(line):
            in_fence = not in_fence
        elif not in_fence:
            for title in _find_titles_in_line(line.rstrip("\r")):
                if normalize_title(title) not in _LABELS:
                    yield number, title


def _find_titles_in_line(line: str) -> Iterator[str]:
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
        text = _TAGS.sub("", _SOURCE.sub("", item[1]))
        bold = _BOLD.match(text)
        if bold is not None:
            yield bold[1] or bold[2] or ""
        yield re.sub(r"\*\*|__|`", "", text).strip()
