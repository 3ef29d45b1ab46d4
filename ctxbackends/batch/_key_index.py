"""A map of the keys of a batch to numbers, in arrays: a million keys cost 26 bytes each."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from struct import Struct

FINAL = 1 << 63
"""The bit of a number that no other replaces."""

_unpack = Struct(">QQ").unpack
_BUCKETS = 1024  # a new key moves the keys of one bucket, and not all
_SHIFT = 64 - 10


class KeyIndex:
    """Numbers of 64 bits by keys of 16 bytes, which are hashes."""

    def __init__(self) -> None:
        # The high halves of the keys, sorted, the low halves, and the numbers.
        self._buckets = [(array("Q"), array("Q"), array("Q")) for _ in range(_BUCKETS)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, key: bytes) -> int | None:
        """Return the number of a key, None if it has none."""
        high, low = _unpack(key)
        highs, lows, numbers = self._buckets[high >> _SHIFT]
        at = _find(highs, lows, high, low)
        return numbers[at] if at < len(highs) and highs[at] == high else None

    def set(self, key: bytes, number: int) -> None:
        """Set the number of a key, unless it has one with the bit ``FINAL``."""
        high, low = _unpack(key)
        highs, lows, numbers = self._buckets[high >> _SHIFT]
        at = _find(highs, lows, high, low)
        if at == len(highs) or highs[at] != high:
            highs.insert(at, high)
            lows.insert(at, low)
            numbers.insert(at, number)
            self._count += 1
        elif not numbers[at] & FINAL:
            numbers[at] = number


def _find(highs: array[int], lows: array[int], high: int, low: int) -> int:
    """Return the place of a key; if another high half or none is there, the place to insert it."""
    at = bisect_left(highs, high)
    while at < len(highs) and highs[at] == high and lows[at] != low:
        at += 1
    return at
