"""A row of a proposal as people see it, and as they edit it."""

from __future__ import annotations

import click

from ctxbackends.knowledge._proposals.review import Review
from ctxbackends.knowledge._records import Row, fields_of


def row_text(review: Review, name: str, row: Row) -> str:
    decided = review.verdict(name)
    state = (
        "" if decided.state == "undecided" else f"  [{decided.state}{f': {decided.reason}' if decided.reason else ''}]"
    )
    lines = [f"{name}  {row.kind}: {row.title}{state}"]
    original = fields_of(review.proposal.rows_by_name()[name].record)
    for number, (field, value) in enumerate(fields_of(row.record).items()):
        if number:
            lines.append(f"    {field}: {value}")
        if field in decided.fields:
            lines.append(f"      (edited; was: {original[field]})")
    if row.known_at is not None:
        lines.append(f"    already in: {row.known_at}")
    for evidence in row.evidence:
        lines += [f"    > {evidence.quote}", f"      {evidence.where}"]
    return "\n".join(lines)


def in_editor(review: Review, name: str) -> dict[str, str] | None:
    """The fields as a person leaves them; None where they were left as they are. What cannot be read is shown again,
    with the reason."""
    row = review.rows()[name]
    text = _editable(name, row)
    while True:
        returned = click.edit(text, extension=".txt", require_save=True)
        if returned is None:
            return None
        try:
            fields = _read_edited(row, returned)
        except ValueError as error:
            text = f"# {error}\n{returned}"
            continue
        return fields


def _editable(name: str, row: Row) -> str:
    quotes = "".join(f"#   {evidence.quote} ({evidence.where})\n" for evidence in row.evidence)
    fields = "".join(f"{field}: {value}\n" for field, value in fields_of(row.record).items())
    head = f"# {name}, {row.kind}. Lines that begin with # are left out; a field goes on in the lines below it.\n"
    return head + quotes + fields


def _read_edited(row: Row, text: str) -> dict[str, str]:
    known = fields_of(row.record)
    fields: dict[str, str] = {}
    last = None
    for line in text.split("\n"):
        if line.startswith("#") or (not line.strip() and last is None):
            continue
        field, colon, value = line.partition(":")
        if colon and field.strip() in known:
            last = field.strip()
            fields[last] = value.strip()
        elif last is not None:
            fields[last] = f"{fields[last]} {line.strip()}".strip()
        else:
            raise ValueError(f"this line belongs to no field; the fields are {', '.join(known)}: {line[:60]!r}")
    return fields
