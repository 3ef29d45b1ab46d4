"""Cold starts: how late the SDK's first answer is after a server got ready, how often it looked, and when the peers
give up. Times of different processes are compared: they share the monotonic clock.

Servers that refuse start all at once. Those that load burn CPU, so they start in two rows, one server after the other.
Knows no signs, and nothing of how a client waits.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any

from tests.benchmarks.environments import Environment
from tests.benchmarks.processes import ROOT, Child, ChildError, command, surroundings

BUDGET = 90.0
REFUSED = (0.3, 0.7, 1.5, 3.0, 7.0, 15.0, 30.0, 45.0, 60.0)
LOADING = ((60.0,), (30.0, 15.0, 7.0, 3.0, 1.5, 0.7, 0.3))
QUICK_REFUSED = (0.3, 1.0, 3.0, 8.0)
QUICK_LOADING = ((8.0,), (4.0, 1.5, 0.5))
TYPES = {"refused": "vllm", "loading": "llamacpp"}
"""The type of the backend: who is known to start like that."""
STARTS = 10
"""Of the real server."""

Row = tuple[str, Sequence[Sequence[float]]]


def cold_starts(sdk: Environment, *, quick: bool) -> list[dict[str, Any]]:
    """A sample for each start: ``kind``, ``after``, ``late``, ``looks``."""
    rows: list[Row] = [("refused", [QUICK_REFUSED if quick else REFUSED])]
    rows += [("loading", [[after] for after in row]) for row in (QUICK_LOADING if quick else LOADING)]
    with ThreadPoolExecutor(len(rows)) as threads:
        return [sample for found in threads.map(lambda row: _row(sdk, row), rows) for sample in found]


def _row(sdk: Environment, row: Row) -> list[dict[str, Any]]:
    kind, groups = row
    samples = []
    # The worker needs no stub.
    with Child(command(sdk.python, "tests.benchmarks.worker", "sdk", "http://127.0.0.1:9")) as worker:
        for group in groups:
            with ExitStack() as stack:
                servers = [stack.enter_context(_server(kind, str(after))) for after in group]
                starts = [{"kind": TYPES[kind], "url": one.hello["url"], "budget": BUDGET} for one in servers]
                ended = worker.ask(BUDGET + 10, do="cold", starts=starts)["starts"]
                told = [server.ask() for server in servers]
            samples += [_sample(kind, *each) for each in zip(group, ended, told, strict=True)]
    return samples


def _sample(kind: str, after: float, ended: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
    sample: dict[str, Any] = {"kind": kind, "after": after}
    if ended["error"] or told["ready_at"] is None:
        return {**sample, "error": ended["error"] or "it ended before the server was ready"}
    # Each look at a server that refuses is a connection. At one that listens it is a request; the last is the answer.
    looks = told["requests"] - 1
    if kind == "refused":
        looks = max(ended["connections"] - 1, ended["looks"]) + max(0, told["requests"] - 1)
    return {**sample, "late": ended["ended_at"] - told["ready_at"], "looks": looks}


def _server(kind: str, after: str) -> Child:
    return Child(command(sys.executable, "tests.benchmarks.starting", kind, after))


def give_up(name: str, environment: Environment, wire: str) -> list[dict[str, Any]]:
    """How long a client asks a server that does not get ready: a sample for each kind."""
    samples: list[dict[str, Any]] = []
    for kind in TYPES:
        with (
            _server(kind, "never") as server,
            Child(command(environment.python, "tests.benchmarks.worker", name, server.hello["url"])) as worker,
        ):
            told = worker.ask(120, do="give_up", wire=wire, url=server.hello["url"], model="tiny")
            if not told["error"]:
                raise ChildError("it had an answer of a server that gives none")
            samples.append({"kind": kind, "seconds": told["seconds"], "ended_with": told["error"]})
    return samples


def real_starts(*, quick: bool) -> list[dict[str, Any]]:
    """Of a real llama-server, with this interpreter; nothing where it has no wheel of llama.cpp."""
    done = subprocess.run(
        command(sys.executable, "tests.benchmarks.real", str(3 if quick else STARTS)),
        cwd=ROOT,
        env=surroundings(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        raise ChildError((done.stderr.strip().splitlines() or ["no reason given"])[-1][:500])
    found: list[float] = json.loads(done.stdout.splitlines()[-1])
    return [{"late": late} for late in found]
