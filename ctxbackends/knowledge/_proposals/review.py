"""The review of a proposal, in a file next to it. The proposal is never changed."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

import msgspec

from ctxbackends._util.text import one_line
from ctxbackends.knowledge._errors import ProposalError
from ctxbackends.knowledge._own_kinds import check_own_record, find_record_problem
from ctxbackends.knowledge._proposals.model import Proposal
from ctxbackends.knowledge._proposals.state_file import StateFile, now
from ctxbackends.knowledge._proposals.store import read_proposal
from ctxbackends.knowledge._records import Evidence, QuarantinedRow, Row, fields_of, record_of, title_of

State: TypeAlias = Literal["undecided", "accepted", "rejected"]


class Verdict(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, forbid_unknown_fields=True):
    """The decision of a person about one row.

    Attributes:
        state: ``undecided``, ``accepted`` or ``rejected``.
        at: The time of the last change in UTC; empty if there was none.
        reason: Why the row was rejected.
        fields: The edited fields with their new values.
        evidence: The quote that a person gave for a quarantined row.
    """

    state: State = "undecided"
    at: str = ""
    reason: str = ""
    fields: dict[str, str] = {}
    evidence: Evidence | None = None


class Review:
    """A proposal with the verdicts on its rows.

    Each change reads the review file again under a lock and writes it atomically, so concurrent changes are safe.

    Args:
        path: The file of the proposal.

    Raises:
        ProposalError: The proposal or its review cannot be read, or the proposal changed since it was reviewed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.proposal: Proposal = read_proposal(path)
        self._file = StateFile(
            path,
            "review",
            Verdict,
            label="review",
            advice="restore the file, nothing was changed",
            changed=f"proposal changed since it was reviewed: {path}; restore the file",
        )
        self._verdicts = self._file.read()

    # --- reading ----------------------------------------------------------------------------------

    def rows(self) -> dict[str, Row]:
        """Return the rows by name, with their edits, and the quarantined rows that have a quote of a person."""
        return {name: self._apply_edits(name, row) for name, row in self.original_rows().items()}

    def original_rows(self) -> dict[str, Row]:
        """Return the rows by name, without their edits, and the quarantined rows that have a quote of a person."""
        rows = self.proposal.rows_by_name()
        for name, quarantined in self.proposal.quarantined_by_name().items():
            evidence = self.verdict(name).evidence
            if evidence is not None:
                rows[name] = Row(record=quarantined.record, evidence=(evidence,))
        return rows

    def quarantined(self) -> dict[str, QuarantinedRow]:
        """Return the quarantined rows by name, without those that have a quote of a person."""
        rows = self.proposal.quarantined_by_name()
        return {name: row for name, row in rows.items() if self.verdict(name).evidence is None}

    def verdict(self, name: str) -> Verdict:
        """Return the verdict on a row."""
        return self._verdicts.get(name, Verdict())

    def states(self) -> dict[str, State]:
        """Return the state of each row by name."""
        return {name: self.verdict(name).state for name in self.original_rows()}

    def _apply_edits(self, name: str, row: Row) -> Row:
        fields = self.verdict(name).fields
        if not fields:
            return row
        return msgspec.structs.replace(row, record=record_of(type(row.record), fields_of(row.record) | fields))

    # --- changing ---------------------------------------------------------------------------------

    def accept(self, names: Iterable[str]) -> None:
        """Accept rows by name.

        Raises:
            ProposalError: A row does not exist or does not match the schema of its kind, or the review cannot be
                written.
        """
        chosen = list(names)
        for name in self.original_rows().keys() & self.proposal.quarantined_by_name().keys() & {*chosen}:
            problem = self.find_problem(name)
            if problem is not None:
                raise ProposalError(problem)
        self._set_state(chosen, state="accepted", reason="")

    def reject(self, names: Iterable[str], *, reason: str = "") -> None:
        """Reject rows by name, also quarantined ones, with an optional reason.

        Raises:
            ProposalError: A row does not exist, or the review cannot be written.
        """
        self._set_state(names, state="rejected", reason=one_line(reason), allowed=self.proposal.quarantined_by_name())

    def reset(self, names: Iterable[str]) -> None:
        """Set rows back to undecided, also quarantined ones. Edits are kept.

        Raises:
            ProposalError: A row does not exist, or the review cannot be written.
        """
        self._set_state(names, state="undecided", reason="", allowed=self.proposal.quarantined_by_name())

    def restore(self, name: str, verdict: Verdict, *, after: Verdict) -> None:
        """Undo a change: set the verdict on a row back to the one before it.

        Args:
            name: The name of the row.
            verdict: The verdict before the change.
            after: The verdict after the change.

        Raises:
            ProposalError: The verdict has changed again since, or the review cannot be written.
        """
        with self._updating() as verdicts:
            if verdicts.get(name, Verdict()) != after:
                raise ProposalError(f"cannot undo the decision on {name}: it has changed since; decide again")
            verdicts[name] = verdict
            if verdict == Verdict():
                del verdicts[name]

    def edit(self, name: str, fields: Mapping[str, str]) -> bool:
        """Change fields of a row. Evidence cannot be edited.

        Args:
            name: The name of the row.
            fields: The new values by field.

        Returns:
            Whether anything changed.

        Raises:
            ProposalError: The row or a field does not exist, a value is invalid, or the review cannot be written.
        """
        row = self._find_row(name)
        original = fields_of(row.record)
        values = {field: one_line(value) for field, value in fields.items()}
        with self._updating() as verdicts:
            before = verdicts.get(name, Verdict())
            try:
                record = record_of(type(row.record), original | before.fields | values)
                check_own_record(record)
            except ValueError as error:
                raise ProposalError(f"{name}: {error}") from None
            title = record.__struct_fields__[0]
            if not getattr(record, title):
                raise ProposalError(f"{name}: empty {title}; write a text")
            edits = {field: value for field, value in fields_of(record).items() if value != original[field]}
            if edits != before.fields:
                verdicts[name] = msgspec.structs.replace(before, fields=edits, at=now())
        return edits != before.fields

    def requote(self, name: str, quote: str, *, path: Path | None = None) -> Evidence:
        """Give a quarantined row a quote, which is verified in its source, and accept the row.

        A row that does not match the schema of its kind stays undecided until it is edited.

        Args:
            name: The name of the row (``x1``).
            quote: Words copied from the source.
            path: The file of the source, if it is not where it was: relative to the working directory, or to the
                directory that contains the context directory.

        Raises:
            ProposalError: The row does not exist or has no title, the quote is not in the source, the source cannot be
                read or has changed since the run, or the review cannot be written.
        """
        from ctxbackends.knowledge._proposals.requote import find_quote  # noqa: PLC0415  # reads sources
        from ctxbackends.knowledge._proposals.sources import find_roots  # noqa: PLC0415  # as above

        quarantined = self.proposal.quarantined_by_name()
        if name not in quarantined:
            names = ", ".join(list(quarantined)[:20]) or "(none)"
            raise ProposalError(f"{self.path.stem} has no quarantined row {name!r}; the quarantined rows are {names}")
        row = quarantined[name]
        if not title_of(row.record).strip():
            raise ProposalError(f"{name} has no title, so it cannot be accepted; reject it, or run the command again")
        evidence = find_quote(self.proposal, row, quote, path=path, roots=find_roots(self.path))
        with self._updating() as verdicts:
            before = verdicts.get(name, Verdict())
            state: State = "accepted" if self.find_problem(name) is None else "undecided"
            verdicts[name] = msgspec.structs.replace(before, state=state, reason="", evidence=evidence, at=now())
        return evidence

    def find_problem(self, name: str) -> str | None:
        """Return why a row with its edits cannot be accepted even with a quote, and what to do; None if it can.

        Raises:
            ProposalError: The row does not exist.
        """
        quarantined = self.proposal.quarantined_by_name().get(name)
        record = quarantined.record if quarantined is not None else self._find_row(name).record
        problem = find_record_problem(record_of(type(record), fields_of(record) | self.verdict(name).fields))
        if problem is None:
            return None
        return (
            f"{name} cannot be accepted: {problem}; change it with ctxbackends proposals edit {self.path.stem} {name}"
        )

    def _set_state(self, names: Iterable[str], *, state: State, reason: str, allowed: Container[str] = ()) -> None:
        chosen = list(names)
        for name in chosen:
            if name not in allowed:
                self._find_row(name)
        with self._updating() as verdicts:
            for name in chosen:
                before = verdicts.get(name, Verdict())
                verdicts[name] = msgspec.structs.replace(before, state=state, reason=reason, at=now())

    def row(self, name: str) -> Row:
        """Return a row with its edits.

        Raises:
            ProposalError: The row does not exist.
        """
        return self._apply_edits(name, self._find_row(name))

    def _find_row(self, name: str) -> Row:
        rows = self.original_rows()
        if name not in rows:
            names = ", ".join(rows) if len(rows) <= 20 else f"{', '.join(list(rows)[:20])} and {len(rows) - 20} more"
            hint = (
                f"give a quarantined row a quote with ctxbackends proposals requote {self.path.stem} {name} --quote ..."
                if name in self.proposal.quarantined_by_name()
                else f"the rows are {names or '(none)'}"
            )
            raise ProposalError(f"{self.path.stem} has no row {name!r}; {hint}")
        return rows[name]

    @contextmanager
    def _updating(self) -> Iterator[dict[str, Verdict]]:
        with self._file.lock():
            verdicts = self._file.read()
            yield verdicts
            self._file.write(verdicts)
            self._verdicts = verdicts
