"""A batch on the workers of an engine: their specs, their blocks, and what a dead worker has answered."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from functools import partial

import anyio.to_thread
import attrs

from ctxbackends._engines.backends import BackendOpener
from ctxbackends._engines.contract import Engine, divide
from ctxbackends._engines.distribute import WorkerDeath, distribute, plan_blocks
from ctxbackends._engines.shared_directory import SharedDirectory
from ctxbackends._util.text import pluralize
from ctxbackends.batch._answers import BatchAnswer, from_entry
from ctxbackends.batch._board import ServerBoard
from ctxbackends.batch._journal import Journal
from ctxbackends.batch._limits import WINDOW
from ctxbackends.batch._options import BatchOptions, BatchReport
from ctxbackends.batch._rows import BatchRow
from ctxbackends.batch._shares import divide_slots
from ctxbackends.batch._worker import BatchWorkerSpec


@attrs.frozen(kw_only=True)
class Distribution:
    """How a batch is distributed.

    Attributes:
        engine: The engine, which the batch opens and closes.
        workers: Number of workers.
        backends: Open the servers.
    """

    engine: Engine
    workers: int
    backends: tuple[BackendOpener, ...]

    def specs(
        self,
        limits: Mapping[str, int],
        options: BatchOptions,
        fingerprint: bytes,
        journal: Journal | None,
        *,
        closed_for: float = 0.0,
    ) -> list[BatchWorkerSpec]:
        """Return the spec of each worker, with its share of the limits.

        Args:
            limits: Requests at once by the name of the server.
            options: The options of the batch.
            fingerprint: The identity of the run.
            journal: The journal, None for none.
            closed_for: Seconds before the first request, if a minute is limited.

        Raises:
            BatchError: There are more workers than a limit allows.
        """
        rpm = divide(options.requests_per_minute, self.workers, "requests_per_minute")
        tpm = divide(options.tokens_per_minute, self.workers, "tokens_per_minute")
        return [
            BatchWorkerSpec(
                backends=tuple(opener for opener in self.backends if opener.config.name in share),
                limits=share,
                options=attrs.evolve(options, requests_per_minute=rpm[number], tokens_per_minute=tpm[number]),
                fingerprint=fingerprint,
                directory=None if journal is None else journal.directory.absolute(),
                closed_for=closed_for,
            )
            for number, share in enumerate(divide_slots(limits, self.workers))
        ]

    async def answer(
        self,
        rows: AsyncIterator[BatchRow],
        specs: Sequence[BatchWorkerSpec],
        journal: Journal | None,
        report: BatchReport,
        board: ServerBoard,
    ) -> AsyncGenerator[BatchAnswer, None]:
        """Iterate over the answers to rows, in the order in which they arrive. The engine is open.

        Args:
            rows: The rows.
            specs: The spec of each worker.
            journal: The journal, None for none.
            report: Gets the workers.
            board: Gets the notes of the workers, and is closed.
        """

        def make_spec(slot: int, generation: int) -> BatchWorkerSpec:
            # A replacement starts as if the minute of its share were used up.
            return attrs.evolve(specs[slot], closed_for=WINDOW) if generation else specs[slot]

        def note_open(workers: int) -> None:
            report.workers = workers

        def note_death(death: WorkerDeath) -> None:
            message = f"{death.error}; {pluralize(death.items, 'row')} sent again"
            report.worker_deaths = (*report.worker_deaths, message)

        async def recover(block: Sequence[BatchRow]) -> tuple[list[BatchAnswer], list[BatchRow]]:
            if journal is None:
                return [], [*block]
            return await anyio.to_thread.run_sync(partial(_find_answers, journal, specs[0].fingerprint, block))

        shared = None if journal is None else SharedDirectory(journal.directory)
        try:
            size, outstanding = plan_blocks(max(sum(spec.limits.values()) for spec in specs))
            async with (
                aclosing(_cut(rows, size)) as blocks,
                aclosing(
                    distribute(
                        self.engine,
                        make_spec,
                        blocks,
                        workers=self.workers,
                        recover=recover,
                        outstanding=outstanding,
                        directory=shared,
                        board=board,
                        on_death=note_death,
                        on_open=note_open,
                    )
                ) as results,
            ):
                async for block in results:
                    for answer in block:
                        yield answer
        finally:
            board.close()
            if shared is not None:
                shared.close()


async def _cut(rows: AsyncIterator[BatchRow], size: int) -> AsyncGenerator[list[BatchRow], None]:
    block: list[BatchRow] = []
    async for row in rows:
        block.append(row)
        if len(block) == size:
            yield block
            block = []
    if block:
        yield block


def _find_answers(
    journal: Journal, fingerprint: bytes, block: Sequence[BatchRow]
) -> tuple[list[BatchAnswer], list[BatchRow]]:
    """Return the answers that a worker stored before it died, and the rows without one."""
    journal.refresh()
    answers, unanswered = [], []
    for row in block:
        entry = journal.get(row.digest(fingerprint))
        if entry is None or entry.answer is None:
            unanswered.append(row)
        else:
            answers.append(from_entry(row, entry, is_resumed=False))
    return answers, unanswered
