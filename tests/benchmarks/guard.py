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
class Bounded:
    """A case: ``times`` batches of ``at_once``. ``instructions`` and ``cpu``: how many times of what the hand-written
    client needs the SDK may need."""

    name: str
    wire: str
    model: str
    streamed: bool
    at_once: int
    times: int
    instructions: float
    cpu: float


CASES = (
    Bounded("completion of 1 KB", "openai", "c1k", False, 1, 100, instructions=1.4, cpu=1.9),
    Bounded("completions, 50 at once", "openai", "c1k", False, 50, 2, instructions=1.4, cpu=2.2),
    Bounded("stream, many events in a segment", "openai", "s1000-many", True, 1, 5, instructions=3.1, cpu=2.6),
    Bounded("stream, an event in an HTTP chunk", "openai", "s1000-own", True, 1, 5, instructions=1.45, cpu=2.0),
    Bounded("stream of Anthropic's wire", "anthropic", "s1000-many", True, 1, 5, instructions=3.1, cpu=2.6),
    Bounded("stream of Ollama's wire", "ollama", "s1000-many", True, 1, 5, instructions=3.5, cpu=3.0),
)


@dataclass(frozen=True)
class Found:
    """The ratios of one case."""

    case: Bounded
    instructions: float
    cpu: float

    def too_much(self) -> list[str]:
        """What is more than it may be, in words."""
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


async def run(case: Bounded, client: Client) -> None:
    for _ in range(case.times):
        if case.streamed:
            await client.stream(case.model, _ignore)
        elif case.at_once == 1:
            await client.complete(case.model)
        else:
            await asyncio.gather(*[client.complete(case.model) for _ in range(case.at_once)])


def instructions(act: Callable[[], Coroutine[Any, Any, None]], loop: asyncio.AbstractEventLoop) -> int:
    """Those that the interpreter carries out for one run, in every function of Python that is called."""
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


def measure(case: Bounded, clients: Sequence[Client], loop: asyncio.AbstractEventLoop) -> Found:
    """``clients``: the SDK, and the hand-written one."""
    for client in clients:
        loop.run_until_complete(run(case, client))  # connections, caches
    needed = [instructions(partial(run, case, client), loop) for client in clients]
    ratios = []
    for round_ in range(ROUNDS):
        spent = [0.0, 0.0]
        for place in (0, 1) if round_ % 2 else (1, 0):
            gc.collect()
            began = time.process_time()
            loop.run_until_complete(run(case, clients[place]))
            spent[place] = time.process_time() - began
        ratios.append(spent[0] / spent[1])
    return Found(case, needed[0] / needed[1], statistics.median(ratios))


def _ignore(_: str) -> None:
    pass


def main() -> int:
    too_much: list[str] = []
    with Child(command(sys.executable, "tests.benchmarks.stub")) as server, asyncio.Runner() as runner:
        loop = runner.get_loop()
        for case in CASES:
            clients = [
                loop.run_until_complete(module.open_client(case.wire, server.hello["url"]))
                for module in (sdk, handwritten)
            ]
            found = measure(case, clients, loop)
            print(found, flush=True)
            too_much += found.too_much()
            for client in clients:
                loop.run_until_complete(client.close())
    print(*too_much, sep="\n", end="\n" if too_much else "", file=sys.stderr)
    return 1 if too_much else 0


if __name__ == "__main__":
    sys.exit(main())
