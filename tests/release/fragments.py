"""Check the changelog's fragments in docs/changes: their names, and that each is one sentence.

`python -m tests.release.fragments` prints the problems.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

DIRECTORY = Path(__file__).parents[2] / "docs" / "changes"
TYPES = ("removed", "deprecated", "added", "changed", "fixed")  # as in pyproject.toml
_NAME = re.compile(rf"(?:[1-9]\d*|\+[\w-]+)\.(?:{'|'.join(TYPES)})(?:\.[1-9]\d*)?\.md")
_CODE = re.compile(r"(`+).*?\1", re.DOTALL)
_END = re.compile(r"[.!?][\"')]*(?=\s+[A-Z]|$)")


def find_problem(name: str, text: str) -> str | None:
    """Return the problem of a fragment and what to do, None if there is none."""
    if not _NAME.fullmatch(name):
        name_forms = "<issue>.<type>.md, <issue>.<type>.<number>.md or +<word>.<type>.md"
        return f"not a valid name; use {name_forms} with a type of {', '.join(TYPES)}"
    paragraph = text.strip()
    if not paragraph:
        return "empty; write a sentence"
    if re.search(r"\n\s*\n", paragraph) or re.search(r"^\s*(?:[-*#>|]|\d+\.)\s", paragraph, re.MULTILINE):
        return "more than a paragraph; write a file for each change"
    prose = _CODE.sub("Code", paragraph)
    ends = [end.end() for end in _END.finditer(prose)]
    if not ends or ends[-1] != len(prose):
        return "no period at the end"
    if len(ends) > 1:
        return f"{len(ends)} sentences; write a file for each change"
    return None


def check(directory: Path) -> list[str]:
    """Return a line for each problem."""
    files = sorted(path for path in directory.iterdir() if path.name != ".gitkeep")
    problems = ((path, find_problem(path.name, path.read_text("utf-8"))) for path in files)
    return [f"docs/changes/{path.name}: {problem}" for path, problem in problems if problem is not None]


if __name__ == "__main__":
    sys.exit("\n".join(check(DIRECTORY)) or None)
