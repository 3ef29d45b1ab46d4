"""A batch: rows to answers, each asked once, over one server or several of the same model."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from pathlib import Path
from typing import Self

import anyio.to_thread
import msgspec

from ctxbackends._client.backend import Backend, check_backend
from ctxbackends.batch._answers import BatchAnswer, from_entry, to_entry
from ctxbackends.batch._asker import Asker
from ctxbackends.batch._errors import BatchError, BatchInputError
from ctxbackends.batch._inputs import BatchInput, validate
from ctxbackends.batch._journal import Journal, Manifest
from ctxbackends.batch._limits import RateLimit
from ctxbackends.batch._options import BatchOptions, BatchReport
from ctxbackends.batch._replicas import Replica, Replicas
from ctxbackends.batch._rows import BatchRow
from ctxbackends.errors import BackendError

MAX_IN_FLIGHT = 32
"""Requests at once at a server that does not report its slots."""

Rows = Iterable[BatchRow] | AsyncIterable[BatchRow]


def run_batch(
    backends: Backend | Sequence[Backend],
    rows: Rows,
    *,
    options: BatchOptions = BatchOptions(),  # noqa: B008  # frozen
    journal: Path | None = None,
    fresh: bool = False,
    on_change: Callable[[BatchReport], None] | None = None,
) -> BatchRun:
    """Ask a model all rows, each once, and iterate over the answers in the order in which they arrive.

    With a journal, an answer is on the disk before it is yielded, and a batch that was killed goes on: rows with an
    answer are yielded from the journal and not asked again; rows with an error are.

    Args:
        backends: One server, or several that serve the same model. Nobody watches the tokens of a batch, so configure
            them with ``complete_streams=False``, which costs less.
        rows: The rows: a :class:`BatchInput`, or any iterable. With ``validate`` an iterable that can be read only
            once, such as a generator, is stored in memory.
        options: The options of the batch.
        journal: The directory of the journal, None for none.
        fresh: Delete the answers of an earlier run.
        on_change: Called with the figures after each answer, and when a server goes away or is back.

    Raises:
        BatchError: There is no backend, or two have the same name.
    """
    several = [backends] if isinstance(backends, Backend) else list(backends)
    for backend in several:
        check_backend(backend)
    return BatchRun(several, rows, options, journal=journal, fresh=fresh, on_change=on_change)


class BatchRun:
    """A batch, created by :func:`run_batch`. Iterate over it once, with ``async for``.

    Leave it with ``async with`` or :meth:`aclose` if you do not iterate to the end: requests in flight are cancelled.

    Attributes:
        report: The figures, which grow while it runs.
        journal: The journal while it is open, None without one.

    Raises:
        BatchInputError: The rows have problems. Nothing was sent.
        BatchJournalError: The journal belongs to another batch, or cannot be read or written.
        BatchModelError: Two servers serve different models.
        BackendError: Every row would get this error, such as that of a wrong key, or no server answers any more. The
            answers so far are in the journal.
    """

    def __init__(
        self,
        backends: Sequence[Backend],
        rows: Rows,
        options: BatchOptions,
        *,
        journal: Path | None,
        fresh: bool,
        on_change: Callable[[BatchReport], None] | None,
    ) -> None:
        names = [backend.name for backend in backends]
        if not names:
            raise BatchError("no backend; pass at least one")
        if duplicate := next((name for name in names if names.count(name) > 1), None):
            raise BatchError(f"two backends have the same name: {duplicate}; give each its own")
        self._backends = backends
        self._rows = rows
        self._options = options
        self._fingerprint = _fingerprint(backends, options)
        self._directory = journal
        self._fresh = fresh
        self._on_change = on_change
        self._answers: AsyncGenerator[BatchAnswer, None] | None = None
        self._started = 0.0
        self.report = BatchReport()
        self.journal: Journal | None = None

    def __aiter__(self) -> AsyncIterator[BatchAnswer]:
        """Start the batch."""
        if self._answers is not None:
            raise BatchError("this batch was already iterated over; call run_batch() again")
        self._answers = self._run()
        return self._answers

    async def __aenter__(self) -> Self:
        """Return the batch."""
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        """Call :meth:`aclose`."""
        await self.aclose()

    async def aclose(self) -> None:
        """Cancel the requests in flight, and close the journal. Idempotent."""
        if self._answers is not None:
            await self._answers.aclose()
        if self.journal is not None:
            self.journal.close()

    def key(self, row: BatchRow) -> bytes:
        """Return the identity of a row's question in this batch, under which the journal stores its answer."""
        return row.digest(self._fingerprint)

    # --- the run ----------------------------------------------------------------------------------

    async def _run(self) -> AsyncGenerator[BatchAnswer, None]:
        self._started = time.monotonic()
        await self._open()
        replicas = Replicas(await self._find_replicas(), self._note_replicas)
        self._asker = Asker(replicas, self._rate_limit(), self._options, self.report)
        # Rows that wait, after an error or for the disk, leave their slot to others.
        workers = 2 * replicas.capacity
        answers: asyncio.Queue[BatchAnswer | None] = asyncio.Queue(maxsize=workers)
        asking = asyncio.create_task(self._ask_all(answers, workers))
        try:
            while (answer := await answers.get()) is not None:
                self._count(answer)
                yield answer
            await asking  # raises its error
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await replicas.aclose()
            self.report.seconds = time.monotonic() - self._started

    async def _open(self) -> None:
        if self._options.validate:
            if not isinstance(self._rows, BatchInput | Sequence):
                self._rows = [row async for row in _iterate(self._rows)]
            self.report.rows = await anyio.to_thread.run_sync(_validate, self._rows)
        if self._directory is not None:
            manifest = Manifest(fingerprint=self._fingerprint.hex())
            self.journal = await anyio.to_thread.run_sync(
                lambda: Journal(self._directory, manifest, fresh=self._fresh)
            )

    async def _ask_all(self, answers: asyncio.Queue[BatchAnswer | None], workers: int) -> None:
        """Put the answers into the queue, and None at the end. Raise the first error of all rows."""
        rows: asyncio.Queue[BatchRow | None] = asyncio.Queue(maxsize=workers)
        tasks = [asyncio.create_task(self._read(rows, answers, workers))]
        tasks += [asyncio.create_task(self._work(rows, answers)) for _ in range(workers)]
        try:
            done, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            if pending:  # one of them failed: rows that were sent are still answered, the others are not asked any more
                tasks[0].cancel()
                self._stopping = True
                self._asker.stop()
                await asyncio.wait(pending)
            errors = [error for task in tasks if not task.cancelled() and (error := task.exception()) is not None]
            if errors:
                raise min(errors, key=lambda error: isinstance(error, BackendError))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await answers.put(None)
