from __future__ import annotations

import os
import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from ctxbackends.batch._key_index import FINAL, KeyIndex

# Few values for each half, so that keys share one, or a bucket.
KEYS = st.builds(
    lambda high, low: high + low,
    st.sampled_from([bytes(8), b"\0" * 7 + b"\1", b"\xff" * 8, b"\xff" * 7 + b"\xfe", b"\x7f" * 8]),
    st.sampled_from([bytes(8), b"\0" * 7 + b"\1", b"\xff" * 8]),
)


@given(st.lists(st.tuples(KEYS, st.integers(0, 5), st.booleans())))
def test_an_index_is_a_map_whose_final_numbers_stay(steps: list[tuple[bytes, int, bool]]) -> None:
    index = KeyIndex()
    expected: dict[bytes, int] = {}
    for key, number, is_final in steps:
        number |= FINAL if is_final else 0
        index.set(key, number)
        if not expected.get(key, 0) & FINAL:
            expected[key] = number
    assert len(expected) == len(index)
    for high in (bytes(8), b"\0" * 7 + b"\1", b"\xff" * 8, b"\xff" * 7 + b"\xfe", b"\x7f" * 8, b"\1" * 8):
        for low in (bytes(8), b"\0" * 7 + b"\1", b"\xff" * 8, b"\1" * 8):
            assert expected.get(high + low) == index.get(high + low)


def test_a_key_costs_less_than_40_bytes() -> None:
    count = 50_000
    tracemalloc.start()
    try:
        index = KeyIndex()
        for number in range(count):
            index.set(os.urandom(16), number | FINAL)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert count == len(index)
    assert peak < 40 * count
