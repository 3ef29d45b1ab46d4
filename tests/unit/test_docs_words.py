"""docs/words.txt and the pattern in pyproject.toml: codespell finds each of its phrases, and few others."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PATTERN = re.compile(tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["codespell"]["regex"])
ENTRIES = [line.partition("->")[0] for line in (ROOT / "docs" / "words.txt").read_text("utf-8").splitlines()]


def find_entries(line: str) -> list[str]:
    """Return the entries of the dictionary that codespell finds in a line."""
    return [match[0] for match in PATTERN.finditer(line) if match[0].lower() in ENTRIES]


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
