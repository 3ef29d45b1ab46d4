"""Objects with connections, which cannot be pickled or copied."""

from __future__ import annotations

from typing import ClassVar, NoReturn, SupportsIndex


class NotPicklable:
    """A base class whose objects raise TypeError when they are pickled or copied."""

    __slots__ = ()

    _not_picklable: ClassVar[str] = "it has connections; store its BackendConfig and create a new one from it"
    """The reason, and what to do instead."""

    def __reduce_ex__(self, protocol: SupportsIndex) -> NoReturn:
        raise TypeError(f"cannot pickle or copy a {type(self).__name__}: {self._not_picklable}")
