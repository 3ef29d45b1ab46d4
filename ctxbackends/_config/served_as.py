"""The setting `served_as`: names that a server may answer with for the requested model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

ANY_MODEL = "*"
"""The key for names that count as every requested model."""

_PROBLEM = "must be a list of model names, or a mapping from a requested name to one name or a list of them"


def normalise_served_as(value: object) -> dict[str, tuple[str, ...]]:
    """Return the accepted names by requested name; a list is for :data:`ANY_MODEL`.

    Raises:
        ValueError: The value is neither a list nor a mapping, or a name is not valid.
    """
    entries = value if isinstance(value, Mapping) else {ANY_MODEL: value}
    if not isinstance(value, Mapping) and (isinstance(value, str) or not isinstance(value, Sequence)):
        raise ValueError(_PROBLEM)
    names: dict[str, tuple[str, ...]] = {}
    for requested, served in entries.items():
        listed = (served,) if isinstance(served, str) else served
        if not isinstance(listed, Sequence) or not listed:
            raise ValueError(_PROBLEM)
        if not all(isinstance(name, str) and name and name == name.strip() for name in (requested, *listed)):
            raise ValueError("must contain model names without leading or trailing white space")
        names[requested] = tuple(listed)
    if not names:
        raise ValueError(_PROBLEM)
    return names
