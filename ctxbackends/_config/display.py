"""Values of a configuration as an error message shows them: short, on one line, never a key."""

from __future__ import annotations

import unicodedata

from ctxbackends._util.key_shapes import looks_like_key


def display_value(text: str) -> str:
    """``text`` as a message shows it: short, on one line, and not at all where it looks like a key."""
    if looks_like_key(text):
        return "the value (not shown: it looks like a key)"
    return repr(text) if len(text) <= 60 else f"{text[:57]!r}..."


def display_name(name: str) -> str:
    return "(not shown)" if looks_like_key(name) or has_unsafe_characters(name) or len(name) > 100 else name


def has_unsafe_characters(text: str) -> bool:
    # Controls, lone surrogates and line separators: they break lines of the file, of logs and of HTTP headers.
    return any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)
