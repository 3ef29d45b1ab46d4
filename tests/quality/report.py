"""The figures of a run as a table and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from ctxbackends.knowledge import Row
from ctxbackends.knowledge._records import fields_of
from tests.quality.cases import GROUPS
from tests.quality.runs import Result
from tests.quality.scoring import Score, add_scores

COLUMNS = (
    "", "cases", "failed", "labels", "rows", "right", "precision", "recall", "fields", "traps", "quarantined",
    "requests", "tokens in", "out", "seconds",
)  # fmt: skip


def scores_of(results: Sequence[Result]) -> dict[str, Score]:
    """Return the score of each group, and the total."""
    groups = {
        group: add_scores(result.marks.score for result in results if result.case.group == group) for group in GROUPS
    }
    return {**{name: score for name, score in groups.items() if score.cases}, "total": add_scores(groups.values())}


def format_table(results: Sequence[Result]) -> str:
    """Return the scores as a table of Markdown, which is aligned for a terminal as well."""
    lines = [COLUMNS, *(_cells(name, score) for name, score in scores_of(results).items())]
    widths = [max(len(line[at]) for line in lines) for at in range(len(COLUMNS))]
    lines.insert(1, tuple("-" * (width - (at > 0)) + ":" * (at > 0) for at, width in enumerate(widths)))
    aligned = ([line[0].ljust(widths[0]), *(map(str.rjust, line[1:], widths[1:]))] for line in lines)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in aligned)


def format_result(result: Result) -> str:
    """Return a line on a case."""
    score = result.marks.score
    parts = [f"{score.right} of {score.labels} labels", f"{score.right} of {score.rows} rows right"]
    parts += [f"{score.traps} of {score.possible_traps} traps taken"] if score.possible_traps else []
    parts += [f"{score.quarantined} quarantined"] if score.quarantined else []
    parts += [f"{score.cost.seconds:.1f} s"] if score.cost.requests else []
    failed = f"; failed: {result.failure}" if result.failure is not None else ""
    return f"{result.case.name}: {', '.join(parts)}{failed}"


def build_json(results: Sequence[Result], run: Mapping[str, Any]) -> dict[str, Any]:
    """Return all figures, rows and missed labels for ``--json``; ``run`` describes the model and the options."""
    return {
        "run": dict(run),
        "scores": {name: _score_to_json(score) for name, score in scores_of(results).items()},
        "cases": [_case_to_json(result) for result in results],
    }


def _cells(name: str, score: Score) -> tuple[str, ...]:
    cost = score.cost
    return (
        name,
        str(score.cases),
        str(score.failed),
        str(score.labels),
        str(score.rows),
        str(score.right),
        _percent(score.precision),
        _percent(score.recall),
        f"{score.right_fields}/{score.right}",
        f"{score.traps}/{score.possible_traps}",
        str(score.quarantined),
        str(cost.requests),
        str(cost.input_tokens),
        str(cost.output_tokens),
        f"{cost.seconds:.0f}",
    )


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.0f} %"


def _score_to_json(score: Score) -> dict[str, Any]:
    return {**attrs.asdict(score), "precision": score.precision, "recall": score.recall}


def _case_to_json(result: Result) -> dict[str, Any]:
    return {
        "case": result.case.name,
        "language": result.case.language,
        "failure": result.failure,
        **_score_to_json(result.marks.score),
        "found": [
            {"verdict": verdict, **_row_to_json(row)}
            for verdict, row in zip(result.marks.verdicts, result.rows, strict=True)
        ],
        "missed": [{"kind": label.kind, "quote": label.quote} for label in result.marks.missed],
        "not_in_source": [{"quote": row.quote, "reason": row.reason} for row in result.quarantined],
    }


def _row_to_json(row: Row) -> dict[str, Any]:
    return {
        "kind": row.kind,
        "fields": fields_of(row.record),
        "quotes": [one.quote for one in row.evidence],
        "where": [one.where for one in row.evidence],
    }
