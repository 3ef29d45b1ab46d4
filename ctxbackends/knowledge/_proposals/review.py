"""What a person decided about the rows of a proposal, kept beside it; the proposal itself is never changed. Knows no
backend and no terminal.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, TypeAlias

import filelock
import msgspec

from ctxbackends._util.files import replace_file
from ctxbackends._util.text import one_line
from ctxbackends.knowledge._errors import ProposalError, wrap_write_errors
from ctxbackends.knowledge._proposals.model import Proposal
from ctxbackends.knowledge._proposals.store import read_proposal
from ctxbackends.knowledge._records import Row, fields_of, record_of

State: TypeAlias = Literal["undecided", "accepted", "rejected"]

FORMAT = 1


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """What was decided about one row. ``at`` is UTC; ``reason`` why it was rejected; ``fields`` are those that were
    edited, with their new values."""

    state: State = "undecided"
    at: str = ""
    reason: str = ""
    fields: dict[str, str] = {}


class _File(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    format: int
    proposal_sha256: str
    rows: dict[str, Verdict]


class Review:
    """The proposal at ``path`` with what was decided about it. Each method that decides reads the file anew, under a
    lock, and writes it whole: two people at the same moment lose nothing.

    Raises ProposalError where one of the two files cannot be read, or the proposal is not the one that was reviewed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.proposal: Proposal = read_proposal(path)
        self._sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
        self._file = path.with_name(f"{path.stem}.review.json")
        self._decided = self._read()

    # --- what is decided --------------------------------------------------------------------------

    def rows(self) -> dict[str, Row]:
        """The rows by name, as they are after edits."""
        return {name: self._edited(name, row) for name, row in self.proposal.rows_by_name().items()}

    def verdict(self, name: str) -> Verdict:
        """What was decided about the row of this name."""
        return self._decided.get(name, Verdict())

    def states(self) -> dict[str, State]:
        """The state of each row, by name."""
        return {name: self.verdict(name).state for name in self.proposal.rows_by_name()}

    def _edited(self, name: str, row: Row) -> Row:
        fields = self.verdict(name).fields
        if not fields:
            return row
        return msgspec.structs.replace(row, record=record_of(row.kind, fields_of(row.record) | fields))

    # --- deciding ---------------------------------------------------------------------------------

    def accept(self, names: Iterable[str]) -> None:
        """The rows of these names are right. Raises ProposalError for one that is not there."""
        self._decide(names, state="accepted", reason="")

    def reject(self, names: Iterable[str], *, reason: str = "") -> None:
        """The rows of these names are not right."""
        self._decide(names, state="rejected", reason=one_line(reason))

    def reset(self, names: Iterable[str]) -> None:
        """Nothing is decided about the rows of these names; edits stay."""
        self._decide(names, state="undecided", reason="")

    def edit(self, name: str, fields: Mapping[str, str]) -> bool:
        """Give the row other texts, and say whether that changed anything. Evidence cannot be edited. Raises
        ProposalError for a field or value that its kind does not have."""
        row = self._known(name)
        original = fields_of(row.record)
        wanted = {field: one_line(value) for field, value in fields.items()}
        with self._changing() as decided:
            before = decided.get(name, Verdict())
            try:
                record = record_of(row.kind, original | before.fields | wanted)
            except ValueError as error:
                raise ProposalError(f"{name}: {error}") from None
            first = record.__struct_fields__[0]
            if not getattr(record, first):
                raise ProposalError(f"{name}: {first} is empty; a row needs one")
            new = {field: value for field, value in fields_of(record).items() if value != original[field]}
            if new != before.fields:
                decided[name] = msgspec.structs.replace(before, fields=new, at=_now())
        return new != before.fields

    def _decide(self, names: Iterable[str], *, state: State, reason: str) -> None:
        wanted = list(names)
        for name in wanted:
            self._known(name)
        with self._changing() as decided:
            for name in wanted:
                before = decided.get(name, Verdict())
                decided[name] = msgspec.structs.replace(before, state=state, reason=reason, at=_now())

    def row(self, name: str) -> Row:
        """The row of this name, as it is after edits. Raises ProposalError where there is none."""
        return self._edited(name, self._known(name))

    def _known(self, name: str) -> Row:
        named = self.proposal.rows_by_name()
        if name not in named:
            there = (
                ", ".join(named) if len(named) <= 20 else f"{', '.join(list(named)[:20])} and {len(named) - 20} more"
            )
            why = "quarantined rows are not accepted" if name.startswith("x") else f"it has {there or 'none'}"
            raise ProposalError(f"{self.path.stem} has no row {name!r}; {why}")
        return named[name]

    # --- the file ---------------------------------------------------------------------------------

    def _read(self) -> dict[str, Verdict]:
        try:
            data = self._file.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise ProposalError(f"{self._file} cannot be read: {error.strerror}") from error
        try:
            found = msgspec.json.decode(data, type=_File)
        except msgspec.DecodeError as error:
            raise ProposalError(f"{self._file} is not as it was written ({error}); nothing was changed") from None
        if found.format != FORMAT:
            raise ProposalError(f"{self._file} is of format {found.format}, which a newer ctx wrote")
        if found.proposal_sha256 != self._sha256:
            raise ProposalError(f"{self.path} was changed after it was reviewed; put it back as it was written")
        return dict(found.rows)

    @contextmanager
    def _changing(self) -> Iterator[dict[str, Verdict]]:
        with _locked(self._file.with_name(f".{self._file.name}.lock")):
            decided = self._read()
            yield decided
            file = _File(format=FORMAT, proposal_sha256=self._sha256, rows=decided)
            with wrap_write_errors(self._file):
                replace_file(self._file, msgspec.json.format(msgspec.json.encode(file), indent=2) + b"\n")
            self._decided = decided


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """One process at a time. The file stays: who removed it could remove it from under another's feet."""
    lock = filelock.FileLock(path, mode=0o666)
    try:
        lock.acquire()
    except OSError as error:
        raise ProposalError(f"{path} cannot be written: {error.strerror}; nothing was changed") from error
    try:
        yield
    finally:
        lock.release()


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
