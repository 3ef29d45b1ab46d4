"""The processes that a test started: which there are, whether they run, and their end. Finding them needs /proc."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from pathlib import Path


def kill(pid: int) -> None:
    """End a process at once, without its cleanup."""
    if sys.platform == "win32":
        os.kill(pid, signal.SIGTERM)  # ends it as SIGKILL does
    else:
        os.kill(pid, signal.SIGKILL)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def read_parents() -> dict[int, int]:
    """The parent of each process."""
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):  # it has ended
            parents[int(stat.parent.name)] = int(stat.read_text().rpartition(")")[2].split()[1])
    return parents


def find_workers(parent: int) -> list[int]:
    """The worker processes of a driver with the engine of processes."""
    workers = []
    for pid, parent_of in read_parents().items():
        with contextlib.suppress(OSError):
            if parent_of == parent and b"run_worker" in Path(f"/proc/{pid}/cmdline").read_bytes():
                workers.append(pid)
    return workers


def find_descendants(pid: int) -> set[int]:
    """The processes that a process started, and those that they did."""
    parents = read_parents()
    found = {pid}
    while new := {child for child, parent in parents.items() if parent in found} - found:
        found |= new
    return found - {pid}
