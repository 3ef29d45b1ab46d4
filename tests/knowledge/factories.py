"""A proposal and a source for the tests."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec

from ctxbackends.knowledge._proposals.model import Proposal
from ctxbackends.knowledge._proposals.store import write_proposal
from ctxbackends.knowledge._records import (
    Decision,
    Evidence,
    Kind,
    Learning,
    OpenQuestion,
    QuarantinedRow,
    Row,
    Task,
    Unit,
)
from ctxbackends.knowledge._sources.base import Input, Piece, Segment, SkippedInput
from tests.knowledge.test_markdown import FACTS

AT = Evidence(
    source="s.jsonl",
    quote="We keep option 1.",
    first=4,
    last=4,
    timestamp="2026-02-19T14:31:00Z",
    session_id="abc",
    branch="main",
)
IN = Evidence(source="notes.md", quote="It is late.", first=12, last=13)
ROWS = (
    Row(record=Decision("Keep option 1", "It was asked.", "It is cheap.", "Option 2 goes."), evidence=(AT, IN)),
    Row(record=Decision("Go home", "It is late.", "", "tbd"), evidence=(IN,), known_at="DECISIONS.md:3"),
    Row(
        record=Learning("Caches help", "It was slow.", "Prefixes are cached.", "Put what is stable first."),
        evidence=(IN,),
    ),
    Row(record=Task("Write it down", "high"), evidence=(AT,)),
    Row(record=OpenQuestion("Who pays?", "Nobody said."), evidence=(IN,)),
)
PROPOSAL = Proposal(
    facts=msgspec.structs.replace(FACTS, kinds=tuple(Kind)),
    rows=ROWS,
    quarantined=(
        QuarantinedRow(
            record=Task("Buy milk", "low"),
            reason="its quote is not in the source",
            quote="Milk!",
            where="notes.md:1-40",
        ),
    ),
)


def write_example(directory: Path) -> Path:
    """Write the proposal to ``directory/.context/proposals`` and return its path."""
    proposals = directory / ".context" / "proposals"
    proposals.mkdir(parents=True, exist_ok=True)
    return write_proposal(proposals, PROPOSAL)


class LinesSource:
    """A source with one paragraph on each line; ``#`` starts a section, and a SkippedInput is skipped."""

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
