"""The rows of a chunk, and how those of several answers about it are joined. Pure values."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ctxbackends._chat.responses import Usage
from ctxbackends.knowledge._extract.citations import CitedRow
from ctxbackends.knowledge._extract.packing import AnyChunk
from ctxbackends.knowledge._extract.prompt import Question
from ctxbackends.knowledge._records import QuarantinedRow, kind_of
from ctxbackends.knowledge._sources.base import SkippedInput


class ChunkResult(msgspec.Struct, frozen=True, kw_only=True):
    """The verified rows of a chunk for one question, and what is missing.

    ``from_journal``: no request was sent for them. ``cut``: an answer was truncated or its list is full, and more
    requests do not help. ``skipped``: the failure of the chunk, or what its rows lack. ``second_looks`` and
    ``recovered`` count the rows that the model was asked about again, and those whose new quote is valid.
    """

    chunk: AnyChunk
    question: Question
    rows: tuple[CitedRow | QuarantinedRow, ...] = ()
    usages: tuple[Usage, ...] = ()
    requested_model: str | None = None
    served_model: str | None = None
    from_journal: bool = False
    cut: bool = False
    skipped: tuple[SkippedInput, ...] = ()
    second_looks: int = 0
    recovered: int = 0


def skip(result: ChunkResult, problem: str) -> ChunkResult:
    """Return a result that says why a part of the source has no rows."""
    part, *others = result.chunk.parts
    first, last = part.segments[0].first, part.segments[-1].last
    where = f"{result.chunk.where}: " if others else f"{part.unit}s {first}-{last}: " if first != last else ""
    skipped = SkippedInput(source=part.source, line=first, reason=f"{where}{problem}")
    return msgspec.structs.replace(result, skipped=(*result.skipped, skipped))


def mark_as_cut(result: ChunkResult, problem: str) -> ChunkResult:
    """Return a result that says why there may be more rows."""
    return msgspec.structs.replace(skip(result, f"{problem}; there may be more"), cut=True)


def merge(result: ChunkResult, others: Sequence[ChunkResult]) -> ChunkResult:
    """Return a result with what other answers about the same text have in addition."""
    for other in others:
        result = msgspec.structs.replace(
            add_rows(result, other, result.rows),
            from_journal=result.from_journal and other.from_journal,
            cut=result.cut or other.cut,
            skipped=(*result.skipped, *other.skipped),
        )
    return result


def add_rows(result: ChunkResult, other: ChunkResult, known: Sequence[CitedRow | QuarantinedRow]) -> ChunkResult:
    """Return a result with the usage of another answer, and with its rows unless they have a known quote."""
    quotes = {_identify(row) for row in known}
    return msgspec.structs.replace(
        result,
        rows=(*result.rows, *(row for row in other.rows if _identify(row) not in quotes)),
        usages=(*other.usages, *result.usages),
        second_looks=result.second_looks + other.second_looks,
        recovered=result.recovered + other.recovered,
    )


def _identify(row: CitedRow | QuarantinedRow) -> tuple[object, ...]:
    if isinstance(row, QuarantinedRow):
        return row.key
    return kind_of(row.row.record), row.evidence.source, row.evidence.first, row.evidence.quote
