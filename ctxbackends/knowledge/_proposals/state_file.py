"""The state of a proposal's rows, in a JSON file next to it. A change is on the disk at once."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, TypeVar

import filelock
import msgspec

from ctxbackends._util.files import replace_file
from ctxbackends.knowledge._errors import ProposalError, wrap_write_errors

T = TypeVar("T", bound=msgspec.Struct)

FORMAT = 1


class _Content(msgspec.Struct, Generic[T], frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    proposal_sha256: str
    rows: dict[str, T]


class StateFile(Generic[T]):
    """A file with one value for each row that has a state.

    Args:
        proposal: The file of the proposal.
        name: The name of the state; the file is ``<id>.<name>.json``.
        row_type: The type of the values.
        label: The name for people, for errors.
        advice: How to mend a file that is not valid.
        changed: The message if the proposal has changed since.

    Attributes:
        path: The file.

    Raises:
        ProposalError: The proposal cannot be read.
    """

    def __init__(self, proposal: Path, name: str, row_type: type[T], *, label: str, advice: str, changed: str) -> None:
        self.path = proposal.with_name(f"{proposal.stem}.{name}.json")
        self._type: Any = _Content[row_type]  # type: ignore[valid-type]  # a type at run time
        self._label = label
        self._advice = advice
        self._changed = changed
        try:
            self._sha256 = hashlib.sha256(proposal.read_bytes()).hexdigest()
        except OSError as error:
            raise ProposalError(f"cannot read {proposal}: {error.strerror}") from error

    def read(self) -> dict[str, T]:
        """Return the values by the names of the rows; none if the file does not exist.

        Raises:
            ProposalError: The file cannot be read or is not valid, or the proposal has changed since.
        """
        try:
            data = self.path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ProposalError(f"cannot read {self.path}: {error.strerror}") from error
        try:
            content: _Content[T] = msgspec.json.decode(data, type=self._type)
        except msgspec.DecodeError as error:
            raise ProposalError(f"invalid {self._label}: {self.path}: {error}; {self._advice}") from None
        if content.format != FORMAT:
            raise ProposalError(f"unsupported format of {self.path}: {content.format}; update ctxbackends")
        if content.proposal_sha256 != self._sha256:
            raise ProposalError(self._changed)
        return dict(content.rows)

    def write(self, rows: dict[str, T]) -> None:
        """Replace the file.

        Raises:
            ProposalError: It cannot be written.
        """
        content = _Content(format=FORMAT, proposal_sha256=self._sha256, rows=rows)
        with wrap_write_errors(self.path):
            replace_file(self.path, msgspec.json.format(msgspec.json.encode(content), indent=2) + b"\n")

    @contextmanager
    def lock(self, *, timeout: float = -1) -> Iterator[None]:
        """Lock out other processes. The lock file is kept, since another process may have opened it.

        Args:
            timeout: Seconds to wait for the lock; as long as it takes by default.

        Raises:
            filelock.Timeout: Another process has the lock.
            ProposalError: The lock cannot be created.
        """
        path = self.path.with_name(f".{self.path.name}.lock")
        lock = filelock.FileLock(path, mode=0o666)
        try:
            lock.acquire(timeout=timeout)
        except filelock.Timeout:
            raise
        except OSError as error:
            raise ProposalError(f"cannot write {path}: {error.strerror}; nothing was changed") from error
        try:
            yield
        finally:
            lock.release()


def now() -> str:
    """Return the time in UTC: ``2026-11-23T13:05:00Z``."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
