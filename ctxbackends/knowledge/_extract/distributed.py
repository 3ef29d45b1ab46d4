"""The extraction from chunks on the workers of an engine, as the driver sees it.

The driver reads, masks and splits the sources, and joins the rows in the order of the text. The workers send the
requests, write the journal and verify the quotes, so sources and secrets stay with the driver.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Self

import attrs
import msgspec

from ctxbackends._engines.contract import Engine, divide
from ctxbackends._engines.distribute import distribute
from ctxbackends._engines.shared_directory import SharedDirectory
from ctxbackends.knowledge._errors import JournalError
from ctxbackends.knowledge._extract.activity import Monitor
from ctxbackends.knowledge._extract.journal import Journal
from ctxbackends.knowledge._extract.packing import AnyChunk
from ctxbackends.knowledge._extract.remote import BackendOpener, ChunkItem, ChunkOutcome, ExtractionSpec, encode_chunk
from ctxbackends.knowledge._extract.results import ChunkResult
from ctxbackends.knowledge._extract.worker import ExtractorSettings

_AHEAD = 2
"""Chunks that a worker has already when its requests end."""


@attrs.frozen
class Workers:
    """Worker processes for a run.

    Attributes:
        engine: Runs the processes. The run opens and closes it.
        count: The number of workers.
        backend: Opens the backend in each of them; it is the one that the run uses.
    """

    engine: Engine
    count: int
    backend: BackendOpener

    @asynccontextmanager
    async def open(self) -> AsyncIterator[None]:
        """Open the engine. Raises EngineError if it cannot be reached or lacks the resources."""
        try:
            await self.engine.open(self.count)
            yield
        finally:
            await self.engine.aclose()

    def limit(self, max_in_flight: int) -> int:
        """Return how many requests may be in flight: never more than the backend sends at once.

        Raises:
            EngineError: There are more workers than requests at once.
        """
        max_in_flight = min(max_in_flight, self.backend.max_concurrency or max_in_flight)
        self.divide(max_in_flight)
        return max_in_flight

    def divide(self, max_in_flight: int) -> list[int]:
        """Return the share of each worker. Raise EngineError if there are more workers than requests at once."""
        shares = divide(max_in_flight, self.count, "max_concurrency")
        return [share for share in shares if share is not None]


class DistributedExtractor:
    """Passes chunks to workers. It has the interface of a ``ChunkExtractor``; use it with ``async with``.

    A chunk is passed alone: all requests about it come from one worker, and nothing but the instructions is the same in
    the prompts of two chunks, so that a prefix cache gains nothing from larger blocks.

    Args:
        workers: The workers, whose engine is open.
        settings: The settings, with the requests at once of all workers.
        journal: The journal, to which the workers add parts. They must share its directory.
        monitor: The activity of the run.

    Attributes:
        requests: The number of requests of all workers. Those of workers that died are not all included.
    """

    def __init__(
        self, workers: Workers, settings: ExtractorSettings, *, journal: Journal | None, monitor: Monitor
    ) -> None:
        self._workers = workers
        self._monitor = monitor
        self._journal = journal
        self._specs = [
            ExtractionSpec(
                backend=workers.backend,
                settings=msgspec.structs.replace(settings, max_in_flight=share),
                journal=None if journal is None else journal.path.absolute(),
            )
            for share in workers.divide(settings.max_in_flight)
        ]
        self._items: asyncio.Queue[ChunkItem | None] = asyncio.Queue()
        self._outcomes: dict[int, asyncio.Future[ChunkOutcome]] = {}
        self._error: BaseException | None = None
        self._task: asyncio.Task[None] | None = None
        self.requests = 0

    async def __aenter__(self) -> Self:
        """Return the extractor. The workers start with the first chunk."""
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, error_type: type[BaseException] | None, *_: object) -> None:
        """Close the workers; after an error, their requests are cancelled."""
        assert self._task is not None
        try:
            if error_type is None:
                self._items.put_nowait(None)
                await self._task
        finally:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            if self._journal is not None:
                self._journal.refresh()

    async def extract(self, chunk: AnyChunk) -> list[ChunkResult]:
        """Return the answers to the questions about a chunk, or about its parts where it had to be split.

        Raises:
            ChunkError: The model gave no usable answer.
            JournalError: The journal cannot be written.
            EngineError: The workers cannot be started, or die again and again.
        """
        if self._error is not None:
            raise self._error
        future: asyncio.Future[ChunkOutcome] = asyncio.get_running_loop().create_future()
        self._outcomes[chunk.index] = future
        self._items.put_nowait(encode_chunk(chunk))
        with self._monitor.work(chunk):
            outcome = await future
        self.requests += outcome.requests
        if outcome.error is not None:
            raise outcome.error from outcome.cause
        for result in outcome.results:
            if not result.from_journal:
                self._monitor.add_tokens(sum(usage.output_tokens or 0 for usage in result.usages))
        return outcome.results

    async def _run(self) -> None:
        """Pass the chunks to the workers, and their outcomes to those who wait for them."""
        shared = None
        try:
            if self._journal is not None:
                shared = _open_directory(self._journal)
            blocks = distribute(
                self._workers.engine,
                lambda slot, _: self._specs[slot],
                self._read_items(),
                workers=self._workers.count,
                recover=_recover,
                outstanding=_AHEAD + max(spec.settings.max_in_flight for spec in self._specs),
                directory=shared,
            )
            async with aclosing(blocks):
                async for block in blocks:
                    for outcome in block:
                        self._outcomes.pop(outcome.index).set_result(outcome)
        except BaseException as error:
            self._error = error
            for future in self._outcomes.values():
                if not future.done():
                    future.set_exception(error)
            raise
        finally:
            if shared is not None:
                shared.close()

    async def _read_items(self) -> AsyncIterator[list[ChunkItem]]:
        while (item := await self._items.get()) is not None:
            yield [item]


async def _recover(block: Sequence[ChunkItem]) -> tuple[list[ChunkOutcome], list[ChunkItem]]:
    """Return the chunks of a dead worker to be passed to others, which find its answers in the journal."""
    return [], [attrs.evolve(item, is_repeated=True) for item in block]


def _open_directory(journal: Journal) -> SharedDirectory:
    directory = journal.path.absolute().parent
    try:
        return SharedDirectory(directory, option="--out")
    except OSError as error:
        raise JournalError(f"cannot write the journal {journal.path}: {error.strerror}") from error
