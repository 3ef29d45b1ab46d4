"""Objects with connections, which cannot be pickled or copied."""

from __future__ import annotations

from typing import NoReturn, SupportsIndex


class NotPicklable:
    """A base class whose objects raise TypeError when they are pickled or copied."""

    __slots__ = ()

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(
            f"cannot pickle or copy a {type(self).__name__}: it has connections; "
            "store its BackendConfig and create a new one from it"
        )
