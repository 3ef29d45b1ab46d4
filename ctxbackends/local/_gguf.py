"""Read the context length from the header of a GGUF file.

https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO, Any

_HEADER = struct.Struct("<4sIQQ")
_LENGTH = struct.Struct("<Q")
_ARRAY = struct.Struct("<IQ")
_STRING_TYPE, _ARRAY_TYPE = 8, 9
_NUMBERS = {
    number: struct.Struct(f"<{code}")
    for number, code in zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), "BbHhIif?Qqd", strict=True)
}


def read_context_length(path: Path) -> int | None:
    """Return the tokens of context that a model was trained with; None if the file does not state them."""
    try:
        with path.open("rb") as file:
            magic, version, _, count = _read(file, _HEADER)
            if magic != b"GGUF" or version < 2:
                return None
            for _ in range(count):
                key = _read_string(file)
                (kind,) = _read(file, _NUMBERS[4])
                value = _read_value(file, kind)
                if key.endswith(b".context_length"):
                    return value if isinstance(value, int) else None
    except (OSError, struct.error, KeyError, OverflowError, MemoryError):
        return None
    return None


def _read(file: IO[bytes], form: struct.Struct) -> tuple[Any, ...]:
    return form.unpack(file.read(form.size))


def _read_string(file: IO[bytes]) -> bytes:
    (length,) = _read(file, _LENGTH)
    return file.read(length)


def _read_value(file: IO[bytes], kind: int) -> int | float | bytes | None:
    """Return a value and move behind it; arrays are passed over."""
    if kind == _STRING_TYPE:
        return _read_string(file)
    if kind != _ARRAY_TYPE:
        value: int | float = _read(file, _NUMBERS[kind])[0]
        return value
    item, count = _read(file, _ARRAY)
    if item in _NUMBERS:
        file.seek(count * _NUMBERS[item].size, 1)
    else:
        for _ in range(count):
            _read_value(file, item)
    return None
