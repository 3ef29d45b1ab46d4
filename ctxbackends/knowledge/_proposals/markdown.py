"""What a proposal's file looks like: Markdown for people, front matter for programs, read back without loss. Pure.

The front matter is YAML, a fact a line, each value as JSON has it. In the body every value is one line behind a fixed
beginning, so that no text of a model can look like something else; characters that would make it a link, an image, a
comment or HTML in a renderer are escaped with a backslash, as Markdown has it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import msgspec

from ctxbackends._util.text import one_line, pluralize
from ctxbackends.knowledge._errors import KnowledgeError
from ctxbackends.knowledge._proposals.model import LETTERS, Facts, Proposal
from ctxbackends.knowledge._records import (
    PLURALS,
    RECORDS,
    Evidence,
    Kind,
    QuarantinedRow,
    Record,
    Row,
    Unit,
    fields_of,
    format_place,
    kind_of,
    record_of,
    title_of,
)
from ctxbackends.knowledge._sources.base import SkippedInput

FORMAT = 1

_SECTIONS = {kind: plural.replace("-", " ").capitalize() for plural, kind in PLURALS.items()}
_QUARANTINED = "Quarantined"
_NOT_READ = "Not read"
_BETWEEN = " · "

_ESCAPED = re.compile(r"[\\<\[&·]")
_UNESCAPED = re.compile(r"\\(.)")
_AT_START = re.compile(r"(?=[#>*+=|~`:_-])")
_YAML_UNSAFE = re.compile("[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")
_HEADING = re.compile(r"### ([a-z][0-9]+): ?(.*)")
_FIELD = re.compile(r"- \*\*([A-Za-z ]+):\*\* ?(.*)")
_IN_LINES = re.compile(r"(.+):([0-9]+)(?:-([0-9]+))?")
_IN_OTHERS = re.compile(r"(.+), (page|paragraph) ([0-9]+)(?:-([0-9]+))?")


class InvalidProposalError(KnowledgeError):
    """The file is not as it was written. ``line`` is where that shows, from 1."""

    def __init__(self, line: int, problem: str) -> None:
        super().__init__(problem)
        self.line = line


# --- writing --------------------------------------------------------------------------------------------


def render(proposal: Proposal) -> str:
    """The whole file."""
    return "\n".join([*_front(proposal), *_head(proposal), *_body(proposal), ""])


def _front(proposal: Proposal) -> Iterator[str]:
    facts: dict[str, Any] = msgspec.to_builtins(proposal.facts)
    inputs = facts.pop("inputs")
    yield "---"
    yield f"format: {FORMAT}"
    for name, value in facts.items():
        yield f"{name}: {_json(value)}"
    yield f"rows: {len(proposal.rows)}"
    yield f"quarantined: {len(proposal.quarantined)}"
    yield f"skipped: {len(proposal.skipped)}"
    yield "inputs:"
    for one in inputs:
        yield f"  - {_json(one)}"
    yield "---"


def _json(value: Any) -> str:
    written = json.dumps(value, ensure_ascii=False)
    return _YAML_UNSAFE.sub(lambda match: f"\\u{ord(match[0]):04x}", written)


def _head(proposal: Proposal) -> Iterator[str]:
    facts = proposal.facts
    sources = [one.name for one in facts.inputs]
    of = sources[0] if len(sources) == 1 else f"{len(sources)} inputs"
    rows = pluralize(len(proposal.rows), "row")
    yield ""
    yield f"# {rows} from {_text(of)}"
    yield ""
    yield (
        f"Proposed by {_text(facts.served_model or facts.requested_model)} ({_text(facts.backend_type)} at "
        f"{_text(facts.endpoint)}) on {facts.created[:10]}. Nothing of it is in `.context/*.md` before somebody puts it"
    )
    yield f"there: `ctxbackends proposals review {facts.id}`."


def _body(proposal: Proposal) -> Iterator[str]:
    section = None
    for name, row in proposal.rows_by_name().items():
        if row.kind is not section:
            section = row.kind
            yield from ("", f"## {_SECTIONS[section]}")
        yield from ("", f"### {name}: {_text(row.title)}".rstrip(), "")
        yield from _fields(row.record)
        if row.known_at is not None:
            yield _field("Known already", row.known_at)
        for evidence in row.evidence:
            yield from ("", f"> {_first(evidence.quote)}", ">", f"> {_place(evidence)}")
    if proposal.quarantined:
        yield from (
            "",
            f"## {_QUARANTINED}",
            "",
            "What the model wrote and the sources do not prove. None of it can be accepted.",
        )
    for number, one in enumerate(proposal.quarantined, 1):
        yield from ("", f"### x{number}: {_text(title_of(one.record))}".rstrip(), "")
        yield _field("Kind", kind_of(one.record))
        yield from _fields(one.record)
        yield _field("Reason", one.reason)
        yield _field("Shown", one.where)
        yield from ("", f"> {_first(one.quote)}".rstrip())
    if proposal.skipped:
        yield from ("", f"## {_NOT_READ}", "")
    for skipped in proposal.skipped:
        line = [] if skipped.line is None else [f"line {skipped.line}"]
        yield "- " + _BETWEEN.join([_first(skipped.source), *line, _text(skipped.reason)])


def _fields(record: Record) -> Iterator[str]:
    title = record.__struct_fields__[0]
    for name, value in fields_of(record).items():
        if name != title:
            yield _field(name.capitalize(), value)


def _field(label: str, value: str) -> str:
    return f"- **{label}:** {_text(value)}".rstrip()


def _place(evidence: Evidence) -> str:
    parts = [format_place(_first(evidence.source), evidence.unit, evidence.first, evidence.last)]
    for label, value in (
        ("at", evidence.timestamp),
        ("session", evidence.session_id),
        ("branch", evidence.branch),
    ):
        parts += [f"{label} {_text(value)}"] if value is not None else []
    return _BETWEEN.join(parts)


def _text(value: str) -> str:
    """A text within a line: on one line, and nothing but text."""
    return _ESCAPED.sub(r"\\\g<0>", one_line(value))


def _first(value: str) -> str:
    """A text at the beginning of a line, where some signs begin a heading, a list or a rule."""
    return _AT_START.sub(r"\\", _text(value), count=1) if _AT_START.match(value) else _text(value)


def _plain(text: str) -> str:
    return _UNESCAPED.sub(r"\1", text)


def _parts(line: str) -> list[str]:
    # The sign in a text is escaped, and so is no separator.
    return line.split(_BETWEEN)


# --- reading --------------------------------------------------------------------------------------------


def parse(text: str) -> Proposal:
    """The proposal that was written as ``text``. Raises BrokenLayoutError."""
    return _Reader(text.split("\n")).proposal()


class _Reader:
    """Goes over the lines once. ``_at`` is the index of the next one."""

    def __init__(self, lines: Sequence[str]) -> None:
        self._lines = lines
        self._at = 0

    def _broken(self, problem: str, *, line: int | None = None) -> NoReturn:
        raise InvalidProposalError(self._at if line is None else line, problem)

    def _next(self) -> str | None:
        """The next line that is not empty."""
        while self._at < len(self._lines):
            line = self._lines[self._at].removesuffix("\r")
            self._at += 1
            if line:
                return line
        return None

    def proposal(self) -> Proposal:
        facts, counts = self._front()
        rows: list[Row] = []
        quarantined: list[QuarantinedRow] = []
        skipped: list[SkippedInput] = []
        section: str | None = None
        kinds = {name: kind for kind, name in _SECTIONS.items()}
        numbers = dict.fromkeys(Kind, 0)
        while (line := self._next()) is not None:
            heading = _HEADING.fullmatch(line)
            if line.startswith("## "):
                section = line[3:]
                if section not in (*kinds, _QUARANTINED, _NOT_READ):
                    self._broken(f"there is no section {section!r}")
            elif section is None or (section == _QUARANTINED and heading is None):
                continue  # what is said to people
            elif section == _NOT_READ:
                skipped.append(self._skipped(line))
            elif heading is None:
                self._broken("a row was expected here, such as ### d1: title")
            elif section == _QUARANTINED:
                quarantined.append(self._quarantined(_plain(heading[2])))
            else:
                kind = kinds[section]
                numbers[kind] += 1
                if heading[1] != f"{LETTERS[kind]}{numbers[kind]}":
                    self._broken(f"the row {LETTERS[kind]}{numbers[kind]} was expected here")
                rows.append(self._row(kind, _plain(heading[2])))
        for name, found in (("rows", rows), ("quarantined", quarantined), ("skipped", skipped)):
            if counts[name] != len(found):
                self._broken(f"says {name}: {counts[name]}, and holds {len(found)}", line=1)
        return Proposal(facts=facts, rows=tuple(rows), quarantined=tuple(quarantined), skipped=tuple(skipped))

    def _front(self) -> tuple[Facts, dict[str, int]]:
        if self._next() != "---":
            self._broken("does not begin with ---", line=1)
        values: dict[str, Any] = {"inputs": []}
        while (line := self._next()) != "---":
            if line is None:
                self._broken("the front matter has no end")
            name, colon, value = line.partition(":")
            if line.startswith("  - "):
                values["inputs"].append(self._value(line[4:]))
            elif not colon:
                self._broken("no fact of a proposal")
            elif name != "inputs":
                values[name] = self._value(value.strip())
        if values.pop("format", None) != FORMAT:
            self._broken(f"is not of format {FORMAT}; a newer ctx may read it", line=1)
        counts = {name: values.pop(name, None) for name in ("rows", "quarantined", "skipped")}
        try:
            return msgspec.convert(values, Facts), msgspec.convert(counts, dict[str, int])
        except msgspec.ValidationError as error:
            self._broken(f"the front matter is not complete: {error}", line=1)

    def _value(self, written: str) -> Any:
        try:
            return json.loads(written)
        except ValueError:
            self._broken("the value is no JSON")

    def _values(self) -> dict[str, str]:
        """The fields that come next, by label."""
        values = {}
        while (line := self._next()) is not None:
            match = _FIELD.fullmatch(line)
            if match is None:
                self._at -= 1
                break
            values[match[1].lower()] = _plain(match[2])
        return values

    def _quotes(self) -> Iterator[str]:
        """The lines of block quotes that come next, without their marks; empty ones are left out."""
        while (line := self._next()) is not None:
            if not line.startswith(">"):
                self._at -= 1
                return
            if line.rstrip() != ">":
                yield line.removeprefix("> ")

    def _record(self, kind: Kind, title: str, values: dict[str, str]) -> Record:
        fields = {RECORDS[kind].__struct_fields__[0]: title} | values
        try:
            return record_of(kind, fields)
        except ValueError as error:
            self._broken(str(error))

    def _row(self, kind: Kind, title: str) -> Row:
        values = self._values()
        known = values.pop("known already", None)
        record = self._record(kind, title, values)
        quotes = list(self._quotes())
        if not quotes or len(quotes) % 2:
            self._broken("each quote has its place below it, and a row has at least one")
        evidence = tuple(
            self._evidence(_plain(quote), format_place)
            for quote, format_place in zip(quotes[::2], quotes[1::2], strict=True)
        )
        return Row(record=record, evidence=evidence, known_at=known)

    def _evidence(self, quote: str, line: str) -> Evidence:
        format_place, *more = _parts(line)
        extra: dict[str, str] = {}
        for part in more:
            label, _, value = part.partition(" ")
            extra[label] = _plain(value)
        others = _IN_OTHERS.fullmatch(format_place)
        match = others or _IN_LINES.fullmatch(format_place)
        if match is None or extra.keys() - {"at", "session", "branch"}:
            self._broken("no place of a source, such as notes.md:12-14")
        unit: Unit = "line" if others is None else "page" if others[2] == "page" else "paragraph"
        first, last = (match[3], match[4]) if others is not None else (match[2], match[3])
        return Evidence(
            source=_plain(match[1]),
            quote=quote,
            first=int(first),
            last=int(last or first),
            unit=unit,
            timestamp=extra.get("at"),
            session_id=extra.get("session"),
            branch=extra.get("branch"),
        )

    def _quarantined(self, title: str) -> QuarantinedRow:
        values = self._values()
        reason, where = values.pop("reason", ""), values.pop("shown", "")
        try:
            kind = Kind(values.pop("kind", ""))
        except ValueError:
            self._broken(f"no kind; there are {', '.join(Kind)}")
        record = self._record(kind, title, values)
        quote = _plain(" ".join(self._quotes()))
        return QuarantinedRow(record=record, reason=reason, quote=quote, where=where)

    def _skipped(self, line: str) -> SkippedInput:
        source, *rest = _parts(line.removeprefix("- "))
        number = re.fullmatch(r"line ([0-9]+)", rest[0]) if len(rest) == 2 else None
        if len(rest) not in (1, 2) or (len(rest) == 2 and number is None):
            self._broken("not what was left out and why")
        return SkippedInput(source=_plain(source), line=int(number[1]) if number else None, reason=_plain(rest[-1]))
