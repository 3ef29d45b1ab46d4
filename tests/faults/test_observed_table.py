"""Every fault with an observer: one start and one end of each request, in order, and the outcome of the table."""

from __future__ import annotations

import re
from itertools import pairwise
from typing import Any

import pytest

from ctxbackends import BackendError, Observer, RequestFacts, open_backend
from ctxbackends.testing import FaultServer, faults
from tests.faults.outcomes import Failure
from tests.faults.test_table import OPERATIONS, USUAL_ROUTES, Case, attempt, cases, check_result

METHODS = ("started", "queued", "attempt", "loading", "served", "first_event", "finished", "failed", "left")
ORDER = re.compile("started ((queued )?attempt (loading )?)*(served )?(first_event )?(finished|failed)")


class Recorder(Observer):
    def __init__(self) -> None:
        self.calls: list[tuple[str, RequestFacts]] = []

    def __getattribute__(self, name: str) -> Any:
        if name in METHODS:
            return lambda facts: self.calls.append((name, facts))
        return super().__getattribute__(name)


OBSERVED = [case for case in cases() if case.route in USUAL_ROUTES and case.operation != "extract"]


def test_every_fault_and_operation_is_observed() -> None:
    assert set(faults.CATALOGUE) == {case.fault for case in OBSERVED}
    assert {*OPERATIONS} - {"extract"} == {case.operation for case in OBSERVED}


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=str(case), marks=[pytest.mark.full] if case.route in USUAL_ROUTES[2:] else [])
        for case in OBSERVED
    ],
)
async def test_observed_table(case: Case) -> None:
    recorder = Recorder()
    async with FaultServer() as server:
        server.play(faults.CATALOGUE[case.fault])
        async with open_backend(
            case.route.type,
            name="one",
            endpoint=server.url,
            api_key="k",
            default_model="m",
            observers=[recorder],
            **case.limits,
        ) as backend:
            result = await attempt(case, backend)
        check_result(case, result, server)
        generations = len(server.generations)
    names = [name for name, _ in recorder.calls]
    assert ORDER.fullmatch(" ".join(names)), names
    facts = recorder.calls[-1][1]
    assert ("failed" if isinstance(case.expected, Failure) else "finished") == names[-1]
    assert (result if isinstance(result, BackendError) else None) is facts.error
    assert names.count("attempt") == facts.attempts
    assert generations <= facts.attempts or case.fault == "close_on_reuse"
    times = [facts.started_at, facts.sent_at, facts.first_event_at, facts.ended_at]
    assert all(earlier <= later for earlier, later in pairwise([time for time in times if time is not None]))
    assert {facts.id} == {called.id for _, called in recorder.calls}
