"""The end of the chunk before, which is sent as context."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from ctxbackends._util.text import count_bytes
from ctxbackends.knowledge._sources.base import Segment

_HEAD = "Context before this part. Do not extract from it:"
_MAX_LINE = 400
"""Bytes. Of a longer line, which may be a whole paragraph, the end is sent."""

_MIN_LINE = 40


class Context(msgspec.Struct, frozen=True):
    """The last lines of a chunk.

    Attributes:
        segments: The segments that have these lines, whole, so that a quote does not lose the words before it.
        text: The text for the model.
    """

    segments: tuple[Segment, ...]
    text: str

    @property
    def size(self) -> int:
        """Size of the text in bytes."""
        return count_bytes(self.text)


def take_context(segments: Sequence[Segment], lines: int, max_size: int) -> Context | None:
    """Return the last lines of segments in at most ``max_size`` bytes, or None if there is nothing."""
    taken: list[str] = []
    first = len(segments)
    left = max_size - len(_HEAD) - 2
    for index, line in _read_backwards(segments):
        shortened = _shorten(line, min(_MAX_LINE, left - 3))
        if len(taken) == lines or not shortened:
            break
        taken.append(f"> {shortened}")
        left -= count_bytes(taken[-1]) + 1
        first = index
    if not taken:
        return None
    return Context(tuple(segments[first:]), "\n".join((_HEAD, "", *reversed(taken))))


def label_of(segment: Segment) -> str:
    """Return the label and the time of a segment, which are with its number in the prompt."""
    return " ".join(part for part in (segment.label, segment.timestamp) if part)


def _read_backwards(segments: Sequence[Segment]) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not empty, with the indexes of their segments, from the last to the first."""
    for index in reversed(range(len(segments))):
        segment = segments[index]
        label = label_of(segment)
        for line in reversed(segment.text.split("\n")):
            if line.strip():
                yield index, f"({label}) {line}" if label else line


def _shorten(line: str, size: int) -> str:
    """Return the end of a line in at most ``size`` bytes, from a whole word on; empty if that is too little."""
    if count_bytes(line) <= size:
        return line
    if size < _MIN_LINE:
        return ""
    end = line.encode("utf-8", "surrogatepass")[-(size - 4) :].decode("utf-8", "ignore")
    return f"… {end.partition(' ')[2] or end}"
