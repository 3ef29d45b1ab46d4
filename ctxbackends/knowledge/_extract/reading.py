"""A source as chunks, masked: read in a thread, as far as the next one. Knows no model."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from ctxbackends.knowledge._extract.budget import Budget
from ctxbackends.knowledge._extract.chunker import Chunk, Chunker
from ctxbackends.knowledge._privacy.masking import mask
from ctxbackends.knowledge._sources.base import Segment, SkippedInput, Source
from ctxbackends.knowledge._sources.split import size_of


class Reader:
    """Reads one source as far as the next chunk, in a thread; :meth:`met` is for when it does not."""

    def __init__(self, source: Source, budget: Budget) -> None:
        self._budget = budget
        self._gatherer = Chunker(source.name, source.unit, budget.size)
        self._skipped: list[SkippedInput] = []
        self._masked = 0
        self._chunks = self._gathered(source)

    def next_chunk(self) -> Chunk | None:
        self._gatherer.size = self._budget.size
        return next(self._chunks, None)

    def drain(self) -> tuple[list[SkippedInput], int]:
        """What was skipped, and how many secrets were masked, since it was asked last."""
        met = self._skipped, self._masked
        self._skipped, self._masked = [], 0
        return met

    def _gathered(self, source: Source) -> Iterator[Chunk]:
        for piece in source.pieces():
            if isinstance(piece, SkippedInput):
                self._skipped.append(piece)
                continue
            text, count = mask(piece.text)
            self._masked += count
            yield from self._gatherer.add(msgspec.structs.replace(piece, text=text) if count else piece)
        yield from self._gatherer.flush()


def length_of(source: Source) -> int:
    """Bytes of text that will be read."""
    return sum(size_of(piece) for piece in source.pieces() if isinstance(piece, Segment))
