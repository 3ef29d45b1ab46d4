"""The parts of docstrings that pages show. The tests use it too, without Sphinx."""

from __future__ import annotations

import inspect
import re


def read_attributes(kind: type) -> dict[str, str]:
    """Return the fields of a class and their descriptions, from the section ``Attributes:`` of its docstring."""
    section = (inspect.getdoc(kind) or "").partition("\nAttributes:\n")[2]
    section = re.split(r"\n(?=\S)", section, maxsplit=1)[0]
    entries = re.split(r"\n(?= {4}\w)", f"\n{section.rstrip()}")[1:]
    return {name.strip(): " ".join(text.split()) for name, _, text in (entry.partition(": ") for entry in entries)}
