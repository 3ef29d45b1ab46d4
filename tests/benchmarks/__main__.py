"""``python -m tests.benchmarks``: what the SDK costs, beside a hand-written client and other people's clients."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Never

from tests.benchmarks import report
from tests.benchmarks.cases import HAND_WRITTEN, NAMES, SDK
from tests.benchmarks.environments import CLIENTS, HERE, Environment, EnvironmentFailedError, make_environment
from tests.benchmarks.processes import ROOT
from tests.benchmarks.run import Run

ROUNDS = 7
QUICK_ROUNDS = 3
QUICK_CLIENTS = (HAND_WRITTEN, SDK)
DOCS = ROOT / "docs" / "benchmarks"


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Never:
        """One line, without the usage."""
        self.exit(2, f"bench: {message}\n")


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = Parser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="without the peers, in two minutes; shows the table alone")
    parser.add_argument("--rounds", type=_rounds, help=f"default: {ROUNDS}, with --quick {QUICK_ROUNDS}")
    parser.add_argument("--cases", type=_names("case", NAMES), help="some cases alone: a,b")
    parser.add_argument("--clients", type=_names("client", tuple(CLIENTS)), help="some clients alone: a,b")
    parser.add_argument("--out", type=Path, default=ROOT / ".nox" / "bench.json", help="for all samples, as JSON")
    parser.add_argument("--docs", action="store_true", help="write table and plot to docs/ though the run is not full")
    parser.add_argument("--wheel", type=Path, help="of the SDK; it is installed into an environment of its own")
    parser.add_argument("--envs", type=Path, default=ROOT / ".nox" / "bench-envs", help="where environments are kept")
    parser.add_argument("--here", action="store_true", help="run all clients with this interpreter")
    parser.add_argument("--samples", type=Path, help="measure nothing: show what an earlier run wrote with --out")
    options = parser.parse_args(argv)
    if options.samples is not None:
        if not options.samples.is_file():
            parser.error(f"there is no file {options.samples}")
    elif not options.here and options.wheel is None:
        parser.error("give --wheel, or --here; `nox -s bench` does the first")
    if options.wheel is not None and not options.wheel.is_file():
        parser.error(f"there is no wheel {options.wheel}")
    full = not (options.quick or options.cases or options.clients or options.here or options.samples)
    options.docs = options.docs or (full and (options.rounds or ROUNDS) >= ROUNDS)
    if options.docs and find_spec("matplotlib") is None:
        parser.error("a run that writes to docs/ needs matplotlib; `nox -s bench` has it")
    return options


def _rounds(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"at least 1, not {text!r}")
    return int(text)


def _names(what: str, choices: Sequence[str]) -> Any:
    def split(text: str) -> list[str]:
        names = text.split(",")
        for name in names:
            if name not in choices:
                raise argparse.ArgumentTypeError(f"no such {what}: {name!r}. There are: {', '.join(choices)}")
        return names

    return split


def environments(options: argparse.Namespace) -> tuple[dict[str, Environment], list[dict[str, Any]]]:
    """Of all clients that are measured; and a sample for each whose environment could not be made."""
    names = options.clients or [name for name, client_ in CLIENTS.items() if not options.quick or name in QUICK_CLIENTS]
    if options.here:
        return {name: HERE for name in CLIENTS if name in names}, []
    result: dict[str, Environment] = {}
    failures = []
    # The hand-written client gets the versions that the SDK has.
    sdk = make_environment(CLIENTS[SDK], options.envs, options.wheel, None)
    for name, client in CLIENTS.items():
        if name in names:
            try:
                result[name] = sdk if name == SDK else make_environment(client, options.envs, options.wheel, sdk)
            except EnvironmentFailedError as failure:
                if not client.peer:
                    raise
                failures.append({"case": "installed", "client": name, "round": 0, "error": str(failure)})
    return result, failures


def machine() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        models = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    return f"{os.cpu_count()} cores of {models[0] if models else platform.machine()}"


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    start = time.monotonic()

    def report_progress(text: str) -> None:
        print(f"bench: {time.monotonic() - start:5.0f} s  {text}", file=sys.stderr, flush=True)

    try:
        results = json.loads(options.samples.read_text()) if options.samples else measure(options, report_progress)
    except EnvironmentFailedError as failure:
        sys.exit(f"bench: {failure}")
    rows = report.rows(results["samples"])
    text = f"{report.table(rows)}\n{report.notes(results, rows)}"
    print(text)
    if options.docs:
        from tests.benchmarks.plot import draw  # noqa: PLC0415  # needs matplotlib, which other runs do not

        DOCS.mkdir(parents=True, exist_ok=True)
        (DOCS / "table.md").write_text(text)
        draw(rows, DOCS / "plot.svg")
        report_progress(f"wrote {DOCS / 'table.md'} and {DOCS / 'plot.svg'}")
    report_progress("done")


def measure(options: argparse.Namespace, report_progress: Callable[[str], object]) -> dict[str, Any]:
    """All samples, and what they were taken with; written to ``--out``."""
    clients_, failures = environments(options)
    rounds = options.rounds or (QUICK_ROUNDS if options.quick else ROUNDS)
    names = options.cases or [name for name in NAMES if not (options.here and name == "installed")]
    results = Run(
        clients_, rounds=rounds, quick=options.quick, divide=2 if options.quick else 1, report=report_progress
    )(names)
    record = {
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        "machine": machine(),
        "python": platform.python_version(),
        "kernel": platform.release(),
        "rounds": rounds,
        "versions": {name: results.versions[name] for name in CLIENTS if name in results.versions},
        "samples": [*failures, *results.samples],
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(record, indent=1) + "\n")
    return record


if __name__ == "__main__":
    main()
