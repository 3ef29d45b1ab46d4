"""A batch: rows to answers, each asked once, over one server or several of the same model."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Self

import attrs
import msgspec

from ctxbackends._chat.responses import Completion, Embeddings
from ctxbackends._client.backend import Backend, check_backend
from ctxbackends._config.request_options import RequestOptions
from ctxbackends.batch._answers import BatchAnswer, build_body, build_error, from_entry, to_entry
from ctxbackends.batch._errors import BatchError, BatchInputError, BatchModelError, Problem
from ctxbackends.batch._inputs import BatchInput, validate
from ctxbackends.batch._journal import Journal, Manifest
from ctxbackends.batch._limits import RateLimit
from ctxbackends.batch._replicas import Replica, Replicas
from ctxbackends.batch._rows import BatchRow
from ctxbackends.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BackendError,
    InsufficientQuotaError,
    ModelLoadingError,
    RateLimitError,
    ServerDiedError,
    ServiceUnavailableError,
)

MAX_IN_FLIGHT = 32
"""Requests at once at a server that does not report its slots."""
MAX_BACKOFF = 30.0


@attrs.frozen(kw_only=True)
class BatchOptions:
    """The options of a batch.

    Attributes:
        model: The model of rows that name none, None for the backend's ``default_model``.
        options: More options of rows that do not have them, see :class:`~ctxbackends.ChatOptions`.
        max_in_flight: Requests at once at each server, None for the slots that it reports, or 32.
        requests_per_minute: Requests in any minute at all servers together, None for any number.
        tokens_per_minute: Tokens of prompts and answers in any minute, None for any number.
        max_retries: How often a row is sent again after an error that another attempt may mend.
        validate: Check all rows before the first request.
    """

    model: str | None = None
    options: dict[str, Any] = attrs.field(factory=dict)
    max_in_flight: int | None = None
    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_retries: int = 3
    validate: bool = True


@attrs.define(kw_only=True)
class BatchReport:
    """The figures of a batch.

    Attributes:
        rows: Rows read; with validation all rows of the input.
        answered: Rows with an answer, those of an earlier run included.
        resumed: Answers from the journal of an earlier run.
        failed: Rows with an error.
        requests: Requests sent, one for each attempt.
        repeated: Rows that were sent more than once.
        input_tokens: Tokens of the prompts that were answered in this run.
        output_tokens: Tokens of the answers of this run.
        seconds: Duration of the run.
        by_backend: Answers of this run by the name of the backend.
    """

    rows: int = 0
    answered: int = 0
    resumed: int = 0
    failed: int = 0
    requests: int = 0
    repeated: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    seconds: float = 0.0
    by_backend: dict[str, int] = attrs.field(factory=dict)


class BatchRun:
    """A batch, created by :func:`run_batch`. Iterate it once, with ``async for``.

    Answers come in the order in which they arrive. With a journal, an answer is on the disk before it is yielded.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        rows: Iterable[BatchRow],
        options: BatchOptions,
        *,
        journal: Path | None,
        fresh: bool,
        on_change: Callable[[BatchReport], None] | None,
    ) -> None:
        self._backends = backends
        self._rows = rows
        self._options = options
        self._fingerprint = _fingerprint(backends, options)
        self._journal_path = journal
        self._fresh = fresh
        self._on_change = on_change
        self._iteration: AsyncGenerator[BatchAnswer, None] | None = None
        self._served: dict[str, tuple[str, str]] = {}
        self.report = BatchReport()
        self.journal: Journal | None = None

    def __aiter__(self) -> AsyncIterator[BatchAnswer]:
        if self._iteration is not None:
            raise BatchError("this batch was already iterated; call run_batch() again")
        self._iteration = self._run()
        return self._iteration

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel the requests in flight, and close the journal. Idempotent."""
        if self._iteration is not None:
            await self._iteration.aclose()
        if self.journal is not None:
            self.journal.close()

    @property
    def manifest(self) -> Manifest:
        """The first line of the journal."""
        return Manifest(fingerprint=self._fingerprint.hex())

    def key(self, row: BatchRow) -> bytes:
        """Return the identity of a row's question in this run."""
        return row.digest(self._fingerprint)

    # --- the run ----------------------------------------------------------------------------------

    async def _run(self) -> AsyncGenerator[BatchAnswer, None]:
        started = time.monotonic()
        if self._options.validate:
            self.report.rows = await anyio.to_thread.run_sync(self._validate)
        if self._journal_path is not None:
            self.journal = Journal(self._journal_path, self.manifest, fresh=self._fresh)
        answers: asyncio.Queue[BatchAnswer | None] = asyncio.Queue(maxsize=1024)
        asking = asyncio.create_task(self._ask_all(answers))
        asking.add_done_callback(lambda _: answers.put_nowait(None) if not answers.full() else None)
        try:
            while (answer := await answers.get()) is not None:
                self.report.seconds = time.monotonic() - started
                yield answer
            await asking  # raises its error
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            self.report.seconds = time.monotonic() - started
            if self.journal is not None:
                self.journal.close()

    def _validate(self) -> int:
        rows = self._rows.read() if isinstance(self._rows, BatchInput) else self._rows
        count, problems = validate(rows)
        if problems:
            raise BatchInputError(getattr(self._rows, "name", "rows"), problems)
        return count
