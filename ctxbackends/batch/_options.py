"""The options of a batch, and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs

from ctxbackends.batch._errors import BatchError

_NUMBERS = ("max_in_flight", "requests_per_minute", "tokens_per_minute")


@attrs.frozen(kw_only=True)
class BatchOptions:
    """The options of a batch.

    Attributes:
        model: The model of rows that name none, None for the backend's ``default_model``.
        options: Options of :class:`~ctxbackends.ChatOptions` for the rows that do not have them.
        system: A system message for the rows whose messages have none.
        max_in_flight: Requests at once at each server, None for the slots that it reports, or 32.
        requests_per_minute: Requests in any minute, at all servers together; None for any number.
        tokens_per_minute: Tokens of prompts and answers in any minute; None for any number.
        max_retries: How often a row is sent again after an error that may not recur.
        validate: Check all rows before the first request.
        schema: A JSON Schema that each answer must match, None for text.

    Raises:
        BatchError: A number is invalid.
    """

    model: str | None = None
    options: Mapping[str, Any] = attrs.field(factory=dict)
    system: str | None = None
    max_in_flight: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_retries: int = 3
    validate: bool = True
    schema: Mapping[str, Any] | None = None

    def __attrs_post_init__(self) -> None:
        for name in _NUMBERS:
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise BatchError(f"invalid {name}: {value!r}; use a whole number above 0, or None")
        if type(self.max_retries) is not int or self.max_retries < 0:
            raise BatchError(f"invalid max_retries: {self.max_retries!r}; use a whole number, 0 for never")


@attrs.define(kw_only=True)
class BatchReport:
    """The figures of a batch, which grow while it runs.

    Attributes:
        rows: Rows of the input; without validation those that were read so far.
        answered: Rows with an answer, including those of earlier runs.
        resumed: Rows with an answer from an earlier run.
        failed: Rows with an error.
        truncated: Rows whose answer ended at ``max_tokens``, including those of earlier runs.
        requests: Requests sent, one for each attempt.
        repeated: Rows that were sent more than once.
        input_tokens: Tokens of the prompts that this run sent, as the servers report them.
        output_tokens: Tokens of the answers of this run, as the servers report them.
        seconds: Duration of the run.
        by_backend: Answers of this run by the name of the backend.
        unavailable: Names of the backends that do not answer now.
        workers: Worker processes that are open, or were replaced; 0 without an engine.
        worker_deaths: Messages about worker processes that died. Each is replaced.
        paused: Names of the backends that get no requests now, since they asked for a pause with a Retry-After.
        is_rate_limited: Whether rows wait for ``requests_per_minute`` or ``tokens_per_minute`` now.
    """

    rows: int = 0
    answered: int = 0
    resumed: int = 0
    failed: int = 0
    truncated: int = 0
    requests: int = 0
    repeated: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    by_backend: dict[str, int] = attrs.field(factory=dict)
    unavailable: tuple[str, ...] = ()
    workers: int = 0
    worker_deaths: tuple[str, ...] = ()
    paused: tuple[str, ...] = ()
    is_rate_limited: bool = False
