"""The shares of the workers in the limits of the servers."""

from __future__ import annotations

from collections.abc import Mapping

from ctxbackends.batch._errors import BatchError


def divide_slots(limits: Mapping[str, int], workers: int) -> list[dict[str, int]]:
    """Return the requests at once of each worker, by server. Together they are the limits.

    A worker has no slot at a server with fewer slots than there are workers, and another one does.

    Args:
        limits: Requests at once by the name of the server.
        workers: Number of workers.

    Raises:
        BatchError: There are fewer slots than workers.
    """
    if (slots := sum(limits.values())) < workers:
        raise BatchError(f"more workers than requests at once: {workers}; use {slots} workers, or a higher limit")
    shares: list[dict[str, int]] = [{} for _ in range(workers)]
    first = 0  # of the workers that get one more, in turn
    for name, limit in limits.items():
        each, rest = divmod(limit, workers)
        for number, share in enumerate(shares):
            slots = each + ((number - first) % workers < rest)
            if slots:
                share[name] = slots
        first = (first + rest) % workers
    return shares
