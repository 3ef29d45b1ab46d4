"""The cost of a batch on Ray: ``python -m tests.scale.cost``. Prints CPU time a row and the memory of the processes."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
import time
from pathlib import Path

from ctxbackends._engines.contract import Engine
from ctxbackends._engines.processes import ProcessEngine
from ctxbackends._engines.ray import RayEngine
from ctxbackends.batch import BatchInput, BatchOptions, run_batch
from tests.benchmarks.batch import build_config, serve, write_rows
from tests.processes import find_descendants
from tests.scale.environment import set_variables

if sys.platform == "win32":
    raise NotImplementedError("it reads /proc")

TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def measure(pids: set[int]) -> tuple[float, float]:
    """The CPU seconds of processes so far, and their memory in MB; shared pages count in each."""
    seconds = pages = 0
    for pid in pids:
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        seconds += int(fields[11]) + int(fields[12])
        pages += int(fields[21])
    return seconds / TICKS, pages * PAGE / 1e6


async def run(engine: Engine, workers: int, count: int, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as temporary, serve(seconds, 64) as url:
        server = find_descendants(os.getpid())
        rows = Path(temporary, "rows.jsonl")
        write_rows(rows, count)
        answered = 0
        start = driver = began = 0.0
        async with run_batch(
            build_config(url),
            BatchInput(rows),
            options=BatchOptions(max_in_flight=32, validate=False),
            journal=Path(temporary, "journal"),
            engine=engine,
            workers=workers,
        ) as batch:
            async for _ in batch:
                answered += 1
                if answered == count // 10:  # the start of the processes is over
                    start, _ = measure(find_descendants(os.getpid()) - server)
                    driver, began = time.process_time(), time.monotonic()
                if answered == count:
                    end, memory = measure(find_descendants(os.getpid()) - server)
                    measured = count - count // 10
                    cpu = [(time.process_time() - driver) / measured * 1e3, (end - start) / measured * 1e3]
                    rate = measured / (time.monotonic() - began)
                    print(  # noqa: T201
                        f"{type(engine).__name__}, {workers} workers: {cpu[0]:.2f} ms CPU a row of the driver, "
                        f"{cpu[1]:.2f} of the other processes, whose memory is {memory:.0f} MB; {rate:.0f} rows/s",
                        flush=True,
                    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=4000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=0.005)
    arguments = parser.parse_args()
    asyncio.run(run(ProcessEngine(), arguments.workers, arguments.rows, arguments.seconds))
    set_variables()
    from tests.scale.cluster import LoopbackCluster  # ray reads the variables

    with LoopbackCluster() as cluster:
        asyncio.run(run(RayEngine(cluster.address), arguments.workers, arguments.rows, arguments.seconds))
