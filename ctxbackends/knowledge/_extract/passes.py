"""Further passes: ask about a chunk again for the rows that are missing."""

from __future__ import annotations

from collections.abc import Iterable

from ctxbackends._util.text import count_bytes, one_line

_FOUND = "These records are extracted already:"
_NONE_FOUND = "No records are extracted yet."
_TASK = (
    "Read the text again from the beginning, and extract only records that are missing above. If none is missing, the "
    "list is empty."
)
_MAX_TITLE = 200
"""Characters."""

_SHARE = 4
RESERVE = 100
"""Tokens for the sentences around the titles."""


def reserve_tokens(answer_tokens: int) -> int:
    """Return the tokens of the prompt that a further pass may add."""
    return answer_tokens // _SHARE + RESERVE


def build_text(text: str, titles: Iterable[str], *, answer_tokens: int) -> str:
    """Return the message of a further pass: that of the first one, then the titles of the rows so far.

    A server with a prefix cache reads only the titles.
    """
    lines: list[str] = []
    left = answer_tokens // _SHARE * 3  # bytes
    for title in dict.fromkeys(one_line(title)[:_MAX_TITLE] for title in titles):
        line = f"- {title}"
        left -= count_bytes(line) + 1
        if left < 0:
            break
        lines.append(line)
    found = "\n".join((_FOUND, *lines)) if lines else _NONE_FOUND
    return f"{text}\n\n{found}\n\n{_TASK}"
