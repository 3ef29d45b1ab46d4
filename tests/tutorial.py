"""The files and the commands of docs/tutorial.md."""

from __future__ import annotations

import re
from pathlib import Path

from tests.pages import code_blocks, read_page

FILES = ("ask.py", "chat.py", "weather.py", "test_weather.py")
PAGE = read_page("tutorial")


def texts(language: str) -> list[str]:
    """Return the code blocks of a language."""
    return code_blocks(PAGE, language)


def write_files(directory: Path) -> None:
    """Write the programs and the tests of the page."""
    for name, text in zip(FILES, texts("python"), strict=True):
        (directory / name).write_text(text)
    [settings] = texts("ini")
    (directory / "pytest.ini").write_text(settings)


def sessions() -> list[tuple[str, str]]:
    """Return each command of the page, and what it prints."""
    lines = "".join(texts("console"))
    return re.findall(r"^\$ (.+)\n((?:(?!\$ ).*\n)*)", lines, re.MULTILINE)


def outputs_of(command: str) -> list[str]:
    """Return what the page shows for a command, which it may run more than once."""
    return [output for name, output in sessions() if name == command]


def questions_in(output: str) -> list[str]:
    """Return the lines that a user types in a chat."""
    return [line.removeprefix(">").strip() for line in output.splitlines() if line.startswith(">")]
