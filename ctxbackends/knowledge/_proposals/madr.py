"""Decisions as Markdown Any Decision Records (MADR 4.0.0): https://adr.github.io/madr/."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from ctxbackends.knowledge._errors import ProposalError
from ctxbackends.knowledge._proposals.formats import escape, escape_start, format_quotes
from ctxbackends.knowledge._records import ONLY_FROM_SUMMARY, Row, fields_of

_NUMBER = re.compile(r"([0-9]{1,5})-(?![0-9]{2}-[0-9]{2}-).*\.md")  # not a date
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_MAX_SLUG = 60


def render_madr(row: Row, *, name: str, proposal: str, accepted_at: str) -> str:
    """Return a decision as a record.

    Args:
        row: The decision, with a context and a rationale.
        name: The name of the row.
        proposal: The id of its proposal.
        accepted_at: The time of its review. Its day is the date of the record, if no quote has a time.
    """
    title, context, rationale, consequence = fields_of(row.record).values()
    days = sorted(match[0] for one in row.evidence if (match := _DAY.match(one.timestamp or "")))
    return "\n".join(
        [
            *("---", "status: accepted", f"date: {days[-1] if days else accepted_at[:10]}", "---", ""),
            *(f"# {escape(title)}", "", "## Context and Problem Statement", "", escape_start(context), ""),
            *("## Considered Options", "", f"* {escape_start(title)}", ""),
            *("## Decision Outcome", "", f'Chosen option: "{escape(title)}", because {escape(rationale)}', ""),
            *(("### Consequences", "", f"* {escape_start(consequence)}", "") if consequence.strip() else ()),
            *("## More Information", "", *format_quotes(row), ""),
            *((f"The only evidence is {ONLY_FROM_SUMMARY}.", "") if row.is_only_from_summary else ()),
            f"{_format_mark(name, proposal)}.",
            "",
        ]
    )


def _format_mark(name: str, proposal: str) -> str:
    return f"Row `{name}` of the proposal `{proposal}`"


def choose_files(directory: Path, rows: Mapping[str, Row], *, proposal: str) -> dict[str, Path]:
    """Return the file of each decision: the one that it was exported to, else one with the next number.

    Args:
        directory: The directory of the records.
        rows: The decisions by name.
        proposal: The id of their proposal.

    Raises:
        ProposalError: The directory or a record cannot be read.
    """
    try:
        records = {path: match[1] for path in directory.iterdir() if (match := _NUMBER.fullmatch(path.name))}
        texts = {path: path.read_bytes().decode(errors="replace") for path in sorted(records)}
    except OSError as error:
        raise ProposalError(f"cannot read {error.filename}: {error.strerror}") from error
    last = max(records.values(), key=int, default="0000")
    number = int(last)
    files = {}
    for name, row in rows.items():
        mark = f"{_format_mark(name, proposal)}."
        existing = next((path for path, text in texts.items() if mark in text), None)
        if existing is None:
            number += 1
            existing = directory / f"{number:0{len(last)}}-{_slugify(row.title) or name}.md"
        files[name] = existing
    return files


def _slugify(title: str) -> str:
    """Return the title in lower case with dashes between its words, which may have letters of any script."""
    text = unicodedata.normalize("NFKC", title).lower()
    return re.sub(r"[\W_]+", "-", text).strip("-")[:_MAX_SLUG].rstrip("-")
