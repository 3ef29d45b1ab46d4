"""Mask secrets in a text before it is sent.

A secret has the form of a key, or is assigned to a name such as ``password``. Git hashes, UUIDs and checksums are kept,
since people cite them. The number of line ends does not change, so places remain correct.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable

from ctxbackends._util.api_key_shapes import MASK, is_random, mask_keys

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
# The rest of a name that is not that of a secret: token_type, secretName, tokenizer, tokens.
_OTHER_NAME = re.compile(
    r"(?:_?(?:s|i[sz]er|i[sz]e|i[sz]ation|name|type|url|uri|env|file|path|id|ids|length|len|count|limit|class|field|header"
    r"|param|ref|arn|expiry|expires|ttl|version|prefix|suffix|regex|pattern|format|manager|provider|store|hash|algorithm)){1,4}_?",
    re.IGNORECASE,
)
_PLACEHOLDER_PASSWORDS = frozenset(("password", "passwd", "pass", "pwd", "secret", "token", "pw", "passphrase"))
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
        text, count = _replace(_IN_URL, _mask_in_url, text, count)
    lower = text.lower()
    if "bearer" in lower or "basic" in lower or "token" in lower:
        text, count = _replace(_BEARER, _mask_bearer, text, count)
    if any(name in lower for name in _NAMES):
        text, count = _replace(_ASSIGNMENT, _mask_assignment, text, count)
    return text, count


def _replace(
    pattern: re.Pattern[str], replace: Callable[[re.Match[str]], str], text: str, count: int
) -> tuple[str, int]:
    text = pattern.sub(replace, text)
    return text.replace(_PENDING, MASK), count + text.count(_PENDING)


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


def _mask_in_url(match: re.Match[str]) -> str:
    is_placeholder = match[2].lower() in _PLACEHOLDER_PASSWORDS or _PLACEHOLDER.match(match[2])
    return match[0] if is_placeholder else f"{match[1]}:{_PENDING}@"


def _mask_bearer(match: re.Match[str]) -> str:
    # In prose, a word or a name follows these words.
    scheme, value = match[1].lower(), match[2]
    if scheme == "basic":
        is_secret = _is_user_and_password(value)
    else:
        is_secret = is_random(value) or (scheme == "bearer" and "/" not in value and _is_mixed(value))
    return f"{match[1]} {_PENDING}" if is_secret else match[0]


def _is_user_and_password(value: str) -> bool:
    """Return whether the value is the base64 of a user and a password, as in a header."""
    try:
        decoded = base64.b64decode(value, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return False
    return ":" in decoded and decoded.isprintable()


def _mask_assignment(match: re.Match[str]) -> str:
    name, value = match["name"], match["value"]
    quote = value[0] if value[0] in "\"'" else ""
    inner = value.strip("\"'")
    rest = re.match(r"[A-Za-z0-9_]*", match["between"])
    if MASK in inner or _PLACEHOLDER.search(inner) or (rest is not None and rest[0] and _OTHER_NAME.fullmatch(rest[0])):
        return match[0]
    if "pass" in name.lower():  # a password may be words
        is_secret = _is_mixed(inner) or (quote != "" and " " not in inner)
    else:
        is_secret = " " not in inner and is_random(inner)
    return f"{name}{match['between']}{quote}{_PENDING}{quote}" if is_secret else match[0]


def _is_mixed(value: str) -> bool:
    """Return whether the value has letters with digits or with other signs."""
    has_digit = any(char.isdigit() for char in value)
    has_letter = any(char.isalpha() for char in value)
    return has_letter and (has_digit or any(char in "!@#&=+/~^" for char in value))
