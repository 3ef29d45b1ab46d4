"""The end of the chunk before, which is sent as context."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from ctxbackends.knowledge._sources.base import Segment

_HEAD = "Context before this part. Take nothing from it:"
_MAX_LINE = 400
"""Characters. Of a longer line, which may be a whole paragraph, the end is sent."""


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
        return len(self.text.encode("utf-8", "surrogatepass"))


def take_context(segments: Sequence[Segment], lines: int, max_size: int) -> Context | None:
    """Return the last lines of segments, or None if there are none of at most ``max_size`` bytes."""
    taken: list[str] = []
    size, at = len(_HEAD) + 1, len(segments)
    for index in reversed(range(len(segments))):
        segment = segments[index]
        label = " ".join(part for part in (segment.label, segment.timestamp) if part)
        for line in reversed([line for line in segment.text.split("\n") if line.strip()]):
            short = _shorten(line)
            rendered = f"> ({label}) {short}" if label else f"> {short}"
            size += len(rendered.encode("utf-8", "surrogatepass")) + 1
            if len(taken) == lines or size > max_size:
                break
            taken.append(rendered)
            at = index
        else:
            continue
        break
    if not taken:
        return None
    return Context(tuple(segments[at:]), "\n".join((f"{_HEAD}\n", *reversed(taken))))


def _shorten(line: str) -> str:
    if len(line) <= _MAX_LINE:
        return line
    return f"… {line[-_MAX_LINE:].partition(' ')[2] or line[-_MAX_LINE:]}"
