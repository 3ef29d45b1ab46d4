"""The directives ``fields`` and ``observer-events``: lists from the docstrings of value classes and of `Observer`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType
from typing import Any

from docstrings import read_attributes
from docutils import nodes
from docutils.parsers.rst import directives
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from ctxbackends import Observer


def load_class(path: str) -> type:
    """Return the class of ``module:Class``, with the module relative to `ctxbackends`."""
    module, _, name = path.partition(":")
    kind = getattr(import_module(f"ctxbackends.{module}"), name)
    assert isinstance(kind, type)
    return kind


class Definitions(SphinxDirective):
    """The base of directives that show names and their descriptions, written as in docstrings."""

    def build(self, entries: dict[str, str], kinds: Mapping[str, str] = MappingProxyType({})) -> list[nodes.Node]:
        """Return a definition list; the kind of a value follows its name."""
        lines: list[str] = []
        for name, text in entries.items():
            lines += [f"``{name}`` : {kinds[name]}" if name in kinds else f"``{name}``", f"   {text}", ""]
        return self.parse_text_to_nodes(
            "\n".join(["````{eval-rst}", ".. py:currentmodule:: ctxbackends", "", *lines, "````"])
        )


class Fields(Definitions):
    """The fields of a class, such as ``_cli.batch.progress:BatchProgress``, without those of the option ``without``."""

    required_arguments = 1
    option_spec = {"without": directives.unchanged}  # noqa: RUF012  # as docutils has it

    def run(self) -> list[nodes.Node]:
        fields = read_attributes(load_class(self.arguments[0]))
        without = self.options.get("without", "").split()
        if not fields or not fields.keys() >= {*without}:
            raise self.error(f"no such fields: {self.arguments[0]} {' '.join(without)}")
        cls = self.arguments[0].partition(":")[2]
        links = {name: re.sub(r":attr:`(\w+)`", rf":attr:`{cls}.\1`", text) for name, text in fields.items()}
        return self.build({name: text for name, text in links.items() if name not in without})


class ObserverEvents(Definitions):
    """The methods of `Observer` that are called with facts, in their order."""

    def run(self) -> list[nodes.Node]:
        texts = {name: inspect.getdoc(method) or "" for name, method in vars(Observer).items() if callable(method)}
        events = {name: " ".join(text.split()) for name, text in texts.items() if text.startswith("Handle ")}
        return self.build({name: text[7].upper() + text[8:] for name, text in events.items()})


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("fields", Fields)
    app.add_directive("observer-events", ObserverEvents)
    return {"parallel_read_safe": True}
