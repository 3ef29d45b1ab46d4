r"""Decodes a response strictly where it is the answer, and leniently outside it.

The structs of a format say which is which. A member of the answer (text, tool calls, reasoning, finish reason, error)
has a plain type, and a value of another type is an error. A member outside the answer (token counts, log-probabilities,
IDs, names, times) has the type ``Lenient[T]``: a value that is not a ``T``, and cannot be read as one, is None.

A decoder first decodes strictly, which costs nothing for the common response. Only if that fails, it decodes the JSON
without types, repairs what :class:`LenientDecoder` lists, drops invalid values outside the answer, and converts the
rest strictly. The repairs are: half a surrogate pair (``"\ud83d"``), which gateways write if they cut a text by UTF-16
units, is joined with the other half, or becomes U+FFFD; and the numbers NaN and Infinity, which JSON does not have, are
read.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Generic, NoReturn, TypeAlias, TypeVar, get_origin, get_type_hints

import msgspec

T = TypeVar("T")
_MARK = "outside the answer"

Lenient: TypeAlias = Annotated[T | None, msgspec.Meta(extra={_MARK: True})]
"""The type of a member outside the answer."""

Repair: TypeAlias = Callable[[dict[str, Any]], dict[str, Any]]
DECODE_ERRORS = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""The errors of a decoder: msgspec does not convert the last two."""


def parse_json(data: bytes) -> Any:
    """Return the value of any JSON text, also with unpaired surrogates and numbers that are not finite.

    Raises:
        ValueError: ``data`` is not JSON.
    """
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("the JSON is nested too deeply") from error


def to_json(value: Any) -> str:
    """Return a decoded JSON value as JSON text, any number included; null if it is nested too deeply."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    except RecursionError:
        return "null"


_TEXT_MEMBERS = frozenset(
    {"content", "text", "thinking", "reasoning", "reasoning_content", "refusal", "arguments", "partial_json"}
)
"""The members that a stream sends in pieces, in one of the parents, in a function of it or in a part of its content."""
_ANSWER_PARENTS = frozenset({"delta", "message", "function"})


class SurrogateJoiner:
    """Replaces unpaired surrogates in JSON values, and joins those at a cut between two values of a stream."""

    __slots__ = ("_halves",)

    def __init__(self) -> None:
        self._halves: dict[tuple[str | int, ...], str] = {}

    @property
    def is_waiting(self) -> bool:
        """Whether a text ended with the first half of a pair."""
        return bool(self._halves)

    def drain(self) -> list[str]:
        """Return the names of the members whose last half was never joined, and forget them."""
        names = [str(path[-1]) for path in self._halves]
        self._halves.clear()
        return names

    def join(self, value: Any, path: tuple[str | int, ...] = ()) -> Any:
        """Return ``value`` with whole characters only. A first half at the end of a text waits for the next value."""
        if isinstance(value, str):
            return self._join_text(value, path)
        if isinstance(value, dict):
            return {_replace(key): self.join(inner, (*path, key)) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.join(inner, (*path, index)) for index, inner in enumerate(value)]
        return value

    def _join_text(self, text: str, path: tuple[str | int, ...]) -> str:
        if not text:
            return text
        if path and (path[-1] not in _TEXT_MEMBERS or _ANSWER_PARENTS.isdisjoint(path[-4:-1])):
            return _replace(text)
        text = self._halves.pop(path, "") + text
        if "\ud800" <= text[-1] <= "\udbff":
            self._halves[path] = text[-1]
            text = text[:-1]
        return _replace(text)


def _replace(text: str) -> str:
    if text.isascii():
        return text
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def parse_member(data: bytes, name: str) -> Any:
    """Return a member of a JSON object with whole characters only, for data that goes back unchanged.

    Raises:
        ValueError: ``data`` is not an object with the member, or contains a number that Python does not read.
    """
    value = parse_json(data)
    if not isinstance(value, dict) or name not in value:
        raise ValueError(f"no member {name}")
    return SurrogateJoiner().join(value[name])


def _reject(_data: bytes) -> NoReturn:
    raise msgspec.DecodeError


class LenientDecoder(Generic[T]):
    """Decodes JSON to a struct, leniently outside the answer; the module describes how.

    Args:
        kind: The type of the response.
        repairs: For each struct type, a function that rewrites its members if the strict decoder rejects them.
    """

    __slots__ = ("_repairs", "_strict", "kind")

    def __init__(self, kind: type[T], repairs: Mapping[type, Repair] | None = None) -> None:
        self.kind = kind
        self._strict = msgspec.json.Decoder(kind)
        self._repairs = repairs or {}

    def for_next(self, joiner: SurrogateJoiner) -> Callable[[bytes], T]:
        """Return the strict decoder, or while ``joiner`` waits for the other half of a character, one that fails."""
        return _reject if joiner.is_waiting else self._strict.decode

    def decode(self, data: bytes) -> T:
        """Decode ``data``. Raise one of DECODE_ERRORS."""
        try:
            return self._strict.decode(data)
        except DECODE_ERRORS as error:
            try:
                value = parse_json(data)
            except ValueError:
                raise error from None
            return self.convert(SurrogateJoiner().join(value))

    def convert(self, value: object) -> T:
        """Convert a decoded JSON value. Raise one of DECODE_ERRORS."""
        return msgspec.convert(_drop(value, msgspec.inspect.type_info(self.kind), self._repairs), self.kind)


_Types: TypeAlias = msgspec.inspect.Type


def _drop(value: Any, kind: _Types, repairs: Mapping[type, Repair]) -> Any:
    """Return ``value`` without the members outside the answer that do not have their type."""
    for option in kind.types if isinstance(kind, msgspec.inspect.UnionType) else (kind,):
        if isinstance(option, msgspec.inspect.Metadata):
            return _drop(value, option.type, repairs)
        if isinstance(option, msgspec.inspect.ListType) and isinstance(value, list):
            return [_drop(item, option.item_type, repairs) for item in value]
        if isinstance(option, msgspec.inspect.StructType) and isinstance(value, dict):
            return _drop_members(value, option, repairs)
    return value


def _drop_members(
    value: dict[str, Any], kind: msgspec.inspect.StructType, repairs: Mapping[type, Repair]
) -> dict[str, Any]:
    if kind.cls in repairs:
        value = repairs[kind.cls](value)
    members: dict[str, Any] = {}
    for field in kind.fields:
        if field.encode_name not in value:
            continue
        member = _drop(value[field.encode_name], field.type, repairs)
        if isinstance(field.type, msgspec.inspect.Metadata) and (field.type.extra or {}).get(_MARK):
            member = _read(member, _get_types(kind.cls)[field.name])
            if member is None:
                continue  # the default of the struct
        members[field.encode_name] = member
    return members


@functools.cache
def _get_types(kind: type) -> Mapping[str, Any]:
    """Return the types of the members, without the mark and with their constraints."""
    hints = get_type_hints(kind, include_extras=True)
    return {name: hint.__origin__ if get_origin(hint) is Annotated else hint for name, hint in hints.items()}


def _read(value: Any, kind: Any) -> Any:
    """Return ``value`` as the type of a member outside the answer, or None."""
    if kind == str | None and isinstance(value, int) and not isinstance(value, bool):
        return str(value)  # an ID that is a number
    try:
        return msgspec.convert(value, kind, strict=False)
    except (msgspec.ValidationError, RecursionError, OverflowError):
        return None
