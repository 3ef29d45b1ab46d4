"""A dry run over the documentation of the installed packages: each file costs the same, and memory stays."""

from __future__ import annotations

import shutil
import sysconfig
import time
import tracemalloc
from itertools import islice
from pathlib import Path

import pytest

from ctxbackends.knowledge import DiscoveryResult, Plan, Run, find_sources

SUFFIXES = (".md", ".rst", ".txt", ".html")


@pytest.fixture(scope="module")
def documents() -> list[Path]:
    """Real files that this project did not write."""
    root = Path(sysconfig.get_paths()["purelib"])
    files = (
        path for path in sorted(root.rglob("*")) if path.suffix in SUFFIXES and 500 < path.stat().st_size < 100_000
    )
    return list(islice(files, 30))


def copy(documents: list[Path], directory: Path, *, times: int) -> Path:
    for copy_number in range(times):
        for number, path in enumerate(documents):
            target = directory / f"part{copy_number}" / f"{number}{path.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, target)
    return directory


def dry_run(directory: Path) -> tuple[DiscoveryResult, Plan]:
    result = find_sources([str(directory)], base=directory)
    return result, Run(command="ingest", sources=result.sources, directory=directory).estimate()


@pytest.mark.slow
def test_each_file_costs_the_same(tmp_path: Path, documents: list[Path]) -> None:
    costs = {}
    for times in (1, 4):
        directory = copy(documents, tmp_path / str(times), times=times)
        dry_run(directory)  # what is loaded on first use
        start = time.process_time()
        result, plan = dry_run(directory)
        elapsed = time.process_time() - start
        tracemalloc.start()
        dry_run(directory)
        costs[times] = (elapsed, tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert times * len(documents) == len(result.sources) + len(result.skipped)
        assert len(result.sources) == len(plan.inputs)
        assert plan.tokens > plan.chunks > 0
    (time_of_one, memory_of_one), (time_of_four, memory_of_four) = costs.values()
    assert time_of_four < 8 * time_of_one
    assert memory_of_four < 2 * memory_of_one
