"""Secrets in a text that is to be sent: found by their forms, and masked. Pure; knows no source.

Only what has the form of a key, or is assigned to the name of one. Hashes of git, UUIDs and checksums stay: people cite
them. The number of line ends stays as well, so that places stay true.
"""

from __future__ import annotations

import re

from ctxbackends._util.key_shapes import MASK, mask_keys

_KEY_END = re.compile(r"-----END [A-Z ]{0,32}PRIVATE KEY-----", re.ASCII)
_KEY_LINE = re.compile(r"[A-Za-z0-9+/=]{16,100}", re.ASCII)
_BEARER = re.compile(r"\b(Bearer|Basic|Token)[ \t]+(?!\[masked\])([A-Za-z0-9._~+/-]{12,}=*)", re.ASCII | re.IGNORECASE)
_IN_URL = re.compile(r"(?<=://)([^\s:/@?#\"'<>]{0,100}):(?!\[masked\])([^\s/@\"'<>]{1,200})@")
# A name that says secret, an assignment, and a value: in code, YAML, JSON, shell and .env files.
_ASSIGNED = re.compile(
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
    """``text`` with its secrets masked, and how many there were."""
    text, count = mask_keys(text)
    if "-----END" in text:
        text, found = _without_key_ends(text)
        count += found
    if "@" in text and "://" in text:
        text, found = _IN_URL.subn(rf"\1:{MASK}@", text)
        count += found
    lower = text.lower()
    if "bearer" in lower or "basic" in lower or "token" in lower:
        text, found = _BEARER.subn(_bearer, text)
        count += text.count(_MARKED)
        text = text.replace(_MARKED, MASK)
    if any(name in lower for name in _NAMES):
        text = _ASSIGNED.sub(_assigned, text)
        count += text.count(_MARKED)
        text = text.replace(_MARKED, MASK)
    return text, count


def _without_key_ends(text: str) -> tuple[str, int]:
    """Without the bodies of private keys whose beginning stands in another passage: an encrypted one has an empty line
    after its headers."""
    lines = text.split("\n")
    count = 0
    for at, line in enumerate(lines):
        begins = at
        while _KEY_END.search(line) and begins and _KEY_LINE.fullmatch(lines[begins - 1].strip()):
            begins -= 1
        if begins < at:
            lines[begins : at + 1] = [MASK, *[""] * (at - begins - 1), _KEY_END.sub("", line)]
            count += 1
    return "\n".join(lines), count


_MARKED = "\0masked\0"  # no text that is read holds a NUL


def _bearer(match: re.Match[str]) -> str:
    # Words follow these words in prose: a credential has digits, or is longer than words are.
    value = match[2]
    return f"{match[1]} {_MARKED}" if _is_random(value) else match[0]


def _assigned(match: re.Match[str]) -> str:
    value = match["value"]
    quote = value[0] if value[0] in "\"'" else ""
    inner = value.strip("\"'")
    if MASK in inner or _PLACEHOLDER.search(inner) or not (_is_random(inner) or (quote and " " not in inner)):
        return match[0]
    return f"{match['name']}{match['between']}{quote}{_MARKED}{quote}"


def _is_random(value: str) -> bool:
    """Whether it is more than words: digits among letters, or signs that no word has."""
    has_digit = any(char.isdigit() for char in value)
    has_letter = any(char.isalpha() for char in value)
    return has_letter and (has_digit or any(char in "!@#&=+/~^" for char in value))
