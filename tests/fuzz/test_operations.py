"""All other operations of every profile with arbitrary responses: a result or one of our errors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends._chat.messages import Message
from ctxbackends._chat.requests import ChatRequest
from ctxbackends._chat.responses import Embeddings
from ctxbackends._chat.servers import ServerStatus
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._profiles.profile import Profile
from ctxbackends._wire.base import HTTPResponse, Operation, WireSettings
from ctxbackends._wire.errors import (
    error_from_event,
    error_from_response,
    error_from_success,
    parse_error_body,
    raise_for_failed_command,
)
from ctxbackends.errors import APIConnectionError, APIStatusError, APITimeoutError, BackendError
from tests.fuzz.material import bodies, fuzz_settings

pytestmark = pytest.mark.full

MOST_REQUESTS = 60  # LM Studio unloads one instance with each; the bodies here hold a few

_REQUEST = ChatRequest(messages=(Message.user("Hello"),), model="m")


def _operations(profile: Profile) -> Iterator[tuple[str, object, Callable[[], Operation[Any]]]]:
    """The name of each, the function that makes its steps, and one way to begin it."""
    yield "list_models", profile.list_models, profile.list_models
    embed, load, unload = profile.embed, profile.load, profile.unload
    count, prepare, awake = profile.count_tokens, profile.prepare, profile.check_not_sleeping
    yield "status", profile.status, lambda: profile.status("m")
    yield "status of any model", profile.status, lambda: profile.status(None)
    if embed is not None:
        settings = WireSettings()
        begin = partial(embed, ["a", "b"], model="m", dimensions=None, encoding=None, settings=settings)
        yield "embed", embed, begin
    if load is not None:
        yield "load", load, lambda: load("m", context_length=None, keep_alive=None)
        yield "load with a context", load, lambda: load("m", context_length=64, keep_alive=None)
    if unload is not None:
        yield "unload", unload, lambda: unload("m")
    if count is not None:
        yield "count_tokens", count, lambda: count(_REQUEST, profile.wire_apis[profile.wire_api])
    if prepare is not None:
        yield "prepare", prepare, lambda: prepare("m", WireSettings(context_length=64))
    if awake is not None:
        yield "check_awake", awake, awake


def _all() -> dict[str, Callable[[], Operation[Any]]]:
    """Each once: types share many of them."""
    operations: dict[tuple[str, object], tuple[str, Callable[[], Operation[Any]]]] = {}
    for name, profile in PROFILES.items():
        for operation, function, begin in _operations(profile):
            operations.setdefault((operation, function), (f"{name}: {operation}", begin))
    return dict(operations.values())


OPERATIONS: Mapping[str, Callable[[], Operation[Any]]] = _all()
STEPS = frozenset(
    {"list_models", "status", "embed", "load", "unload", "count_tokens", "prepare", "check_awake"}
)  # as the doc string of Profile lists them

statuses = st.sampled_from((200, 200, 200, 201, 204, 299)) | st.sampled_from(
    (300, 307, 400, 401, 403, 404, 413, 418, 422, 429, 500, 501, 502, 503, 529, 599, 600, 999)
)
header_texts = st.sampled_from(
    ("", "0", "-1", "5", "nan", "inf", "1e999", "1_0", "\u0663", "Wed, 21 Oct 2026 07:28:00 GMT", "Wed, 99 Foo")
) | st.text(max_size=30)
dates = st.builds(
    "{}, {} {} {} {}:{}:{} {}".format,
    st.sampled_from(("Wed", "", "x")),
    st.integers(-1, 40),
    st.sampled_from(("Oct", "Foo", "10")),
    st.integers(-1, 99999),
    st.integers(-1, 30),
    st.integers(-1, 70),
    st.integers(-1, 70),
    st.sampled_from(("GMT", "+9999", "-0000", "+99999999999999", "EST", "")),
)
headers = st.dictionaries(
    st.sampled_from(("retry-after", "retry-after-ms", "date", "location", "x-request-id", "request-id")),
    header_texts | dates,
)
responses = st.builds(
    lambda status, body, fields, at: HTTPResponse(status=status, headers=fields, body=body, received_at=at),
    statuses,
    bodies,
    headers,
    st.sampled_from((0.0, 1.8e9)),
)
answers = st.one_of(
    responses,
    responses,
    responses,
    st.builds(APIConnectionError, st.just("gone"), refused=st.booleans(), sent=st.booleans()),
    st.builds(APITimeoutError, st.sampled_from(("connect", "total")), st.just(1.0), key=st.none()),
)


def test_every_operation_of_a_profile_is_tested() -> None:
    names = {operation.split(": ")[1].split(" ")[0] for operation in OPERATIONS}
    assert STEPS == names


@pytest.mark.parametrize("operation", sorted(OPERATIONS))
@fuzz_settings
@given(st.lists(answers, min_size=1, max_size=5))
def test_an_operation_ends_with_a_result_or_our_error(
    operation: str, script: list[HTTPResponse | BackendError]
) -> None:
    steps = OPERATIONS[operation]()
    try:
        next(steps)
        for index in range(MOST_REQUESTS):
            answer = script[min(index, len(script) - 1)]
            if isinstance(answer, HTTPResponse) and 200 <= answer.status < 300:
                steps.send(answer)
            else:
                steps.throw(error_from_response(answer) if isinstance(answer, HTTPResponse) else answer)
    except StopIteration as end:
        result = end.value
        if isinstance(result, Embeddings):
            assert 2 == len(result.vectors)
            assert all(isinstance(number, float) for vector in result.vectors for number in vector)
        if isinstance(result, ServerStatus):
            assert result.state in ("ready", "loading", "sleeping", "error")
    except BackendError:
        pass
    else:
        pytest.fail(f"it still asks after {MOST_REQUESTS} answers")


# --- errors -------------------------------------------------------------------------------------------


@fuzz_settings
@given(responses)
def test_every_bad_status_is_an_error_with_its_response(response: HTTPResponse) -> None:
    error = error_from_response(response)
    assert (response.status, response.body) == (error.status_code, error.body)
    assert error.retry_after is None or 0 <= error.retry_after < float("inf")
    assert isinstance(str(error), str)


@fuzz_settings
@given(dates | header_texts, dates | header_texts, st.sampled_from((0.0, 1.8e9)))
def test_retry_after_is_a_time_or_nothing(after: str, date: str, at: float) -> None:
    response = HTTPResponse(status=429, headers={"retry-after": after, "date": date}, body=b"", received_at=at)
    seconds = error_from_response(response).retry_after
    assert seconds is None or 0 <= seconds < float("inf")


@fuzz_settings
@given(bodies)
def test_an_error_under_a_good_status_is_our_error(body: bytes) -> None:
    response = HTTPResponse(status=200, headers={}, body=body)
    parse_error_body(body)
    for error in (error_from_event(body), error_from_success(response)):
        assert isinstance(error, BackendError)
        assert isinstance(str(error), str)
        assert not isinstance(error, APIStatusError) or error.body == body
    with suppress(BackendError):
        raise_for_failed_command(response)
