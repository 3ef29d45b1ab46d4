"""Stand-ins in a thread, for tests of synchronous interfaces."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

from ctxbackends.testing._stand_ins.stand_in import StandIn

S = TypeVar("S", bound=StandIn)


@contextmanager
def serve(stand_in: S) -> Iterator[S]:
    """Serve a stand-in on an event loop of its own."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        asyncio.run_coroutine_threadsafe(stand_in.__aenter__(), loop).result(10)
        try:
            yield stand_in
        finally:
            asyncio.run_coroutine_threadsafe(stand_in.__aexit__(), loop).result(10)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
