"""The servers as all workers know them: a Retry-After that one worker received pauses the others too."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import TypeAlias

import attrs

from ctxbackends._client.backend import Backend
from ctxbackends._client.server_limits import have_same_account
from ctxbackends.batch._options import BatchReport
from ctxbackends.errors import BackendError


@attrs.frozen
class PauseNote:
    """The note about servers that get no requests for some time: of a worker, and for the others.

    Attributes:
        names: The names of the servers.
        seconds: The seconds that are left. The clocks of two machines differ, so a note has no time of the day.
        error: The response with the Retry-After.
    """

    names: tuple[str, ...]
    seconds: float
    error: BackendError


@attrs.frozen
class AvailabilityNote:
    """The note of a worker about a server that goes away or is back."""

    name: str
    is_available: bool


@attrs.frozen
class RateLimitNote:
    """The note of a worker whose rows begin or end to wait for the limits of a minute."""

    is_waiting: bool


Note: TypeAlias = PauseNote | AvailabilityNote | RateLimitNote


class ServerBoard:
    """Passes pauses to all workers, and writes the state of the servers into the report.

    Args:
        backends: The servers.
        report: Gets the servers that are paused or unavailable for a worker.
        on_change: Called when it has changed.
    """

    def __init__(self, backends: Sequence[Backend], report: BatchReport, on_change: Callable[[], None]) -> None:
        self._backends = {backend.name: backend for backend in backends}
        self._report = report
        self._on_change = on_change
        self._pauses: dict[str, tuple[float, BackendError, asyncio.TimerHandle]] = {}  # the end of each
        self._unavailable: set[tuple[int, str]] = set()
        self._waiting: set[int] = set()

    def add_worker(self, slot: int, /) -> Iterable[PauseNote]:
        """Return the pauses that are not over, for a worker that has started."""
        self.remove_worker(slot)
        now = asyncio.get_running_loop().time()
        return [PauseNote((name,), ends_at - now, error) for name, (ends_at, error, _) in self._pauses.items()]

    def remove_worker(self, slot: int, /) -> None:
        """Forget the notes of a worker. Its pauses stay."""
        self._unavailable = {(other, name) for other, name in self._unavailable if other != slot}
        self._waiting.discard(slot)
        self._update()

    def receive(self, slot: int, note: Note, /) -> PauseNote | None:
        """Take a note of a worker. Return the pause for the other workers."""
        shared = None
        if isinstance(note, PauseNote):
            shared = self._pause(note)
        elif isinstance(note, RateLimitNote):
            (self._waiting.add if note.is_waiting else self._waiting.discard)(slot)
        else:
            (self._unavailable.discard if note.is_available else self._unavailable.add)((slot, note.name))
        self._update()
        return shared

    def _pause(self, note: PauseNote) -> PauseNote | None:
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + note.seconds
        # The workers may have only some of the servers of an account.
        origins = [self._backends[name] for name in note.names]
        names = [
            name
            for name, backend in self._backends.items()
            if any(have_same_account(backend, origin) for origin in origins)
            and (name not in self._pauses or self._pauses[name][0] < ends_at)
        ]
        for name in names:
            if name in self._pauses:
                self._pauses[name][2].cancel()
            self._pauses[name] = ends_at, note.error, loop.call_at(ends_at, self._resume, name)
        return PauseNote((*names,), note.seconds, note.error) if names else None

    def _resume(self, name: str) -> None:
        del self._pauses[name]
        self._update()

    def _update(self) -> None:
        paused = tuple(sorted(self._pauses))
        unavailable = tuple(sorted({name for _, name in self._unavailable}))
        state = (paused, unavailable, bool(self._waiting))
        report = self._report
        if state != (report.paused, report.unavailable, report.is_rate_limited):
            report.paused, report.unavailable, report.is_rate_limited = state
            self._on_change()

    def close(self) -> None:
        """Stop. The report keeps the last state."""
        for _, _, timer in self._pauses.values():
            timer.cancel()
