"""The memory of a run is bounded. ``python -m tests.knowledge.cost`` measures long runs."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest

from tests.benchmarks.processes import child_environment, command


def figures(count: int) -> dict[str, Any]:
    # A process of its own, since it is the most memory of a process that is measured.
    process = subprocess.run(
        command(sys.executable, "tests.knowledge.cost", str(count)),
        capture_output=True,
        text=True,
        timeout=110,
        env=child_environment(),
        check=False,
    )
    assert 0 == process.returncode, process.stderr
    costs: dict[str, Any] = json.loads(process.stdout)
    return costs


@pytest.mark.slow
def test_memory_does_not_grow_with_the_input() -> None:
    costs = figures(1_500)
    assert (1_500, 1_500, 1_500) == (costs["chunks"], costs["rows"], costs["quarantined"])
    # 13 of 15 parts of the input come after the early figure; what grows is the rows, which are kept.
    assert costs["peak_mb"] < costs["early_mb"] + 25
    assert costs["peak_mb"] < 150
