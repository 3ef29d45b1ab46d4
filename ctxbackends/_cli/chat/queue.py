"""The queue of a local server, while an answer is awaited."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ctxbackends._client.backend import Backend
from ctxbackends._http.addresses import is_local
from ctxbackends.errors import BackendError

if TYPE_CHECKING:
    from ctxbackends._cli.chat.display import Display

INTERVAL = 2.0
"""Seconds without an answer after which the server is asked, and between two questions."""


async def watch_slots(backend: Backend, display: Display) -> None:
    """Show how many slots the server uses while nothing of the answer has arrived. Runs until it is cancelled.

    Only servers on this machine or a private network are asked, and only those that tell: llama.cpp.
    """
    if not is_local(urlsplit(backend.endpoint).hostname or ""):
        return
    while True:
        await asyncio.sleep(INTERVAL)
        if not display.is_waiting:
            continue
        try:
            status = await backend.status()
        except BackendError:
            return
        if status.busy_slots is None or status.slots is None:
            return
        if display.is_waiting:
            display.show_slots(status.busy_slots, status.slots)
