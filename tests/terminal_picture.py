"""Record a session at a real terminal as docs/_static/terminal.svg: ``nox -s picture``."""

from __future__ import annotations

import io
import re
import sys
import tempfile
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

from ctxbackends.local import find_model
from tests.terminals import terminal

ROOT = Path(__file__).parents[1]
PICTURE = ROOT / "docs" / "_static" / "terminal.svg"
COLUMNS = 68
WITHIN = 600.0  # seconds for a command on a busy machine
PROMPT = "$ "

CTXRC = """\
backends:
  - name: local
    type: llamacpp
    model_path: models/smollm2.gguf
"""
LETTER = "Maria Lopez is 34 years old and lives in Lisbon.\n"
COMMANDS = (
    "cat .ctxrc",
    "ctxbackends chat --temperature 0 \\\n  'What is the capital of France? Answer in one sentence.'",
    "cat letter.txt",
    "ctxbackends chat --schema 'name, age int, city' < letter.txt",
    "ctxbackends chat --schema 'name,' --max-tokens 5 < letter.txt",
)

THEME = TerminalTheme(
    (30, 33, 39),
    (222, 226, 234),
    [
        (64, 70, 82),
        (240, 113, 120),
        (126, 211, 133),
        (236, 196, 107),
        (121, 178, 255),
        (212, 150, 240),
        (107, 208, 220),
        (222, 226, 234),
    ],
)
# That of Rich, without its font from a server: the letters keep their columns in any monospaced font.
TEMPLATE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img" aria-labelledby="{unique_id}-title">
<title id="{unique_id}-title">A terminal: the commands and the answers below it</title>
<style>
.{unique_id}-matrix {{
  font: {char_height}px ui-monospace, "Cascadia Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  line-height: {line_height}px;
  font-variant-ligatures: none;
}}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


def record(commands: Sequence[str], directory: Path) -> str:
    """Run the commands in bash at a pseudo-terminal, and return all that it wrote there."""
    shell = f"import os; os.chdir({str(directory)!r}); os.execvp('bash', ['bash', '--norc', '--noprofile', '-i'])"
    path = f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"
    variables = {"PS1": r"\n\[\e[1;32m\]$\[\e[0m\] ", "HISTFILE": "/dev/null", "PATH": path, "LANG": "C.UTF-8"}
    with terminal(program=("-c", shell), columns=COLUMNS, **variables) as bash:
        bash.within = WITHIN
        prompt = "$\x1b[0m "
        position = bash.read_until(prompt)
        for command in commands:
            bash.type(f"{command}\n")
            position = bash.read_until(prompt, after=position)
        bash.type("\x04")  # Ctrl-D
        bash.end()
        return bash.raw[:position]


def styled_lines(raw: str, columns: int = COLUMNS) -> list[Text]:
    """Return the lines that a terminal shows for its output, without the prompt at the end and empty lines around."""
    screen = pyte.Screen(columns, 200)
    pyte.Stream(screen).feed(raw)
    lines = []
    for row in range(screen.lines):
        line = Text()
        for style, cells in groupby((screen.buffer[row][column] for column in range(columns)), cell_style):
            line.append("".join(cell.data for cell in cells), style)
        line.rstrip()
        lines.append(line)
    while lines and lines[-1].plain in ("", PROMPT.rstrip()):
        lines.pop()
    while lines and not lines[0].plain:
        del lines[0]
    return lines


def cell_style(cell: pyte.screens.Char) -> Style:
    def color(name: str) -> str:
        if name == "default" or not name.isalpha():
            return name if name == "default" else f"#{name}"
        return name.replace("brown", "yellow").replace("bright", "bright_")

    return Style(
        color=color(cell.fg),
        bgcolor=None if cell.bg == "default" else color(cell.bg),
        bold=cell.bold,
        italic=cell.italics,
        underline=cell.underscore,
        reverse=cell.reverse,
    )


def draw(lines: Sequence[Text], columns: int = COLUMNS) -> str:
    """Return the lines as an SVG, the same for the same lines."""
    console = Console(
        file=io.StringIO(), record=True, width=columns, force_terminal=True, color_system="truecolor", highlight=False
    )
    for line in [*lines, Text()]:  # the last one keeps the tails of letters
        console.print(line, no_wrap=True, soft_wrap=True)
    svg = console.export_svg(title="", theme=THEME, code_format=TEMPLATE, unique_id="terminal")
    svg = re.sub(r"<text[^>]*>\s*</text>", "", svg)  # the ends of lines
    svg = re.sub(r"\d+\.\d{3,}", lambda number: f"{float(number[0]):.2f}".rstrip("0").rstrip("."), svg)
    return "\n".join(line.strip() for line in svg.splitlines() if line.strip()) + "\n"


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        (directory / ".ctxrc").write_text(CTXRC, "utf-8")
        (directory / "letter.txt").write_text(LETTER, "utf-8")
        (directory / "models").mkdir()
        (directory / "models" / "smollm2.gguf").symlink_to(find_model("smollm2"))
        raw = record(COMMANDS, directory)
    PICTURE.write_text(draw(styled_lines(raw)), "utf-8")


if __name__ == "__main__":
    main()
