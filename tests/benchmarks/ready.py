"""A fresh process of one client: how long until it can be used, and until the first answer. Prints one line of JSON.

Imports nothing that the client does not need: what is imported here is measured with it. The driver tells when it
started the process, on the clock that all processes share.
"""

from __future__ import annotations

import sys
import time


def peak() -> int:
    """The most memory that this process has had, in bytes."""
    with open("/proc/self/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM"))


def main(name: str, wire: str, url: str, process_start: str) -> None:
    import importlib  # noqa: PLC0415  # as the next one

    module = importlib.import_module(f"tests.benchmarks.clients.{name}")
    import_done = time.monotonic(), time.process_time()

    import asyncio  # noqa: PLC0415  # after the client's own import, which has it already

    async def use() -> None:
        client = await module.open_client(wire, url)
        ready = time.monotonic(), time.process_time(), peak()
        await client.complete("c1k")
        answer_done = time.monotonic(), time.process_time(), peak()
        start = float(process_start)
        print(
            f'{{"import": {import_done[0] - start}, "import_cpu": {import_done[1]}, "ready": {ready[0] - start}, '
            f'"ready_cpu": {ready[1]}, "ready_bytes": {ready[2]}, "answer": {answer_done[0] - start}, '
            f'"answer_cpu": {answer_done[1]}, "answer_bytes": {answer_done[2]}}}'
        )
        await client.close()

    asyncio.run(use())


if __name__ == "__main__":
    main(*sys.argv[1:])
