"""Check that a quote cuts no word or number at its ends, and leaves out no negation."""

from __future__ import annotations

import re

from ctxbackends.knowledge._extract.characters import JOIN, unify_characters
from ctxbackends.knowledge._extract.folding import is_word_character

WINDOW = 60
"""Characters before and after a quote that are checked."""

_NEGATIONS_AFTER = frozenset(
    ("not", "never", "nicht", "nie", "niemals", "niet", "nooit", "pas", "jamais", "inte", "ikke", "aldrig", "nunca")
)
"""Words that negate the words before them too."""

_NEGATIONS = _NEGATIONS_AFTER | frozenset(
    (
        *("no", "neither", "nor", "cannot", "without", "non", "ohne", "kein", "keine", "keinen", "keinem", "keiner"),
        *("ne", "sans", "aucun", "aucune", "jamás", "sin", "não", "sem", "geen", "zonder"),
        *("не", "нет", "ни", "без", "никогда", "안", "못"),
    )
)
"""Words that negate the words after them. Words with another meaning in another language ("un", "mai") are not here."""

_LONGEST_NEGATION = 12
_CJK_NEGATIONS = frozenset("不没沒無无未非勿")
_CJK_NEGATIONS_AFTER = ("しない", "しません", "せず", "ない", "ません", "않", "못")

# Other punctuation separates a negation from the quote. An empty line does as well.
_BETWEEN = " \t\n\r\"'*_`~>#|-\0"
_LAST_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?\Z")
_FIRST_WORD = re.compile(r"[^\W\d_]+(?:'[^\W\d_]+)?")
_EMPTY_LINE = re.compile(r"\n[ \t>#*|]*\n")

_BEFORE_NUMBER = re.compile(r"(?:[0-9][.,:/'-]|(?<![\w)])[+-]|(?<![.\w])\.|[$€£¥₹~≈±≤≥<] ?)\Z")
_AFTER_NUMBER = re.compile(r"[.,:/'-][0-9]| ?[%‰°€]")
_ELISION = re.compile(r"(?<!\w)(?:l|d|qu|j|m|s|c|jusqu|lorsqu|puisqu|dell|all|nell|sull)'\Z", re.IGNORECASE)
_APOSTROPHE_BEFORE = re.compile(r"\w'\Z")
_APOSTROPHE_AFTER = re.compile(r"'\w")
_QUESTION_AFTER = re.compile(r"[\s\"'*_`)\]}]*\?")
_END_OF_STATEMENT = re.compile(r"(?<![.…])[.!。！][\s\"'”’»*_`)\]]*\Z")  # noqa: RUF001  # full-width marks


class Borders:
    """The characters around a span of a text.

    Args:
        text: The text.
        start: The start of the span.
        end: The end of the span.
        low: The start of its passage.
        high: The end of its passage.
    """

    def __init__(self, text: str, start: int, end: int, low: int, high: int) -> None:
        inner = (
            unify_characters(text[start : min(end, start + WINDOW)]),
            unify_characters(text[max(start, end - 2) : end]),
        )
        self._first, self._last = inner[0].strip(JOIN)[:1], inner[1].strip(JOIN)[-1:]
        self._before = unify_characters(text[max(low, start - WINDOW) : start])
        self._after = unify_characters(text[end : min(high, end + WINDOW)])

    @property
    def cut_a_word(self) -> bool:
        """Whether the span begins or ends within a word or a number, or without its sign or unit."""
        return self._cuts_at_start() or self._cuts_at_end()

    def _cuts_at_start(self) -> bool:
        before = self._before.rstrip(JOIN)
        if not before or not is_word_character(self._first):
            return False
        if self._first.isdigit() and _BEFORE_NUMBER.search(before):
            return True
        if _APOSTROPHE_BEFORE.search(before):
            return _ELISION.search(before) is None
        return is_word_character(before[-1]) or (before[-1] == "_" and is_word_character(before[-2:-1] or " "))

    def _cuts_at_end(self) -> bool:
        after = self._after.lstrip(JOIN)
        if not after or not is_word_character(self._last):
            return False
        if self._last.isdigit() and _AFTER_NUMBER.match(after):
            return True
        if _APOSTROPHE_AFTER.match(after):
            return self._last.isalpha()
        return is_word_character(after[0]) or (after[0] == "_" and is_word_character(after[1:2] or " "))

    @property
    def leave_out_a_negation(self) -> bool:
        """Whether a negation is directly before the span, or directly after it."""
        before = self._before.rstrip(_BETWEEN)
        last = _LAST_WORD.search(before.replace(JOIN, "")[-_LONGEST_NEGATION:])
        if last is not None and not _EMPTY_LINE.search(self._before, len(before)) and _negates_next(last[0].lower()):
            return True
        after = self._after.lstrip(_BETWEEN)
        first = _FIRST_WORD.match(after)
        if first is None or _EMPTY_LINE.search(self._after[: len(self._after) - len(after)]):
            return False
        return first[0].lower() in _NEGATIONS_AFTER or first[0].startswith(_CJK_NEGATIONS_AFTER)

    def turn_a_question(self, quote: str) -> bool:
        """Whether the span is a question in the source, and the quote ends like a statement."""
        return _QUESTION_AFTER.match(self._after) is not None and _END_OF_STATEMENT.search(quote) is not None


_CLAUSE_END = re.compile("[,;:.!?()，。；：！？—]")  # noqa: RUF001  # full-width marks


def contains_negation(gap: str) -> bool:
    """Return whether words that an ellipsis leaves out negate the words before or after them.

    A separate clause, between two punctuation marks, does not.
    """
    clauses = _CLAUSE_END.split(unify_characters(gap).replace(JOIN, ""))
    return any(_is_negative(clause) for clause in (clauses[0], clauses[-1]))


def _negates_next(word: str) -> bool:
    return word in _NEGATIONS or word.endswith("n't") or word[-1] in _CJK_NEGATIONS


def _is_negative(clause: str) -> bool:
    words = _FIRST_WORD.findall(clause.lower())
    return any(
        _negates_next(word) or not _CJK_NEGATIONS.isdisjoint(word) or word.endswith(_CJK_NEGATIONS_AFTER)
        for word in words
    )
