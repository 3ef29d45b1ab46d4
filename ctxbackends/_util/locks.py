"""Locks between processes."""

from __future__ import annotations

import contextlib
import os
import sys

import filelock


def delete_and_release(lock: filelock.BaseFileLock) -> None:
    """Delete the file of a lock, and release the lock.

    It is deleted while it is locked, so that another process that has opened it sees that its name is gone. Windows
    cannot delete an open file; filelock deletes it there after the release.
    """
    with contextlib.suppress(OSError):
        os.unlink(lock.lock_file)
    lock.release()


def lock_descriptor(descriptor: int) -> bool:
    """Lock an open file until it is closed; return whether that was possible.

    It is not if another process has the lock, on Windows, and on file systems without locks.
    """
    if sys.platform == "win32":
        return False
    import fcntl  # noqa: PLC0415  # not on Windows

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
