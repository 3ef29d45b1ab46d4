"""One run: sources in, checked rows out. The model is asked about several chunks at once; rows come in the order of the
text all the same. Knows no command, no proposal and no directory.

The way of a chunk: ``_chunks`` (read, masked, counted) -> ``Asker.ask`` (the journal, or the model) -> ``_take``
(citations checked, duplicates merged).
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar, Unpack

import anyio.to_thread
import msgspec

from ctxbackends._chat.servers import ServerStatus
from ctxbackends._client.backend import Backend
from ctxbackends._structured import probe_schema
from ctxbackends.knowledge._errors import KnowledgeError, UnenforcedSchemaError
from ctxbackends.knowledge._extract import citations
from ctxbackends.knowledge._extract.budget import Budget, build_messages, compute_budget
from ctxbackends.knowledge._extract.chunker import Chunk
from ctxbackends.knowledge._extract.journal import Journal
from ctxbackends.knowledge._extract.options import RunKeywords, RunOptions
from ctxbackends.knowledge._extract.progress import Event, OnEvent, Plan, Progress, Report
from ctxbackends.knowledge._extract.prompt import Prompt
from ctxbackends.knowledge._extract.reading import Reader, length_of
from ctxbackends.knowledge._extract.worker import ChunkExtractor, ChunkResult
from ctxbackends.knowledge._records import QuarantinedRow, Row
from ctxbackends.knowledge._sources.base import Input, SkippedInput, Source

T = TypeVar("T")

CONCURRENCY = 4
"""Requests at once where the server does not say how many it works on."""


class Ingestion:
    """A run over ``sources``; see :func:`ingest`. Iterate it once: each row is given when it is found first.

    Afterwards :meth:`rows` has all rows with all their evidence, :attr:`quarantined` what is not believed, and
    :attr:`report` the figures. Left early, it cancels what is at work; ``async with`` does so at once.
    """

    def __init__(
        self,
        backend: Backend,
        sources: Iterable[Source],
        options: RunOptions,
        *,
        journal: Journal | None = None,
        on_event: OnEvent | None = None,
    ) -> None:
        self._backend = backend
        self._sources = tuple(sources)
        self._question = Prompt(options.kinds)
        self._options = options
        self._journal = journal
        self._tell = on_event or _nobody
        self._run: AsyncGenerator[Row, None] | None = None

        self._status = ServerStatus(state="ready")
        self._budget: Budget | None = None
        self._inputs: list[Input] = []
        self._skipped: list[SkippedInput] = []
        self._rows: dict[str, Row] = {}
        self._quarantined: list[QuarantinedRow] = []
        self._size = self._size_done = self._sources_done = 0
        self._chunks_done = self._reused = self._relocated = self._merged = self._masked = 0
        self._tokens: dict[str, int] = {}
        self._requested_model: str | None = None
        self._served_model: str | None = None
        self._enforcement = str(backend.schema_enforcement)
        self._began = self._elapsed = 0.0

    # --- what came of it --------------------------------------------------------------------------

    def rows(self) -> tuple[Row, ...]:
        """All rows so far, each with all its evidence, in the order in which they were found."""
        return tuple(self._rows.values())

    @property
    def quarantined(self) -> tuple[QuarantinedRow, ...]:
        """What the model wrote and the sources do not prove."""
        return tuple(self._quarantined)

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
            schema_sha256=self._question.schema_sha256,
            context_length=self._status.context_length,
            chunk_tokens=self._budget.chunk_tokens if self._budget is not None else 0,
            inputs=tuple(self._inputs),
            skipped=tuple(self._skipped),
            chunks=self._chunks_done,
            reused=self._reused,
            rows=len(self._rows),
            quarantined=len(self._quarantined),
            relocated=self._relocated,
            merged=self._merged,
            masked=self._masked,
            input_tokens=self._tokens.get("input_tokens"),
            output_tokens=self._tokens.get("output_tokens"),
            cached_input_tokens=self._tokens.get("cached_input_tokens"),
            elapsed=self._elapsed,
        )

    # --- the run ----------------------------------------------------------------------------------

    def __aiter__(self) -> AsyncIterator[Row]:
        if self._run is not None:
            raise KnowledgeError("an ingestion is iterated once; make another one")
        self._run = self._ingested()
        return self._run

    async def aclose(self) -> None:
        """Cancel what is at work. Idempotent."""
        if self._run is not None:
            await self._run.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def plan(self) -> Plan:
        """Read and cut everything, and ask the model nothing. The server is asked for its context, and to count."""
        await self._look()
        budget = await self._prepared()
        count = 0
        async for _ in self._chunks(budget):
            count += 1
        return Plan(
            backend=self._backend.name,
            endpoint=self._backend.endpoint,
            model=self._options.model or self._backend.default_model,
            context_length=self._status.context_length,
            chunk_tokens=budget.chunk_tokens,
            inputs=tuple(self._inputs),
            skipped=tuple(self._skipped),
            chunks=count,
            masked=self._masked,
        )

    async def _ingested(self) -> AsyncGenerator[Row, None]:
        await self._look()
        await self._check_enforced()
        budget = await self._prepared()
        at_once = self._options.max_concurrency or self._status.slots or CONCURRENCY
        extractor = ChunkExtractor(
            self._backend,
            self._question,
            self._options,
            max_in_flight=at_once,
            answer_tokens=budget.answer_tokens,
            journal=self._journal,
        )
        self._began = time.monotonic()
        # Twice as many as are asked at once: those that wait take the places of those that are done before the oldest.
        asked: deque[asyncio.Task[list[ChunkResult]]] = deque()
        chunks = self._chunks(budget)
        more = True
        try:
            while True:
                while more and len(asked) < 2 * at_once:
                    chunk = await anext(chunks, None)
                    if chunk is None:
                        more = False
                    else:
                        asked.append(asyncio.create_task(extractor.extract(chunk)))
                if not asked:
                    break
                for answered in await asked[0]:
                    for row in self._take(answered):
                        yield row
                asked.popleft()
                self._tell_progress()
        finally:
            for task in asked:
                task.cancel()
            await asyncio.gather(*asked, return_exceptions=True)
            await chunks.aclose()
            self._elapsed = time.monotonic() - self._began

    async def _look(self) -> None:
        """Wait for the server, and ask what it is."""
        await self._backend.wait_ready(on_progress=self._tell)
        self._status = await self._backend.status()

    async def _check_enforced(self) -> None:
        if self._backend.schema_enforcement != "unverified" or self._options.allow_unenforced:
            return
        probe = await probe_schema(self._backend, model=self._options.model)
        if probe.outcome != "enforced":
            known = "does not hold answers to a schema" if probe.outcome == "ignored" else "may not hold answers to it"
            raise UnenforcedSchemaError(
                f"a schema was tried, and the server {known}; choose another server, or try it with --allow-unenforced",
                backend=self._backend.name,
                endpoint=self._backend.endpoint,
            )
        self._enforcement = "proven"

    async def _prepared(self) -> Budget:
        """Look at every source before the model is asked for the first time: what cannot be used is known then."""
        for source in self._sources:
            self._inputs.append(await _in_thread(source.prepare))
            self._size += await _in_thread(lambda source=source: length_of(source))  # type: ignore[misc]  # bound here
        self._budget = await compute_budget(
            self._backend,
            self._question.instructions,
            model=self._options.model,
            context_length=self._status.context_length,
            chunk_tokens=self._options.chunk_tokens,
        )
        return self._budget

    # --- chunks -----------------------------------------------------------------------------------

    async def _chunks(self, budget: Budget) -> AsyncGenerator[Chunk, None]:
        """The chunks of all sources, each within the budget."""
        index = 0
        for source in self._sources:
            reader = Reader(source, budget)
            while True:
                whole = await _in_thread(reader.next_chunk)
                self._note(reader)
                if whole is None:
                    break
                async for chunk in self._counted(whole, budget):
                    yield msgspec.structs.replace(chunk, index=index)
                    index += 1
            self._sources_done += 1

    async def _counted(self, chunk: Chunk, budget: Budget) -> AsyncGenerator[Chunk, None]:
        """``chunk``, halved until the server's counter finds it to fit."""
        if not budget.counts:
            yield chunk
            return
        tokens = await self._backend.count_tokens(
            build_messages(self._question.instructions, chunk.render()), model=self._options.model
        )
        budget.learn(chunk, tokens)
        halves = None if budget.fits(tokens) else chunk.split()
        if halves is None:
            yield chunk
            return
        for half in halves:
            async for part in self._counted(half, budget):
                yield part

    def _note(self, reader: Reader) -> None:
        """Take over what the reader met, out of its thread."""
        skipped, masked = reader.drain()
        self._masked += masked
        for one in skipped:
            self._skip(one)

    def _skip(self, skipped: SkippedInput) -> None:
        self._skipped.append(skipped)
        self._tell(skipped)

    # --- rows -------------------------------------------------------------------------------------

    def _take(self, answered: ChunkResult) -> Iterator[Row]:
        """The rows of an answer that are new, checked; the others give their evidence to those that they repeat."""
        self._chunks_done += 1
        self._size_done += answered.chunk.size
        self._reused += answered.kept
        if answered.failed is not None:
            self._skip(answered.failed)
            return
        self._requested_model = answered.requested_model or self._requested_model
        self._served_model = answered.served_model or self._served_model
        for name in ("input_tokens", "output_tokens", "cached_input_tokens"):
            count = getattr(answered.usage, name, None)
            if count is not None:
                self._tokens[name] = self._tokens.get(name, 0) + count
        for checked in citations.check(self._question.rows(answered.answer), answered.chunk):
            if isinstance(checked, QuarantinedRow):
                self._quarantined.append(checked)
                self._tell(checked)
                continue
            self._relocated += checked.relocated
            row = Row(record=checked.found.record, evidence=(checked.evidence,))
            known = self._rows.get(row.key)
            if known is None:
                self._rows[row.key] = row
                yield row
                continue
            self._merged += 1
            if checked.evidence not in known.evidence:
                self._rows[row.key] = msgspec.structs.replace(known, evidence=(*known.evidence, checked.evidence))

    def _tell_progress(self) -> None:
        self._elapsed = time.monotonic() - self._began
        done = min(self._sources_done, len(self._sources) - 1)
        self._tell(
            Progress(
                source=self._sources[done].name if self._sources else "",
                sources=len(self._sources),
                sources_done=self._sources_done,
                size=self._size,
                size_done=min(self._size_done, self._size),
                chunks=self._chunks_done,
                reused=self._reused,
                rows=len(self._rows),
                quarantined=len(self._quarantined),
                input_tokens=self._tokens.get("input_tokens", 0),
                output_tokens=self._tokens.get("output_tokens", 0),
                elapsed=self._elapsed,
            )
        )


def ingest(
    backend: Backend,
    sources: Iterable[Source],
    *,
    journal: Journal | None = None,
    on_event: OnEvent | None = None,
    **options: Unpack[RunKeywords],
) -> Ingestion:
    """Take knowledge out of ``sources``: ``async for row in ingest(backend, sources, kinds=[Kind.TASK])``.

    Every row has evidence: a quote that was found in its source, with its place. What says the same is one row.
    ``options`` are the fields of :class:`~ctxbackends.knowledge.RunOptions`. ``journal`` keeps finished chunks for
    another run.

    Raises SourceError and its kinds, UnenforcedSchemaError, ChunkError, JournalError, KnowledgeError for a context that
    is too small, and what the backend raises. Secrets that look like keys are masked before anything is sent.
    """
    return Ingestion(backend, sources, RunOptions(**options), journal=journal, on_event=on_event)


def _nobody(_: Event) -> None:
    return None


async def _in_thread(work: Callable[[], T]) -> T:
    return await anyio.to_thread.run_sync(work)
