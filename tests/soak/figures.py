"""The resources of the client's process: sockets, files, tasks, threads, children, memory. Linux only."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import attrs

GROWTH: Mapping[str, int] = {
    "connections": 0,
    "sockets": 0,
    "files": 0,
    "tasks": 0,
    "threads": 0,
    "children": 0,
    "objects": 2_000,
    "blocks": 10_000,
    "rss_kib": 16 * 1024,
}
"""How much more of each may be there at the end: none of what is counted one by one. Objects and blocks of memory have
room for caches (of regular expressions, of types); the memory of the process is only looked at roughly, since Python's
allocator keeps what is free."""


@attrs.frozen(kw_only=True)
class Figures:
    """``connections``: to the server's port, of this process. ``objects``: that the garbage collector knows.
    ``blocks``: of memory that Python has handed out."""

    connections: int
    sockets: int
    files: int
    tasks: int
    threads: int
    children: int
    objects: int
    blocks: int
    rss_kib: int


def _links() -> list[str]:
    links = []
    for entry in Path("/proc/self/fd").iterdir():
        try:
            links.append(os.readlink(entry))
        except FileNotFoundError:  # that of the listing itself
            continue
    return links


def connections(port: int) -> int:
    """Sockets of this process that are connected to ``port``, in any state."""
    own = {link.removeprefix("socket:[").removesuffix("]") for link in _links() if link.startswith("socket:[")}
    rows = [line.split() for line in Path("/proc/self/net/tcp").read_text(encoding="utf-8").splitlines()[1:]]
    return sum(row[2].endswith(f":{port:04X}") and row[9] in own for row in rows)


def measure(port: int) -> Figures:
    """Now. Called from the event loop."""
    if sys.platform == "win32":
        raise NotImplementedError
    for _ in range(3):
        gc.collect()
    links = _links()
    statm = Path("/proc/self/statm").read_text(encoding="utf-8").split()
    tasks = Path("/proc/self/task").iterdir()
    return Figures(
        connections=connections(port),
        sockets=sum(link.startswith("socket:") for link in links),
        files=len(links),
        tasks=len(asyncio.all_tasks()),
        threads=threading.active_count(),
        children=sum(len((task / "children").read_text().split()) for task in tasks),
        objects=len(gc.get_objects()),
        blocks=sys.getallocatedblocks(),
        rss_kib=int(statm[1]) * os.sysconf("SC_PAGE_SIZE") // 1024,
    )


def growth(before: Figures, after: Figures) -> list[str]:
    """What is more than it may be."""
    names = {"rss_kib": "memory (KiB)"}
    return [
        f"{names.get(name, name)}: {getattr(before, name)} at the start, {getattr(after, name)} at the end"
        for name, most in GROWTH.items()
        if getattr(after, name) - getattr(before, name) > most
    ]
