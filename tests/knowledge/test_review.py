from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ctxbackends.knowledge._errors import ProposalError
from ctxbackends.knowledge._proposals.review import Review
from ctxbackends.knowledge._records import Decision
from tests.knowledge.commands import environment
from tests.knowledge.factories import ROWS, write_example


def states(**verdicts: str) -> dict[str, str]:
    return {name: verdicts.get(name, "undecided") for name in ("d1", "d2", "l1", "t1", "q1")}


def test_verdicts_are_saved(tmp_path: Path) -> None:
    path = write_example(tmp_path)
    before = path.read_bytes()
    review = Review(path)
    review.accept(["d1", "t1"])
    review.reject(["d2"], reason="known\n already")
    second = Review(path)
    assert {
        "d1": "accepted",
        "d2": "rejected",
        "l1": "undecided",
        "t1": "accepted",
        "q1": "undecided",
    } == second.states()
    assert "known already" == second.verdict("d2").reason
    assert before == path.read_bytes()
    second.reset(["d2"])
    assert "undecided" == Review(path).states()["d2"]


def test_an_edited_row(tmp_path: Path) -> None:
    path = write_example(tmp_path)
    review = Review(path)
    assert review.edit("d2", {"rationale": "It  was\nlate.", "consequence": "We sleep."})
    review.accept(["d2"])
    second = Review(path)
    assert Decision("Go home", "It is late.", "It was late.", "We sleep.") == second.rows()["d2"].record
    assert ROWS[1] == second.proposal.rows_by_name()["d2"]
    assert "accepted" == second.states()["d2"]
    assert not second.edit("d2", {"consequence": "We sleep."})
    assert second.edit("d2", {"rationale": "", "consequence": "tbd"})
    assert ROWS[1] == Review(path).rows()["d2"]


@pytest.mark.parametrize(
    ("name", "fields", "words"),
    [
        ("d9", {}, "has no row 'd9'; the rows are d1, d2, l1, t1, q1"),
        ("x1", {}, "has no row 'x1'; give a quarantined row a quote with ctxbackends proposals requote"),
        (
            "d1",
            {"wish": "x"},
            "d1: unknown field of a decision: wish; the fields are title, context, rationale, consequence",
        ),
        ("t1", {"priority": "huge"}, "t1: invalid task: Invalid enum value 'huge'"),
        ("d1", {"title": " "}, "d1: empty title; write a text"),
    ],
)
def test_invalid_edits(tmp_path: Path, name: str, fields: dict[str, str], words: str) -> None:
    path = write_example(tmp_path)
    with pytest.raises(ProposalError, match=words):
        Review(path).edit(name, fields)
    assert [path] == [item for item in path.parent.iterdir() if item.suffix != ".lock"]


def test_an_unknown_row_changes_nothing(tmp_path: Path) -> None:
    path = write_example(tmp_path)
    with pytest.raises(ProposalError, match="no row 'd7'"):
        Review(path).accept(["d1", "d7"])
    assert "undecided" == Review(path).states()["d1"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "invalid review"),
        ('{"format": 1, "proposal_sha256": "x", "rows": {}, "more": 1}', "invalid review"),
        ('{"format": 2, "proposal_sha256": "x", "rows": {}}', "unsupported format"),
        ('{"format": 1, "proposal_sha256": "x", "rows": {}}', "proposal changed since it was reviewed"),
    ],
)
def test_invalid_reviews(tmp_path: Path, text: str, words: str) -> None:
    path = write_example(tmp_path)
    beside = path.with_name(f"{path.stem}.review.json")
    beside.write_text(text)
    with pytest.raises(ProposalError, match=words):
        Review(path)
    assert text == beside.read_text()


ACCEPT = """
import sys
from pathlib import Path
from ctxbackends.knowledge._proposals.review import Review
review = Review(Path(sys.argv[1]))
for _ in range(20):
    review.{}
"""


def test_concurrent_reviews(tmp_path: Path) -> None:
    path = write_example(tmp_path)
    calls = ("accept(['d1'])", "reject(['d2'], reason='no')", "edit('t1', {'summary': 'Write it'})", "accept(['l1'])")
    running = [
        subprocess.Popen([sys.executable, "-c", ACCEPT.format(call), str(path)], env=environment()) for call in calls
    ]
    assert [0, 0, 0, 0] == [process.wait(60) for process in running]
    review = Review(path)
    assert {
        "d1": "accepted",
        "d2": "rejected",
        "l1": "accepted",
        "t1": "undecided",
        "q1": "undecided",
    } == review.states()
    assert "Write it" == review.rows()["t1"].title
