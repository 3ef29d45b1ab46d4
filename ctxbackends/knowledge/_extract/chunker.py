"""Segments into chunks: as much as fits, cut where something begins. Pure; knows no token, no backend and no file.

The size is in bytes of UTF-8. What a chunk may hold in tokens belongs to :mod:`ctxbackends.knowledge._extract.budget`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ctxbackends.knowledge._records import Unit, format_place
from ctxbackends.knowledge._sources.base import Segment
from ctxbackends.knowledge._sources.split import size_of, split_at, split_to_fit

_ENOUGH = 0.5
"""A chunk that is so full ends where a section begins, although more would fit."""

_TAIL = 0.1
"""Of a chunk: more than that is no heading, but something to read of its own."""


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """What one request shows to the model: segments of one source that follow each other. ``index`` counts the chunks
    of a run from 0; the halves of one that was split share it."""

    source: str
    unit: Unit
    segments: tuple[Segment, ...]
    index: int = 0

    @property
    def where(self) -> str:
        """Its place, as people write it."""
        return format_place(self.source, self.unit, self.segments[0].first, self.segments[-1].last)

    @property
    def size(self) -> int:
        """Bytes of text."""
        return sum(size_of(segment) for segment in self.segments)

    def render(self) -> str:
        """The text that the model reads. Each segment begins with its number, by which the model cites it."""
        parts = [f"Source: {self.where}"]
        for segment in self.segments:
            said = " ".join(part for part in (segment.label, segment.timestamp) if part)
            head = f"[{segment.first}]{f' ({said})' if said else ''}"
            parts.append(f"{head} {segment.text}")
        return "\n\n".join(parts)

    def split(self) -> tuple[Chunk, Chunk] | None:
        """The two chunks that it makes, cut near its middle; None where it is one word."""
        if len(self.segments) == 1:
            parts = split_at(self.segments[0], size_of(self.segments[0]) // 2)
            return None if parts is None else (self._of(parts[:1]), self._of(parts[1:]))
        at = _middle(self.segments)
        return self._of(self.segments[:at]), self._of(self.segments[at:])

    def _of(self, segments: Sequence[Segment]) -> Chunk:
        return Chunk(source=self.source, unit=self.unit, segments=tuple(segments), index=self.index)


def _middle(segments: Sequence[Segment]) -> int:
    """Where to cut: near the middle of the bytes, rather where more begins."""
    sizes = [size_of(segment) for segment in segments]
    total, before = sum(sizes) or 1, 0
    best, at = -1.0, 1
    for index in range(1, len(segments)):
        before += sizes[index - 1]
        balance = 1 - abs(2 * before / total - 1)  # 1 in the middle, 0 at the ends
        worth = balance + segments[index].boundary / 4
        if worth > best:
            best, at = worth, index
    return at


class Chunker:
    """Gathers the segments of one source. ``size`` is how many bytes a chunk holds; it may change while it runs."""

    def __init__(self, source: str, unit: Unit, size: int) -> None:
        self._source = source
        self._unit: Unit = unit
        self.size = size
        self._open: list[Segment] = []
        self._held = 0

    def add(self, segment: Segment) -> Iterator[Chunk]:
        """The chunks that are full before ``segment`` is in."""
        for piece in split_to_fit(segment, self._room()):
            size = size_of(piece)
            if self._open and (self._held + size > self.size or self._begins(piece)):
                yield self._chunk()
            self._open.append(piece)
            self._held += size

    def flush(self) -> Iterator[Chunk]:
        """The last chunk, where there is something in it."""
        if self._open:
            yield self._closed()

    def _room(self) -> int:
        """How long a segment may be. A heading is not left alone: what follows it has the room beside it."""
        headed = self._open and self._held <= self.size * _TAIL and all(one.boundary >= 2 for one in self._open)
        return max(1, self.size - self._held) if headed else self.size

    def _begins(self, segment: Segment) -> bool:
        return segment.boundary >= 2 and self._held >= self.size * _ENOUGH

    def _chunk(self) -> Chunk:
        """What is gathered, less a heading or a question at its end: what it is about comes after it."""
        at, moved = len(self._open), 0
        while at > 1 and self._open[at - 1].boundary >= 2 and moved + size_of(self._open[at - 1]) <= self.size * _TAIL:
            at -= 1
            moved += size_of(self._open[at])
        tail = self._open[at:]
        del self._open[at:]
        chunk = self._closed()
        self._open, self._held = tail, moved
        return chunk

    def _closed(self) -> Chunk:
        kept, self._open, self._held = self._open, [], 0
        return Chunk(source=self._source, unit=self._unit, segments=tuple(kept))
