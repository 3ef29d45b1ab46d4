"""The review at a pseudo-terminal: one key for each decision, in windows of any width."""

from __future__ import annotations

import os
import re
import signal
import sys
from pathlib import Path

import pytest

from ctxbackends.knowledge._proposals.review import Review, Verdict
from tests.knowledge.review_project import SECRET, write_project
from tests.terminals import Terminal, terminal

pytestmark = pytest.mark.posix

READY = "elp"
"""The end of the keys that are shown, in a wide window and in a narrow one."""
_STYLE = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = write_project(tmp_path)
    monkeypatch.chdir(tmp_path)
    return path


def states(path: Path) -> dict[str, str]:
    review = Review(path)
    names = (*review.proposal.rows_by_name(), *review.proposal.quarantined_by_name())
    return {name: review.verdict(name).state for name in names if review.verdict(name) != Verdict()}


def press(screen: Terminal, keys: str, until: str = "") -> str:
    """Type keys, wait for a text and then for the next key or answer, and return what was written meanwhile."""
    at = screen.type(keys)
    behind = screen.read_until(until, after=at)
    if not until.endswith(":"):
        screen.read_until(READY, after=behind)
    return strip(screen.raw[at:])


def strip(raw: str) -> str:
    return _STYLE.sub("", raw).replace("\r\n", "\n")


def test_one_key_for_each_step(path: Path) -> None:
    with terminal("proposals", "review") as screen:
        screen.read_until(READY)
        first = strip(screen.raw)
        assert "1 of 6 · 0 accepted, 0 rejected, 6 left\nd1  decision: Water by a pump\n" in first
        assert "    plan.md:6-7, matched after folding\n" in first
        assert "    6 | - The pumps run **at night**, when power\n    7 |   is cheap.\n" in first
        assert "    s.jsonl:3 (user, 2026-11-20T09:03:00Z)\n" in first
        assert "9 | - The password=[masked] opens it." in first
        assert "l1  learning: The sensor is wrong" in press(screen, "a", "2 of 6")
        third = press(screen, "r", "3 of 6")
        assert "l1 rejected\n" in third
        press(screen, "R", "reason:")
        press(screen, "not now\r", "4 of 6 · 1 accepted, 2 rejected, 3 left")
        assert "undone: t1 is undecided" in press(screen, "u", "3 of 6")
        assert "undone: l1 is undecided" in press(screen, "u", "2 of 6")
        press(screen, "b", "1 of 6")
        press(screen, "\x1b[C", "2 of 6")
        press(screen, " ", "3 of 6")
        press(screen, "\r", "4 of 6")
        press(screen, "/", "search:")
        assert "d1  decision: Water by a pump" in press(screen, "two pumps\r", "1 of 6")
        press(screen, "n", "3 of 6")
        assert "u  undo      undo the last decision" in press(screen, "?", "quit      stop")
        press(screen, "y", "unknown key: 'y'")
        screen.type("q")
        assert 0 == screen.end()
    assert f"{path.stem}: 1 accepted, 0 rejected, 5 left" in strip(screen.raw)
    assert {"d1": "accepted"} == states(path)


def test_a_quarantined_row_gets_a_quote(path: Path) -> None:
    Review(path).accept(["d1", "l1", "t1", "q1"])
    with terminal("proposals", "review") as screen:
        screen.read_until(READY)
        text = strip(screen.raw)
        assert "1 of 2 · 4 accepted, 0 rejected, 2 left\nx1  decision: Shut the door  [quarantined]\n" in text
        assert "quarantined: its quote is not in the source (plan.md:1-15)\n" in text
        assert "quote of the model: The door is always shut.\n" in text
        assert "8 | - The door stays shut." in text
        press(screen, "a", "copy words from the source:")
        assert "quote not accepted" in press(screen, "The door is shut.\r", "plan.md")
        press(screen, "a", "copy words from the source:")
        press(screen, "The door stays shut.\r", "2 of 2")
        press(screen, "r", "all are decided")
        screen.type("\r")
        assert 0 == screen.end()
    assert "The door stays shut." == Review(path).row("x1").evidence[0].quote
    assert ("accepted", "rejected") == (states(path)["x1"], states(path)["x2"])


def test_ctrl_c_midway_and_again(path: Path) -> None:
    with terminal("proposals", "review") as screen:
        screen.read_until(READY)
        press(screen, "a", "2 of 6")
        screen.type("\x03")
        assert 130 == screen.end()
        assert screen.echoes()
    assert "1 accepted, 0 rejected, 5 left" in screen.raw
    assert {"d1": "accepted"} == states(path)
    with terminal("proposals", "review") as screen:
        screen.read_until(READY)
        assert "1 of 5 · 1 accepted, 0 rejected, 5 left\nl1  learning" in strip(screen.raw)
        screen.type("\x04")
        assert 0 == screen.end()


@pytest.mark.parametrize("by", ["SIGKILL", "SIGHUP", "SIGTERM"])
def test_nothing_is_lost_when_it_ends(path: Path, by: str) -> None:
    if sys.platform == "win32":
        raise NotImplementedError
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)  # a program started by nohup inherits that it is ignored
    with terminal("proposals", "review") as screen:
        signal.signal(signal.SIGHUP, before)
        screen.read_until(READY)
        press(screen, "a", "2 of 6")
        press(screen, "r", "3 of 6")
        os.kill(screen.process.pid, signal.Signals[by])
        assert 0 != screen.end()
    assert {"d1": "accepted", "l1": "rejected"} == states(path)


def test_keys_that_are_typed_ahead_count_once_and_are_not_shown(path: Path) -> None:
    with terminal("proposals", "review") as screen:
        screen.read_until(READY)
        text = press(screen, "aras", "5 of 6")
        assert {"d1": "accepted", "l1": "rejected", "t1": "accepted"} == states(path)
        assert not re.search(r"^[aras]+$", text, re.MULTILINE)
        screen.type("q")
        assert 0 == screen.end()


def test_pasted_text_decides_nothing(path: Path) -> None:
    with terminal("proposals", "review") as screen:
        screen.read_until(READY)
        screen.type("\x1b[200~aaaa\x1b[201~")
        press(screen, "s", "2 of 6")
        screen.type("q")
        assert 0 == screen.end()
    assert {} == states(path)


def test_an_edit_in_an_editor(path: Path, tmp_path: Path) -> None:
    editor = tmp_path / "editor.py"
    editor.write_text(
        "import pathlib, sys\n"
        "path = pathlib.Path(sys.argv[1])\n"
        "path.write_text(path.read_text().replace('by a pump', 'by ' + input('with: ')))\n"
    )
    with terminal("proposals", "review", EDITOR=f"{sys.executable} {editor}") as screen:
        screen.read_until(READY)
        at = screen.type("e")
        screen.read_until("with: ", after=at)
        text = press(screen, "hand\n", "d1 changed")
        assert "hand\n" in text  # the editor has a terminal that echoes
        assert "d1  decision: Water by hand\n      (edited; was: Water by a pump)" in text
        press(screen, "u", "d1  decision")
        screen.type("q")
        assert 0 == screen.end()
    assert "Water by a pump" == Review(path).row("d1").title


def test_an_editor_that_is_not_there(path: Path) -> None:
    with terminal("proposals", "review", EDITOR="/nowhere/editor") as screen:
        screen.read_until(READY)
        press(screen, "e", "/nowhere/editor")
        press(screen, "a", "2 of 6")
        screen.type("q")
        assert 0 == screen.end()
    assert {"d1": "accepted"} == states(path)


def test_everything_is_decided(path: Path) -> None:
    review = Review(path)
    review.accept(["d1", "l1", "t1", "q1"])
    review.reject(["x1", "x2"])
    with terminal("proposals", "review") as screen:
        assert 0 == screen.end()
    assert f"{path.stem}: all rows are decided; use --all to see them" in screen.raw
    with terminal("proposals", "review", "--all") as screen:
        screen.read_until(READY)
        assert "1 of 6 · 4 accepted, 2 rejected, 0 left\nd1  decision: Water by a pump  [accepted]" in strip(screen.raw)
        screen.type("q")
        assert 0 == screen.end()


@pytest.mark.parametrize("columns", [24, 40, 120])
def test_the_lines_fit_into_the_window(path: Path, columns: int) -> None:
    with terminal("proposals", "review", columns=columns) as screen:
        screen.read_until(READY)
        for _ in range(5):
            press(screen, "s")
        screen.type("q")
        screen.end()
    shown = [part for line in strip(screen.raw).split("\n") for part in line.split("\r")]
    rows = [line for line in shown if "|" in line]
    assert len(rows) > 20
    assert [] == [line for line in rows if len(line) > columns]
    words = "".join(line.partition("| ")[2] for line in rows)
    assert "<imgsrc=xonerror=alert(1)>" in words.replace(" ", "")


def test_a_window_that_changes_its_width(path: Path) -> None:
    with terminal("proposals", "review", columns=100) as screen:
        screen.read_until("[q]uit")
        at = len(screen.raw)
        screen.resize(40)
        screen.read_until("a r e s b u / q, ? for help", after=at)
        press(screen, "a", "2 of 6")
        at = len(screen.raw)
        screen.resize(100)
        screen.read_until("[q]uit", after=at)
        screen.type("q")
        assert 0 == screen.end()
    assert {"d1": "accepted"} == states(path)


def test_control_characters_and_secrets_are_not_shown(path: Path) -> None:
    with terminal("proposals", "review") as screen:
        screen.read_until(READY)
        press(screen, "s", "2 of 6")
        screen.type("q")
        screen.end()
    assert "\\x1b[31mhot\\x1b[0m" in screen.raw
    assert "\x1b[31m" not in screen.raw
    assert SECRET not in screen.raw


def test_without_colors_the_quote_is_still_marked(path: Path) -> None:
    with terminal("proposals", "review", NO_COLOR="1") as screen:
        screen.read_until(READY)
        screen.type("q")
        screen.end()
    assert "\x1b[1;4mThe pumps run **at night**, when power\x1b[0m" in screen.raw
    codes = {code for style in re.findall(r"\x1b\[([0-9;]*)m", screen.raw) for code in style.split(";")}
    assert codes <= {"", "0", "1", "2", "3", "4"}


def test_a_dumb_terminal_has_lines(path: Path) -> None:
    with terminal("proposals", "review", TERM="dumb") as screen:
        behind = screen.read_until("[q]uit: ")
        assert "6 | - >>>The pumps run **at night**, when power<<<" in strip(screen.raw)
        for answer in ("a", "r not mine", "u", "/paint", "?"):
            screen.type(f"{answer}\n")
            behind = screen.read_until("[q]uit: ", after=behind)
        screen.type("q\n")
        assert 0 == screen.end()
    assert "\x1b" not in screen.raw
    assert "undone: l1 is undecided" in screen.raw
    assert "q1  open-question: Which paint?" in screen.raw
    assert {"d1": "accepted"} == states(path)


def test_standard_output_in_a_file(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.txt"
    with terminal("proposals", "review", stdout=out) as screen:
        screen.read_until("[q]uit: ")
        screen.type("a\n")
        screen.read_until("d1 accepted")
        screen.type("\x03")
        assert 130 == screen.end()
    assert "\x1b" not in out.read_text()
    assert "d1  decision: Water by a pump\n" in out.read_text()
    assert {"d1": "accepted"} == states(path)


def test_changed_and_missing_sources_show_the_stored_quote(path: Path, tmp_path: Path) -> None:
    (tmp_path / "plan.md").write_text("another\n")
    (tmp_path / "s.jsonl").unlink()
    with terminal("proposals", "review") as screen:
        screen.read_until(READY)
        screen.type("q")
        screen.end()
    text = strip(screen.raw)
    assert "    > The pumps run **at night**, when power is cheap.\n      plan.md:6-7, matched after folding\n" in text
    assert "      (source: changed since the run)\n" in text
    assert "    > Take the pump\n" in text
    assert "      (source: not found)\n" in text
