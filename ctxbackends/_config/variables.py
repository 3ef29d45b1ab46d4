"""References to environment variables in settings: ``${NAME}``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ctxbackends.errors import MissingKeyError

ENV_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
_REFERENCE = re.compile(rf"\$\{{({ENV_NAME.pattern})\}}", re.ASCII)
REFERENCE_HINT = "write a variable as ${NAME}, with letters, digits and _"


def find_variables(text: str) -> Sequence[str]:
    """Return the names of the variables that ``text`` refers to, in their order."""
    return _REFERENCE.findall(text)


def remove_references(text: str) -> str:
    """Return ``text`` with a space for each reference."""
    return _REFERENCE.sub(" ", text)


def has_broken_reference(text: str) -> bool:
    """Return whether ``text`` has a ``${`` that is not a reference."""
    return "${" in remove_references(text)


def read_variable(name: str, environ: Mapping[str, str], *, backend: str, purpose: str) -> str:
    """Return the value of a variable.

    Raises:
        MissingKeyError: The variable is unset or empty.
    """
    value = environ.get(name, "")
    if not value:
        raise MissingKeyError(name, backend=backend, purpose=purpose)
    return value


def expand_variables(text: str, environ: Mapping[str, str], *, backend: str, purpose: str) -> str:
    """Return ``text`` with each reference replaced by the value of its variable.

    Raises:
        MissingKeyError: A variable is unset or empty.
    """
    return _REFERENCE.sub(lambda match: read_variable(match[1], environ, backend=backend, purpose=purpose), text)
