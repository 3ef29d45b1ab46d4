"""Replace the markup of a text by fillers of the same length, so that each word keeps its offset.

Markup is that of Markdown, reStructuredText and HTML, the prefixes of comments and block quotes, hyphens at line ends,
invisible characters and typographic variants of characters.
"""

from __future__ import annotations

import html
import re

from ctxbackends.knowledge._extract.characters import JOIN, PRODUCT, RANGE, unify_characters

_LETTER = r"[^\W\d_]"
# The patterns begin with a literal where they can, which makes the search in ordinary text cheap. All repeats that
# could overlap are bounded, so that the time is linear.
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_TARGET = (
    r"\((?:<[^<>\n]{0,500}>|(?:[^()\s<>]|\([^()\s]{0,200}\)){0,1000})"
    r"""(?:\s{1,3}(?:"[^"\n]{0,300}"|'[^'\n]{0,300}'))?\s?(?:\)|\Z)"""  # a quote may end within a target
)
_NOT_AN_INDEX = r"\[(?<![A-Za-z0-9_)\]\\]\[)"  # rows[0](x) is not a link
_IMAGE = re.compile(rf"!\[([^\[\]]{{0,300}})\]{_TARGET}")
_LINK = re.compile(rf"{_NOT_AN_INDEX}([^\[\]]{{1,300}})\]{_TARGET}")
_REFERENCE = re.compile(rf"{_NOT_AN_INDEX}([^\[\]\n]{{0,200}}{_LETTER}[^\[\]\n]{{0,100}})\]\[[^\[\]\n]{{0,100}}\]")
_FOOTNOTE = re.compile(r"\[\^[^\[\]\s]{1,50}\]|\[[^\[\]\s]{1,40}\]_(?!\w)")
_AUTOLINK = re.compile(r"<((?:https?|ftp|mailto):[^<>\s]{1,500})(?:>|\Z)")
# The tags of deletions are kept: their text is not the text of the source any more.
_INLINE = "(?:a|b|i|u|q|em|strong|code|kbd|samp|tt|span|mark|small|big|ins|font|abbr)"
_BLOCK = (
    "(?:p|br|hr|div|section|article|blockquote|pre|details|summary|center|ul|ol|li|dl|dt|dd|table|thead|tbody|tr|td|th"
    "|h[1-6]|sup|sub|img)"
)
_NOT_GENERIC = "(?<![A-Za-z0-9_]<)"  # List<A> is not a link
_INLINE_TAG = re.compile(rf"<(?:{_NOT_GENERIC}{_INLINE}(?:\s[^<>\n]{{0,300}})?|/{_INLINE})>", re.IGNORECASE)
_BLOCK_TAG = re.compile(
    rf"<(?:{_NOT_GENERIC}{_BLOCK}(?:[\s/][^<>\n]{{0,300}})?|/{_BLOCK}|(?:br|sup|sub)\s?/?)>", re.IGNORECASE
)
_ROLE = re.compile(r":(?<!\w:)[A-Za-z][\w.+-]{0,40}(?::[A-Za-z][\w.+-]{0,40})?:(?=`)")
_ROLE_TARGET = re.compile(r":(?<!\w:)[A-Za-z][\w.+:-]{0,80}:(`[^`<>]{1,300}\s)<[^<>`]{1,500}>(?=`)")
_TARGET_OF_TEXT = re.compile(r"<(?<=\s<)(?:[^<>`]{1,500}>(?=`_)|[^<>`\s]{1,500}>_{1,2}(?!\w))")
_RST_JOIN = re.compile(r"\\ (?<=[`*_|]\\ )")
_ESCAPE = re.compile(r"\\(?=[!-/:-@\[-`{-~\n])")
_MARKS = re.compile(r"[*`]+")
_DASHES = re.compile("-{1,3}|\u2014")
_FENCE = re.compile(r"\n[ \t]*(?:```|~~~)[^`\n]*(?=\n|\Z)")
_ADORNMENT = re.compile(r"\n[ \t]*(?:([=\-~^\"'#*+`:._])\1{2,}|[|+\-=:][|+\-=: \t]{2,})[ \t]*(?=\n|\Z)")
_TASK_BOX = re.compile(r"(\n[ \t]*[-*+][ \t]+)\[[ xX]\](?=[ \t])")
_PREFIX = re.compile(r"\n[ \t]*((?:>[ \t]?)+|#{1,6}(?=[^\d\n])|//+[/!]?|\+(?=[ \t])|(\d{1,3})[.)](?=[ \t]))")
_LINE_HYPHEN = re.compile(r"-[ \t]*\n[ \t]*")
_LETTERS_BEFORE = re.compile(rf"{_LETTER}+\Z")
_LETTERS_AFTER = re.compile(rf"(?![A-Z]){_LETTER}+")
_MAX_WORD = 60
_PLAIN = re.compile(r"(?!\s*[0-9])[^\0-\2\n&`<>\[\\*|=~^+#/-]*", re.ASCII)

# The words of markup that is blanked: targets, labels, attributes, roles, descriptions of images.
_HIDDEN = re.compile(
    r"\]\(([^()\s]{1,1000})|\]\[([^\[\]]{1,100})\]|\[\^([^\[\]]{1,50})\]|\s<([^<>`]{1,500})>[`_]|<\w{1,10}\s([^<>]{1,300})>"
    r"|:([A-Za-z][\w.+:-]{0,80}):`|!\[([^\[\]]{1,300})\]"
)

Hyphenated = set[tuple[str, str]]


def blank_markup(text: str, *, keep_all: bool = False) -> tuple[str, Hyphenated]:
    """Replace markup by fillers.

    Args:
        text: The text.
        keep_all: Keep the descriptions of images and the prefixes of lines, such as the numbers of list items.

    Returns:
        A text of the same length, and the two parts of each word that a line end hyphenates, in lower case.
    """
    if text.isascii() and _PLAIN.fullmatch(text):
        return text, set()
    text = f"\n{text}"  # so that each line begins with a literal
    for filler in (JOIN, RANGE, PRODUCT):
        text = text.replace(filler, " ")
    if not text.isascii():
        text = unify_characters(text)
    text = _blank_constructs(text, keep_all=keep_all)
    text = _ADORNMENT.sub(_blank, text)
    text = text if keep_all else _blank_prefixes(text)
    hyphenated: Hyphenated = set()
    if "-" in text or "\u2014" in text:
        text = _DASHES.sub(_fill_range, _LINE_HYPHEN.sub(lambda match: _join_lines(match, hyphenated), text))
    if "*" in text or "`" in text:
        text = _MARKS.sub(_fill_mark, text)
    return text[1:], hyphenated


def find_hidden_words(text: str) -> list[str]:
    """Return the words of a text's markup that :func:`blank_markup` replaces."""
    return [next(filter(None, groups)) for groups in _HIDDEN.findall(text)]


def _blank_constructs(text: str, *, keep_all: bool) -> str:
    """Blank entities, fences, roles, links, footnotes, tags, escapes and task boxes."""
    # Looking for a literal first is faster than each pattern.
    if "&" in text:
        text = _ENTITY.sub(_decode_entity, text)
    if "```" in text or "~~~" in text:
        text = _FENCE.sub(_blank, text)
    if ":`" in text:
        text = _ROLE.sub(_blank, _ROLE_TARGET.sub(_keep_text, text))
    if ">`_" in text or ">_" in text:
        text = _TARGET_OF_TEXT.sub(_blank, text)
    if "](" in text:
        text = _LINK.sub(_keep_text, _IMAGE.sub(_keep_text if keep_all else _blank, text))
    if "][" in text:
        text = _REFERENCE.sub(_keep_text, text)
    if "[^" in text or "]_" in text:
        text = _FOOTNOTE.sub(_blank, text)
    if "<" in text:
        text = _BLOCK_TAG.sub(_blank, _INLINE_TAG.sub(_join, _AUTOLINK.sub(_keep_text, text)))
    if "\\" in text:
        text = _ESCAPE.sub(JOIN, _RST_JOIN.sub(_join, text))
    if "[ ]" in text or "[x]" in text or "[X]" in text:
        text = _TASK_BOX.sub(_keep_text, text)
    return text


def _blank(match: re.Match[str]) -> str:
    # Line ends are kept, since other patterns look for the beginning of a line.
    return "\n".join(" " * len(line) for line in match[0].split("\n"))


def _join(match: re.Match[str]) -> str:
    return JOIN * len(match[0])


def _keep_text(match: re.Match[str]) -> str:
    return JOIN * (match.start(1) - match.start()) + match[1] + JOIN * (match.end() - match.end(1))


def _decode_entity(match: re.Match[str]) -> str:
    char = html.unescape(match[0])
    return unify_characters(char).ljust(len(match[0]), JOIN) if len(char) == 1 else match[0]


def _fill_range(match: re.Match[str]) -> str:
    return RANGE + " " * (len(match[0]) - 1) if _is_between_digits(match) else match[0]


def _fill_mark(match: re.Match[str]) -> str:
    if match[0] == "*" and _is_between_digits(match):
        return PRODUCT
    before, after = _neighbours(match)
    return JOIN * len(match[0]) if before.isalpha() and (after.isalpha() or after == "'") else match[0]


def _is_between_digits(match: re.Match[str]) -> bool:
    """Return whether digits are before and after the match, or before and after one space on both sides of it."""
    before, after = _neighbours(match)
    if before == after == " ":
        before, after = _neighbours(match, 1)
    return before.isdigit() and after.isdigit()


def _neighbours(match: re.Match[str], distance: int = 0) -> tuple[str, str]:
    """Return the characters before and after the match, without fillers; empty at the ends of the text."""
    text, start, end = match.string, match.start(), match.end()
    while start and text[start - 1] == JOIN:
        start -= 1
    while end < len(text) and text[end] == JOIN:
        end += 1
    start, end = start - distance, end + distance
    return text[max(0, start - 1) : max(0, start)], text[end : end + 1]


def _join_lines(match: re.Match[str], hyphenated: Hyphenated) -> str:
    text = match.string
    before = _LETTERS_BEFORE.search(text[max(0, match.start() - _MAX_WORD) : match.start()])
    after = _LETTERS_AFTER.match(text[match.end() : match.end() + _MAX_WORD])
    if before is None or after is None:
        return match[0]
    hyphenated.add((before[0].lower(), after[0].lower()))
    return JOIN * len(match[0])


def _blank_prefixes(text: str) -> str:
    """Blank the prefixes of lines if the lines before have them too.

    Within a paragraph, ``> 5 ms`` and ``10. Then`` may be words of a wrapped sentence.
    """
    parts: list[str] = []
    copied, next_line, last_prefix, last_number = 0, -1, "", 0
    for match in _PREFIX.finditer(text):
        prefix, number, start = match[1][0], int(match[2] or 0), match.start()
        before = text[text.rfind("\n", 0, start) + 1 : start]
        is_first = not before.strip(f" \t>#/|{JOIN}") or before.rstrip().endswith(":")
        continues = number == last_number + 1 if number else (prefix == last_prefix and start == next_line)
        if is_first or continues:
            last_prefix, last_number = prefix, number
            next_line = text.find("\n", match.end())
            parts += [text[copied : match.start(1)], " " * len(match[1])]
            copied = match.end(1)
    return "".join([*parts, text[copied:]])
