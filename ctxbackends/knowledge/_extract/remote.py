"""The extraction in a worker process of an engine, and the values passed between processes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import Protocol

import anyio.to_thread
import attrs
import msgspec

from ctxbackends._client.backend import Backend
from ctxbackends._engines.contract import Channel
from ctxbackends.errors import BackendError
from ctxbackends.knowledge._errors import JournalError
from ctxbackends.knowledge._extract.activity import Activity, Monitor
from ctxbackends.knowledge._extract.chunker import Chunk
from ctxbackends.knowledge._extract.journal import JournalPart
from ctxbackends.knowledge._extract.packing import AnyChunk, join
from ctxbackends.knowledge._extract.results import ChunkResult
from ctxbackends.knowledge._extract.worker import ChunkExtractor, ExtractorSettings

_PARTS = msgspec.msgpack.Decoder(tuple[Chunk, ...])


class BackendOpener(Protocol):
    """Opens the backend in a worker process. It is pickled, and must contain no key."""

    @property
    def max_concurrency(self) -> int | None:
        """The most requests at once of all workers; None for the slots of the server."""
        ...

    def open(self) -> AbstractAsyncContextManager[Backend]:
        """Open the backend."""
        ...


@attrs.frozen
class ChunkItem:
    """A chunk for a worker.

    Attributes:
        index: The number of the chunk in the run, from 0.
        parts: The parts of the chunk in MessagePack, which is a fifth of the work of pickling them.
        is_repeated: A worker that had the chunk has died. It may have answers in the journal.
    """

    index: int
    parts: bytes
    is_repeated: bool = False


def encode_chunk(chunk: AnyChunk) -> ChunkItem:
    """Return the item for a chunk."""
    return ChunkItem(chunk.index, msgspec.msgpack.encode(chunk.parts))


@attrs.frozen
class ChunkOutcome:
    """The results of a chunk, or its error.

    Attributes:
        index: The number of the chunk.
        requests: The number of requests to the model since the outcome before.
        results: The results.
        error: The error of the chunk.
        cause: The ``__cause__`` of the error, which is not pickled with it.
    """

    index: int
    requests: int
    results: list[ChunkResult] = attrs.field(factory=list)
    error: BackendError | None = None
    cause: BackendError | None = None


@attrs.frozen(kw_only=True)
class ExtractionSpec:
    """How a worker is opened. It is pickled.

    Attributes:
        backend: Opens the backend.
        settings: The settings, with the worker's share of the requests at once.
        journal: The file of the journal, to which the worker adds a part; None for no journal.
    """

    backend: BackendOpener
    settings: ExtractorSettings
    journal: Path | None

    async def open(self, _: Channel, /) -> ExtractionWorker:
        """Open the backend and the journal.

        Raises:
            ConfigError: The backend cannot be used in this process, for example because its key is missing.
            JournalError: The journal cannot be read.
        """
        async with AsyncExitStack() as stack:
            backend = await stack.enter_async_context(self.backend.open())
            part = None
            if self.journal is not None:
                try:
                    part = await anyio.to_thread.run_sync(JournalPart, self.journal)
                except OSError as error:
                    raise _read_error(self.journal, error) from error
                stack.callback(part.close)
            return ExtractionWorker(self, backend, part, stack.pop_all())


class ExtractionWorker:
    """Extracts from chunks in its process. Any number of calls may run at once, and share its limit."""

    def __init__(self, spec: ExtractionSpec, backend: Backend, part: JournalPart | None, stack: AsyncExitStack) -> None:
        self._part = part
        self._stack = stack
        self._extractor = ChunkExtractor(
            backend,
            spec.settings,
            journal=part,
            monitor=Monitor(lambda: Activity(phase="waiting"), lambda _: None),  # without its timer
        )
        self._reported_requests = 0

    async def answer(self, items: Sequence[ChunkItem]) -> list[ChunkOutcome]:
        """Return the outcomes of chunks, whose answers are in the part of the journal then."""
        return await asyncio.gather(*map(self._answer, items))

    async def _answer(self, item: ChunkItem) -> ChunkOutcome:
        results: list[ChunkResult] = []
        error = cause = None
        try:
            if item.is_repeated and self._part is not None:
                self._refresh(self._part)
            results = await self._extractor.extract(join(_PARTS.decode(item.parts), item.index))
        except BackendError as failure:
            error = failure
            cause = failure.__cause__ if isinstance(failure.__cause__, BackendError) else None
        requests = self._extractor.requests - self._reported_requests
        self._reported_requests += requests
        return ChunkOutcome(item.index, requests, results, error, cause)

    def _refresh(self, part: JournalPart) -> None:
        try:
            part.refresh()
        except OSError as error:
            raise _read_error(part.path, error) from error

    async def aclose(self) -> None:
        """Cancel the requests, and close the backend and the part."""
        await self._stack.aclose()


def _read_error(path: Path, error: OSError) -> JournalError:
    return JournalError(f"cannot read the journal {path}: {error.strerror}")
