"""The file format of proposals: Markdown for people, front matter for programs, without loss.

The front matter is YAML with one fact on each line; values are written as JSON. In the body each value is on one line
after a fixed prefix, so a model's text cannot be mistaken for structure. Characters that would start a link, an image,
a comment or HTML are escaped with a backslash.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from ctxbackends._util.text import one_line, pluralize
from ctxbackends.knowledge._errors import KnowledgeError
from ctxbackends.knowledge._own_kinds import record_type_of
from ctxbackends.knowledge._proposals.model import Facts, Proposal, choose_letters, name_section
from ctxbackends.knowledge._records import (
    ONLY_FROM_SUMMARY,
    RECORDS,
    SPEAKERS,
    UNITS,
    Evidence,
    Kind,
    OwnRecord,
    QuarantinedRow,
    Record,
    Row,
    Speaker,
    Unit,
    fields_of,
    format_place,
    kind_of,
    record_of,
    title_of,
)
from ctxbackends.knowledge._sources.base import SkippedInput

FORMAT = 1

_QUARANTINED = "Quarantined"
_NOT_READ = "Not read"
_ALREADY_IN = "Already in"
_ONLY_EVIDENCE = "Only evidence"  # follows from the evidence, so it is not read back
_BETWEEN = " · "

_ESCAPED = re.compile(r"[\\<\[&·]")
_UNESCAPED = re.compile(r"\\(.)")
_AT_START = re.compile(r"(?=[#>*+=|~`:_-])")
_YAML_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_HEADING = re.compile(r"### ([a-z][0-9]+): ?(.*)")
_FIELD = re.compile(r"- \*\*([\w -]+):\*\* ?(.*)")
_LINE_PLACE = re.compile(r"(.+):([0-9]+)(?:-([0-9]+))?")
_SPEAKERS: Mapping[str, Speaker] = {speaker: speaker for speaker in SPEAKERS}
_UNITS: Mapping[str, Unit] = {unit: unit for unit in UNITS}
_UNIT_PLACE = re.compile(rf"(.+), ({'|'.join(unit for unit in UNITS if unit != 'line')}) ([0-9]+)(?:-([0-9]+))?")


class InvalidProposalError(KnowledgeError):
    """The file was changed. ``line`` is the first line with a problem, from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


# --- writing --------------------------------------------------------------------------------------------


def render(proposal: Proposal) -> str:
    """Return the text of the file."""
    return "\n".join([*_format_front(proposal), *_format_head(proposal), *_format_body(proposal), ""])


def _format_front(proposal: Proposal) -> Iterator[str]:
    facts: dict[str, Any] = msgspec.to_builtins(proposal.facts)
    inputs = facts.pop("inputs")
    yield "---"
    yield f"format: {FORMAT}"
    for name, value in facts.items():
        yield f"{name}: {_to_json(value)}"
    yield f"rows: {len(proposal.rows)}"
    yield f"quarantined: {len(proposal.quarantined)}"
    yield f"skipped: {len(proposal.skipped)}"
    yield "inputs:"
    for one in inputs:
        yield f"  - {_to_json(one)}"
    yield "---"


def _to_json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return _YAML_UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", text)


def _format_head(proposal: Proposal) -> Iterator[str]:
    facts = proposal.facts
    sources = [one.name for one in facts.inputs]
    origin = sources[0] if len(sources) == 1 else f"{len(sources)} inputs"
    rows = pluralize(len(proposal.rows), "row")
    yield ""
    yield f"# {rows} from {_escape(origin)}"
    yield ""
    yield (
        f"Proposed by {_escape(facts.served_model or facts.requested_model)} ({_escape(facts.backend_type)} at "
        f"{_escape(facts.endpoint)}) on {facts.created[:10]}. `.context/*.md` was not changed."
    )
    yield f"Review the rows with `ctxbackends proposals review {facts.id}`."


def _format_body(proposal: Proposal) -> Iterator[str]:
    section = None
    for name, row in proposal.rows_by_name().items():
        if row.kind != section:
            section = row.kind
            yield from ("", f"## {name_section(section)}")
        yield from ("", f"### {name}: {_escape(row.title)}".rstrip(), "")
        yield from _format_fields(row.record)
        if row.is_only_from_summary:
            yield _format_field(_ONLY_EVIDENCE, ONLY_FROM_SUMMARY)
        if row.known_at is not None:
            yield _format_field(_ALREADY_IN, row.known_at)
        for evidence in row.evidence:
            yield from ("", f"> {_escape_start(evidence.quote)}", ">", f"> {_format_evidence(evidence)}")
    if proposal.quarantined:
        yield from (
            "",
            f"## {_QUARANTINED}",
            "",
            "These rows have no valid evidence. Accept one with a quote of your own: `ctxbackends proposals requote`.",
        )
    for number, one in enumerate(proposal.quarantined, 1):
        yield from ("", f"### x{number}: {_escape(title_of(one.record))}".rstrip(), "")
        yield _format_field("Kind", kind_of(one.record))
        yield from _format_fields(one.record)
        yield _format_field("Reason", one.reason)
        yield _format_field("Source", one.where)
        yield from ("", f"> {_escape_start(one.quote)}".rstrip())
    if proposal.skipped:
        yield from ("", f"## {_NOT_READ}", "")
    for skipped in proposal.skipped:
        line = [] if skipped.line is None else [f"line {skipped.line}"]
        yield "- " + _BETWEEN.join([_escape_start(skipped.source), *line, _escape(skipped.reason)])


def _format_fields(record: Record) -> Iterator[str]:
    title = record.__struct_fields__[0]
    for name, value in fields_of(record).items():
        if name != title:
            # The names of own fields may differ only in case.
            yield _format_field(name if isinstance(record, OwnRecord) else name.capitalize(), value)


def _format_field(label: str, value: str) -> str:
    return f"- **{label}:** {_escape(value)}".rstrip()


def _format_evidence(evidence: Evidence) -> str:
    parts = [format_place(_escape_start(evidence.source), evidence.unit, evidence.first, evidence.last)]
    for label, value in (
        ("matched", "after folding" if evidence.match == "folded" else None),
        ("speaker", evidence.speaker),
        ("at", evidence.timestamp),
        ("session", evidence.session_id),
        ("branch", evidence.branch),
    ):
        parts += [f"{label} {_escape(value)}"] if value is not None else []
    return _BETWEEN.join(parts)


def _escape(value: str) -> str:
    """Return a text on one line, escaped for the middle of a line."""
    return _ESCAPED.sub(r"\\\g<0>", one_line(value))


def _escape_start(value: str) -> str:
    """Return a text escaped for the start of a line, where some characters start a heading, a list or a rule."""
    return _AT_START.sub(r"\\", _escape(value), count=1) if _AT_START.match(value) else _escape(value)


def _unescape(text: str) -> str:
    return _UNESCAPED.sub(r"\1", text)


def _split_parts(line: str) -> list[str]:
    # The separator is escaped in texts.
    return line.split(_BETWEEN)


# --- reading --------------------------------------------------------------------------------------------


def parse(text: str) -> Proposal:
    """Parse the text of a file. Raise InvalidProposalError if it was changed."""
    return _Reader(text.split("\n")).read_proposal()


class _Reader:
    """Reads the lines once. ``_at`` is the index of the next line."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._at = 0

    def _fail(self, problem: str, *, line: int | None = None) -> NoReturn:
        raise InvalidProposalError(self._at if line is None else line, problem)

    def _next(self) -> str | None:
        """Return the next line that is not empty."""
        while self._at < len(self._lines):
            line = self._lines[self._at].removesuffix("\r")
            self._at += 1
            if line:
                return line
        return None

    def read_proposal(self) -> Proposal:
        facts, counts = self._read_front()
        rows: list[Row] = []
        quarantined: list[QuarantinedRow] = []
        skipped: list[SkippedInput] = []
        section: str | None = None
        self._types = {kind.value: RECORDS[kind] for kind in Kind}
        self._types |= {kind.name: record_type_of(kind) for kind in facts.own_kinds}
        letters = choose_letters(facts.own_kinds)
        kinds = {name_section(kind): kind for kind in letters}
        numbers = dict.fromkeys(letters, 0)
        while (line := self._next()) is not None:
            heading = _HEADING.fullmatch(line)
            if line.startswith("## "):
                section = line[3:]
                if section not in (*kinds, _QUARANTINED, _NOT_READ):
                    self._fail(f"unknown section: {section!r}")
            elif section is None or (section == _QUARANTINED and heading is None):
                continue  # text for people
            elif section == _NOT_READ:
                skipped.append(self._parse_skipped(line))
            elif heading is None:
                self._fail("expected a row, such as ### d1: title")
            elif section == _QUARANTINED:
                quarantined.append(self._read_quarantined(_unescape(heading[2])))
            else:
                kind = kinds[section]
                numbers[kind] += 1
                if heading[1] != f"{letters[kind]}{numbers[kind]}":
                    self._fail(f"expected the row {letters[kind]}{numbers[kind]}")
                rows.append(self._read_row(kind, _unescape(heading[2])))
        for name, items in (("rows", rows), ("quarantined", quarantined), ("skipped", skipped)):
            if counts[name] != len(items):
                self._fail(f"the front matter says {name}: {counts[name]}, but the file has {len(items)}", line=1)
        return Proposal(facts=facts, rows=tuple(rows), quarantined=tuple(quarantined), skipped=tuple(skipped))

    def _read_front(self) -> tuple[Facts, dict[str, int]]:
        if self._next() != "---":
            self._fail("expected --- in the first line", line=1)
        values: dict[str, Any] = {"inputs": []}
        while (line := self._next()) != "---":
            if line is None:
                self._fail("expected --- at the end of the front matter")
            name, colon, value = line.partition(":")
            if line.startswith("  - "):
                values["inputs"].append(self._parse_json(line[4:]))
            elif not colon:
                self._fail("expected a line of the front matter, such as id: value")
            elif name != "inputs":
                values[name] = self._parse_json(value.strip())
        if values.pop("format", None) != FORMAT:
            self._fail(f"unsupported format; only format {FORMAT} is supported", line=1)
        counts = {name: values.pop(name, None) for name in ("rows", "quarantined", "skipped")}
        try:
            return msgspec.convert(values, Facts), msgspec.convert(counts, dict[str, int])
        except msgspec.ValidationError as error:
            self._fail(f"invalid front matter: {error}", line=1)

    def _parse_json(self, text: str) -> Any:
        try:
            return json.loads(text)
        except ValueError:
            self._fail("invalid JSON value")

    def _read_fields(self) -> list[tuple[str, str]]:
        """Read the labels and the texts of the next fields."""
        values = []
        while (line := self._next()) is not None:
            match = _FIELD.fullmatch(line)
            if match is None:
                self._at -= 1
                break
            values.append((match[1], _unescape(match[2])))
        return values

    def _read_quotes(self) -> Iterator[str]:
        """Yield the next lines of block quotes without their marks, and without empty lines."""
        while (line := self._next()) is not None:
            if not line.startswith(">"):
                self._at -= 1
                return
            if line.rstrip() != ">":
                yield line.removeprefix("> ")

    def _build_record(self, kind: str, title: str, values: Iterable[tuple[str, str]]) -> Record:
        record_type = self._types[kind]
        is_own = issubclass(record_type, OwnRecord)
        fields = {label if is_own else label.lower(): value for label, value in values}
        try:
            return record_of(record_type, {record_type.__struct_fields__[0]: title} | fields)
        except ValueError as error:
            self._fail(str(error))

    def _read_row(self, kind: str, title: str) -> Row:
        values = self._read_fields()
        known_at = dict(values).get(_ALREADY_IN)
        record = self._build_record(kind, title, [one for one in values if one[0] not in (_ALREADY_IN, _ONLY_EVIDENCE)])
        quotes = list(self._read_quotes())
        if not quotes or len(quotes) % 2:
            self._fail("expected at least one quote with its place in the next line")
        evidence = tuple(
            self._parse_evidence(_unescape(quote), place)
            for quote, place in zip(quotes[::2], quotes[1::2], strict=True)
        )
        return Row(record=record, evidence=evidence, known_at=known_at)

    def _parse_evidence(self, quote: str, line: str) -> Evidence:
        place, *labels = _split_parts(line)
        extra: dict[str, str] = {}
        for part in labels:
            label, _, value = part.partition(" ")
            extra[label] = _unescape(value)
        unit_match = _UNIT_PLACE.fullmatch(place)
        match = unit_match or _LINE_PLACE.fullmatch(place)
        if match is None or extra.keys() - {"matched", "speaker", "at", "session", "branch"}:
            self._fail("expected a place, such as notes.md:12-14")
        speaker = _SPEAKERS.get(extra.get("speaker", ""))
        if speaker is None and "speaker" in extra:
            self._fail(f"unknown speaker: {extra['speaker']}; the speakers are {', '.join(SPEAKERS)}")
        unit = _UNITS[unit_match[2]] if unit_match is not None else "line"
        first, last = (match[3], match[4]) if unit_match is not None else (match[2], match[3])
        return Evidence(
            source=_unescape(match[1]),
            quote=quote,
            first=int(first),
            last=int(last or first),
            unit=unit,
            match="folded" if "matched" in extra else "exact",
            speaker=speaker,
            timestamp=extra.get("at"),
            session_id=extra.get("session"),
            branch=extra.get("branch"),
        )

    def _read_quarantined(self, title: str) -> QuarantinedRow:
        # Own fields may have the same labels as the first one and the last two.
        (first, kind), *values = self._read_fields() or [("", "")]
        if first != "Kind" or kind not in self._types:
            self._fail(f"unknown kind; the kinds are {', '.join(self._types)}")
        if [label for label, _ in values[-2:]] != ["Reason", "Source"]:
            self._fail("expected the reason and the source of the row")
        *values, (_, reason), (_, where) = values
        record = self._build_record(kind, title, values)
        quote = _unescape(" ".join(self._read_quotes()))
        return QuarantinedRow(record=record, reason=reason, quote=quote, where=where)

    def _parse_skipped(self, line: str) -> SkippedInput:
        source, *rest = _split_parts(line.removeprefix("- "))
        number = re.fullmatch(r"line ([0-9]+)", rest[0]) if len(rest) == 2 else None
        if len(rest) not in (1, 2) or (len(rest) == 2 and number is None):
            self._fail("expected the name of an input and the reason, such as a.pdf · is empty")
        return SkippedInput(
            source=_unescape(source), line=int(number[1]) if number else None, reason=_unescape(rest[-1])
        )
