"""Delays and fails the syncs of files, and counts them."""

from __future__ import annotations

import asyncio
import os
import stat
import threading

import pytest


class Disk:
    """Counts the syncs of files, and lets a test delay or fail them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.syncs = 0
        self.directories: list[int] = []
        self.error: OSError | None = None
        self.is_free = threading.Event()
        self.is_free.set()
        self._fsync = os.fsync
        self._loop = asyncio.get_running_loop()
        self.is_syncing = asyncio.Event()
        monkeypatch.setattr(os, "fsync", self.fsync)

    def fsync(self, descriptor: int) -> None:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            self.directories.append(status.st_ino)
            return
        self.syncs += 1
        self._loop.call_soon_threadsafe(self.is_syncing.set)
        assert self.is_free.wait(60)
        if self.error is not None:
            raise self.error
        self._fsync(descriptor)
