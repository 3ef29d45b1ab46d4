"""Read a source as masked chunks, one at a time, in a thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator

import msgspec

from ctxbackends.knowledge._extract.budget import Budget
from ctxbackends.knowledge._extract.chunker import Chunk, Chunker
from ctxbackends.knowledge._privacy.masking import mask
from ctxbackends.knowledge._records import Speaker
from ctxbackends.knowledge._sources.base import Piece, Segment, SkippedInput, Source
from ctxbackends.knowledge._sources.files import FileSource
from ctxbackends.knowledge._sources.split import size_of


class Reader:
    """Reads the chunks of one source. Call its methods one after the other; ``next_chunk`` blocks."""

    def __init__(self, source: Source, budget: Budget, *, speakers: Collection[Speaker] | None = None) -> None:
        self._budget = budget
        self._chunker = Chunker(source.name, source.unit, budget.chunk_size)
        self._skipped: list[SkippedInput] = []
        self._masked = 0
        self._chunks = self._read_chunks(select_pieces(source, speakers))

    def next_chunk(self) -> Chunk | None:
        """Return the next chunk, or None at the end."""
        self._chunker.size = self._budget.chunk_size
        return next(self._chunks, None)

    def drain(self) -> tuple[list[SkippedInput], int]:
        """Return the skipped input and the number of masked secrets since the last call."""
        result = self._skipped, self._masked
        self._skipped, self._masked = [], 0
        return result

    def _read_chunks(self, pieces: Iterator[Piece]) -> Iterator[Chunk]:
        for piece in pieces:
            if isinstance(piece, SkippedInput):
                self._skipped.append(piece)
                continue
            text, count = mask(piece.text)
            self._masked += count
            yield from self._chunker.add(msgspec.structs.replace(piece, text=text) if count else piece)
        yield from self._chunker.flush()


def select_pieces(source: Source, speakers: Collection[Speaker] | None) -> Iterator[Piece]:
    """Yield the pieces of a source, of a transcript only what these speakers say, and at the end what was left out."""
    if speakers is None:
        yield from source.pieces()
        return
    left_out: Counter[str] = Counter()
    for piece in source.pieces():
        if isinstance(piece, Segment) and piece.speaker is not None and piece.speaker not in speakers:
            left_out[piece.speaker] += 1
        else:
            yield piece
    if left_out:
        counts = ", ".join(f"{count} of {speaker}" for speaker, count in left_out.most_common())
        yield SkippedInput(source=source.name, reason=f"passages of other speakers were left out: {counts}")


def measure_text(source: Source, *, speakers: Collection[Speaker] | None = None) -> int:
    """Return the size of a source's text in bytes. Files know it since ``prepare``."""
    if isinstance(source, FileSource) and source.text_size is not None:
        return source.text_size
    return sum(size_of(piece) for piece in select_pieces(source, speakers) if isinstance(piece, Segment))
