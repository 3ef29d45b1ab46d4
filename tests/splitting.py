"""Divides the bytes of a stream into the chunks of a read."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


def split_at(data: bytes, positions: Sequence[int]) -> list[bytes]:
    """Divide ``data`` at these positions; those beyond its end count from its beginning again."""
    edges = [0, *sorted(position % (len(data) + 1) for position in positions), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def split_bytes(data: bytes) -> list[bytes]:
    """Divide ``data`` into single bytes."""
    return [data[index : index + 1] for index in range(len(data))]
