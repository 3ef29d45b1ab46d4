"""The numbers of options, with messages in plain words."""

from __future__ import annotations

import math
from typing import Any, TypeVar

import click

N = TypeVar("N", int, float)


class Integer(click.IntRange):
    """A whole number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number. Raise BadParameter if it is none or out of range."""
        try:
            number = int(value)
        except ValueError:
            self.fail(f"{value!r} is not a {'whole ' if _is_number(value) else ''}number", param, ctx)
        return _check_range(self, number, param, ctx)


class Number(click.FloatRange):
    """A finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Return the number. Raise BadParameter if it is none or out of range."""
        if not _is_number(value):
            self.fail(f"{value!r} is not a number", param, ctx)
        return _check_range(self, float(value), param, ctx)


def _is_number(value: Any) -> bool:
    try:
        return math.isfinite(float(value))
    except ValueError:
        return False


def _check_range(
    range_: click.IntRange | click.FloatRange, number: N, param: click.Parameter | None, ctx: click.Context | None
) -> N:
    low, high, above = range_.min, range_.max, range_.min_open
    is_low = low is not None and (number < low or (above and number == low))
    if is_low or (high is not None and number > high):
        least = f"more than {low}" if above else f"{low} or more"
        allowed = least if high is None else f"at most {high}" if low is None else f"from {low} to {high}"
        range_.fail(f"{number} is out of range; it must be {allowed}", param, ctx)
    return number
