"""A worker of a batch: a share of the limits, and a part of the journal, in a process of an engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import attrs

from ctxbackends._client.backend import Backend
from ctxbackends._engines.backends import BackendOpener
from ctxbackends._engines.contract import Channel, WorkerUnavailableError
from ctxbackends.batch._answers import BatchAnswer, to_entry
from ctxbackends.batch._asker import Asker
from ctxbackends.batch._board import AvailabilityNote, PauseNote, RateLimitNote
from ctxbackends.batch._journal import JournalPart, LineGroup
from ctxbackends.batch._limits import RateLimit
from ctxbackends.batch._options import BatchOptions, BatchReport
from ctxbackends.batch._replica import Replica
from ctxbackends.batch._replicas import Replicas
from ctxbackends.batch._rows import BatchRow
from ctxbackends.batch._served_models import ServedModels
from ctxbackends.errors import BackendError, ClosedError


@attrs.frozen(kw_only=True)
class BatchWorkerSpec:
    """How a worker is opened. It is pickled, and has no key: each worker reads the variable ``api_key_env``.

    Attributes:
        backends: Open the servers.
        limits: Requests at once of this worker by the name of the server.
        options: The options of the batch, with this worker's share of the limits of a minute.
        fingerprint: The identity of the run.
        directory: The journal, to which the worker adds its own part; None for none.
        closed_for: Seconds before its first request, if a minute is limited.
    """

    backends: tuple[BackendOpener, ...]
    limits: Mapping[str, int]
    options: BatchOptions
    fingerprint: bytes
    directory: Path | None
    closed_for: float = 0.0

    async def open(self, channel: Channel, /) -> BatchWorker:
        """Open the servers and the part of the journal.

        Raises:
            BackendError: A configuration is invalid, or a key is missing on this machine.
            BatchJournalError: The part cannot be created.
        """
        async with AsyncExitStack() as stack:
            backends = [await stack.enter_async_context(opener.open()) for opener in self.backends]
            return BatchWorker(self, backends, channel, stack)


class BatchWorker:
    """Answers rows in its process. Any number of calls may run at once, and share its limits.

    Args:
        spec: How it is opened.
        backends: The servers.
        channel: Sends the state of the servers, and receives their pauses.
        stack: Closes the servers.
    """

    def __init__(
        self, spec: BatchWorkerSpec, backends: Sequence[Backend], channel: Channel, stack: AsyncExitStack
    ) -> None:
        self._spec = spec
        self._channel = channel
        replicas = [Replica(backend, spec.limits[backend.name]) for backend in backends]
        self._replicas = Replicas(replicas, self._note_change, self._note_pause)
        channel.on_note = self._share_pause
        options = spec.options
        rate_limit = RateLimit(
            options.requests_per_minute,
            options.tokens_per_minute,
            closed_for=spec.closed_for,
            on_change=lambda is_waiting: channel.send(RateLimitNote(is_waiting)),
        )
        self._part = None if spec.directory is None else JournalPart(spec.directory)
        store = None if self._part is None else self._store
        self._asker = Asker(self._replicas, rate_limit, options, BatchReport(), ServedModels(), store)
        self._is_closed = False
        self._stack = stack.pop_all()

    async def answer(self, rows: Sequence[BatchRow]) -> list[BatchAnswer]:
        """Return the answers to rows, in their order. They are in the part of the journal then.

        Raises:
            WorkerUnavailableError: None of its servers answers.
            BackendError: The error of all rows. The other rows of this call are answered, and in the journal.
        """
        if self._is_closed:
            raise ClosedError("the worker is closed; open another one")
        answers = await asyncio.gather(*map(self._answer, rows), return_exceptions=True)
        errors = [answer for answer in answers if isinstance(answer, BaseException)]
        if errors:
            # With the error that stopped the others, which were cancelled.
            raise min(errors, key=lambda error: isinstance(error, asyncio.CancelledError))
        return [answer for answer in answers if isinstance(answer, BatchAnswer)]

    async def _answer(self, row: BatchRow) -> BatchAnswer:
        try:
            answer, written = await self._asker.ask(row)
            if written is not None:
                await written.wait()
        except Exception as error:
            self._asker.stop()
            if self._replicas.has_failed and isinstance(error, BackendError):
                raise WorkerUnavailableError(error) from None
            raise
        return answer

    def _store(self, answer: BatchAnswer) -> LineGroup | None:
        assert self._part is not None, "called with a journal"
        return self._part.write([to_entry(answer.row.digest(self._spec.fingerprint), answer)])

    def _note_change(self, replica: Replica) -> None:
        self._channel.send(AvailabilityNote(replica.backend.name, replica.error is None))

    def _note_pause(self, replica: Replica, seconds: float, error: BackendError) -> None:
        self._channel.send(PauseNote((replica.backend.name,), seconds, error))

    def _share_pause(self, note: PauseNote) -> None:
        self._replicas.share_pause(note.names, note.seconds, note.error)

    async def aclose(self) -> None:
        """Cancel the requests, and close the servers and the part. Idempotent."""
        self._is_closed = True
        self._asker.stop()
        await self._replicas.aclose()
        await self._stack.aclose()
        if self._part is not None:
            self._part.close()
