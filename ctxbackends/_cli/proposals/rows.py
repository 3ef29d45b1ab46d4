"""Format a row of a proposal for the terminal and for an editor, and parse it again."""

from __future__ import annotations

import click

from ctxbackends.knowledge._proposals.review import Review
from ctxbackends.knowledge._records import ONLY_FROM_SUMMARY, Row, describe_place, fields_of


def format_row(review: Review, name: str, row: Row) -> str:
    """Return the row with its evidence and decision."""
    verdict = review.verdict(name)
    state = (
        "" if verdict.state == "undecided" else f"  [{verdict.state}{f': {verdict.reason}' if verdict.reason else ''}]"
    )
    lines = [f"{name}  {row.kind}: {row.title}{state}"]
    original = fields_of(review.original_rows()[name].record)
    for number, (field, value) in enumerate(fields_of(row.record).items()):
        if number:
            lines.append(f"    {field}: {value}")
        if field in verdict.fields:
            lines.append(f"      (edited; was: {original[field]})")
    if row.is_only_from_summary:
        lines.append(f"    only evidence: {ONLY_FROM_SUMMARY}")
    if row.known_at is not None:
        lines.append(f"    already in: {row.known_at}")
    for evidence in row.evidence:
        lines += [f"    > {evidence.quote}", f"      {describe_place(evidence)}"]
    return "\n".join(lines)


def edit_row(review: Review, name: str) -> dict[str, str] | None:
    """Open the row in an editor and return its fields; None if nothing was saved. Invalid text is shown again."""
    row = review.row(name)
    text = _format_editable(name, row)
    while True:
        new_text = click.edit(text, extension=".txt", require_save=True)
        if new_text is None:
            return None
        try:
            fields = _parse_edited(row, new_text)
        except ValueError as error:
            text = f"# {error}\n{new_text}"
            continue
        return fields


def _format_editable(name: str, row: Row) -> str:
    quotes = "".join(f"#   {evidence.quote} ({evidence.where})\n" for evidence in row.evidence)
    fields = "".join(f"{field}: {value}\n" for field, value in fields_of(row.record).items())
    head = f"# {name}, {row.kind}. Lines that begin with # are ignored; a field continues on the lines below it.\n"
    return head + quotes + fields


def _parse_edited(row: Row, text: str) -> dict[str, str]:
    fields_before = fields_of(row.record)
    fields: dict[str, str] = {}
    last = None
    for line in text.split("\n"):
        if line.startswith("#") or (not line.strip() and last is None):
            continue
        field, colon, value = line.partition(":")
        if colon and field.strip() in fields_before:
            last = field.strip()
            fields[last] = value.strip()
        elif last is not None:
            fields[last] = f"{fields[last]} {line.strip()}".strip()
        else:
            raise ValueError(f"line outside of a field: {line[:60]!r}; the fields are {', '.join(fields_before)}")
    return fields
