"""ctxbackends on uvloop, which a program may choose for itself."""

from __future__ import annotations

from uvloop import new_event_loop

from tests.benchmarks.clients.sdk import WIRES, open_client

DISTRIBUTIONS = ("ctxbackends", "aiohttp", "msgspec", "uvloop")
__all__ = ["DISTRIBUTIONS", "WIRES", "new_event_loop", "open_client"]
