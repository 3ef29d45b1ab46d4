"""The base class of all exceptions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ctxbackends._util.text import escape_controls


class BackendError(Exception):
    """Base class of all exceptions of this package.

    Attributes:
        problem: The message without the name of the backend.
        backend: Configured name of the backend; None if the error does not belong to one.
        endpoint: Base URL of the backend; None if it is not known.
        waited: Seconds spent waiting for the server before giving up; None if it was not waited for.
    """

    def __init__(self, problem: str = "", *, backend: str | None = None, endpoint: str | None = None) -> None:
        super().__init__(problem)
        self.problem = problem
        self.backend = backend
        self.endpoint = endpoint
        self.waited: float | None = None

    def __str__(self) -> str:
        where = f'backend "{self.backend}": ' if self.backend else ""
        waited = f" (after waiting {self.waited:.1f} s)" if self.waited is not None else ""
        return f"{where}{escape_controls(self.problem)}{waited}"

    def __reduce__(self) -> tuple[Callable[..., BackendError], tuple[type[BackendError], dict[str, Any]]]:
        # Worker pools pickle exceptions. The default passes only `args` to the class, and fails where keyword
        # arguments are required.
        return _rebuild, (type(self), dict(self.__dict__))


def _rebuild(cls: type[BackendError], attributes: dict[str, Any]) -> BackendError:
    error = cls.__new__(cls, attributes.get("problem", ""))
    error.args = (attributes.get("problem", ""),)
    error.__dict__.update(attributes)
    return error
