"""The figures that the closing notes and the docs quote: ``python tests/benchmarks/figures.py``. Prints them; asserts
nothing, since machines differ.

- CPU of ``ctx --help`` over ``python -c pass``, and of ``import ctxbackends`` over it: user + system time of the
process, median of 15.
- How long after a real server turned ready ``wait_ready()`` returned: 10 starts of the model that loads slowly. A
second client, raw sockets in a
  thread, asks every 5 ms and so knows the moment to about that.
"""

from __future__ import annotations

import asyncio
import os
import resource
import socket
import statistics
import subprocess
import sys
import threading
import time
from urllib.parse import urlsplit

from ctxbackends import LocalServer, open_backend
from ctxbackends.testing import VARIANTS, cached_model

RUNS = 15
STARTS = 10


def cpu_of(*arguments: str) -> float:
    """User and system seconds of one run of Python."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([sys.executable, *arguments], check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)


def start_up_cost() -> None:
    cases = {
        "python -c pass": ("-c", "pass"),
        "import ctxbackends": ("-c", "import ctxbackends"),
        "ctx --help": ("-m", "ctxbackends", "--help"),
        "ctx ai --help": ("-m", "ctxbackends", "ai", "--help"),
    }
    samples: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(RUNS):
        for name, arguments in cases.items():
            samples[name].append(cpu_of(*arguments))
    base = statistics.median(samples["python -c pass"])
    for name, values in samples.items():
        median = statistics.median(values)
        print(f"{name:20} {median * 1000:6.1f} ms CPU, {(median - base) * 1000:6.1f} over python -c pass")


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


async def one_start() -> float:
    server = LocalServer(cached_model(VARIANTS["slow-load"]), alias="slow-load", threads=1)
    try:
        endpoint = await server.start()
        watch = ReadyWatch(endpoint)
        watch.start()
        async with open_backend("llamacpp", endpoint=endpoint, default_model="slow-load") as backend:
            await backend.wait_ready()
            answered_at = time.monotonic()
        watch.join(5)
        return answered_at - watch.ready_at
    finally:
        await server.aclose()


async def ready_latency() -> None:
    late = [await one_start() for _ in range(STARTS)]
    shown = " ".join(f"{seconds:.3f}" for seconds in late)
    print(f"wait_ready after the server was ready, {STARTS} starts: median {statistics.median(late):.3f} s ({shown})")


if __name__ == "__main__":
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} cores")
    start_up_cost()
    asyncio.run(ready_latency())
