"""The extracted records, the evidence for each, and the proposed and quarantined rows. Pure values."""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar, Literal, TypeAlias, get_args, get_origin

import msgspec

from ctxbackends._util.json_text import json_or_text

Unit: TypeAlias = Literal["line", "page", "paragraph", "slide", "cell"]
"""The unit in which places in a source are counted, from 1."""

UNITS: tuple[Unit, ...] = get_args(Unit)

Speaker: TypeAlias = Literal["user", "assistant", "tool", "summary", "system"]
"""The speaker of a passage in a transcript. ``tool`` is a call or its result, ``summary`` a summary of the session that
the agent wrote to shorten its context, ``system`` a message of its program (a notification, a command's output)."""

SPEAKERS: tuple[Speaker, ...] = get_args(Speaker)

Match: TypeAlias = Literal["exact", "folded"]
"""How a quote was found in its source. ``exact``: letter by letter, except white space. ``folded``: word by word,
without differences in case, marks, quotation marks, dashes and the like, or in parts around an ellipsis."""

MATCHES: tuple[Match, ...] = get_args(Match)

Priority: TypeAlias = Literal["low", "medium", "high"]


class Kind(StrEnum):
    """The kinds of records. Proposals and JSON have the value; commands also accept the plural (``PLURALS``)."""

    DECISION = "decision"
    LEARNING = "learning"
    TASK = "task"
    OPEN_QUESTION = "open-question"
    RISK = "risk"
    TERM = "term"


PLURALS: Mapping[str, Kind] = MappingProxyType({f"{kind}s": kind for kind in Kind})


def kinds_of(names: Iterable[str]) -> tuple[Kind, ...]:
    """Return the kinds with these names, singular or plural, without duplicates, in the order of :class:`Kind`.

    Raises:
        ValueError: A name is not a kind; the message lists the kinds.
    """
    kinds = set()
    for name in names:
        kind = PLURALS.get(name.strip().lower()) or PLURALS.get(name.strip().lower() + "s")
        if kind is None:
            raise ValueError(f"unknown kind: {name.strip()!r}; the kinds are {', '.join(PLURALS)}")
        kinds.add(kind)
    return tuple(kind for kind in Kind if kind in kinds)


def speakers_of(names: Iterable[str]) -> tuple[Speaker, ...]:
    """Return the speakers with these names, without duplicates, in the order of ``SPEAKERS``.

    Raises:
        ValueError: A name is not a speaker; the message lists the speakers.
    """
    wanted = {name.strip().lower() for name in names}
    unknown = sorted(wanted - {*SPEAKERS})
    if unknown:
        raise ValueError(f"unknown speaker: {unknown[0]!r}; the speakers are {', '.join(SPEAKERS)}")
    return tuple(speaker for speaker in SPEAKERS if speaker in wanted)


# --- records ----------------------------------------------------------------------------------------
#
# The first field of each is its title, by which rows are compared.


class Decision(msgspec.Struct, frozen=True, tag_field="kind", tag="decision"):
    """A decision.

    Attributes:
        title: The decision in one line.
        context: The reason that it came up.
        rationale: The reason for this choice.
        consequence: The changes that follow from it.
    """

    title: str
    context: str
    rationale: str
    consequence: str


class Learning(msgspec.Struct, frozen=True, tag_field="kind", tag="learning"):
    """Something that the project learned.

    Attributes:
        title: The learning in one line.
        context: How it was learned.
        lesson: The fact that was learned.
        application: How to use it from now on.
    """

    title: str
    context: str
    lesson: str
    application: str


class Task(msgspec.Struct, frozen=True, tag_field="kind", tag="task"):
    """Work that somebody still has to do.

    Attributes:
        summary: The work in one line.
        priority: ``low``, ``medium`` or ``high``.
    """

    summary: str
    priority: Priority


class OpenQuestion(msgspec.Struct, frozen=True, tag_field="kind", tag="open-question"):
    """A question without an answer.

    Attributes:
        question: The question in one line.
        context: Why it matters.
    """

    question: str
    context: str


class Risk(msgspec.Struct, frozen=True, tag_field="kind", tag="risk"):
    """Something that may go wrong.

    Attributes:
        title: The risk in one line.
        impact: The damage if it happens.
        mitigation: The measures against it.
    """

    title: str
    impact: str
    mitigation: str


class Term(msgspec.Struct, frozen=True, tag_field="kind", tag="term"):
    """A term of the project.

    Attributes:
        term: The term.
        definition: Its meaning in this project.
    """

    term: str
    definition: str


class OwnRecord(msgspec.Struct, frozen=True, tag_field="kind", tag="own"):
    """A record of a kind of your own; each kind has a subclass with its fields.

    Attributes:
        schema_of_kind: The JSON Schema of the kind.
    """

    schema_of_kind: ClassVar[Mapping[str, Any]] = MappingProxyType({})


Record: TypeAlias = Decision | Learning | Task | OpenQuestion | Risk | Term | OwnRecord

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


_KINDS: Mapping[str, Kind] = MappingProxyType({kind.value: kind for kind in Kind})


def kind_of(record: Record) -> str:
    """Return the kind of a record: a :class:`Kind`, or the name of a kind of your own."""
    tag = str(record.__struct_config__.tag)
    return _KINDS.get(tag, tag)


def title_of(record: Record) -> str:
    """Return the first field of a record."""
    return str(getattr(record, record.__struct_fields__[0]))


def fields_of(record: Record) -> dict[str, str]:
    """Return the fields by name, in their order, as texts: other values as JSON, and "" for null."""
    return {name: _to_text(getattr(record, name)) for name in record.__struct_fields__}


def _to_text(value: Any) -> str:
    if isinstance(value, str):
        return str(value)
    return "" if value is None else json.dumps(value, ensure_ascii=False)


def record_of(record_type: type[Record], fields: Mapping[str, str]) -> Record:
    """Build a record from its fields as texts, as :func:`fields_of` returns them.

    Raises:
        ValueError: A field is missing, unknown or has an invalid value.
    """
    kind = str(record_type.__struct_config__.tag)
    unknown = set(fields) - set(record_type.__struct_fields__)
    if unknown:
        names = ", ".join(record_type.__struct_fields__)
        raise ValueError(f"unknown field of a {kind}: {', '.join(sorted(unknown))}; the fields are {names}")
    values: dict[str, Any] = dict(fields)
    for field in msgspec.structs.fields(record_type):
        if field.name in fields:
            values[field.name] = _from_text(fields[field.name], field.type)
    try:
        return msgspec.convert({"kind": kind, **values}, record_type)
    except msgspec.ValidationError as error:
        raise ValueError(f"invalid {kind}: {error}") from None


def _from_text(text: str, target: Any) -> Any:
    """Return the value of the type that the text is; the text itself if there is none."""
    is_list = get_origin(target) is list
    choices = (target, *get_args(target))
    if not text and target is not str:
        return [] if is_list else None if type(None) in choices else text
    if not is_list and (target is str or any(get_origin(one) is Literal for one in choices)):
        return text
    return json_or_text(text)


# --- evidence ---------------------------------------------------------------------------------------


def format_place(source: str, unit: Unit, first: int, last: int) -> str:
    """Return a place for people to read: ``notes.md:12-14``, ``paper.pdf, page 3``."""
    span = str(first) if first == last else f"{first}-{last}"
    return f"{source}:{span}" if unit == "line" else f"{source}, {unit} {span}"


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """A verified quote with its place in a source.

    Attributes:
        source: The name of the source.
        quote: The source's own words, on one line.
        first: First line, page or other unit of the quote, from 1.
        last: Last line, page or other unit of the quote.
        unit: The unit of ``first`` and ``last``.
        match: How the model's quote was found in the source.
        speaker: The speaker in a transcript; None in other sources.
        timestamp: Time of a transcript's turn, in the transcript's own format; None in other sources.
        session_id: Session of a transcript; None in other sources.
        branch: Git branch of a transcript; None in other sources.
    """

    source: str
    quote: str
    first: int
    last: int
    unit: Unit = "line"
    match: Match = "exact"
    speaker: Speaker | None = None
    timestamp: str | None = None
    session_id: str | None = None
    branch: str | None = None

    @property
    def where(self) -> str:
        """The place for people to read, with speaker and time: ``notes.md:12-14``, ``s.jsonl:3 (user, 09:05)``."""
        where = format_place(self.source, self.unit, self.first, self.last)
        details = ", ".join(part for part in (self.speaker, self.timestamp) if part)
        return f"{where} ({details})" if details else where


ONLY_FROM_SUMMARY = "a summary that the agent wrote"


def describe_place(evidence: Evidence) -> str:
    """Return the place, the speaker and the time of a quote, and how it was matched."""
    return f"{evidence.where}, matched after folding" if evidence.match == "folded" else evidence.where


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """A record with its verified evidence.

    Attributes:
        record: The record.
        evidence: At least one verified quote.
        known_at: The entry of ``.context/*.md`` with the same title (``DECISIONS.md:12``), or None.
    """

    record: Record
    evidence: tuple[Evidence, ...]
    known_at: str | None = None

    @property
    def kind(self) -> str:
        """The kind of the record: a :class:`Kind`, or the name of a kind of your own."""
        return kind_of(self.record)

    @property
    def title(self) -> str:
        """The first field of the record."""
        return title_of(self.record)

    @property
    def is_only_from_summary(self) -> bool:
        """Whether only summaries of a session support the row, so that nobody may have said it."""
        return bool(self.evidence) and all(evidence.speaker == "summary" for evidence in self.evidence)

    @property
    def key(self) -> str:
        """Kind and normalized title; rows with the same key are duplicates."""
        return f"{self.kind}:{normalize_title(self.title)}"


class QuarantinedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A record without valid evidence; a person can accept it with another quote.

    Attributes:
        record: The record.
        reason: Why its evidence is invalid.
        quote: The quote that the model gave.
        where: The part of the source that was sent to the model; several, separated by semicolons, if equal rows came
            from several parts.
    """

    record: Record
    reason: str
    quote: str
    where: str

    @property
    def key(self) -> tuple[str, ...]:
        """Kind, normalized title and quote, and reason; rows with the same key are equal."""
        return kind_of(self.record), normalize_title(title_of(self.record)), normalize_title(self.quote), self.reason


_SEPARATORS = re.compile(r"[\W_]+")


def normalize_title(title: str) -> str:
    """Return the title for comparison, without differences in Unicode form, case, punctuation and white space."""
    text = unicodedata.normalize("NFKC", title).casefold()
    return _SEPARATORS.sub(" ", text).strip() or text.strip()
