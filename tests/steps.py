"""Steps of an operation without a server: what they ask for, and what they make of given answers."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from ctxbackends.errors import BackendError
from ctxbackends.wire.http import HTTPRequest, HTTPResponse, Operation
from ctxbackends.wire.status import error_from_response

T = TypeVar("T")


def answered(value: object, status: int = 200) -> HTTPResponse:
    """``value`` as JSON; bytes as they are."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return HTTPResponse(status=status, headers={}, body=body)


def play(steps: Operation[T], *answers: HTTPResponse) -> tuple[list[HTTPRequest], T]:
    """What ``steps`` ask for, and their result, when the server answers so. Answers with an error status are thrown
    in, as the backend does. An answer too many or too few fails."""
    left = list(answers)

    def server(_: HTTPRequest) -> HTTPResponse:
        return left.pop(0)

    requests, result = drive(steps, server)
    assert [] == left
    return requests, result


def drive(steps: Operation[T], server: Callable[[HTTPRequest], HTTPResponse]) -> tuple[list[HTTPRequest], T]:
    """The same, with a function as the server."""
    asked: list[HTTPRequest] = []
    try:
        request = next(steps)
        while True:
            asked.append(request)
            response = server(request)
            if 200 <= response.status < 300:
                request = steps.send(response)
            else:
                error: BackendError = error_from_response(response)
                request = steps.throw(error)
    except StopIteration as end:
        result: T = end.value
        return asked, result


def body_of(request: HTTPRequest) -> Any:
    return json.loads(request.body or b"null")
