"""The directive ``command``: the usage, the arguments and the options of a command, from click.

sphinx-click writes them, as reStructuredText; it does not read the path of a lazy command.
"""

from __future__ import annotations

import re
from typing import Any

import click
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective
from sphinx_click.ext import ClickDirective

from ctxbackends._cli.root import ctxbackends_group


class Command(SphinxDirective):
    """Describe the command whose words are the argument, such as ``config set``."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        return self.parse_text_to_nodes(f"````{{eval-rst}}\n.. command-rst:: {self.arguments[0]}\n````")


class CommandRST(ClickDirective):
    """Describe a command, without a heading."""

    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        self.env = self.state.document.settings.env
        parent: click.Context | None = None
        name, command = "ctxbackends", ctxbackends_group
        for word in self.arguments[0].split():
            parent = click.Context(command, info_name=name, parent=parent)
            name, command = word, command.get_command(parent, word)
            if command is None:
                raise self.error(f"no such command: {self.arguments[0]}")
        [section] = self._generate_nodes(name, command, parent, "short")
        return list(section.children[1:])


def escape_markup(_app: Sphinx, _context: click.Context, lines: list[str]) -> None:
    """Keep the help as it is written: it is not reStructuredText."""
    for index, line in enumerate(lines):
        if not line.lstrip().startswith((":", "..")):
            lines[index] = re.sub(r"(?<!\*)\*(?!\*)|[`|]", r"\\\g<0>", line)


def drop_hidden_arguments(_app: Sphinx, context: click.Context, lines: list[str]) -> None:
    """Leave out the arguments of `extract`, which its help does not show."""
    if any(isinstance(param, click.Argument) and param.metavar == "" for param in context.command.params):
        lines.clear()


def setup(app: Sphinx) -> dict[str, Any]:
    app.setup_extension("sphinx_click")
    app.add_directive("command", Command)
    app.add_directive("command-rst", CommandRST)
    for part in ("description", "options", "arguments"):
        app.connect(f"sphinx-click-process-{part}", escape_markup)
    app.connect("sphinx-click-process-arguments", drop_hidden_arguments)
    return {"parallel_read_safe": True}
