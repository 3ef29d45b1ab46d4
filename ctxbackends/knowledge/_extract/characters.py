"""Replace variants of characters, such as quotation marks, dashes and widths, by plain ones."""

from __future__ import annotations

import re
import unicodedata

JOIN = "\0"
"""Fills a mark within a word, whose parts belong together. A space fills every other mark."""

RANGE = "\1"
"""Fills a dash between two numbers, such as that of ``10-20``; elsewhere a dash is punctuation."""

PRODUCT = "\2"
"""Fills an asterisk between two numbers; elsewhere it is a mark."""

_EXPLICIT = {
    **dict.fromkeys("\u2018\u2019\u201a\u201b\u02bc\u02b9\u2032\u2039\u203a\u00b4", "'"),
    **dict.fromkeys("\u201c\u201d\u201e\u201f\u2033\u00ab\u00bb", '"'),
    **dict.fromkeys("\u2010\u2011\u2012\u2013\u2212\ufe63\uff0d", "-"),
    **dict.fromkeys("\u2014\u2015\ufe58", "\u2014"),
    **dict.fromkeys("\u2028\u2029", "\n"),
    **dict.fromkeys("\u2122\u00a9\u00ae", " "),
    **{char: char for char in "\u2030\u2031\u00a7\u00b6"},  # their category is punctuation, but they have a meaning
}
# A superscript, a fraction and a number in a circle are not the plain number.
_KEPT_FORMS = ("<super>", "<sub>", "<fraction>", "<circle>")


class _PlainCharacters(dict[int, str]):
    """Maps each character to one character."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        self[code] = plain = char if code < 128 else _find_plain(char)
        return plain


def _find_plain(char: str) -> str:
    if char in _EXPLICIT:
        return _EXPLICIT[char]
    category = unicodedata.category(char)
    if category == "Cf" or "\ufe00" <= char <= "\ufe0f" or "\U000e0100" <= char <= "\U000e01ef":
        return JOIN
    if category[0] == "Z" or category == "Cc":
        return " "
    if unicodedata.decomposition(char).startswith(_KEPT_FORMS):
        return char
    form = unicodedata.normalize("NFKC", char)
    form = form if len(form) == 1 else char
    return " " if category == "Sk" or (category[0] == "P" and not form.isascii()) else form


_PLAIN = _PlainCharacters()
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_SOFT_HYPHEN_AT_LINE_END = re.compile("\u00ad(?=[ \t]*\n)")


def unify_characters(text: str) -> str:
    """Return a text of the same length with plain characters in composed form."""
    if "\u00ad" in text:
        text = _SOFT_HYPHEN_AT_LINE_END.sub("-", text)
    text = _NOT_ASCII.sub(lambda match: match[0].translate(_PLAIN), text)
    return text if unicodedata.is_normalized("NFC", text) else _compose(text)


def _compose(text: str) -> str:
    """Compose each letter with the marks after it, and fill up the length."""
    parts: list[str] = []
    cluster = ""
    for char in text:
        if cluster and (unicodedata.combining(char) or "\u1161" <= char <= "\u11ff"):
            cluster += char
        else:
            parts.append(unicodedata.normalize("NFC", cluster).ljust(len(cluster), JOIN))
            cluster = char
    parts.append(unicodedata.normalize("NFC", cluster).ljust(len(cluster), JOIN))
    return "".join(parts)


class _ExpandedCharacters(dict[int, str]):
    """Maps ligatures and squared letters to their letters, and signs to those of ASCII."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        is_compound = unicodedata.decomposition(char).startswith(("<compat>", "<square>"))
        self[code] = expanded = unicodedata.normalize("NFKC", char).lower() if is_compound else char
        return expanded


_EXPANDED = _ExpandedCharacters(
    {
        ord(char): sign
        for char, sign in {"→": "->", "⇒": "=>", "←": "<-", "≠": "!=", "≤": "<=", "≥": ">=", "\u03c2": "\u03c3"}.items()
    }
)


def expand_characters(word: str) -> str:
    """Return a word with its ligatures and signs spelled out."""
    return word if word.isascii() else word.translate(_EXPANDED)
