"""Verify citations: look up the quote of each row in the text that was sent to the model.

First letter by letter, where only white space may differ; then word by word after folding (:mod:`.folding`). No word
may be added, left out, changed or negated.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator, Sequence

import msgspec

from ctxbackends._util.text import one_line
from ctxbackends.knowledge._extract.borders import Borders
from ctxbackends.knowledge._extract.chunker import Chunk
from ctxbackends.knowledge._extract.folding import FoldedText, count_words
from ctxbackends.knowledge._extract.matching import MAX_OCCURRENCES, QuoteIndex
from ctxbackends.knowledge._extract.packing import AnyChunk, find_part
from ctxbackends.knowledge._extract.rows import ExtractedRow
from ctxbackends.knowledge._own_kinds import find_record_problem
from ctxbackends.knowledge._records import Evidence, Match, QuarantinedRow
from ctxbackends.knowledge._sources.base import Segment

MIN_WORDS = 2
"""A shorter quote may occur in any text by chance. Two characters of Chinese or Japanese count as a word."""

NOT_FOUND = "its quote is not in the source"
NEGATED = "its quote leaves out the negation next to it"
TOO_SHORT = f"quote is shorter than {MIN_WORDS} words"

# The numbers of segments in the prompt, which are not part of the source, with the speaker and the time.
_MARKER = re.compile(r"(?:^|(?<=\s))\[\d+\](?:\s\([^()\n]{1,100}\))?\s+")
_QUOTATION_MARKS = "\"'“”„‘’«»` "  # noqa: RUF001  # models put them around a quote
_PLAIN_WORDS = re.compile(rf"[A-Za-z0-9]+(?: [A-Za-z0-9]+){{{MIN_WORDS - 1},}}[A-Za-z0-9 ,.]*")
"""A quote without markup, which most are. Its words are counted without folding it."""
_EMPTY_LINE = re.compile(r"\n[ \t]*\n")
_MARKS_BEFORE = re.compile(r"[*_`~]+\Z")
_MARKS_AFTER = re.compile(r"[*_`~]*[.!?。！？]?[*_`~]*")  # noqa: RUF001  # full-width marks


class CitedRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row with verified evidence. ``relocated``: the quote is at another place than the model named."""

    row: ExtractedRow
    evidence: Evidence
    relocated: bool


class _Span(msgspec.Struct, frozen=True):
    """A quote in the source: its words, its lines and the indexes of its segments."""

    text: str
    match: Match
    first: int
    last: int
    first_segment: int
    last_segment: int


class QuoteChecker:
    """Looks up quotes in one chunk, whose normalized text it keeps."""

    def __init__(self, chunk: Chunk) -> None:
        self._chunk = chunk
        self._segments = chunk.segments
        # The text with single spaces, with the offsets of its segments and passages.
        self._offsets: list[int] = []
        self._passages: list[int] = []
        pieces: list[str] = []
        at = 0
        for segment in chunk.segments:
            self._offsets.append(at)
            for passage in _EMPTY_LINE.split(segment.text) if "\n" in segment.text else (segment.text,):
                self._passages.append(at)
                piece = _collapse_spaces(passage)
                if piece:
                    pieces.append(piece)
                    at += len(piece) + 1
        self._text = " ".join(pieces)
        self._raw_offsets: list[int] = []
        self._raw = ""
        self._index: QuoteIndex | None = None
        self._wider: QuoteChecker | None = None

    def check(self, row: ExtractedRow) -> CitedRow | QuarantinedRow:
        """Return the row with its evidence, or with the reason why it is quarantined."""
        problem = find_record_problem(row.record)
        if problem is not None:
            return self._quarantine(row, problem)
        found = self.find(row.quote, row.line)
        if isinstance(found, str):
            return self._quarantine(row, found)
        evidence, is_named = found
        return CitedRow(row=row, evidence=evidence, relocated=not is_named)

    def find(self, quote: str, line: int) -> tuple[Evidence, bool] | str:
        """Find the occurrence of a quote that is nearest to a line; if there is none, in the context too.

        Returns:
            The evidence and whether it is at that line, or the reason why the quote is not valid.
        """
        found = self._find(quote, line)
        context = self._chunk.context
        if context is None or not isinstance(found, str):
            return found
        if self._wider is None:
            segments = (*context.segments, *self._segments)
            self._wider = QuoteChecker(msgspec.structs.replace(self._chunk, segments=segments, context=None))
        wider = self._wider.find(quote, line)
        return found if isinstance(wider, str) else wider

    def _find(self, quote: str, line: int) -> tuple[Evidence, bool] | str:
        if not quote.strip():
            return "no quote"
        bare = _MARKER.sub("", quote.strip(_QUOTATION_MARKS)).strip(_QUOTATION_MARKS)
        if not _PLAIN_WORDS.fullmatch(bare) and count_words(FoldedText(bare).key, MIN_WORDS) < MIN_WORDS:
            return TOO_SHORT
        candidates = list(dict.fromkeys((_collapse_spaces(quote), _collapse_spaces(bare))))
        problem = NOT_FOUND
        for find in (self._find_exact, self._find_folded, self._find_parts):
            for candidate in candidates:
                spans: list[_Span] = []
                for span, borders in find(candidate):
                    if span.first_segment != span.last_segment and not self._is_one_speaker(span):
                        continue
                    if borders.leave_out_a_negation:
                        problem = NEGATED
                    elif not borders.cut_a_word and not (span.match == "folded" and borders.turn_a_question(candidate)):
                        spans.append(span)
                if spans:
                    return self._cite(min(spans, key=lambda span: self._distance(span, line)), line)
        return problem

    def _find_exact(self, quote: str) -> Iterator[tuple[_Span, Borders]]:
        at, count = self._text.find(quote), 0
        while at >= 0 and count < MAX_OCCURRENCES:
            end = at + len(quote)
            first, last = bisect_right(self._offsets, at) - 1, bisect_right(self._offsets, end - 1) - 1
            low = self._passages[bisect_right(self._passages, at) - 1]
            next_passage = bisect_right(self._passages, end - 1)
            high = self._passages[next_passage] if next_passage < len(self._passages) else len(self._text)
            span = _Span(
                quote,
                "exact",
                _find_line(self._segments[first], at - self._offsets[first]),
                _find_line(self._segments[last], end - 1 - self._offsets[last]),
                first,
                last,
            )
            yield span, Borders(self._text, at, end, low, high)
            at, count = self._text.find(quote, at + 1), count + 1

    def _find_folded(self, quote: str) -> Iterator[tuple[_Span, Borders]]:
        for start, end in self._open_index().find(quote):
            yield self._locate(start, end)

    def _find_parts(self, quote: str) -> Iterator[tuple[_Span, Borders]]:
        for start, end in self._open_index().find_parts(quote):
            yield self._locate(start, end)

    def _open_index(self) -> QuoteIndex:
        if self._index is None:
            at = 0
            for segment in self._segments:
                self._raw_offsets.append(at)
                at += len(segment.text) + 2
            self._raw = "\n\n".join(segment.text for segment in self._segments)
            self._index = QuoteIndex(self._raw)
        return self._index

    def _locate(self, start: int, end: int) -> tuple[_Span, Borders]:
        borders = Borders(self._raw, start, end, 0, len(self._raw))
        first, last = bisect_right(self._raw_offsets, start) - 1, bisect_right(self._raw_offsets, end - 1) - 1
        low = self._raw_offsets[first]
        marks = _MARKS_BEFORE.search(self._raw, low, start)
        start = marks.start() if marks is not None else start
        match = _MARKS_AFTER.match(self._raw, end)
        end = match.end() if match is not None else end
        lines = [
            _count_lines(segment, at - self._raw_offsets[index])
            for segment, index, at in ((self._segments[first], first, start), (self._segments[last], last, end - 1))
        ]
        return _Span(self._raw[start:end], "folded", lines[0], lines[1], first, last), borders

    def _is_one_speaker(self, span: _Span) -> bool:
        segments = self._segments[span.first_segment : span.last_segment + 1]
        return len({(segment.speaker, segment.label) for segment in segments}) == 1

    def _distance(self, span: _Span, line: int) -> int:
        segment = self._segments[span.first_segment]
        return 0 if segment.first <= line <= segment.last else min(abs(segment.first - line), abs(segment.last - line))

    def _cite(self, span: _Span, line: int) -> tuple[Evidence, bool]:
        segments = self._segments[span.first_segment : span.last_segment + 1]
        evidence = Evidence(
            source=self._chunk.source,
            quote=one_line(span.text),
            first=span.first,
            last=span.last,
            unit=self._chunk.unit,
            match=span.match,
            speaker=segments[0].speaker,
            timestamp=segments[0].timestamp,
            session_id=segments[0].session_id,
            branch=segments[0].branch,
        )
        return evidence, any(segment.first <= line <= segment.last for segment in segments)

    def _quarantine(self, row: ExtractedRow, reason: str) -> QuarantinedRow:
        return QuarantinedRow(record=row.record, reason=reason, quote=one_line(row.quote), where=self._chunk.where)


def check(rows: Sequence[ExtractedRow], chunk: AnyChunk) -> list[CitedRow | QuarantinedRow]:
    """Check the rows of an answer against its chunk. A quote is in one source."""
    if not rows:
        return []
    checkers = [QuoteChecker(part) for part in chunk.parts]
    if len(checkers) == 1:
        return [checkers[0].check(row) for row in rows]
    return [_check_in_parts(row, chunk, checkers) for row in rows]


def _check_in_parts(row: ExtractedRow, chunk: AnyChunk, checkers: Sequence[QuoteChecker]) -> CitedRow | QuarantinedRow:
    """Check a row in the source that its number names, then in the others, the nearest first."""
    at, line = find_part(chunk, row.line)
    results: list[QuarantinedRow] = []
    relocated: list[CitedRow] = []
    for index in sorted(range(len(checkers)), key=lambda index: abs(index - at)):
        segments = chunk.parts[index].segments
        own_line = line if index == at else segments[0].first if index > at else segments[-1].last
        checked = checkers[index].check(msgspec.structs.replace(row, line=own_line))
        if isinstance(checked, QuarantinedRow):
            results.append(checked)
        elif index == at:
            return checked
        else:
            relocated.append(msgspec.structs.replace(checked, relocated=True))
    if relocated:
        return next((one for one in relocated if one.evidence.match == "exact"), relocated[0])
    negated = next((one for one in results if one.reason == NEGATED), None)
    if negated is not None:
        return negated
    segments = chunk.parts[at].segments
    is_named = segments[0].first <= line <= segments[-1].last
    return results[0] if is_named else msgspec.structs.replace(results[0], where=chunk.where)


def _collapse_spaces(text: str) -> str:
    return " ".join(text.split())


def _has_line_numbers(segment: Segment) -> bool:
    return segment.last > segment.first and segment.last - segment.first == segment.text.count("\n")


def _find_line(segment: Segment, offset: int) -> int:
    """Return the line (page, paragraph) at an offset of the segment's normalized text."""
    if not _has_line_numbers(segment):
        return segment.first
    at = 0
    for number, line in enumerate(segment.text.split("\n"), segment.first):
        collapsed = _collapse_spaces(line)
        at += len(collapsed) + 1 if collapsed else 0
        if offset < at:
            return number
    return segment.last


def _count_lines(segment: Segment, offset: int) -> int:
    """Return the line (page, paragraph) at an offset of the segment's text."""
    return segment.first + segment.text.count("\n", 0, offset) if _has_line_numbers(segment) else segment.first
