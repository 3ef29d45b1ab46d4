"""Whether an answer is one that the vendor's own types describe; knows no vendor and no server.

Both clients build their objects without checking: a member that is missing is simply not there, one of a wrong type
stays as it came. So the raw JSON is validated here.
"""

from __future__ import annotations

from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter

T = TypeVar("T")


def validate(kind: type[T] | Any, value: Any) -> Any:
    """``value`` as ``kind``. Raises where a required member is missing, where a type is wrong, and where the type does
    not know a member."""
    result = TypeAdapter(kind).validate_python(value)
    unknown = list(_unknown(result, "$"))
    assert unknown == []
    return result


def _unknown(value: Any, path: str) -> list[str]:
    if isinstance(value, BaseModel):
        names = [f"{path}.{name}" for name in value.model_extra or ()]
        for name in type(value).model_fields:
            names += _unknown(getattr(value, name), f"{path}.{name}")
        return names
    if isinstance(value, list):
        return [entry for index, item in enumerate(value) for entry in _unknown(item, f"{path}[{index}]")]
    return []


def events(text: str) -> list[tuple[str | None, str]]:
    """The names and the data of server-sent events, which must each end with an empty line."""
    assert text.endswith("\n\n")
    result = []
    for block in text.removesuffix("\n\n").split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.split("\n"))
        result.append((fields.get("event"), fields["data"]))
    return result
