"""Format values of a configuration for error messages: short, on one line, never an API key."""

from __future__ import annotations

import unicodedata

from ctxbackends._util.api_key_shapes import looks_like_key


def display_value(text: str) -> str:
    """Return ``text`` quoted and shortened for a message; hidden if it looks like an API key."""
    if looks_like_key(text):
        return "(not shown: looks like a key)"
    return repr(text) if len(text) <= 60 else f"{text[:57]!r}..."


def display_name(name: str) -> str:
    """Return ``name`` for a message; hidden if it looks like an API key, is too long or has unsafe characters."""
    return "(not shown)" if looks_like_key(name) or has_unsafe_characters(name) or len(name) > 100 else name


def has_unsafe_characters(text: str) -> bool:
    """Return whether ``text`` has characters that break lines of files, logs or HTTP headers."""
    # Control characters, lone surrogates, line and paragraph separators
    return any(unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") for c in text)
