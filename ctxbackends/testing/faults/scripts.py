"""What the fault server keeps of a connection and of a request, and the steps that a script is made of."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeAlias

import attrs


class Do(Enum):
    """What a script does besides sending bytes and waiting."""

    CLOSE = "close the connection"
    RESET = "end the connection with a reset"
    HOLD = "say nothing more until the client closes"
    DEAF = "read nothing more: close the connection when the next request arrives on it"


Step: TypeAlias = bytes | float | asyncio.Event | Do
"""Bytes are sent, a number of seconds is waited, an event is waited for."""


class Connection:
    """One TCP connection. Times are those of ``time.monotonic()``; ``closed_at`` is None while it is open.

    ``closed_by`` is ``client`` or ``server``. ``requests`` counts those that came on it whole.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.opened_at = time.monotonic()
        self.closed_at: float | None = None
        self.closed_by: str | None = None
        self.requests = 0
        self._closed = asyncio.Event()

    def close(self, by: str) -> None:
        """The first to close it is the one who did."""
        if self.closed_at is None:
            self.closed_at = time.monotonic()
            self.closed_by = by
        self._closed.set()

    async def closed(self) -> None:
        """Return when it is closed. On the event loop of the server only."""
        await self._closed.wait()


@attrs.frozen(kw_only=True)
class Received:
    """One request that came whole. ``headers`` have lower-case names; ``at`` is ``time.monotonic()``."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: Connection = attrs.field(repr=False)
    at: float = 0.0

    @property
    def json(self) -> Any:
        """The body as JSON; None where it is none."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None
