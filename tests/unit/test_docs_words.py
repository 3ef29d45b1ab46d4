"""docs/words.txt and the pattern in pyproject.toml: codespell finds each of its phrases, and few others.

codespell reads line by line. A phrase at the end of a line is found here.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATTERN = re.compile(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["codespell"]["regex"])
PAGES = sorted({*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")} - {*(ROOT / "docs" / "_build").rglob("*.md")})
ENTRIES = [line.partition("->")[0] for line in (ROOT / "docs" / "words.txt").read_text("utf-8").splitlines()]


def find_entries(line: str) -> list[str]:
    """Return the entries of the dictionary that codespell finds in a line."""
    return [match[0] for match in PATTERN.finditer(line) if match[0].lower() in ENTRIES]


def read_texts() -> Iterator[tuple[str, str]]:
    """Yield the pages and the docstrings of the package, with their places."""
    for page in PAGES:
        yield page.name, page.read_text("utf-8")
    for path in sorted((ROOT / "ctxbackends").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                yield f"{path.name}:{getattr(node, 'lineno', 1)}", ast.get_docstring(node) or ""


def find_divided(text: str) -> list[str]:
    """Return the phrases that reach the end of a line of a text."""
    pattern = re.compile(PATTERN.pattern.replace(" ", r"\s"))
    text = re.sub(r"\n[ \t]+", "\n", text)
    matches = [match[0] for match in pattern.finditer(text) if "\n" in text[match.start() : match.end() + 1].strip(" ")]
    phrases = (" ".join(match.split()) for match in matches)
    return [phrase for phrase in phrases if " " in phrase and phrase.lower() in ENTRIES]


@pytest.mark.parametrize("entry", ENTRIES)
def test_an_entry_is_found(entry: str) -> None:
    text = entry.capitalize() if entry == "what " else entry
    assert [text] == find_entries(f"{text}. And more" if entry != "what " else "What is sent again.")


@pytest.mark.parametrize(
    "line",
    [
        "There is no fallback, and there are no exceptions.",
        "It is no longer sent.",
        "requests at all servers; a file is written whole or not at all",
        "What is the capital of France?",
        "It shows what is sent.",
    ],
)
def test_plain_english_is_accepted(line: str) -> None:
    assert [] == find_entries(line)


def test_a_phrase_is_found_in_a_sentence() -> None:
    assert ["is no", "of its own"] == find_entries("A page is no response, and it has a name of its own.")


def test_a_divided_phrase_is_found() -> None:
    text = (
        "It has a name of\n  its own. There is\nno other name of its own. It is no\nlonger a page, but is no\n  answer."
    )
    assert ["of its own", "is no"] == find_divided(text)


def test_no_phrase_is_divided() -> None:
    assert {} == {place: phrases for place, text in read_texts() if (phrases := find_divided(text))}
