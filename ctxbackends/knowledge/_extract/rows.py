"""The rows of an answer before their quotes are verified."""

from __future__ import annotations

import msgspec

from ctxbackends.knowledge._records import Record


class ExtractedRow(msgspec.Struct, frozen=True):
    """A row of the model's answer, not verified yet."""

    record: Record
    line: int
    quote: str
