"""SIGTERM of ``timeout`` and service managers: a command cleans up, as after a Ctrl-C."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def on_terminate(call: Callable[[], None]) -> Iterator[None]:
    """Call ``call`` at a SIGTERM, until the end of the block. It does nothing outside the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, lambda *_: call())
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def exit_on_terminate() -> None:
    """Raise SystemExit with the exit code of a program that SIGTERM ended."""
    raise SystemExit(128 + signal.SIGTERM)
