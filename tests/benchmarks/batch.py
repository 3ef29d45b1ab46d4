"""The cost of a batch: CPU time a row, memory, throughput beside a hand-written loop, and the workers of an engine.

``python -m tests.benchmarks.batch cost|memory|throughput|scaling``; ``--help`` lists the options of each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import aiohttp

from ctxbackends import BackendConfig
from ctxbackends._engines.processes import ProcessEngine
from ctxbackends.batch import BatchInput, BatchOptions, run_batch
from ctxbackends.batch._output import write_output

TEXT = "Summarize the following paragraph in one sentence. " + "The quick brown fox jumps over the lazy dog. " * 6


@contextmanager
def serve(seconds: float, slots: int) -> Iterator[str]:
    """Start the server with slots, and yield its URL."""
    command = [sys.executable, "-m", "tests.benchmarks.batch_server", "--seconds", str(seconds), "--slots", str(slots)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None, "a pipe"
        try:
            yield f"http://127.0.0.1:{int(server.stdout.readline())}"
        finally:
            server.terminate()


def write_rows(path: Path, count: int, *, model: str = "m", max_tokens: int | None = None) -> None:
    """Write an input in OpenAI's form."""
    with open(path, "w", encoding="utf-8") as lines:
        for number in range(count):
            body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": f"{number}. {TEXT}"}]}
            if max_tokens is not None:
                body["max_tokens"] = max_tokens
            row = {"custom_id": f"row-{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
            lines.write(json.dumps(row) + "\n")


def build_config(url: str, name: str = "server") -> BackendConfig:
    """Return the configuration of a server."""
    return BackendConfig(name=name, type="openai-compatible", endpoint=url, complete_streams=False)


async def answer_batch(urls: Sequence[str], rows: Path, directory: Path, *, at_once: int, workers: int = 0) -> int:
    """Answer all rows and write the output, as the command does. Return the number of answers."""
    run = run_batch(
        [build_config(url, f"server-{number}") for number, url in enumerate(urls)],
        BatchInput(rows),
        options=BatchOptions(max_in_flight=at_once),
        journal=directory / "journal",
        engine=ProcessEngine() if workers else None,
        workers=workers or 1,
    )
    async with run:
        answered = sum([answer.error is None async for answer in run])
        assert run.journal is not None, "the run has one"
        write_output(run.journal, BatchInput(rows), directory / "out.jsonl", key=run.key)
        run.journal.remove()
    return answered


async def answer_by_hand(url: str, rows: Path, directory: Path, *, at_once: int) -> int:
    """Answer all rows with aiohttp alone, as people write it: no journal, no retry, no check."""
    answered = 0
    with rows.open(encoding="utf-8") as lines, (directory / "by-hand.jsonl").open("w", encoding="utf-8") as out:
        async with aiohttp.ClientSession() as session:

            async def work() -> None:
                nonlocal answered
                for line in lines:
                    row = json.loads(line)
                    async with session.post(f"{url}/v1/chat/completions", json=row["body"]) as response:
                        response.raise_for_status()
                        answer = await response.json()
                    out.write(json.dumps({"custom_id": row["custom_id"], "response": answer}) + "\n")
                    answered += 1

            await asyncio.gather(*(work() for _ in range(at_once)))
    return answered


async def complete_rows(url: str, count: int, *, at_once: int) -> None:
    """Send the rows with ``complete()`` alone."""
    from ctxbackends import Registry  # noqa: PLC0415  # measured

    async with Registry([build_config(url)]) as registry:
        backend = registry.resolve("server")
        numbers = iter(range(count))

        async def work() -> None:
            for number in numbers:
                await backend.complete(f"{number}. {TEXT}", model="m")

        await asyncio.gather(*(work() for _ in range(at_once)))


def measure_cost(arguments: argparse.Namespace) -> None:
    """Print the CPU time of a row: of a batch, of ``complete()`` alone, and of a hand-written loop."""
    with serve(arguments.seconds, arguments.at_once) as url, tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_rows(directory / "warm.jsonl", 200)
        write_rows(directory / "rows.jsonl", arguments.rows)
        asyncio.run(answer_batch([url], directory / "warm.jsonl", directory, at_once=arguments.at_once))
        runs: dict[str, Callable[[], Coroutine[Any, Any, object]]] = {
            "by hand": lambda: answer_by_hand(url, directory / "rows.jsonl", directory, at_once=arguments.at_once),
            "complete()": lambda: complete_rows(url, arguments.rows, at_once=arguments.at_once),
            "batch": lambda: answer_batch([url], directory / "rows.jsonl", directory, at_once=arguments.at_once),
        }
        for _ in range(arguments.rounds):
            for label, start in runs.items():
                cpu, wall = time.process_time(), time.monotonic()
                asyncio.run(start())
                cpu, wall = time.process_time() - cpu, time.monotonic() - wall
                print(f"{label:12} {1000 * cpu / arguments.rows:6.3f} ms CPU a row {arguments.rows / wall:7.0f} rows/s")


def measure_memory(arguments: argparse.Namespace) -> None:
    """Print the peak memory of batches of two sizes, each in a process of its own."""
    if arguments.child:
        with tempfile.TemporaryDirectory() as name:
            rows = Path(name, "rows.jsonl")
            write_rows(rows, arguments.child)
            asyncio.run(answer_batch([arguments.url], rows, Path(name), at_once=32))
        if sys.platform == "win32":
            raise NotImplementedError("Windows does not report the peak memory")
        import resource  # noqa: PLC0415  # not on Windows

        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    with serve(0.0, 32) as url:
        peaks = []
        for count in arguments.sizes:
            command = [sys.executable, "-m", "tests.benchmarks.batch", "memory", "--url", url, "--child", str(count)]
            peaks.append(float(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
            print(f"{count:9,} rows {peaks[-1]:7.1f} MB")
    print(f"ratio {peaks[-1] / peaks[0]:.2f}")


def measure_throughput(arguments: argparse.Namespace) -> None:
    """Print the rows a second of a batch over those of a hand-written loop, on a server of the caller."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        rows = directory / "rows.jsonl"
        write_rows(rows, arguments.rows, model=arguments.model, max_tokens=arguments.max_tokens)
        ratios = []
        for number in range(arguments.rounds):
            seconds = {}
            for label in ("batch", "by hand") if number % 2 else ("by hand", "batch"):
                start = time.monotonic()
                if label == "batch":
                    answered = asyncio.run(answer_batch([arguments.url], rows, directory, at_once=arguments.at_once))
                else:
                    answered = asyncio.run(answer_by_hand(arguments.url, rows, directory, at_once=arguments.at_once))
                seconds[label] = time.monotonic() - start
                assert answered == arguments.rows
            ratios.append(seconds["by hand"] / seconds["batch"])
            print(f"by hand {seconds['by hand']:6.1f} s, batch {seconds['batch']:6.1f} s, ratio {ratios[-1]:.3f}")
    print(f"median {statistics.median(ratios):.3f}")


def measure_scaling(arguments: argparse.Namespace) -> None:
    """Print the rows a second of N workers over M servers beside the formula of docs/scale.md."""
    print("workers  servers  slots  seconds    rows/s  formula  measured/formula")
    for workers, servers, slots, seconds in (
        (0, 1, 8, 0.1),
        (0, 2, 8, 0.1),
        (2, 1, 8, 0.1),
        (2, 2, 8, 0.1),
        (4, 2, 8, 0.1),
        (0, 1, 32, 0.05),
        (2, 2, 16, 0.05),
    ):
        formula = servers * slots / seconds
        with ExitStack() as stack:
            urls = [stack.enter_context(serve(seconds, slots)) for _ in range(servers)]
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            start = asyncio.run(_time_to_first(urls, directory, slots, workers))
            rows = directory / "rows.jsonl"
            write_rows(rows, round(formula * arguments.duration))
            wall = time.monotonic()
            asyncio.run(answer_batch(urls, rows, directory, at_once=slots, workers=workers))
            wall = time.monotonic() - wall - start
            rate = round(formula * arguments.duration) / wall
        print(
            f"{workers or 1:7} {servers:8} {slots:6} {seconds:8} {rate:9.1f} {formula:8.1f} {rate / formula:12.2f}"
            + ("" if workers else "  (one process)")
        )


async def _time_to_first(urls: Sequence[str], directory: Path, slots: int, workers: int) -> float:
    """Return the seconds that workers need to start."""
    if not workers:
        return 0.0
    rows = directory / "first.jsonl"
    write_rows(rows, 1)
    wall = time.monotonic()
    await answer_batch(urls, rows, directory, at_once=slots, workers=workers)
    return time.monotonic() - wall


def main() -> None:
    """Run one of the measurements."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(required=True)
    cost = commands.add_parser("cost", help=measure_cost.__doc__)
    cost.add_argument("--rows", type=int, default=10_000)
    cost.add_argument("--rounds", type=int, default=1)
    cost.add_argument("--at-once", type=int, default=32)
    cost.add_argument("--seconds", type=float, default=0.005)
    cost.set_defaults(measure=measure_cost)
    memory = commands.add_parser("memory", help=measure_memory.__doc__)
    memory.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000])
    memory.add_argument("--child", type=int, help=argparse.SUPPRESS)
    memory.add_argument("--url", help=argparse.SUPPRESS)
    memory.set_defaults(measure=measure_memory)
    throughput = commands.add_parser("throughput", help=measure_throughput.__doc__)
    throughput.add_argument("--url", required=True, help="such as http://127.0.0.1:8080")
    throughput.add_argument("--model", required=True)
    throughput.add_argument("--rows", type=int, default=200)
    throughput.add_argument("--rounds", type=int, default=5)
    throughput.add_argument("--at-once", type=int, default=4)
    throughput.add_argument("--max-tokens", type=int, default=16)
    throughput.set_defaults(measure=measure_throughput)
    scaling = commands.add_parser("scaling", help=measure_scaling.__doc__)
    scaling.add_argument("--duration", type=float, default=10.0, help="seconds of each run by the formula")
    scaling.set_defaults(measure=measure_scaling)
    arguments = parser.parse_args()
    arguments.measure(arguments)


if __name__ == "__main__":
    main()
