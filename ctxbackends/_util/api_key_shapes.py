"""The shapes of API keys in one table, to mask them in errors and in texts that are sent to a model."""

from __future__ import annotations

import re

MASK = "[masked]"

_WORD = "[A-Za-z0-9_-]"
_LETTER = "[A-Za-z0-9]"
# The prefixes of a key, and the pattern of the rest.
_PREFIXED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("sk-",), rf"{_WORD}{{16,}}"),  # OpenAI, Anthropic, OpenRouter
    (("pk-lf-",), rf"{_WORD}{{16,}}"),  # Langfuse
    (("sk_", "rk_"), rf"{_LETTER}{{20,}}"),  # ElevenLabs
    (("sk_live_", "sk_test_", "rk_live_", "rk_test_", "pk_live_", "pk_test_"), rf"{_LETTER}{{16,}}"),  # Stripe
    (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), rf"{_LETTER}{{20,}}"),
    (("github_pat_",), r"[A-Za-z0-9_]{20,}"),
    (("glpat-",), rf"{_WORD}{{16,}}"),
    (("xoxa-", "xoxb-", "xoxp-", "xoxo-", "xoxs-", "xoxr-"), r"[A-Za-z0-9-]{10,}"),  # Slack
    (("AKIA", "ASIA"), r"[A-Z0-9]{16}(?![A-Za-z0-9])"),  # AWS
    (("AIza",), rf"{_WORD}{{30,}}"),  # Google
    (("ya29.",), rf"{_WORD}{{20,}}"),
    (("hf_",), rf"{_LETTER}{{20,}}"),
    (("gsk_",), rf"{_LETTER}{{20,}}"),
    (("nvapi-",), rf"{_WORD}{{20,}}"),
    (("xai-",), rf"{_LETTER}{{20,}}"),
    (("r8_",), rf"{_LETTER}{{20,}}"),
    (("npm_",), rf"{_LETTER}{{30,}}"),
    (("pypi-",), rf"{_WORD}{{30,}}"),
    (("SG.",), rf"{_WORD}{{16,}}\.{_WORD}{{16,}}"),  # SendGrid
    (("eyJ",), rf"{_WORD}{{8,}}\.{_WORD}{{8,}}\.{_WORD}{{8,}}"),  # JSON Web Token
)
_ANYWHERE = ("github_pat_", "glpat-")  # matched after a letter or a digit too, since no word contains these
_PRIVATE_KEY = (
    r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----(\s{0,8}[A-Z][A-Za-z]{1,9}-[A-Z][A-Za-z]{1,9}: [^\n]{0,200}){0,4}"
    r"[^-]{0,20000}(-----END [A-Z ]{0,32}PRIVATE KEY-----)?"
)


def _pattern(prefixes: tuple[str, ...], rest: str) -> re.Pattern[str]:
    bound = "" if set(prefixes) <= set(_ANYWHERE) else f"(?<!{_LETTER})"
    return re.compile(f"{bound}(?:{'|'.join(map(re.escape, prefixes))}){rest}", re.ASCII)


# Each shape with the strings of which it contains one: a search for these first makes ordinary text cheap.
_SHAPES: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = (
    (("PRIVATE KEY",), re.compile(_PRIVATE_KEY, re.ASCII)),
    *((prefixes, _pattern(prefixes, rest)) for prefixes, rest in _PREFIXED),
)


def mask_keys(text: str) -> tuple[str, int]:
    """Return ``text`` with each key masked, and the number of keys. Line breaks in a key are kept."""
    count = 0
    for needles, shape in _SHAPES:
        if any(needle in text for needle in needles):
            text, replaced = shape.subn(lambda match: MASK + "\n" * match[0].count("\n"), text)
            count += replaced
    return text, count


_START = re.compile(
    rf"(?<!{_WORD})(?:sk-|(?=[A-Za-z0-9_.-]{{20}})"
    rf"(?:pk-|{'|'.join(re.escape(prefix) for prefixes, _ in _PREFIXED for prefix in prefixes)}))",
    re.ASCII,
)


def looks_like_key(text: str) -> bool:
    """Return whether ``text`` could contain an API key.

    That is a known shape, a known prefix with 20 characters in all, ``sk-``, or a long run of digits and lower-case
    letters. It is wider than :func:`mask_keys`, since a false positive only hides a value in an error.
    """
    if _START.search(text) or mask_keys(text)[1]:
        return True
    return any(
        len(run) >= 16 and any(c.isdigit() for c in run) and any(c.islower() for c in run)
        for run in re.split("[^A-Za-z0-9]+", text)
    )
