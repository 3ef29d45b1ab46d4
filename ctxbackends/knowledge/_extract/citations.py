"""Citations are checked, not believed: the quote of a row is looked up in the text that the model was shown. Pure.

White space is folded, since models wrap lines anew; nothing else is forgiven.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import msgspec

from ctxbackends._util.text import one_line
from ctxbackends.knowledge._extract.chunker import Chunk
from ctxbackends.knowledge._extract.prompt import ExtractedRow
from ctxbackends.knowledge._records import Evidence, QuarantinedRow, title_of
from ctxbackends.knowledge._sources.base import Segment

SHORTEST_QUOTE = 8
"""Characters, white space not counted. Less stands in any text by chance, and proves nothing."""

_MARKER = re.compile(r"(?:^|(?<=\s))\[\d+\]\s+")  # the numbers that the model was shown are no text of the source
_AROUND = "\"'“”„‘’«»` "  # noqa: RUF001  # the quotation marks that models put around a quote


class CitedRow(msgspec.Struct, frozen=True, kw_only=True):
    """``evidence`` where the quote was found; ``moved``: at another place than the model said."""

    found: ExtractedRow
    evidence: Evidence
    relocated: bool


class QuoteChecker:
    """Looks quotes up in one chunk. The folded text is made once, and only where there is a quote."""

    def __init__(self, chunk: Chunk) -> None:
        self._chunk = chunk
        self._starts: list[int] = []
        pieces = []
        at = 0
        for segment in chunk.segments:
            folded = _folded(segment.text)
            self._starts.append(at)
            pieces.append(folded)
            at += len(folded) + 1
        self._text = " ".join(pieces)

    def check(self, found: ExtractedRow) -> CitedRow | QuarantinedRow:
        """The row with its evidence, or why it is not to be believed."""
        if not _folded(title_of(found.record)):
            return self._refused(found, "it has no title")
        if not found.quote.strip():
            return self._refused(found, "it has no quote")
        for quote in dict.fromkeys((_folded(found.quote), _folded(_MARKER.sub("", found.quote.strip(_AROUND))))):
            if len(quote.replace(" ", "")) < SHORTEST_QUOTE:
                continue
            place = self._nearest(quote, found.line)
            if place is not None:
                return self._checked(found, quote, place)
        if len(_folded(found.quote.strip(_AROUND)).replace(" ", "")) < SHORTEST_QUOTE:
            return self._refused(found, f"its quote is shorter than {SHORTEST_QUOTE} characters, which proves nothing")
        return self._refused(found, "its quote does not stand there")

    def _nearest(self, quote: str, line: int) -> int | None:
        """Where the quote begins in the folded text: in the passage that the model named, else next to it."""
        places: list[int] = []
        at = self._text.find(quote)
        while at >= 0 and len(places) < 100:  # a phrase that stands everywhere need not be found everywhere
            places.append(at)
            at = self._text.find(quote, at + 1)
        return min(places, key=lambda place: self._distance(place, line), default=None)

    def _distance(self, place: int, line: int) -> int:
        segment = self._chunk.segments[self._segment_at(place)]
        return 0 if segment.first <= line <= segment.last else min(abs(segment.first - line), abs(segment.last - line))

    def _segment_at(self, place: int) -> int:
        """The index of the segment that the character of the folded text belongs to."""
        low, high = 0, len(self._starts)
        while high - low > 1:
            middle = (low + high) // 2
            if self._starts[middle] <= place:
                low = middle
            else:
                high = middle
        return low

    def _checked(self, found: ExtractedRow, quote: str, place: int) -> CitedRow:
        segments = self._chunk.segments
        begins, ends = self._segment_at(place), self._segment_at(place + len(quote) - 1)
        one, other = segments[begins], segments[ends]
        first = _place_in(one, place - self._starts[begins])
        last = _place_in(other, place + len(quote) - 1 - self._starts[ends])
        evidence = Evidence(
            source=self._chunk.source,
            quote=one_line(quote),
            first=first,
            last=last,
            unit=self._chunk.unit,
            timestamp=one.timestamp,
            session_id=one.session_id,
            branch=one.branch,
        )
        named = any(segment.first <= found.line <= segment.last for segment in segments[begins : ends + 1])
        return CitedRow(found=found, evidence=evidence, relocated=not named)

    def _refused(self, found: ExtractedRow, reason: str) -> QuarantinedRow:
        return QuarantinedRow(record=found.record, reason=reason, quote=one_line(found.quote), where=self._chunk.where)


def check(found: Sequence[ExtractedRow], chunk: Chunk) -> list[CitedRow | QuarantinedRow]:
    """Each row of an answer, checked against the chunk that it was given for."""
    if not found:
        return []
    checker = QuoteChecker(chunk)
    return [checker.check(one) for one in found]


def _folded(text: str) -> str:
    return " ".join(text.split())


def _place_in(segment: Segment, offset: int) -> int:
    """The line (page, paragraph) of a character of the segment's folded text."""
    if segment.last == segment.first or segment.last - segment.first != segment.text.count("\n"):
        return segment.first
    at = 0
    for number, line in enumerate(segment.text.split("\n"), segment.first):
        folded = _folded(line)
        at += len(folded) + 1 if folded else 0
        if offset < at:
            return number
    return segment.last
