"""A project for the tests of the review: sources, and a proposal whose quotes were verified in them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import msgspec

from ctxbackends.knowledge._extract.chunker import Chunk
from ctxbackends.knowledge._extract.citations import QuoteChecker
from ctxbackends.knowledge._privacy.masking import mask
from ctxbackends.knowledge._proposals.model import Proposal
from ctxbackends.knowledge._proposals.store import write_proposal
from ctxbackends.knowledge._records import Decision, Evidence, Kind, Learning, OpenQuestion, QuarantinedRow, Row, Task
from ctxbackends.knowledge._sources.base import Segment
from ctxbackends.knowledge._sources.formats import source_of
from tests.knowledge.commands import project
from tests.knowledge.test_markdown import FACTS

PLAN = """\
# The plan of the greenhouse

All of us were at the meeting.
Rain fell on the roof.

- The pumps run **at night**, when power
  is cheap.
- The door stays shut. <img src=x onerror=alert(1)> is a text.
- The password=hunter2hunter2 opens it.

## Rest

The sensor said \x1b[31mhot\x1b[0m all the day.

Nobody decided on the paint.
"""
SECRET = "hunter2hunter2"


def turn(role: str, text: str, minute: int) -> str:
    return json.dumps(
        {
            "type": role,
            "message": {"role": role, "content": text},
            "timestamp": f"2026-11-20T09:0{minute}:00Z",
            "sessionId": "s1",
            "uuid": str(minute),
            "cwd": "/x",
            "version": "2.0",
        }
    )


SESSION = "\n".join(
    (
        turn("user", "How do we water the plants?", 1),
        turn("assistant", "In one of two ways:\n\n- by hand\n- by a pump\n\nI would take the pump.", 2),
        turn("user", "Take the pump. Order two of them.", 3),
    )
)


def cite(directory: Path, name: str, quote: str) -> Evidence:
    """The evidence of a quote in a file, as a run finds it."""
    source = source_of(directory / name, name=name)
    source.prepare()
    segments = tuple(
        msgspec.structs.replace(piece, text=mask(piece.text)[0])
        for piece in source.pieces()
        if isinstance(piece, Segment)
    )
    found = QuoteChecker(Chunk(source=name, unit=source.unit, segments=segments)).find(quote, 1)
    assert not isinstance(found, str), (quote, found)
    return found[0]


def build(
    directory: Path, names: Sequence[str], rows: Sequence[Row], quarantined: Sequence[QuarantinedRow] = ()
) -> Proposal:
    """A proposal of rows, and the hashes of the sources."""
    inputs = tuple(source_of(directory / name, name=name).prepare() for name in names)
    facts = msgspec.structs.replace(FACTS, kinds=tuple(Kind), inputs=inputs)
    return Proposal(facts=facts, rows=tuple(rows), quarantined=tuple(quarantined))


def write_sources(directory: Path) -> None:
    (directory / "plan.md").write_text(PLAN)
    (directory / "s.jsonl").write_text(SESSION)


def build_example(directory: Path) -> Proposal:
    """Four rows and two quarantined ones: d1, l1, t1, q1, x1 and x2."""
    rows = (
        Row(
            record=Decision("Water by a pump", "It has to be done.", "It is cheap.", "Two pumps are ordered."),
            evidence=(
                cite(directory, "plan.md", "The pumps run at night, when power is cheap"),
                cite(directory, "s.jsonl", "Take the pump"),
            ),
        ),
        Row(
            record=Learning("The sensor is wrong", "", "It said hot.", ""),
            evidence=(cite(directory, "plan.md", "The sensor said \x1b[31mhot\x1b[0m all the day."),),
            known_at="LEARNINGS.md:7",
        ),
        Row(record=Task("Order two pumps", "high"), evidence=(cite(directory, "s.jsonl", "Order two of them."),)),
        Row(
            record=OpenQuestion("Which paint?", "It peels."),
            evidence=(cite(directory, "plan.md", "Nobody decided on the paint."),),
        ),
    )
    quarantined = (
        QuarantinedRow(
            record=Decision("Shut the door", "It is cold.", "", ""),
            reason="its quote is not in the source",
            quote="The door is always shut.",
            where="plan.md:1-15",
        ),
        QuarantinedRow(record=Task("", "low"), reason="no title", quote="", where="plan.md:1-15"),
    )
    return build(directory, ("plan.md", "s.jsonl"), rows, quarantined)


def write_project(directory: Path) -> Path:
    """Write the sources and the proposal; the path of the proposal."""
    project(directory, None)
    write_sources(directory)
    proposals = directory / ".context" / "proposals"
    proposals.mkdir(parents=True, exist_ok=True)
    return write_proposal(proposals, build_example(directory))
