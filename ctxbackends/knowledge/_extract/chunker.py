"""Group segments into chunks, split at headings and turns, else between paragraphs.

Sizes are in bytes of UTF-8; the budget converts tokens to bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ctxbackends.knowledge._extract.context import Context, label_of, take_context
from ctxbackends.knowledge._records import Unit, format_place
from ctxbackends.knowledge._sources.base import Segment
from ctxbackends.knowledge._sources.split import size_of, split_at, split_to_fit

_MIN_FILL = 0.5
"""A chunk that is at least this full ends before the next section, even if more would fit."""

_MAX_HEADING = 0.1
"""Share of a chunk. A longer section start is content, not a heading that belongs to the next chunk."""


CONTEXT_SHARE = 4
"""The context has at most one part in so many of a chunk."""


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """Consecutive segments of one source that are sent in one request.

    Attributes:
        source: The name of the source.
        unit: The unit of its places.
        segments: The segments, at least one.
        index: The number of the chunk in the run, from 0; both parts of a split chunk keep it.
        context: The end of the chunk before, which is sent too.
        context_lines: The lines of context that a part of this chunk has.
    """

    source: str
    unit: Unit
    segments: tuple[Segment, ...]
    index: int = 0
    context: Context | None = None
    context_lines: int = 0

    @property
    def parts(self) -> tuple[Chunk, ...]:
        """The chunk itself: it has one source."""
        return (self,)

    @property
    def offsets(self) -> tuple[int, ...]:
        """The numbers in the prompt minus those of the source, for each part."""
        return (0,)

    @property
    def where(self) -> str:
        """The place for people to read, such as ``notes.md:12-40``."""
        return format_place(self.source, self.unit, self.segments[0].first, self.segments[-1].last)

    @property
    def size(self) -> int:
        """Size of the text in bytes, without the context."""
        return sum(size_of(segment) for segment in self.segments)

    @property
    def size_sent(self) -> int:
        """Size of the text and its context in bytes."""
        return self.size + (self.context.size if self.context is not None else 0)

    def render(self) -> str:
        """Return the text for the model. Each segment begins with its number, by which the model cites it."""
        return "\n\n".join((f"Source: {self.where}", *self.render_passages()))

    def render_passages(self, offset: int = 0) -> Iterator[str]:
        """Yield the context, then each segment with its number, to which ``offset`` is added."""
        if self.context is not None:
            yield self.context.text
        for segment in self.segments:
            label = label_of(segment)
            yield f"[{segment.first + offset}]{f' ({label})' if label else ''} {segment.text}"

    def split(self) -> tuple[Chunk, Chunk] | None:
        """Split the chunk near its middle; return None if it cannot be split."""
        if len(self.segments) == 1:
            parts = split_at(self.segments[0], size_of(self.segments[0]) // 2)
            return None if parts is None else self._split_segments(parts, 1)
        return self._split_segments(self.segments, _find_middle(self.segments))

    def _split_segments(self, segments: tuple[Segment, ...], at: int) -> tuple[Chunk, Chunk]:
        context = take_context(segments[:at], self.context_lines, self.size // CONTEXT_SHARE)
        return (
            msgspec.structs.replace(self, segments=segments[:at]),
            msgspec.structs.replace(self, segments=segments[at:], context=context),
        )


def _find_middle(segments: Sequence[Segment]) -> int:
    """Return the index to split at: near the middle of the bytes, preferably at a strong boundary."""
    sizes = [size_of(segment) for segment in segments]
    total, before = sum(sizes) or 1, 0
    best_score, at = -1.0, 1
    for index in range(1, len(segments)):
        before += sizes[index - 1]
        balance = 1 - abs(2 * before / total - 1)  # 1 in the middle, 0 at the ends
        score = balance + segments[index].boundary / 4
        if score > best_score:
            best_score, at = score, index
    return at


class Chunker:
    """Group the segments of one source. ``size``, the target in bytes, may change between calls."""

    def __init__(self, source: str, unit: Unit, size: int) -> None:
        self._source = source
        self._unit: Unit = unit
        self.size = size
        self._segments: list[Segment] = []
        self._filled = 0

    def add(self, segment: Segment) -> Iterator[Chunk]:
        """Add a segment; yield the chunks that are full without it."""
        for piece in split_to_fit(segment, self._max_segment_size()):
            size = size_of(piece)
            if self._segments and (self._filled + size > self.size or self._starts_new_chunk(piece)):
                yield self._take_chunk()
            self._segments.append(piece)
            self._filled += size

    def flush(self) -> Iterator[Chunk]:
        """Yield the last chunk, unless it is empty."""
        if self._segments:
            yield self._take_all()

    def _max_segment_size(self) -> int:
        """Return the largest size of a segment. The segment after a heading must fit into the heading's chunk."""
        after_heading = (
            self._segments
            and self._filled <= self.size * _MAX_HEADING
            and all(segment.boundary >= 2 for segment in self._segments)
        )
        return max(1, self.size - self._filled) if after_heading else self.size

    def _starts_new_chunk(self, segment: Segment) -> bool:
        return segment.boundary >= 2 and self._filled >= self.size * _MIN_FILL

    def _take_chunk(self) -> Chunk:
        """Return a chunk of all segments but trailing headings and questions, which belong to the next chunk."""
        at, moved = len(self._segments), 0
        while (
            at > 1
            and self._segments[at - 1].boundary >= 2
            and moved + size_of(self._segments[at - 1]) <= self.size * _MAX_HEADING
        ):
            at -= 1
            moved += size_of(self._segments[at])
        tail = self._segments[at:]
        del self._segments[at:]
        chunk = self._take_all()
        self._segments, self._filled = tail, moved
        return chunk

    def _take_all(self) -> Chunk:
        segments, self._segments, self._filled = self._segments, [], 0
        return Chunk(source=self._source, unit=self._unit, segments=tuple(segments))
