"""What a proposal is: the facts of a run, its rows by their names, and what was not believed or not read. Values."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import msgspec

from ctxbackends.knowledge._records import Kind, QuarantinedRow, Row
from ctxbackends.knowledge._sources.base import Input, SkippedInput

LETTERS: Mapping[Kind, str] = MappingProxyType(
    {
        Kind.DECISION: "d",
        Kind.LEARNING: "l",
        Kind.TASK: "t",
        Kind.OPEN_QUESTION: "q",
        Kind.RISK: "r",
        Kind.TERM: "m",
    }
)
"""What the names of rows begin with: ``d1``, ``d2``, ``t1``."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """Where a proposal comes from. ``id`` is also the file's name, ``created`` is UTC (``2026-11-23T13:05:00Z``).
    ``command`` is the one that made it. Tokens are None where the server reports none. ``masked``: secrets that were
    not sent."""

    id: str
    created: str
    command: str
    kinds: tuple[Kind, ...]
    backend: str
    backend_type: str
    endpoint: str
    requested_model: str
    served_model: str | None
    server_version: str | None
    schema_sha256: str
    enforcement: str
    inputs: tuple[Input, ...]
    chunks: int
    input_tokens: int | None
    output_tokens: int | None
    cached_input_tokens: int | None
    masked: int


class Proposal(msgspec.Struct, frozen=True, kw_only=True):
    """One run's result, to be reviewed."""

    facts: Facts
    rows: tuple[Row, ...]
    quarantined: tuple[QuarantinedRow, ...] = ()
    skipped: tuple[SkippedInput, ...] = ()

    def rows_by_name(self) -> dict[str, Row]:
        """The rows by name (``d1``), kind by kind."""
        named: dict[str, Row] = {}
        for kind in Kind:
            of_kind = (row for row in self.rows if row.kind is kind)
            named |= {f"{LETTERS[kind]}{number}": row for number, row in enumerate(of_kind, 1)}
        return named
