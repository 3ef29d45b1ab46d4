"""The rows of a proposal that were applied with the Go tool, in a file next to it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

import filelock
import msgspec

from ctxbackends._util.files import replace_file
from ctxbackends.knowledge._errors import ProposalError, wrap_write_errors

AppliedState: TypeAlias = Literal["started", "applied"]
"""``started``: the Go tool was started for the row, and its result is unknown."""

FORMAT = 1


class AppliedRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state of a row. ``at`` is the time in UTC."""

    state: AppliedState
    at: str


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    proposal_sha256: str
    rows: dict[str, AppliedRow]


class AppliedRows:
    """The rows of a proposal that were applied. A change is on the disk when its method returns.

    Args:
        path: The file of the proposal.

    Raises:
        ProposalError: The proposal or the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._id = path.stem
        self._file = path.with_name(f"{path.stem}.applied.json")
        try:
            self._sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        except OSError as error:
            raise ProposalError(f"cannot read {path}: {error.strerror}") from error
        self._rows = self._read()

    def state(self, name: str) -> AppliedState | None:
        """Return the state of a row, None if it was never started or failed."""
        row = self._rows.get(name)
        return row.state if row is not None else None

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Lock out other processes, and read the file again.

        Raises:
            ProposalError: Another process has the lock, or it cannot be created.
        """
        path = self._file.with_name(f".{self._file.name}.lock")
        lock = filelock.FileLock(path, mode=0o666)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise ProposalError(f"another process applies rows of {self._id}; wait until it ends") from None
        except OSError as error:
            raise ProposalError(f"cannot write {path}: {error.strerror}; nothing was changed") from error
        try:
            self._rows = self._read()
            yield
        finally:
            lock.release()

    def start(self, name: str) -> None:
        """Mark a row before the Go tool is started for it."""
        self._write(self._rows | {name: _build_row("started")})

    def finish(self, name: str) -> None:
        """Mark a row as applied."""
        self._write(self._rows | {name: _build_row("applied")})

    def reset(self, name: str) -> None:
        """Remove the mark of a row that was not applied."""
        self._write({other: row for other, row in self._rows.items() if other != name})

    def _read(self) -> dict[str, AppliedRow]:
        try:
            file = msgspec.json.decode(self._file.read_bytes(), type=_File)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ProposalError(f"cannot read {self._file}: {error.strerror}") from error
        except msgspec.DecodeError as error:
            raise ProposalError(f"invalid list of applied rows: {self._file}: {error}; restore the file") from None
        if file.format != FORMAT:
            raise ProposalError(f"unsupported format of {self._file}: {file.format}; update ctxbackends")
        if file.proposal_sha256 != self._sha256:
            raise ProposalError(f"proposal changed since rows of it were applied: {self._file}; restore the proposal")
        return dict(file.rows)

    def _write(self, rows: dict[str, AppliedRow]) -> None:
        file = _File(format=FORMAT, proposal_sha256=self._sha256, rows=rows)
        with wrap_write_errors(self._file):
            replace_file(self._file, msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n")
        self._rows = rows


def _build_row(state: AppliedState) -> AppliedRow:
    return AppliedRow(state=state, at=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"))
