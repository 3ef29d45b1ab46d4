"""Fold a text into words for comparison, without the differences that models make when they copy it.

Case, quotation marks, dashes, punctuation, markup, entities, ligatures, invisible characters and hyphens at line ends
are folded. Words, digits, signs, units, question marks, comparisons and other symbols are kept.
"""

from __future__ import annotations

import operator
import re
from bisect import bisect_right
from itertools import accumulate

from ctxbackends.knowledge._extract.characters import JOIN, PRODUCT, RANGE, expand_characters
from ctxbackends.knowledge._extract.markup import blank_markup

# Thai, Lao, Burmese, Khmer, Chinese, Japanese: written without spaces between words, so each character is a token.
_SINGLES = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u2e80-\u2fff\u3005-\u3007\u3040-\u30ff\u31f0-\u31ff\u3400-\u4dbf"
    "\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_SYMBOLS = "\xa2-\xa7\xac\xb0\xb1\xb6\xd7\xf7\u2030\u2031\u20a0-\u20cf\u2190-\u2bff\U0001f000-\U0001faff"
# Letters, digits and the marks of letters: all that is neither ASCII punctuation nor one of the above.
_CHAR = rf"[^\0-/:-@\[-`{{-\xa9\xab-\xb1\xb6-\xb8\xbb\xbf\xd7\xf7\u2014{_SYMBOLS}{_SINGLES}]"
_RUN = rf"{_CHAR}+(?:{JOIN}+{_CHAR}+)*"
_TOKEN = re.compile(
    rf"""
    (?:(?<!{_CHAR})[+-]{JOIN}*(?=\.?[0-9]))?                            # the sign of a number
    (?:(?<![.]|{_CHAR})\.(?=[0-9]))?                                    # .5
    {_RUN}(?:{JOIN}*(?:[_']|\.(?=[0-9])|(?<=[0-9])[,:/](?=[0-9])){JOIN}*{_RUN})*   # 1.5, 10:30, don't, snake_case
    |[{_SINGLES}]
    |[!=<>]=+|[=-]>|<-|[=<>]|!(?={_CHAR})                               # comparisons, arrows, negations in code
    |~~|~(?=[0-9])
    |\#(?={_CHAR})|(?<={_CHAR})\#
    |(?<={_CHAR})\\(?={_CHAR})
    |[{RANGE}{PRODUCT}+%$&@^?/{_SYMBOLS}]
    """,
    re.VERBOSE,
)
_IS_SINGLE = re.compile(f"[{_SINGLES}]")
_IS_WORD = re.compile(f"{_CHAR}|{_IS_SINGLE.pattern}")

# Units that differ in case only: Mb and MB, mW and MW, 5 m and 5 M.
_UNIT = re.compile(
    r"((?:[+-]?[0-9][0-9.,]*)?)([kmgtp]i?b|[kmg]bps|mw|mhz|mv|ma|mpa|mm|ms|[mkgbstw])", re.ASCII | re.IGNORECASE
)
_UPPER = "\3"
"""Follows an upper-case letter of a unit in a key."""

_CACHE_SIZE = 50_000
_LONGEST_CACHED = 40


class _FoldedWords(dict[str, str]):
    """Maps text between spaces to its folded tokens. It forgets all of them when it is full."""

    def __missing__(self, word: str) -> str:
        folded = " ".join(map(_fold_token, _TOKEN.findall(word)))
        if len(word) <= _LONGEST_CACHED:
            if len(self) >= _CACHE_SIZE:
                self.clear()
            self[word] = folded
        return folded


_WORDS = _FoldedWords()
_SPACES = dict.fromkeys(map(ord, "\t\n\r\v\f\x1c\x1d\x1e\x1f"), " ")


def _fold_token(token: str) -> str:
    token = token.replace(JOIN, "").replace(RANGE, "-").replace(PRODUCT, "*")
    unit = _UNIT.fullmatch(token)
    if unit is not None:
        token = unit[1] + "".join(char + _UPPER if char.isupper() else char for char in unit[2])
    return expand_characters(token.lower())


class FoldedText:
    """A text as its folded words, with the place of each word in the text.

    Attributes:
        text: The text.
        keeps_all: Whether the key has the descriptions of images and the prefixes of lines.
        plain: The text with fillers for its markup, of the same length.
        key: The folded words, with one space before and after each.
        hyphenated: The two parts of each word that a line end hyphenates; it is one word of the key.
    """

    def __init__(self, text: str, *, keep_all: bool = False) -> None:
        self.text = text
        self.keeps_all = keep_all
        self.plain, self.hyphenated = blank_markup(text, keep_all=keep_all)
        self._parts = self.plain.translate(_SPACES).split(" ")
        self._folded = list(map(_WORDS.__getitem__, self._parts))
        self.key = f" {' '.join(filter(None, self._folded))} "
        self._starts: list[int] | None = None
        self._ends: list[int] = []

    def span(self, start: int, end: int) -> tuple[int, int]:
        """Return the span in the text of ``key[start:end]``, which begins and ends with a space."""
        first, last = self._locate(start + 1)[0], self._locate(end - 2)[1]
        while last < len(self.plain) and self.plain[last] == JOIN:  # the mark of a letter, the target of a link
            last += 1
        while first and self.plain[first - 1] == JOIN:
            first -= 1
        return first, last

    def _locate(self, offset: int) -> tuple[int, int]:
        """Return the span in the text of the word at an offset of the key."""
        if self._starts is None:
            lengths = accumulate(map(len, self._parts[:-1]), initial=0)
            self._starts = list(map(operator.add, lengths, range(len(self._parts))))
            counts = accumulate(map(bool, self._folded))
            self._ends = list(map(operator.add, accumulate(map(len, self._folded)), counts))
        at = bisect_right(self._ends, offset - 1)
        start = self._ends[at] - len(self._folded[at])  # of the part in the key
        number = self._folded[at].count(" ", 0, offset - start)
        first = self._starts[at]
        token = list(_TOKEN.finditer(self._parts[at]))[number]
        return first + token.start(), first + token.end()


def count_words(key: str, limit: int = 10) -> float:
    """Return the number of words in a key, at most ``limit``.

    A character of Chinese, Japanese and the like is half a word.
    """
    count = 0.0
    for word in key.split(maxsplit=2 * limit):
        if _IS_WORD.search(word):
            count += 0.5 if _IS_SINGLE.fullmatch(word) else 1
    return min(count, limit)


def is_word_character(char: str) -> bool:
    """Return whether a character is part of a word that may continue before or after it."""
    return _IS_WORD.fullmatch(char) is not None and _IS_SINGLE.fullmatch(char) is None
