"""Mask secrets in a text before it is sent.

A secret has the form of a key, or is assigned to a name such as ``password``. Git hashes, UUIDs and checksums are kept,
since people cite them. The number of line ends does not change, so places remain correct.
"""

from __future__ import annotations

import re

from ctxbackends._util.api_key_shapes import MASK, mask_keys

_KEY_END = re.compile(r"-----END [A-Z ]{0,32}PRIVATE KEY-----", re.ASCII)
_KEY_LINE = re.compile(r"[A-Za-z0-9+/=]{16,100}", re.ASCII)
_BEARER = re.compile(r"\b(Bearer|Basic|Token)[ \t]+(?!\[masked\])([A-Za-z0-9._~+/-]{12,}=*)", re.ASCII | re.IGNORECASE)
_IN_URL = re.compile(r"(?<=://)([^\s:/@?#\"'<>]{0,100}):(?!\[masked\])([^\s/@\"'<>]{1,200})@")
# The name of a secret, an assignment and a value, in code, YAML, JSON, shell and .env files.
_ASSIGNMENT = re.compile(
    r"""(?<![A-Za-z0-9_.-])(?P<name>[A-Za-z0-9_.-]{0,60}?(?:api[_-]?key|secret|token|passw(?:or)?d|passphrase|private[_-]?key|access[_-]?key))
    (?P<between>[A-Za-z0-9_]{0,20}["']?[ \t]{0,4}(?::=|[:=])[ \t]{0,4})
    (?P<value>"[^"\n]{8,500}"|'[^'\n]{8,500}'|[^\s"',;{}()\[\]<>]{8,500})""",
    re.ASCII | re.IGNORECASE | re.VERBOSE,
)
_NAMES = ("key", "secret", "token", "passw", "passphrase")
_PLACEHOLDER = re.compile(
    r"""\$|\{|<|%|\*{3}|\.{3}|x{4}|(?:your|my|the|some|example|changeme|placeholder|dummy|fake|redacted|masked)
    |(?:os\.|process\.|env\b|getenv|config|settings|self\.|none\b|null\b|true\b|false\b|https?://)""",
    re.IGNORECASE | re.VERBOSE,
)


def mask(text: str) -> tuple[str, int]:
    """Return the text with its secrets masked, and the number of secrets."""
    text, count = mask_keys(text)
    if "-----END" in text:
        text, replacements = _mask_key_tails(text)
        count += replacements
    if "@" in text and "://" in text:
        text, replacements = _IN_URL.subn(rf"\1:{MASK}@", text)
        count += replacements
    lower = text.lower()
    if "bearer" in lower or "basic" in lower or "token" in lower:
        text = _BEARER.sub(_mask_bearer, text)
        count += text.count(_PENDING)
        text = text.replace(_PENDING, MASK)
    if any(name in lower for name in _NAMES):
        text = _ASSIGNMENT.sub(_mask_assignment, text)
        count += text.count(_PENDING)
        text = text.replace(_PENDING, MASK)
    return text, count


def _mask_key_tails(text: str) -> tuple[str, int]:
    """Mask the ends of private keys that begin in another segment, since an encrypted key has an empty line."""
    lines = text.split("\n")
    count = 0
    for at, line in enumerate(lines):
        first = at
        while _KEY_END.search(line) and first and _KEY_LINE.fullmatch(lines[first - 1].strip()):
            first -= 1
        if first < at:
            lines[first : at + 1] = [MASK, *[""] * (at - first - 1), _KEY_END.sub("", line)]
            count += 1
    return "\n".join(lines), count


_PENDING = "\0masked\0"  # no source contains NUL


def _mask_bearer(match: re.Match[str]) -> str:
    # In prose, a plain word follows these words.
    value = match[2]
    return f"{match[1]} {_PENDING}" if _is_random(value) else match[0]


def _mask_assignment(match: re.Match[str]) -> str:
    value = match["value"]
    quote = value[0] if value[0] in "\"'" else ""
    inner = value.strip("\"'")
    if MASK in inner or _PLACEHOLDER.search(inner) or not (_is_random(inner) or (quote and " " not in inner)):
        return match[0]
    return f"{match['name']}{match['between']}{quote}{_PENDING}{quote}"


def _is_random(value: str) -> bool:
    """Return whether the value is not a plain word: it has letters with digits or with other signs."""
    has_digit = any(char.isdigit() for char in value)
    has_letter = any(char.isalpha() for char in value)
    return has_letter and (has_digit or any(char in "!@#&=+/~^" for char in value))
