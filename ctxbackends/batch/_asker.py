"""Sends one row: to which server, with which options, and again after which error."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeGuard, TypeVar

import attrs
import msgspec

from ctxbackends._chat.responses import Completion, Embeddings
from ctxbackends._config.request_options import RequestOptions
from ctxbackends.batch._answers import BatchAnswer, build_answer, build_failure, count_tokens
from ctxbackends.batch._errors import BatchModelError
from ctxbackends.batch._journal import LineGroup
from ctxbackends.batch._limits import RateLimit
from ctxbackends.batch._options import BatchOptions, BatchReport
from ctxbackends.batch._replica import Replica
from ctxbackends.batch._replicas import Replicas
from ctxbackends.batch._rows import BatchRow
from ctxbackends.batch._schema import AnswerSchema
from ctxbackends.batch._served_models import ServedModels
from ctxbackends.errors import (
    AirgapError,
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BackendError,
    ClosedError,
    ConfigError,
    IncompleteResponseError,
    InsufficientQuotaError,
    InternalServerError,
    LocalServerUnavailableError,
    ModelDownloadError,
    ModelLoadFailedError,
    ModelLoadingError,
    ModelMismatchError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ServerDiedError,
    ServerSleepingError,
    ServiceUnavailableError,
)

T = TypeVar("T")

MAX_BACKOFF = 30.0
"""Seconds. The pauses after errors double up to this one."""

_FATAL = (AuthenticationError, InsufficientQuotaError, ClosedError, ConfigError, AirgapError, BatchModelError)
"""Errors that every row would get. They end the batch, which can be resumed."""
_UNREADY = (
    APIConnectionError,
    LocalServerUnavailableError,
    ModelDownloadError,
    ModelLoadFailedError,
    ModelLoadingError,
    ServerDiedError,
    ServerSleepingError,
)
"""Errors of every row at one server."""
_TRANSIENT = (RateLimitError, InternalServerError, IncompleteResponseError)
MAX_DEATHS = 3
"""Servers that may go away with a row before the row gets an error."""


class Asker:
    """Sends rows, within the limits of the servers and of the batch.

    The batch retries by itself, and not through the backend. So a Retry-After pauses all rows, and a server that went
    away gets no further row.

    Args:
        replicas: The servers.
        rate_limit: The limits of a minute.
        options: The options of the batch.
        report: Counts the requests.
        served: Checks the model of each answer.
        store: Writes an answer into the journal, None for none. That is done before the slot of the row is free: so a
            batch that is killed repeats no more rows than were in flight.

    Attributes:
        is_stopped: No row is sent any more.
        pausing: Rows that wait before they are sent again.
        on_pause: Called when a row begins to wait, None for nothing.
    """

    def __init__(
        self,
        replicas: Replicas,
        rate_limit: RateLimit,
        options: BatchOptions,
        report: BatchReport,
        served: ServedModels,
        store: Callable[[BatchAnswer], LineGroup | None] | None = None,
    ) -> None:
        self._replicas = replicas
        self._rate_limit = rate_limit
        self._options = dict(options.options)
        if options.model is not None:
            self._options["model"] = options.model
        self._schema = None if options.schema is None else AnswerSchema(options.schema)
        self._system = options.system
        self._max_retries = options.max_retries
        self._report = report
        self._request_options = RequestOptions(max_retries=0, ready_timeout=0)
        self._served = served
        self._store = store
        self._waiting: set[asyncio.Task[Any]] = set()
        self.is_stopped = False
        self.pausing = 0
        self.on_pause: Callable[[], None] | None = None

    async def ask(self, row: BatchRow) -> tuple[BatchAnswer, LineGroup | None]:
        """Return the answer to a row, or the error of this row, and the group of its line in the journal.

        Raises:
            BackendError: The error of all rows.
            BatchJournalError: It cannot be written.
        """
        started = 0.0
        attempts = _Attempts()
        while True:
            replica = self._replicas.take_free()
            if replica is None:
                replica = await self.wait(self._replicas.acquire(first=attempts.failures > 0))
            try:
                if not self._rate_limit.is_unlimited:
                    await self.wait(self._rate_limit.acquire())
                if not replica.is_open:  # it was paused or left out since
                    self._rate_limit.release(0)
                    continue
                started = started or time.monotonic()
                tokens, is_sent = (0, 0), True
                try:
                    result = await self._send(replica, row)
                    tokens = count_tokens(result)
                except APIConnectionError as error:
                    is_sent = error.sent
                    raise
                finally:
                    self._rate_limit.release(sum(tokens))
                    if is_sent:
                        attempts.requests += 1
                        self._report.requests += 1
                        self._report.repeated += attempts.requests == 2
                self._served.check(row, result.served_model, replica.backend.name)
                value: Any = msgspec.UNSET
                if self._schema is not None and isinstance(result, Completion):
                    value = self._schema.check_answer(replica.backend, result)
            except (BackendError, TypeError, ValueError) as error:
                if self._is_fatal(error, row, replica):
                    raise
                pause = self._handle(error, replica, attempts)
                if pause is None:
                    return self._finish(
                        build_failure(
                            row,
                            error,
                            backend=replica.backend.name,
                            attempts=attempts.requests,
                            seconds=time.monotonic() - started,
                        )
                    )
            else:
                replica.answers += 1
                return self._finish(
                    build_answer(
                        row,
                        result,
                        backend=replica.backend.name,
                        attempts=attempts.requests,
                        seconds=time.monotonic() - started,
                        checked_value=value,
                    )
                )
            finally:
                self._replicas.release(replica)
            if pause:
                await self._pause(pause)

    async def _pause(self, seconds: float) -> None:
        self.pausing += 1
        try:
            if self.on_pause is not None:
                self.on_pause()
            await self.wait(asyncio.sleep(seconds))
        finally:
            self.pausing -= 1

    def _finish(self, answer: BatchAnswer) -> tuple[BatchAnswer, LineGroup | None]:
        return answer, None if self._store is None else self._store(answer)

    def stop(self) -> None:
        """Cancel the tasks that wait for a row or a slot. Those whose requests were sent go on."""
        self.is_stopped = True
        for task in self._waiting:
            task.cancel()

    async def wait(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Wait for something that :meth:`stop` cancels."""
        if self.is_stopped:
            coroutine.close()
            raise asyncio.CancelledError
        task = asyncio.current_task()
        assert task is not None, "called in a coroutine"
        self._waiting.add(task)
        try:
            return await coroutine
        finally:
            self._waiting.discard(task)

    async def _send(self, replica: Replica, row: BatchRow) -> Completion | Embeddings:
        options: dict[str, Any] = self._options | dict(row.options)
        if self._schema is not None:
            self._schema.check_row(row)
        if row.operation == "embed":
            return await replica.backend.embed(
                row.prompt,
                model=options.get("model"),
                dimensions=options.get("dimensions"),
                encoding=options.get("encoding"),
                request_options=self._request_options,
            )
        if self._schema is not None:
            options |= self._schema.build_options(replica.backend)
        prompt = row.prompt if self._system is None else _add_system(row.prompt, self._system)
        return await replica.backend.complete(prompt, request_options=self._request_options, **options)

    def _is_fatal(self, error: Exception, row: BatchRow, replica: Replica) -> bool:
        """Return whether every row would get the error."""
        if isinstance(error, PermissionDeniedError):  # some vendors answer 403 to a text that they moderate
            return not replica.answers
        if isinstance(error, NotFoundError):  # a wrong endpoint or model
            return not replica.answers and "model" not in row.options
        if isinstance(error, ModelMismatchError):
            return "model" not in row.options
        return isinstance(error, _FATAL)

    def _handle(self, error: Exception, replica: Replica, attempts: _Attempts) -> float | None:
        """Tell the replicas of an error. Return the seconds to wait before the row is sent again, None if it is not."""
        if isinstance(error, APITimeoutError):
            self._replicas.exclude(replica, error)  # it may hang; one that is only slow is back after a probe
            if error.phase == "connect":
                return 0.0
            attempts.deaths += 2  # sent once more, since a long answer would cost as much each time
            return 0.0 if attempts.deaths < MAX_DEATHS and self._max_retries else None
        if isinstance(error, _UNREADY):
            self._replicas.exclude(replica, error)
            attempts.deaths += isinstance(error, ServerDiedError) or getattr(error, "sent", False)
            return 0.0 if attempts.deaths < MAX_DEATHS else None
        if _is_from_proxy(error):
            self._replicas.exclude(replica, error)
            attempts.deaths += replica.answers > 0  # before the first answer, the server behind it may be starting
            return 0.0 if attempts.deaths < MAX_DEATHS else None
        if not isinstance(error, _TRANSIENT):
            return None
        if isinstance(error, APIStatusError) and error.retry_after is not None:
            self._replicas.pause(replica, error.retry_after, error)
            attempts.failures += 0.5  # the limit concerns all rows, and this one may only have been late
            return 0.0 if attempts.failures <= self._max_retries else None
        if isinstance(error, RateLimitError | ServiceUnavailableError):
            self._replicas.slow_down(replica)
        attempts.failures += 1
        if attempts.failures > self._max_retries:
            return None
        backoff = min(MAX_BACKOFF, 0.5 * 2 ** (attempts.failures - 1))
        return float(backoff * random.uniform(0.75, 1.25))  # noqa: S311  # spreads the retries


def _is_from_proxy(error: Exception) -> TypeGuard[APIStatusError]:
    """Return whether a proxy has no server behind it: the body is not that of a model server."""
    return (
        isinstance(error, APIStatusError)
        and error.status_code in (502, 503, 504)
        and error.message is None
        and error.retry_after is None
    )


@attrs.define
class _Attempts:
    """The attempts for one row.

    Attributes:
        requests: Requests that were sent.
        failures: Failures that count against ``max_retries``.
        deaths: Servers that went away while they had the row, which may be the cause.
    """

    requests: int = 0
    failures: float = 0.0
    deaths: int = 0


def _add_system(prompt: Any, system: str) -> Any:
    message = {"role": "system", "content": system}
    if isinstance(prompt, str):
        return [message, {"role": "user", "content": prompt}]
    messages = [prompt] if isinstance(prompt, Mapping) else list(prompt)
    has_one = any(isinstance(one, Mapping) and one.get("role") in ("system", "developer") for one in messages)
    return messages if has_one else [message, *messages]
