"""A proposal as a run leaves it, for tests of what comes after."""

from __future__ import annotations

from pathlib import Path

import msgspec

from ctxbackends.knowledge._proposals.model import Proposal
from ctxbackends.knowledge._proposals.store import write_proposal
from ctxbackends.knowledge._records import Decision, Evidence, Kind, Learning, OpenQuestion, QuarantinedRow, Row, Task
from tests.knowledge.test_layout import FACTS

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
            reason="quote not found in the source",
            quote="Milk!",
            where="notes.md:1-40",
        ),
    ),
)


def made(directory: Path) -> Path:
    """The file, in ``directory/.context/proposals``."""
    proposals = directory / ".context" / "proposals"
    proposals.mkdir(parents=True, exist_ok=True)
    return write_proposal(proposals, PROPOSAL)
