"""A server that is not ready yet, a process of its own: it refuses connections or answers 503 for some seconds, then it
answers as the stub does. Prints its address. A line of stdin with ``ready_after`` starts the seconds; each line is
answered with when it got ready and how many requests came. Knows no client.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Any

from tests.benchmarks.answers import all_answers
from tests.benchmarks.stub import Listener, bind_port, listen, serve_commands, write_line


async def _serve(kind: str) -> None:
    answers = all_answers(["tiny"])
    listener = Listener()
    port = bind_port()
    url = f"http://127.0.0.1:{port.getsockname()[1]}"
    if kind == "loading":
        await listen(listener, answers, port)
    write_line({"url": url})

    async def get_ready(after: float) -> None:
        await asyncio.sleep(after)
        if kind == "refused":
            await listen(listener, answers, port)
        listener.ready_at = time.monotonic()

    starting: list[asyncio.Task[None]] = []

    def act(line: dict[str, Any]) -> dict[str, Any]:
        if "ready_after" in line:
            starting.append(asyncio.create_task(get_ready(line["ready_after"])))
        return {"ready_at": listener.ready_at, "requests": listener.requests}

    await serve_commands(act)
    for task in starting:
        task.cancel()


def main(kind: str) -> None:
    """``kind``: "refused" or "loading"."""
    asyncio.run(_serve(kind))


if __name__ == "__main__":
    main(*sys.argv[1:])
