"""Compare the rows of a run with the labels of a case."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Literal, Self, TypeAlias

import attrs

from ctxbackends.knowledge import Evidence, Kind, Row
from ctxbackends.knowledge._records import fields_of
from tests.quality.cases import Case, Label

ENOUGH = 0.5
"""The share of the words of a label's quote that the quote of a row must have, at the same place."""

# A word, or one character of Chinese or Japanese.
_WORD = re.compile(r"[\u3040-\u30ff\u3400-\u9fff]|[^\W\u3040-\u30ff\u3400-\u9fff]+")

Verdict: TypeAlias = Literal["right", "duplicate", "other kind", "trap", "wrong"]
"""``duplicate``: its label was found by another row. ``other kind``: the quote is that of a label of another kind."""


@attrs.frozen(kw_only=True)
class Cost:
    """What the answers took."""

    requests: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0

    def __add__(self, other: Self) -> Cost:
        return Cost(**{name: getattr(self, name) + getattr(other, name) for name in attrs.fields_dict(Cost)})

    def __sub__(self, other: Self) -> Cost:
        return Cost(**{name: getattr(self, name) - getattr(other, name) for name in attrs.fields_dict(Cost)})


@attrs.frozen(kw_only=True)
class Score:
    """The counts of a case, or the sums over cases.

    ``right_fields`` counts the right rows whose fields have the words and the priority of the label, ``traps`` the
    traps that were taken.
    """

    cases: int = 0
    failed: int = 0
    labels: int = 0
    rows: int = 0
    right: int = 0
    right_fields: int = 0
    duplicates: int = 0
    other_kind: int = 0
    possible_traps: int = 0
    traps: int = 0
    quarantined: int = 0
    cost: Cost = Cost()

    def __add__(self, other: Self) -> Score:
        return Score(**{name: getattr(self, name) + getattr(other, name) for name in attrs.fields_dict(Score)})

    @property
    def precision(self) -> float | None:
        """The share of the rows that are right; None without rows."""
        return self.right / self.rows if self.rows else None

    @property
    def recall(self) -> float | None:
        """The share of the labels that were found; None without labels."""
        return self.right / self.labels if self.labels else None


@attrs.frozen(kw_only=True)
class Marks:
    """The score of a case, with the verdict on each row and the labels that were missed."""

    score: Score
    verdicts: tuple[Verdict, ...]
    missed: tuple[Label, ...]


def score_case(
    case: Case,
    rows: Sequence[Row],
    *,
    kinds: Sequence[Kind],
    quarantined: int = 0,
    failed: bool = False,
    cost: Cost | None = None,
) -> Marks:
    """Compare the rows with the labels of these kinds. Each label matches one row, the one with most of its words."""
    labels = [label for label in case.labels if label.kind in kinds]
    overlaps = {
        (at, number): overlap
        for number, label in enumerate(labels)
        for at, row in enumerate(rows)
        if (overlap := _overlap(case, label.quote, row)) >= ENOUGH
    }
    verdicts: list[Verdict] = ["wrong"] * len(rows)
    matches: dict[int, int] = {}  # label to row
    for (at, number), _ in sorted(overlaps.items(), key=lambda item: -item[1]):
        if rows[at].kind == labels[number].kind and verdicts[at] != "right" and number not in matches:
            matches[number] = at
            verdicts[at] = "right"
    for at, number in overlaps:
        if verdicts[at] in ("wrong", "other kind"):
            verdicts[at] = "duplicate" if rows[at].kind == labels[number].kind else "other kind"
    traps = [trap for trap in case.traps if trap.kind in kinds]
    taken = 0
    for trap in traps:
        fallen = [
            at
            for at, row in enumerate(rows)
            if verdicts[at] != "right" and row.kind == trap.kind and _touches(case, trap.passage, row)
        ]
        for at in fallen:
            verdicts[at] = "trap"
        taken += bool(fallen)
    score = Score(
        cases=1,
        failed=int(failed),
        labels=len(labels),
        rows=len(rows),
        right=len(matches),
        right_fields=sum(_has_fields(labels[number], rows[at]) for number, at in matches.items()),
        duplicates=verdicts.count("duplicate"),
        other_kind=verdicts.count("other kind"),
        possible_traps=len(traps),
        traps=taken,
        quarantined=quarantined,
        cost=cost or Cost(),
    )
    missed = tuple(label for number, label in enumerate(labels) if number not in matches)
    return Marks(score=score, verdicts=tuple(verdicts), missed=missed)


def add_scores(scores: Iterable[Score]) -> Score:
    """Return the sums, from which precision and recall are computed over all rows and labels."""
    return sum(scores, start=Score())


def _overlap(case: Case, quote: str, row: Row) -> float:
    """Return the share of a label's words that the best evidence of a row has at the same place."""
    wanted = count_words(quote)
    return max((_share(case, quote, one).total() / wanted.total() for one in row.evidence), default=0.0)


def _touches(case: Case, passage: str, row: Row) -> bool:
    """Whether evidence of a row shares half of its words with a passage, or of those of the passage."""
    length = count_words(passage).total()
    return any(
        _share(case, passage, one).total() >= ENOUGH * min(length, count_words(one.quote).total())
        for one in row.evidence
    )


def _share(case: Case, quote: str, evidence: Evidence) -> Counter[str]:
    """Return the words that a quote of the case and the evidence have in common, if their lines overlap."""
    place = case.locate(quote)
    assert not isinstance(place, str), f"{case.name}: {place}: {quote}"
    is_near = evidence.source == case.name and place.first <= evidence.last and evidence.first <= place.last
    return count_words(quote) & count_words(evidence.quote) if is_near else Counter()


def count_words(text: str) -> Counter[str]:
    """Return the words of a text; each character of Chinese and Japanese is one."""
    return Counter(_WORD.findall(text.casefold()))


def _has_fields(label: Label, row: Row) -> bool:
    """Whether the fields of a row have the words of a label, and its priority."""
    fields = fields_of(row.record)
    text = " ".join(fields.values()).casefold()
    has_words = all(word.casefold() in text for word in label.words)
    return has_words and label.priority in (None, fields.get("priority"))
