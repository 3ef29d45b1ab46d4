"""Format text for display: escape control characters, collapse white space, pluralize."""

from __future__ import annotations

import re

# Escape sequences would move the cursor of a terminal, change its title, or hide what was printed before; a carriage
# return overwrites the line.
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in "\n\t"}
# They change the order of the characters on the screen, so that a text could look like another one.
_BIDI = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def escape_controls(text: str) -> str:
    """Return ``text`` with control characters escaped, except line feeds and tabs."""
    return text.translate(_CONTROLS)


def escape_for_review(text: str) -> str:
    """Return ``text`` on one line, with control characters and those that change the order of others escaped."""
    return _BIDI.sub(lambda match: f"\\u{ord(match[0]):04x}", escape_controls(text).replace("\n", "\\n"))


def one_line(text: str) -> str:
    """Return ``text`` on one line: white space collapsed, control characters escaped."""
    return escape_controls(" ".join(text.split()))


def pluralize(count: int, noun: str) -> str:
    """Return the count with its noun: ``1 row``, ``2 rows``."""
    return f"{count} {noun}" if count == 1 else f"{count} {plural(noun)}"


def plural(noun: str) -> str:
    """Return the plural of a noun: ``rows``, ``policies``, ``fixes``."""
    if noun.endswith("y") and noun[-2:-1] not in ("a", "e", "i", "o", "u", ""):
        return f"{noun[:-1]}ies"
    return f"{noun}es" if noun.endswith(("s", "x", "z", "ch", "sh")) else f"{noun}s"


def format_size(size: int) -> str:
    """Return a number of bytes in the unit that people read: ``98 MB``, ``1.5 GB``."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.{1 if unit == 'GB' else 0}f} {unit}"
    return pluralize(size, "byte")


def format_duration(seconds: float) -> str:
    """Return a duration for people to read: 2 h 5 min."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    if minutes:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    return f"{rest} s"


def format_rate(rate: float) -> str:
    """Return a rate for people to read: 0.4, 38, 1,200."""
    return f"{rate:,.0f}" if rate >= 10 or rate == 0 else f"{rate:.1f}"


def count_bytes(text: str) -> int:
    """Return the size of a text in UTF-8."""
    # isascii() takes constant time, so the encoding is spared for ASCII.
    return len(text) if text.isascii() else len(text.encode("utf-8", "surrogatepass"))
