"""The expected outcome of each fault of :mod:`ctxbackends.testing.faults`, as data.

``test_table.py`` checks the SDK against it on every wire, and ``docs/reference/failures.md`` shows it.

``streamed`` is for ``stream()``, and for ``complete()`` and ``extract()`` of the types whose ``complete()`` streams.
``plain`` is for responses that are not streamed. ``embed`` defaults to ``plain``. ``WIRE_ROWS`` has the rows of wires
that differ.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ctxbackends import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    BackendError,
    ContextOverflowError,
    EmptyChoicesError,
    InternalServerError,
    MalformedResponseError,
    ModelLoadFailedError,
    ModelMismatchError,
    ModelNotFoundError,
    RateLimitError,
    RedirectError,
    ResponseError,
    ResponseInterruptedError,
    ResponseTooLargeError,
    StreamInterruptedError,
)


@attrs.frozen(kw_only=True)
class Success:
    """The complete response arrives. ``requests`` is their number at the server; None for any number.

    With a ``finish_reason`` other than ``stop``, and with tool calls, ``extract()`` raises an error.
    """

    requests: int | None = 1
    finish_reason: str = "stop"
    calls: tuple[str, ...] = ()


@attrs.frozen
class Failure:
    """``error`` is raised.

    Its text contains ``message``, and it has these ``attributes``. ``cause`` is the type of its cause, and ``pieces``
    is the number of texts in its ``partial``, None without one. ``requests`` is their number at the server.
    """

    error: type[BackendError]
    message: str = ""
    pieces: int | None = attrs.field(default=None, kw_only=True)
    attributes: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True)
    cause: type[BackendError] | None = attrs.field(default=None, kw_only=True)
    requests: int = attrs.field(default=1, kw_only=True)


Outcome = Success | Failure


@attrs.frozen
class Row:
    """One fault. ``cold`` is the outcome with types that expect a cold start (vllm, llamacpp).

    ``times_out`` says that the server stops sending, so that a timeout ends the request.
    """

    streamed: Outcome
    plain: Outcome | None = None
    embed: Outcome | None = attrs.field(default=None, kw_only=True)
    cold: Outcome | None = attrs.field(default=None, kw_only=True)
    times_out: bool = attrs.field(default=False, kw_only=True)


def same_outcome(outcome: Outcome, *, cold: Outcome | None = None) -> Row:
    return Row(outcome, outcome, cold=cold)


def stream_error(message: str, pieces: int, *, cause: type[BackendError] | None = None) -> Failure:
    return Failure(StreamInterruptedError, message, pieces=pieces, cause=cause)


def timeout_error(phase: str, pieces: int | None = None) -> Failure:
    return Failure(APITimeoutError, pieces=pieces, attributes={"phase": phase, "key": TIMEOUT_KEYS[phase]})


TIMEOUT_KEYS = {"first_token": "first_token_timeout", "idle": "idle_timeout", "total": "timeout"}

SUCCESS = same_outcome(Success())
CONNECTION_BROKE = "the connection broke before the response was complete"
STREAM_ERROR = "the server sent an error in the stream: the engine broke"
STATUS_ERROR = "the server sent an error under HTTP 200: the engine broke"
UNEXPECTED = "unexpected response from "
NO_RESPONSE = Failure(
    APIConnectionError, "closed the connection before a response", attributes={"sent": True, "refused": False}
)
BROKEN_BODY = Failure(ResponseInterruptedError, CONNECTION_BROKE, pieces=0, attributes={"sent": True, "refused": False})
ERROR_IN_BODY = Row(stream_error(STREAM_ERROR, 2), Failure(ResponseError, STATUS_ERROR))

TABLE: Mapping[str, Row] = {
    # --- before the response
    "refuse": same_outcome(
        Failure(APIConnectionError, "refused", attributes={"refused": True}, requests=0), cold=Success()
    ),
    "no_response": Row(timeout_error("first_token"), timeout_error("total"), times_out=True),
    "loading": same_outcome(Success(requests=2), cold=Success(requests=None)),
    "load_failed": same_outcome(Failure(ModelLoadFailedError, "failed to load", attributes={"status_code": 500})),
    "swap_proxy": same_outcome(Failure(InternalServerError, "502", attributes={"status_code": 502})),
    "rate_limited": same_outcome(Success(requests=2)),
    "busy": same_outcome(Success(requests=2)),
    "server_error": same_outcome(Failure(InternalServerError, "EngineCore", attributes={"status_code": 500})),
    "unauthorized": same_outcome(Failure(AuthenticationError, "[key]", attributes={"status_code": 401})),
    "model_not_found": same_outcome(Failure(ModelNotFoundError, "does not exist", attributes={"status_code": 404})),
    "context_overflow": same_outcome(
        Failure(ContextOverflowError, attributes={"input_tokens": 9000, "context_length": 2048, "status_code": 400})
    ),
    "redirect": same_outcome(Failure(RedirectError, "not followed", attributes={"status_code": 307})),
    "close_before_headers": same_outcome(NO_RESPONSE),
    "reset_before_headers": same_outcome(NO_RESPONSE),
    "close_in_headers": same_outcome(Failure(APIConnectionError, "during the response", attributes={"sent": True})),
    "slow_headers": Row(timeout_error("first_token"), timeout_error("total"), times_out=True),
    "informational_responses": SUCCESS,
    "not_http": same_outcome(Failure(MalformedResponseError, "not valid HTTP")),
    "giant_header": same_outcome(Failure(MalformedResponseError, "not valid HTTP")),
    # --- transfer of the body
    "close_in_chunk": Row(stream_error(CONNECTION_BROKE, 2, cause=APIConnectionError), BROKEN_BODY),
    "reset_in_body": Row(stream_error(CONNECTION_BROKE, 2, cause=APIConnectionError), BROKEN_BODY),
    "short_body": Row(stream_error(CONNECTION_BROKE, 4, cause=APIConnectionError), BROKEN_BODY),
    "long_body": same_outcome(Failure(MalformedResponseError, "not valid HTTP")),
    "bad_chunk": same_outcome(Failure(MalformedResponseError, "not valid HTTP")),
    "stall": Row(timeout_error("idle", 2), timeout_error("total"), times_out=True),
    "comments_only": Row(timeout_error("first_token", 0), timeout_error("total"), times_out=True),
    "comments_after": Row(timeout_error("idle", 2), times_out=True),
    "pings_only": Row(timeout_error("first_token", 0), times_out=True),
    "endless_trickle": Row(timeout_error("first_token", 0), timeout_error("total"), times_out=True),
    "endless_stream": Row(Failure(APITimeoutError, attributes={"phase": "total", "key": "timeout"}), times_out=True),
    "byte_by_byte": SUCCESS,
    "gzip_bomb": same_outcome(Failure(MalformedResponseError, "compressed")),
    "giant_line": Row(
        stream_error("a line of the stream is larger than 8388608 bytes", 0, cause=ResponseTooLargeError),
        Failure(ResponseTooLargeError, attributes={"limit": 8 * 1024 * 1024}),
    ),
    "giant_event": Row(
        stream_error("an event of the stream is larger than 8388608 bytes", 0, cause=ResponseTooLargeError)
    ),
    "giant_error": same_outcome(Failure(InternalServerError, "it went wrong", attributes={"status_code": 500})),
    # --- content of the body
    "no_terminal_marker": Row(stream_error("the stream ended without", 2), stream_error("incomplete response", 0)),
    "done_without_finish_reason": Row(stream_error("[DONE] came without a finish_reason", 2)),
    "finish_reason_without_done": Row(Success()),
    "error_object": ERROR_IN_BODY,
    "error_string": ERROR_IN_BODY,
    "error_top_level": ERROR_IN_BODY,
    "error_code": Row(
        stream_error("the server sent an error in the stream: slow down", 2, cause=RateLimitError),
        Failure(RateLimitError, "slow down", attributes={"status_code": 429}),
    ),
    "error_event": ERROR_IN_BODY,
    "done_after_error": ERROR_IN_BODY,
    "empty_delta": Row(stream_error("the stream ended without", 2)),
    "abort": Row(stream_error("'abort'", 4), stream_error("'abort'", 0)),
    "unknown_finish_reason": Row(stream_error("'tired'", 4), stream_error("'tired'", 0)),
    "max_tokens_reached": same_outcome(Success(finish_reason="length")),
    "plain_text_event": Row(stream_error("proxy error: Failed to read connection", 2)),
    "malformed_event": Row(stream_error("is malformed", 2)),
    "invalid_utf8": Row(
        stream_error("'utf-8' codec can't decode", 2), Failure(MalformedResponseError, "'utf-8' codec")
    ),
    "html_page": Row(
        stream_error("last line received: </body></html>", 0), Failure(MalformedResponseError, UNEXPECTED)
    ),
    "empty_body": Row(stream_error("the stream ended without", 0), Failure(MalformedResponseError, UNEXPECTED)),
    "unexpected_json": Row(stream_error("last line received: [", 0), Failure(MalformedResponseError, UNEXPECTED)),
    "empty_choices": Row(
        stream_error("the stream ended without", 0),
        Failure(EmptyChoicesError),
        embed=Failure(MalformedResponseError, "0 vectors received for 1 inputs"),
    ),
    "wrong_content_type": SUCCESS,
    "plain_response": Row(Success()),  # read as the answer that it is
    "other_model": same_outcome(
        Failure(ModelMismatchError, attributes={"requested_model": "m", "served_model": "another-model"})
    ),
    "repeated_tool_index": Row(Success(finish_reason="tool_calls", calls=('look {"x":1}', 'find {"y":2}'))),
    "interleaved_tool_calls": Row(Success(finish_reason="tool_calls", calls=('look {"x":1}', 'find {"y":2}'))),
    # --- keep-alive connections
    "close_after_response": SUCCESS,
    "close_on_reuse": SUCCESS,
    "unsolicited_response": SUCCESS,
}

WIRE_ROWS: Mapping[str, Mapping[str, Row]] = {
    "messages": {
        # The end marker is message_stop, which no server leaves out.
        "done_without_finish_reason": Row(stream_error("stop_reason is None", 2)),
        "finish_reason_without_done": Row(stream_error("the stream ended without message_stop", 4)),
        "empty_choices": Row(
            stream_error("the stream ended without message_stop", 0), stream_error("stop_reason is None", 0)
        ),
    },
    "ollama": {
        # Every line is JSON; any other line ends the stream.
        "plain_text_event": Row(stream_error("a line of the stream is malformed", 2)),
        "html_page": Row(
            stream_error("a line of the stream is malformed", 0), Failure(MalformedResponseError, UNEXPECTED)
        ),
        "unexpected_json": Row(
            stream_error("a line of the stream is malformed", 0), Failure(MalformedResponseError, UNEXPECTED)
        ),
        "empty_choices": Row(
            stream_error("the stream ended without", 0),
            Failure(MalformedResponseError, "no message"),
            embed=Failure(MalformedResponseError, "0 vectors received for 1 inputs"),
        ),
    },
}


def row_of(fault: str, wire: str) -> Row:
    return WIRE_ROWS.get(wire, {}).get(fault, TABLE[fault])
