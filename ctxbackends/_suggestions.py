"""Suggestions for a name that is not known."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import attrs

T = TypeVar("T")
_NONE: Mapping[str, str] = MappingProxyType({})


def suggest(name: str, known: Iterable[str], other_names: Mapping[str, str] = _NONE) -> str:
    """Return the advice after the name of something unknown.

    Args:
        name: The unknown name.
        known: The names that are known.
        other_names: The names of other programs, with the known name or an advice in several words.
    """
    names = list(dict.fromkeys(known))
    meant = find_similar(name, names, other_names)
    if meant is None:
        return f"use one of {', '.join(names)}"
    return f"did you mean {meant}?" if meant in names else meant


def find_similar(name: str, known: Iterable[str], other_names: Mapping[str, str] = _NONE) -> str | None:
    """Return the known name or the advice that ``name`` may mean, None if there is none."""
    from difflib import get_close_matches  # noqa: PLC0415  # needed only after a mistake

    names = {fold(one): one for one in known}
    meant = other_names.get(name) or other_names.get(name.casefold()) or names.get(fold(name))
    if meant is not None:
        return meant
    return next((names[one] for one in get_close_matches(fold(name), names, n=1)), None)


def fold(name: str) -> str:
    """Return the letters and digits of a name in lower case, so that ``llama.cpp`` equals ``llamacpp``."""
    return "".join(filter(str.isalnum, name.casefold())) or name


def suggest_fields(other_names: Mapping[str, str] = _NONE) -> Callable[[type[T]], type[T]]:
    """Return a decorator of an attrs class that raises TypeError with a suggestion for an unknown keyword argument."""

    def decorate(cls: type[T]) -> type[T]:
        init: Any = cls.__init__
        known = [field.name for field in attrs.fields(cls)]  # type: ignore[arg-type]  # an attrs class

        @functools.wraps(init)
        def __init__(self: T, *values: Any, **fields: Any) -> None:  # noqa: N807  # the one of the class
            for name in fields:
                if name not in known:
                    raise TypeError(f"unknown field of {cls.__name__}: {name}; {suggest(name, known, other_names)}")
            init(self, *values, **fields)

        cls.__init__ = __init__  # type: ignore[method-assign,assignment]  # with the same signature
        return cls

    return decorate
