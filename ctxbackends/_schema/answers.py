"""The JSON text in the answer of a server that does not enforce schemas."""

from __future__ import annotations

import re
from typing import Literal, TypeAlias

Wrapper: TypeAlias = Literal["think", "fence"]
"""Text around the JSON: a closed block of reasoning before it, or a Markdown code fence."""

_THINK_START = "<think>"
_THINK_END = "</think>"
_FENCE = "```"
_LONGEST_FENCE = 100  # characters; more is not the line of a fence
_FENCE_LINE = re.compile(r"```(?:json)?[ \t]*\r?\n", re.IGNORECASE)


def unwrap_answer(text: str) -> tuple[str, tuple[Wrapper, ...]]:
    """Return the text without the wrappers around it, and these.

    Nothing else may be around the JSON; whether the rest is one JSON value, the caller finds out when it decodes it.
    """
    rest = text.strip()
    wrappers: list[Wrapper] = []
    if rest.startswith(_THINK_START):
        _, is_closed, after = rest.partition(_THINK_END)
        if not is_closed:
            return text, ()
        rest = after.strip()
        wrappers.append("think")
    line = _FENCE_LINE.match(rest)
    if line is not None and rest.endswith(_FENCE) and line.end() <= len(rest) - len(_FENCE):
        rest = rest[line.end() : -len(_FENCE)].strip()
        wrappers.append("fence")
    return (rest, tuple(wrappers)) if wrappers else (text, ())


class AnswerUnwrapper:
    """Removes the wrappers before the JSON from a text that comes in pieces, as :func:`unwrap_answer` does.

    The text after the JSON is left.
    """

    def __init__(self) -> None:
        self._pending = ""
        self._is_thinking = False
        self._has_thought = False
        self._is_open = False

    def feed(self, piece: str) -> str:
        """Return the next piece of the JSON, empty before its beginning."""
        if self._is_open:
            return piece
        text = self._pending + piece
        if self._is_thinking:
            _, is_closed, after = text.partition(_THINK_END)
            if not is_closed:
                self._pending = text[1 - len(_THINK_END) :]
                return ""
            self._is_thinking, self._has_thought, text = False, True, after
        text = text.lstrip()
        if not self._has_thought and text.startswith(_THINK_START):
            self._is_thinking, self._pending = True, ""
            return self.feed(text[len(_THINK_START) :])
        if _FENCE.startswith(text) or (not self._has_thought and _THINK_START.startswith(text)):
            self._pending = text  # the text may be the beginning of a wrapper
            return ""
        if text.startswith(_FENCE):
            line, newline, after = text.partition("\n")
            if not newline and len(line) < _LONGEST_FENCE:
                self._pending = text
                return ""
            text = after if _FENCE_LINE.fullmatch(line + newline) else text
        self._is_open, self._pending = True, ""
        return text
