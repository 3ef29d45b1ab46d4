"""Run the cases against a backend."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
import msgspec

from ctxbackends import Backend, Observer, RequestFacts
from ctxbackends.errors import BackendError
from ctxbackends.knowledge import Ingestion, Kind, KnowledgeError, QuarantinedRow, Row, RunOptions, ingest, source_of
from tests.quality.cases import GROUPS, Case
from tests.quality.scoring import Cost, Marks, score_case

NO_ANSWER = "no usable answer"
"""The words in the reason of a chunk that was skipped because the model gave no usable answer."""


class Meter(Observer):
    """Counts the requests to the model and their tokens, also of answers that cannot be used."""

    def __init__(self) -> None:
        self.cost = Cost()

    def finished(self, facts: RequestFacts) -> None:
        self._count(facts)

    def failed(self, facts: RequestFacts) -> None:
        self._count(facts)

    def left(self, facts: RequestFacts) -> None:
        self._count(facts)

    def _count(self, facts: RequestFacts) -> None:
        if facts.operation == "chat":
            usage = facts.usage
            self.cost += Cost(
                requests=1,
                input_tokens=(usage.input_tokens or 0) if usage is not None else 0,
                output_tokens=(usage.output_tokens or 0) if usage is not None else 0,
            )


@attrs.frozen(kw_only=True)
class Result:
    """The rows of a case, the reason if a part of it failed, and how they compare with its labels."""

    case: Case
    rows: tuple[Row, ...]
    quarantined: tuple[QuarantinedRow, ...]
    failure: str | None
    marks: Marks


OnResult = Callable[[Result], object]


async def run_cases(
    backend: Backend,
    cases: Sequence[Case],
    *,
    meter: Meter,
    options: Mapping[str, Any],
    kinds: Sequence[Kind] | None = None,
    together: bool = False,
    on_result: OnResult = lambda _: None,
) -> list[Result]:
    """Run the cases, one after the other, and score them. A case that fails has the rows that were found before.

    Args:
        backend: The backend.
        cases: The cases.
        meter: An observer of the backend.
        options: Fields of RunOptions.
        kinds: The kinds to extract; those of the group by default.
        together: Run all cases of a group at once, as a directory; so small files may share a request. The cost is that
            of the group, in the first of its cases.
        on_result: Called with each result.
    """
    results = []
    for group, defaults in GROUPS.items():
        members = [case for case in cases if case.group == group]
        run_options = RunOptions(**{**options, "kinds": tuple(kinds or defaults), "skip_failed": True})
        for part in [members] if together else [[case] for case in members]:
            for result in await _run(backend, part, meter, run_options):
                on_result(result)
                results.append(result)
    return results


async def _run(backend: Backend, cases: Sequence[Case], meter: Meter, options: RunOptions) -> list[Result]:
    if not cases:
        return []
    before = meter.cost
    fields = {name: getattr(options, name) for name in attrs.fields_dict(RunOptions)}
    error: Exception | None = None
    run = ingest(backend, [source_of(case.path, name=case.name) for case in cases], **fields)
    try:
        async with run:
            async for _ in run:
                pass
    except (BackendError, KnowledgeError) as failure:
        error = failure
    cost = attrs.evolve(meter.cost - before, seconds=run.report.elapsed)
    kinds = [kind for kind in options.kinds if isinstance(kind, Kind)]
    return [_score(case, run, error, kinds, cost if case is cases[0] else Cost()) for case in cases]


def _score(case: Case, run: Ingestion, error: Exception | None, kinds: Sequence[Kind], cost: Cost) -> Result:
    rows = []
    for row in run.rows():
        evidence = tuple(one for one in row.evidence if one.source == case.name)
        if evidence:
            rows.append(msgspec.structs.replace(row, evidence=evidence))
    quarantined = tuple(row for row in run.quarantined if case.name in row.where)
    reasons = [one.reason for one in run.report.skipped if one.source == case.name and NO_ANSWER in one.reason]
    failure = str(error) if error is not None else reasons[0] if reasons else None
    marks = score_case(case, rows, kinds=kinds, quarantined=len(quarantined), failed=failure is not None, cost=cost)
    return Result(case=case, rows=tuple(rows), quarantined=quarantined, failure=failure, marks=marks)
