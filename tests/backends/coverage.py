"""Test coverage by server: the file that the documentation shows, and that the tests keep correct.

A cell is ``tested`` (the server did it), ``not supported`` (the SDK raises an error before it sends anything), or text
that gives the reason why there is nothing to test.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tests.backends.targets import Target

PATH = Path(__file__).parents[2] / "docs" / "coverage-by-server.json"

Coverage = dict[str, dict[str, str]]
"""Column (a server and a wire format) to row (a test) to outcome."""

Rows = dict[str, set[str]]
"""Column to rows."""


def column(target: Target) -> str:
    return f"{target.type}, {target.wire_api}, {target.name}"


def load() -> Coverage:
    coverage: Coverage = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {}
    return coverage


def save(outcomes: Mapping[str, Mapping[str, str]]) -> None:
    """Replace the columns of these outcomes in the file, and keep the others."""
    result = {**load(), **{name: dict(sorted(rows.items())) for name, rows in outcomes.items()}}
    PATH.write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", encoding="utf-8")
