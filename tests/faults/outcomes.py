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
    RedirectError,
    ResponseError,
    ResponseTooLargeError,
    StreamInterruptedError,
)


@attrs.frozen(kw_only=True)
class Answers:
    """The complete response arrives. ``requests`` is their number at the server; None for any number.

    With a ``finish_reason`` other than ``stop``, and with tool calls, ``extract()`` raises an error.
    """

    requests: int | None = 1
    finish_reason: str = "stop"
    calls: tuple[str, ...] = ()


@attrs.frozen
class Fails:
    """``error`` is raised.

    ``says`` is in its message, ``facts`` are its attributes, ``cause`` is the type of its cause, and ``pieces`` is the
    number of texts in its ``partial``, None without one. ``requests`` is their number at the server.
    """

    error: type[BackendError]
    says: str = ""
    pieces: int | None = attrs.field(default=None, kw_only=True)
    facts: Mapping[str, Any] = attrs.field(factory=dict, kw_only=True)
    cause: type[BackendError] | None = attrs.field(default=None, kw_only=True)
    requests: int = attrs.field(default=1, kw_only=True)


Outcome = Answers | Fails


@attrs.frozen
class Row:
    """One fault. ``cold`` is the outcome with types that expect a cold start (vllm, llamacpp)."""

    streamed: Outcome
    plain: Outcome | None = None
    embed: Outcome | None = attrs.field(default=None, kw_only=True)
    cold: Outcome | None = attrs.field(default=None, kw_only=True)
    hangs: bool = attrs.field(default=False, kw_only=True)


def everywhere(outcome: Outcome, *, cold: Outcome | None = None) -> Row:
    return Row(outcome, outcome, cold=cold)


def interrupted(says: str, pieces: int, *, cause: type[BackendError] | None = None) -> Fails:
    return Fails(StreamInterruptedError, says, pieces=pieces, cause=cause)


def timed_out(phase: str, pieces: int | None = None) -> Fails:
    return Fails(APITimeoutError, pieces=pieces, facts={"phase": phase, "key": TIMEOUT_KEYS[phase]})


TIMEOUT_KEYS = {"first_token": "first_token_timeout", "idle": "idle_timeout", "total": "timeout"}

WHOLE = everywhere(Answers())
BROKE = "the connection broke before the response was complete"
SENT_ERROR = "the server sent an error in the stream: the engine broke"
STATUS_ERROR = "the server sent an error under HTTP 200: the engine broke"
NOT_OURS = "unexpected response from "
NO_ANSWER = Fails(APIConnectionError, "closed the connection before a response", facts={"sent": True, "refused": False})
CUT_PLAIN = Fails(APIConnectionError, BROKE, facts={"sent": True, "refused": False})
ERROR_IN_BODY = Row(interrupted(SENT_ERROR, 2), Fails(ResponseError, STATUS_ERROR))

TABLE: Mapping[str, Row] = {
    # --- before the response
    "refuse": everywhere(Fails(APIConnectionError, "refused", facts={"refused": True}, requests=0), cold=Answers()),
    "no_response": Row(timed_out("first_token"), timed_out("total"), hangs=True),
    "loading": everywhere(Answers(requests=2), cold=Answers(requests=None)),
    "load_failed": everywhere(Fails(ModelLoadFailedError, "failed to load", facts={"status_code": 500})),
    "swap_proxy": everywhere(Fails(InternalServerError, "502", facts={"status_code": 502})),
    "rate_limited": everywhere(Answers(requests=2)),
    "busy": everywhere(Answers(requests=2)),
    "server_error": everywhere(Fails(InternalServerError, "EngineCore", facts={"status_code": 500})),
    "unauthorized": everywhere(Fails(AuthenticationError, "[key]", facts={"status_code": 401})),
    "model_not_found": everywhere(Fails(ModelNotFoundError, "does not exist", facts={"status_code": 404})),
    "context_overflow": everywhere(
        Fails(ContextOverflowError, facts={"input_tokens": 9000, "context_length": 2048, "status_code": 400})
    ),
    "redirect": everywhere(Fails(RedirectError, "not followed", facts={"status_code": 307})),
    "close_before_headers": everywhere(NO_ANSWER),
    "reset_before_headers": everywhere(NO_ANSWER),
    "close_in_headers": everywhere(Fails(APIConnectionError, "during the response", facts={"sent": True})),
    "slow_headers": Row(timed_out("first_token"), timed_out("total"), hangs=True),
    "informational_responses": WHOLE,
    "not_http": everywhere(Fails(MalformedResponseError, "not valid HTTP")),
    "giant_header": everywhere(Fails(MalformedResponseError, "not valid HTTP")),
    # --- transfer of the body
    "close_in_chunk": Row(interrupted(BROKE, 2, cause=APIConnectionError), CUT_PLAIN),
    "reset_in_body": Row(interrupted(BROKE, 2, cause=APIConnectionError), CUT_PLAIN),
    "short_body": Row(interrupted(BROKE, 4, cause=APIConnectionError), CUT_PLAIN),
    "long_body": everywhere(Fails(MalformedResponseError, "not valid HTTP")),
    "bad_chunk": everywhere(Fails(MalformedResponseError, "not valid HTTP")),
    "stall": Row(timed_out("idle", 2), timed_out("total"), hangs=True),
    "comments_only": Row(timed_out("first_token", 0), timed_out("total"), hangs=True),
    "comments_after": Row(timed_out("idle", 2), hangs=True),
    "pings_only": Row(timed_out("first_token", 0), hangs=True),
    "endless_trickle": Row(timed_out("first_token", 0), timed_out("total"), hangs=True),
    "endless_stream": Row(Fails(APITimeoutError, facts={"phase": "total", "key": "timeout"}), hangs=True),
    "byte_by_byte": WHOLE,
    "gzip_bomb": everywhere(Fails(MalformedResponseError, "compressed")),
    "giant_line": Row(
        interrupted("a line of the stream is larger than 8388608 bytes", 0, cause=ResponseTooLargeError),
        Fails(ResponseTooLargeError, facts={"limit": 8 * 1024 * 1024}),
    ),
    "giant_event": Row(
        interrupted("an event of the stream is larger than 8388608 bytes", 0, cause=ResponseTooLargeError)
    ),
    "giant_error": everywhere(Fails(InternalServerError, "it went wrong", facts={"status_code": 500})),
    # --- content of the body
    "no_terminal_marker": Row(interrupted("the stream ended without", 2), interrupted("incomplete response", 0)),
    "done_without_finish_reason": Row(interrupted("[DONE] came without a finish_reason", 2)),
    "finish_reason_without_done": Row(Answers()),
    "error_object": ERROR_IN_BODY,
    "error_string": ERROR_IN_BODY,
    "error_top_level": ERROR_IN_BODY,
    "error_event": ERROR_IN_BODY,
    "done_after_error": ERROR_IN_BODY,
    "empty_delta": Row(interrupted("the stream ended without", 2)),
    "abort": Row(interrupted("'abort'", 4), interrupted("'abort'", 0)),
    "unknown_finish_reason": Row(interrupted("'tired'", 4), interrupted("'tired'", 0)),
    "max_tokens_reached": everywhere(Answers(finish_reason="length")),
    "plain_text_event": Row(interrupted("proxy error: Failed to read connection", 2)),
    "malformed_event": Row(interrupted("is malformed", 2)),
    "invalid_utf8": Row(interrupted("'utf-8' codec can't decode", 2), Fails(MalformedResponseError, "'utf-8' codec")),
    "html_page": Row(interrupted("last line received: </body></html>", 0), Fails(MalformedResponseError, NOT_OURS)),
    "empty_body": Row(interrupted("the stream ended without", 0), Fails(MalformedResponseError, NOT_OURS)),
    "unexpected_json": Row(interrupted("last line received: [", 0), Fails(MalformedResponseError, NOT_OURS)),
    "empty_choices": Row(
        interrupted("the stream ended without", 0),
        Fails(EmptyChoicesError),
        embed=Fails(MalformedResponseError, "0 vectors received for 1 inputs"),
    ),
    "wrong_content_type": WHOLE,
    "plain_response": Row(interrupted("last line received: {", 0)),
    "other_model": everywhere(
        Fails(ModelMismatchError, facts={"requested_model": "m", "served_model": "another-model"})
    ),
    "repeated_tool_index": Row(Answers(finish_reason="tool_calls", calls=('look {"x":1}', 'find {"y":2}'))),
    "interleaved_tool_calls": Row(Answers(finish_reason="tool_calls", calls=('look {"x":1}', 'find {"y":2}'))),
    # --- keep-alive connections
    "close_after_response": WHOLE,
    "close_on_reuse": WHOLE,
    "unsolicited_response": WHOLE,
}

WIRE_ROWS: Mapping[str, Mapping[str, Row]] = {
    "messages": {
        # The end marker is message_stop, which no server leaves out.
        "done_without_finish_reason": Row(interrupted("stop_reason is None", 2)),
        "finish_reason_without_done": Row(interrupted("the stream ended without message_stop", 4)),
        "empty_choices": Row(
            interrupted("the stream ended without message_stop", 0), interrupted("stop_reason is None", 0)
        ),
    },
    "ollama": {
        # Every line is JSON; any other line ends the stream.
        "plain_text_event": Row(interrupted("a line of the stream is malformed", 2)),
        "html_page": Row(interrupted("a line of the stream is malformed", 0), Fails(MalformedResponseError, NOT_OURS)),
        "unexpected_json": Row(
            interrupted("a line of the stream is malformed", 0), Fails(MalformedResponseError, NOT_OURS)
        ),
        # One line with done is a complete stream.
        "plain_response": Row(Answers()),
    },
}


def row_of(fault: str, wire: str) -> Row:
    return WIRE_ROWS.get(wire, {}).get(fault, TABLE[fault])
