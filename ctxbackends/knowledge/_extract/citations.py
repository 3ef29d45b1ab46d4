"""Verify citations: look up the quote of each row in the text that was sent to the model.

Only white space may differ, since models wrap lines differently.
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

MIN_QUOTE_LENGTH = 8
"""Characters without white space. A shorter quote may occur in any text by chance."""

_MARKER = re.compile(r"(?:^|(?<=\s))\[\d+\]\s+")  # the segment numbers of the prompt are not part of the source
_QUOTATION_MARKS = "\"'“”„‘’«»` "  # noqa: RUF001  # models put them around a quote


class CitedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row with verified evidence. ``relocated``: the quote is at another place than the model named."""

    row: ExtractedRow
    evidence: Evidence
    relocated: bool


class QuoteChecker:
    """Looks up quotes in one chunk, whose normalized text it keeps."""

    def __init__(self, chunk: Chunk) -> None:
        self._chunk = chunk
        self._offsets: list[int] = []
        pieces = []
        at = 0
        for segment in chunk.segments:
            text = _collapse_spaces(segment.text)
            self._offsets.append(at)
            pieces.append(text)
            at += len(text) + 1
        self._text = " ".join(pieces)

    def check(self, row: ExtractedRow) -> CitedRow | QuarantinedRow:
        """Return the row with its evidence, or with the reason why it is quarantined."""
        if not _collapse_spaces(title_of(row.record)):
            return self._quarantine(row, "no title")
        if not row.quote.strip():
            return self._quarantine(row, "no quote")
        bare = _MARKER.sub("", row.quote.strip(_QUOTATION_MARKS))
        for quote in dict.fromkeys((_collapse_spaces(row.quote), _collapse_spaces(bare))):
            if len(quote.replace(" ", "")) < MIN_QUOTE_LENGTH:
                continue
            offset = self._find_nearest(quote, row.line)
            if offset is not None:
                return self._cite(row, quote, offset)
        if len(_collapse_spaces(row.quote.strip(_QUOTATION_MARKS)).replace(" ", "")) < MIN_QUOTE_LENGTH:
            return self._quarantine(row, f"quote is shorter than {MIN_QUOTE_LENGTH} characters")
        return self._quarantine(row, "its quote is not in the source")

    def _find_nearest(self, quote: str, line: int) -> int | None:
        """Return the offset of the occurrence that is nearest to the line that the model named."""
        offsets: list[int] = []
        at = self._text.find(quote)
        while at >= 0 and len(offsets) < 100:  # enough for a frequent phrase
            offsets.append(at)
            at = self._text.find(quote, at + 1)
        return min(offsets, key=lambda offset: self._distance(offset, line), default=None)

    def _distance(self, offset: int, line: int) -> int:
        segment = self._chunk.segments[self._segment_at(offset)]
        return 0 if segment.first <= line <= segment.last else min(abs(segment.first - line), abs(segment.last - line))

    def _segment_at(self, offset: int) -> int:
        """Return the index of the segment at an offset of the normalized text."""
        low, high = 0, len(self._offsets)
        while high - low > 1:
            middle = (low + high) // 2
            if self._offsets[middle] <= offset:
                low = middle
            else:
                high = middle
        return low

    def _cite(self, row: ExtractedRow, quote: str, offset: int) -> CitedRow:
        segments = self._chunk.segments
        end = offset + len(quote) - 1
        first_index, last_index = self._segment_at(offset), self._segment_at(end)
        segment = segments[first_index]
        first = _find_line(segment, offset - self._offsets[first_index])
        last = _find_line(segments[last_index], end - self._offsets[last_index])
        evidence = Evidence(
            source=self._chunk.source,
            quote=one_line(quote),
            first=first,
            last=last,
            unit=self._chunk.unit,
            speaker=segment.speaker,
            timestamp=segment.timestamp,
            session_id=segment.session_id,
            branch=segment.branch,
        )
        is_named = any(one.first <= row.line <= one.last for one in segments[first_index : last_index + 1])
        return CitedRow(row=row, evidence=evidence, relocated=not is_named)

    def _quarantine(self, row: ExtractedRow, reason: str) -> QuarantinedRow:
        return QuarantinedRow(record=row.record, reason=reason, quote=one_line(row.quote), where=self._chunk.where)


def check(rows: Sequence[ExtractedRow], chunk: Chunk) -> list[CitedRow | QuarantinedRow]:
    """Check the rows of an answer against its chunk."""
    if not rows:
        return []
    checker = QuoteChecker(chunk)
    return [checker.check(row) for row in rows]


def _collapse_spaces(text: str) -> str:
    return " ".join(text.split())


def _find_line(segment: Segment, offset: int) -> int:
    """Return the line (page, paragraph) at an offset of the segment's normalized text."""
    if segment.last == segment.first or segment.last - segment.first != segment.text.count("\n"):
        return segment.first
    at = 0
    for number, line in enumerate(segment.text.split("\n"), segment.first):
        collapsed = _collapse_spaces(line)
        at += len(collapsed) + 1 if collapsed else 0
        if offset < at:
            return number
    return segment.last
