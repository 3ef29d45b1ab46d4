"""A segment that is too long, in several: cut where something ends, with the places of both sides. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator

import msgspec

from ctxbackends.knowledge._sources.base import Segment

# Where a segment is cut, the best first: at an empty line, a line, a sentence, a word.
_CUTS = (re.compile(r"\n\s*\n"), re.compile(r"\n"), re.compile(r"(?<=[.!?]) +"), re.compile(r"\s"))


def size_of(segment: Segment) -> int:
    # Exact where it is cheap: a str knows whether it is ASCII.
    return len(segment.text) if segment.text.isascii() else len(segment.text.encode("utf-8", "surrogatepass"))


def split_at(segment: Segment, size: int) -> tuple[Segment, Segment] | None:
    """``segment`` in two, the first of at most about ``size`` bytes; None where it has no place to cut but a letter of
    a single one."""
    text = segment.text
    if len(text) < 2:
        return None
    most = max(1, size * len(text) // max(1, size_of(segment)))
    at = next((found for cut in _CUTS if (found := _last(cut, text, most)) is not None), min(most, len(text) - 1))
    head, tail = text[:at], text[at:]
    lines = segment.last - segment.first == text.count("\n")  # each line has a place of its own
    gone = len(tail) - len(tail.lstrip("\n"))  # line ends at the cut belong to neither
    last = segment.first + head.count("\n") if lines else segment.last
    first = last + tail[:gone].count("\n") if lines else segment.first
    head_text, tail_text = head.rstrip("\n"), tail[gone:]
    if lines:
        last = segment.first + head_text.count("\n")
    if not head_text or not tail_text:
        return None
    return (
        msgspec.structs.replace(segment, text=head_text, last=last),
        msgspec.structs.replace(segment, text=tail_text, first=first, boundary=0),
    )


def _last(cut: re.Pattern[str], text: str, most: int) -> int | None:
    """The end of the last match before ``most`` that leaves at least a third of it."""
    found = None
    for match in cut.finditer(text, most // 3, most):
        found = match.end()
    return found if found is not None and 0 < found < len(text) else None


def split_to_fit(segment: Segment, size: int) -> Iterator[Segment]:
    """``segment`` in pieces of at most about ``size`` bytes."""
    while size_of(segment) > size:
        cut = split_at(segment, size)
        if cut is None:
            break
        yield cut[0]
        segment = cut[1]
    yield segment
