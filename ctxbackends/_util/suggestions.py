"""Suggestions for a name that is not known."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from difflib import get_close_matches
from types import MappingProxyType

_NONE: Mapping[str, str] = MappingProxyType({})


def suggest(name: str, known: Iterable[str], other_names: Mapping[str, str] = _NONE) -> str:
    """Return the advice after the name of something unknown.

    Args:
        name: The unknown name.
        known: The names that are known.
        other_names: The names of other programs, with the known name or an advice in several words.
    """
    names = list(dict.fromkeys(known))
    meant = other_names.get(name) or _find_similar(name, names)
    if meant is None:
        return f"use one of {', '.join(names)}"
    return meant if " " in meant and meant not in names else f"did you mean {meant}?"


def _find_similar(name: str, names: list[str]) -> str | None:
    folded = {fold(known): known for known in names}
    return folded.get(fold(name)) or next(iter(get_close_matches(name.casefold(), names, n=1)), None)


def fold(name: str) -> str:
    """Return the letters and digits of a name in lower case, so that ``llama.cpp`` equals ``llamacpp``."""
    return "".join(filter(str.isalnum, name.casefold()))
