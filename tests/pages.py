"""The pages of docs/ as tests read them: their text, their sections and their code blocks."""

from __future__ import annotations

import re
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
"""A code block: its language, and its text."""
_SECTION = re.compile(r"^## (.+)$", re.MULTILINE)


def read_page(name: str) -> str:
    """Return the text of a page, such as ``guides/streaming``."""
    return (DOCS / f"{name}.md").read_text("utf-8")


def read_sections(name: str) -> dict[str, str]:
    """Return the sections of a page by their headings, without what is before the first one."""
    _, *parts = _SECTION.split(read_page(name))
    return dict(zip(parts[::2], parts[1::2], strict=True))


def code_blocks(text: str, language: str) -> list[str]:
    """Return the code blocks of a language."""
    return [match[2] for match in BLOCK.finditer(text) if match[1] == language]
