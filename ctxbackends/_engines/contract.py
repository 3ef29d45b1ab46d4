"""The contract between an engine, which runs worker processes, and the work that they do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

import attrs

from ctxbackends.errors import BackendError

Item = TypeVar("Item")
Result = TypeVar("Result")
Item_contra = TypeVar("Item_contra", contravariant=True)
Result_co = TypeVar("Result_co", covariant=True)

SETTLE_SECONDS = 1.0
"""Time for the servers to notice that the connections of a dead process are closed."""


class EngineError(BackendError):
    """An engine cannot run the workers, or a worker failed in a way that another attempt does not mend."""


class WorkerStartError(EngineError):
    """A worker was not started for lack of resources. It may be started when they are free again."""


class WorkerDiedError(EngineError):
    """The process of a worker ended, and its answers since the last ones are lost.

    Attributes:
        settle: Seconds after which the servers have none of its requests any more.
    """

    def __init__(self, problem: str, *, settle: float = SETTLE_SECONDS) -> None:
        super().__init__(problem)
        self.settle = settle


class WorkerUnavailableError(EngineError):
    """A worker cannot answer items, and others may: they get its items. A worker for its slot starts again later.

    Attributes:
        error: The error of the run if no worker can answer.
    """

    def __init__(self, error: BackendError) -> None:
        super().__init__(str(error))
        self.error = error


@attrs.define(eq=False)
class Channel:
    """The notes between a worker and its driver: small values, which are pickled, and must contain no key.

    Attributes:
        send: Sends a note to the driver at once. It may be called in any thread.
        on_note: Called in the event loop with each note of the driver. The worker sets it.
    """

    send: Callable[[Any], None]
    on_note: Callable[[Any], None] = lambda _: None


class Worker(Protocol[Item_contra, Result_co]):
    """Answers blocks of items in a separate process."""

    async def answer(self, items: Sequence[Item_contra], /) -> Sequence[Result_co]:
        """Return the results of a block. It is called again while a block is answered.

        An exception ends the whole run, so a failure of one item has to be a result.

        Raises:
            WorkerUnavailableError: Another worker has to answer the items. This one is closed.
        """
        ...

    async def aclose(self) -> None:
        """Release the resources. The calls of :meth:`answer` that ran were cancelled before."""
        ...


class WorkerSpec(Protocol[Item_contra, Result_co]):
    """A value from which a worker process creates its worker. It is pickled, and must contain no key."""

    async def open(self, channel: Channel, /) -> Worker[Item_contra, Result_co]:
        """Create the worker, in its process. An exception ends the whole run."""
        ...


class EngineWorker(Protocol[Item_contra, Result_co]):
    """A worker as the driver sees it.

    Attributes:
        host: Name of the machine that it runs on.
    """

    host: str

    async def answer(self, items: Sequence[Item_contra], /) -> Sequence[Result_co]:
        """Return the results of a block.

        Raises:
            WorkerDiedError: The process has ended.
            Exception: The exception of the worker's own ``answer``.
        """
        ...

    def send(self, note: Any, /) -> None:
        """Send a note to the worker at once. Does nothing if the process has ended."""
        ...

    async def aclose(self) -> None:
        """Cancel its blocks, close it, and end its process; kill it if it does not end soon. Idempotent."""
        ...


class Engine(Protocol):
    """Runs worker processes. It is opened once, in one event loop."""

    async def open(self, workers: int) -> None:
        """Connect, and check that so many workers can run.

        Raises:
            EngineError: The engine cannot be reached, or lacks the resources.
        """
        ...

    async def start(
        self, spec: WorkerSpec[Item, Result], name: str, on_note: Callable[[Any], None]
    ) -> EngineWorker[Item, Result]:
        """Start a process, and open its worker.

        Args:
            spec: The worker.
            name: For error messages, such as ``worker 2``.
            on_note: Called in the event loop with each note of the worker, as soon as it arrives.

        Raises:
            WorkerStartError: The resources are used by others now.
            WorkerDiedError: The process ended before it was open.
            Exception: The exception of ``spec.open()``.
        """
        ...

    async def aclose(self) -> None:
        """Kill the workers that are left, and disconnect. Idempotent."""
        ...


def divide(limit: int | None, workers: int, name: str) -> list[int | None]:
    """Return the share of each worker of a limit; together they are the limit.

    Args:
        limit: Requests at once, or of a minute; None for no limit.
        workers: Number of workers.
        name: Name of the limit, for the error.

    Raises:
        EngineError: There are more workers than the limit allows.
    """
    if limit is None:
        return [None] * workers
    if limit < workers:
        raise EngineError(f"{name} is smaller than the workers: {limit} < {workers}; use {limit} workers or fewer")
    share, rest = divmod(limit, workers)
    return [share + (slot < rest) for slot in range(workers)]
