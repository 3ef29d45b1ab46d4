"""The values of a proposal: the facts of a run, its rows, the quarantined rows and the skipped input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from string import ascii_lowercase
from types import MappingProxyType

import msgspec

from ctxbackends._util.text import plural
from ctxbackends.knowledge._own_kinds import OwnKind
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

QUARANTINED_LETTER = "x"


def choose_letters(own_kinds: Sequence[OwnKind]) -> dict[str, str]:
    """Return the letter of each kind by name: for own kinds the first free one of the name, or else of the alphabet."""
    letters = {str(kind): letter for kind, letter in LETTERS.items()}
    for kind in own_kinds:
        taken = {*letters.values(), QUARANTINED_LETTER}
        candidates = [letter for letter in kind.name + ascii_lowercase if letter in ascii_lowercase]
        letters[kind.name] = next(letter for letter in candidates if letter not in taken)
    return letters


def name_section(kind: str) -> str:
    """Return the heading of the rows of a kind: ``Open questions``."""
    return plural(kind).replace("-", " ").capitalize()


class Facts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The run that a proposal comes from.

    Attributes:
        id: The id of the proposal, which is also the name of its file.
        created: The time in UTC (``2026-11-23T13:05:00Z``).
        command: The command of the run.
        kinds: The names of the kinds that were extracted.
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
        own_kinds: The kinds that are not built in.
        instructions_sha256: Hash of the additional instructions, in hex; None without.
    """

    id: str
    created: str
    command: str
    kinds: tuple[str, ...]
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
    own_kinds: tuple[OwnKind, ...] = ()
    instructions_sha256: str | None = None


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
        for kind, letter in choose_letters(self.facts.own_kinds).items():
            of_kind = (row for row in self.rows if row.kind == kind)
            rows |= {f"{letter}{number}": row for number, row in enumerate(of_kind, 1)}
        return rows

    def quarantined_by_name(self) -> dict[str, QuarantinedRow]:
        """Return the quarantined rows by name (``x1``)."""
        return {f"{QUARANTINED_LETTER}{number}": row for number, row in enumerate(self.quarantined, 1)}
