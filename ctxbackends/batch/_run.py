"""A batch: rows to answers, each asked once, over one server or several of the same model."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from functools import partial
from pathlib import Path
from typing import Any, Self

import anyio.to_thread

from ctxbackends._client.backend import Backend, check_backend
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._engines.backends import BackendOpener
from ctxbackends._engines.contract import Engine
from ctxbackends._registry import Registry
from ctxbackends.batch._answers import BatchAnswer, from_entry, to_entry
from ctxbackends.batch._asker import Asker
from ctxbackends.batch._board import ServerBoard
from ctxbackends.batch._distribution import Distribution
from ctxbackends.batch._errors import BatchError, BatchInputError, Problem
from ctxbackends.batch._forms import check_row
from ctxbackends.batch._inputs import BatchInput, validate
from ctxbackends.batch._journal import Entry, Journal, LineGroup
from ctxbackends.batch._journal_manifest import Manifest
from ctxbackends.batch._limits import WINDOW, RateLimit
from ctxbackends.batch._local import ask_here
from ctxbackends.batch._options import BatchOptions, BatchReport
from ctxbackends.batch._queue import AnswerQueue
from ctxbackends.batch._replica import Replica, open_replicas
from ctxbackends.batch._replicas import Replicas
from ctxbackends.batch._rows import BatchRow, encode_deterministic
from ctxbackends.batch._schema import AnswerSchema
from ctxbackends.batch._served_models import ServedModels
from ctxbackends.batch._threads import run_in_thread

Rows = Iterable[BatchRow] | AsyncIterable[BatchRow]

USE_INTERVAL = 5.0
"""Seconds between two notes in the journal that the batch runs."""


def run_batch(
    backends: Backend | BackendConfig | Sequence[Backend] | Sequence[BackendConfig],
    rows: Rows,
    *,
    options: BatchOptions = BatchOptions(),  # noqa: B008  # frozen
    journal: Path | None = None,
    fresh: bool = False,
    on_change: Callable[[BatchReport], None] | None = None,
    engine: Engine | None = None,
    workers: int = 1,
    airgap: bool = False,
) -> BatchRun:
    """Ask a model all rows, each once, and iterate over the answers in the order in which they arrive.

    With a journal, an answer is on the disk before it is yielded, and a batch that was killed goes on: rows with an
    answer are yielded from the journal and not sent again; rows with an error are.

    Args:
        backends: One server, or several that serve the same model. Those given as configurations are opened for the
            batch. Nobody watches the tokens of a batch, so configure them with ``complete_streams=False``, which
            costs less.
        rows: The rows: a :class:`BatchInput`, or any iterable. With ``validate`` an iterable that can be read only
            once, such as a generator, is stored in memory.
        options: The options of the batch.
        journal: The directory of the journal, None for none. Workers on other machines must share it.
        fresh: Delete the answers of an earlier run.
        on_change: Called with the figures after each answer, and when a server goes away or is back.
        engine: Runs the batch on worker processes, which share the limits; None for this process.
        workers: Number of worker processes.
        airgap: Connect only to loopback and private addresses, for configurations.

    Raises:
        BatchError: There is no backend, two have the same name, or a worker cannot open them; ``rows`` are not rows;
            or there are workers without an engine.
        EngineError: A worker cannot open a configuration, since it contains a secret, or a model file to serve.
        ConfigError: A configuration is invalid.
    """
    _check_rows_type(rows)
    if type(workers) is not int or workers < 1:
        raise BatchError(f"invalid workers: {workers!r}; use a whole number above 0")
    if workers > 1 and engine is None:
        raise BatchError(f"workers without an engine: {workers}; pass engine=ProcessEngine(), or remove workers")
    several = [*backends] if isinstance(backends, Iterable) else [backends]
    configs = tuple(one for one in several if isinstance(one, BackendConfig))
    opened = [one for one in several if not isinstance(one, BackendConfig)]
    for backend in opened:
        check_backend(backend)
    if opened and (configs or engine is not None):
        raise BatchError("workers cannot open a backend of this process; pass a BackendConfig for each server")
    if opened and airgap:
        raise BatchError("airgap is for configurations; pass a BackendConfig for each server")
    _check_names([one.name for one in several])
    distribution = None
    if engine is not None:
        openers = tuple(BackendOpener(config, airgap=airgap) for config in configs)
        distribution = Distribution(engine=engine, workers=workers, backends=openers)
    registry = Registry(configs, airgap=airgap) if configs else None
    return BatchRun(
        opened if registry is None else [registry.resolve(config.name) for config in configs],
        rows,
        options,
        journal=journal,
        fresh=fresh,
        on_change=on_change,
        registry=registry,
        distribution=distribution,
    )


def _check_rows_type(rows: object) -> None:
    """Raise for a value that is often passed by mistake."""
    if isinstance(rows, str | bytes | Path):
        raise BatchError(f"rows are a path: {rows!r:.80}; pass BatchInput(path)")
    if isinstance(rows, BatchRow | Mapping) or not isinstance(rows, Iterable | AsyncIterable):
        raise BatchError(f"rows are not a list of BatchRow: {rows!r:.80}; pass a list, or BatchInput(path)")


def _check_names(names: Sequence[str]) -> None:
    if not names:
        raise BatchError("no backend; pass at least one")
    if duplicate := next((name for name in names if names.count(name) > 1), None):
        raise BatchError(f"two backends have the same name: {duplicate}; give each its own")


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
        registry: Registry | None = None,
        distribution: Distribution | None = None,
    ) -> None:
        self._backends = backends
        self._rows = rows
        self._options = options
        self._fingerprint = _fingerprint(backends, options)
        self._directory = journal
        self._fresh = fresh
        self._on_change = on_change
        self._registry = registry
        self._distribution = distribution
        self._answers: AsyncGenerator[BatchAnswer, None] | None = None
        self.report: BatchReport = BatchReport()
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
        asking = None
        try:
            if self._distribution is not None:  # at once, since it may lack the resources
                await self._distribution.engine.open(self._distribution.workers)
            await self._open()
            is_divided = self._distribution is not None  # the slots that the workers share
            replicas = await open_replicas(self._backends, self._options.max_in_flight, wait=is_divided)
            answers = AnswerQueue(2 * sum(replica.limit for replica in replicas))
            asking = asyncio.create_task(self._ask(replicas, answers))
            while (answer := await answers.get()) is not None:
                self.report.seconds = time.monotonic() - started
                self._count(answer)
                yield answer
            await asking  # raises its error
        finally:
            if asking is not None:
                asking.cancel()
                await asyncio.gather(asking, return_exceptions=True)
            self.report.seconds = time.monotonic() - started
            if self._distribution is not None:
                await self._distribution.engine.aclose()
            if self._registry is not None:
                await self._registry.aclose()
            if self.journal is not None:
                await anyio.to_thread.run_sync(self.journal.refresh)

    async def _ask(self, replicas: Sequence[Replica], answers: AnswerQueue) -> None:
        """Put all answers into the queue, and end it. Raise the first error that concerns all rows."""
        served = ServedModels()
        rows = self._unanswered_rows(served, answers)
        closed_for = self._find_closed_time()
        noting = asyncio.create_task(self._note_use())
        try:
            if self._distribution is None:
                minute = (self._options.requests_per_minute, self._options.tokens_per_minute)
                limit = RateLimit(*minute, closed_for=closed_for, on_change=self._note_rate_limit)
                async with aclosing(Replicas(replicas, self._note_replica)) as servers:
                    store = None if self.journal is None else self._store
                    asker = Asker(servers, limit, self._options, self.report, served, store)
                    await ask_here(rows, answers, asker=asker, slots=servers.capacity)
                return
            limits = {replica.backend.name: replica.limit for replica in replicas}
            specs = self._distribution.specs(
                limits, self._options, self._fingerprint, self.journal, closed_for=closed_for
            )
            board = ServerBoard(self._backends, self.report, self._notify)
            answering = self._distribution.answer(rows, specs, self.journal, self.report, board)
            async with aclosing(answering) as distributed:
                async for answer in distributed:
                    served.check(answer.row, answer.served_model, answer.backend or "a worker")
                    self.report.requests += answer.attempts
                    self.report.repeated += answer.attempts > 1
                    await answers.put(answer)
        finally:
            noting.cancel()
            await rows.aclose()
            answers.end()

    def _find_closed_time(self) -> float:
        """Return the seconds until the minute of an earlier run of the batch is over."""
        idle = None if self.journal is None else self.journal.idle_seconds
        return 0.0 if idle is None else max(0.0, WINDOW + USE_INTERVAL - idle)

    async def _note_use(self) -> None:
        while self.journal is not None:
            await asyncio.to_thread(self.journal.note_use)
            await asyncio.sleep(USE_INTERVAL)

    async def _open(self) -> None:
        if self._options.validate:
            if not isinstance(self._rows, BatchInput | Sequence):
                self._rows = [row async for row in _iterate(self._rows)]
            schema = None if self._options.schema is None else AnswerSchema(self._options.schema)
            name = getattr(self._rows, "name", "")
            check = partial(_check_rows, name=name, options=self._options.options, schema=schema)
            rows = self._rows.read() if isinstance(self._rows, BatchInput) else self._rows
            self.report.rows = await run_in_thread(check, rows)
        if self._directory is not None:
            parts = _fingerprint_parts(self._backends, self._options)
            manifest = Manifest(fingerprint=self._fingerprint.hex(), parts=parts)
            self.journal = await anyio.to_thread.run_sync(
                partial(Journal, self._directory, manifest, fresh=self._fresh)
            )

    def _store(self, answer: BatchAnswer) -> LineGroup | None:
        assert self.journal is not None, "called with a journal"
        return self.journal.write([to_entry(self.key(answer.row), answer)])

    async def _unanswered_rows(self, served: ServedModels, answers: AnswerQueue) -> AsyncGenerator[BatchRow, None]:
        """Iterate over the rows that the journal has no answer to. Its answers go into the queue."""
        async with aclosing(_iterate(self._rows)) as rows:
            async for row in rows:
                entry = self._find_answer(row)
                if entry is None:
                    yield row
                    continue
                answer = from_entry(row, entry)
                served.check(row, answer.served_model, "an earlier run")
                await answers.put(answer)

    def _find_answer(self, row: BatchRow) -> Entry | None:
        if not self.journal:  # without an entry of an earlier run
            return None
        key = self.key(row)
        return self.journal.get(key) if self.journal.answered(key) else None

    # --- the figures ------------------------------------------------------------------------------

    def _count(self, answer: BatchAnswer) -> None:
        report = self.report
        if answer.error is not None:
            report.failed += 1
        else:
            report.answered += 1
            report.truncated += answer.finish_reason == "length"
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
        self._notify()

    def _note_replica(self, replica: Replica) -> None:
        name = replica.backend.name
        report = self.report
        report.unavailable = _put(report.unavailable, name, is_in=replica.error is not None)
        report.paused = _put(report.paused, name, is_in=replica.is_paused)
        self._notify()

    def _note_rate_limit(self, is_waiting: bool) -> None:
        self.report.is_rate_limited = is_waiting
        self._notify()

    def _notify(self) -> None:
        if self._on_change is not None:
            self._on_change(self.report)


def _put(names: tuple[str, ...], name: str, *, is_in: bool) -> tuple[str, ...]:
    others = tuple(one for one in names if one != name)
    return (*others, name) if is_in else others


async def _iterate(rows: Rows) -> AsyncGenerator[BatchRow, None]:
    if isinstance(rows, AsyncGenerator):
        async with aclosing(rows):
            async for row in rows:
                yield row
    elif isinstance(rows, AsyncIterable):
        async for row in rows:
            yield row
    else:
        for row in rows:
            yield row


def _check_rows(
    rows: Iterable[BatchRow | Problem], *, name: str, options: Mapping[str, Any], schema: AnswerSchema | None
) -> int:
    """Return the number of rows. Raise BatchInputError with all their problems."""

    def check(row: BatchRow) -> None:
        check_row(row, options)
        if schema is not None:
            schema.check_row(row)

    count, problems = validate(rows, check)
    if problems:
        raise BatchInputError(name, problems)
    return count


def _fingerprint(backends: Sequence[Backend], options: BatchOptions) -> bytes:
    """Return a hash of all that the answers depend on besides the rows."""
    servers = sorted([one.type, one.endpoint, one.default_model] for one in backends)
    run = [servers, options.model, options.options, options.system, options.schema]
    return _hash(run, 16)


def _fingerprint_parts(backends: Sequence[Backend], options: BatchOptions) -> dict[str, str]:
    """Return a hash of each of these by its name."""
    parts = {
        "backends": sorted([one.type, one.endpoint] for one in backends),
        "model": [options.model, *sorted({one.default_model or "" for one in backends})],
        "system message": options.system,
        "schema": options.schema,
        **options.options,
    }
    return {name: _hash(value, 8).hex() for name, value in parts.items()}


def _hash(value: Any, size: int) -> bytes:
    return hashlib.blake2b(encode_deterministic(value), digest_size=size).digest()
