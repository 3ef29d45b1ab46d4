"""The shapes of API keys in one table, to mask them in errors and in texts that are sent to a model."""

from __future__ import annotations

import itertools
import re

MASK = "[masked]"

_WORD = "[A-Za-z0-9_-]"
_LETTER = "[A-Za-z0-9]"
_HEX = "[0-9a-f]"
# The prefixes of a key, and the pattern of the rest.
_PREFIXED: tuple[tuple[tuple[str, ...], str], ...] = (
    (("sk-",), rf"{_WORD}{{16,}}"),  # OpenAI, Anthropic, OpenRouter
    (("pk-lf-",), rf"{_WORD}{{16,}}"),  # Langfuse
    (("sk_", "rk_"), rf"{_LETTER}{{20,}}"),  # ElevenLabs
    (("sk_live_", "sk_test_", "rk_live_", "rk_test_", "pk_live_", "pk_test_"), rf"{_LETTER}{{16,}}"),  # Stripe
    (("whsec_",), rf"{_LETTER}{{20,}}"),  # Stripe, of webhooks
    (("ghp_", "gho_", "ghu_", "ghs_", "ghr_"), rf"{_LETTER}{{20,}}"),
    (("github_pat_",), r"[A-Za-z0-9_]{20,}"),
    (("glpat-",), rf"{_WORD}{{16,}}"),
    (("xoxa-", "xoxb-", "xoxp-", "xoxo-", "xoxs-", "xoxr-", "xapp-"), r"[A-Za-z0-9-]{10,}"),  # Slack
    (("AKIA", "ASIA"), r"[A-Z0-9]{16}(?![A-Za-z0-9])"),  # AWS
    (("AIza",), rf"{_WORD}{{30,}}"),  # Google
    (("GOCSPX-",), rf"{_WORD}{{20,}}"),  # Google, of OAuth clients
    (("ya29.",), rf"{_WORD}{{20,}}"),
    (("hf_",), rf"{_LETTER}{{20,}}"),
    (("gsk_",), rf"{_LETTER}{{20,}}"),
    (("nvapi-",), rf"{_WORD}{{20,}}"),
    (("xai-",), rf"{_LETTER}{{20,}}"),
    (("pplx-",), rf"{_LETTER}{{20,}}"),  # Perplexity
    (("r8_",), rf"{_LETTER}{{20,}}"),
    (("npm_",), rf"{_LETTER}{{30,}}"),
    (("dckr_pat_",), rf"{_WORD}{{20,}}"),  # Docker Hub
    (("dop_v1_",), rf"{_HEX}{{40,}}"),  # DigitalOcean
    (("shpat_", "shpss_"), rf"{_HEX}{{32,}}"),  # Shopify
    (("hvs.",), rf"{_WORD}{{20,}}"),  # Vault
    (("pypi-",), rf"{_WORD}{{30,}}"),
    (("SG.",), rf"{_WORD}{{16,}}\.{_WORD}{{16,}}"),  # SendGrid
    (("eyJ",), rf"{_WORD}{{8,}}\.{_WORD}{{8,}}\.{_WORD}{{8,}}"),  # JSON Web Token
)
_RANDOM = ("sk-", "pypi-", "SG.")  # these begin names of packages and of CSS classes too, so the rest must be random
_ANYWHERE = ("github_pat_", "glpat-")  # matched after a letter or a digit too, since no word contains these
_PRIVATE_KEY = (
    r"-----BEGIN [A-Z ]{0,32}PRIVATE KEY-----(\s{0,8}[A-Z][A-Za-z]{1,9}-[A-Z][A-Za-z]{1,9}: [^\n]{0,200}){0,4}"
    r"[^-]{0,20000}(-----END [A-Z ]{0,32}PRIVATE KEY-----)?"
)


def _pattern(prefixes: tuple[str, ...], rest: str) -> re.Pattern[str]:
    bound = "" if set(prefixes) <= set(_ANYWHERE) else f"(?<![A-Za-z0-9_])(?<!{_LETTER}-)"
    return re.compile(f"{bound}(?:{'|'.join(map(re.escape, prefixes))}){rest}", re.ASCII)


# Each shape with the strings of which it contains one: a search for these first makes ordinary text cheap.
_SHAPES: tuple[tuple[tuple[str, ...], re.Pattern[str]], ...] = (
    (("PRIVATE KEY",), re.compile(_PRIVATE_KEY, re.ASCII)),
    *((prefixes, _pattern(prefixes, rest)) for prefixes, rest in _PREFIXED),
)


_PLAIN_PART = re.compile(r"[0-9]*|[A-Za-z]+[0-9]{0,4}|[0-9]{1,4}[A-Za-z]{1,4}", re.ASCII)


def is_random(text: str) -> bool:
    """Return whether a text seems to be random: a part of it is neither a word, a number nor a word with a number."""
    return any(_is_random_part(part) for part in re.split("[^A-Za-z0-9]+", text))


def _is_random_part(part: str) -> bool:
    if _PLAIN_PART.fullmatch(part) is None:
        return len(part) >= 6
    # In random letters the case changes often; in the words of a name it changes where they begin.
    changes = sum(one.isupper() != other.isupper() for one, other in itertools.pairwise(part))
    return len(part) >= 16 and part.isalpha() and changes * 3 > len(part)


def mask_keys(text: str) -> tuple[str, int]:
    """Return ``text`` with each key masked, and the number of keys. Line breaks in a key are kept."""
    count = 0

    def replace(match: re.Match[str]) -> str:
        nonlocal count
        key = match[0]
        if key.startswith(_RANDOM) and not is_random(key):
            return key
        count += 1
        return MASK + "\n" * key.count("\n")

    for needles, shape in _SHAPES:
        if any(needle in text for needle in needles):
            text = shape.sub(replace, text)
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
