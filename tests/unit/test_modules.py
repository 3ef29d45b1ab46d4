"""Each module says in its first line what it owns, stays short, and gives a reason for each rule that it breaks."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import ctxbackends

PACKAGE = Path(str(ctxbackends.__file__)).parent
MODULES = {path.relative_to(PACKAGE).as_posix(): path.read_text("utf-8") for path in PACKAGE.rglob("*.py")}
MAX_LINES = 449
MAX_SUMMARY = 100
NOQA = re.compile(r"# noqa(?P<rules>: [A-Z]+[0-9]+(?:, [A-Z]+[0-9]+)*)?(?P<reason>  # \S)?")


def is_summary(docstring: str) -> bool:
    """Return whether the docstring begins with a paragraph of one short line."""
    summary, *more = docstring.splitlines() or [""]
    return summary.endswith(".") and len(summary) <= MAX_SUMMARY and more[:1] in ([], [""])


def test_a_module_says_what_it_owns() -> None:
    docstrings = {name: ast.get_docstring(ast.parse(text)) or "" for name, text in MODULES.items()}
    assert len(MODULES) > 400
    assert {} == {name: docstring for name, docstring in docstrings.items() if not is_summary(docstring)}


def test_a_summary_is_one_short_line() -> None:
    assert is_summary("The URLs of one server.")
    assert is_summary("The URLs of one server.\n\nMore.")
    assert not is_summary("")
    assert not is_summary("The URLs of one server")
    assert not is_summary("The URLs of one\nserver.")
    assert not is_summary(f"{'x' * MAX_SUMMARY}.")


def test_a_module_is_short() -> None:
    lengths = {name: len(text.splitlines()) for name, text in MODULES.items()}
    assert {} == {name: length for name, length in lengths.items() if length > MAX_LINES}


def test_a_broken_rule_is_named_with_the_reason() -> None:
    marks = [(name, match) for name, text in MODULES.items() for match in NOQA.finditer(text)]
    assert marks
    assert [] == [(name, match[0]) for name, match in marks if not (match["rules"] and match["reason"])]
