"""How the soak judges failures. The soak itself is a nox session."""

from __future__ import annotations

import random

import attrs
import pytest

from ctxbackends import (
    APIConnectionError,
    APITimeoutError,
    BackendError,
    ModelLoadingError,
    PartialCompletion,
    StreamInterruptedError,
)
from tests.soak import figures
from tests.soak.disturbed_server import schedule
from tests.soak.requests import READY, Progress, find_fault

URL = "http://127.0.0.1:1"


def interruption(text: str = "", cause: BaseException | None = None) -> StreamInterruptedError:
    error = StreamInterruptedError("broke", partial=PartialCompletion(text=text))
    error.__cause__ = cause
    return error


def after_waiting(error: BackendError, seconds: float) -> BackendError:
    error.waited = seconds
    return error


CLOSED = APIConnectionError("closed", sent=True)
IDLE = APITimeoutError("idle", 2.0, key="idle_timeout", partial=PartialCompletion(text="ab"))


@pytest.mark.parametrize(
    ("error", "done", "took", "text", "fault"),
    [
        (CLOSED, {"kill"}, 1.0, None, None),
        (interruption("ab", CLOSED), {"term"}, 1.0, "ab", None),
        (IDLE, {"pause"}, 2.5, "ab", None),
        (after_waiting(APIConnectionError("refused", refused=True), READY), {"kill"}, 7.0, None, None),
        (after_waiting(ModelLoadingError(503), READY), {"flap"}, 7.0, None, None),
        (CLOSED, set(), 1.0, None, "it failed, and nothing had been done to the server"),
        (CLOSED, {"pause"}, 1.0, None, "the server had only been stopped for a while"),
        (OSError("raw"), {"kill"}, 1.0, None, "no error of ours"),
        (AssertionError(), {"kill"}, 1.0, None, "no error of ours"),
        (interruption("a", CLOSED), {"kill"}, 1.0, "ab", "its partial text has 1 characters, and 2 had been handed on"),
        (interruption("ab"), {"kill"}, 1.0, "ab", "no connection broke"),
        (IDLE, {"pause"}, 1.5, "ab", "it came after 1.50 s, before its limit of 2 s"),
        (
            after_waiting(APIConnectionError("refused", refused=True), 1.0),
            {"kill"},
            1.5,
            None,
            "it waited for 1.00 s, and was to wait for 6 s",
        ),
        (BackendError("?"), {"kill"}, 1.5, None, "an error of this kind cannot be right here"),
    ],
)
def test_a_failure_is_right_or_a_violation(
    error: BaseException, done: set[str], took: float, text: str | None, fault: str | None
) -> None:
    if isinstance(error, BackendError):
        error.backend, error.endpoint = "soak", URL
    assert fault == find_fault(error, frozenset(done), took, Progress(text), URL)


def test_an_error_without_its_backend_is_a_violation() -> None:
    fault = find_fault(APIConnectionError("closed", sent=True), frozenset({"kill"}), 1.0, Progress(), URL)
    assert "it names None at None" == fault


def test_a_seed_gives_the_same_schedule() -> None:
    first, second = (schedule(random.Random(7)) for _ in range(2))
    acts = [next(first) for _ in range(50)]
    assert acts == [next(second) for _ in range(50)]
    assert {"kill", "term", "pause", "flap"} == {act.kind for act in acts}


async def test_growth_is_reported() -> None:
    before = figures.measure(1)
    assert [] == figures.growth(before, before)
    assert ["tasks: 1 at the start, 2 at the end"] == figures.growth(
        attrs.evolve(before, tasks=1), attrs.evolve(before, tasks=2)
    )
    assert set(attrs.asdict(before)) == set(figures.GROWTH)
