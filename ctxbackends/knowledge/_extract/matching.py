"""Find a quote in a text after folding, as one run of words or in parts around an ellipsis."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator

from ctxbackends.knowledge._extract.borders import contains_negation
from ctxbackends.knowledge._extract.folding import FoldedText, count_words
from ctxbackends.knowledge._extract.markup import find_hidden_words

MAX_OCCURRENCES = 100
"""Occurrences of a quote that are compared; enough for a frequent phrase."""

MAX_PARTS = 8
MAX_ATTEMPTS = 20
"""Ellipses: the parts of a quote, and the attempts in one passage."""

MAX_SPAN = 1_200
"""Characters of the source from the first part to the last."""

# Not the arguments of a call: feed(...)
_ELLIPSIS = re.compile(
    r"\[\s*(?:\.{3,}|…)\s*\]|(?<!\w)\(\s*(?:\.{3,}|…)\s*\)|(?<!\w\()(?<!\w\(\.)(?:\.{3,}|…)|\. \. \."
)
_PREFIXED_LINE = re.compile(r"\n[ \t]*(?:[0-9]{1,3}[.)][ \t]|>|//|\+[ \t])")
_PASSAGE_END = re.compile(r"\n[ \t\0]*\n[\s\0]*")


class QuoteIndex:
    """A text that is folded once, when the first quote is looked up."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._texts: list[FoldedText] = []
        self._passages: dict[bool, list[tuple[int, FoldedText]]] = {}

    def find(self, quote: str) -> Iterator[tuple[int, int]]:
        """Yield the spans in the text that a quote matches after folding, as one run of words."""
        if self._adds_words(quote):
            return
        for folded in self._fold():
            for key in self._build_keys(quote, folded):
                at, count = folded.key.find(key), 0
                while at >= 0 and count < MAX_OCCURRENCES:
                    yield folded.span(at, at + len(key))
                    at, count = folded.key.find(key, at + 1), count + 1

    def find_parts(self, quote: str) -> Iterator[tuple[int, int]]:
        """Yield the spans of passages that have the parts of a quote in their order, around its ellipses.

        The span is that from the first part to the last. Nothing that an ellipsis leaves out is a negation of its
        neighbours.
        """
        parts = _ELLIPSIS.split(quote)
        if len(parts) == 1 or self._adds_words(quote):
            return
        parts = [part for part in parts if count_words(FoldedText(part).key)]
        if not 2 <= len(parts) <= MAX_PARTS or not all(_is_long_enough(part) for part in parts):
            return
        for folded in self._fold():
            keys = [self._build_keys(part, folded)[-1] for part in parts]
            if all(key in folded.key for key in keys):
                for offset, passage in self._split(folded):
                    for start, end in _find_in_order(passage, keys):
                        yield offset + start, offset + end

    def _adds_words(self, quote: str) -> bool:
        """Return whether the markup of a quote has words that are not in the text, such as another target of a link."""
        return any(words not in self._text for words in find_hidden_words(quote))

    def _fold(self) -> Iterator[FoldedText]:
        if not self._texts:
            self._texts.append(FoldedText(self._text))
        yield self._texts[0]
        if len(self._texts) == 1 and ("![" in self._text or _PREFIXED_LINE.search(f"\n{self._text}")):
            self._texts.append(FoldedText(self._text, keep_all=True))
        yield from self._texts[1:]

    def _build_keys(self, quote: str, folded: FoldedText) -> list[str]:
        """Return the key of the quote, and if it hyphenates words that the text has at line ends, the key without."""
        key = FoldedText(quote, keep_all=folded.keeps_all).key
        if not key.strip():
            return []
        merged = _merge_hyphenated(key, folded.hyphenated)
        return [key] if merged == key else [key, merged]

    def _split(self, folded: FoldedText) -> list[tuple[int, FoldedText]]:
        """Return the passages, which end at empty lines, with their offsets."""
        passages = self._passages.get(folded.keeps_all)
        if passages is None:
            passages, start = [], 0
            for end, after in [
                *(match.span() for match in _PASSAGE_END.finditer(folded.plain)),
                (len(self._text),) * 2,
            ]:
                passages.append((start, FoldedText(self._text[start:end], keep_all=folded.keeps_all)))
                start = after
            self._passages[folded.keeps_all] = passages
        return passages


def _is_long_enough(part: str) -> bool:
    key = FoldedText(part).key
    return count_words(key) >= 2 or len(key.strip()) >= 4


def _merge_hyphenated(key: str, hyphenated: set[tuple[str, str]]) -> str:
    if not hyphenated:
        return key
    merged: list[str] = []
    for word in key.split():
        if merged and (merged[-1], word) in hyphenated:
            merged[-1] += word
        else:
            merged.append(word)
    return f" {' '.join(merged)} "


def _find_in_order(passage: FoldedText, keys: list[str]) -> Iterator[tuple[int, int]]:
    """Yield the shortest spans of a passage that have all keys in their order."""
    first = 0
    for _ in range(MAX_ATTEMPTS):
        end = first
        for key in keys:
            at = passage.key.find(key, end)
            if at < 0:
                return
            end = at + len(key) - 1
        # The last part is at its first possible place; the others are moved as close to it as possible.
        starts: list[int] = []
        before = end + 1
        for key in reversed(keys):
            starts.insert(0, passage.key.rfind(key, first, before))
            before = starts[0] + 1
        spans = [passage.span(at, at + len(key)) for at, key in zip(starts, keys, strict=True)]
        start, stop = spans[0][0], spans[-1][1]
        gaps = [passage.text[left[1] : right[0]] for left, right in itertools.pairwise(spans)]
        if stop - start <= MAX_SPAN and not any(map(contains_negation, gaps)):
            yield start, stop
        first = starts[0] + 1
