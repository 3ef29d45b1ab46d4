"""Atomic writes: a file is written completely or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path

_O_BINARY = getattr(os, "O_BINARY", 0)  # only on Windows


@contextlib.contextmanager
def replacing(path: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """Yield a temporary file next to ``path`` to write to, which replaces ``path`` at the end of the block.

    The mode and the owner of a file that exists are kept; a new one has ``mode`` less the umask. Raises OSError;
    ``path`` is unchanged then.
    """
    try:
        old = os.stat(path)
    except FileNotFoundError:
        old = None
    # The umask applies to a new file. One that exists may be private, so its content is, until its mode is set.
    with _temporary(path, mode if old is None else 0o600) as temporary:
        yield temporary
        _sync_file(temporary)
        if old is not None:
            if sys.platform != "win32":
                with contextlib.suppress(OSError):  # run by root for somebody else, it stays that person's file
                    os.chown(temporary, old.st_uid, old.st_gid)
            os.chmod(temporary, stat.S_IMODE(old.st_mode))
        _rename(temporary, path)
    sync_directory(path.parent)


def replace_file(path: Path, data: bytes, *, mode: int = 0o666) -> None:
    """Write ``path``, and replace the file that is there. Raises OSError; ``path`` is unchanged then."""
    with replacing(path, mode=mode) as temporary:
        temporary.write_bytes(data)


def create_file(path: Path, data: bytes) -> bool:
    """Write ``path`` unless it exists; return whether it was written. Raises OSError and leaves no file then."""
    with _temporary(path, 0o666) as temporary:
        temporary.write_bytes(data)
        _sync_file(temporary)
        try:
            _link(temporary, path)
        except FileExistsError:
            return False
    sync_directory(path.parent)
    return True


def append_lines(descriptor: int, lines: bytes) -> None:
    """Append whole lines to a file that is open for appending, and that no other process writes.

    Raises OSError; lines that were written completely are kept then, and the file ends with the last of them.
    """
    start = os.fstat(descriptor).st_size
    written = 0
    try:
        while written < len(lines):  # a full disk takes a part, and the next call fails
            written += os.write(descriptor, memoryview(lines)[written:])
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(descriptor, start + lines.rfind(b"\n", 0, written) + 1)
        raise


IGNORE_FILE = ".gitignore"
IGNORE_ALL = b"*\n"


def ignore_directory(directory: Path, *, mode: int = 0o666) -> None:
    """Let git ignore a directory. Raises OSError."""
    descriptor = os.open(directory / IGNORE_FILE, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | _O_BINARY, mode)
    with open(descriptor, "wb") as file:
        file.write(IGNORE_ALL)


LOCK_TIMEOUT = 10.0
"""Seconds to wait for another process that changes a file."""


@contextlib.contextmanager
def lock_directory(directory: Path) -> Iterator[None]:
    """Let one process at a time change files in ``directory``. Only on Windows, there is a file while it is locked.

    A directory that does not exist, or whose file system has no locks, is not locked.

    Raises:
        TimeoutError: Another process has the lock for longer than ``LOCK_TIMEOUT``.
    """
    if sys.platform == "win32":
        import filelock  # noqa: PLC0415  # only needed there

        with filelock.FileLock(directory / ".ctxbackends.lock", timeout=LOCK_TIMEOUT):
            yield
        return
    import fcntl  # noqa: PLC0415  # not on Windows

    try:
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError:
        yield
        return
    deadline = time.monotonic() + LOCK_TIMEOUT
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TimeoutError(errno.ETIMEDOUT, "another process is changing it") from None
                time.sleep(0.01)
            except OSError:
                break
        yield
    finally:
        os.close(descriptor)


_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK, errno.EINVAL)
"""Errors of file systems without hard links: FAT, some network and FUSE ones; EINVAL is Windows' invalid function."""


def _link(temporary: Path, path: Path) -> None:
    """Give the file its name. Unlike a rename, this never replaces a file: FileExistsError."""
    try:
        os.link(temporary, path)
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    # Only one of two runs can create the name. The file is empty until the rename.
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        _rename(temporary, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


_RENAMES = 6
_RENAME_PAUSE = 0.02  # seconds, doubled each time: 0.6 s in all


def _rename(temporary: Path, path: Path) -> None:
    """Replace ``path``. Windows denies it while another process has the file open, as scanners have for a moment."""
    for attempt in range(_RENAMES):
        try:
            os.replace(temporary, path)
            return
        except PermissionError:
            if sys.platform != "win32" or attempt == _RENAMES - 1:
                raise
        time.sleep(_RENAME_PAUSE * 2**attempt)


@contextlib.contextmanager
def _temporary(path: Path, mode: int) -> Iterator[Path]:
    # Not tempfile.mkstemp: its mode 0600 would stay on a new file.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    os.close(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
    try:
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def _sync_file(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def sync_directory(directory: Path) -> None:
    """Let the name survive a power failure as well. Windows and some file systems cannot open a directory."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
