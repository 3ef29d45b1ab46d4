"""The line of a run in windows of different widths."""

from __future__ import annotations

import pytest

from ctxbackends.knowledge import Activity

WRITING = Activity(
    phase="writing",
    source="docs/topics/dependency-resolution.md",
    chunk=9,
    size=100,
    size_done=33,
    in_flight=4,
    output_tokens=1033,
    tokens_per_second=58.7,
    rows=8,
    quarantined=11,
)
WHOLE = (
    "docs/topics/dependency-resolution.md: chunk 9 (33%), 4 at once, writing, 1033 tokens, 59 tokens/s, 8 rows, "
    "11 quarantined"
)
PREPARING = Activity(phase="preparing", source="docs/topics/dependency-resolution.md", sources=1072, sources_done=8)


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (len(WHOLE), WHOLE),
        (
            len(WHOLE) - 1,
            (
                "…cs/topics/dependency-resolution.md: chunk 9 (33%), 4 at once, writing, 1033 tokens, 59 tokens/s, 8 "
                "rows, 11 quarantined"
            ),
        ),
        (85, "…esolution.md: chunk 9 (33%), 4 at once, writing, 59 tokens/s, 8 rows, 11 quarantined"),
        (75, "…resolution.md: chunk 9 (33%), writing, 59 tokens/s, 8 rows, 11 quarantined"),
        (72, "…s/dependency-resolution.md: chunk 9 (33%), writing, 59 tokens/s, 8 rows"),
        (50, "…ncy-resolution.md: chunk 9 (33%), writing, 8 rows"),
        (36, "…esolution.md: chunk 9 (33%), 8 rows"),
        (20, "chunk 9 (33%), 8 rows"),
    ],
)
def test_a_chunk(columns: int, expected: str) -> None:
    assert expected == WRITING.fit(columns)


def test_a_file_that_is_prepared() -> None:
    whole = str(PREPARING)
    assert whole == PREPARING.fit(len(whole))
    assert "reading …solution.md (9 of 1,072 files)" == PREPARING.fit(39)
    assert "searching for files" == Activity(phase="searching").fit(5)


@pytest.mark.parametrize("columns", range(24, len(WHOLE) + 2))
def test_no_line_is_too_long(columns: int) -> None:
    line = WRITING.fit(columns)
    assert len(line) <= columns
    assert "chunk 9 (33%)" in line
    assert line.endswith(("8 rows", "11 quarantined"))
