"""The passages around quotes: found again in their sources, masked, and only from the bytes of the run."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from ctxbackends.knowledge._proposals.model import Proposal
from ctxbackends.knowledge._proposals.passages import MISSING, WITHHELD, Line, Passage, Passages
from ctxbackends.knowledge._records import Evidence, QuarantinedRow, Row, Task
from tests.knowledge.review_project import SECRET, build, build_example, cite, write_sources


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    write_sources(tmp_path)
    return tmp_path


def marked(passage: Passage | str) -> str:
    """The words of a passage that are marked, with ``|`` between lines."""
    assert not isinstance(passage, str), passage
    return "|".join(line.text[first:last] for line in passage.lines for first, last in line.marks)


def find(directory: Path, name: str, quote: str, *, lines: int = 1, characters: int = 300) -> Passage:
    evidence = cite(directory, name, quote)
    proposal = build(directory, [name], [Row(record=Task("x", "low"), evidence=(evidence,))])
    passage = Passages(proposal, lines=lines, characters=characters, roots=(directory,)).find(evidence)
    assert not isinstance(passage, str), passage
    return passage


def test_a_quote_over_two_lines_in_its_context(directory: Path) -> None:
    passage = find(directory, "plan.md", "The pumps run at night, when power is cheap", lines=2)
    assert [
        Line(text="Rain fell on the roof.", number=4),
        Line(text=""),
        Line(text="- The pumps run **at night**, when power", number=6, marks=((2, 40),)),
        Line(text="  is cheap.", number=7, marks=((2, 11),)),
        Line(text="- The door stays shut. <img src=x onerror=alert(1)> is a text.", number=8),
        Line(text="- The password=[masked] opens it.", number=9),
    ] == list(passage.lines)
    assert (2, 3) == (passage.first, passage.last)


def test_a_quote_in_a_turn_has_the_turns_around(directory: Path) -> None:
    passage = find(directory, "s.jsonl", "I would take the pump.", lines=3)
    assert [
        ("- by hand", "assistant", None),
        ("- by a pump", "assistant", None),
        ("", "assistant", None),
        ("I would take the pump.", "assistant", None),
        ("", "", None),
        ("Take the pump. Order two of them.", "user", 3),
    ] == [(line.text, line.speaker, line.number) for line in passage.lines]
    assert "I would take the pump." == marked(passage)


def test_a_quote_with_control_characters(directory: Path) -> None:
    passage = find(directory, "plan.md", "sensor said \x1b[31mhot")
    assert "sensor said \x1b[31mhot" == marked(passage)


def test_the_occurrence_at_the_cited_place_is_marked(directory: Path) -> None:
    text = "".join(f"We take it.\n\nSection {number}\n\n" for number in range(50))
    (directory / "many.md").write_text(text)
    for first in (1, 41, 197):
        evidence = Evidence(source="many.md", quote="We take it.", first=first, last=first)
        proposal = build(directory, ["many.md"], [Row(record=Task("x", "low"), evidence=(evidence,))])
        passage = Passages(proposal, lines=6, roots=(directory,)).find(evidence)
        assert not isinstance(passage, str)
        assert [first] == [line.number for line in passage.lines if line.marks]


def test_long_lines_are_cut_and_the_quote_is_not(directory: Path) -> None:
    (directory / "long.txt").write_text("a word " * 1000 + "we keep the whole of this quote here" + " and more" * 1000)
    passage = find(directory, "long.txt", "we keep the whole of this quote here", lines=0, characters=20)
    (line,) = passage.lines
    assert "we keep the whole of this quote here" == marked(passage)
    assert len(line.text) == 36 + 2 * 20 + 2
    assert line.text.startswith("…")
    assert line.text.endswith("…")


def test_a_page_is_no_line(directory: Path) -> None:
    (directory / "a.html").write_text("<html><body><p>We paint it green, says the owner.</p></body></html>")
    assert "We paint it green" == marked(find(directory, "a.html", "We paint it green"))


def test_secrets_stay_masked(directory: Path) -> None:
    proposal = build_example(directory)
    passages = Passages(proposal, lines=50, roots=(directory,))
    found = [passages.find(evidence) for row in proposal.rows for evidence in row.evidence]
    found += [passages.find_nearest(row) for row in proposal.quarantined]
    text = "\n".join(line.text for one in found if isinstance(one, Passage) for line in one.lines)
    assert "[masked] opens it" in text
    assert SECRET not in text


def test_each_quote_is_marked_whole(directory: Path) -> None:
    proposal = build_example(directory)
    passages = Passages(proposal, lines=2, roots=(directory,))
    for row in proposal.rows:
        for evidence in row.evidence:
            words = marked(passages.find(evidence)).replace("|", " ").replace("\x1b", "\\x1b").split()
            assert evidence.quote.split() == words


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: path.unlink(), MISSING),
        (lambda path: path.write_text(path.read_text().replace("Rain", "Snow")), "changed since the run"),
        (lambda path: path.write_text("short"), "changed since the run"),
    ],
    ids=["missing", "changed", "shorter"],
)
def test_another_file_is_not_shown(directory: Path, change: Callable[[Path], object], reason: str) -> None:
    proposal = build_example(directory)
    change(directory / "plan.md")
    passages = Passages(proposal, lines=2, roots=(directory,))
    assert reason == passages.find(proposal.rows[0].evidence[0])
    assert "Take the pump" == marked(passages.find(proposal.rows[0].evidence[1]))
    assert reason == passages.find_nearest(proposal.quarantined[0])


def test_a_transcript_may_have_grown(directory: Path) -> None:
    proposal = build_example(directory)
    with (directory / "s.jsonl").open("a") as file:
        file.write("\n" + "x" * 10)
    assert "Take the pump" == marked(Passages(proposal, lines=2, roots=(directory,)).find(proposal.rows[0].evidence[1]))


def test_a_file_that_is_withheld(directory: Path) -> None:
    proposal = build_example(directory)
    passages = Passages(proposal, lines=2, roots=(directory,), withholds=lambda path: path.name == "plan.md")
    assert WITHHELD == passages.find(proposal.rows[0].evidence[0])
    assert WITHHELD == passages.find_nearest(proposal.quarantined[0])
    assert not isinstance(passages.find(proposal.rows[0].evidence[1]), str)


def test_a_source_is_found_from_another_directory(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    proposal = build_example(directory)
    (directory / "sub").mkdir()
    monkeypatch.chdir(directory / "sub")
    assert MISSING == Passages(proposal, lines=2).find(proposal.rows[0].evidence[0])
    assert not isinstance(
        Passages(proposal, lines=2, roots=(Path(), directory)).find(proposal.rows[0].evidence[0]), str
    )


def test_a_quote_of_a_person_is_found_after_the_first_reading(directory: Path) -> None:
    proposal = build_example(directory)
    passages = Passages(msgspec.structs.replace(proposal, quarantined=()), lines=0, roots=(directory,))
    assert not passages.is_read("plan.md")
    passages.find(proposal.rows[3].evidence[0])
    assert passages.is_read("plan.md")
    assert "The door stays shut." == marked(passages.find(cite(directory, "plan.md", "The door stays shut.")))


def test_the_nearest_words_of_a_quarantined_row(directory: Path) -> None:
    proposal = build_example(directory)
    passage = Passages(proposal, lines=1, roots=(directory,)).find_nearest(proposal.quarantined[0])
    assert not isinstance(passage, str)
    assert [7, 8, 9] == [line.number for line in passage.lines]
    assert 1 == passage.first
    assert "" == marked(passage)


def test_the_nearest_words_are_in_the_part_of_the_row(directory: Path) -> None:
    text = "The door is red.\n\n" + "Nothing at all.\n\n" * 20 + "The door.\n"
    (directory / "b.md").write_text(text)
    row = QuarantinedRow(record=Task("door red", "low"), reason="x", quote="The red door.", where="b.md:30-60")
    passage = Passages(build(directory, ["b.md"], [], [row]), lines=0, roots=(directory,)).find_nearest(row)
    assert not isinstance(passage, str)
    assert ["The door."] == [line.text for line in passage.lines]


def test_a_row_of_several_sources_is_shown_in_the_nearest(directory: Path) -> None:
    (directory / "a.md").write_text("The roof is red.\n")
    (directory / "b.md").write_text("The red door is open.\n")
    places = "gone.md:1-9; a.md:1; b.md:1; plan.md:1-15"
    row = QuarantinedRow(record=Task("Open the door", "low"), reason="x", quote="Red door, open.", where=places)
    proposal = build(directory, ["a.md", "b.md", "plan.md"], [], [row])
    passages = Passages(proposal, lines=0, roots=(directory,))
    assert ["a.md", "b.md", "plan.md"] == passages.find_sources(row)
    passage = passages.find_nearest(row)
    assert not isinstance(passage, str)
    assert ("b.md", ["The red door is open."]) == (passage.source, [line.text for line in passage.lines])
    (directory / "b.md").unlink()
    passage = Passages(proposal, lines=0, roots=(directory,)).find_nearest(row)
    assert not isinstance(passage, str)
    assert "b.md" != passage.source


@pytest.mark.parametrize("where", ["gone.md:1-3", "plan.md", "", "plan.md:x"])
def test_a_quarantined_row_without_a_place(directory: Path, where: str) -> None:
    row = QuarantinedRow(record=Task("x", "low"), reason="x", quote="x", where=where)
    assert MISSING == Passages(build(directory, ["plan.md"], []), lines=1, roots=(directory,)).find_nearest(row)


def test_an_input_that_the_proposal_does_not_have(directory: Path) -> None:
    proposal: Proposal = build(directory, ["plan.md"], [])
    assert MISSING == Passages(proposal, lines=1, roots=(directory,)).find(cite(directory, "s.jsonl", "Take the pump"))
