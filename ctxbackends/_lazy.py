"""Lazy import of a package's public names (PEP 562), as its ``__init__`` lists them."""

from __future__ import annotations

import sys
from importlib import import_module

TYPE_CHECKING = False  # type checkers read it as True
if TYPE_CHECKING:
    from typing import Any


def install(package: str) -> bool:
    """Make the names that ``package`` imports as ``from module import name as name`` importable on first use.

    Call it as ``if TYPE_CHECKING or not install(__name__):`` above these imports. It reads them from the source file,
    sets ``__all__``, ``__getattr__`` and ``__dir__``, and returns True. Without a source file (in a zip archive, or
    byte code alone) it returns False, and the imports run.
    """
    module = sys.modules[package]
    try:
        with open(str(module.__file__), encoding="utf-8") as source:
            homes = {words[5]: words[1] for words in map(str.split, source) if _is_public_import(words)}
    except OSError:
        return False

    def __getattr__(name: str) -> Any:  # noqa: N807  # the one of the module
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        is_submodule = homes[name] == package
        value = import_module(f"{package}.{name}") if is_submodule else getattr(import_module(homes[name]), name)
        setattr(module, name, value)
        return value

    names = sorted(name for name in homes if not name.startswith("_"))
    vars(module).update(__all__=names, __getattr__=__getattr__, __dir__=lambda: names)
    return True


def _is_public_import(words: list[str]) -> bool:
    """Whether they are ``from module import name as name``."""
    return len(words) == 6 and words[0::2] == ["from", "import", "as"] and words[3] == words[5]
