"""A file that is written whole or not at all. Knows no format."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from pathlib import Path

from ctxbackends.knowledge.errors import ProposalError


def write_new(path: Path, data: bytes) -> bool:
    """Write ``path``, unless there is one already; whether it was written. Raises ProposalError where it cannot be, and
    leaves nothing half-written then."""
    temporary = _written_beside(path, data)
    try:
        _take_place(temporary, path)
    except FileExistsError:
        return False
    except OSError as error:
        raise _failed(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)
    return True


def replace(path: Path, data: bytes) -> None:
    """Write ``path`` in the place of what is there. Raises ProposalError where it cannot be; the old one stays then."""
    temporary = _written_beside(path, data)
    try:
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise _failed(path, error) from error
    _sync(path.parent)


_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK)
"""What file systems without hard links say (FAT, some network and FUSE ones)."""


def _take_place(temporary: Path, path: Path) -> None:
    """Give the file its name. Unlike a rename, this never replaces what is there: FileExistsError."""
    try:
        os.link(temporary, path)
        return
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    # The name is taken first, which one of two runs can do. It is empty for the moment until the file takes its place.
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
    try:
        os.replace(temporary, path)
    except BaseException:
        path.unlink(missing_ok=True)
        raise


def _written_beside(path: Path, data: bytes) -> Path:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except OSError as error:
        raise _failed(path, error) from error
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise _failed(path, error) from error
        raise
    return temporary


def _failed(path: Path, error: OSError) -> ProposalError:
    return ProposalError(f"{path} cannot be written: {error.strerror}; nothing was changed")


def _sync(directory: Path) -> None:
    """So that the name is there after a power failure as well; not all file systems can."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
