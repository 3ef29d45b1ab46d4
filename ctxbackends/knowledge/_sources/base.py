"""What a source is: named text in pieces with their places. Knows no format and no chunk."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Protocol, TypeAlias

import msgspec

from ctxbackends.knowledge._records import Unit


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """The smallest piece that is not split without need: a paragraph, a heading, a turn.

    ``text`` has no line end at its end. ``first`` and ``last`` are its place, in the source's unit, from 1; where
    ``last - first`` is the number of line ends in ``text``, each of its lines has its own.
    ``starts``: how much begins with it: 2, a section (a heading, a turn of the user); 1, a paragraph or a turn; 0, it
    goes on from the one before. ``label`` says who speaks, or which tool; it is shown to the model and is no part of
    the source's text. ``timestamp``, ``session_id`` and ``branch`` as in :class:`ctxbackends.knowledge.Evidence`.
    """

    text: str
    first: int
    last: int
    boundary: int = 1
    label: str = ""
    timestamp: str | None = None
    session_id: str | None = None
    branch: str | None = None


class SkippedInput(msgspec.Struct, frozen=True, kw_only=True):
    """What was not read, and why: a broken line of a transcript, or the rest of a long tool result. ``line`` is None
    for a whole source."""

    source: str
    reason: str
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.source}{f':{self.line}' if self.line is not None else ''}: {self.reason}"


class Input(msgspec.Struct, frozen=True, kw_only=True):
    """A source as it was when the run began: ``sha256`` (hex) and ``size`` of the bytes that are read."""

    name: str
    sha256: str
    size: int


Piece: TypeAlias = Segment | SkippedInput


class Source(Protocol):
    """Text to read. ``name`` is what citations say, ``path`` the file (None for what is none), ``unit`` what places are
    counted in. Implementations read synchronously: :func:`ctxbackends.knowledge.ingest` calls them in a thread."""

    name: str
    unit: Unit

    @property
    def path(self) -> Path | None: ...

    def prepare(self) -> Input:
        """Read it through once, in constant memory. Raises SourceError where it cannot be used (missing, empty, binary,
        no UTF-8)."""
        ...

    def pieces(self) -> Iterator[Piece]:
        """The segments in their order, and what was skipped. After ``prepare``, as often as wanted. Raises
        SourceChangedError, at the end at the latest, where the bytes are not those that ``prepare`` read; what was
        appended meanwhile is not read and is no change."""
        ...
