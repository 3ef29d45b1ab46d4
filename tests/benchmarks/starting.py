"""A server that is not ready yet, a process of its own: it refuses connections or answers 503 for some seconds, then it
answers as the stub does. Prints its address, and tells on any line of stdin when it got ready and how many requests
came. Knows no client.
"""

from __future__ import annotations

import asyncio
import sys
import time

from tests.benchmarks.answers import all_answers
from tests.benchmarks.stub import Listener, bound, listen, obey, say


async def _serve(kind: str, after: float | None) -> None:
    answers = all_answers(["tiny"])
    listener = Listener()
    port = bound()
    url = f"http://127.0.0.1:{port.getsockname()[1]}"
    if kind == "loading":
        await listen(listener, answers, port)
    say({"url": url})

    async def get_ready(after: float) -> None:
        await asyncio.sleep(after)
        if kind == "refused":
            await listen(listener, answers, port)
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
