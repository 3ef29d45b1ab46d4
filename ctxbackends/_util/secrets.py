"""Holders of secrets that do not show them: what a repr gives ends in logs and, with the locals of frames, in reports
of errors. Knows no configuration and no HTTP.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping


class Secret:
    """A text that is handed out by :meth:`reveal` alone."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "<secret>"


class MaskedHeaders(dict[str, str]):
    """Headers, of which a repr shows the names."""

    def __repr__(self) -> str:
        return f"<headers {', '.join(self)}>"

    __str__ = __repr__


class _Environment(Mapping[str, str]):
    """The process's environment as it is at each look, of which a repr shows nothing: it holds every key there is."""

    def __getitem__(self, name: str) -> str:
        return os.environ[name]

    def __iter__(self) -> Iterator[str]:
        return iter(os.environ)

    def __len__(self) -> int:
        return len(os.environ)

    def __repr__(self) -> str:
        return "<environment>"


ENVIRONMENT: Mapping[str, str] = _Environment()


def exception_chain(error: BaseException) -> list[BaseException]:
    """``error``, and those that it came from: each has a traceback, whose frames have values."""
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is not None and all(one is not other for other in found):
            found.append(one)
            left += [one.__cause__, one.__context__]
    return found
