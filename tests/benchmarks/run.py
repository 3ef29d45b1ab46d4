"""The rounds: in each, every client runs every case once, one client right after the other, in an order that is turned
from round to round. What slows the machine for a while so falls on all of them.

Gives samples; knows neither medians nor bounds.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tests.benchmarks import cold
from tests.benchmarks.cases import CASES, SDK, Case
from tests.benchmarks.environments import CLIENTS, Client, Environment
from tests.benchmarks.processes import ROOT, Child, ChildError, child_environment, command

Sample: TypeAlias = dict[str, Any]
SAMPLE_TIMEOUT = 120.0  # seconds for one sample
COMMANDS = {
    "pass": ("-c", "pass"),
    "import": ("-c", "import ctxbackends"),
    "help": ("-m", "ctxbackends", "--help"),
    "ai_help": ("-m", "ctxbackends", "chat", "--help"),
}
COMMAND_RUNS = 3  # in each round


@dataclass
class Results:
    """``samples``: each with ``case``, ``client``, ``round``, ``took``, and its figures or ``error``. ``versions``: by
    client."""

    samples: list[Sample] = field(default_factory=list)
    versions: dict[str, dict[str, str]] = field(default_factory=dict)


class Run:
    """``divide``: by what the counts of batches are divided, for runs that only show that all works."""

    def __init__(
        self,
        environments: Mapping[str, Environment],
        *,
        rounds: int,
        quick: bool = False,
        divide: int = 1,
        report: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._environments = environments
        self._rounds = rounds
        self._quick = quick
        self._divide = divide
        self._report = report
        self._workers: dict[str, Child] = {}
        self._failures: set[tuple[str, str]] = set()
        self.results = Results()

    def __call__(self, names: Sequence[str]) -> Results:
        """Measure these cases with all clients of the environments."""
        cases = [CASES[name] for name in names if name in CASES]
        with ExitStack() as stack:
            self._stub = stack.enter_context(Child(command(sys.executable, "tests.benchmarks.stub")))
            self._url = self._stub.hello["url"]
            stack.callback(self._end_workers)
            self._report("warming up")
            for case in cases:
                if case.warm_up:
                    for name in self._clients_of(case):
                        self._run_case(case, name, 0)
            for number in range(1, self._rounds + 1):
                self._report(f"round {number} of {self._rounds}")
                self._round(cases, names, number)
        if "installed" in names:
            for name, environment in self._environments.items():
                with self._record("installed", name, 0) as sample:
                    sample.update(distributions=len(environment.installed()), bytes=environment.size())
        self._cold(names)
        return self.results

    def _round(self, cases: Sequence[Case], names: Sequence[str], number: int) -> None:
        for index, case in enumerate(cases):
            for name in _rotate(self._clients_of(case), number + index):
                if not (CLIENTS[name].peer and 0 < case.peer_rounds < number):
                    self._run_case(case, name, number)
        if "ready" in names:
            for name in _rotate(list(self._environments), number):
                with self._record("ready", name, number) as sample:
                    sample.update(self._ready(name))
        if "commands" in names and SDK in self._environments:
            with self._record("commands", SDK, number) as sample:
                sample.update(_commands())

    def _cold(self, names: Sequence[str]) -> None:
        if "cold" in names and SDK in self._environments:
            self._report("cold starts")
            self._record_all("cold", SDK, lambda: cold.cold_starts(self._environments[SDK], quick=self._quick))
        if "give-up" in names:
            for name, environment in self._environments.items():
                if CLIENTS[name].peer:
                    self._record_all("give-up", name, lambda: cold.give_up(name, environment, CLIENTS[name].wires[0]))  # noqa: B023  # called at once
        if "real" in names and SDK in self._environments:
            self._report("cold starts of a real server")
            self._record_all("real", SDK, lambda: cold.real_starts(quick=self._quick))

    # --- one sample -----------------------------------------------------------------------------------

    def _clients_of(self, case: Case) -> list[str]:
        return [name for name in self._environments if wire_of(case, CLIENTS[name])]

    def _run_case(self, case: Case, name: str, number: int) -> None:
        """Record a sample of a case that a worker runs. Round 0 warms up, and is recorded only if it fails."""
        if (case.name, name) in self._failures:
            return
        client = CLIENTS[name]
        count = max(1, (case.peers if client.peer else case.count) // self._divide)
        command_: Sample = {"do": case.do, "wire": wire_of(case, client), "model": case.model}
        command_["count"] = count if number else 1
        if case.do != "idle":
            command_["at_once"] = case.at_once
        with self._record(case.name, name, number) as sample:
            if case.fresh:
                with self._start(name) as worker:
                    sample.update(worker.request(SAMPLE_TIMEOUT, **command_))
                    sample["units"] = case.units(count)
                return
            worker = self._worker(name)
            before = self._stub.request()
            sample.update(worker.request(SAMPLE_TIMEOUT, **command_))
            # With what the worker's warm-up took: rather too much than too little.
            sample["stub_cpu"] = self._stub.request()["cpu"] - before["cpu"]
            sample["units"] = case.units(command_["count"])
            _check(case.text(command_["count"]), sample)
            if case.do == "first":
                sample["wait"] = statistics.median(sample.pop("waits"))

    def _ready(self, name: str) -> Sample:
        """Measure a separate process, with the first wire of the client."""
        arguments = command(
            self._environments[name].python, "tests.benchmarks.ready", name, CLIENTS[name].wires[0], self._url
        )
        with Child([*arguments, str(time.monotonic())]) as child:
            return child.hello

    @contextmanager
    def _record(self, case: str, client: str, number: int) -> Iterator[Sample]:
        """Record the sample that the block fills, or its error."""
        sample: Sample = {}
        start = time.monotonic()
        try:
            yield sample
        except (ChildError, OSError, LookupError, subprocess.SubprocessError) as failure:
            sample = {"error": str(failure) or type(failure).__name__}
            self._failures.add((case, client))
            self._report(f"{client} fails {case}: {sample['error']}")
            if client in self._workers:
                self._workers.pop(client).kill()
        if number or "error" in sample or case not in CASES:
            took = round(time.monotonic() - start, 3)
            self.results.samples.append({"case": case, "client": client, "round": number, "took": took, **sample})

    def _record_all(self, case: str, client: str, measure: Callable[[], Sequence[Sample]]) -> None:
        samples: Sequence[Sample] = []
        try:
            samples = measure()
        except (ChildError, OSError, subprocess.SubprocessError) as failure:
            samples = [{"error": str(failure) or type(failure).__name__}]
            self._report(f"{client} fails {case}: {samples[0]['error']}")
        self.results.samples += [{"case": case, "client": client, "round": 0, **sample} for sample in samples]

    # --- the workers ----------------------------------------------------------------------------------

    def _worker(self, name: str) -> Child:
        if name not in self._workers:
            self._workers[name] = self._start(name)
        return self._workers[name]

    def _start(self, name: str) -> Child:
        worker = Child(command(self._environments[name].python, "tests.benchmarks.worker", name, self._url))
        self.results.versions[name] = worker.hello["versions"]
        return worker

    def _end_workers(self) -> None:
        while self._workers:
            self._workers.popitem()[1].close()


def wire_of(case: Case, client: Client) -> str:
    """Return the wire of a client in this case; empty if it takes no part."""
    if case.only and client.name not in case.only:
        return ""
    return next((wire for wire in (case.wire, case.other_wire) if wire in client.wires), "")


def _rotate(names: Sequence[str], by: int) -> list[str]:
    by %= max(1, len(names))
    return [*names[by:], *names[:by]]


def _check(text: str, sample: Sample) -> None:
    """Check that the client read what the stub sent."""
    if (sample["characters"], sample["crc"]) != (len(text), zlib.crc32(text.encode())):
        raise ChildError(f"{len(text)} characters were sent, and {sample['characters']} read, or others than those")


def _commands() -> Sample:
    """CPU seconds of each command: the median of some runs, one after the other in turn. They run with this
    interpreter, which has the extra ``cli``: the SDK's environment has no extra."""
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for _ in range(COMMAND_RUNS):
        for name, arguments in COMMANDS.items():
            seconds[name].append(_cpu_of([sys.executable, *arguments]))
    return {name: statistics.median(values) for name, values in seconds.items()}


def _cpu_of(arguments: Sequence[str]) -> float:
    """User and system seconds of one process."""
    if sys.platform == "win32":
        raise NotImplementedError
    environment = child_environment()
    if "PYTHONPATH" in os.environ:  # without a wheel, the checkout is what the commands run
        environment["PYTHONPATH"] = os.environ["PYTHONPATH"]
    process = subprocess.Popen(arguments, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, list(arguments))
    return usage.ru_utime + usage.ru_stime
