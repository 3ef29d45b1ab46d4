"""A map of the keys of a batch to numbers, in arrays: a million keys cost 26 bytes each."""

from __future__ import annotations

from array import array
from bisect import bisect_left
from struct import Struct
from typing import TypeAlias

FINAL = 1 << 63
"""The bit of a number that no other replaces."""

_unpack = Struct(">QQ").unpack
_BUCKETS = 1024  # a new key moves the keys of one bucket, and not all
_SHIFT = 64 - 10

_Bucket: TypeAlias = "tuple[array[int], array[int], array[int]]"  # the halves of the keys, sorted, and the numbers


class KeyIndex:
    """Numbers of 64 bits by keys of 16 bytes, which are hashes."""

    def __init__(self) -> None:
        self._buckets: list[_Bucket] = [(array("Q"), array("Q"), array("Q")) for _ in range(_BUCKETS)]
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, key: bytes) -> int | None:
        """Return the number of a key, None if it has none."""
        high, low = _unpack(key)
        bucket = self._buckets[high >> _SHIFT]
        at, is_present = _find(bucket, high, low)
        return bucket[2][at] if is_present else None

    def set(self, key: bytes, number: int) -> None:
        """Set the number of a key, unless it has one with the bit ``FINAL``."""
        high, low = _unpack(key)
        bucket = self._buckets[high >> _SHIFT]
        at, is_present = _find(bucket, high, low)
        highs, lows, numbers = bucket
        if not is_present:
            highs.insert(at, high)
            lows.insert(at, low)
            numbers.insert(at, number)
            self._count += 1
        elif not numbers[at] & FINAL:
            numbers[at] = number


def _find(bucket: _Bucket, high: int, low: int) -> tuple[int, bool]:
    """Return the place of a key in a bucket, and whether it is there."""
    highs, lows, _ = bucket
    at = bisect_left(highs, high)
    while at < len(highs) and highs[at] == high:
        if lows[at] == low:
            return at, True
        at += 1
    return at, False
