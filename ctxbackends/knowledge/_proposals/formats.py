"""Accepted rows as Markdown to read, and as CSV for spreadsheets."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator, Mapping

from ctxbackends._util.text import one_line, pluralize
from ctxbackends.knowledge._proposals.export import rename_field
from ctxbackends.knowledge._proposals.model import Proposal, name_section
from ctxbackends.knowledge._records import ONLY_FROM_SUMMARY, Evidence, Row, describe_place, fields_of

# --- Markdown -------------------------------------------------------------------------------------------

_MARKUP = re.compile(r"[\\<\[&]")
_BLOCK_START = re.compile(r"[#>*+=|~`:_-]")
_NUMBER_START = re.compile(r"(\d+)([.)])(?=\s|$)")


def render_markdown(proposal: Proposal, rows: Mapping[str, Row]) -> str:
    """Return rows of a proposal as a document, with a section for each kind."""
    facts = proposal.facts
    sources = ", ".join(escape(one.name) for one in facts.inputs)
    lines = [f"# {pluralize(len(rows), 'row')} from {sources}", "", f"Accepted in the proposal `{facts.id}`."]
    for kind in dict.fromkeys(str(row.kind) for row in rows.values()):
        lines += ["", f"## {name_section(kind)}"]
        for row in rows.values():
            if str(row.kind) == kind:
                lines += ["", f"### {escape(row.title)}", "", *_format_fields(row), *format_quotes(row)]
    return "\n".join(lines) + "\n"


def _format_fields(row: Row) -> Iterator[str]:
    _, *fields_after_title = fields_of(row.record).items()
    fields = {name.replace("_", " ").capitalize(): value for name, value in fields_after_title}
    fields |= {"Only evidence": ONLY_FROM_SUMMARY} if row.is_only_from_summary else {}
    fields |= {"Already in": row.known_at} if row.known_at is not None else {}
    lines = [f"- **{label}:** {escape(value)}" for label, value in fields.items() if value.strip()]
    yield from [*lines, ""] if lines else []


def format_quotes(row: Row) -> Iterator[str]:
    """Yield the lines of the quotes, each with its place, its speaker and its time."""
    for number, evidence in enumerate(row.evidence):
        yield from [""] if number else []
        yield from (f"> {escape_start(evidence.quote)}", ">", f"> — {escape(describe_place(evidence))}")


def escape(text: str) -> str:
    """Return a text on one line, without links, images, comments and HTML."""
    return _MARKUP.sub(r"\\\g<0>", one_line(text))


def escape_start(text: str) -> str:
    """Return a text for the start of a line, where some characters start a heading, a list or a rule."""
    text = escape(text)
    number = _NUMBER_START.match(text)
    if number is not None:
        return f"{number[1]}\\{text[number.end(1) :]}"
    return f"\\{text}" if _BLOCK_START.match(text) else text


# --- CSV ------------------------------------------------------------------------------------------------

_FIRST_COLUMNS = ("proposal", "row", "kind", "title")
_LAST_COLUMNS = ("quote", "match", "speaker", "source", "unit", "first", "last", "time", "session", "branch")
# Spreadsheets take these for a formula, also in full width; tabs and line ends before one are skipped:
# https://owasp.org/www-community/attacks/CSV_Injection. An apostrophe is doubled, so that all can be undone.
_FORMULA = re.compile("['=+\\-@\uff1d\uff0b\uff0d\uff20\t\r\n\0]")


def render_csv(proposal: Proposal, rows: Mapping[str, Row]) -> str:
    """Return rows of a proposal as CSV with a header, one line for each quote."""
    names = dict.fromkeys(name for row in rows.values() for name in list(fields_of(row.record))[1:])
    columns = [rename_field(name, (*_FIRST_COLUMNS, *_LAST_COLUMNS)) for name in names]
    output = io.StringIO()
    writer = csv.writer(output, quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writerow(neutralize(cell) for cell in (*_FIRST_COLUMNS, *columns, *_LAST_COLUMNS))
    for name, row in rows.items():
        fields = fields_of(row.record)
        cells = [proposal.facts.id, name, str(row.kind), row.title, *(fields.get(field, "") for field in names)]
        for evidence in row.evidence:
            writer.writerow(neutralize(cell) for cell in (*cells, *_build_evidence_cells(evidence)))
    return output.getvalue()


def _build_evidence_cells(evidence: Evidence) -> tuple[str, ...]:
    place = (evidence.source, evidence.unit, str(evidence.first), str(evidence.last))
    optional = (evidence.timestamp, evidence.session_id, evidence.branch)
    return evidence.quote, evidence.match, evidence.speaker or "", *place, *(value or "" for value in optional)


def neutralize(cell: str) -> str:
    """Return a cell that a spreadsheet does not take for a formula: with an apostrophe before it, if it begins so."""
    return f"'{cell}" if _FORMULA.match(cell) else cell
