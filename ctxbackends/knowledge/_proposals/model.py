"""The values of a proposal: the facts of a run, its rows, the quarantined rows and the skipped input."""

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
"""The first letter of a row's name: ``d1``, ``d2``, ``t1``."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """The run that a proposal comes from.

    Attributes:
        id: The id of the proposal, which is also the name of its file.
        created: The time in UTC (``2026-11-23T13:05:00Z``).
        command: The command of the run.
        kinds: The kinds of records that were extracted.
        backend: The name of the backend.
        backend_type: The type of the backend.
        endpoint: The URL of the backend.
        requested_model: The model that was requested; empty if the server chose it.
        served_model: The model that the server reported; None if it reported none.
        server_version: The version of the server; None if unknown.
        schema_sha256: Hash of the schema, in hex.
        enforcement: How the server enforces the schema.
        inputs: The sources.
        chunks: The number of chunks.
        input_tokens: Tokens of all prompts; None if the server reports none.
        output_tokens: Tokens of all answers; None if the server reports none.
        cached_input_tokens: Tokens of the prompts that came from the server's cache; None if the server reports none.
        masked: The number of masked secrets.
    """

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
    """The result of a run, for review.

    Attributes:
        facts: The run that it comes from.
        rows: The proposed rows.
        quarantined: The rows without valid evidence.
        skipped: Input that was not read.
    """

    facts: Facts
    rows: tuple[Row, ...]
    quarantined: tuple[QuarantinedRow, ...] = ()
    skipped: tuple[SkippedInput, ...] = ()

    def rows_by_name(self) -> dict[str, Row]:
        """Return the rows by name (``d1``), kind by kind."""
        rows: dict[str, Row] = {}
        for kind in Kind:
            of_kind = (row for row in self.rows if row.kind is kind)
            rows |= {f"{LETTERS[kind]}{number}": row for number, row in enumerate(of_kind, 1)}
        return rows

    def quarantined_by_name(self) -> dict[str, QuarantinedRow]:
        """Return the quarantined rows by name (``x1``)."""
        return {f"x{number}": row for number, row in enumerate(self.quarantined, 1)}
