"""The CPU time of our model in a framework, over that of the framework's own model for OpenAI on the same server: of a
request, and of the chunks of a stream; the median of ratios of interleaved rounds in one process.

``python -m tests.benchmarks.adapters pydantic-ai`` prints the ratios, and ends with 1 where ours costs more.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Sequence
from importlib import import_module

from tests.benchmarks.guard import BoundedCase, run
from tests.benchmarks.processes import Child, command
from tests.benchmarks.worker import Client

CLIENTS = {
    "langchain": ("langchain_ctxbackends", "langchain_client"),
    "pydantic-ai": ("pydanticai_ctxbackends", "pydanticai_client"),
}
"""By the extra of a framework: the modules in ``clients/`` with our model and with the framework's own."""

ROUNDS = 3
CASES = (
    BoundedCase("completion of 1 KB", "openai", "c1k", False, 1, 20, instructions=1, cpu=1),
    BoundedCase("stream of 1,000 chunks", "openai", "s1000-own", True, 1, 1, instructions=1, cpu=1),
)


def compare(extra: str) -> dict[str, float]:
    """Return the ratio of each case by its name."""
    modules = [import_module(f"tests.benchmarks.clients.{name}") for name in CLIENTS[extra]]
    ratios = {}
    with Child(command(sys.executable, "tests.benchmarks.stub")) as server, asyncio.Runner() as runner:
        for case in CASES:
            clients = [runner.run(module.open_client(case.wire, server.hello["url"])) for module in modules]
            for client in clients:
                runner.run(run(case, client))  # connections, caches
            rounds = [_measure_round(case, clients, runner, backwards=bool(number % 2)) for number in range(ROUNDS)]
            ratios[case.name] = statistics.median(rounds)
            for client in clients:
                runner.run(client.close())
    return ratios


def _measure_round(case: BoundedCase, clients: Sequence[Client], runner: asyncio.Runner, *, backwards: bool) -> float:
    durations = [0.0, 0.0]
    for index in (1, 0) if backwards else (0, 1):
        gc.collect()
        start = time.process_time()
        runner.run(run(case, clients[index]))
        durations[index] = time.process_time() - start
    return durations[0] / durations[1]


def main(extra: str) -> int:
    ratios = compare(extra)
    for name, ratio in ratios.items():
        print(f"{name:30} {ratio:.2f} times the CPU time of the framework's own model")
    return 1 if any(ratio >= 1 for ratio in ratios.values()) else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
