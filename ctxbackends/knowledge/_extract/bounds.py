"""The bounds of rows and characters in an answer's schema, so that an answer within them fits.

They end a constrained answer that would not end by itself. They are only in the schema: what a server that ignores them
writes beyond them is still valid.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

import attrs

from ctxbackends.knowledge._extract.budget import BYTES_PER_TOKEN

MAX_ROWS = 20
"""The most rows of each kind in one answer."""

MAX_QUOTE = 600

_SHARE = 0.9  # of the answer's tokens; the rest is for white space and escapes
_ROW_EXTRA = 24  # characters: the braces of a row, its line and a comma
_FIELD_EXTRA = 6  # characters: the quotation marks, the colon and the comma of a field
_LIST_EXTRA = 30  # characters: the name of a list and its brackets

_RANGES: Mapping[str, tuple[int, int]] = MappingProxyType(
    {
        "quote": (240, MAX_QUOTE),
        "title": (100, 200),
        "summary": (140, 300),
        "question": (140, 300),
        "term": (60, 100),
        "priority": (6, 6),
    }
)
_OTHER_RANGE = (140, 600)
"""The least and the most characters of a text. The least leaves room for a sentence or two."""

_TOKENS_OF_USUAL_ROW = 128


@attrs.frozen
class Bounds:
    """The bounds of an answer.

    Attributes:
        rows: The most rows of each kind.
        share: How far the texts are between their least and their greatest length; negative below the least.
    """

    rows: int
    share: float

    def length(self, field: str) -> int:
        """Return the most characters of a text."""
        least, most = _RANGES.get(field, _OTHER_RANGE)
        if self.share < 0:
            return max(1, int(least * (1 + self.share)))
        return int(least + (most - least) * self.share)


def fit_bounds(kinds: Sequence[Sequence[str]], answer_tokens: int) -> Bounds:
    """Return the bounds within which an answer fits into its tokens, at 3 characters each.

    More rows come before longer texts, up to ``MAX_ROWS``.

    Args:
        kinds: For each list of the answer, the names of the fields of its rows, without ``line``.
        answer_tokens: The most tokens of the answer.
    """
    names = [name for fields in kinds for name in fields]
    room = int(answer_tokens * BYTES_PER_TOKEN * _SHARE) - _LIST_EXTRA * len(kinds)
    extra = _ROW_EXTRA * len(kinds) + sum(len(name) + _FIELD_EXTRA for name in names)
    least = sum(_RANGES.get(name, _OTHER_RANGE)[0] for name in names)
    most = sum(_RANGES.get(name, _OTHER_RANGE)[1] for name in names)
    rows = max(1, min(MAX_ROWS, room // (extra + least)))
    left = room / rows - extra  # characters of the texts of one row of each kind
    share = (left - least) / (most - least) if left >= least else left / least - 1
    return Bounds(rows, max(-1.0, min(1.0, share)))


def widen_bounds(bounds: Bounds, answer_tokens: int) -> Bounds:
    """Return the bounds for a chunk of several sources: more rows, which fit if their texts have usual lengths.

    An answer that they do not end is truncated, and the chunk is split between its sources.
    """
    rows = min(MAX_ROWS, answer_tokens // _TOKENS_OF_USUAL_ROW)
    return Bounds(rows, min(bounds.share, 0.0)) if rows > bounds.rows else bounds


def drop_partial_word(text: str, length: int) -> str:
    """Return a text without its last word if the bound ended it, which may be within the word."""
    if len(text) != length:
        return text
    head, space, _ = text.rstrip().rpartition(" ")
    return head if space else text
