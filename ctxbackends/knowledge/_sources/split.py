"""Split a segment that is too long, with the places of its parts."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from ctxbackends._util.text import count_bytes
from ctxbackends.knowledge._sources.base import Segment

# Preferred boundaries, best first: empty line, line, sentence, word.
_BOUNDARIES = (re.compile(r"\n\s*\n"), re.compile(r"\n"), re.compile(r"(?<=[.!?]) +"), re.compile(r"\s"))


def size_of(segment: Segment) -> int:
    """Return the size of a segment's text in bytes of UTF-8."""
    return count_bytes(segment.text)


def split_at(segment: Segment, size: int) -> tuple[Segment, Segment] | None:
    """Split a segment in two, the first part of at most about ``size`` bytes.

    Returns:
        Both parts, or None if one of them would be empty.
    """
    text = segment.text
    if len(text) < 2:
        return None
    max_length = max(1, size * len(text) // max(1, size_of(segment)))
    ends = (_find_last_end(boundary, text, max_length) for boundary in _BOUNDARIES)
    at = next((end for end in ends if end is not None), min(max_length, len(text) - 1))
    head, tail = text[:at], text[at:]
    has_line_numbers = segment.last - segment.first == text.count("\n")
    dropped = len(tail) - len(tail.lstrip("\n"))  # neither part keeps the line ends between them
    last = segment.first + head.count("\n") if has_line_numbers else segment.last
    first = last + tail[:dropped].count("\n") if has_line_numbers else segment.first
    head_text, tail_text = head.rstrip("\n"), tail[dropped:]
    if has_line_numbers:
        last = segment.first + head_text.count("\n")
    if not head_text or not tail_text:
        return None
    return (
        msgspec.structs.replace(segment, text=head_text, last=last),
        msgspec.structs.replace(segment, text=tail_text, first=first, boundary=0),
    )


def _find_last_end(boundary: re.Pattern[str], text: str, max_length: int) -> int | None:
    """Return the end of the last match in the last two thirds of ``max_length``."""
    end = None
    for match in boundary.finditer(text, max_length // 3, max_length):
        end = match.end()
    return end if end is not None and 0 < end < len(text) else None


def split_to_fit(segment: Segment, size: int) -> Iterator[Segment]:
    """Yield a segment in parts of at most about ``size`` bytes."""
    while size_of(segment) > size:
        parts = split_at(segment, size)
        if parts is None:
            break
        yield parts[0]
        segment = parts[1]
    yield segment
