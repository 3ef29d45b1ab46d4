"""The release notes: a section of CHANGELOG.md."""

from __future__ import annotations

import re


def find_notes(changelog: str, version: str) -> str:
    """Return the section of a version without its heading; empty if there is none."""
    section = re.search(rf"^## {re.escape(version)} \([^\n]*\)\n(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    return section[1].strip() if section else ""
