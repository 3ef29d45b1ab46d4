"""The messages in the tables "If it fails" of all pages are messages of the package: each shares a text with it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import ctxbackends

ROOT = Path(__file__).parents[2]
PAGES = [page for folder in ("guides", "knowledge") for page in sorted((ROOT / "docs" / folder).glob("*.md"))]
SECTION = re.compile(r"^## If (?:it fails|a file cannot be read)\n(.*?)(?=^## |\Z)", re.MULTILINE | re.DOTALL)
CELL = re.compile(r"^\| (`{1,2}) ?(.+?) ?\1", re.MULTILINE)
STATUS = re.compile(r"HTTP \d{3}")
SHORTEST = 12  # characters of a text that is not in other messages by chance
OTHERS = {  # pytest's and llama-server's
    "fixture 'llama_backend' not found",
    "async def functions are not natively supported",
    "Context size has been exceeded.",
}


def read_messages() -> list[tuple[str, str]]:
    """Return each quoted message with its page."""
    return [
        (page.stem, match[2])
        for page in PAGES
        for section in SECTION.findall(page.read_text("utf-8"))
        for match in CELL.finditer(section)
    ]


def read_texts() -> Iterator[str]:
    """Yield the string literals of the package, and the literal parts of its f-strings."""
    for path in Path(ctxbackends.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value


MESSAGES = [(page, message) for page, message in read_messages() if message not in OTHERS]
TEXTS = sorted({text for text in read_texts() if len(text) >= SHORTEST}, key=len)


def is_of_the_package(message: str) -> bool:
    if STATUS.match(message):
        return True
    parts = [part.strip() for part in message.split("...") if part.strip()]
    return any(text in message or any(part in text for part in parts) for text in TEXTS)


def test_the_pages_quote_messages() -> None:
    pages = {page for page, _ in MESSAGES}
    assert {"batch", "extract", "formats", "local-server", "review", "streaming", "structured-output", "sync"} <= pages


@pytest.mark.parametrize(("page", "message"), MESSAGES)
def test_a_message_is_of_the_package(page: str, message: str) -> None:
    assert is_of_the_package(message), page


def test_another_message_is_not() -> None:
    assert not is_of_the_package("the moon is full; wait for another one")
