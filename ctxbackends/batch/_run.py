"""A batch: rows to answers, each asked once, over one server or several of the same model."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Self, TypeVar

import anyio.to_thread

from ctxbackends._client.backend import Backend, check_backend
from ctxbackends.batch._answers import BatchAnswer, from_entry, to_entry
from ctxbackends.batch._asker import Asker
from ctxbackends.batch._errors import BatchError, BatchInputError
from ctxbackends.batch._forms import check_row
from ctxbackends.batch._inputs import BatchInput, validate
from ctxbackends.batch._journal import Journal, Manifest
from ctxbackends.batch._limits import RateLimit
from ctxbackends.batch._options import BatchOptions, BatchReport
from ctxbackends.batch._replicas import Replica, Replicas, open_replicas
from ctxbackends.batch._rows import BatchRow, encode_deterministic
from ctxbackends.batch._schema import AnswerSchema

T = TypeVar("T")

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
        started = time.monotonic()
        await self._open()
        replicas = Replicas(await open_replicas(self._backends, self._options.max_in_flight), self._note_replica)
        limit = RateLimit(self._options.requests_per_minute, self._options.tokens_per_minute)
        asker = Asker(replicas, limit, self._options, self.report)
        # More than there are slots: rows that wait after an error, or for the disk, leave theirs to others.
        workers = 2 * replicas.capacity
        answers = _Answers(workers)
        asking = asyncio.create_task(self._ask_all(asker, answers, workers))
        try:
            while (answer := await answers.get()) is not None:
                self.report.seconds = time.monotonic() - started
                self._count(answer)
                yield answer
            await asking  # raises its error
        finally:
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await replicas.aclose()
            if self.journal is not None:
                self.journal.refresh()
            self.report.seconds = time.monotonic() - started

    async def _open(self) -> None:
        if self._options.validate:
            if not isinstance(self._rows, BatchInput | Sequence):
                self._rows = [row async for row in _iterate(self._rows)]
            schema = None if self._options.schema is None else AnswerSchema(self._options.schema)
            self.report.rows = await anyio.to_thread.run_sync(_check_rows, self._rows, schema)
        if self._directory is not None:
            manifest = Manifest(fingerprint=self._fingerprint.hex())
            self.journal = await anyio.to_thread.run_sync(
                partial(Journal, self._directory, manifest, fresh=self._fresh)
            )

    async def _ask_all(self, asker: Asker, answers: _Answers, workers: int) -> None:
        """Put all answers into the queue, then None. Raise the first error that concerns all rows."""
        rows = self._unanswered_rows(asker, answers)
        lock = asyncio.Lock()
        tasks = [asyncio.create_task(self._work(asker, rows, lock, answers)) for _ in range(workers)]
        try:
            _, pending = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            if pending:  # after an error, rows that were sent are still answered, and no others are asked
                asker.stop()
                await asyncio.wait(pending)
            for task in tasks:
                if not task.cancelled() and (error := task.exception()) is not None:
                    raise error
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await rows.aclose()
            answers.end()

    async def _unanswered_rows(self, asker: Asker, answers: _Answers) -> AsyncGenerator[tuple[BatchRow, bytes], None]:
        """Iterate over the rows that the journal has no answer to, with their keys. Its answers go into the queue."""
        async for row in _iterate(self._rows):
            key = self.key(row)
            entry = self.journal.get(key) if self.journal is not None and self.journal.answered(key) else None
            if entry is None:
                yield row, key
                continue
            answer = from_entry(row, entry)
            asker.check_model(row, answer.served_model, "an earlier run")
            await answers.put(answer)

    async def _work(
        self, asker: Asker, rows: AsyncIterator[tuple[BatchRow, bytes]], lock: asyncio.Lock, answers: _Answers
    ) -> None:
        while not asker.is_stopped:
            async with lock:
                following = await asker.wait(_next(rows))
            if following is None:
                return
            row, key = following
            answer = await asker.ask(row)
            if self.journal is not None:
                await self.journal.append([to_entry(key, answer)])
            await answers.put(answer)

    # --- the figures ------------------------------------------------------------------------------

    def _count(self, answer: BatchAnswer) -> None:
        report = self.report
        if answer.error is not None:
            report.failed += 1
        else:
            report.answered += 1
            if answer.is_resumed:
                report.resumed += 1
            else:
                prompt, generated = answer.tokens
                report.input_tokens += prompt
                report.output_tokens += generated
                name = answer.backend or ""
                report.by_backend[name] = report.by_backend.get(name, 0) + 1
        if not self._options.validate:
            report.rows = report.answered + report.failed
        if self._on_change is not None:
            self._on_change(report)

    def _note_replica(self, replica: Replica) -> None:
        name = replica.backend.name
        others = tuple(one for one in self.report.unavailable if one != name)
        self.report.unavailable = others if replica.error is None else (*others, name)
        if self._on_change is not None:
            self._on_change(self.report)


class _Answers:
    """A queue with room for some answers, and an end that needs no room."""

    def __init__(self, room: int) -> None:
        self._room = asyncio.Semaphore(room)
        self._queue: asyncio.Queue[BatchAnswer | None] = asyncio.Queue()

    async def put(self, answer: BatchAnswer) -> None:
        await self._room.acquire()
        self._queue.put_nowait(answer)

    def end(self) -> None:
        self._queue.put_nowait(None)

    async def get(self) -> BatchAnswer | None:
        """Return the next answer, None after the last one."""
        answer = await self._queue.get()
        self._room.release()
        return answer


async def _iterate(rows: Rows) -> AsyncIterator[BatchRow]:
    if isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row


async def _next(values: AsyncIterator[T]) -> T | None:
    """Return the next value, None after the last one."""
    try:  # anext() with a default fails in a chain of coroutines: https://github.com/python/cpython/issues/128078
        return await anext(values)
    except StopAsyncIteration:
        return None


def _check_rows(rows: Iterable[BatchRow], schema: AnswerSchema | None) -> int:
    """Return the number of rows. Raise BatchInputError with all their problems."""

    def check(row: BatchRow) -> None:
        check_row(row)
        if schema is not None:
            schema.check_row(row)

    count, problems = validate(rows.read() if isinstance(rows, BatchInput) else rows, check)
    if problems:
        raise BatchInputError(getattr(rows, "name", "rows"), problems)
    return count


def _fingerprint(backends: Sequence[Backend], options: BatchOptions) -> bytes:
    """Return a hash of all that the answers depend on besides the rows."""
    servers = sorted([one.type, one.endpoint, one.default_model] for one in backends)
    run = [servers, options.model, options.options, options.system, options.schema]
    return hashlib.blake2b(encode_deterministic(run), digest_size=16).digest()
