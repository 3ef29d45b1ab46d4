"""Values that hide secrets in their repr, since a repr ends up in logs and error reports."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import NoReturn, SupportsIndex


class Secret:
    """A string that only :meth:`reveal` returns."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """Return the secret."""
        return self._text

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "<secret>"

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("cannot pickle or copy a secret")


class MaskedHeaders(dict[str, str]):
    """Headers whose repr shows only the names."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError("cannot pickle or copy headers, which may contain a secret")

    def __repr__(self) -> str:
        return f"<headers {', '.join(self)}>"

    __str__ = __repr__


class _Environment(Mapping[str, str]):
    """A live view of the environment whose repr shows nothing, since it contains the API keys."""

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
    """Return ``error`` and all its causes and contexts."""
    chain: list[BaseException] = []
    pending: list[BaseException | None] = [error]
    while pending:
        one = pending.pop()
        if one is not None and all(one is not other for other in chain):
            chain.append(one)
            pending += [one.__cause__, one.__context__]
    return chain
