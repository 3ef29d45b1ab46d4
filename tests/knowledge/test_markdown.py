"""Proposals as Markdown: they are read back as written, with any text."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from ctxbackends._util.text import one_line
from ctxbackends.knowledge._proposals.markdown import InvalidProposalError, parse, render
from ctxbackends.knowledge._proposals.model import Facts, Proposal
from ctxbackends.knowledge._records import (
    MATCHES,
    RECORDS,
    SPEAKERS,
    UNITS,
    Decision,
    Evidence,
    Kind,
    QuarantinedRow,
    Record,
    Row,
    Task,
)
from ctxbackends.knowledge._sources.base import Input, SkippedInput

FACTS = Facts(
    id="20261123T130500Z-notes",
    created="2026-11-23T13:05:00Z",
    command="ingest",
    kinds=(Kind.DECISION, Kind.TASK),
    backend="local",
    backend_type="llamacpp",
    endpoint="http://localhost:8080",
    requested_model="qwen3-4b",
    served_model="qwen3-4b",
    server_version="b8672",
    schema_sha256="a" * 64,
    enforcement="grammar",
    inputs=(Input(name="notes.md", sha256="b" * 64, size=1234),),
    chunks=1,
    input_tokens=900,
    output_tokens=80,
    cached_input_tokens=None,
    masked=0,
)
PROPOSAL = Proposal(
    facts=FACTS,
    rows=(
        Row(
            record=Decision("Use YAML", "Nobody edits JSON by hand.", "People edit it by hand.", "A parser comes in."),
            evidence=(
                Evidence(source="notes.md", quote="We chose YAML because people edit it by hand.", first=12, last=14),
                Evidence(
                    source="s.jsonl",
                    quote="YAML it is.",
                    first=17,
                    last=17,
                    speaker="user",
                    timestamp="2026-02-19T14:30:00.000Z",
                    session_id="3f2a",
                    branch="main",
                ),
            ),
            known_at="DECISIONS.md:12",
        ),
        Row(
            record=Task("Write the parser", "high"),
            evidence=(
                Evidence(
                    source="plan.pdf",
                    quote="The parser is to be written.",
                    first=3,
                    last=3,
                    unit="page",
                    match="folded",
                ),
            ),
        ),
    ),
    quarantined=(
        QuarantinedRow(
            record=Task("Buy milk", "low"),
            reason="its quote is not in the source",
            quote="Somebody buys milk.",
            where="notes.md:1-40",
        ),
    ),
    skipped=(
        SkippedInput(source="s.jsonl", line=9, reason="is not valid JSON"),
        SkippedInput(source="a.pdf", reason="is empty"),
    ),
)
FILE = """\
---
format: 1
id: "20261123T130500Z-notes"
created: "2026-11-23T13:05:00Z"
command: "ingest"
kinds: ["decision", "task"]
backend: "local"
backend_type: "llamacpp"
endpoint: "http://localhost:8080"
requested_model: "qwen3-4b"
served_model: "qwen3-4b"
server_version: "b8672"
schema_sha256: "{a}"
enforcement: "grammar"
chunks: 1
input_tokens: 900
output_tokens: 80
cached_input_tokens: null
masked: 0
rows: 2
quarantined: 1
skipped: 2
inputs:
  - {{"name": "notes.md", "sha256": "{b}", "size": 1234}}
---

# 2 rows from notes.md

Proposed by qwen3-4b (llamacpp at http://localhost:8080) on 2026-11-23. `.context/*.md` was not changed.
Review the rows with `ctxbackends proposals review 20261123T130500Z-notes`.

## Decisions

### d1: Use YAML

- **Context:** Nobody edits JSON by hand.
- **Rationale:** People edit it by hand.
- **Consequence:** A parser comes in.
- **Already in:** DECISIONS.md:12

> We chose YAML because people edit it by hand.
>
> notes.md:12-14

> YAML it is.
>
> s.jsonl:17 · speaker user · at 2026-02-19T14:30:00.000Z · session 3f2a · branch main

## Tasks

### t1: Write the parser

- **Priority:** high

> The parser is to be written.
>
> plan.pdf, page 3 · matched after folding

## Quarantined

These rows have no valid evidence. Accept one with a quote of your own: `ctxbackends proposals requote`.

### x1: Buy milk

- **Kind:** task
- **Priority:** low
- **Reason:** its quote is not in the source
- **Source:** notes.md:1-40

> Somebody buys milk.

## Not read

- s.jsonl · line 9 · is not valid JSON
- a.pdf · is empty
""".format(a="a" * 64, b="b" * 64)


def test_render() -> None:
    assert FILE == render(PROPOSAL)
    assert PROPOSAL == parse(FILE)


def test_a_proposal_without_speakers_is_read() -> None:
    """Earlier proposals have none."""
    row = PROPOSAL.rows[0]
    evidence = tuple(msgspec.structs.replace(one, speaker=None) for one in row.evidence)
    expected = (msgspec.structs.replace(row, evidence=evidence), *PROPOSAL.rows[1:])
    assert expected == parse(FILE.replace(" · speaker user", "")).rows


def test_a_row_whose_only_evidence_is_a_summary_says_so() -> None:
    said = Evidence(source="s.jsonl", quote="YAML it is.", first=17, last=17, speaker="user")
    summary = Evidence(source="s.jsonl", quote="YAML it is.", first=40, last=40, speaker="summary")
    record = Decision("Use YAML", "Asked.", "Easy.", "A parser.")
    line = "- **Only evidence:** a summary that the agent wrote"
    for evidence, is_marked in (
        ((summary,), True),
        ((summary, summary), True),
        ((summary, said), False),
        ((said,), False),
    ):
        row = Row(record=record, evidence=evidence)
        text = render(Proposal(facts=FACTS, rows=(row,)))
        assert is_marked == (line in text.split("\n"))
        assert (row,) == parse(text).rows


def test_row_names() -> None:
    assert ["d1", "t1"] == list(PROPOSAL.rows_by_name())


def test_windows_line_ends_are_read() -> None:
    assert PROPOSAL == parse(FILE.replace("\n", "\r\n"))


hostile = st.one_of(
    st.text(max_size=40),
    st.sampled_from(
        [
            "---",
            "# heading",
            "## Decisions",
            "### d1: x",
            "- **Context:** x",
            "> quote",
            "<!-- hidden -->",
            "</details><script>alert(1)</script>",
            "![x](http://tracker/x.png)",
            "[x](javascript:alert(1))",
            "a · line 3 · b",
            "notes.md:12-14",
            "plan.pdf, page 3",
            "`code` \\ \\\\ \\< &lt; &amp;",
            "'\": {}[]|>%@`!&*#?-,",
            "\u2028\x85\x1b[2J\x00\ufeff",
            "yes",
            "null",
            "{{x}}",
            "😀 é 中文",
        ]
    ),
).map(one_line)
titles = hostile.filter(lambda text: text != "")


@st.composite
def records(draw: st.DrawFn) -> Record:
    kind = draw(st.sampled_from(Kind))
    if kind is Kind.TASK:
        return Task(draw(titles), draw(st.sampled_from(["low", "medium", "high"])))
    record: Any = RECORDS[kind]
    instance: Record = record(draw(titles), *(draw(hostile) for _ in record.__struct_fields__[1:]))
    return instance


@st.composite
def evidence(draw: st.DrawFn) -> Evidence:
    first = draw(st.integers(1, 10**6))
    return Evidence(
        source=draw(titles),
        quote=draw(titles),
        first=first,
        last=first + draw(st.integers(0, 10)),
        unit=draw(st.sampled_from(UNITS)),
        match=draw(st.sampled_from(MATCHES)),
        speaker=draw(st.none() | st.sampled_from(SPEAKERS)),
        timestamp=draw(st.none() | titles),
        session_id=draw(st.none() | titles),
        branch=draw(st.none() | titles),
    )


rows = st.builds(
    Row, record=records(), evidence=st.lists(evidence(), min_size=1, max_size=3).map(tuple), known_at=st.none() | titles
)
proposals = st.builds(
    Proposal,
    facts=st.builds(
        lambda text, name: Facts(
            **{
                **{field: getattr(FACTS, field) for field in FACTS.__struct_fields__},
                "served_model": text,
                "backend": text,
                "inputs": (Input(name=name, sha256="c" * 64, size=1),),
            }
        ),
        hostile,
        titles,
    ),
    rows=st.lists(rows, max_size=4).map(lambda rows_: tuple(sorted(rows_, key=lambda row: list(Kind).index(row.kind)))),
    quarantined=st.lists(
        st.builds(QuarantinedRow, record=records(), reason=titles, quote=hostile, where=titles), max_size=2
    ).map(tuple),
    skipped=st.lists(
        st.builds(SkippedInput, source=titles, reason=titles, line=st.none() | st.integers(1, 99)), max_size=2
    ).map(tuple),
)


@given(proposals)
def test_round_trip(proposal: Proposal) -> None:
    text = render(proposal)
    assert proposal == parse(text)
    # Programs read the facts with any YAML reader.
    front = YAML(typ="safe", pure=True).load(text.split("\n---\n")[0] + "\n")
    assert (proposal.facts.served_model, len(proposal.rows)) == (front["served_model"], front["rows"])
    assert [item.name for item in proposal.facts.inputs] == [one["name"] for one in front["inputs"]]


@given(hostile)
def test_hostile_text_renders_as_text(text: str) -> None:
    """What would open HTML, a comment, an image or a link in a renderer has a backslash in front."""
    body = render(
        Proposal(facts=FACTS, rows=(Row(record=Task(text or "x", "low"), evidence=PROPOSAL.rows[1].evidence),))
    ).split("\n---\n")[1]
    for sign in "<[&":
        assert all(body[at - 1] == "\\" for at in range(len(body)) if body[at] == sign)


@pytest.mark.parametrize(
    ("old", "new", "line", "problem"),
    [
        ("---\nformat", "format", 1, "expected --- in the first line"),
        ("format: 1", "format: 2", 1, "unsupported format; only format 1 is supported"),
        ("rows: 2", "rows: 3", 1, "the front matter says rows: 3, but the file has 2"),
        ("chunks: 1\n", "", 1, "invalid front matter: Object missing required field `chunks`"),
        ("chunks: 1", "chunks: one", 15, "invalid JSON value"),
        ("### d1", "### d2", 32, "expected the row d1"),
        (
            "- **Rationale:** People edit it by hand.\n",
            "",
            38,
            "invalid decision: Object missing required field `rationale`",
        ),
        ("- **Priority:** high", "- **Priority:** huge", 53, "invalid task: Invalid enum value 'huge'"),
        ("> notes.md:12-14", "> somewhere", 46, "expected a place, such as notes.md:12-14"),
        ("speaker user", "speaker somebody", 47, "unknown speaker: somebody; the speakers are user, assistant, tool"),
        ("## Tasks", "## Chores", 48, "unknown section: 'Chores'"),
        ("> The parser is to be written.\n>\n", "", 56, "expected at least one quote with its place"),
    ],
)
def test_errors_have_a_line(old: str, new: str, line: int, problem: str) -> None:
    assert old in FILE
    with pytest.raises(InvalidProposalError) as exc_info:
        parse(FILE.replace(old, new, 1))
    assert problem in str(exc_info.value)
    assert abs(line - exc_info.value.line) <= 4, exc_info.value.line


@given(st.text(max_size=200))
def test_any_text_parses_or_raises(text: str) -> None:
    for item in (text, FILE.replace("Use YAML", text), FILE.replace("## Tasks", text)):
        with suppress(InvalidProposalError):
            assert isinstance(parse(item), Proposal)
