"""A source that a test writes down."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ctxbackends.knowledge._records import Unit
from ctxbackends.knowledge._sources.base import Input, Piece, Segment, SkippedInput


class Lines:
    """Paragraphs, one a line; those that begin with ``#`` begin a section, those that are Skipped are skipped."""

    unit: Unit = "line"
    path: Path | None = None

    def __init__(self, *lines: str | SkippedInput, name: str = "notes.md") -> None:
        self.name = name
        self.lines = lines
        self.reads = 0

    def prepare(self) -> Input:
        return Input(name=self.name, sha256="0" * 64, size=sum(len(str(line)) for line in self.lines))

    def pieces(self) -> Iterator[Piece]:
        self.reads += 1
        for number, line in enumerate(self.lines, 1):
            if isinstance(line, SkippedInput):
                yield line
            else:
                yield Segment(text=line, first=number, last=number, boundary=2 if line.startswith("#") else 1)
