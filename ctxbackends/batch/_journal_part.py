"""A part of a journal: a file of lines of JSON that one process appends."""

from __future__ import annotations

import asyncio
import errno
import os
import re
import secrets
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from ctxbackends._util.files import append_lines, sync_directory
from ctxbackends._util.locks import lock_descriptor
from ctxbackends.batch._errors import BatchJournalError

PART_NAME = re.compile(r"part-\d{8}T\d{12}-[0-9a-f]{8}\.jsonl")
USE_FRESH = "use --fresh to ask all rows again"
USE_ANOTHER = "use --journal for another directory"
_FULL = frozenset(
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG")
    if hasattr(errno, name)  # no EDQUOT on Windows
)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to a row, or its last error.

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


class Line(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An entry in the file."""

    key: bytes
    answer: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET  # msgspec cannot decode a Raw that may be None
    error: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    backend: str | None = None
    attempts: int = 1
    seconds: float = 0.0

    def __post_init__(self) -> None:
        if len(self.key) != 16:
            raise ValueError("the key must have 16 bytes")
        if (self.answer is msgspec.UNSET) == (self.error is msgspec.UNSET):
            raise ValueError("either an answer or an error is required")


decode_line = msgspec.json.Decoder(Line).decode
_encode_line = msgspec.json.Encoder().encode


class LineGroup:
    """Lines that are written, and synced together.

    Args:
        descriptor: Their file, which the group closes.
        directory: The directory of the journal.

    Attributes:
        error: Why they could not be synced, None if they were, or were not yet.
    """

    def __init__(self, descriptor: int, directory: Path) -> None:
        self._descriptor = descriptor
        self._directory = directory
        self._is_synced = False
        self._is_done = asyncio.Event()
        self.error: OSError | None = None

    def sync(self) -> None:
        """Sync the file, and store the error if that fails: the system reports it only once. Idempotent."""
        if not self._is_synced and self.error is None:
            try:
                os.fsync(self._descriptor)
                self._is_synced = True
            except OSError as error:
                self.error = error

    def end(self) -> None:
        """Wake those that wait. Idempotent."""
        if not self._is_done.is_set():
            os.close(self._descriptor)
            self._is_done.set()

    async def wait(self) -> None:
        """Return when the lines are on the disk.

        Raises:
            BatchJournalError: They cannot be written.
        """
        await self._is_done.wait()
        if self.error is not None:
            with wrap_errors(self._directory, "write"):
                raise self.error


class JournalPart:
    """Appends to a part of a journal. The part is created with the first entries.

    Args:
        directory: The directory of the journal.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._descriptor = -1
        self._is_closed = False
        self._thread = ThreadPoolExecutor(1, "journal")  # its own: others may fill the loop's threads
        self._group: LineGroup | None = None
        self._groups: deque[LineGroup] = deque()
        self._syncer: asyncio.Task[None] | None = None

    def write(self, entries: Sequence[Entry]) -> LineGroup | None:
        """Append entries, and return the group that is synced with them, None without entries.

        They are in the file then, and outlive the process. This is called in the event loop: such a write goes into
        the memory of the system.

        Raises:
            BatchJournalError: They cannot be written. Earlier entries are kept.
        """
        lines = b"".join([encode_entry(entry) for entry in entries])
        if not lines:
            return None
        if self._is_closed:
            raise closed_error(self.directory)
        with wrap_errors(self.directory, "write"):
            if self._descriptor < 0:
                self._descriptor = self._create()
            try:
                append_lines(self._descriptor, lines)
            except OSError:
                self._close()
                raise
            if self._group is None:
                self._group = LineGroup(os.dup(self._descriptor), self.directory)
                self._groups.append(self._group)
        if self._syncer is None or self._syncer.done():
            self._syncer = asyncio.create_task(self._sync_groups())
        return self._group

    async def append(self, entries: Sequence[Entry]) -> None:
        """Append entries, and return when they are on the disk.

        Raises:
            BatchJournalError: They cannot be written. Earlier entries are kept.
        """
        if (group := self.write(entries)) is not None:
            await group.wait()

    async def _sync_groups(self) -> None:
        loop = asyncio.get_running_loop()
        while self._groups:
            group = self._groups[0]
            self._group = None
            await loop.run_in_executor(self._thread, group.sync)
            if group.error is not None:
                self._close()
            group.end()
            if self._groups:  # close() may have ended them
                self._groups.popleft()

    def _create(self) -> int:
        name = f"part-{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{secrets.token_hex(4)}.jsonl"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | getattr(os, "O_BINARY", 0)
        descriptor = os.open(self.directory / name, flags, 0o600)
        lock_descriptor(descriptor)
        sync_directory(self.directory)
        return descriptor

    def _close(self) -> None:
        """Close the part after an error. If it ends within a line, nothing may follow: the next entries get another."""
        self._group = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def close(self) -> None:
        """Sync and close the part. Idempotent."""
        self._is_closed = True
        self._thread.shutdown()  # after the sync that is going on
        while self._groups:
            group = self._groups.popleft()
            group.sync()
            group.end()
        self._close()


def encode_entry(entry: Entry) -> bytes:
    """Return the line of an entry."""
    line = _encode_line(
        Line(
            key=entry.key,
            answer=msgspec.UNSET if entry.answer is None else entry.answer,
            error=msgspec.UNSET if entry.error is None else entry.error,
            backend=entry.backend,
            attempts=entry.attempts,
            seconds=entry.seconds,
        )
    )
    if b"\n" in line:  # from the JSON of an answer
        line = msgspec.json.format(line, indent=-1)
    return line + b"\n"


@contextmanager
def wrap_errors(directory: Path, verb: Literal["read", "write"]) -> Iterator[None]:
    """Raise an OSError as the error of a journal that cannot be read or written."""
    try:
        yield
    except BatchJournalError:
        raise
    except OSError as error:
        is_full = error.errno in _FULL
        advice = "free space on the disk and start again; answered rows are kept" if is_full else USE_ANOTHER
        raise BatchJournalError(
            f"cannot {verb} the journal: {directory}: {error.strerror or error}; {advice}"
        ) from error


def closed_error(directory: Path) -> BatchJournalError:
    """Return the error of a journal that was closed."""
    return BatchJournalError(f"journal is closed: {directory}; use it inside the async with block of the batch")
