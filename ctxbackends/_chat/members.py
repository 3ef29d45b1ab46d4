"""Reads dicts that people pass: each member once, so that none is lost, and errors name the place."""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeVar

from ctxbackends._suggestions import suggest

T = TypeVar("T")
_NAMES: Mapping[type[Any], str] = {str: "a string", Mapping: "a dict", list: "a list", bool: "true or false"}


class Members:
    """The members of a dict. None counts as missing.

    Attributes:
        place: The place of the dict, for errors.
        data: The dict.
        rest: The members that are not read yet.

    Raises:
        TypeError: ``data`` is not a dict.
    """

    def __init__(self, data: object, place: str) -> None:
        if not isinstance(data, Mapping):
            raise TypeError(f"{place} must be a dict, not {type(data).__name__}")
        self.place = place
        self.data: Mapping[str, Any] = data
        self.rest = {name: value for name, value in data.items() if value is not None}

    def __contains__(self, name: str) -> bool:
        return name in self.rest

    def path(self, name: str) -> str:
        """Return the place of a member."""
        return f"{self.place}.{name}"

    def take(self, name: str) -> Any:
        """Remove a member, and return its value; None if it is missing."""
        return self.rest.pop(name, None)

    def require(self, name: str, kind: type[T]) -> T:
        """Remove a member, and return its value.

        Raises:
            TypeError: The value is not of type ``kind``.
            ValueError: The member is missing.
        """
        value = self.optional(name, kind)
        if value is None:
            raise ValueError(f"missing member: {self.path(name)}")
        return value

    def optional(self, name: str, kind: type[T]) -> T | None:
        """Remove a member, and return its value; None if it is missing.

        Raises:
            TypeError: The value is not of type ``kind``.
        """
        value = self.rest.pop(name, None)
        if value is not None and not isinstance(value, kind):
            raise TypeError(f"{self.path(name)} must be {_NAMES[kind]}, not {type(value).__name__}")
        return value

    def object(self, name: str) -> Members:
        """Remove a member that is a dict, and return its members."""
        return Members(self.require(name, Mapping), self.path(name))  # type: ignore[type-abstract]  # for isinstance()

    def select(self, name: str, known: Sequence[str], aliases: Mapping[str, str] | None = None) -> str:
        """Remove a member that has one of the ``known`` values, and return it.

        Args:
            name: The name of the member.
            known: The supported values.
            aliases: Other values with the advice for the error.

        Raises:
            ValueError: The value is unknown.
        """
        value = self.require(name, str)
        if value in known:
            return value
        raise ValueError(
            f"unsupported value: {self.path(name)} is {value!r:.80}; {suggest(value, known, aliases or {})}"
        )

    def finish(self, hints: Mapping[str, str] | None = None) -> None:
        """Check that no member is left.

        Args:
            hints: The advice for a member that is known and not supported.

        Raises:
            ValueError: A member is left.
        """
        for name in self.rest:
            hint = (hints or {}).get(str(name), "remove it")
            raise ValueError(f"unsupported member: {self.path(name)}; {hint}")

    def to_json(self, names: Iterable[str]) -> str | None:
        """Remove the members in ``names``, and return them as the text of an object; None if all are missing."""
        members = {name: self.rest.pop(name) for name in names if name in self.rest}
        return dump_json(members, self.place) if members else None


def dump_json(value: object, place: str) -> str:
    """Return the JSON text of a value.

    Raises:
        TypeError: JSON cannot represent the value.
    """
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError, RecursionError) as error:
        raise TypeError(f"{place} must be a JSON value: {error}") from error


def decode_base64(text: str, place: str) -> bytes:
    """Return the data of base64 text.

    Raises:
        ValueError: The text is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(f"{place} must be base64 text") from None
