"""Cold starts: how late the SDK's first answer is after a server got ready, the CPU time of the wait, and when the
peers give up. Times of different processes are compared: they share the monotonic clock.
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
from tests.benchmarks.processes import ROOT, Child, ChildError, child_environment, command

BUDGET = 90.0
AFTER = (0.3, 0.5, 0.7, 1.0, 1.5, 3.0, 7.0, 15.0, 30.0, 45.0, 60.0)
QUICK_AFTER = (0.3, 0.5, 0.7, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)
"""Seconds until a server is ready, each with another part of the longest gap between two probes added to it: with whole
seconds alone, each server would be ready in the same moment of a gap. All of a kind start at once."""
LONGEST_GAP = 0.25
TYPES = {"refused": "vllm", "loading": "llamacpp"}
"""The type of the backend: who is known to start like that."""
STARTS = 10
"""Of the real server."""


def cold_starts(sdk: Environment, *, quick: bool) -> list[dict[str, Any]]:
    """Return a sample for each start: ``kind``, ``after``, ``late`` in seconds, ``cpu`` as a part of the wait."""
    with ThreadPoolExecutor(len(TYPES)) as threads:
        seconds_ = QUICK_AFTER if quick else AFTER
        seconds = [second + LONGEST_GAP * index / len(seconds_) for index, second in enumerate(seconds_)]
        samples_by_kind = threads.map(lambda kind: _starts(sdk, kind, seconds), TYPES)
        return [sample for samples in samples_by_kind for sample in samples]


def _starts(sdk: Environment, kind: str, seconds: Sequence[float]) -> list[dict[str, Any]]:
    with (
        ExitStack() as stack,
        # The worker needs no stub.
        Child(command(sdk.python, "tests.benchmarks.worker", "sdk", "http://127.0.0.1:9")) as worker,
    ):
        servers = [stack.enter_context(_server(kind)) for _ in seconds]
        starts = [{"kind": TYPES[kind], "url": server_.hello["url"], "budget": BUDGET} for server_ in servers]
        worker.request(do="prepare_cold", kind=TYPES[kind])
        for server, after in zip(servers, seconds, strict=True):
            server.request(ready_after=after)
        answer = worker.request(BUDGET + 10, do="cold", starts=starts)
        ready = [server.request()["ready_at"] for server in servers]
    return [_sample(kind, *each, answer["cpu"]) for each in zip(seconds, answer["starts"], ready, strict=True)]


def _sample(kind: str, after: float, start: dict[str, Any], ready_at: float | None, cpu: float) -> dict[str, Any]:
    sample: dict[str, Any] = {"kind": kind, "after": after}
    if start["error"] or ready_at is None:
        return {**sample, "error": start["error"] or "it ended before the server was ready"}
    return {**sample, "late": start["ended_at"] - ready_at, "cpu": cpu}


def _server(kind: str) -> Child:
    return Child(command(sys.executable, "tests.benchmarks.starting", kind))


def give_up(name: str, environment: Environment, wire: str) -> list[dict[str, Any]]:
    """How long a client asks a server that does not get ready: a sample for each kind."""
    samples: list[dict[str, Any]] = []
    for kind in TYPES:
        with (
            _server(kind) as server,
            Child(command(environment.python, "tests.benchmarks.worker", name, server.hello["url"])) as worker,
        ):
            result = worker.request(120, do="give_up", wire=wire, url=server.hello["url"], model="tiny")
            if not result["error"]:
                raise ChildError("it had an answer of a server that gives none")
            samples.append({"kind": kind, "seconds": result["seconds"], "ended_with": result["error"]})
    return samples


def real_starts(*, quick: bool) -> list[dict[str, Any]]:
    """Of a real llama-server, with this interpreter; nothing where it has no wheel of llama.cpp."""
    done = subprocess.run(
        command(sys.executable, "tests.benchmarks.real", str(3 if quick else STARTS)),
        cwd=ROOT,
        env=child_environment(),
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode:
        raise ChildError((done.stderr.strip().splitlines() or ["no reason given"])[-1][:500])
    delays: list[float] = json.loads(done.stdout.splitlines()[-1])
    return [{"late": late} for late in delays]
