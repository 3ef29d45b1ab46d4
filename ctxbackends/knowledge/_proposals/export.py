"""Accepted rows as JSON for the Go tool: ``ctx decision add --json-file``, ``ctx learning add`` and ``ctx task add``.

Its fields are ``title, context, rationale, consequence`` of a decision, ``title, context, lesson, application`` of a
learning, ``title, body, priority, section`` of a task, and ``provenance`` with ``session_id, branch, commit``. The Go
tool rejects empty fields and placeholders, so they are errors here.
"""

from __future__ import annotations

from typing import Any

from ctxbackends.knowledge._errors import ProposalError
from ctxbackends.knowledge._records import Decision, Learning, Row, Task, fields_of, normalize_title

_REQUIRED = {
    Decision: ("context", "rationale", "consequence"),
    Learning: ("context", "lesson", "application"),
}
_PLACEHOLDERS = frozenset({"tbd", "todo", "n a", "na", "none", "unknown", "fixme", "xxx", "pending", "see above"})


def build_payload(name: str, row: Row, *, proposal: str, section: str | None = None) -> dict[str, Any]:
    """Return a row as a JSON object, with its citation at the end of ``context`` or as the ``body`` of a task.

    Kinds without a command of the Go tool keep their fields, with ``kind`` and ``source``.

    Args:
        name: The name of the row.
        row: The row.
        proposal: The id of its proposal, for the error.
        section: The section of ``TASKS.md`` for a task.

    Raises:
        ProposalError: The Go tool would reject the row.
    """
    record = row.record
    source = "; ".join(evidence.where for evidence in row.evidence)
    fields: dict[str, Any] = fields_of(record)
    for field in _REQUIRED.get(type(record), ()):
        if not fields[field] or normalize_title(fields[field]) in (*_PLACEHOLDERS, ""):
            raise ProposalError(
                f"{name} has no {field}, which ctx {row.kind} add requires; "
                f"add one with ctxbackends proposals edit {proposal} {name} --set {field}=..."
            )
    if isinstance(record, Decision | Learning):
        fields["context"] = f"{fields['context']} [source: {source}]"
    elif isinstance(record, Task):
        fields = {"title": record.summary, "body": f"[source: {source}]", "priority": record.priority}
        if section is not None:
            fields["section"] = section
    else:
        return {"kind": str(row.kind), **fields, "source": [evidence.where for evidence in row.evidence]}
    provenance = _build_provenance(row)
    return fields | ({"provenance": provenance} if provenance else {})


def _build_provenance(row: Row) -> dict[str, str]:
    provenance = {}
    for name in ("session_id", "branch"):
        value = next((value for one in row.evidence if (value := getattr(one, name)) is not None), None)
        if value is not None:
            provenance[name] = value
    return provenance
