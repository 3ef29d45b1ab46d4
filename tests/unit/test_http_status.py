"""The HTTP status of a gateway for each exception, as docs/reference/errors.md has it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from ctxbackends import (
    APIConnectionError,
    APIStatusError,
    BackendError,
    BadRequestError,
    ContextOverflowError,
    IncompleteResponseError,
    InternalServerError,
    PermissionDeniedError,
    RateLimitError,
    ResponseInterruptedError,
    ServiceUnavailableError,
    StreamInterruptedError,
    errors,
    http_status_of,
)
from tests.unit.test_errors import CLASSES, EXAMPLES

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "errors.md"
ENTRY = re.compile(r"^`(\d{3})`\n((?:.*\n)*?)(?=`\d{3}`$|```)", re.MULTILINE)


def documented() -> dict[type[BackendError], int]:
    section = PAGE.read_text(encoding="utf-8").partition("## The status of a gateway")[2].partition("\n`")
    return {
        getattr(errors, name): int(status)
        for status, text in ENTRY.findall(f"`{section[2]}")
        for name in re.findall(r"ctxbackends\.([A-Z]\w+)`", text)
    }


def test_every_public_exception_is_on_the_page() -> None:
    assert CLASSES == set(documented())


@pytest.mark.parametrize("error", [example.values[0] for example in EXAMPLES], ids=lambda error: type(error).__name__)
def test_the_status_is_the_documented_one(error: BackendError) -> None:
    assert documented()[type(error)] == http_status_of(error)


@pytest.mark.parametrize(
    ("error", "status"),
    [
        *[(BadRequestError(status), status) for status in (400, 409, 413, 415, 422, 431, 451)],
        *[(BadRequestError(status), 400) for status in (405, 411, 418, 200)],
        (BadRequestError(408), 504),
        (ContextOverflowError(400), 400),
        (ContextOverflowError(413), 413),
        (ContextOverflowError(500), 400),  # llama-server
        (InternalServerError(500), 502),
        (InternalServerError(504), 504),
        (ServiceUnavailableError(529), 503),
        (RateLimitError(200), 429),  # an error under HTTP 200
        (PermissionDeniedError(403), 502),
        (APIStatusError(407), 502),
        (APIConnectionError("refused", refused=True), 502),
        (StreamInterruptedError("cut"), 502),
    ],
    ids=repr,
)
def test_statuses_of_the_server(error: BackendError, status: int) -> None:
    assert status == http_status_of(error)


def test_an_exception_of_a_user_has_the_status_of_its_base() -> None:
    class Own(RateLimitError):
        """Mine."""

    assert 429 == http_status_of(Own(429))


@pytest.mark.parametrize("error", [ValueError("x"), TimeoutError(), KeyboardInterrupt()], ids=repr)
def test_other_exceptions_are_failures_of_the_gateway(error: BaseException) -> None:
    assert 500 == http_status_of(error)


def test_answers_that_broke_off_have_one_base() -> None:
    for kind in (StreamInterruptedError, ResponseInterruptedError):
        assert issubclass(kind, IncompleteResponseError)
        assert "" == kind("cut").partial.text
    error = ResponseInterruptedError("cut")
    assert isinstance(error, APIConnectionError)
    assert (True, False, False) == (error.sent, error.refused, error.permanent)
