"""The public names of a package. Needs no Sphinx."""

from __future__ import annotations

import ast
from importlib import import_module
from pathlib import Path


def public_names(package: str) -> dict[str, str]:
    """Return each public name of a package and the module that defines it, from the imports in its ``__init__``."""
    source = ast.parse(Path(str(import_module(package).__file__)).read_text(encoding="utf-8"))
    imports = (node for node in ast.walk(source) if isinstance(node, ast.ImportFrom))
    return {alias.name: str(node.module) for node in imports for alias in node.names if alias.asname == alias.name}
