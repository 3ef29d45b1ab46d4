"""Pack chunks of consecutive small sources into one request, each below the name of its source."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from typing import TypeAlias

import msgspec

from ctxbackends._util.text import count_bytes
from ctxbackends.knowledge._extract.chunker import Chunk

ANSWER_TOKENS_PER_SOURCE = 256
"""Tokens of the answer for each packed source, about two rows. It limits the sources of a request, so that the answer
has room for the rows of all."""

_SIZE_OF_NUMBER = 10
"""Bytes of a passage's number and of the empty line after it."""


class PackedChunk(msgspec.Struct, frozen=True, kw_only=True):
    """Chunks of several sources that are sent in one request.

    The passages have running numbers: those of the first source are its own, and those of the next continue after the
    last one. So the instructions and the schema are the same for packed and other chunks.

    Attributes:
        parts: The chunks, at least two, each of another source.
        index: The number of the chunk in the run, from 0; both parts of a split chunk keep it.
    """

    parts: tuple[Chunk, ...]
    index: int = 0

    @property
    def offsets(self) -> tuple[int, ...]:
        """The numbers in the prompt minus those of the source, for each part."""
        return tuple(accumulate((part.segments[-1].last for part in self.parts[:-1]), initial=0))

    @property
    def where(self) -> str:
        """The places of all parts for people to read, separated by semicolons."""
        return "; ".join(part.where for part in self.parts)

    @property
    def size(self) -> int:
        """Size of the text in bytes, without the context."""
        return sum(part.size for part in self.parts)

    @property
    def size_sent(self) -> int:
        """Size of the text and its context in bytes."""
        return sum(part.size_sent for part in self.parts)

    def render(self) -> str:
        """Return the text for the model."""
        pieces: list[str] = []
        for part, offset in zip(self.parts, self.offsets, strict=True):
            pieces += (f"Source: {part.source}", *part.render_passages(offset))
        return "\n\n".join(pieces)

    def split(self) -> tuple[AnyChunk, AnyChunk]:
        """Split the chunk between two sources, near its middle."""
        sizes = [*accumulate(part.size for part in self.parts)]
        at = min(range(1, len(sizes)), key=lambda index: abs(2 * sizes[index - 1] - sizes[-1]))
        return join(self.parts[:at], self.index), join(self.parts[at:], self.index)


AnyChunk: TypeAlias = Chunk | PackedChunk


def join(parts: tuple[Chunk, ...], index: int = 0) -> AnyChunk:
    """Return one chunk of these parts."""
    if len(parts) == 1:
        return msgspec.structs.replace(parts[0], index=index)
    return PackedChunk(parts=parts, index=index)


def find_part(chunk: AnyChunk, number: int) -> tuple[int, int]:
    """Return the index of the part that has a passage's number, and the number in its source."""
    at = max((index for index, offset in enumerate(chunk.offsets) if offset < number), default=0)
    return at, number - chunk.offsets[at]


class Packer:
    """Joins the chunks of consecutive sources as long as they fit into one request.

    Chunks of one source are never joined: they were split where a section begins. ``size``, the target in bytes, may
    change between calls.
    """

    def __init__(self, size: int, *, answer_tokens: int) -> None:
        self.size = size
        self._max_sources = max(1, answer_tokens // ANSWER_TOKENS_PER_SOURCE)
        self._parts: list[Chunk] = []
        self._filled = 0

    def add(self, chunk: Chunk, *, ends_source: bool) -> Iterator[AnyChunk]:
        """Add a chunk; yield those that are full. ``ends_source``: it is the last one of its source."""
        size = count_bytes(chunk.source) + chunk.size_sent + _SIZE_OF_NUMBER * len(chunk.segments)
        is_full = self._filled + size > self.size or len(self._parts) == self._max_sources
        if is_full:
            yield from self.flush()
        self._parts.append(chunk)
        self._filled += size
        if not ends_source:
            yield from self.flush()

    def flush(self) -> Iterator[AnyChunk]:
        """Yield the last chunk, unless it is empty."""
        if self._parts:
            yield join(tuple(self._parts))
            self._parts, self._filled = [], 0
