"""The hand-written client on uvloop, to tell what the event loop alone costs."""

from __future__ import annotations

from uvloop import new_event_loop

from tests.benchmarks.clients.handwritten import WIRES, open_client

DISTRIBUTIONS = ("aiohttp", "msgspec", "uvloop")
__all__ = ["DISTRIBUTIONS", "WIRES", "new_event_loop", "open_client"]
