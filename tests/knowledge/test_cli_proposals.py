"""The command ``ctxbackends proposals``, with and without a terminal."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from tests.knowledge.commands import WITHIN, ctx, environment, project, snapshot_context
from tests.knowledge.factories import write_example

with suppress(ImportError):  # not on Windows
    import pty

ID = "20261123T130500Z-notes"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    project(tmp_path, None)
    write_example(tmp_path)
    return tmp_path


def test_list(directory: Path) -> None:
    assert 0 == ctx(directory, "proposals", "accept", "d1").code
    (directory / ".context" / "proposals" / "20261124T000000Z-x.md").write_text("---\n")
    result = ctx(directory, "proposals", "list")
    header, first, second = result.out.rstrip("\n").split("\n")
    assert ["id", "rows", "accepted", "rejected", "quarantined", "model", "problem"] == header.split()
    assert [ID, "5", "1", "0", "1", "qwen3-4b"] == first.split()
    assert "20261124T000000Z-x" == second.split()[0]
    assert "expected --- at the end of the front matter" in second
    rows = json.loads(ctx(directory, "proposals", "list", "--json").out)
    assert [(5, 1, 0, ["notes.md"])] == [(o["rows"], o["accepted"], o["rejected"], o["inputs"]) for o in rows[:1]]


def test_list_without_proposals(tmp_path: Path) -> None:
    project(tmp_path, None)
    result = ctx(tmp_path, "proposals", "list")
    assert (0, "") == (result.code, result.out)
    assert "no proposals in" in result.err


def test_show(directory: Path) -> None:
    ctx(directory, "proposals", "edit", ID, "d2", "--set", "rationale=It was late.")
    ctx(directory, "proposals", "reject", "d2", "--reason", "it is known")
    result = ctx(directory, "proposals", "show", "latest", "d2")
    assert 0 == result.code
    assert result.out.split("\n")[2:] == [
        "d2  decision: Go home  [rejected: it is known]",
        "    context: It is late.",
        "    rationale: It was late.",
        "      (edited; was: )",
        "    consequence: tbd",
        "    already in: DECISIONS.md:3",
        "    > It is late.",
        "      notes.md:12-13",
        "",
    ]
    full = ctx(directory, "proposals", "show")
    assert "1 quarantined; use --quarantined to show them" in full.err
    assert (
        "x1  task: Buy milk\n    its quote is not in the source (notes.md:1-40)\n    > Milk!"
        in ctx(directory, "proposals", "show", "--quarantined").out
    )
    output = json.loads(ctx(directory, "proposals", "show", "--json").out)
    assert [("d1", "undecided"), ("d2", "rejected")] == [(r["name"], r["review"]["state"]) for r in output["rows"][:2]]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["accept"], 2, "pass rows (such as d1 t2) or --all"),
        (["accept", "d1", "--all"], 2, "pass rows (such as d1 t2) or --all"),
        (["accept", "d7"], 1, f"{ID} has no row 'd7'; the rows are d1, d2, l1, t1, q1"),
        (["accept", "x1"], 1, "give a quarantined row a quote with ctxbackends proposals requote"),
        (["show", "nothing"], 1, f"no proposal matches 'nothing'; the proposals are {ID}"),
        (["edit", ID, "d1"], 2, "pass the fields with --set FIELD=TEXT"),
        (["edit", ID, "d1", "--set", "title"], 2, "--set must be FIELD=TEXT: 'title'"),
        (["edit", ID, "d1", "--set", "wish=x"], 1, "d1: unknown field of a decision: wish"),
        (["review"], 2, "review requires a terminal"),
        (["export", "--kind", "wishes"], 2, "unknown kind: 'wishes'"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_invalid_arguments(directory: Path, arguments: list[str], code: int, message: str) -> None:
    result = ctx(directory, "proposals", *arguments)
    assert (code, "") == (result.code, result.out), result.err
    assert message in result.err


def at_terminal(directory: Path, *arguments: str, keys: list[str], **more: str) -> str:
    """What a terminal shows of the command, which gets each of ``keys`` at its next prompt."""
    if sys.platform == "win32":
        raise NotImplementedError
    master, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "ctxbackends", "proposals", *arguments],
        cwd=directory,
        stdin=terminal,
        stdout=terminal,
        stderr=terminal,
        env=environment(**{"TERM": "xterm", **more}),
        start_new_session=True,
    )
    os.close(terminal)
    output, prompts, deadline = b"", 0, time.monotonic() + WITHIN
    while time.monotonic() < deadline:
        if not select.select([master], [], [], 0.1)[0]:
            if process.poll() is not None:
                break
            continue
        try:
            output += os.read(master, 65536)
        except OSError:  # it has closed its terminal
            break
        if output.count(b"[q]uit") > prompts and keys:
            prompts = output.count(b"[q]uit")
            os.write(master, keys.pop(0).encode() + b"\n")
    os.close(master)
    assert 0 == process.wait(10), output.decode()
    return output.decode().replace("\r\n", "\n")


@pytest.mark.posix
def test_review_line_by_line(directory: Path) -> None:
    before = snapshot_context(directory)
    output = at_terminal(directory, "review", keys=["a", "r it is known", "?", "x", "", "b", "a", "q"], TERM="dumb")
    assert "1 of 6 · 0 accepted, 0 rejected, 6 left\nd1  decision: Keep option 1" in output
    assert "    > We keep option 1.\n      s.jsonl:4 (2026-02-19T14:31:00Z)\n      (source: not found)" in output
    assert "R  reason    reject the row, with a reason" in output
    assert "unknown key: 'x'; press ? for help" in output
    assert f"{ID}: 2 accepted, 1 rejected, 3 left" in output
    assert "\x1b" not in output
    assert f"print the accepted rows: ctxbackends proposals export {ID}" in output
    rows = json.loads(ctx(directory, "proposals", "show", "--json").out)["rows"]
    states = {row["name"]: row["review"]["state"] for row in rows}
    assert {"d1": "accepted", "d2": "rejected", "l1": "accepted", "t1": "undecided", "q1": "undecided"} == states
    assert before == snapshot_context(directory)


@pytest.mark.posix
def test_edit_in_an_editor(directory: Path) -> None:
    editor = directory / "editor.py"
    editor.write_text(
        "import sys, pathlib\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "text = path.read_text()\n"
        "first = 'line outside of a field' not in text\n"
        "text = text.replace('rationale: \\n', 'rationale: It was late,\\n  and dark.\\n')\n"
        "path.write_text('nonsense\\n' + text if first else text.split('nonsense\\n')[1])\n"
    )
    output = at_terminal(directory, "edit", ID, "d2", keys=[], EDITOR=f"{sys.executable} {editor}")
    assert "d2 changed" in output
    rows = json.loads(ctx(directory, "proposals", "show", "latest", "d2", "--json").out)["rows"]
    assert "It was late, and dark." == rows[0]["record"]["rationale"]
