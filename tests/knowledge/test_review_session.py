"""The steps of a review: each key, undo, search and the end, with keys from a list."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from pathlib import Path

import click
import pytest

from ctxbackends._cli.proposals import session
from ctxbackends._cli.proposals.session import KEYS, ReviewSession, count_states
from ctxbackends.knowledge._proposals.review import Review, Verdict
from tests.knowledge.review_project import write_project

ALL = ["d1", "l1", "t1", "q1", "x1", "x2"]


class Script:
    """Answers with keys and texts from lists, and keeps the rows that were printed."""

    def __init__(self, keys: list[str | tuple[str, str]], answers: list[str | None]) -> None:
        self.keys = keys
        self.answers = answers
        self.rows: list[str] = []
        self.headings: list[str] = []

    def read(self) -> tuple[str, str]:
        if not self.keys:
            raise EOFError
        key = self.keys.pop(0)
        if key == "c-c":
            raise KeyboardInterrupt
        return (key, "") if isinstance(key, str) else key

    def ask(self, question: str) -> str | None:  # noqa: ARG002  # the answers are in a list
        return self.answers.pop(0)

    def pause(self) -> AbstractContextManager[None]:
        return nullcontext()

    def is_ready(self, name: str) -> bool:
        return name in self.rows

    def prepare(self, name: str) -> None:
        assert not self.is_ready(name)

    def print(self, name: str, heading: str) -> None:
        self.rows.append(name)
        self.headings.append(heading)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_project(tmp_path)


def run(
    path: Path, *keys: str | tuple[str, str], answers: tuple[str | None, ...] = (), names: list[str] | None = None
) -> Script:
    script = Script(list(keys), list(answers))
    ReviewSession(Review(path), ALL if names is None else names, script, script).run()
    assert not script.answers
    return script


def states(path: Path) -> dict[str, str]:
    review = Review(path)
    return {name: review.verdict(name).state for name in ALL if review.verdict(name) != Verdict()}


def test_each_decision_is_saved_and_moves_on(path: Path) -> None:
    script = run(path, "a", "r", ("R", "not mine"), "s", "r")
    assert [*ALL] == script.rows
    assert {"d1": "accepted", "l1": "rejected", "t1": "rejected", "x1": "rejected"} == states(path)
    assert "not mine" == Review(path).verdict("t1").reason
    assert [
        "1 of 6 · 0 accepted, 0 rejected, 6 left",
        "2 of 6 · 1 accepted, 0 rejected, 5 left",
        "3 of 6 · 1 accepted, 1 rejected, 4 left",
        "4 of 6 · 1 accepted, 2 rejected, 3 left",
        "5 of 6 · 1 accepted, 2 rejected, 3 left",
        "6 of 6 · 1 accepted, 3 rejected, 2 left",
    ] == script.headings


def test_a_reason_is_asked_for(path: Path) -> None:
    run(path, "R", answers=("too late",))
    assert "too late" == Review(path).verdict("d1").reason
    script = run(path, "s", "R", answers=(None,))
    assert ["d1", "l1"] == script.rows
    assert {"d1": "rejected"} == states(path)


def test_saved_before_the_next_key(path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        run(path, "a", "r", "c-c")
    assert {"d1": "accepted", "l1": "rejected"} == states(path)


def test_undo_over_several_steps(path: Path) -> None:
    Review(path).accept(["t1"])
    before = Review(path).verdict("t1")
    script = run(path, "a", "r", ("R", "no"), "u", "u", "u", "u")
    assert ["d1", "l1", "t1", "q1", "t1", "l1", "d1"] == script.rows
    assert {"t1": "accepted"} == states(path)
    assert before == Review(path).verdict("t1")


def test_undo_of_an_edit_and_of_a_quote(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session, "edit_row", lambda *_: {"title": "Water by hand"})
    script = run(path, "e", "u", names=["d1"])
    assert ["d1", "d1", "d1"] == script.rows
    assert "Water by a pump" == Review(path).row("d1").title
    run(path, "a", "u", answers=("The door stays shut.",), names=["x1"])
    assert Verdict() == Review(path).verdict("x1")
    assert "x1" in Review(path).quarantined()


def test_undo_leaves_what_somebody_else_has_changed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    review = Review(path)

    class Other(Script):
        def read(self) -> tuple[str, str]:
            if len(self.keys) == 1:
                Review(path).reject(["d1"], reason="by another")
            return super().read()

    script = Other(["a", "u"], [])
    ReviewSession(review, ALL, script, script).run()
    assert "by another" == Review(path).verdict("d1").reason
    assert "cannot undo the decision on d1: it has changed since" in capsys.readouterr().err


def test_nothing_to_undo(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ["d1"] == run(path, "u").rows
    assert "nothing to undo\n" == capsys.readouterr().err


def test_back_and_skip(path: Path) -> None:
    assert ["d1", "d1", "l1", "t1", "l1"] == run(path, "b", "s", "s", "b").rows
    assert {} == states(path)


def test_the_end_leads_to_the_rows_that_are_left(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = run(path, "a", "s", "a", "a", "s", "b", "s", "a", "q", names=["d1", "l1", "t1"])
    assert ["d1", "l1", "t1", "l1", "d1", "l1"] == script.rows
    assert {"d1": "accepted", "l1": "accepted", "t1": "accepted"} == states(path)
    assert "end of the rows: 1 row left; press Enter to go on with them" in capsys.readouterr().err


def test_the_end_when_all_is_decided(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script = run(path, "a", "a", "r", "u", "s", "b", "r", "s", names=["d1"])
    assert ["d1"] * 3 == script.rows
    assert [] == script.keys
    assert {"d1": "rejected"} == states(path)
    errors = capsys.readouterr().err
    assert "there is no row here; b goes back" in errors
    assert "all are decided" in errors


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("PAINT", ["q1"]),
        ("two  pumps", ["d1", "t1"]),
        ("9:03", ["d1", "t1"]),
        ("open-question", ["q1"]),
        ("always shut", ["x1"]),
        ("x2", ["x2"]),
    ],
)
def test_search(path: Path, text: str, rows: list[str]) -> None:
    script = run(path, ("/", text), *["n"] * len(rows), "n")
    hits = script.rows[1:]
    order = [*rows, *rows, *rows] if rows[0] != "d1" else [*rows[1:], *rows, *rows, *rows]
    assert order[: len(hits)] == hits
    assert len(rows) + 2 == len(hits)


def test_a_search_without_a_hit(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ["d1"] == run(path, "n", ("/", "whale"), "/", "/", answers=("  ", None)).rows
    assert ["nothing to search for; press / first", "no row with 'whale'"] == capsys.readouterr().err.splitlines()


def test_a_quarantined_row_needs_a_quote_of_the_source(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    answers = ("", None, "The door is always shut.", "The door stays shut.")
    script = run(path, "a", "a", "a", "e", "a", answers=answers, names=["x1", "x2"])
    assert ["x1", "x2"] == script.rows
    assert {"x1": "accepted"} == states(path)
    errors = capsys.readouterr().err
    assert 2 == errors.count("x1 stays quarantined")
    assert "quote not accepted: 'The door is always shut.'" in errors
    assert "x1 is quarantined; accept it with a quote first" in errors
    assert "x1 accepted" in errors


def test_a_quarantined_row_without_a_title(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(path, ("a", "The door stays shut."), "r", names=["x2"])
    assert {"x2": "rejected"} == states(path)
    assert "x2 has no title, so it cannot be accepted" in capsys.readouterr().err


def test_an_edit(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    edits = iter([{"title": ""}, None, {"title": "Water by hand"}])
    monkeypatch.setattr(session, "edit_row", lambda *_: next(edits))
    script = run(path, "e", "e", "e")
    assert ["d1", "d1", "d1"] == script.rows
    assert ("Water by hand", "undecided") == (Review(path).row("d1").title, Review(path).verdict("d1").state)
    assert ["d1: empty title; write a text", "nothing changed", "d1 changed"] == capsys.readouterr().err.splitlines()


def test_an_editor_that_fails(path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def fail(*_: object) -> None:
        raise click.ClickException("vi: Editing failed")

    monkeypatch.setattr(session, "edit_row", fail)
    assert ["d1"] == run(path, "e").rows
    assert "vi: Editing failed\n" == capsys.readouterr().err


def test_a_review_that_cannot_be_written(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path.with_name(f"{path.stem}.review.json").write_text("{")
    with pytest.raises(Exception, match="invalid review"):
        Review(path)
    path.with_name(f"{path.stem}.review.json").unlink()
    review = Review(path)
    path.with_name(f"{path.stem}.review.json").write_text("{")
    script = Script(["a", "q"], [])
    ReviewSession(review, ALL, script, script).run()
    assert ["d1"] == script.rows
    assert "nothing was changed" in capsys.readouterr().err


def test_help_and_unknown_keys(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert ["d1"] == run(path, "?", "y").rows
    errors = capsys.readouterr().err
    assert [*KEYS] == [line[0] for line in errors.splitlines() if line[1:3] == "  "]
    assert "unknown key: 'y'; press ? for help" in errors


def test_the_counts_include_the_quarantined_rows(path: Path) -> None:
    review = Review(path)
    review.accept(["d1"])
    review.reject(["x1", "t1"])
    assert "1 accepted, 2 rejected, 3 left" == count_states(review)
    assert ["x1", "x2"] == [*review.quarantined()]
