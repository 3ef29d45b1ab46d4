"""What was proven against which server: a file that the documentation shows, and the tests hold to be true.

A cell is ``proven`` (the server did it), ``refused`` (the SDK says that this server cannot, before anything is sent),
or says in words why there was nothing to prove.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from tests.backends.targets import Target

PATH = Path(__file__).parents[2] / "docs" / "proofs.json"

Proofs = dict[str, dict[str, str]]
"""Column (a server and a wire format) to row (what was tried) to outcome."""

Rows = dict[str, set[str]]
"""Column to rows."""


def column(target: Target) -> str:
    return f"{target.type}, {target.wire_api}, {target.name}"


def load() -> Proofs:
    proofs: Proofs = json.loads(PATH.read_text()) if PATH.exists() else {}
    return proofs


def save(found: Mapping[str, Mapping[str, str]]) -> None:
    """Put the columns that were found into the file, in the place of what it says of them."""
    merged = {**load(), **{name: dict(sorted(rows.items())) for name, rows in found.items()}}
    PATH.write_text(json.dumps(merged, indent=1, sort_keys=True) + "\n")
