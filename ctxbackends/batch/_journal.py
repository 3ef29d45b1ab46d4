"""The journal of a batch: a line of JSON for each answered row, on the disk before it is reported.

A journal is a directory. Each process that writes has a file in it, a part.
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import threading
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import filelock
import msgspec

from ctxbackends._util.files import IGNORE_ALL, IGNORE_FILE, ignore_directory, replace_file, sync_directory
from ctxbackends._util.locks import delete_and_release, lock_descriptor
from ctxbackends.batch._errors import BatchJournalError
from ctxbackends.batch._journal_manifest import MANIFEST_FILE, VERSION, Manifest
from ctxbackends.batch._journal_part import (
    PART_NAME,
    USE_ANOTHER,
    USE_FRESH,
    Entry,
    JournalPart,
    Line,
    LineGroup,
    closed_error,
    decode_line,
    wrap_errors,
)
from ctxbackends.batch._key_index import FINAL, KeyIndex

__all__ = ["Entry", "Journal", "JournalPart", "LineGroup"]

LOCK_FILE = ".lock"
_REMNANT = re.compile(rf"\.{re.escape(MANIFEST_FILE)}\.[0-9a-f]+\.tmp|\.shared-[0-9a-f]+")
"""Files of a process that was killed: of an atomic write, and of an engine with workers on other machines."""


_OWNER = re.compile(r"process \d+ on .*")
_ANSWER = FINAL  # the first answer stays, the last error too unless there is an answer
_OFFSET_BITS = 43
_OFFSETS = (1 << _OFFSET_BITS) - 1
"""An indexed position: whether it is an answer, the number of the part, the offset in it."""

_READ_SIZE = 1 << 16  # bytes; the answers of rows that follow one another are close together
_BUFFER_SIZE = 1 << 18


class _Part:
    """A part, for reading.

    Attributes:
        path: The file.
        number: Its place in the list of parts.
        end: The end of its last indexed line.
    """

    def __init__(self, path: Path, number: int) -> None:
        self.path = path
        self.number = number
        self.end = 0


class Journal:
    """The answers of a batch on the disk. One process at a time can open it.

    Args:
        directory: The directory. It is created with mode 0700, and its files with 0600.
        manifest: The run.
        fresh: Delete the answers of an earlier run.

    Attributes:
        directory: The directory.
        idle_seconds: Seconds from the end of the last run to the start of this one, None if this is the first.

    Raises:
        BatchJournalError: It belongs to another run, another process has opened it, the directory has another purpose,
            or it cannot be read or written.
    """

    def __init__(self, directory: Path, manifest: Manifest, *, fresh: bool = False) -> None:
        self.directory = directory
        self.idle_seconds: float | None = None
        self._own = JournalPart(directory)
        self._index = KeyIndex()
        self._mutex = threading.Lock()  # refresh() may run in a thread
        self._parts: list[_Part] = []
        self._reader: BinaryIO | None = None
        self._reader_part: _Part | None = None
        self._names: set[str] = set()
        self._has_answer = False
        self._lock = filelock.FileLock(directory / LOCK_FILE, mode=0o600, thread_local=False)
        with wrap_errors(directory, "write"):
            self._check_purpose()
            directory.mkdir(0o700, exist_ok=True)
            self._acquire()
            try:
                self._open(manifest, fresh=fresh)
            except BaseException:
                self.close()
                raise

    def _check_purpose(self) -> None:
        """Raise unless the directory is a journal, or can become one."""
        try:
            names = os.listdir(self.directory)
        except FileNotFoundError:
            return
        if MANIFEST_FILE in names:
            self._read_manifest()
        elif any(name not in (LOCK_FILE, IGNORE_FILE) and not _REMNANT.fullmatch(name) for name in names):
            raise self._other_purpose()

    def _other_purpose(self) -> BatchJournalError:
        return BatchJournalError(f"directory is not a journal: {self.directory}; {USE_ANOTHER}")

    def _read_manifest(self) -> Manifest:
        try:
            return msgspec.json.decode((self.directory / MANIFEST_FILE).read_bytes(), type=Manifest)
        except msgspec.DecodeError:
            raise self._other_purpose() from None

    def _acquire(self) -> None:
        path = self.directory / LOCK_FILE
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            owner = _read_owner(path)
            raise BatchJournalError(
                f"journal is in use{f' by {owner}' if owner else ''}: {self.directory}; "
                "wait for the other batch, or stop it"
            ) from None
        if _read_owner(path) is not None:
            with contextlib.suppress(OSError):  # only for people
                path.write_text(f"process {os.getpid()} on {platform.node()}", "utf-8")

    def _open(self, manifest: Manifest, *, fresh: bool) -> None:
        self.idle_seconds = self._measure_idle_time()
        if fresh:
            self._delete_parts()
        has_entries = self._has_entries()
        try:
            existing = self._read_manifest()
        except FileNotFoundError:
            existing = None
        if has_entries and existing is not None and existing.version != VERSION:
            raise BatchJournalError(
                f"journal has another version: {self.directory}: {existing.version}; update ctxbackends, or {USE_FRESH}"
            )
        self._find_parts()
        is_same = existing is not None and existing.fingerprint == manifest.fingerprint
        if has_entries and not is_same and self._has_answers():
            difference = "options or backends" if existing is None else existing.describe_difference(manifest)
            raise BatchJournalError(
                f"journal belongs to a batch with other {difference}: {self.directory}; "
                f"use the same as before, {USE_FRESH}, or {USE_ANOTHER}"
            )
        if existing is None:
            ignore = self.directory / IGNORE_FILE
            if not ignore.exists() or not ignore.stat().st_size:
                ignore_directory(self.directory, mode=0o600)
        outputs = () if existing is None else existing.outputs
        self._manifest = msgspec.structs.replace(manifest, outputs=outputs)
        if existing != self._manifest:
            self._write_manifest()
            sync_directory(self.directory.parent)
        for part in self._parts:
            self._recover(part)

    def _write_manifest(self) -> None:
        replace_file(self.directory / MANIFEST_FILE, msgspec.json.encode(self._manifest) + b"\n", mode=0o600)

    def note_outputs(self, paths: Iterable[Path]) -> None:
        """Note the files that are written from the journal, which a later run may replace.

        Raises:
            BatchJournalError: The journal cannot be written.
        """
        outputs = {*self._manifest.outputs, *map(os.path.realpath, paths)}
        self._manifest = msgspec.structs.replace(self._manifest, outputs=tuple(sorted(outputs)))
        with wrap_errors(self.directory, "write"):
            self._write_manifest()

    def _measure_idle_time(self) -> float | None:
        try:
            used_at = max((self.directory / name).stat().st_mtime for name in (MANIFEST_FILE, *self._list_parts()))
        except FileNotFoundError:
            return None
        return max(0.0, time.time() - used_at)  # it is negative after a change of the clock

    def note_use(self) -> None:
        """Note that the run goes on. The next run may have to wait for the end of the minute of its last request."""
        now = time.time()  # not that of a file server
        with contextlib.suppress(OSError):  # the answers that follow cannot be written either
            os.utime(self.directory / MANIFEST_FILE, (now, now))

    # --- reading ----------------------------------------------------------------------------------

    def __len__(self) -> int:
        """The number of indexed keys."""
        return len(self._index)

    def answered(self, key: bytes) -> bool:
        """Return whether a key has an indexed answer, without reading the file."""
        with self._mutex:
            return bool((self._index.get(key) or 0) & _ANSWER)

    def get(self, key: bytes) -> Entry | None:
        """Return the first indexed answer of a key, else its last error, None if there is neither.

        Raises:
            BatchJournalError: The journal cannot be read.
        """
        self._check_open()
        with self._mutex, wrap_errors(self.directory, "read"):
            position = self._index.get(key)
            if position is None:
                return None
            part, offset = self._parts[(position & ~_ANSWER) >> _OFFSET_BITS], position & _OFFSETS
            line = self._decode(part, self._read_line(part, offset), offset)
        if line.key != key:
            raise BatchJournalError(f"journal was changed during the run: {part.path}; start the batch again")
        return Entry(
            key=key,
            answer=None if line.answer is msgspec.UNSET else line.answer,
            error=None if line.error is msgspec.UNSET else line.error,
            backend=line.backend,
            attempts=line.attempts,
            seconds=line.seconds,
        )

    def refresh(self) -> None:
        """Index the entries that were appended since, by this process and others.

        Raises:
            BatchJournalError: The journal cannot be read.
        """
        self._check_open()
        with wrap_errors(self.directory, "read"):
            self._find_parts()
            for part in self._parts:
                if part.path.stat().st_size > part.end:
                    self._index_part(part)

    def _check_open(self) -> None:
        if not self._lock.is_locked:
            raise closed_error(self.directory)

    def _list_parts(self) -> list[str]:
        return sorted(name for name in os.listdir(self.directory) if PART_NAME.fullmatch(name))  # oldest first

    def _has_entries(self) -> bool:
        return any((self.directory / name).stat().st_size for name in self._list_parts())

    def _has_answers(self) -> bool:
        """Index the parts, and return whether one has an answer. The errors of another run have other keys."""
        for part in self._parts:
            self._index_part(part)
        return self._has_answer

    def _find_parts(self) -> None:
        for name in self._list_parts():
            if name not in self._names:
                self._names.add(name)
                self._parts.append(_Part(self.directory / name, len(self._parts)))

    def _recover(self, part: _Part) -> None:
        """Index a part, and cut a last line that is not whole.

        A part that a worker of an earlier run still writes is locked: its last line may become whole.
        """
        descriptor = os.open(part.path, os.O_RDWR | getattr(os, "O_BINARY", 0))
        try:
            is_abandoned = lock_descriptor(descriptor)
            self._index_part(part)
            if is_abandoned and os.fstat(descriptor).st_size > part.end:
                os.ftruncate(descriptor, part.end)
        finally:
            os.close(descriptor)

    def _index_part(self, part: _Part) -> None:
        end = part.end
        with open(part.path, "rb", buffering=_BUFFER_SIZE) as lines:
            lines.seek(end)
            for line in lines:
                if not line.endswith(b"\n"):
                    break
                entry = self._decode(part, line, end)
                flag = 0 if entry.answer is msgspec.UNSET else _ANSWER
                self._has_answer = self._has_answer or bool(flag)
                with self._mutex:
                    self._index.set(entry.key, flag | part.number << _OFFSET_BITS | end)
                end += len(line)
        part.end = end

    def _read_line(self, part: _Part, offset: int) -> bytes:
        reader = self._reader
        if reader is None or self._reader_part is not part:
            self._close_reader()
            reader = open(part.path, "rb", buffering=_READ_SIZE)  # noqa: SIM115  # for many lines
            self._reader, self._reader_part = reader, part
        reader.seek(offset)
        return reader.readline()

    def _decode(self, part: _Part, line: bytes, offset: int) -> Line:
        try:
            line.decode()  # msgspec does not check all of a Raw
            return decode_line(line)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            number = _count_lines(part.path, offset) + 1
            raise BatchJournalError(
                f"journal is damaged: {part.path}, line {number} (byte {offset}): {error}; "
                f"delete this line to ask its row again, or {USE_FRESH}"
            ) from None

    # --- writing ----------------------------------------------------------------------------------

    def write(self, entries: Sequence[Entry]) -> LineGroup | None:
        """Append entries, and return the group that is synced with them, None without entries.

        :meth:`get` finds them after a :meth:`refresh`.

        Raises:
            BatchJournalError: They cannot be written. Earlier entries are kept.
        """
        return self._own.write(entries)

    async def append(self, entries: Sequence[Entry]) -> None:
        """Append entries, and return when they are on the disk. See :meth:`write`."""
        await self._own.append(entries)

    def close(self) -> None:
        """Close the journal for another process. Idempotent; a journal without entries is removed."""
        if not self._lock.is_locked:
            return
        self._close_files()
        with contextlib.suppress(OSError):
            if not self._has_entries():
                self._delete_parts()
                self._delete_files()
        self._unlock()

    def remove(self) -> None:
        """Close the journal, and delete its files and, unless it has others, the directory.

        Raises:
            BatchJournalError: A file cannot be deleted.
        """
        self._close_files()
        with wrap_errors(self.directory, "write"):
            if not self._lock.is_locked:  # closed before
                if not self.directory.exists():
                    return
                self._acquire()
            try:
                # First: a run that is killed here must not leave a journal without its answers.
                (self.directory / MANIFEST_FILE).unlink(missing_ok=True)
                self._delete_parts()
                self._delete_files()
            finally:
                self._unlock()

    def _close_files(self) -> None:
        self._own.close()
        with self._mutex:
            self._close_reader()

    def _close_reader(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _delete_parts(self) -> None:
        for name in self._list_parts():
            (self.directory / name).unlink()

    def _delete_files(self) -> None:
        for name in os.listdir(self.directory):
            path = self.directory / name
            is_ignore_file = name == IGNORE_FILE and path.read_bytes() == IGNORE_ALL
            if is_ignore_file or name == MANIFEST_FILE or _REMNANT.fullmatch(name):
                path.unlink()

    def _unlock(self) -> None:
        delete_and_release(self._lock)
        with contextlib.suppress(OSError):  # it has other files, or answers
            self.directory.rmdir()


def _count_lines(path: Path, end: int) -> int:
    """Return the number of lines before a byte."""
    count = 0
    with open(path, "rb") as lines:
        while lines.tell() < end:
            lines.readline()
            count += 1
    return count


def _read_owner(path: Path) -> str | None:
    """Return the process that wrote a lock file, empty if none did.

    None if it cannot be read, as on Windows while it is locked, or if filelock wrote it, as it does on file systems
    without locks: that must not be changed.
    """
    try:
        text = path.read_text("utf-8", "replace")
    except OSError:
        return None
    return text if not text or _OWNER.fullmatch(text) else None
