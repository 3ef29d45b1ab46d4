"""Durations: numbers of seconds, and texts in Go's format such as `300ms`, `30s`, `1h30m`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from ctxbackends._config.display import display_value

MAX_COUNT = 2**31 - 1  # llama.cpp keeps these numbers in a C int

# Grammar and units of https://pkg.go.dev/time#ParseDuration, which reads the same files; both Unicode letters mu.
_UNITS: Mapping[str, int] = MappingProxyType(
    {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
)
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([^0-9.]*)")
MAX_DURATION = 2**63 - 1  # nanoseconds; Go's maximum
DURATION_HINT = "write a number with a unit, such as 300ms, 30s, 2m or 1h30m"


def parse_duration(text: str) -> float:
    """Return the seconds of a Go duration, such as ``300ms``, ``1h30m``, ``1.5h`` or ``0``.

    Raises:
        ValueError: ``text`` is not a duration; the message tells how to write one.
    """
    if len(text) > 64:
        raise ValueError(f"duration is too long: {len(text)} characters; {DURATION_HINT}")
    if text.startswith("-"):
        raise ValueError(f"duration must not be negative: {display_value(text)}; {DURATION_HINT}")
    body = text.removeprefix("+")
    if body == "0":
        return 0.0
    total, position = Fraction(0), 0
    while position < len(body) or not body:
        part = _PART.match(body, position)
        if part is not None and part.group(1) == body:
            raise ValueError(f"duration has no unit: {text}; write {text}s")
        if part is None or not part.group(2):
            raise ValueError(f"not a duration: {display_value(text)}; {DURATION_HINT}")
        number, unit = part.groups()
        if unit not in _UNITS:
            raise ValueError(f"unknown unit in duration: {display_value(text)}; use ns, us, ms, s, m or h")
        total += Fraction("0" + number.removesuffix(".")) * _UNITS[unit]
        position = part.end()
    if total > MAX_DURATION:
        raise ValueError(f"duration is longer than 292 years: {display_value(text)}; {DURATION_HINT}")
    return float(total / 10**9)


def seconds_of(value: Any, *, allow_zero: bool = False) -> float:
    """Return the seconds of a number of seconds, or of a Go duration as text.

    Raises:
        ValueError: ``value`` is neither, or it is out of range.
    """
    if isinstance(value, str):
        value = parse_duration(value)
    elif isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) <= MAX_DURATION / 10**9:
        raise ValueError(
            "must be a number of seconds or a duration such as 30s, at most 292 years; omit it for the default"
        )
    if value < 0 or (value == 0 and not allow_zero):
        raise ValueError(f"must be greater than zero; {DURATION_HINT}, or omit it for the default")
    return float(value)


def accept_texts(value: float | str | None) -> float | None:
    """Return ``value``; its type lets checkers accept the texts that are converted after the fields are set."""
    return value  # type: ignore[return-value]
