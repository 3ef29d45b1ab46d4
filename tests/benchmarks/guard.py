"""The guard of CI: what a request and an event cost the SDK, over what they cost the hand-written client, in one
process and one run. ``nox -s guard``; ends with 1 where a bound is passed.

Two measures. Instructions of the Python interpreter, which are the same in every run, so that their bounds are close;
what C code does is not in them. And CPU time (user and system), the median of ratios of interleaved rounds, with loose
bounds: a machine of CI is noisy. Nothing here depends on how fast the machine is.
"""

from __future__ import annotations

import asyncio
import gc
import statistics
import sys
import time
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any

from tests.benchmarks.clients import handwritten, sdk
from tests.benchmarks.processes import Child, command
from tests.benchmarks.worker import Client

ROUNDS = 9


@dataclass(frozen=True)
class BoundedCase:
    """A case: ``times`` batches of ``at_once``. ``instructions`` and ``cpu``: how many times of what the hand-written
    client needs the SDK may need."""

    name: str
    wire: str
    model: str
    stream: bool
    at_once: int
    times: int
    instructions: float
    cpu: float


CASES = (
    BoundedCase("completion of 1 KB", "openai", "c1k", False, 1, 100, instructions=1.4, cpu=1.9),
    BoundedCase("completions, 50 at once", "openai", "c1k", False, 50, 2, instructions=1.4, cpu=2.2),
    BoundedCase("stream, many events in a segment", "openai", "s1000-many", True, 1, 5, instructions=1.9, cpu=2.3),
    BoundedCase("stream, an event in an HTTP chunk", "openai", "s1000-own", True, 1, 5, instructions=1.2, cpu=2.0),
    BoundedCase("stream of Anthropic's wire", "anthropic", "s1000-many", True, 1, 5, instructions=3.1, cpu=2.6),
    BoundedCase("stream of Ollama's wire", "ollama", "s1000-many", True, 1, 5, instructions=3.5, cpu=3.0),
)


@dataclass(frozen=True)
class Comparison:
    """The ratios of one case."""

    case: BoundedCase
    instructions: float
    cpu: float

    def exceeded_bounds(self) -> list[str]:
        """Return a sentence for each ratio above its bound."""
        ratios = {"instructions": (self.instructions, self.case.instructions), "CPU": (self.cpu, self.case.cpu)}
        return [
            f"{self.case.name}: {ratio:.2f} times the {what} of the hand-written client; at most {bound:g}"
            for what, (ratio, bound) in ratios.items()
            if ratio > bound
        ]

    def __str__(self) -> str:
        case = self.case
        return (
            f"{case.name:36} instructions {self.instructions:5.2f} (at most {case.instructions:g})   "
            f"CPU {self.cpu:5.2f} (at most {case.cpu:g})"
        )


async def run(case: BoundedCase, client: Client) -> None:
    for _ in range(case.times):
        if case.stream:
            await client.stream(case.model, _ignore)
        elif case.at_once == 1:
            await client.complete(case.model)
        else:
            await asyncio.gather(*[client.complete(case.model) for _ in range(case.at_once)])


def instructions(act: Callable[[], Coroutine[Any, Any, None]], loop: asyncio.AbstractEventLoop) -> int:
    """Return the number of bytecode instructions of one run, in every Python function that it calls."""
    count = 0

    def trace(frame: FrameType, event: str, _: Any) -> Any:
        nonlocal count
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        count += event == "opcode"
        return trace

    before = sys.gettrace()  # of a test run that measures its coverage
    sys.settrace(trace)
    try:
        loop.run_until_complete(act())
    finally:
        sys.settrace(before)
    return count


def measure(case: BoundedCase, clients: Sequence[Client], loop: asyncio.AbstractEventLoop) -> Comparison:
    """``clients``: the SDK, and the hand-written one."""
    for client in clients:
        loop.run_until_complete(run(case, client))  # connections, caches
    counts = [instructions(partial(run, case, client), loop) for client in clients]
    ratios = []
    for round_ in range(ROUNDS):
        durations = [0.0, 0.0]
        for index in (0, 1) if round_ % 2 else (1, 0):
            gc.collect()
            start = time.process_time()
            loop.run_until_complete(run(case, clients[index]))
            durations[index] = time.process_time() - start
        ratios.append(durations[0] / durations[1])
    return Comparison(case, counts[0] / counts[1], statistics.median(ratios))


def _ignore(_: str) -> None:
    pass


def main() -> int:
    exceeded_bounds: list[str] = []
    with Child(command(sys.executable, "tests.benchmarks.stub")) as server, asyncio.Runner() as runner:
        loop = runner.get_loop()
        for case in CASES:
            clients = [
                loop.run_until_complete(module.open_client(case.wire, server.hello["url"]))
                for module in (sdk, handwritten)
            ]
            comparison = measure(case, clients, loop)
            print(comparison, flush=True)
            exceeded_bounds += comparison.exceeded_bounds()
            for client in clients:
                loop.run_until_complete(client.close())
    print(*exceeded_bounds, sep="\n", end="\n" if exceeded_bounds else "", file=sys.stderr)
    return 1 if exceeded_bounds else 0


if __name__ == "__main__":
    sys.exit(main())
