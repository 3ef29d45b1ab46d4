"""The journal: answers to finished chunks on disk, so that another run can resume.

Each answer is one line of JSON, appended and never changed. A line that a crash left incomplete is ignored.
"""

from __future__ import annotations

import os
from pathlib import Path

import filelock
import msgspec

from ctxbackends._util.files import IGNORE_FILE, append_lines, ignore_directory
from ctxbackends._util.locks import delete_and_release
from ctxbackends.knowledge._errors import JournalError


class _Line(msgspec.Struct, frozen=True):
    key: str
    answer: msgspec.Raw


_LINES = msgspec.json.Decoder(_Line)
SECOND_LOOK = "second-look:"
REPEAT = "repeat:"
"""Start of the keys of answers that belong to a chunk with an answer, as ``SECOND_LOOK`` is."""


class Journal:
    """Answers by key, stored in a file that one process at a time can open.

    The file is created with its directory. :meth:`close` keeps it, :meth:`remove` deletes it.

    Args:
        path: The file.

    Raises:
        JournalError: Another process has opened it, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._offsets: dict[str, tuple[int, int]] = {}
        self._lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), thread_local=False)
        try:
            create_directory(path.parent)
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise JournalError(
                f"journal is locked by another run of these inputs: {path}; wait for that run, or stop it"
            ) from None
        except OSError as error:
            raise JournalError(f"cannot write the journal {path}: {error.strerror}") from error
        try:
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115  # closed by close()
        except OSError as error:
            delete_and_release(self._lock)
            raise JournalError(f"cannot write the journal {path}: {error.strerror}") from error
        self._read()

    def _read(self) -> None:
        end = at = 0
        with open(self.path, "rb") as lines:
            for line in lines:
                at += len(line)
                try:
                    entry = _LINES.decode(line)
                except msgspec.DecodeError:
                    continue
                if line.endswith(b"\n"):
                    self._offsets[entry.key] = (at - len(line), len(line))
                    end = at
        if end < at:
            self._file.truncate(end)

    def __len__(self) -> int:
        """Return the number of answers, without those that belong to another one."""
        return sum(not key.startswith((SECOND_LOOK, REPEAT)) for key in self._offsets)

    def get(self, key: str) -> msgspec.Raw | None:
        """Return the answer stored under ``key`` as JSON, or None."""
        position = self._offsets.get(key)
        if position is None:
            return None
        self._file.seek(position[0])  # writes still go to the end: the file is open for appending
        return _LINES.decode(self._file.read(position[1])).answer

    def put(self, key: str, answer: bytes) -> None:
        """Store an answer as JSON.

        Raises:
            JournalError: It cannot be written; earlier answers are kept.
        """
        line = msgspec.json.encode(_Line(key, msgspec.Raw(answer))) + b"\n"
        at = os.fstat(self._file.fileno()).st_size
        try:
            append_lines(self._file.fileno(), line)
        except OSError as error:
            raise JournalError(f"cannot write the journal {self.path}: {error.strerror}") from error
        self._offsets[key] = (at, len(line))

    def clear(self) -> None:
        """Delete all answers."""
        self._file.truncate(0)
        self._offsets.clear()

    def close(self) -> None:
        """Close the file for another run; delete it if it is empty."""
        if not self._file.closed:
            self._file.close()  # first, since Windows cannot delete an open file
            if not self._offsets:
                self.path.unlink(missing_ok=True)
            delete_and_release(self._lock)

    def remove(self) -> None:
        """Close and delete the file, after a complete run."""
        self._offsets.clear()
        self.close()


def create_directory(path: Path) -> None:
    """Create the directory of journals. Git ignores it, since answers contain text of the sources."""
    is_new = not path.exists()
    path.mkdir(exist_ok=True)
    ignore = path / IGNORE_FILE
    if is_new or (ignore.exists() and not ignore.stat().st_size):  # empty: an earlier run found the disk full
        ignore_directory(path)
