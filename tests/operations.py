"""Runs operations without a server: the requests they make, and their result for prepared responses."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from ctxbackends._wire.base import HTTPRequest, HTTPResponse, Operation
from ctxbackends._wire.errors import error_from_response
from ctxbackends.errors import BackendError

T = TypeVar("T")


def json_response(value: object, status: int = 200) -> HTTPResponse:
    """Return a response with ``value`` as JSON; bytes are sent unchanged."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()
    return HTTPResponse(status=status, headers={}, body=body)


def play(operation: Operation[T], *answers: HTTPResponse) -> tuple[list[HTTPRequest], T]:
    """Return the requests of an operation and its result for the given responses.

    Responses with an error status are thrown as exceptions, as the backend does. Fails if responses are left over.
    """
    remaining = list(answers)

    def server(_: HTTPRequest) -> HTTPResponse:
        return remaining.pop(0)

    requests, result = drive(operation, server)
    assert [] == remaining
    return requests, result


def drive(operation: Operation[T], server: Callable[[HTTPRequest], HTTPResponse]) -> tuple[list[HTTPRequest], T]:
    """Return the requests of an operation and its result, with a function as the server."""
    requests: list[HTTPRequest] = []
    try:
        request = next(operation)
        while True:
            requests.append(request)
            response = server(request)
            if 200 <= response.status < 300:
                request = operation.send(response)
            else:
                error: BackendError = error_from_response(response)
                request = operation.throw(error)
    except StopIteration as end:
        result: T = end.value
        return requests, result


def body_of(request: HTTPRequest) -> Any:
    return json.loads(request.body or b"null")
