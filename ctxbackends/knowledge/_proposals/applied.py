"""The rows of a proposal that were applied with the Go tool, in a file next to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import filelock
import msgspec

from ctxbackends.knowledge._errors import ProposalError
from ctxbackends.knowledge._proposals.state_file import StateFile, now

AppliedState: TypeAlias = Literal["started", "applied"]
"""``started``: the Go tool was started for the row, and its result is unknown."""


class AppliedRow(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The state of a row. ``at`` is the time in UTC."""

    state: AppliedState
    at: str


class AppliedRows:
    """The rows of a proposal that were applied. A change is on the disk when its method returns.

    Args:
        path: The file of the proposal.

    Raises:
        ProposalError: The proposal or the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._id = path.stem
        name = path.with_name(f"{path.stem}.applied.json")
        self._file = StateFile(
            path,
            "applied",
            AppliedRow,
            label="list of applied rows",
            advice="restore the file",
            changed=f"proposal changed since rows of it were applied: {name}; restore the proposal",
        )
        self._rows = self._file.read()

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
        with ExitStack() as stack:
            try:
                stack.enter_context(self._file.lock(timeout=0))
            except filelock.Timeout:
                raise ProposalError(f"another process applies rows of {self._id}; wait until it ends") from None
            self._rows = self._file.read()
            yield

    def start(self, name: str) -> None:
        """Mark a row before the Go tool is started for it."""
        self._write(self._rows | {name: _build_row("started")})

    def finish(self, name: str) -> None:
        """Mark a row as applied."""
        self._write(self._rows | {name: _build_row("applied")})

    def reset(self, name: str) -> None:
        """Remove the mark of a row that was not applied."""
        self._write({other: row for other, row in self._rows.items() if other != name})

    def _write(self, rows: dict[str, AppliedRow]) -> None:
        self._file.write(rows)
        self._rows = rows


def _build_row(state: AppliedState) -> AppliedRow:
    return AppliedRow(state=state, at=now())
