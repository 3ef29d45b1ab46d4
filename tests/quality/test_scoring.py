"""The scores of hand-made answers."""

from __future__ import annotations

import pytest

from ctxbackends.knowledge import Evidence, Kind, Row
from ctxbackends.knowledge._records import RECORDS, record_of
from tests.quality.cases import GROUPS, Case, load_cases
from tests.quality.scoring import Cost, Score, add_scores, score_case

CASES = {case.name: case for case in load_cases()}
RADIO = CASES["records/radio-archive.md"]
METERS = CASES["records/water-meters.md"]
KINDS = GROUPS["records"]


def make_row(case: Case, kind: Kind, *quotes: str, text: str = "a title", priority: str = "medium") -> Row:
    """Build a row with the evidence of quotes that are in the case."""
    fields = {name: priority if name == "priority" else text for name in RECORDS[kind].__struct_fields__}
    evidence = []
    for quote in quotes:
        place = case.locate(quote)
        assert isinstance(place, Evidence), place
        evidence.append(place)
    return Row(record=record_of(RECORDS[kind], fields), evidence=tuple(evidence))


def make_all_rows(case: Case) -> list[Row]:
    return [
        make_row(case, label.kind, label.quote, text=" ".join(label.words), priority=label.priority or "medium")
        for label in case.labels
    ]


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_a_perfect_answer(case: Case) -> None:
    marks = score_case(case, make_all_rows(case), kinds=GROUPS[case.group])
    count = len(case.labels)
    assert (1.0, 1.0, count, count) == (
        marks.score.precision,
        marks.score.recall,
        marks.score.right,
        marks.score.right_fields,
    )
    assert (0, 0, 0) == (marks.score.traps, marks.score.duplicates, marks.score.other_kind)
    assert {"right"} == {*marks.verdicts}
    assert () == marks.missed


def test_an_empty_answer() -> None:
    marks = score_case(METERS, [], kinds=KINDS)
    assert (None, 0.0, 0, 1) == (
        marks.score.precision,
        marks.score.recall,
        marks.score.traps,
        marks.score.possible_traps,
    )
    assert METERS.labels == marks.missed


@pytest.mark.parametrize("case", [case for case in CASES.values() if case.traps], ids=lambda case: case.name)
def test_an_answer_that_takes_all_traps(case: Case) -> None:
    rows = [make_row(case, trap.kind, trap.passage) for trap in case.traps]
    marks = score_case(case, rows, kinds=GROUPS[case.group])
    assert (0.0, 0.0) == (marks.score.precision, marks.score.recall)
    assert len(case.traps) == marks.score.traps == marks.score.possible_traps
    assert {"trap"} == {*marks.verdicts}


def test_a_trap_is_taken_once_and_with_a_part_of_its_passage() -> None:
    first = make_row(METERS, Kind.DECISION, "The modules send to the Sigfox network")
    second = make_row(METERS, Kind.DECISION, "Sigfox network, because it covers the whole valley.")
    marks = score_case(METERS, [first, second], kinds=KINDS)
    assert (1, 2, ("trap", "trap")) == (marks.score.traps, marks.score.rows, marks.verdicts)


def test_a_row_of_another_kind_takes_no_trap() -> None:
    row = make_row(METERS, Kind.RISK, METERS.traps[0].passage)
    assert ("wrong",) == score_case(METERS, [row], kinds=KINDS).verdicts


def test_duplicates_are_wrong_rows() -> None:
    rows = make_all_rows(METERS)
    marks = score_case(METERS, [*rows, rows[0]], kinds=KINDS)
    assert (4 / 5, 1.0, 1) == (marks.score.precision, marks.score.recall, marks.score.duplicates)


def test_the_same_quote_with_another_kind_is_not_found() -> None:
    row = make_row(METERS, Kind.TASK, METERS.labels[0].quote)
    marks = score_case(METERS, [row], kinds=KINDS)
    assert (0, 1, ("other kind",)) == (marks.score.right, marks.score.other_kind, marks.verdicts)


def test_half_of_the_words_are_enough() -> None:
    # The label has 12 words.
    quotes = {
        "Every meter that is replaced from": "right",
        "Every meter that is replaced": "wrong",
        "is estimated. The meters that are due for replacement can be bought with a radio module.": "wrong",
    }
    for quote, verdict in quotes.items():
        row = make_row(METERS, Kind.DECISION, quote)
        assert (verdict,) == score_case(METERS, [row], kinds=KINDS).verdicts, quote


def test_a_longer_quote_matches_one_label() -> None:
    """Two decisions in one row are one row for a reviewer, and the second one is missed."""
    first, second = RADIO.labels[0].quote, RADIO.labels[1].quote
    row = make_row(RADIO, Kind.DECISION, first, second)
    marks = score_case(RADIO, [row], kinds=KINDS)
    assert (1, ("right",)) == (marks.score.right, marks.verdicts)
    assert second in [label.quote for label in marks.missed]


def test_the_same_words_at_another_place_do_not_count() -> None:
    text = "The drives of one LTO generation can read only the two generations before it."
    place = RADIO.locate(RADIO.labels[0].quote)
    other = RADIO.locate(text)
    assert isinstance(place, Evidence)
    assert isinstance(other, Evidence)
    moved = Evidence(source=RADIO.name, quote=place.quote, first=other.first, last=other.last)
    elsewhere = Evidence(source="records/other.md", quote=place.quote, first=place.first, last=place.last)
    for evidence, right in ((place, 1), (moved, 0), (elsewhere, 0)):
        row = Row(record=make_row(RADIO, Kind.DECISION).record, evidence=(evidence,))
        assert right == score_case(RADIO, [row], kinds=KINDS).score.right


def test_fields_need_the_words_and_the_priority() -> None:
    label = next(label for label in METERS.labels if label.priority == "high")
    for text, priority, right in (("gateways", "high", 1), ("gateways", "low", 0), ("something", "high", 0)):
        row = make_row(METERS, Kind.TASK, label.quote, text=text, priority=priority)
        score = score_case(METERS, [row], kinds=KINDS).score
        assert (1, right) == (score.right, score.right_fields)


def test_only_the_kinds_that_were_asked_for_count() -> None:
    score = score_case(METERS, [], kinds=[Kind.TASK]).score
    assert (1, 0) == (score.labels, score.possible_traps)


def test_sums_weigh_every_row_and_label_the_same() -> None:
    one = score_case(METERS, make_all_rows(METERS), kinds=KINDS, quarantined=2, cost=Cost(requests=1, seconds=2.0))
    rows = [make_row(RADIO, Kind.TASK, RADIO.traps[0].passage)]
    other = score_case(RADIO, rows, kinds=KINDS, failed=True, cost=Cost(requests=3, output_tokens=5, seconds=1.0))
    total = add_scores([one.score, other.score])
    assert (2, 1, 4, 12, 5, 2) == (total.cases, total.failed, total.right, total.labels, total.rows, total.quarantined)
    assert (4 / 5, 4 / 12) == (total.precision, total.recall)
    assert Cost(requests=4, output_tokens=5, seconds=3.0) == total.cost
    assert Score() == add_scores([])
