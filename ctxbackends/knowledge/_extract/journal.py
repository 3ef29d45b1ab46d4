"""The journal: answers to finished chunks on disk, so that another run can resume.

Each answer is one line of JSON, appended and never changed. A line that a crash left incomplete is ignored. Worker
processes append to files of their own, the parts, which are read like the file itself.
"""

from __future__ import annotations

import glob
import os
import secrets
from pathlib import Path
from typing import IO

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


class AnswerFiles:
    """The answers in the files of a journal by key, and the file to which this process appends.

    Args:
        path: The file of the journal.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._positions: dict[str, tuple[Path, int, int]] = {}
        self._ends: dict[Path, int] = {}  # how far each file was read

    def __len__(self) -> int:
        """Return the number of answers, without those that belong to another one."""
        return sum(not key.startswith((SECOND_LOOK, REPEAT)) for key in self._positions)

    def refresh(self) -> None:
        """Find the answers that other processes have added. Raises OSError."""
        for file in (self.path, *self._parts()):
            self._read(file)

    def get(self, key: str) -> msgspec.Raw | None:
        """Return the answer stored under ``key`` as JSON, or None."""
        position = self._positions.get(key)
        if position is None:
            return None
        path, at, size = position
        with open(path, "rb") as file:
            file.seek(at)
            return _LINES.decode(file.read(size)).answer

    def put(self, key: str, answer: bytes) -> None:
        """Store an answer as JSON.

        Raises:
            JournalError: It cannot be written; earlier answers are kept.
        """
        line = msgspec.json.encode(_Line(key, msgspec.Raw(answer))) + b"\n"
        try:
            file = self._open()
            at = os.fstat(file.fileno()).st_size
            append_lines(file.fileno(), line)
        except OSError as error:
            raise JournalError(f"cannot write the journal {self.path}: {error.strerror}") from error
        path = Path(file.name)
        self._positions[key] = (path, at, len(line))
        self._ends[path] = at + len(line)

    def _open(self) -> IO[bytes]:
        """Return the file of this process. Raises OSError."""
        raise NotImplementedError

    def _parts(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{glob.escape(self.path.stem)}.part-*.jsonl"))

    def _read(self, path: Path) -> None:
        """Add the answers of a file from the end of the last complete one that is known."""
        end = at = self._ends.get(path, 0)
        with open(path, "rb") as lines:
            lines.seek(at)
            for line in lines:
                at += len(line)
                try:
                    entry = _LINES.decode(line)
                except msgspec.DecodeError:
                    continue
                if line.endswith(b"\n"):
                    self._positions[entry.key] = (path, at - len(line), len(line))
                    end = at
        self._ends[path] = end


class Journal(AnswerFiles):
    """Answers by key, stored in a file that one process at a time can open, and in the parts of its workers.

    The file is created with its directory. :meth:`close` keeps it, :meth:`remove` deletes it.

    Args:
        path: The file.

    Raises:
        JournalError: Another process has opened it, or it cannot be written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
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
        self.refresh()
        self._file.truncate(self._ends[path])

    def clear(self) -> None:
        """Delete all answers."""
        self._file.truncate(0)
        self._delete_parts()
        self._positions.clear()
        self._ends.clear()

    def close(self) -> None:
        """Close the file for another run; delete it if it is empty."""
        if not self._file.closed:
            self._file.close()  # first, since Windows cannot delete an open file
            if not self._positions:
                self._delete_parts()
                self.path.unlink(missing_ok=True)
            delete_and_release(self._lock)

    def remove(self) -> None:
        """Close and delete the file, after a complete run."""
        self._positions.clear()
        self.close()

    def _open(self) -> IO[bytes]:
        return self._file

    def _delete_parts(self) -> None:
        for part in self._parts():
            part.unlink(missing_ok=True)


class JournalPart(AnswerFiles):
    """The journal as a worker process uses it: it reads all answers, and appends to its own part.

    The part is created with the first answer.

    Args:
        path: The file of the journal, which the driver has opened.

    Raises:
        OSError: It cannot be read.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._part: IO[bytes] | None = None
        self.refresh()

    def close(self) -> None:
        """Close the part."""
        if self._part is not None:
            self._part.close()

    def _open(self) -> IO[bytes]:
        if self._part is None:
            path = self.path.with_name(f"{self.path.stem}.part-{secrets.token_hex(8)}.jsonl")
            self._part = open(path, "a+b", buffering=0)  # noqa: SIM115  # closed by close()
        return self._part


def create_directory(path: Path) -> None:
    """Create the directory of journals. Git ignores it, since answers contain text of the sources."""
    is_new = not path.exists()
    path.mkdir(exist_ok=True)
    ignore = path / IGNORE_FILE
    if is_new or (ignore.exists() and not ignore.stat().st_size):  # empty: an earlier run found the disk full
        ignore_directory(path)
