"""A server that is not ready yet, a process of its own: it refuses connections or answers 503 for some seconds, then it
answers as the stub does. Prints its address, and tells on any line of stdin when it got ready and what came.

While it answers 503 it burns the CPU of one thread, as a llama-server does that loads its model: what looks at the
process from outside sees the same. Knows no client.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
import zlib

from tests.benchmarks.answers import all_answers
from tests.benchmarks.stub import Listener, bound, listen, obey, say

NICE = 10
"""So that several servers that load at once on a small machine take no time from the client that is measured."""


class Loading(threading.Thread):
    """What takes the CPU until it is told to stop. The checksum is taken without the interpreter's lock."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.done = threading.Event()

    def run(self) -> None:
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICE)
        block = bytes(1024 * 1024)
        while not self.done.is_set():
            zlib.crc32(block)


async def _serve(kind: str, after: float | None) -> None:
    answers = all_answers(["tiny"])
    listener = Listener()
    port = bound()
    url = f"http://127.0.0.1:{port.getsockname()[1]}"
    if kind == "loading":
        await listen(listener, answers, port)
    say({"url": url})

    async def get_ready(after: float) -> None:
        if kind == "refused":
            await asyncio.sleep(after)
            await listen(listener, answers, port)
        else:
            loading = Loading()
            loading.start()
            await asyncio.sleep(after)
            loading.done.set()
            await asyncio.to_thread(loading.join)
        listener.ready_at = time.monotonic()

    starting = None if after is None else asyncio.create_task(get_ready(after))
    await obey(lambda _: {"ready_at": listener.ready_at, "requests": listener.requests})
    if starting is not None:
        starting.cancel()


def main(kind: str, after: str) -> None:
    """``kind``: "refused" or "loading". ``after``: the seconds, or "never"."""
    asyncio.run(_serve(kind, None if after == "never" else float(after)))


if __name__ == "__main__":
    main(*sys.argv[1:])
