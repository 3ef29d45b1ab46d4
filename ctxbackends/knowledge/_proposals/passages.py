"""The passages around the quotes of a proposal, read again from the sources and masked."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import accumulate
from pathlib import Path

import msgspec

from ctxbackends.knowledge._errors import KnowledgeError, ProposalError, SourceError
from ctxbackends.knowledge._extract.folding import FoldedText
from ctxbackends.knowledge._privacy.masking import mask
from ctxbackends.knowledge._proposals.model import Proposal
from ctxbackends.knowledge._proposals.sources import find_file, find_input, open_source
from ctxbackends.knowledge._records import Evidence, QuarantinedRow, title_of
from ctxbackends.knowledge._sources.base import Segment

WITHHELD = "not shown, since it matches privacy.redact of .ctxrc"
MISSING = "not found"
_NOT_FOUND_AGAIN = "the quote was not found again"
_NO_WORDS = "no line has words of the row"
# A control character of a source, as one_line() writes it.
_ESCAPED_CONTROL = re.compile(r"\\\\x([01][0-9a-f]|7f|[89][0-9a-f])")
_PLACE_NUMBERS = re.compile(r"[ :](\d+)(?:-(\d+))?\Z")
_CUT = "…"

Span = tuple[int, int]


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """A line of a passage.

    Attributes:
        text: The text, without its line end.
        number: Its number in the source; None if it has none.
        speaker: The speaker or the tool of a transcript; empty in other sources.
        marks: The spans of the text that belong to the quote.
    """

    text: str
    number: int | None = None
    speaker: str = ""
    marks: tuple[Span, ...] = ()


class Passage(msgspec.Struct, frozen=True, kw_only=True):
    """A quote in its source.

    Attributes:
        source: The name of the source.
        lines: The lines.
        first: The index of the first line with the quote, or the nearest words.
        last: The index of the last one.
    """

    source: str
    lines: tuple[Line, ...]
    first: int
    last: int


def label_lines(lines: Iterable[Line]) -> Iterator[tuple[str, str, Line]]:
    """Yield the lines, each with its speaker and its number, or empty texts where they are those of the line before.

    A line that is too long for one segment has several, with the same number.
    """
    speaker, number = "", None
    for line in lines:
        is_other = line.speaker not in ("", speaker)
        yield line.speaker if is_other else "", "" if line.number in (None, number) else str(line.number), line
        speaker, number = line.speaker or speaker, line.number


def split_marks(line: Line) -> Iterator[tuple[str, bool]]:
    """Yield the parts of a line, and whether each belongs to the quote."""
    at = 0
    for start, end in line.marks:
        yield line.text[at:start], False
        yield line.text[start:end], True
        at = end
    yield line.text[at:], False


def withhold_nothing(_: Path) -> bool:
    """Show every source."""
    return False


class Passages:
    """Finds the passages of a proposal. Each source is read when its first passage is needed.

    Args:
        proposal: The proposal.
        lines: Lines before and after a quote.
        characters: Characters of a line before and after a quote; a line without one has at most as many.
        roots: The directories that the names of the sources may be relative to.
        withholds: Returns whether a file must not be shown.
    """

    def __init__(
        self,
        proposal: Proposal,
        *,
        lines: int,
        characters: int = 300,
        roots: Sequence[Path] = (Path(),),
        withholds: Callable[[Path], bool] = withhold_nothing,
    ) -> None:
        self._proposal = proposal
        self._lines = lines
        self._characters = characters
        self._roots = roots
        self._withholds = withholds
        self._spans: dict[str, set[Span]] = {}
        for row in proposal.rows:
            for evidence in row.evidence:
                self._spans.setdefault(evidence.source, set()).add((evidence.first, evidence.last))
        for quarantined in proposal.quarantined:
            for source, span in self._parse_places(quarantined):
                self._spans.setdefault(source, set()).add(span)
        self._segments: dict[str, _Segments | str] = {}

    def is_read(self, source: str) -> bool:
        """Return whether a source was read already, so that its passages are there at once."""
        return source in self._segments

    def load(self, source: str) -> None:
        """Read a source, if it was not read before."""
        if not self.is_read(source):
            self._segments[source] = self._read_segments(source, self._spans.setdefault(source, set()))

    def find(self, evidence: Evidence) -> Passage | str:
        """Return the passage of a quote, or the reason why it cannot be shown."""
        span = (evidence.first, evidence.last)
        segments = self._read(evidence.source, span)
        if isinstance(segments, str):
            return segments
        near = segments.near((span[0] - self._lines, span[1] + self._lines))
        lines, offsets = _build_lines(near)
        raw = "\n".join(line.text for line in lines)
        starts = _find_starts(lines)
        matches: list[tuple[bool, Span, Span]] = []
        for low, high in _find_ranges(near, offsets, evidence):
            for match in _build_pattern(evidence.quote).finditer(raw, starts[low], starts[high] - 1):
                first, last = (bisect_right(starts, at) - 1 for at in (match.start(), match.end() - 1))
                is_exact = (lines[first].number, lines[last].number) == span
                matches.append((not is_exact, (first, last), match.span()))
        if not matches:
            return _NOT_FOUND_AGAIN
        _, (first, last), (start, end) = min(matches)
        for index in range(first, last + 1):
            text, offset = lines[index].text, starts[index]
            low, high = max(start - offset, 0), min(end - offset, len(text))
            low = high - len(text[low:high].lstrip())  # without the indentation of the line
            if low < high:
                lines[index] = msgspec.structs.replace(lines[index], marks=((low, high),))
        return self._cut(evidence.source, lines, first, last)

    def find_nearest(self, row: QuarantinedRow) -> Passage | str:
        """Return the lines with the most words of a quarantined row's quote, or the reason why there are none."""
        words = set(FoldedText(f"{row.quote}\n{title_of(row.record)}").key.split())
        problem, best_score, best = MISSING, 0, None
        for source, span in self._parse_places(row):
            segments = self._read(source, span)
            if isinstance(segments, str):
                problem = segments
                continue
            lines, _ = _build_lines(segments.near(span))
            scores = [len(words.intersection(FoldedText(line.text).key.split())) for line in lines]
            problem = _NO_WORDS
            if max(scores, default=0) > best_score:
                best_score = max(scores)
                best = source, lines, scores.index(best_score)
        return problem if best is None else self._cut(best[0], best[1], best[2], best[2])

    def find_sources(self, row: QuarantinedRow) -> list[str]:
        """Return the names of the sources that a quarantined row may come from."""
        return list(dict.fromkeys(source for source, _ in self._parse_places(row)))

    # --- reading ----------------------------------------------------------------------------------

    def _parse_places(self, row: QuarantinedRow) -> Iterator[tuple[str, Span]]:
        for place in row.where.split("; "):
            numbers = _PLACE_NUMBERS.search(place)
            try:
                source = find_input(self._proposal, place).name
            except ProposalError:
                continue
            if numbers is not None:
                yield source, (int(numbers[1]), int(numbers[2] or numbers[1]))

    def _read(self, name: str, span: Span) -> _Segments | str:
        """Return the segments of a source near the quotes of the proposal, or the reason why it cannot be shown."""
        spans = self._spans.setdefault(name, set())
        if span not in spans:
            spans.add(span)
            self._segments.pop(name, None)
        self.load(name)
        return self._segments[name]

    def _read_segments(self, name: str, spans: set[Span]) -> _Segments | str:
        input_ = next((one for one in self._proposal.facts.inputs if one.name == name), None)
        path = find_file(name, self._roots)
        if input_ is None or path is None:
            return MISSING
        if self._withholds(path):
            return WITHHELD
        near = _NearSpans(spans, self._lines)
        try:
            return _Segments(
                msgspec.structs.replace(piece, text=mask(piece.text)[0])
                for piece in open_source(input_, path).pieces()
                if isinstance(piece, Segment) and near.contain(piece)
            )
        except SourceError as error:
            return error.reason
        except KnowledgeError as error:
            return str(error)

    # --- cutting ----------------------------------------------------------------------------------

    def _cut(self, source: str, lines: Sequence[Line], first: int, last: int) -> Passage:
        start, end = max(first - self._lines, 0), min(last + self._lines + 1, len(lines))
        while start < first and not lines[start].text.strip():
            start += 1
        while end > last + 1 and not lines[end - 1].text.strip():
            end -= 1
        cut = tuple(_cut_line(line, self._characters) for line in lines[start:end])
        return Passage(source=source, lines=cut, first=first - start, last=last - start)


class _Segments:
    """The segments of a source that are near its quotes, in their order."""

    def __init__(self, segments: Iterable[Segment]) -> None:
        self._segments = tuple(segments)
        # For each segment the last line up to it, and the first line from it on.
        self._lasts = list(accumulate((one.last for one in self._segments), max))
        self._firsts = list(accumulate((one.first for one in reversed(self._segments)), min))[::-1]

    def near(self, span: Span) -> list[Segment]:
        start, end = bisect_left(self._lasts, span[0]), bisect_right(self._firsts, span[1])
        return [one for one in self._segments[start:end] if _overlaps(one, span)]


class _NearSpans:
    """The segments near some spans."""

    def __init__(self, spans: Iterable[Span], margin: int) -> None:
        self._merged: list[list[int]] = []
        for first, last in sorted(spans):
            if self._merged and first - margin <= self._merged[-1][1]:
                self._merged[-1][1] = max(self._merged[-1][1], last + margin)
            else:
                self._merged.append([first - margin, last + margin])
        self._ends = [last for _, last in self._merged]

    def contain(self, segment: Segment) -> bool:
        at = bisect_left(self._ends, segment.first)
        return at < len(self._merged) and self._merged[at][0] <= segment.last


def _overlaps(segment: Segment, span: Span) -> bool:
    return segment.first <= span[1] and span[0] <= segment.last


def _build_lines(segments: Sequence[Segment]) -> tuple[list[Line], list[Span]]:
    """Return the lines of segments, and for each segment the indexes of its first line and of the line after it."""
    lines: list[Line] = []
    offsets: list[Span] = []
    before: Segment | None = None
    for segment in segments:
        if before is not None and not _continues(before, segment):
            lines.append(Line(text=""))
        texts = segment.text.split("\n")
        is_numbered = segment.last - segment.first == len(texts) - 1
        offsets.append((len(lines), len(lines) + len(texts)))
        lines += [
            Line(
                text=text,
                number=segment.first + index if is_numbered else None,
                speaker=segment.label or segment.speaker or "",
            )
            for index, text in enumerate(texts)
        ]
        before = segment
    return lines, offsets


def _continues(before: Segment, segment: Segment) -> bool:
    """Return whether a segment begins on the line after another one, or within it, and is not another turn."""
    is_next = segment.first <= before.last + 1 and (segment.first == before.last + 1 or not segment.boundary)
    return is_next and (segment.speaker, segment.label) == (before.speaker, before.label)


def _find_starts(lines: Sequence[Line]) -> list[int]:
    starts = [0]
    for line in lines:
        starts.append(starts[-1] + len(line.text) + 1)
    return starts


def _find_ranges(segments: Sequence[Segment], offsets: Sequence[Span], evidence: Evidence) -> Iterator[Span]:
    """Yield the lines of neighbouring segments in which the quote may be: at its place, and of its speaker."""
    low: int | None = None
    high = 0
    for segment, (start, end) in zip(segments, offsets, strict=True):
        if _overlaps(segment, (evidence.first, evidence.last)) and segment.speaker == evidence.speaker:
            low, high = start if low is None else low, end
        elif low is not None:
            yield low, high
            low = None
    if low is not None:
        yield low, high


def _build_pattern(quote: str) -> re.Pattern[str]:
    r"""Match a quote as its source has it: with any white space, and control characters instead of ``\x1b``."""
    words = (
        _ESCAPED_CONTROL.sub(lambda match: rf"(?:{match[0]}|\x{match[1]})", re.escape(word)) for word in quote.split()
    )
    return re.compile(r"\s+".join(words))


def _cut_line(line: Line, characters: int) -> Line:
    text = line.text
    if not line.marks:
        return line if len(text) <= characters else msgspec.structs.replace(line, text=text[:characters] + _CUT)
    start, end = max(line.marks[0][0] - characters, 0), min(line.marks[-1][1] + characters, len(text))
    before, after = _CUT if start else "", _CUT if end < len(text) else ""
    shift = len(before) - start
    marks = tuple((first + shift, last + shift) for first, last in line.marks)
    return msgspec.structs.replace(line, text=f"{before}{text[start:end]}{after}", marks=marks)
