"""The rows of a chunk, and how those of several answers about it are joined. Pure values."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ctxbackends._chat.responses import Usage
from ctxbackends.knowledge._extract.citations import CitedRow
from ctxbackends.knowledge._extract.packing import AnyChunk
from ctxbackends.knowledge._own_kinds import AnyKind
from ctxbackends.knowledge._records import QuarantinedRow, kind_of, normalize_title, title_of
from ctxbackends.knowledge._sources.base import SkippedInput


class ChunkResult(msgspec.Struct, frozen=True, kw_only=True):
    """The verified rows of a chunk for one question, and what is missing. It is pickled.

    ``kinds`` are those of the question, ``size`` is that of the text in bytes. ``from_journal``: no request was sent
    for the rows. ``cut``: an answer was truncated or its list is full, and more requests do not help. ``skipped``: the
    failure of the chunk, or what its rows lack. ``second_looks`` and ``recovered`` count the rows that the model was
    asked about again, and those whose new quote is valid.
    """

    kinds: tuple[AnyKind, ...]
    size: int
    rows: tuple[CitedRow | QuarantinedRow, ...] = ()
    usages: tuple[Usage, ...] = ()
    requested_model: str | None = None
    served_model: str | None = None
    from_journal: bool = False
    cut: bool = False
    skipped: tuple[SkippedInput, ...] = ()
    second_looks: int = 0
    recovered: int = 0


def skip(result: ChunkResult, chunk: AnyChunk, problem: str) -> ChunkResult:
    """Return a result that says why a part of the source has no rows."""
    part, *others = chunk.parts
    first, last = part.segments[0].first, part.segments[-1].last
    where = f"{chunk.where}: " if others else f"{part.unit}s {first}-{last}: " if first != last else ""
    skipped = SkippedInput(source=part.source, line=first, reason=f"{where}{problem}")
    return msgspec.structs.replace(result, skipped=(*result.skipped, skipped))


def mark_as_cut(result: ChunkResult, chunk: AnyChunk, problem: str) -> ChunkResult:
    """Return a result that says why there may be more rows."""
    return msgspec.structs.replace(skip(result, chunk, f"{problem}; there may be more"), cut=True)


def merge(result: ChunkResult, others: Sequence[ChunkResult], *, by_title: bool = False) -> ChunkResult:
    """Return a result with what other answers about the same text have in addition.

    Args:
        result: The result.
        others: The other answers.
        by_title: Whether a row with a known quote and another title is another record: the model knew the titles.
    """
    for other in others:
        result = msgspec.structs.replace(
            add_rows(result, other, result.rows, by_title=by_title),
            from_journal=result.from_journal and other.from_journal,
            cut=result.cut or other.cut,
            skipped=(*result.skipped, *other.skipped),
        )
    return result


def add_rows(
    result: ChunkResult, other: ChunkResult, known: Sequence[CitedRow | QuarantinedRow], *, by_title: bool = False
) -> ChunkResult:
    """Return a result with the usage of another answer, and with its rows unless they have a known quote."""
    identities = {_identify(row, by_title=by_title) for row in known}
    return msgspec.structs.replace(
        result,
        rows=(*result.rows, *(row for row in other.rows if _identify(row, by_title=by_title) not in identities)),
        usages=(*other.usages, *result.usages),
        second_looks=result.second_looks + other.second_looks,
        recovered=result.recovered + other.recovered,
    )


def _identify(row: CitedRow | QuarantinedRow, *, by_title: bool) -> tuple[object, ...]:
    if isinstance(row, QuarantinedRow):
        return row.key
    record, evidence = row.row.record, row.evidence
    title = normalize_title(title_of(record)) if by_title else None
    return kind_of(record), title, evidence.source, evidence.first, evidence.quote
