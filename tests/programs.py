"""The complete programs on a page of the documentation, and what each prints.

In a section, the first Python block is the program and the last text block is its output.
"""

from __future__ import annotations

import io
from collections.abc import Iterable
from contextlib import redirect_stdout
from unittest import mock

import attrs

from tests.pages import BLOCK, read_sections


@attrs.frozen
class Section:
    """A section of a page.

    Attributes:
        title: Its heading.
        blocks: The language and the text of each code block.
    """

    title: str
    blocks: tuple[tuple[str, str], ...]

    def texts(self, language: str) -> list[str]:
        """Return the blocks of a language."""
        return [text for name, text in self.blocks if name == language]

    @property
    def program(self) -> str:
        """The program."""
        return self.texts("python")[0]

    @property
    def output(self) -> str:
        """The output that the page shows."""
        return self.texts("text")[-1]


def sections(page: str) -> dict[str, Section]:
    """Return the sections of a page that have a program, by their titles."""
    found = [
        Section(title, tuple((match[1], match[2]) for match in BLOCK.finditer(text)))
        for title, text in read_sections(page).items()
    ]
    return {section.title: section for section in found if section.texts("python")}


def run_program(code: str, lines: Iterable[str] = ()) -> str:
    """Run a program, and return what it prints.

    Args:
        code: The program.
        lines: What a user types when the program asks.
    """
    answers = iter(lines)

    def read_line(prompt: str = "") -> str:
        line = next(answers)
        output.write(f"{prompt}{line}\n")
        return line

    with redirect_stdout(io.StringIO()) as output, mock.patch("builtins.input", read_line):
        exec(compile(code, "program", "exec", dont_inherit=True), {"__name__": "__main__"})  # noqa: S102
    return "".join(f"{line.rstrip()}\n" for line in output.getvalue().splitlines())
