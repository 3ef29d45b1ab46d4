"""A map of the keys of a batch to numbers, in arrays: a million keys cost 26 bytes each."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from struct import Struct

_unpack = Struct(">QQ").unpack
_BUCKET_BITS = 10  # of a key: a new key moves one of 1024 parts of the arrays, and not all of them


class KeyIndex:
    """Numbers of 64 bits by keys of 16 bytes."""

    def __init__(self) -> None:
        self._buckets = [(array("Q"), array("Q"), array("Q")) for _ in range(1 << _BUCKET_BITS)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, key: bytes) -> int | None:
        """Return the number of a key, None if it has none."""
        highs, lows, numbers = self._buckets[_unpack(key)[0] >> (64 - _BUCKET_BITS)]
        at = _find(highs, lows, *_unpack(key))
        return numbers[at] if at >= 0 else None

    def set(self, key: bytes, number: int) -> None:
        """Set the number of a key."""
        high, low = _unpack(key)
        highs, lows, numbers = self._buckets[high >> (64 - _BUCKET_BITS)]
        at = _find(highs, lows, high, low)
        if at >= 0:
            numbers[at] = number
            return
        at = ~at
        highs.insert(at, high)
        lows.insert(at, low)
        numbers.insert(at, number)
        self._count += 1


def _find(highs: array[int], lows: array[int], high: int, low: int) -> int:
    """Return the place of a key, else the place to insert it, inverted."""
    at = bisect_left(highs, high)
    while at < len(highs) and highs[at] == high:  # the other half differs in one of 2**64
        if lows[at] == low:
            return at
        at += 1
    return ~at
