"""One server of a batch: its concurrent requests, and its failures since the last answer."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress

from ctxbackends._client.backend import Backend
from ctxbackends._client.server_limits import find_limit
from ctxbackends.errors import BackendError

MAX_IN_FLIGHT = 32
"""Requests at once at a server that does not report its slots."""
MIN_DOWN = 10.0
"""Seconds for which a server that has answered rows is probed, also if it has no ``ready_timeout``: it may restart."""
MAX_DOWN = 120.0
"""Seconds after which a server that is ready for each probe, and answers no row, counts as failed."""


class Replica:
    """A server of a batch.

    Attributes:
        backend: The backend.
        limit: Requests at once: ``max_in_flight``, else the slots that the server reports, else 32. Never more than the
            backend sends at once.
        window: Requests at once now. A Retry-After halves it, or sets it to the answers since the last one if they are
            fewer. Requests that end after the pause raise it again.
        in_flight: Requests that are sent and not answered.
        answers: Rows that it has answered. The caller counts them.
        is_paused: Whether nothing is sent, after a Retry-After.
        error: The error for which the server is left out, None while it answers.
    """

    __slots__ = (
        "_excluded_at",
        "_exclusions",
        "_has_failed",
        "_interval",
        "_interval_answers",
        "_interval_timer",
        "_max_in_flight",
        "_next_at",
        "_paused_answers",
        "_pauses",
        "_resumes_at",
        "_seen_answers",
        "_slots",
        "_slows_at",
        "_timer",
        "_wake",
        "answers",
        "backend",
        "error",
        "in_flight",
        "limit",
        "window",
    )

    def __init__(self, backend: Backend, max_in_flight: int | None = None, *, slots: int | None = None) -> None:
        """Create a server that answers.

        Args:
            backend: The backend.
            max_in_flight: Requests at once, None for the slots that the server reports, or 32.
            slots: The slots that the server reports, None if it does not.
        """
        self.backend = backend
        self._max_in_flight = max_in_flight
        self._slots = slots
        self.limit = max_in_flight or MAX_IN_FLIGHT
        self.window = float(self.limit)
        self.update_limit()
        self.in_flight = 0
        self.answers = 0
        self.error: BackendError | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._resumes_at = 0.0
        self._pauses = 0  # since the last answer
        self._paused_answers = 0  # those before the last pause
        self._interval = 0.0  # seconds between two requests
        self._interval_answers = 0  # those that have shortened it
        self._interval_timer: asyncio.TimerHandle | None = None
        self._next_at = 0.0
        self._slows_at = 0.0
        self._exclusions = 0  # since the last answer
        self._excluded_at = 0.0  # the first of them
        self._seen_answers = 0
        self._has_failed = False  # it was probed for its whole ready_timeout since then
        self._wake = asyncio.Event()

    def update_limit(self) -> None:
        """Use the number of slots that the backend knows by now."""
        known = find_limit(self.backend) or self._slots
        limit = known or MAX_IN_FLIGHT
        if self._max_in_flight is not None:
            limit = min(self._max_in_flight, known or self._max_in_flight)
        if limit != self.limit:
            self.window = max(1.0, self.window * limit / self.limit)
            self.limit = limit

    @property
    def is_paused(self) -> bool:
        """Whether nothing is sent, after a Retry-After."""
        return self._timer is not None

    @property
    def is_open(self) -> bool:
        """Whether it can be sent a request now."""
        return self.error is None and self._timer is None

    def note_answers(self) -> None:
        """Forget the failures before an answer."""
        if self.answers != self._seen_answers:
            self._seen_answers = self.answers
            self._pauses = self._exclusions = 0
            self._has_failed = False

    @property
    def _patience(self) -> float:
        """Seconds after which the server counts as failed, from the first time that it was left out."""
        if self._exclusions > 1:
            return MAX_DOWN
        return MIN_DOWN if self.answers else 0.0


async def open_replicas(backends: Sequence[Backend], max_in_flight: int | None, *, wait: bool = False) -> list[Replica]:
    """Ask the servers for their slots.

    Args:
        backends: The servers.
        max_in_flight: Requests at once at each server, None for the slots that it reports, or 32.
        wait: Wait for servers that start, whose slots are not known before. Otherwise they are known with the first
            answer.
    """

    async def find_slots(backend: Backend) -> int | None:
        status = await backend.status()
        if wait and max_in_flight is None and status.state in ("refused", "loading"):
            with suppress(BackendError):  # raised again when rows are sent
                await backend.wait_ready()
            status = await backend.status()
        return status.slots

    slots = await asyncio.gather(*map(find_slots, backends))
    return [Replica(backend, max_in_flight, slots=each) for backend, each in zip(backends, slots, strict=True)]
