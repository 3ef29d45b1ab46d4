"""Accepted rows for other programs: the fields that each format requires, and the JSON of the Go tool.

``ctx decision add --json-file``, ``ctx learning add`` and ``ctx task add`` read ``title, context, rationale,
consequence`` of a decision, ``title, context, lesson, application`` of a learning, ``title, body, priority, section``
of a task, and ``provenance`` with ``session_id, branch, commit``. They reject unknown fields, so the quotes are in
``context`` and ``body``, and they reject empty fields and placeholders.
"""

from __future__ import annotations

from collections.abc import Container, Mapping
from types import MappingProxyType
from typing import Any, Literal, TypeAlias, get_args

import msgspec

from ctxbackends.knowledge._records import Row, fields_of

Format: TypeAlias = Literal["json", "markdown", "madr", "csv"]
"""A format of the export. ``json`` is that of the Go tool."""

FORMATS: tuple[Format, ...] = get_args(Format)

GO_TOOL_FIELDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"decision": ("context", "rationale", "consequence"), "learning": ("context", "lesson", "application"), "task": ()}
)
"""The kinds that the Go tool has a command for, with the fields that it requires besides the title."""

_REQUIRED: Mapping[Format, Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {"json": GO_TOOL_FIELDS, "madr": {"decision": ("context", "rationale")}, "markdown": {}, "csv": {}}
)
# Those of the Go tool, which compares whole values: internal/assets/i18n/placeholders/en.yaml.
_PLACEHOLDERS = frozenset({"tbd", "n/a", "na", "none", "see chat", "see above", "see below", "pending", "to be done"})


def find_gaps(row: Row, format_: Format) -> dict[str, str]:
    """Return the fields that the format requires and the row does not have, each with its problem."""
    fields = fields_of(row.record)
    problems = {name: _find_problem(fields[name], format_) for name in _REQUIRED[format_].get(str(row.kind), ())}
    return {name: problem for name, problem in problems.items() if problem is not None}


def _find_problem(value: str, format_: Format) -> str | None:
    text = value.strip()
    if not text:
        return "is empty"
    return f"is a placeholder ({text})" if format_ == "json" and text.casefold() in _PLACEHOLDERS else None


def build_payload(row: Row, *, section: str | None = None) -> dict[str, Any]:
    """Return a row as a JSON object.

    The quotes with their places are at the end of ``context``, or the ``body`` of a task. Kinds that the Go tool has no
    command for keep their fields, with ``kind``, ``source`` and ``evidence``.

    Args:
        row: The row, without gaps.
        section: The section of ``TASKS.md`` for a task.
    """
    kind, fields = str(row.kind), fields_of(row.record)
    if kind not in GO_TOOL_FIELDS:
        facts = {"kind": kind, "source": [evidence.where for evidence in row.evidence]}
        facts |= {"evidence": msgspec.to_builtins(row.evidence)}
        values = {name: value for name, value in msgspec.to_builtins(row.record).items() if name != "kind"}
        return {**facts, **{rename_field(name, facts): value for name, value in values.items()}}
    source = "; ".join(f'{evidence.where}: "{evidence.quote}"' for evidence in row.evidence)
    if kind == "task":
        payload = {"title": row.title, "body": f"[source: {source}]", "priority": fields["priority"]}
        payload |= {"section": section} if section is not None else {}
    else:
        payload = {**fields, "context": f"{fields['context']} [source: {source}]"}
    # The Go tool writes texts into Markdown as they are, and finds its index by comments.
    payload = {name: value.replace("<!--", "&lt;!--") for name, value in payload.items()}
    provenance = _build_provenance(row)
    return {**payload, "provenance": provenance} if provenance else payload


def rename_field(name: str, reserved: Container[str]) -> str:
    """Return the name of a field in an export: ``field.NAME`` if something else has its name."""
    return f"field.{name}" if name in reserved else name


def _build_provenance(row: Row) -> dict[str, str]:
    provenance = {}
    for name in ("session_id", "branch"):
        value = next((value for one in row.evidence if (value := getattr(one, name)) is not None), None)
        if value is not None:
            provenance[name] = value
    return provenance
