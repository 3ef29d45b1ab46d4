"""The error of a stream that broke off, with the part of the answer that arrived."""

from __future__ import annotations

from ctxbackends._chat.responses import PartialCompletion
from ctxbackends.errors import APIStatusError, BackendError, StreamInterruptedError


def build_interruption(error: BackendError, *, partial: PartialCompletion, request_id: str | None) -> BackendError:
    """Return ``error`` as a StreamInterruptedError with ``partial``, or as it is if nothing had arrived."""
    if isinstance(error, StreamInterruptedError):
        error.partial = partial
        error.request_id = request_id
        return error
    if isinstance(error, APIStatusError) and partial == PartialCompletion(served_model=partial.served_model):
        return error  # nothing had arrived: the server rejected the request after the headers
    interrupted = StreamInterruptedError(error.problem, partial=partial)
    if isinstance(error, APIStatusError):
        problem = f"the server sent an error in the stream: {error.message or error.problem}"
        interrupted = StreamInterruptedError(problem, partial=partial, body=error.body)
    interrupted.__cause__ = error
    interrupted.request_id = request_id
    return interrupted
