"""Sessions in plain text: the history of aider, and text in which lines name the speaker.

Each line of the text keeps its number.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from itertools import groupby
from typing import TypeAlias

import msgspec

from ctxbackends.knowledge._records import Speaker
from ctxbackends.knowledge._sources.base import Piece
from ctxbackends.knowledge._sources.text import parse_paragraphs
from ctxbackends.knowledge._sources.transcripts.feed import Feed
from ctxbackends.knowledge._sources.transcripts.passages import Passages, clean

_NUMBER_OF_HEAD_LINES = 200
_TAGS = ("<user_query>", "</user_query>")

# Such as: "User: text", "**Assistant:** text", "## Human", "[Tool call] Read"
_SPEAKER_LINE = re.compile(
    r"(?P<heading>#{1,6}\s+)?[*_]{0,2}\[?(?P<name>[A-Za-z]{2,12}(?: (?:call|result|output))?)\]?[*_]{0,2}"
    r"(?:(?P<colon>:)[*_]{0,2}(?:\s+(?P<text>.*))?|(?P<end>\s*.*))"
)
_NAMES: dict[str, Speaker] = {
    "user": "user",
    "human": "user",
    "you": "user",
    "prompt": "user",
    "assistant": "assistant",
    "ai": "assistant",
    "agent": "assistant",
    "claude": "assistant",
    "chatgpt": "assistant",
    "gpt": "assistant",
    "gemini": "assistant",
    "copilot": "assistant",
    "codex": "assistant",
    "cursor": "assistant",
    "model": "assistant",
    "bot": "assistant",
    "system": "system",
    "summary": "summary",
    "tool": "tool",
    "tool call": "tool",
    "tool result": "tool",
    "tool output": "tool",
}
_AIDER_START = re.compile(r"# aider chat started at (?P<time>[0-9-]{10}[ T][0-9:]{5,8})\s*$")

_Marked: TypeAlias = tuple[int, Speaker | None, str | None, str]  # line, speaker, time, text


def is_aider(head: str) -> bool:
    """Return whether a text is the history of aider, from its first lines."""
    return any(_AIDER_START.match(line) for line in head.split("\n")[:20])


def names_speakers(head: str) -> bool:
    """Return whether a text begins with a speaker's line, and names the user and the assistant."""
    speakers: list[Speaker] = []
    for line in head.split("\n")[:_NUMBER_OF_HEAD_LINES]:
        speaker = _parse_speaker_line(line)
        if speaker is None and not speakers and line.strip() and not line.startswith("#"):
            return False
        if speaker is not None:
            speakers.append(speaker[0])
    return {"user", "assistant"} <= set(speakers)


def read_aider(feed: Feed) -> Iterator[Piece]:
    """Yield the pieces of aider's history: ``####`` begins the user's lines, ``>`` those of the program."""
    yield from _read(feed, _mark_aider)


def read_speakers(feed: Feed) -> Iterator[Piece]:
    """Yield the pieces of a text that names its speakers."""
    yield from _read(feed, _mark_speakers)


def _read(feed: Feed, mark: Callable[[Passages, Iterator[tuple[int, str]]], Iterator[_Marked]]) -> Iterator[Piece]:
    passages = Passages(feed.name)
    marked = mark(passages, _decode_lines(feed))
    for (speaker, time), lines in groupby(marked, key=lambda line: (line[1], line[2])):
        starts = True
        for segment in parse_paragraphs((number, text) for number, _, _, text in lines):
            boundary = (2 if speaker == "user" else 1) if starts else min(segment.boundary, 1)
            starts = False
            yield msgspec.structs.replace(
                segment, speaker=speaker, label=speaker or "", timestamp=time, boundary=boundary
            )
    yield from passages.summarize()


def _decode_lines(feed: Feed) -> Iterator[tuple[int, str]]:
    for line in feed.lines():
        text = line.data.decode("utf-8", "replace")
        yield line.number, clean(text) if "\x1b" in text else text


def _mark_aider(_: Passages, lines: Iterator[tuple[int, str]]) -> Iterator[_Marked]:
    time: str | None = None
    for number, text in lines:
        start = _AIDER_START.match(text)
        if start is not None:
            time = start["time"]
            yield number, None, time, ""
        elif text.startswith("#### "):
            yield number, "user", time, text[5:]
        elif text.startswith(("> ", ">")) and text.rstrip() != ">":
            yield number, "system", time, text[1:].strip()
        else:
            yield number, "assistant", time, text


def _mark_speakers(passages: Passages, lines: Iterator[tuple[int, str]]) -> Iterator[_Marked]:
    speaker: Speaker | None = None
    is_thinking = False
    for number, text in lines:
        if text.strip() in _TAGS:
            yield number, speaker, None, ""
            continue
        if text.startswith("[Thinking]"):
            passages.leave_out("thinking block")
            is_thinking = True
        found = _parse_speaker_line(text)
        if found is not None:
            is_thinking = False
            speaker, text = found
        if is_thinking and not text.strip():
            is_thinking = False
        yield number, speaker, None, "" if is_thinking else text


def _parse_speaker_line(line: str) -> tuple[Speaker, str] | None:
    """Return the speaker that a line names, and the text after the name."""
    match = _SPEAKER_LINE.fullmatch(line.strip())
    if match is None:
        return None
    speaker = _NAMES.get(match["name"].lower())
    is_marked = match["colon"] is not None
    if speaker is None or not (is_marked or match["heading"] is not None or line.startswith("[Tool ")):
        return None
    if not is_marked and match["heading"] is not None and (match["end"] or "").strip():
        return None  # a heading about a user is none
    return speaker, (match["text"] if is_marked else match["end"] or "") or ""
