"""Durations as Go writes them: `300ms`, `30s`, `1h30m`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from types import MappingProxyType

from ctxbackends._config.display import display_value

MAX_COUNT = 2**31 - 1  # llama.cpp keeps these numbers in a C int

# --- durations ----------------------------------------------------------------------------------------

# Grammar and units of https://pkg.go.dev/time#ParseDuration, which reads the same files; both Unicode letters mu.
_UNITS: Mapping[str, int] = MappingProxyType(
    {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
)
_PART = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([^0-9.]*)")
MAX_DURATION = 2**63 - 1  # nanoseconds: Go's limit
DURATION_HINT = "write a number with a unit, such as 300ms, 30s, 2m or 1h30m"


def parse_duration(text: str) -> float:
    """Seconds of a Go duration (``300ms``, ``1h30m``, ``1.5h``, ``0``). Raises ValueError that says what is right."""
    if len(text) > 64:
        raise ValueError(f"no duration has {len(text)} characters; {DURATION_HINT}")
    if text.startswith("-"):
        raise ValueError(f"{display_value(text)} is negative; {DURATION_HINT}")
    body = text.removeprefix("+")
    if body == "0":
        return 0.0
    total, position = Fraction(0), 0
    while position < len(body) or not body:
        part = _PART.match(body, position)
        if part is not None and part.group(1) == body:
            raise ValueError(f"{text} has no unit; write {text}s")
        if part is None or not part.group(2):
            raise ValueError(f"{display_value(text)} is not a duration; {DURATION_HINT}")
        number, unit = part.groups()
        if unit not in _UNITS:
            raise ValueError(f"{display_value(text)} has an unknown unit; the units are ns, us, ms, s, m and h")
        total += Fraction("0" + number.removesuffix(".")) * _UNITS[unit]
        position = part.end()
    if total > MAX_DURATION:
        raise ValueError(f"{display_value(text)} is longer than 292 years; {DURATION_HINT}")
    return float(total / 10**9)
