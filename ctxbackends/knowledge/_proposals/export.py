"""Accepted rows as the JSON that the Go tool's ``ctx decision add --json-file`` takes, and ``learning`` and ``task``.

Its fields are ``title, context, rationale, consequence`` of a decision, ``title, context, lesson, application`` of a
learning, ``title, body, priority, section`` of a task, and ``provenance`` with ``session_id, branch, commit``. It
refuses a field that is empty or a placeholder, so one that would be is refused here, with what to do.
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


def payload(name: str, row: Row, *, proposal: str, section: str | None = None) -> dict[str, Any]:
    """The row as one JSON object. Its citation goes along, at the end of ``context`` or as the ``body`` of a task.
    Kinds that the Go tool has no command for keep their fields, with ``kind`` and ``source``.

    Raises ProposalError for a row that the Go tool would refuse.
    """
    record = row.record
    source = "; ".join(evidence.where for evidence in row.evidence)
    fields: dict[str, Any] = fields_of(record)
    for field in _REQUIRED.get(type(record), ()):
        if not fields[field] or normalize_title(fields[field]) in (*_PLACEHOLDERS, ""):
            raise ProposalError(
                f"{name} has no {field}, which ctx {row.kind} add wants; "
                f"write one: ctxbackends proposals edit {proposal} {name} --set {field}=..."
            )
    if isinstance(record, Decision | Learning):
        fields["context"] = f"{fields['context']} [source: {source}]"
    elif isinstance(record, Task):
        fields = {"title": record.summary, "body": f"[source: {source}]", "priority": record.priority}
        if section is not None:
            fields["section"] = section
    else:
        return {"kind": str(row.kind), **fields, "source": [evidence.where for evidence in row.evidence]}
    provenance = _provenance(row)
    return fields | ({"provenance": provenance} if provenance else {})


def _provenance(row: Row) -> dict[str, str]:
    found = {}
    for name in ("session_id", "branch"):
        value = next((value for one in row.evidence if (value := getattr(one, name)) is not None), None)
        if value is not None:
            found[name] = value
    return found
