"""Read sources as masked chunks, one at a time, in a thread."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator

import msgspec

from ctxbackends.knowledge._extract.budget import Budget
from ctxbackends.knowledge._extract.chunker import CONTEXT_SHARE, Chunk, Chunker
from ctxbackends.knowledge._extract.context import Context, take_context
from ctxbackends.knowledge._extract.options import RunOptions
from ctxbackends.knowledge._extract.packing import AnyChunk, Packer
from ctxbackends.knowledge._privacy.masking import mask
from ctxbackends.knowledge._records import Speaker
from ctxbackends.knowledge._sources.base import Piece, Segment, SkippedInput, Source
from ctxbackends.knowledge._sources.files import FileSource
from ctxbackends.knowledge._sources.split import size_of


class Reader:
    """Reads the chunks of all sources. Call its methods one after the other; ``next_chunk`` blocks.

    Attributes:
        sources_done: The number of sources whose chunks have all been returned.
    """

    def __init__(self, sources: Iterable[Source], budget: Budget, options: RunOptions) -> None:
        self._sources = sources
        self._budget = budget
        self._options = options
        self._skipped: list[SkippedInput] = []
        self._masked = 0
        self._chunks = self._pack_chunks() if options.pack else self._read_all()
        self.sources_done = 0

    def next_chunk(self) -> AnyChunk | None:
        """Return the next chunk, or None at the end."""
        return next(self._chunks, None)

    def drain(self) -> tuple[list[SkippedInput], int]:
        """Return the skipped input and the number of masked secrets since the last call."""
        result = self._skipped, self._masked
        self._skipped, self._masked = [], 0
        return result

    def _read_all(self) -> Iterator[AnyChunk]:
        for source in self._sources:
            for chunk, _ in self._read_chunks(source):
                yield chunk
            self.sources_done += 1

    def _pack_chunks(self) -> Iterator[AnyChunk]:
        packer = Packer(self._budget.chunk_size, answer_tokens=self._budget.answer_tokens)
        count = 0
        for source in self._sources:
            for chunk, ends_source in self._read_chunks(source):
                packer.size = self._budget.chunk_size
                for packed in packer.add(chunk, ends_source=ends_source):
                    self.sources_done = count
                    yield packed
            count += 1
        yield from packer.flush()
        self.sources_done = count

    def _read_chunks(self, source: Source) -> Iterator[tuple[Chunk, bool]]:
        """Yield the chunks of one source, and whether each is the last. The budget may change between two of them."""
        chunker = Chunker(source.name, source.unit, self._budget.chunk_size)
        context: Context | None = None
        for piece in select_pieces(source, self._options.speakers):
            if isinstance(piece, SkippedInput):
                self._skipped.append(piece)
                continue
            text, count = mask(piece.text)
            self._masked += count
            chunker.size = max(1, self._budget.chunk_size - (context.size if context is not None else 0))
            for chunk in chunker.add(msgspec.structs.replace(piece, text=text) if count else piece):
                yield self._add_context(chunk, context), False
                context = self._take_context(chunk)
        for chunk in chunker.flush():
            yield self._add_context(chunk, context), True

    def _add_context(self, chunk: Chunk, context: Context | None) -> Chunk:
        if not self._options.context_lines:
            return chunk
        return msgspec.structs.replace(chunk, context=context, context_lines=self._options.context_lines)

    def _take_context(self, chunk: Chunk) -> Context | None:
        return take_context(chunk.segments, self._options.context_lines, self._budget.chunk_size // CONTEXT_SHARE)


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
