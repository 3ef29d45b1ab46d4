"""The labelled set: 30 texts written for it, each with the rows that a careful reader would extract.

A case is a source in ``cases/<group>/`` and a TOML file of the same name with its labels:

- ``language``: the language of the text.
- ``[[rows]]``: a row that should be found: its ``kind``, the ``quote`` that proves it, ``words`` that its fields must
  contain, and of a task whose text has one the ``priority``.
- ``[[traps]]``: a passage that reads like a row and is none, with its ``kind`` and the sort of ``trap``.

The labels are complete for the kinds of the group, so every other row is wrong.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import attrs
import msgspec

from ctxbackends.knowledge import Evidence, Kind, Segment, source_of
from ctxbackends.knowledge._extract.chunker import Chunk
from ctxbackends.knowledge._extract.citations import QuoteChecker

DIRECTORY = Path(__file__).parent / "cases"

GROUPS: Mapping[str, tuple[Kind, ...]] = {
    "records": (Kind.DECISION, Kind.TASK, Kind.RISK, Kind.TERM),
    "sessions": (Kind.DECISION, Kind.LEARNING, Kind.TASK, Kind.OPEN_QUESTION),
    "minutes": (Kind.DECISION, Kind.TASK, Kind.OPEN_QUESTION, Kind.RISK),
}
"""The kinds that each group is asked for: of records and sessions, those that the commands extract by default."""

TrapKind: TypeAlias = Literal[
    "negated", "superseded", "hypothetical", "rejected", "other-project", "done", "answered", "summary"
]
"""``summary``: a summary of the session that contradicts the user."""


class Label(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A row that should be found."""

    kind: Kind
    quote: str
    words: tuple[str, ...]
    priority: Literal["low", "medium", "high"] | None = None


class Trap(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A passage that must not become a row of this kind."""

    trap: TrapKind
    kind: Kind
    passage: str


class _Labels(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    language: str
    rows: tuple[Label, ...] = ()
    traps: tuple[Trap, ...] = ()


@attrs.frozen(kw_only=True)
class Case:
    """A source with its labels. ``name`` is the name of the source in citations."""

    name: str
    group: str
    path: Path
    language: str
    labels: tuple[Label, ...]
    traps: tuple[Trap, ...]

    @functools.cached_property
    def chunk(self) -> Chunk:
        """The whole source as one chunk."""
        source = source_of(self.path, name=self.name)
        source.prepare()
        segments = tuple(piece for piece in source.pieces() if isinstance(piece, Segment))
        return Chunk(source=self.name, unit=source.unit, segments=segments)

    @functools.cached_property
    def _checker(self) -> QuoteChecker:
        return QuoteChecker(self.chunk)

    def locate(self, quote: str) -> Evidence | str:
        """Return the place of a quote, or the reason why the citation check refuses it."""
        found = self._checker.find(quote, 0)
        return found if isinstance(found, str) else found[0]


def load_cases() -> tuple[Case, ...]:
    """Return all cases, in the order of the groups and of their names."""
    return tuple(
        _load_case(group, path)
        for group in GROUPS
        for path in sorted((DIRECTORY / group).iterdir())
        if path.suffix != ".toml"
    )


def _load_case(group: str, path: Path) -> Case:
    data = tomllib.loads(path.with_suffix(".toml").read_text(encoding="utf-8"))
    labels = msgspec.convert(data, _Labels)
    return Case(
        name=f"{group}/{path.name}",
        group=group,
        path=path,
        language=labels.language,
        labels=labels.rows,
        traps=labels.traps,
    )
