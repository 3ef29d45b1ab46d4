"""The steps of a script, and the fault server's records of connections and requests."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeAlias

import attrs


class Do(Enum):
    """A step of a script that neither sends bytes nor waits."""

    CLOSE = "close the connection"
    RESET = "reset the connection"
    HANG = "send nothing more and wait until the client closes the connection"
    CLOSE_ON_NEXT_REQUEST = "close the connection when the next request arrives on it, without reading it"


Step: TypeAlias = bytes | float | asyncio.Event | Do
"""Bytes to send, seconds to wait, an event to wait for, or a :class:`Do`."""


class Connection:
    """A TCP connection that the fault server accepted.

    Attributes:
        number: The position among the connections of the server, from 0.
        opened_at: When it was accepted, in seconds of ``time.monotonic()``.
        closed_at: When it was closed, in seconds of ``time.monotonic()``; None while it is open.
        closed_by: The side that closed it first, ``"client"`` or ``"server"``; None while it is open.
        requests: The number of complete requests that arrived on it.
    """

    def __init__(self, number: int) -> None:
        self.number = number
        self.opened_at: float = time.monotonic()
        self.closed_at: float | None = None
        self.closed_by: str | None = None
        self.requests = 0
        self._closed = asyncio.Event()

    def mark_closed(self, by: str) -> None:
        """Record that one side closed the connection. Only the first call counts.

        Args:
            by: ``"client"`` or ``"server"``.
        """
        if self.closed_at is None:
            self.closed_at = time.monotonic()
            self.closed_by = by
        self._closed.set()

    async def wait_closed(self) -> None:
        """Wait until the connection is closed. Call it on the event loop of the server only."""
        await self._closed.wait()


@attrs.frozen(kw_only=True)
class RecordedRequest:
    """A complete request that the fault server received.

    Attributes:
        method: The HTTP method.
        path: The path with the query.
        headers: The headers, with names in lower case.
        body: The body, without its transfer coding.
        connection: The connection on which it arrived.
        received_at: When it was complete, in seconds of ``time.monotonic()``.
    """

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes
    connection: Connection = attrs.field(repr=False)
    received_at: float = 0.0

    @property
    def json(self) -> Any:
        """The body as JSON; None if it is not JSON."""
        try:
            return json.loads(self.body)
        except ValueError:
            return None
