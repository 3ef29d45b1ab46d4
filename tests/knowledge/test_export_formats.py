"""The export of accepted rows: JSON for the Go tool, Markdown, decision records and CSV."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ctxbackends.knowledge._proposals.existing import ExistingEntries
from ctxbackends.knowledge._proposals.export import Format, build_payload, find_gaps, rename_field
from ctxbackends.knowledge._proposals.formats import neutralize, render_csv, render_markdown
from ctxbackends.knowledge._proposals.madr import choose_files, render_madr
from ctxbackends.knowledge._records import Decision, Evidence, Learning, Record, Risk, Row, Task, Unit
from tests.knowledge.commands import ctx, project, snapshot_context
from tests.knowledge.factories import AT, IN, PROPOSAL, write_example

ID = "20261123T130500Z-notes"
ROWS_BY_NAME = PROPOSAL.rows_by_name()
# The keys of the Go tool's payload, which it decodes strictly.
GO_KEYS = {
    *("title", "body", "context", "rationale", "consequence", "lesson", "application", "priority", "section"),
    "provenance",
}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    project(tmp_path, None)
    write_example(tmp_path)
    return tmp_path


def export(directory: Path, *arguments: str, code: int = 0) -> tuple[str, str]:
    result = ctx(directory, "proposals", "export", *arguments)
    assert code == result.code, result.err
    return result.out, result.err


# --- JSON for the Go tool -------------------------------------------------------------------------------


def test_payloads_for_the_go_tool() -> None:
    quotes = (
        's.jsonl:4 (2026-02-19T14:31:00Z): "We keep option 1."',
        'notes.md:12-13: "It is late."',
    )
    provenance = {"session_id": "abc", "branch": "main"}
    assert {
        "title": "Keep option 1",
        "context": f"It was asked. [source: {'; '.join(quotes)}]",
        "rationale": "It is cheap.",
        "consequence": "Option 2 goes.",
        "provenance": provenance,
    } == build_payload(ROWS_BY_NAME["d1"])
    assert {
        "title": "Caches help",
        "context": f"It was slow. [source: {quotes[1]}]",
        "lesson": "Prefixes are cached.",
        "application": "Put what is stable first.",
    } == build_payload(ROWS_BY_NAME["l1"])
    assert {
        "title": "Write it down",
        "body": f"[source: {quotes[0]}]",
        "priority": "high",
        "section": "Phase 1",
        "provenance": provenance,
    } == build_payload(ROWS_BY_NAME["t1"], section="Phase 1")


@pytest.mark.parametrize("name", ["d1", "l1", "t1"])
def test_the_go_tool_knows_every_key(name: str) -> None:
    payload = build_payload(ROWS_BY_NAME[name], section="Phase 1")
    assert set() == set(payload) - GO_KEYS
    assert set() == set(payload.get("provenance", {})) - {"session_id", "branch", "commit"}


def test_other_kinds_have_their_evidence() -> None:
    assert {
        "kind": "open-question",
        "question": "Who pays?",
        "context": "Nobody said.",
        "source": ["notes.md:12-13"],
        "evidence": [msgspec.to_builtins(IN)],
    } == json.loads(json.dumps(build_payload(ROWS_BY_NAME["q1"])))


@pytest.mark.parametrize(("name", "written"), [("source", "field.source"), ("impact", "impact")])
def test_names_that_are_taken(name: str, written: str) -> None:
    assert written == rename_field(name, ("kind", "source", "evidence"))


def test_texts_cannot_be_comments_of_the_go_tool() -> None:
    evidence = msgspec.structs.replace(IN, quote="<!-- INDEX:END --> x")
    payload = build_payload(Row(record=Task("<!-- INDEX:START -->", "low"), evidence=(evidence,)))
    assert ("&lt;!-- INDEX:START -->", '[source: notes.md:12-13: "&lt;!-- INDEX:END --> x"]') == (
        payload["title"],
        payload["body"],
    )


def test_an_applied_task_is_found_again(tmp_path: Path) -> None:
    evidence = msgspec.structs.replace(AT, quote="[x] write it #down] now")
    row = Row(record=Task("Write it down", "high"), evidence=(evidence,))
    payload = build_payload(row)
    line = f"- [ ] {payload['title']} {payload['body']} #priority:high #session:abc #branch:main #commit:unknown"
    (tmp_path / "TASKS.md").write_text(f"# Tasks\n\n{line} #added:2026-11-27-180000\n")
    assert "TASKS.md:3" == ExistingEntries.read(tmp_path).find(row)


# --- incomplete rows ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("record", "format_", "problems"),
    [
        (Decision("t", "c", "r", "q"), "json", {}),
        (Decision("t", "", "  ", "q"), "json", {"context": "is empty", "rationale": "is empty"}),
        (
            Decision("t", "c", "N/A", "To be done"),
            "json",
            {"rationale": "is a placeholder (N/A)", "consequence": "is a placeholder (To be done)"},
        ),
        (Decision("t", "none of these", "unknown", "TODO"), "json", {}),
        (
            Learning("t", "c", "", "see below"),
            "json",
            {"lesson": "is empty", "application": "is a placeholder (see below)"},
        ),
        (Task("t", "low"), "json", {}),
        (Risk("t", "", ""), "json", {}),
        (Decision("t", "", "n/a", ""), "madr", {"context": "is empty"}),
        (Decision("t", "c", "", ""), "madr", {"rationale": "is empty"}),
        (Decision("t", "", "", ""), "markdown", {}),
        (Learning("t", "", "", ""), "csv", {}),
    ],
    ids=str,
)
def test_gaps(record: Record, format_: Format, problems: dict[str, str]) -> None:
    assert problems == find_gaps(Row(record=record, evidence=(IN,)), format_)


def test_complete_rows_are_exported_and_the_others_are_listed(directory: Path) -> None:
    ctx(directory, "proposals", "accept", "--all")
    ctx(directory, "proposals", "edit", ID, "l1", "--set", "lesson=pending")
    out, err = export(directory, code=1)
    assert ["Keep option 1", "Write it down", "Who pays?"] == [
        line.get("title") or line["question"] for line in map(json.loads, out.splitlines())
    ]
    assert err == (
        "left out, since fields are missing: 2 rows; fill them in (key e of ctxbackends proposals review "
        f"{ID} --all), or run:\n"
        "  d2: rationale is empty, consequence is a placeholder (tbd): "
        f"ctxbackends proposals edit {ID} d2 --set rationale=... --set consequence=...\n"
        "  l1: lesson is a placeholder (pending): "
        f"ctxbackends proposals edit {ID} l1 --set lesson=...\n"
    )
    assert (out, err) == export(directory, "--skip-incomplete")
    ctx(directory, "proposals", "edit", ID, "d2", "--set", "rationale=It was late.", "--set", "consequence=We sleep.")
    ctx(directory, "proposals", "edit", ID, "l1", "--set", "lesson=Prefixes are cached.")
    out, err = export(directory)
    assert (5, "") == (len(out.splitlines()), err)


def test_no_row_is_complete(directory: Path) -> None:
    ctx(directory, "proposals", "accept", "d2")
    out, err = export(directory, "-o", "out.jsonl", code=1)
    assert ("", False) == (out, (directory / "out.jsonl").exists())
    assert "d2: rationale is empty" in err


def test_only_accepted_rows_of_the_kinds(directory: Path) -> None:
    assert ("", "nothing to export: no accepted rows of these kinds\n") == export(directory)
    ctx(directory, "proposals", "accept", "d1", "t1")
    out, _ = export(directory, ID, "--kind", "tasks", "--section", "Phase 1")
    assert [("Write it down", "Phase 1")] == [(one["title"], one["section"]) for one in map(json.loads, [out])]
    assert ("", "nothing to export: no accepted rows of these kinds\n") == export(directory, "--kind", "risks")


# --- Markdown -------------------------------------------------------------------------------------------


def test_markdown(directory: Path) -> None:
    ctx(directory, "proposals", "accept", "d1", "d2", "q1")
    out, err = export(directory, "--format", "markdown")
    assert (
        """\
# 3 rows from notes.md

Accepted in the proposal `20261123T130500Z-notes`.

## Decisions

### Keep option 1

- **Context:** It was asked.
- **Rationale:** It is cheap.
- **Consequence:** Option 2 goes.

> We keep option 1.
>
> — s.jsonl:4 (2026-02-19T14:31:00Z)

> It is late.
>
> — notes.md:12-13

### Go home

- **Context:** It is late.
- **Consequence:** tbd
- **Already in:** DECISIONS.md:3

> It is late.
>
> — notes.md:12-13

## Open questions

### Who pays?

- **Context:** Nobody said.

> It is late.
>
> — notes.md:12-13
""",
        "",
    ) == (out, err)


@pytest.mark.parametrize(
    ("unit", "place"),
    [("page", "paper.pdf, page 3"), ("slide", "paper.pdf, slide 3"), ("cell", "paper.pdf, cell 3")],
)
def test_places_in_documents(unit: Unit, place: str) -> None:
    evidence = Evidence(source="paper.pdf", quote="It is late.", first=3, last=3, unit=unit, match="folded")
    rows = {"d1": Row(record=Decision("t", "c", "r", "q"), evidence=(evidence,))}
    assert f"> — {place}, matched after folding\n" in render_markdown(PROPOSAL, rows)
    assert place in render_madr(rows["d1"], name="d1", proposal=ID, accepted_at="2026-11-27T18:00:00Z")
    assert place in build_payload(rows["d1"])["context"]
    [_, cells] = csv.reader(io.StringIO(render_csv(PROPOSAL, rows)))
    assert ["It is late.", "folded", "", "paper.pdf", unit, "3", "3"] == cells[-10:-3]


@pytest.mark.parametrize(
    ("quote", "line"),
    [
        ("# Not a heading", "> \\# Not a heading"),
        ("1. not a list", "> 1\\. not a list"),
        ("- not a list", "> \\- not a list"),
        ("see [this](javascript:x) <b>", "> see \\[this](javascript:x) \\<b>"),
        ("a & b", "> a \\& b"),
        ("1.5 GB", "> 1.5 GB"),
        ("plain", "> plain"),
    ],
)
def test_a_quote_cannot_be_markup(quote: str, line: str) -> None:
    row = Row(record=Task("t", "low"), evidence=(msgspec.structs.replace(IN, quote=quote),))
    assert f"\n{line}\n" in render_markdown(PROPOSAL, {"t1": row})


def test_a_summary_as_the_only_evidence_is_said(directory: Path) -> None:
    evidence = msgspec.structs.replace(IN, speaker="summary")
    row = Row(record=Decision("t", "c", "r", "q"), evidence=(evidence,))
    assert "- **Only evidence:** a summary that the agent wrote\n" in render_markdown(PROPOSAL, {"d1": row})
    record = render_madr(row, name="d1", proposal=ID, accepted_at="2026-11-27T18:00:00Z")
    assert "\nThe only evidence is a summary that the agent wrote.\n" in record
    assert "(summary)" in build_payload(row)["context"]


# --- decision records -----------------------------------------------------------------------------------


def test_a_decision_record() -> None:
    evidence = (msgspec.structs.replace(AT, speaker="user"), IN)
    row = msgspec.structs.replace(ROWS_BY_NAME["d1"], evidence=evidence)
    assert """\
---
status: accepted
date: 2026-02-19
---

# Keep option 1

## Context and Problem Statement

It was asked.

## Considered Options

* Keep option 1

## Decision Outcome

Chosen option: "Keep option 1", because It is cheap.

### Consequences

* Option 2 goes.

## More Information

> We keep option 1.
>
> — s.jsonl:4 (user, 2026-02-19T14:31:00Z)

> It is late.
>
> — notes.md:12-13

Row `d1` of the proposal `20261123T130500Z-notes`.
""" == render_madr(row, name="d1", proposal=ID, accepted_at="2026-11-27T18:00:00Z")


def test_a_record_without_consequence_and_times() -> None:
    row = Row(record=Decision("Go home", "It is late.", "Sleep helps.", ""), evidence=(IN,))
    record = render_madr(row, name="d2", proposal=ID, accepted_at="2026-11-27T18:00:00Z")
    assert "date: 2026-11-27\n" in record
    assert "Consequences" not in record


def test_records_are_numbered_after_those_that_exist(directory: Path) -> None:
    ctx(directory, "proposals", "edit", ID, "d2", "--set", "rationale=Sleep helps.")
    ctx(directory, "proposals", "accept", "--all")
    records = directory / "adr"
    records.mkdir()
    for name in ("0000-use-madr.md", "0007-seven.md", "2026-11-23-a-day.md", "20261123T130500Z-notes.md", "9-x.txt"):
        (records / name).write_text("mine\n")
    out, err = export(directory, "--format", "madr", "-o", "adr")
    assert ["adr/0008-keep-option-1.md", "adr/0009-go-home.md"] == out.splitlines()
    assert "not exported, since MADR has only decisions: l1 t1 q1\n" == err
    assert "mine\n" == (records / "0007-seven.md").read_text()
    # Again, nothing is new, and a decision that was edited since needs --force.
    assert "" == export(directory, "--format", "madr", "-o", "adr")[0]
    ctx(directory, "proposals", "edit", ID, "d2", "--set", "rationale=We are tired.")
    _, err = export(directory, "--format", "madr", "--dir", "adr", code=1)
    assert "file exists with other content: adr/0009-go-home.md; use --force to replace it" in err
    assert "Sleep helps." in (records / "0009-go-home.md").read_text()
    assert "adr/0009-go-home.md\n" == export(directory, "--format", "madr", "-o", "adr", "--force")[0]
    assert "We are tired." in (records / "0009-go-home.md").read_text()


def test_records_on_standard_output(directory: Path) -> None:
    ctx(directory, "proposals", "edit", ID, "d2", "--set", "rationale=Sleep helps.")
    ctx(directory, "proposals", "accept", "d1", "d2")
    out, _ = export(directory, "--format", "madr")
    assert ["# Keep option 1", "# Go home"] == re.findall("^# .*$", out, re.MULTILINE)


@pytest.mark.parametrize(
    ("existing", "title", "name"),
    [
        ([], "Keep option 1", "0001-keep-option-1.md"),
        (["001-one.md"], "Keep option 1", "002-keep-option-1.md"),
        (["0099-x.md", "0100-y.md"], "Use ../YAML, not JSON!", "0101-use-yaml-not-json.md"),
        ([], "采用微服务架构", "0001-采用微服务架构.md"),
        ([], "?!", "0001-d1.md"),
        ([], "w" * 100, f"0001-{'w' * 60}.md"),
    ],
)
def test_names_of_records(tmp_path: Path, existing: list[str], title: str, name: str) -> None:
    for one in existing:
        (tmp_path / one).write_text("mine\n")
    row = Row(record=Decision(title, "c", "r", ""), evidence=(IN,))
    assert {"d1": tmp_path / name} == choose_files(tmp_path, {"d1": row}, proposal=ID)


# --- CSV ------------------------------------------------------------------------------------------------


def test_csv(directory: Path) -> None:
    ctx(directory, "proposals", "accept", "d1", "d2", "t1")
    out, err = export(directory, "--format", "csv")
    assert "" == err
    header, *lines = csv.reader(io.StringIO(out))
    assert header == [
        *("proposal", "row", "kind", "title", "context", "rationale", "consequence", "priority"),
        *("quote", "match", "speaker", "source", "unit", "first", "last", "time", "session", "branch"),
    ]
    late = ["It is late.", "exact", "", "notes.md", "line", "12", "13", "", "", ""]
    kept = ["We keep option 1.", "exact", "", "s.jsonl", "line", "4", "4", "2026-02-19T14:31:00Z", "abc", "main"]
    option = [ID, "d1", "decision", "Keep option 1", "It was asked.", "It is cheap.", "Option 2 goes.", ""]
    assert lines == [
        [*option, *kept],
        [*option, *late],
        [ID, "d2", "decision", "Go home", "It is late.", "", "tbd", "", *late],
        [ID, "t1", "task", "Write it down", "", "", "", "high", *kept],
    ]


@pytest.mark.parametrize(
    ("cell", "written"),
    [
        ('=HYPERLINK("x")', '\'=HYPERLINK("x")'),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("\t=1", "'\t=1"),
        ("\r=1", "'\r=1"),
        ("\n=1", "'\n=1"),
        ("\uff1d1", "'\uff1d1"),
        ("'quoted'", "''quoted'"),
        ("1 + 1 = 2", "1 + 1 = 2"),
        ("", ""),
    ],
)
def test_cells_are_no_formulas(cell: str, written: str) -> None:
    assert written == neutralize(cell)
    row = Row(record=Decision(cell, cell, cell, cell), evidence=(msgspec.structs.replace(IN, quote=cell, source=cell),))
    [_, cells] = csv.reader(io.StringIO(render_csv(PROPOSAL, {"d1": row}), newline=""))
    assert [written] * 4 == cells[3:7]
    assert (written, written) == (cells[7], cells[10])


def test_cells_with_separators_survive() -> None:
    text = 'a "b", c;\nd'
    row = Row(record=Task("t", "low"), evidence=(msgspec.structs.replace(IN, quote=text),))
    [header, cells] = csv.reader(io.StringIO(render_csv(PROPOSAL, {"t1": row}), newline=""))
    assert text == cells[header.index("quote")]


# --- files ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("format_", ["json", "markdown", "csv"])
def test_a_file_has_the_text_of_standard_output(directory: Path, format_: str) -> None:
    ctx(directory, "proposals", "accept", "d1", "t1")
    text, _ = export(directory, "--format", format_)
    assert "out.txt\n" == export(directory, "--format", format_, "-o", "out.txt")[0]
    path = directory / "out.txt"
    assert text.encode() == path.read_bytes()
    assert "" == export(directory, "--format", format_, "-o", "out.txt")[0]
    path.write_text("mine")
    _, err = export(directory, "--format", format_, "-o", "out.txt", code=1)
    assert ("mine", True) == (path.read_text(), "file exists with other content: out.txt; use --force" in err)
    export(directory, "--format", format_, "-o", "out.txt", "--force")
    assert text.encode() == path.read_bytes()


def test_files_for_the_go_tool(directory: Path) -> None:
    ctx(directory, "proposals", "accept", "d1", "t1")
    names = [f"out/{ID}-decision-d1.json", f"out/{ID}-task-t1.json"]
    assert names == export(directory, "--dir", "out")[0].splitlines()
    assert "Keep option 1" == json.loads((directory / names[0]).read_text())["title"]
    assert "" == export(directory, "--dir", "out")[0]


def test_no_file_is_written_if_one_exists(directory: Path) -> None:
    ctx(directory, "proposals", "accept", "d1", "t1")
    (directory / "out").mkdir()
    existing = directory / "out" / f"{ID}-task-t1.json"
    existing.write_text("mine")
    _, err = export(directory, "--dir", "out", code=1)
    assert "file exists with other content" in err
    assert ([existing], "mine") == ([*existing.parent.iterdir()], existing.read_text())


@pytest.mark.parametrize(
    "arguments",
    [
        ["-o", ".context/DECISIONS.md", "--force"],
        ["-o", ".context/NEW.md", "--format", "markdown"],
        pytest.param(["-o", "link.md", "--format", "csv", "--force"], marks=pytest.mark.posix),
        ["-o", ".context", "--format", "madr"],
        ["--dir", ".context"],
    ],
    ids=str,
)
def test_the_context_files_are_never_written(directory: Path, arguments: list[str]) -> None:
    if "link.md" in arguments:
        (directory / "link.md").symlink_to(directory / ".context" / "DECISIONS.md")
    ctx(directory, "proposals", "accept", "d1")
    before = snapshot_context(directory)
    _, err = export(directory, *arguments, code=1)
    assert "cannot write proposals to the context directory itself" in err
    assert before == snapshot_context(directory)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--format", "csv", "--dir", "out"], 2, "--dir is not supported with --format csv; use -o FILE"),
        (["-o", "a", "--dir", "b"], 2, "-o and --dir are mutually exclusive"),
        (["--format", "yaml"], 2, "'yaml' is not one of 'json', 'markdown', 'madr', 'csv'"),
        (["-o", "no/such/out.csv", "--format", "csv"], 1, "cannot write no/such/out.csv: No such file or directory"),
        (["-o", ".", "--format", "csv"], 1, "cannot write .: "),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_invalid_arguments(directory: Path, arguments: list[str], code: int, message: Any) -> None:
    ctx(directory, "proposals", "accept", "d1")
    out, err = export(directory, *arguments, code=code)
    assert ("", True) == (out, message in err), err
