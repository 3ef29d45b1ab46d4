"""The Source protocol: named text in pieces with their places."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TypeAlias

import msgspec

from ctxbackends.knowledge._records import Speaker, Unit


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """A paragraph, heading or turn: the smallest piece that is split only when it is too long.

    Attributes:
        text: The text, without a final line end.
        first: First line, page or paragraph, from 1.
        last: Last line, page or paragraph. If ``last - first`` equals the number of line ends in ``text``, each line
            of ``text`` has its own number.
        boundary: The boundary before the segment: 2 a section (a heading, a turn of the user), 1 a paragraph or a
            turn, 0 none (it continues the segment before).
        label: The speaker or the tool. It is sent to the model, but it is not part of the source's text.
        speaker: As in :class:`ctxbackends.knowledge.Evidence`.
        timestamp: As in :class:`ctxbackends.knowledge.Evidence`.
        session_id: As in :class:`ctxbackends.knowledge.Evidence`.
        branch: As in :class:`ctxbackends.knowledge.Evidence`.
    """

    text: str
    first: int
    last: int
    boundary: int = 1
    label: str = ""
    speaker: Speaker | None = None
    timestamp: str | None = None
    session_id: str | None = None
    branch: str | None = None


class SkippedInput(msgspec.Struct, frozen=True, kw_only=True):
    """Input that was not read, such as an invalid line of a transcript or the rest of a long tool result.

    Attributes:
        source: The name of the source.
        reason: Why it was not read.
        line: The line, from 1; None for a whole source.
    """

    source: str
    reason: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.source}{f':{self.line}' if self.line is not None else ''}: {self.reason}"


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a source at the start of a run.

    Attributes:
        name: The name of the source.
        sha256: Hash of its bytes, in hex.
        size: Its size in bytes.
    """

    name: str
    sha256: str
    size: int


Piece: TypeAlias = Segment | SkippedInput


class Source(Protocol):
    """Text to extract from.

    Implementations read synchronously: :func:`ctxbackends.knowledge.ingest` calls them in a thread.

    Attributes:
        name: The name in citations.
        unit: The unit of its places.
    """

    name: str
    unit: Unit

    @property
    def path(self) -> Path | None:
        """The file; None if the source is not a file."""
        ...

    def prepare(self) -> Input:
        """Read the source once in constant memory and return its size and hash.

        Raises:
            SourceError: It cannot be used: it is missing, empty, binary or not UTF-8.
        """
        ...

    def pieces(self) -> Iterator[Piece]:
        """Yield the segments in order, and the skipped input. Call ``prepare`` first.

        Bytes appended since ``prepare`` are not read, and do not count as a change.

        Raises:
            SourceChangedError: The bytes differ from those that ``prepare`` read. It may be raised only at the end.
        """
        ...
