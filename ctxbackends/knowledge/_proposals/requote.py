"""Check a person's quote for a quarantined row in the source that the row came from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from ctxbackends.knowledge._errors import ProposalError, SourceError
from ctxbackends.knowledge._extract.chunker import Chunk, Chunker
from ctxbackends.knowledge._extract.citations import NOT_FOUND, QuoteChecker
from ctxbackends.knowledge._privacy.masking import mask
from ctxbackends.knowledge._proposals.model import Proposal
from ctxbackends.knowledge._proposals.sources import find_file, find_input, open_source
from ctxbackends.knowledge._records import Evidence, QuarantinedRow
from ctxbackends.knowledge._sources.base import Segment, Source

_WINDOW = 64_000
_OVERLAP = 4_000
"""Bytes of text that are searched at once, and those that the next search begins with again."""


def find_quote(
    proposal: Proposal, row: QuarantinedRow, quote: str, *, path: Path | None = None, roots: Sequence[Path] = (Path(),)
) -> Evidence:
    """Find a quote in a source of a quarantined row, near the part that the row came from.

    Args:
        proposal: The proposal of the row.
        row: The row. If it has several places, they are searched in their order.
        quote: The quote.
        path: The file; by default it is found by the name of the source.
        roots: The directories that the name may be relative to.

    Raises:
        ProposalError: The source cannot be read or has changed since the run, or the quote is not in it.
    """
    problem: ProposalError | None = None
    for place in row.where.split("; "):
        try:
            return _find_near(proposal, place, quote, path, roots)
        except ProposalError as error:
            problem = problem or error
    assert problem is not None
    raise problem


def _find_near(proposal: Proposal, place: str, quote: str, path: Path | None, roots: Sequence[Path]) -> Evidence:
    input_ = find_input(proposal, place)
    file = path or find_file(input_.name, roots) or Path(input_.name)
    try:
        windows = list(_read_windows(open_source(input_, file)))
    except SourceError as error:
        raise ProposalError(f"cannot check the quote: {error}; name the file with --source") from error
    number = re.search(r"[ :](\d+)(?:-\d+)?\Z", place)
    line = int(number[1]) if number is not None else 1
    answers = [QuoteChecker(window).find(quote, line) for window in windows]
    found = [answer[0] for answer in answers if not isinstance(answer, str)]
    if found:
        return min(found, key=lambda evidence: abs(evidence.first - line))
    reasons = [answer for answer in answers if isinstance(answer, str)]
    reason = max(reasons, key=len, default=NOT_FOUND)
    raise ProposalError(f"quote not accepted: {quote[:100]!r}: {reason}; copy the words from {input_.name}")


def _read_windows(source: Source) -> Iterator[Chunk]:
    """Yield the masked text of a source in parts that overlap, so that no quote is divided."""
    chunker = Chunker(source.name, source.unit, _WINDOW)
    tail: tuple[Segment, ...] = ()
    for chunk in _read_chunks(source, chunker):
        window = msgspec.structs.replace(chunk, segments=(*tail, *chunk.segments))
        yield window
        size, at = 0, len(chunk.segments)
        while at and size < _OVERLAP:
            at -= 1
            size += len(chunk.segments[at].text)
        tail = chunk.segments[at:]


def _read_chunks(source: Source, chunker: Chunker) -> Iterator[Chunk]:
    for piece in source.pieces():
        if isinstance(piece, Segment):
            yield from chunker.add(msgspec.structs.replace(piece, text=mask(piece.text)[0]))
    yield from chunker.flush()
