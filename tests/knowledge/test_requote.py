"""A person accepts a quarantined row with a quote that is verified in the source."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import msgspec
import pytest

from ctxbackends.knowledge._errors import ProposalError
from ctxbackends.knowledge._proposals.model import Proposal
from ctxbackends.knowledge._proposals.review import Review
from ctxbackends.knowledge._proposals.store import write_proposal
from ctxbackends.knowledge._records import Decision, Evidence, QuarantinedRow, Task
from ctxbackends.knowledge._sources.base import Input
from tests.knowledge.commands import ctx, project
from tests.knowledge.test_markdown import FACTS

NOTES = "# Storage\n\nWe keep blobs on **cold** storage.\n\nThe key is password=hunter2hunter2 here.\n"
REASON = "its quote is not in the source"


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A proposal with two quarantined rows, next to its source."""
    project(tmp_path, None)
    monkeypatch.chdir(tmp_path)
    data = NOTES.encode()
    (tmp_path / "notes.md").write_bytes(data)
    input_ = Input(name="notes.md", sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    rows = (
        QuarantinedRow(
            record=Decision("Cold storage", "a", "b", "c"), reason=REASON, quote="Blobs are cold.", where="notes.md:1-5"
        ),
        QuarantinedRow(record=Task("", "low"), reason="no title", quote="x", where="notes.md:1-5"),
    )
    proposals = tmp_path / ".context" / "proposals"
    proposals.mkdir()
    write_proposal(
        proposals, Proposal(facts=msgspec.structs.replace(FACTS, inputs=(input_,)), rows=(), quarantined=rows)
    )
    return tmp_path


def open_review(directory: Path) -> Review:
    (path,) = (directory / ".context" / "proposals").glob("*.md")
    return Review(path)


def test_a_row_is_accepted_with_a_quote(directory: Path) -> None:
    review = open_review(directory)
    evidence = Evidence(source="notes.md", quote="We keep blobs on **cold** storage.", first=3, last=3, match="folded")
    assert evidence == review.requote("x1", "we keep blobs on cold storage")
    again = open_review(directory)
    assert {"x1": "accepted"} == again.states()
    assert ("Cold storage", (evidence,)) == (again.row("x1").title, again.row("x1").evidence)
    again.edit("x1", {"title": "Blobs are cold"})
    again.reject(["x1"], reason="after all")
    last = open_review(directory)
    assert ("rejected", "Blobs are cold") == (last.verdict("x1").state, last.row("x1").title)


def test_the_command(directory: Path) -> None:
    result = ctx(directory, "proposals", "requote", "latest", "x1", "--quote", "We keep blobs")
    assert (0, "", "x1 accepted: notes.md:3\n") == (result.code, result.out, result.err)
    payload = json.loads(ctx(directory, "proposals", "export").out)
    assert ("Cold storage", 'a [source: notes.md:3: "We keep blobs"]') == (payload["title"], payload["context"])
    shown = ctx(directory, "proposals", "show", "latest", "x1").out
    assert "x1  decision: Cold storage  [accepted]" in shown
    assert "    > We keep blobs\n      notes.md:3" in shown


@pytest.mark.parametrize(
    ("name", "quote", "message"),
    [
        (
            "x1",
            "We keep blobs on warm storage",
            "quote not accepted: .*its quote is not in the source; copy the words from notes.md",
        ),
        ("x1", "blobs", "quote is shorter than 2 words"),
        ("x1", "", "no quote"),
        ("x1", "password=hunter2hunter2", "its quote is not in the source"),
        ("x2", "We keep blobs", "x2 has no title"),
        ("x3", "We keep blobs", "has no quarantined row 'x3'; the quarantined rows are x1, x2"),
        ("d1", "We keep blobs", "has no quarantined row 'd1'"),
    ],
)
def test_a_quote_that_is_not_accepted(directory: Path, name: str, quote: str, message: str) -> None:
    with pytest.raises(ProposalError, match=message):
        open_review(directory).requote(name, quote)
    assert {} == open_review(directory).states()


def test_a_source_that_has_changed(directory: Path) -> None:
    (directory / "notes.md").write_text(NOTES.replace("cold", "warm"))
    with pytest.raises(ProposalError, match=r"notes\.md: changed since the run; name the file with --source"):
        open_review(directory).requote("x1", "We keep blobs")


def test_a_source_that_has_grown(directory: Path) -> None:
    (directory / "notes.md").write_text(NOTES + "\nAnd more.\n")
    assert 3 == open_review(directory).requote("x1", "We keep blobs").first


def test_a_source_at_another_place(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "notes.md").rename(directory / "moved.md")
    with pytest.raises(ProposalError, match=r"notes\.md: cannot be read: No such file"):
        open_review(directory).requote("x1", "We keep blobs")
    evidence = open_review(directory).requote("x1", "We keep blobs", path=directory / "moved.md")
    assert "notes.md:3" == evidence.where


def test_a_long_source_is_searched_in_parts_that_overlap(directory: Path) -> None:
    """The quote that is nearest to the row's part is taken."""
    parts = [f"Part {number} of many.\n\nWe keep blobs on tape. {'And so on. ' * 300}" for number in range(60)]
    text = "\n\n".join(parts)
    data = text.encode()
    (directory / "notes.md").write_bytes(data)
    review = open_review(directory)
    row = msgspec.structs.replace(review.proposal.quarantined[0], where="notes.md:83-90")
    input_ = Input(name="notes.md", sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    facts = msgspec.structs.replace(review.proposal.facts, inputs=(input_,))
    review.proposal = msgspec.structs.replace(review.proposal, facts=facts, quarantined=(row,))
    assert 83 == review.requote("x1", "we keep blobs on tape").first
    evidence = review.requote("x1", "Part 20 of many. We keep blobs on tape.")
    assert (81, 83) == (evidence.first, evidence.last)


def test_a_row_of_several_files_is_searched_in_all(directory: Path) -> None:
    """A packed chunk, and a line of the model that is in none of its files."""
    data = b"We write logs to tape.\n"
    (directory / "other.md").write_bytes(data)
    review = open_review(directory)
    row = msgspec.structs.replace(review.proposal.quarantined[0], where="notes.md:1-5; other.md:1")
    other = Input(name="other.md", sha256=hashlib.sha256(data).hexdigest(), size=len(data))
    facts = msgspec.structs.replace(review.proposal.facts, inputs=(*review.proposal.facts.inputs, other))
    review.proposal = msgspec.structs.replace(review.proposal, facts=facts, quarantined=(row,))
    with pytest.raises(ProposalError, match=r"its quote is not in the source; copy the words from notes\.md"):
        review.requote("x1", "We keep logs")
    assert "notes.md:3" == review.requote("x1", "We keep blobs").where
    assert "other.md:1" == review.requote("x1", "We write logs").where
    assert "other.md:1" == review.requote("x1", "We write logs", path=directory / "other.md").where


def test_a_source_is_found_from_a_subdirectory(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "sub").mkdir()
    monkeypatch.chdir(directory / "sub")
    evidence = open_review(directory).requote("x1", "We keep blobs on **cold** storage.")
    assert ("notes.md", 3) == (evidence.source, evidence.first)
