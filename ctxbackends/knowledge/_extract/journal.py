"""The finished chunks of a run, on disk: what a run that ends half-way leaves for the next one. Knows no model and no
source: keys and bytes.

One line of JSON for each, appended and never changed; a line that was cut by a crash is left out when it is read again.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

import filelock
import msgspec

from ctxbackends.knowledge._errors import JournalError


class _Line(msgspec.Struct, frozen=True):
    key: str
    answer: msgspec.Raw


_LINES = msgspec.json.Decoder(_Line)
_IGNORE = "*\n"  # answers hold text of the sources: they do not belong into a repository


class Journal:
    """``path`` is made with its directory where it is missing. One process at a time has it: JournalError for the
    second. :meth:`close` keeps it, :meth:`remove` does not."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._places: dict[str, tuple[int, int]] = {}
        try:
            made = not path.parent.exists()
            path.parent.mkdir(exist_ok=True)
            ignore = path.parent / ".gitignore"
            if made or (ignore.exists() and not ignore.stat().st_size):  # empty: the disk was full then
                ignore.write_text(_IGNORE, "utf-8", newline="\n")
            self._lock = _acquire(path.with_name(f".{path.name}.lock"))
        except filelock.Timeout:
            raise JournalError(
                f"another run has these inputs at work now (it holds {path}); wait for it, or end it"
            ) from None
        except OSError as error:
            raise JournalError(f"the journal {path} cannot be written: {error.strerror}") from error
        try:
            self._file = open(path, "a+b", buffering=0)  # noqa: SIM115  # closed by close()
        except OSError as error:
            self._unlock()
            raise JournalError(f"the journal {path} cannot be written: {error.strerror}") from error
        self._read()

    def _read(self) -> None:
        end = at = 0
        with open(self.path, "rb") as lines:
            for line in lines:
                at += len(line)
                try:
                    found = _LINES.decode(line)
                except msgspec.DecodeError:
                    continue
                if line.endswith(b"\n"):
                    self._places[found.key] = (at - len(line), len(line))
                    end = at
        if end < at:
            self._file.truncate(end)

    def __len__(self) -> int:
        return len(self._places)

    def get(self, key: str) -> msgspec.Raw | None:
        """The answer that was put under ``key``, as JSON."""
        place = self._places.get(key)
        if place is None:
            return None
        self._file.seek(place[0])  # writes go to the end all the same: the file is open for appending
        return _LINES.decode(self._file.read(place[1])).answer

    def put(self, key: str, answer: bytes) -> None:
        """Keep an answer, JSON. Raises JournalError where it cannot be written; what was there before stays."""
        line = msgspec.json.encode(_Line(key, msgspec.Raw(answer))) + b"\n"
        at = os.fstat(self._file.fileno()).st_size
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(28, os.strerror(28))  # the disk took a part: ENOSPC comes with the next write
        except OSError as error:
            self._file.truncate(at)
            raise JournalError(f"the journal {self.path} cannot be written: {error.strerror}") from error
        self._places[key] = (at, len(line))

    def clear(self) -> None:
        """Forget all of it."""
        self._file.truncate(0)
        self._places.clear()

    def close(self) -> None:
        """Keep it for the next run; one that is empty goes."""
        if not self._file.closed:
            self._file.close()  # before it is removed: Windows removes no open file
            if not self._places:
                self.path.unlink(missing_ok=True)
            self._unlock()

    def _unlock(self) -> None:
        # Removed while it is still locked: another run that has this file open then sees that it has no name any more.
        # Windows removes no open file; there, filelock removes it after the release.
        with contextlib.suppress(OSError):
            os.unlink(self._lock.lock_file)
        self._lock.release()

    def remove(self) -> None:
        """The run is done, and nothing is left to continue."""
        self._places.clear()
        self.close()


def _acquire(path: Path) -> filelock.BaseFileLock:
    lock = filelock.FileLock(path, thread_local=False)
    lock.acquire(timeout=0)
    return lock
