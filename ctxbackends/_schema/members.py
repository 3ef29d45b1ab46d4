"""The finished members of a JSON object, or elements of an array, in a text that comes in pieces."""

from __future__ import annotations

import re
from typing import Any

import attrs
import msgspec

_STRUCTURE = re.compile(r'["{}\[\],:]')
_STRING_END = re.compile(r'["\\]')


@attrs.frozen
class Member:
    """A finished member of the object that the model writes, or a finished element of its array.

    Attributes:
        key: The name of the member, or the index of the element.
        value: The JSON value as Python objects, not validated against a type.
    """

    key: str | int
    value: Any


class _InvalidError(Exception):
    """The text is not the JSON that is expected."""


class MemberScanner:
    """Finds members in pieces of text. Reads each character once, and decodes each member once.

    It checks no more of the text than it needs to find members: validate the whole text at the end.
    """

    def __init__(self, *, wrapper: str | None = None) -> None:
        """Initialize the scanner.

        Args:
            wrapper: The name of the root's only member, whose members are to be found instead; None for the root's.
        """
        self._wrapper = wrapper
        self._level = 1 if wrapper is None else 2
        self._depth = 0
        self._in_string = False
        self._is_escaped = False
        self._is_done = False
        self._is_array = False
        self._key: str | int = 0
        self._has_key = False
        self._pieces: list[str] = []  # of the text since the last separator, at depths 0 to level

    def feed(self, piece: str) -> list[Member]:
        """Return the members that end in this piece."""
        members: list[Member] = []
        if not self._is_done:
            try:
                self._scan(piece, members)
            except (_InvalidError, ValueError, RecursionError):  # ValueError: not JSON, or not UTF-8
                self._is_done = True
        return members

    def _scan(self, piece: str, members: list[Member]) -> None:
        start = position = 0  # start: the first character that is not yet in self._pieces
        while position < len(piece) and not self._is_done:
            if self._is_escaped:
                self._is_escaped = False
                position += 1
                continue
            match = (_STRING_END if self._in_string else _STRUCTURE).search(piece, position)
            if match is None:
                break
            position = match.end()
            character = match[0]
            if character == "\\":
                self._is_escaped = True
            elif character == '"':
                self._in_string = not self._in_string
            elif character in "{[":
                self._depth += 1
                if self._depth <= self._level:
                    self._open(self._take(piece[start : position - 1]), character)
                    start = position
            elif self._depth == self._level or (character == ":" and self._depth == 1):
                text = self._take(piece[start : position - 1])
                start = position
                self._separate(text, character, members)
            if character in "}]":
                self._depth -= 1
        self._pieces.append(piece[start:])

    def _take(self, piece: str) -> str:
        text = "".join((*self._pieces, piece))
        self._pieces.clear()
        return text

    def _open(self, before: str, character: str) -> None:
        """Enter the container that has the members, or the wrapper around it."""
        if before.strip() or (self._depth < self._level and character == "["):
            raise _InvalidError
        self._is_array = character == "["
        self._key, self._has_key = 0, False

    def _separate(self, text: str, character: str, members: list[Member]) -> None:
        """End the key or the value before a separator."""
        if character == ":":
            if self._is_array or self._has_key:
                raise _InvalidError
            self._key, self._has_key = msgspec.json.decode(text, type=str), True
            if self._depth < self._level and self._key != self._wrapper:
                raise _InvalidError
            return
        if (character in "}]" and (character == "]") != self._is_array) or (
            text.strip() and not self._is_array and not self._has_key
        ):
            raise _InvalidError
        if text.strip():
            members.append(Member(self._key, msgspec.json.decode(text)))
        elif character == "," or self._has_key:
            raise _InvalidError
        if self._is_array:
            assert isinstance(self._key, int), "the keys of an array are indices"
            self._key += 1
        self._has_key = False
        self._is_done = character in "}]"
