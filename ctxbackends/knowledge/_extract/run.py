"""A run from sources to verified rows: concurrent chunks, rows in the order of the text.

Each chunk passes through ``_read_chunks`` (read, mask, count), ``ChunkExtractor.extract`` (journal or model) and
``_collect_rows`` (verify citations, merge duplicates).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from contextlib import AsyncExitStack, aclosing
from functools import partial
from typing import Self, TypeAlias, TypeVar, Unpack

import anyio.to_thread
import msgspec

from ctxbackends._chat.servers import ServerStatus
from ctxbackends._client.backend import Backend
from ctxbackends.knowledge._errors import KnowledgeError
from ctxbackends.knowledge._extract.activity import Activity, Monitor, Phase
from ctxbackends.knowledge._extract.budget import Budget, estimate_tokens
from ctxbackends.knowledge._extract.collector import RowCollector
from ctxbackends.knowledge._extract.distributed import DistributedExtractor, Workers
from ctxbackends.knowledge._extract.journal import Journal
from ctxbackends.knowledge._extract.options import RunKeywords, RunOptions
from ctxbackends.knowledge._extract.packing import AnyChunk
from ctxbackends.knowledge._extract.preparation import check_enforcement, choose_prompt
from ctxbackends.knowledge._extract.progress import Event, OnEvent, Plan, Progress, Report
from ctxbackends.knowledge._extract.prompt import Prompt
from ctxbackends.knowledge._extract.reading import Reader, measure_text
from ctxbackends.knowledge._extract.results import ChunkResult
from ctxbackends.knowledge._extract.worker import ChunkExtractor, ExtractorSettings
from ctxbackends.knowledge._records import QuarantinedRow, Row
from ctxbackends.knowledge._sources.base import Input, SkippedInput, Source

T = TypeVar("T")
Extractor: TypeAlias = ChunkExtractor | DistributedExtractor

CONCURRENCY = 4
"""Requests in flight if the server does not report its slots."""


class Ingestion:
    """A run over sources, created by :func:`ingest`. Iterate it once, with ``async for``.

    Each row is yielded when it is found first. After the iteration, :meth:`rows` returns all rows with all their
    evidence, :attr:`quarantined` the rows without valid evidence, and :attr:`report` the figures. Use ``async with`` to
    cancel the requests in flight when the loop ends early.
    """

    def __init__(
        self,
        backend: Backend,
        sources: Iterable[Source],
        options: RunOptions,
        *,
        journal: Journal | None = None,
        on_event: OnEvent | None = None,
        workers: Workers | None = None,
    ) -> None:
        self._backend = backend
        self._sources = tuple(sources)
        self._prompt = Prompt(options.kinds, options.kinds_per_question, instructions=options.instructions)
        self._options = options
        self._journal = journal
        self._workers = workers
        self._notify = on_event or _ignore_event
        self._run: AsyncGenerator[Row, None] | None = None

        self._status = ServerStatus(state="ready")
        self._budget: Budget | None = None
        self._inputs: list[Input] = []
        self._skipped: list[SkippedInput] = []
        self._rows = RowCollector(self._notify)
        self._size = self._size_done = self._sources_done = 0
        self._second_looks = self._recovered = self._cut = 0
        self._extractor: Extractor | None = None
        self._chunks_done = self._reused = self._masked = 0
        self._prompt_tokens = 0
        self._tokens: dict[str, int] = {}
        self._requested_model: str | None = None
        self._served_model: str | None = None
        self._enforcement = str(backend.schema_enforcement)
        self._started_at = self._elapsed = 0.0
        self._phase: Phase = "connecting"
        self._chunks_read = 0
        self._has_read_all = False
        self._monitor = Monitor(self._build_activity, self._notify)

    # --- results -----------------------------------------------------------------------------------

    def rows(self) -> tuple[Row, ...]:
        """Return all rows so far with all their evidence, in the order in which they were found."""
        return tuple(self._rows.rows.values())

    @property
    def quarantined(self) -> tuple[QuarantinedRow, ...]:
        """The rows whose evidence is not in the sources. Equal rows are merged."""
        return tuple(self._rows.quarantined.values())

    @property
    def report(self) -> Report:
        """The figures so far."""
        return Report(
            backend=self._backend.name,
            backend_type=str(self._backend.type),
            endpoint=self._backend.endpoint,
            requested_model=self._requested_model or self._options.model or self._backend.default_model,
            served_model=self._served_model,
            server_version=self._status.version,
            enforcement=self._enforcement,
            schema_sha256=self._prompt.schema_sha256,
            context_length=self._status.context_length,
            chunk_tokens=self._budget.chunk_tokens if self._budget is not None else 0,
            inputs=tuple(self._inputs),
            skipped=tuple(self._skipped),
            chunks=self._chunks_done,
            requests=self._extractor.requests if self._extractor is not None else 0,
            reused=self._reused,
            cut=self._cut,
            rows=len(self._rows.rows),
            quarantined=len(self._rows.quarantined),
            relocated=self._rows.relocated,
            merged=self._rows.merged,
            masked=self._masked,
            second_looks=self._second_looks,
            recovered=self._recovered,
            input_tokens=self._tokens.get("input_tokens"),
            output_tokens=self._tokens.get("output_tokens"),
            cached_input_tokens=self._tokens.get("cached_input_tokens"),
            elapsed=self._elapsed,
        )

    # --- the run ----------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Row]:
        if self._run is not None:
            raise KnowledgeError("this ingestion was already iterated; call ingest() again")
        self._run = self._iterate_rows()
        return self._run

    async def aclose(self) -> None:
        """Cancel the requests in flight. Idempotent."""
        if self._run is not None:
            await self._run.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    async def plan(self) -> Plan:
        """Read and split all sources without sending them to the model.

        The server is asked for its context length and to count tokens, if it can.

        Raises:
            SourceError: A source cannot be read.
            KnowledgeError: The model's context is too small.
            BackendError: A request to the server failed.
        """
        with self._monitor:
            await self._wait_and_probe()
            budget = await self._prepare_sources()
            async for _ in self._read_chunks(budget):
                pass
        return Plan(
            backend=self._backend.name,
            endpoint=self._backend.endpoint,
            model=self._options.model or self._backend.default_model,
            context_length=self._status.context_length,
            chunk_tokens=budget.chunk_tokens,
            inputs=tuple(self._inputs),
            skipped=tuple(self._skipped),
            chunks=self._chunks_read,
            requests=self._chunks_read * len(self._prompt.questions) * self._options.passes,
            tokens=self._prompt_tokens * self._options.passes,
            is_counted=budget.can_count,
            masked=self._masked,
        )

    async def _iterate_rows(self) -> AsyncGenerator[Row, None]:
        with self._monitor:
            async with AsyncExitStack() as stack:
                if self._workers is not None:  # at once, since the engine may lack the resources
                    await stack.enter_async_context(self._workers.open())
                await self._wait_and_probe()
                max_in_flight = self._options.max_concurrency or self._status.slots or CONCURRENCY
                if self._workers is not None:
                    max_in_flight = self._workers.limit(max_in_flight)
                await self._check_enforcement()
                budget = await self._prepare_sources()
                self._extractor = await self._open_extractor(budget, max_in_flight, stack)
                async with aclosing(self._extract(self._extractor, budget, max_in_flight)) as rows:
                    async for row in rows:
                        yield row

    async def _open_extractor(self, budget: Budget, max_in_flight: int, stack: AsyncExitStack) -> Extractor:
        settings = ExtractorSettings(
            prompt=self._prompt,
            options=self._options,
            answer_tokens=budget.answer_tokens,
            max_in_flight=max_in_flight,
        )
        if self._workers is None:
            return ChunkExtractor(self._backend, settings, journal=self._journal, monitor=self._monitor)
        extractor = DistributedExtractor(self._workers, settings, journal=self._journal, monitor=self._monitor)
        return await stack.enter_async_context(extractor)

    async def _extract(self, extractor: Extractor, budget: Budget, max_in_flight: int) -> AsyncGenerator[Row, None]:
        self._started_at = time.monotonic()
        # Twice as many as the requests in flight, so that no slot is idle while the oldest chunk is not done.
        tasks: deque[asyncio.Task[list[ChunkResult]]] = deque()
        chunks = self._read_chunks(budget)
        try:
            while True:
                while not self._has_read_all and len(tasks) < 2 * max_in_flight:
                    chunk = await anext(chunks, None)
                    if chunk is not None:
                        tasks.append(asyncio.create_task(extractor.extract(chunk)))
                if not tasks:
                    break
                for result in await tasks[0]:
                    for row in self._collect_rows(result):
                        yield row
                tasks.popleft()
                self._notify_progress()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await chunks.aclose()
            self._elapsed = time.monotonic() - self._started_at

    async def _wait_and_probe(self) -> None:
        """Wait until the server is ready, and read its status."""
        await self._backend.wait_ready(on_progress=self._notify)
        self._status = await self._backend.status()

    async def _check_enforcement(self) -> None:
        if self._backend.schema_enforcement != "unverified" or self._options.allow_unenforced:
            return
        self._phase = "probing"
        self._monitor.on_phase()
        await check_enforcement(self._backend, model=self._options.model)
        self._enforcement = "proven"

    async def _prepare_sources(self) -> Budget:
        """Read every source once, so that errors are raised before the first request to the model."""
        self._phase = "preparing"
        self._monitor.on_phase()
        for source in self._sources:
            self._inputs.append(await _run_in_thread(source.prepare))
            self._size += await _run_in_thread(partial(measure_text, source, speakers=self._options.speakers))
        self._prompt, self._budget = await choose_prompt(self._backend, self._status, self._options)
        return self._budget

    # --- chunks -----------------------------------------------------------------------------------

    async def _read_chunks(self, budget: Budget) -> AsyncGenerator[AnyChunk, None]:
        """Yield the chunks of all sources, each within the budget."""
        reader = Reader(self._sources, budget, self._options)
        while True:
            chunk = await _run_in_thread(reader.next_chunk)
            self._collect_from(reader)
            if chunk is None:
                self._has_read_all = True
                break
            async for part in self._split_to_budget(chunk, budget):
                self._chunks_read += 1
                yield msgspec.structs.replace(part, index=self._chunks_read - 1)

    async def _split_to_budget(self, chunk: AnyChunk, budget: Budget) -> AsyncGenerator[AnyChunk, None]:
        """Yield the chunk, split until each part is within the budget by the server's count."""
        if not budget.can_count:
            self._prompt_tokens += budget.sum_tokens(estimate_tokens(chunk.render()))
            yield chunk
            return
        longest = self._prompt.questions[budget.longest]
        messages = longest.build_messages(longest.build_text(chunk.render()))
        tokens = await self._backend.count_tokens(messages, model=self._options.model)
        budget.update_density(chunk.size_sent, tokens)
        halves = None if budget.fits(tokens) else chunk.split()
        if halves is None:
            self._prompt_tokens += budget.sum_tokens(tokens - budget.overhead)
            yield chunk
            return
        for half in halves:
            async for part in self._split_to_budget(half, budget):
                yield part

    def _collect_from(self, reader: Reader) -> None:
        """Add the reader's skipped input, masked secrets and finished sources."""
        self._sources_done = reader.sources_done
        skipped, masked = reader.drain()
        self._masked += masked
        for one in skipped:
            self._skip(one)

    def _skip(self, skipped: SkippedInput) -> None:
        self._skipped.append(skipped)
        self._notify(skipped)

    # --- rows -------------------------------------------------------------------------------------

    def _collect_rows(self, result: ChunkResult) -> Iterator[Row]:
        """Yield the new rows of an answer, and add its figures."""
        # A chunk counts once, with the answer to its last question.
        if result.kinds == self._prompt.questions[-1].kinds:
            self._chunks_done += 1
            self._size_done += result.size
        self._reused += result.from_journal
        self._cut += result.cut
        for skipped in result.skipped:
            self._skip(skipped)
        self._requested_model = result.requested_model or self._requested_model
        self._served_model = result.served_model or self._served_model
        self._second_looks += result.second_looks
        self._recovered += result.recovered
        for usage in result.usages:
            for name in ("input_tokens", "output_tokens", "cached_input_tokens"):
                count = getattr(usage, name)
                if count is not None:
                    self._tokens[name] = self._tokens.get(name, 0) + count
        yield from self._rows.add(result.rows)

    def _notify_progress(self) -> None:
        self._elapsed = time.monotonic() - self._started_at
        self._notify(
            Progress(
                source=self._current_source(self._sources_done),
                sources=len(self._sources),
                sources_done=self._sources_done,
                size=self._size,
                size_done=min(self._size_done, self._size),
                chunks=self._chunks_done,
                reused=self._reused,
                rows=len(self._rows.rows),
                quarantined=len(self._rows.quarantined),
                input_tokens=self._tokens.get("input_tokens", 0),
                output_tokens=self._tokens.get("output_tokens", 0),
                elapsed=self._elapsed,
            )
        )

    def _build_activity(self) -> Activity:
        first = self._monitor.first
        tokens, speed = self._monitor.count_tokens()
        sources_done = self._sources_done if self._budget is not None else len(self._inputs)
        return Activity(
            phase=first.phase if first is not None else self._phase,
            source=first.source if first is not None else self._current_source(sources_done),
            sources=len(self._sources),
            sources_done=sources_done,
            chunk=first.number if first is not None else None,
            chunks=self._chunks_read if self._has_read_all else None,
            in_flight=self._monitor.in_flight,
            size=self._size,
            size_done=min(self._size_done, self._size),
            rows=len(self._rows.rows),
            quarantined=len(self._rows.quarantined),
            prompt=first.prompt if first is not None else None,
            output_tokens=tokens,
            tokens_per_second=speed,
            elapsed=self._monitor.elapsed,
        )

    def _current_source(self, done: int) -> str:
        return self._sources[min(done, len(self._sources) - 1)].name if self._sources else ""


def ingest(
    backend: Backend,
    sources: Iterable[Source],
    *,
    journal: Journal | None = None,
    on_event: OnEvent | None = None,
    workers: Workers | None = None,
    **options: Unpack[RunKeywords],
) -> Ingestion:
    """Extract rows from sources.

    Iterate the result: ``async for row in ingest(backend, sources, kinds=[Kind.TASK])``.

    Each row has evidence: a quote that was found in its source, with its place. Duplicates are merged. Secrets with the
    usual forms of keys are masked before anything is sent. The errors are raised during the iteration.

    Args:
        backend: The backend.
        sources: The sources, such as those of :func:`find_sources`.
        journal: Stores the answers of finished chunks, so that another run can resume.
        on_event: Called with each event of the run.
        workers: Worker processes that send the requests; None for this process. The rows are the same.
        **options: The fields of :class:`~ctxbackends.knowledge.RunOptions`.

    Raises:
        ValueError: An option is invalid; raised at once.
        SourceError: A source cannot be read, or changed meanwhile (SourceChangedError).
        UnenforcedSchemaError: The server does not enforce the schema.
        ChunkError: The model gave no usable answer to a chunk.
        JournalError: The journal cannot be written.
        KnowledgeError: The model's context is too small.
        EngineError: The workers cannot be started.
        BackendError: A request to the server failed.
    """
    return Ingestion(backend, sources, RunOptions(**options), journal=journal, on_event=on_event, workers=workers)


def _ignore_event(_: Event) -> None:
    return None


async def _run_in_thread(work: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(work)
