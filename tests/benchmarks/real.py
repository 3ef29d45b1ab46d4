"""Cold starts of a real llama-server, with a model that loads slowly: how long after it was ready the SDK's wait ended.
Prints a list of seconds as JSON; an empty one where the wheel of llama.cpp is not installed.

A thread with raw sockets asks the server every 5 ms, and so knows the moment to about that. Its questions are work for
the server, which the SDK must not mistake for loading.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
import time
from importlib.util import find_spec
from urllib.parse import urlsplit

from ctxbackends import LocalServer, open_backend


class ReadyWatch(threading.Thread):
    """Notes when ``/health`` is answered with 200 for the first time."""

    def __init__(self, endpoint: str) -> None:
        super().__init__(daemon=True)
        parts = urlsplit(endpoint)
        self._address = (parts.hostname or "", parts.port or 0)
        self.ready_at = 0.0

    def run(self) -> None:
        while not self.ready_at:
            try:
                with socket.create_connection(self._address, timeout=5) as connection:
                    connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                    if connection.recv(64).startswith(b"HTTP/1.1 200"):
                        self.ready_at = time.monotonic()
            except OSError:
                pass
            time.sleep(0.005)


async def measure_start() -> float:
    from ctxbackends.testing import VARIANTS, cached_model  # noqa: PLC0415  # needs the extra `testing`

    server = LocalServer(cached_model(VARIANTS["slow-load"]), alias="slow-load", threads=1)
    try:
        endpoint = await server.start()
        watch = ReadyWatch(endpoint)
        watch.start()
        async with open_backend("llamacpp", endpoint=endpoint, default_model="slow-load") as backend:
            await backend.wait_ready()
            ready_at = time.monotonic()
        watch.join(5)
        return ready_at - watch.ready_at
    finally:
        await server.aclose()


async def _measure_starts(count: int) -> list[float]:
    if find_spec("xllamacpp") is None:
        return []
    return [await measure_start() for _ in range(count)]


def main(count: str) -> None:
    print(json.dumps(asyncio.run(_measure_starts(int(count)))))


if __name__ == "__main__":
    main(*sys.argv[1:])
