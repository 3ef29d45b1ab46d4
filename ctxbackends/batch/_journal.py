"""The journal of a batch: one line of JSON for each answered row, on the disk before the row is reported.

The first line names the run by a hash, without its input. A last line that a crash cut is removed. Lines are appended in
groups: while one group is written and synced, the next one collects.
"""

from __future__ import annotations

import contextlib
import os
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from pathlib import Path

import anyio.to_thread
import filelock
import msgspec

from ctxbackends.batch._errors import BatchJournalError

VERSION = 1


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """The first line of a journal.

    Attributes:
        fingerprint: Hash of the run's options and backends, in hex.
        version: Version of the journal.
    """

    fingerprint: str
    version: int = VERSION


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of a journal: the answer to a row, or its last error.

    Attributes:
        key: Identity of the row's question, 16 bytes.
        answer: The answer as JSON, None after an error.
        error: The error as JSON, None after an answer.
        backend: Name of the backend that answered.
        attempts: How often the row was sent.
        seconds: Seconds from the first request for the row to its answer.
    """

    key: bytes
    answer: msgspec.Raw | None = None
    error: msgspec.Raw | None = None
    backend: str | None = None
    attempts: int = 1
    seconds: float = 0.0


_decode_entry = msgspec.json.Decoder(Entry).decode
_encode = msgspec.json.Encoder().encode


class Journal:
    """The answers of a batch on the disk. One process at a time can open it.

    Args:
        path: The file. It is created with mode 0600.
        manifest: The run.
        fresh: Delete the answers of an earlier run.

    Raises:
        BatchJournalError: It belongs to another run, another process has opened it, or it cannot be written.
    """

    def __init__(self, path: Path, manifest: Manifest, *, fresh: bool = False) -> None:
        self.path = path
        self._lock = filelock.FileLock(path.with_name(f".{path.name}.lock"), thread_local=False)
        try:
            self._lock.acquire(timeout=0)
        except filelock.Timeout:
            raise BatchJournalError(f"journal is in use: {path}; wait for the other batch, or stop it") from None
        except OSError as error:
            raise self._error(error) from error
        try:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | (os.O_TRUNC if fresh else 0) | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(path, flags, 0o600)
        except OSError as error:
            self._unlock()
            raise self._error(error) from error
        try:
            self._size = 0
            self.index(manifest)
        except BaseException:
            self.close()
            raise

    # --- reading ----------------------------------------------------------------------------------

    def index(self, manifest: Manifest) -> None:
        """Find the entries of the file, check its first line, and cut a last line that is not whole.

        :meth:`get` knows the entries that were written before.
        """
        keys, offsets = array("Q"), array("Q")
        size = 0
        try:
            with open(self.path, "rb") as lines:
                for line in lines:
                    if not line.endswith(b"\n"):
                        break
                    if size:
                        keys.append(_fold(self._decode(line, size).key))
                        offsets.append(size)
                    else:
                        self._check_manifest(line, manifest)
                    size += len(line)
            os.ftruncate(self._descriptor, size)
            self._size = size
            if not size:
                self._write(_encode(manifest) + b"\n")
        except OSError as error:
            raise self._error(error) from error
        order = sorted(range(len(keys)), key=keys.__getitem__)  # stable: the last entry of a key comes last
        self._keys = array("Q", (keys[one] for one in order))
        self._offsets = array("Q", (offsets[one] for one in order))

    def __len__(self) -> int:
        """The number of indexed entries."""
        return len(self._keys)

    def get(self, key: bytes) -> Entry | None:
        """Return the last indexed entry of a key, None if there is none."""
        folded = _fold(key)
        at = bisect_right(self._keys, folded)
        while at and self._keys[at - 1] == folded:
            at -= 1
            entry = self._read(self._offsets[at])
            if entry.key == key:
                return entry
        return None

    def _read(self, at: int) -> Entry:
        with open(self.path, "rb") as lines:
            lines.seek(at)
            return self._decode(lines.readline(), at)

    def _check_manifest(self, line: bytes, manifest: Manifest) -> None:
        try:
            existing = msgspec.json.decode(line, type=Manifest)
        except msgspec.DecodeError:
            raise BatchJournalError(f"not a journal: {self.path}; name another file, or delete it") from None
        if existing != manifest:
            raise BatchJournalError(
                f"journal belongs to a batch with other options or backends: {self.path}; "
                "use those options, or --fresh to ask all rows again"
            )

    def _decode(self, line: bytes, at: int) -> Entry:
        try:
            return _decode_entry(line)
        except msgspec.DecodeError as error:
            raise BatchJournalError(
                f"journal is damaged at byte {at}: {self.path} ({error}); use --fresh to ask all rows again"
            ) from None

    # --- writing ----------------------------------------------------------------------------------

    async def append(self, entries: Sequence[Entry]) -> None:
        """Append entries, and return when they are on the disk.

        Raises:
            BatchJournalError: They cannot be written. Earlier entries are kept.
        """
        lines = b"".join(_encode(entry) + b"\n" for entry in entries)
        try:
            await anyio.to_thread.run_sync(self._write, lines)
        except OSError as error:
            raise self._error(error) from error

    def _write(self, lines: bytes) -> None:
        try:
            remaining = memoryview(lines)
            while remaining:  # a full disk writes a part, and fails at the next call
                remaining = remaining[os.write(self._descriptor, remaining) :]
            os.fsync(self._descriptor)
        except OSError:
            with contextlib.suppress(OSError):
                os.ftruncate(self._descriptor, self._size)
            raise
        self._size += len(lines)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self._unlock()

    def remove(self) -> None:
        """Close and delete the file, after all rows are answered."""
        self.close()
        self.path.unlink(missing_ok=True)

    def _unlock(self) -> None:
        # Deleted while it is locked, so that a process that waits for it opens a new one. Windows cannot delete an open
        # file; filelock deletes it there after the release.
        with contextlib.suppress(OSError):
            os.unlink(self._lock.lock_file)
        self._lock.release()

    def _error(self, error: OSError) -> BatchJournalError:
        return BatchJournalError(
            f"cannot write the journal: {self.path}: {error.strerror}; use --journal for another directory"
        )


def _fold(key: bytes) -> int:
    return int.from_bytes(key[:8], "big")
