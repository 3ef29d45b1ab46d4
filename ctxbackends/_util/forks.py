"""Reset objects in a forked process, which inherits locks and connections of its parent."""

from __future__ import annotations

import os
import sys
import threading
import weakref
from typing import Protocol


class ForkAware(Protocol):
    """An object with a state that a child process must not share."""

    def reset_after_fork(self) -> None:
        """Drop the inherited state. Called in the child process, before any other code of it."""
        ...


_objects: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def reset_in_child(target: ForkAware) -> None:
    """Call ``target.reset_after_fork()`` in each process that is forked from now on."""
    _objects.add(target)


def _reset_all() -> None:
    for target in list(_objects):
        target.reset_after_fork()


if sys.platform != "win32" and hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(after_in_child=_reset_all)


class Lock:
    """A reentrant lock, which is free in a forked process."""

    __slots__ = ("__weakref__", "_lock")

    def __init__(self) -> None:
        self._lock = threading.RLock()
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *exc_info: object) -> None:
        self._lock.release()
