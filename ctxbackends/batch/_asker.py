"""Sends the rows of a batch: to which server, when, and again after which error."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

from ctxbackends._chat.responses import Completion, Embeddings
from ctxbackends._config.request_options import RequestOptions
from ctxbackends.batch._answers import BatchAnswer, build_body, build_error
from ctxbackends.batch._errors import BatchModelError
from ctxbackends.batch._limits import RateLimit
from ctxbackends.batch._replicas import Replica, Replicas
from ctxbackends.batch._rows import BatchRow
from ctxbackends.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BackendError,
    IncompleteResponseError,
    InsufficientQuotaError,
    InternalServerError,
    ModelLoadingError,
    PermissionDeniedError,
    RateLimitError,
    ServerDiedError,
    ServiceUnavailableError,
)

MAX_BACKOFF = 30.0
"""Seconds. The pauses after errors double up to this one."""

_FATAL = (AuthenticationError, PermissionDeniedError, InsufficientQuotaError)
"""Errors of all rows. The batch ends, and can be resumed."""
_BUSY = (RateLimitError, ServiceUnavailableError)
_DOWN = (ModelLoadingError, ServerDiedError)


class Asker:
    """Sends rows, with the limits of the servers and of the batch.

    Args:
        replicas: The servers.
        rate_limit: The limits of a minute.
        model: The model of rows that name none.
        options: The options of rows that do not have them.
        max_retries: How often a row is sent again.
    """

    def __init__(
        self,
        replicas: Replicas,
        rate_limit: RateLimit,
        *,
        model: str | None,
        options: dict[str, Any],
        max_retries: int,
    ) -> None:
        self._replicas = replicas
        self._rate_limit = rate_limit
        self._model = model
        self._options = options
        self._max_retries = max_retries
        # The batch retries by itself, so that a Retry-After pauses all rows and a dead server gets no more of them.
        self._request_options = RequestOptions(max_retries=0, ready_timeout=0)
        self._served: dict[str, tuple[str, str]] = {}
        self.requests = 0

    async def ask(self, row: BatchRow) -> BatchAnswer:
        """Return the answer to a row, or its error.

        Raises:
            BackendError: The error concerns all rows.
        """
        started = 0.0
        attempts = failures = 0
        while True:
            replica = await self._replicas.acquire()
            try:
                await self._rate_limit.acquire()
                started = started or time.monotonic()
                attempts += 1
                self.requests += 1
                tokens = 0
                try:
                    result = await self._send(replica, row)
                    tokens = _count_tokens(result)
                finally:
                    self._rate_limit.release(tokens)
                self._check_model(replica, result)
                return BatchAnswer(
                    row=row,
                    body=build_body(result),
                    backend=replica.backend.name,
                    attempts=attempts,
                    seconds=time.monotonic() - started,
                )
            except _FATAL:
                raise
            except BackendError as error:
                if _is_down(error):
                    self._replicas.exclude(replica, error)
                elif _can_retry(error) and failures < self._max_retries:
                    self._pause(replica, error, failures)
                else:
                    return BatchAnswer(
                        row=row,
                        error=build_error(error),
                        attempts=attempts,
                        seconds=time.monotonic() - started,
                    )
                failures += not _is_down(error)
            finally:
                self._replicas.release(replica)
