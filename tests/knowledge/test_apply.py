"""``ctxbackends proposals apply`` with a stand-in for the Go tool."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from ctxbackends.knowledge._errors import ProposalError
from ctxbackends.knowledge._proposals.applied import AppliedRows
from ctxbackends.knowledge._proposals.review import Review
from ctxbackends.knowledge._proposals.store import find_proposal
from tests.knowledge.commands import WITHIN, Result, ctx, environment, project
from tests.knowledge.factories import write_example
from tests.knowledge.go_tool import GoTool, search_path, write_program
from tests.terminals import Terminal

ID = "20261123T130500Z-notes"
ROWS = {"d1": "Keep the first option", "l1": "Caches help", "t1": "Write all of it down"}


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """A project whose rows d1, l1 and t1 are accepted, with titles that .context does not have."""
    directory = tmp_path / "project"
    directory.mkdir()
    project(directory, None)
    write_example(directory)
    assert 0 == ctx(directory, "proposals", "accept", *ROWS).code
    assert 0 == ctx(directory, "proposals", "edit", ID, "d1", "--set", f"title={ROWS['d1']}").code
    assert 0 == ctx(directory, "proposals", "edit", ID, "t1", "--set", f"summary={ROWS['t1']}").code
    return directory


@pytest.fixture
def tool(tmp_path: Path) -> GoTool:
    return GoTool(tmp_path / "tool")


def apply(directory: Path, tool: GoTool, *arguments: str) -> Result:
    return ctx(directory, "proposals", "apply", *arguments, "--yes", PATH=search_path(tool.directory))


def read_context(directory: Path) -> str:
    return "".join(path.read_text() for path in sorted((directory / ".context").glob("*.md")))


def test_each_row_is_applied_once(directory: Path, tool: GoTool) -> None:
    proposals = directory / ".context" / "proposals"
    before = {path.name: path.read_bytes() for path in proposals.iterdir() if path.is_file()}
    result = apply(directory, tool, "--section", "Phase 1")
    assert (0, ["d1  applied", "l1  applied", "t1  applied"]) == (result.code, result.out.splitlines()), result.err
    assert [["decision", "add", "--json-file"], ["learning", "add", "--json-file"], ["task", "add", "--json-file"]] == [
        call["arguments"] for call in tool.calls
    ]
    assert [*ROWS.values()] == tool.titles
    assert ("It is cheap.", "Phase 1") == (
        tool.calls[0]["payload"]["rationale"],
        tool.calls[2]["payload"]["section"],
    )
    assert 's.jsonl:4 (2026-02-19T14:31:00Z): "We keep option 1."' in tool.calls[0]["payload"]["context"]
    context = os.path.realpath(directory / ".context")
    assert {(os.path.dirname(context), context, "")} == {
        (os.path.realpath(call["cwd"]), os.path.realpath(call["variable"]), call["stdin"]) for call in tool.calls
    }
    second = apply(directory, tool)
    assert (0, "", "already applied: d1 l1 t1\nnothing to apply\n") == (second.code, second.out, second.err)
    assert 3 == len(tool.calls)
    # The proposal and its review are as before, and no file for the tool is left.
    after = {path.name: path.read_bytes() for path in proposals.iterdir()}
    assert before == {name: data for name, data in after.items() if name in before}
    assert {f"{ID}.applied.json", f".{ID}.applied.json.lock"} == {*after} - {*before}


def test_show_names_the_applied_rows(directory: Path, tool: GoTool) -> None:
    tool.behave({"Caches help": {"exit": 1}})
    apply(directory, tool, "d1", "l1")
    rows = json.loads(ctx(directory, "proposals", "show", "--json").out)["rows"]
    assert {"d1": "applied", "d2": None, "l1": "started", "t1": None, "q1": None} == {
        row["name"]: row["applied"] for row in rows
    }
    assert ctx(directory, "proposals", "show", "d1").out.endswith("\n    applied\n")
    assert ctx(directory, "proposals", "show", "l1").out.endswith("\n    uncertain: see ctxbackends proposals apply\n")


def test_rows_that_are_accepted_later(directory: Path, tool: GoTool) -> None:
    assert ["d1  applied"] == apply(directory, tool, "d1").out.splitlines()
    result = apply(directory, tool)
    assert (["l1  applied", "t1  applied"], True) == (result.out.splitlines(), "already applied: d1\n" in result.err)
    assert [*ROWS.values()] == tool.titles


def test_a_failed_row_does_not_end_the_run(directory: Path, tool: GoTool) -> None:
    tool.behave({"Caches help": {"exit": 3, "write": False, "stderr": "Error: no\n  such section\n"}})
    result = apply(directory, tool)
    lines = ["d1  applied", "l1  failed: exit code 3: Error: no such section", "t1  applied"]
    assert (1, lines) == (result.code, result.out.splitlines())
    tool.behave({})
    second = apply(directory, tool)
    assert (0, "l1  applied\n") == (second.code, second.out)
    assert [*ROWS.values(), "Caches help"] == tool.titles


def test_results_as_json(directory: Path, tool: GoTool) -> None:
    tool.behave({"Caches help": {"exit": 3, "write": False, "stderr": "Error: no\n"}})
    result = apply(directory, tool, "--json")
    applied = {"result": "applied", "exit_code": 0, "message": ""}
    assert result.events == [
        {"row": "d1", "kind": "decision", "title": ROWS["d1"], **applied},
        {
            "row": "l1",
            "kind": "learning",
            "title": ROWS["l1"],
            "result": "failed",
            "exit_code": 3,
            "message": "exit code 3: Error: no",
        },
        {"row": "t1", "kind": "task", "title": ROWS["t1"], **applied},
    ]


def test_a_row_that_failed_after_it_was_written_is_uncertain(directory: Path, tool: GoTool) -> None:
    tool.behave({"Caches help": {"exit": 1, "stderr": "Error: cannot update the index\n"}})
    result = apply(directory, tool)
    assert 1 == result.code
    assert (
        "l1  uncertain: exit code 1: Error: cannot update the index; but its title is now in LEARNINGS.md:2\n"
        in result.out
    )
    second = apply(directory, tool)
    assert (1, 3) == (second.code, len(tool.calls))
    assert second.out.startswith(
        "l1  uncertain: an earlier run did not see the end of ctx; its title is in LEARNINGS.md:2; run ctxbackends "
    )
    assert (0, 3) == (apply(directory, tool, "--uncertain", "applied").code, len(tool.calls))
    assert (0, 3) == (apply(directory, tool).code, len(tool.calls))


def test_a_program_that_hangs_is_ended(directory: Path, tool: GoTool) -> None:
    tool.behave({"Caches help": {"hang": True, "write": False}})
    result = apply(directory, tool, "l1", "--timeout", "1")
    assert (1, "l1  uncertain: did not end within 1 s\n") == (result.code, result.out)
    second = apply(directory, tool, "l1")
    assert (1, True) == (second.code, "its title is not in " in second.out)
    tool.behave({})
    assert "l1  applied\n" == apply(directory, tool, "l1", "--uncertain", "retry").out
    assert "Caches help" == tool.titles[-1]


@pytest.mark.posix
def test_a_program_that_crashes_may_have_written(directory: Path, tool: GoTool) -> None:
    tool.behave({"Caches help": {"signal": 9, "write": False}})
    result = apply(directory, tool)
    lines = ["d1  applied", "l1  uncertain: ended by signal 9: no output", "t1  applied"]
    assert (1, lines) == (result.code, result.out.splitlines())
    assert "l1  uncertain: an earlier run did not see the end of ctx; its title is not in" in apply(directory, tool).out
    assert 3 == len(tool.calls)


@pytest.mark.parametrize(
    ("stderr", "times", "shown"),
    [
        ("\x1b[31mred\x07\r\n", 1, "\\x1b[31mred\\x07"),
        ("\xff\xfe", 1, "\ufffd\ufffd"),
        ("x" * 1000, 20_000, f"{'x' * 500}..."),
        ("", 1, "no output"),
    ],
    ids=["controls", "not UTF-8", "20 MB", "nothing"],
)
def test_output_is_shown_on_one_line(directory: Path, tool: GoTool, stderr: str, times: int, shown: str) -> None:
    tool.behave({"Caches help": {"exit": 1, "write": False, "stderr": stderr, "times": times}})
    result = apply(directory, tool, "l1")
    assert (1, f"l1  failed: exit code 1: {shown}\n") == (result.code, result.out)


# --- asking ---------------------------------------------------------------------------------------------


def test_without_a_terminal_it_needs_yes(directory: Path, tool: GoTool) -> None:
    result = ctx(directory, "proposals", "apply", PATH=search_path(tool.directory))
    assert (2, "", []) == (result.code, result.out, tool.calls)
    assert "apply asks before it changes files, which requires a terminal; use --yes" in result.err


@pytest.mark.posix
@pytest.mark.parametrize(
    ("key", "code", "count"),
    [("y", 0, 3), ("n", 1, 0), pytest.param("", 1, 0, marks=pytest.mark.full), ("\x03", 130, 0)],
)
def test_it_asks_at_a_terminal(
    directory: Path, tool: GoTool, monkeypatch: pytest.MonkeyPatch, key: str, code: int, count: int
) -> None:
    monkeypatch.chdir(directory)
    terminal = Terminal("proposals", "apply", columns=200, PATH=search_path(tool.directory))
    try:
        terminal.read_until("Apply 3 rows? [y/N]: ")
        assert f"to apply with {tool.program} to " in terminal.raw
        assert f"  d1  decision: {ROWS['d1']}\r\n  l1  learning: {ROWS['l1']}\r\n" in terminal.raw
        assert [] == tool.calls
        if key == "\x03":
            assert code == terminal.interrupt()
        else:
            terminal.type(f"{key}\n")
            assert code == terminal.end()
    finally:
        terminal.close()
    assert count == len(tool.calls)
    assert (code == 1) == ("nothing was applied" in terminal.raw)


def test_the_list_names_existing_entries(directory: Path, tool: GoTool) -> None:
    ctx(directory, "proposals", "edit", ID, "t1", "--set", "summary=Write it down!")
    assert "  t1  task: Write it down! (already in TASKS.md:3)\n" in apply(directory, tool, "t1").err


# --- rows that are not applied --------------------------------------------------------------------------


def test_incomplete_rows_and_other_kinds_are_listed(directory: Path, tool: GoTool) -> None:
    ctx(directory, "proposals", "accept", "--all")
    result = apply(directory, tool)
    assert (1, ["d1  applied", "l1  applied", "t1  applied"]) == (result.code, result.out.splitlines())
    assert "not applied, since ctx has no command for open-question: q1\n" in result.err
    assert "left out, since fields are missing: 1 row" in result.err
    assert f"edit {ID} d2 --set rationale=... --set consequence=..." in result.err
    assert 0 == apply(directory, tool, "--skip-incomplete").code


def test_rows_that_are_not_accepted(directory: Path, tool: GoTool) -> None:
    ctx(directory, "proposals", "reject", "l1")
    result = apply(directory, tool, "d1", "l1", "q1")
    assert (1, []) == (result.code, tool.calls)
    assert f"not accepted: l1 q1; run ctxbackends proposals accept {ID} l1 q1" in result.err
    assert ["d1  applied", "t1  applied"] == apply(directory, tool).out.splitlines()


# --- interruptions --------------------------------------------------------------------------------------


@contextmanager
def applying(directory: Path, tool: GoTool, *, until: int) -> Iterator[subprocess.Popen[str]]:
    """Run the command in a process, which hangs in a row, and wait for that call of the tool."""
    process = subprocess.Popen(
        [sys.executable, "-m", "ctxbackends", "proposals", "apply", "--yes"],
        cwd=directory,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(PATH=search_path(tool.directory)),
    )
    with process:
        try:
            wait_for(lambda: len(tool.calls) == until)
            yield process
        finally:
            process.kill()
            tool.go()


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WITHIN
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_after_a_kill_no_row_is_applied_again(directory: Path, tool: GoTool) -> None:
    tool.behave({"Caches help": {"hang": True}})
    with applying(directory, tool, until=2) as process:
        process.kill()
        process.wait()
    result = apply(directory, tool)
    assert (1, ["Keep the first option", "Caches help", "Write all of it down"]) == (result.code, tool.titles)
    uncertain, applied = result.out.splitlines()
    assert ("t1  applied", True) == (applied, uncertain.startswith("l1  uncertain: an earlier run did not see the end"))
    assert "its title is in LEARNINGS.md:2" in uncertain
    assert "already applied: d1\n" in result.err


@pytest.mark.posix
def test_ctrl_c_lets_a_row_end(directory: Path, tool: GoTool) -> None:
    tool.behave({"Caches help": {"hang": True}})
    with applying(directory, tool, until=2) as process:
        process.send_signal(signal.SIGINT)
        tool.go()
        out, err = process.communicate(timeout=WITHIN)
    assert (130, ["d1  applied", "l1  applied"]) == (process.returncode, out.splitlines()), err
    assert "t1  applied\n" == apply(directory, tool).out
    assert [*ROWS.values()] == tool.titles


@pytest.mark.parametrize("method", ["start", "finish"])
@pytest.mark.parametrize("is_written", [False, True], ids=["before the write", "after it"])
@pytest.mark.parametrize("row", ["d1", pytest.param("l1", marks=pytest.mark.full)])
def test_an_interruption_at_any_write_applies_no_row_twice(
    directory: Path, tool: GoTool, monkeypatch: pytest.MonkeyPatch, method: str, is_written: bool, row: str
) -> None:
    original = getattr(AppliedRows, method)

    def interrupt(self: AppliedRows, name: str) -> None:
        if name != row or is_written:
            original(self, name)
        if name == row:
            raise KeyboardInterrupt

    monkeypatch.setattr(AppliedRows, method, interrupt)
    assert 130 == apply(directory, tool).code
    monkeypatch.undo()
    result = apply(directory, tool)
    assert len(tool.titles) == len(set(tool.titles))
    missing = [name for name, title in ROWS.items() if title not in tool.titles]
    uncertain = [line.split()[0] for line in result.out.splitlines() if "uncertain" in line]
    # A row that the tool did not get is uncertain too, if the interruption came just before it.
    assert (missing or uncertain) == uncertain
    assert uncertain == ([] if (method, is_written) in (("start", False), ("finish", True)) else [row])


def test_two_runs_at_once(directory: Path, tool: GoTool) -> None:
    with AppliedRows(find_proposal(directory / ".context" / "proposals")).lock():
        result = apply(directory, tool)
    assert (1, [], True) == (
        result.code,
        tool.calls,
        f"another process applies rows of {ID}; wait until it ends" in result.err,
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "invalid list of applied rows"),
        (
            '{"format": 1, "proposal_sha256": "x", "rows": {"d1": {"state": "done", "at": ""}}}',
            "invalid list of applied",
        ),
        ('{"format": 2, "proposal_sha256": "x", "rows": {}}', "unsupported format"),
        ('{"format": 1, "proposal_sha256": "x", "rows": {}}', "proposal changed since rows of it were applied"),
    ],
)
def test_a_damaged_state_stops_it(directory: Path, tool: GoTool, text: str, words: str) -> None:
    (directory / ".context" / "proposals" / f"{ID}.applied.json").write_text(text)
    with pytest.raises(ProposalError, match=words):
        AppliedRows(find_proposal(directory / ".context" / "proposals"))
    assert (1, []) == (apply(directory, tool).code, tool.calls)


# --- finding the Go tool --------------------------------------------------------------------------------

LAUNCHER = "import sys\nfrom ctxbackends._cli import ctx\nsys.exit(ctx())\n"
SHIM = 'print("ctx (ctx" + "backends) 0.1.0")\n'
OTHER = 'import sys\nprint("ctx 1.0, contexts of kubectl")\nsys.exit(sys.argv[1] != "--version")\n'


def test_our_own_programs_are_passed_over(directory: Path, tool: GoTool, tmp_path: Path) -> None:
    directories = []
    for name, code in (("launcher", LAUNCHER), ("shim", SHIM), ("other", OTHER)):
        directories.append(tmp_path / name)
        directories[-1].mkdir()
        write_program(directories[-1], code)
    result = ctx(directory, "proposals", "apply", "--yes", PATH=search_path(*directories, tool.directory))
    assert (0, 3) == (result.code, len(tool.calls)), result.err
    result = ctx(directory, "proposals", "apply", "--yes", "d1", PATH=search_path(*directories))
    assert (0, "already applied: d1\nnothing to apply\n") == (result.code, result.err)


def test_there_is_no_go_tool(directory: Path, tool: GoTool, tmp_path: Path) -> None:
    shim, other = tmp_path / "shim", tmp_path / "other"
    for path, code in ((shim, SHIM), (other, OTHER)):
        path.mkdir()
        write_program(path, code)
    result = ctx(directory, "proposals", "apply", "--yes", PATH=search_path(tmp_path))
    assert (1, "") == (result.code, result.out)
    assert "the Go tool ctx is not on the PATH; install it (https://ctx.ist), or name it with --ctx PATH" in result.err
    result = ctx(directory, "proposals", "apply", "--yes", PATH=search_path(shim, other))
    assert 1 == result.code
    assert "is the ctx of the Python package ctxbackends; " in result.err
    assert "has no command decision add --json-file); install it" in result.err
    assert 3 == len(apply(directory, tool).out.splitlines())


@pytest.mark.posix
def test_a_program_that_does_not_start(directory: Path, tool: GoTool) -> None:
    broken = tool.home / "ctx"
    broken.write_bytes(b"\x7fELF")
    broken.chmod(0o755)
    result = ctx(directory, "proposals", "apply", "--yes", PATH=search_path(tool.home))
    assert (1, True) == (result.code, "does not work: cannot start " in result.err), result.err
    result = ctx(directory, "proposals", "apply", "--yes", PATH=search_path(tool.home, tool.directory))
    assert (0, 3) == (result.code, len(tool.calls))


def test_the_tool_by_name(directory: Path, tool: GoTool, tmp_path: Path) -> None:
    named = ctx(directory, "proposals", "apply", "--yes", "--ctx", str(tool.program), "d1", PATH=search_path(tmp_path))
    assert (0, "d1  applied\n") == (named.code, named.out), named.err
    missing = ctx(directory, "proposals", "apply", "--yes", "--ctx", str(tmp_path / "no"))
    assert (1, True) == (missing.code, f"no such program: {tmp_path / 'no'}; --ctx names the Go tool" in missing.err)
    ours = tmp_path / "ours"
    ours.mkdir()
    program = write_program(ours, SHIM)
    result = ctx(directory, "proposals", "apply", "--yes", "--ctx", str(program))
    assert (1, True) == (result.code, f"not usable: {program} is the ctx of the Python package" in result.err)
    assert 1 == len(tool.calls)


def test_the_context_of_a_subdirectory(directory: Path, tool: GoTool) -> None:
    below = directory / "src" / "deep"
    below.mkdir(parents=True)
    assert 0 == apply(below, tool, "d1").code
    assert os.path.realpath(directory) == os.path.realpath(tool.calls[0]["cwd"])
    assert ROWS["d1"] in read_context(directory)
    state = json.loads((directory / ".context" / "proposals" / f"{ID}.applied.json").read_text())
    assert {"d1": "applied"} == {name: row["state"] for name, row in state["rows"].items()}


def test_incomplete_rows_as_json(directory: Path, tool: GoTool) -> None:
    (path,) = (directory / ".context" / "proposals").glob("*.md")
    Review(path).edit("d1", {"rationale": "tbd", "context": ""})
    result = apply(directory, tool, "--json")
    assert (1, ["d1", "l1", "t1"]) == (result.code, [event["row"] for event in result.events])
    assert {
        "row": "d1",
        "kind": "decision",
        "title": ROWS["d1"],
        "result": "incomplete",
        "exit_code": None,
        "message": "context is empty, rationale is a placeholder (tbd)",
    } == result.events[0]
    assert 2 == len(tool.calls)
