"""The blocks of a text document, and their segments."""

from __future__ import annotations

from collections.abc import Generator, Iterable

import attrs

from ctxbackends.knowledge._sources.base import Segment
from ctxbackends.knowledge._sources.documents.base import clean


@attrs.define
class Block:
    """A paragraph or a table row, with the notes, comments and text boxes that are anchored in it."""

    text: str = ""
    is_heading: bool = False
    notes: list[tuple[str, str]] = attrs.Factory(list)  # label and text

    def add(self, other: Block, *, separator: str) -> None:
        """Append the text and the notes of another block."""
        self.text = separator.join(text for text in (self.text, other.text) if text)
        self.notes += other.notes


def build_segments(blocks: Iterable[Block]) -> Generator[Segment, None, int]:
    """Yield the blocks in their order, each followed by its notes, and return their number."""
    number, after_heading = 0, False
    for number, block in enumerate(blocks, 1):
        if block.text.strip():
            boundary = 2 if block.is_heading else 0 if after_heading else 1
            after_heading = block.is_heading
            yield Segment(text=clean(block.text), first=number, last=number, boundary=boundary)
        for label, text in block.notes:
            if text.strip():
                yield Segment(text=clean(text), first=number, last=number, boundary=0, label=label)
    return number
