"""The rows of a run. Duplicates are merged with their evidence or places."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import msgspec

from ctxbackends.knowledge._extract.citations import CitedRow
from ctxbackends.knowledge._records import QuarantinedRow, Row

MAX_PLACES = 10
"""Places that a quarantined row names."""


class RowCollector:
    """Collects the checked rows of answers.

    Args:
        on_quarantined: Called with each new quarantined row.

    Attributes:
        rows: The rows by key, in the order in which they were found.
        quarantined: The quarantined rows by key.
        relocated: The number of quotes that were found at another place than the model named.
        merged: The number of duplicate rows that were merged.
    """

    def __init__(self, on_quarantined: Callable[[QuarantinedRow], object]) -> None:
        self.rows: dict[str, Row] = {}
        self.quarantined: dict[tuple[str, ...], QuarantinedRow] = {}
        self.relocated = 0
        self.merged = 0
        self._on_quarantined = on_quarantined

    def add(self, rows: Iterable[CitedRow | QuarantinedRow]) -> Iterator[Row]:
        """Add the rows of an answer; yield those that are new."""
        for checked in rows:
            if isinstance(checked, QuarantinedRow):
                self._quarantine(checked)
                continue
            self.relocated += checked.relocated
            row = Row(record=checked.row.record, evidence=(checked.evidence,))
            duplicate = self.rows.get(row.key)
            if duplicate is None:
                self.rows[row.key] = row
                yield row
                continue
            self.merged += 1
            if checked.evidence not in duplicate.evidence:
                evidence = (*duplicate.evidence, checked.evidence)
                self.rows[row.key] = msgspec.structs.replace(duplicate, evidence=evidence)

    def _quarantine(self, row: QuarantinedRow) -> None:
        """Add a row, or its place if there is an equal one."""
        equal = self.quarantined.get(row.key)
        if equal is None:
            self.quarantined[row.key] = row
            self._on_quarantined(row)
        else:
            places = dict.fromkeys((*equal.where.split("; "), *row.where.split("; ")))
            where = "; ".join([*places][:MAX_PLACES])
            self.quarantined[row.key] = msgspec.structs.replace(equal, where=where)
