"""What is found: typed records, the evidence for each, and rows that are proposed or quarantined. Pure values; knows no
backend, no file and no prompt.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Literal, TypeAlias

import msgspec

Unit: TypeAlias = Literal["line", "page", "paragraph"]
"""What the places of a source are counted in, from 1."""

Priority: TypeAlias = Literal["low", "medium", "high"]


class Kind(StrEnum):
    """The kinds of knowledge. The value is what proposals and programs say; ``PLURALS`` what commands take."""

    DECISION = "decision"
    LEARNING = "learning"
    TASK = "task"
    OPEN_QUESTION = "open-question"
    RISK = "risk"
    TERM = "term"


PLURALS: Mapping[str, Kind] = MappingProxyType({f"{kind}s": kind for kind in Kind})


def kinds_of(names: Iterable[str]) -> tuple[Kind, ...]:
    """The kinds of these names, singular or plural, each once, in the order of :class:`Kind`. Raises ValueError that
    lists what there is."""
    wanted = set()
    for name in names:
        found = PLURALS.get(name.strip().lower()) or PLURALS.get(name.strip().lower() + "s")
        if found is None:
            raise ValueError(f"{name.strip()!r} is no kind; the kinds are {', '.join(PLURALS)}")
        wanted.add(found)
    return tuple(kind for kind in Kind if kind in wanted)


# --- records ----------------------------------------------------------------------------------------
#
# The first field of each is its title: what rows are compared by.


class Decision(msgspec.Struct, frozen=True, tag_field="kind", tag="decision"):
    """Something that was decided. ``context``: what prompted it; ``rationale``: why this and nothing else;
    ``consequence``: what changes by it."""

    title: str
    context: str
    rationale: str
    consequence: str


class Learning(msgspec.Struct, frozen=True, tag_field="kind", tag="learning"):
    """Something that was found out. ``context``: how; ``lesson``: what; ``application``: what to do with it."""

    title: str
    context: str
    lesson: str
    application: str


class Task(msgspec.Struct, frozen=True, tag_field="kind", tag="task"):
    """Something that is to be done."""

    summary: str
    priority: Priority


class OpenQuestion(msgspec.Struct, frozen=True, tag_field="kind", tag="open-question"):
    """Something that was asked and not answered."""

    question: str
    context: str


class Risk(msgspec.Struct, frozen=True, tag_field="kind", tag="risk"):
    """Something that may go wrong. ``impact``: what happens then; ``mitigation``: what is done against it."""

    title: str
    impact: str
    mitigation: str


class Term(msgspec.Struct, frozen=True, tag_field="kind", tag="term"):
    """A word of this project, and what it means here."""

    term: str
    definition: str


Record: TypeAlias = Decision | Learning | Task | OpenQuestion | Risk | Term

RECORDS: Mapping[Kind, type[Record]] = MappingProxyType(
    {
        Kind.DECISION: Decision,
        Kind.LEARNING: Learning,
        Kind.TASK: Task,
        Kind.OPEN_QUESTION: OpenQuestion,
        Kind.RISK: Risk,
        Kind.TERM: Term,
    }
)


def kind_of(record: Record) -> Kind:
    return Kind(str(record.__struct_config__.tag))


def title_of(record: Record) -> str:
    return str(getattr(record, record.__struct_fields__[0]))


def fields_of(record: Record) -> dict[str, str]:
    """The fields by name, in their order."""
    return {name: str(getattr(record, name)) for name in record.__struct_fields__}


def record_of(kind: Kind, fields: Mapping[str, str]) -> Record:
    """The record of these fields. Raises ValueError for a field that is missing, unknown or of a wrong value."""
    record = RECORDS[kind]
    unknown = set(fields) - set(record.__struct_fields__)
    if unknown:
        raise ValueError(f"{kind} has no {', '.join(sorted(unknown))}; it has {', '.join(record.__struct_fields__)}")
    try:
        return msgspec.convert({"kind": kind.value, **fields}, record)
    except msgspec.ValidationError as error:
        raise ValueError(f"{kind}: {error}") from None


# --- evidence ---------------------------------------------------------------------------------------


def format_place(source: str, unit: Unit, first: int, last: int) -> str:
    """``notes.md:12-14``, ``paper.pdf, page 3``."""
    span = str(first) if first == last else f"{first}-{last}"
    return f"{source}:{span}" if unit == "line" else f"{source}, {unit} {span}"


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """Where it stands, word for word: ``quote`` was found in ``source`` from ``first`` to ``last``, counted in
    ``unit`` from 1. ``timestamp`` (as the transcript has it), ``session_id`` and ``branch`` are a transcript's."""

    source: str
    quote: str
    first: int
    last: int
    unit: Unit = "line"
    timestamp: str | None = None
    session_id: str | None = None
    branch: str | None = None

    @property
    def where(self) -> str:
        """The place, as people write it: ``notes.md:12-14``, ``paper.pdf, page 3``."""
        where = format_place(self.source, self.unit, self.first, self.last)
        return f"{where} ({self.timestamp})" if self.timestamp else where


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A record with its evidence, each piece of which was found in its source. ``known``: where it stands in
    ``.context/*.md`` already (``DECISIONS.md:12``)."""

    record: Record
    evidence: tuple[Evidence, ...]
    known_at: str | None = None

    @property
    def kind(self) -> Kind:
        return kind_of(self.record)

    @property
    def title(self) -> str:
        return title_of(self.record)

    @property
    def key(self) -> str:
        """Equal for rows that say the same: kind and title, without case, punctuation and white space."""
        return f"{self.kind}:{normalize_title(self.title)}"


class QuarantinedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A record that is not proposed, and the ``reason``. ``quote`` is what the model gave as evidence; ``where`` the
    part of the source that it had been shown."""

    record: Record
    reason: str
    quote: str
    where: str


def normalize_title(title: str) -> str:
    """``title`` as it is compared: compatibility forms, case, punctuation and white space make no difference."""
    text = unicodedata.normalize("NFKC", title).casefold()
    words = "".join(char if char.isalnum() else " " for char in text).split()
    return " ".join(words) or text.strip()
