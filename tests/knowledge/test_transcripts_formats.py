"""The format of a transcript is recognized by its content, wherever it comes from; other JSON is refused by name."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends.knowledge._errors import SourceError
from ctxbackends.knowledge._sources.base import Segment
from ctxbackends.knowledge._sources.formats import source_of, source_of_stdin
from ctxbackends.knowledge._sources.text import StdinSource, TextSource
from ctxbackends.knowledge._sources.transcripts import MAX_LINE, TranscriptSource
from ctxbackends.knowledge._sources.transcripts.formats import FORMATS, NAMES
from tests.knowledge.transcripts import encode

CLAUDE = {"type": "user", "sessionId": "s", "message": {"role": "user", "content": "Hello there."}}
CONTENT = [{"type": "input_text", "text": "Hello there."}]
CODEX = {"type": "response_item", "payload": {"type": "message", "role": "user", "content": CONTENT}}
COPILOT = {"type": "user.message", "data": {"content": "Hello there."}, "id": "1"}
CURSOR = {"role": "user", "message": {"content": "Hello there."}}
GEMINI = {"sessionId": "g", "projectHash": "h", "messages": [{"id": "1", "type": "user", "content": "Hello there."}]}
MESSAGE = {"author": {"role": "user"}, "content": {"parts": ["Hello there."]}}
CHATGPT = [{"title": "x", "mapping": {"a": {"id": "a", "parent": None, "message": MESSAGE}}}]
GEMINI_LOG = encode({"sessionId": "g", "projectHash": "h"}) + encode(
    {"id": "1", "type": "user", "content": "Hello there."}
)
EXAMPLES = {
    "Claude Code": [encode(CLAUDE), encode({"type": "mode"}) + encode(CLAUDE), b"\xef\xbb\xbf" + encode(CLAUDE)],
    "Codex": [encode(CODEX), encode({"id": "c", "timestamp": "t", "instructions": None}) + encode(CODEX["payload"])],
    "Copilot CLI": [encode(COPILOT)],
    "Gemini CLI": [GEMINI_LOG, encode(GEMINI), json.dumps(GEMINI, indent=2).encode()],
    "Cursor": [encode(CURSOR)],
    "ChatGPT": [encode(CHATGPT), json.dumps(CHATGPT, indent=2).encode(), json.dumps(CHATGPT[0], indent=2).encode()],
    "aider": [b"# aider chat started at 2026-05-04 10:00:00\n\n#### Hello there.\n"],
    "text with speakers": [b"User: Hello there.\n\nAssistant: Hello.\n"],
}
CASES = [(name, content) for name, contents in EXAMPLES.items() for content in contents]


def test_each_format_has_an_example() -> None:
    assert set(NAMES) == EXAMPLES.keys()
    assert len(NAMES) == len({one.name for one in FORMATS})


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".md", ".txt", ".log", ""])
@pytest.mark.parametrize(("name", "content"), CASES)
def test_the_content_decides(tmp_path: Path, name: str, content: bytes, suffix: str) -> None:
    path = tmp_path / f"session{suffix}"
    path.write_bytes(content)
    source = source_of(path)
    source.prepare()
    assert isinstance(source, TranscriptSource)
    assert name == source.format
    first = next(piece for piece in source.pieces() if isinstance(piece, Segment))
    assert ("user", "Hello there.") == (first.speaker, first.text)


@pytest.mark.parametrize(("name", "content"), CASES)
def test_standard_input_is_recognized(name: str, content: bytes) -> None:
    source = source_of_stdin(StdinSource(io.BytesIO(content)))
    source.prepare()
    first = next(piece for piece in source.pieces() if isinstance(piece, Segment))
    assert ("user", "Hello there.") == (first.speaker, first.text), name


UNKNOWN: list[tuple[Any, str]] = [
    ([{"name": "a", "value": 1}], 'is JSON with "name", "value"'),
    ({"a": {"b": {"c": 1}}}, 'is JSON with "a"'),
    ({}, "is JSON without members"),
    ([], "is JSON without members"),
]


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize(("value", "problem"), UNKNOWN)
def test_other_json_is_refused_by_name(value: Any, problem: str, indent: int | None) -> None:
    source = source_of_stdin(StdinSource(io.BytesIO(json.dumps(value, indent=indent).encode())))
    with pytest.raises(SourceError, match=f"stdin: {problem}"):
        source.prepare()


def test_json_lines_of_an_unknown_program_are_refused() -> None:
    lines = encode({"type": "session", "cwd": "/x"}) + encode({"type": "message", "message": {"role": "user"}})
    with pytest.raises(SourceError) as exc_info:
        source_of_stdin(StdinSource(io.BytesIO(lines))).prepare()
    assert (
        'stdin: is JSON lines of an unknown program (types "session", "message"), not a transcript that can be read '
        "(known: Claude Code, Codex, Copilot CLI, Gemini CLI, Cursor, ChatGPT, aider, text with speakers)"
    ) == str(exc_info.value)


@pytest.mark.parametrize(
    "text",
    [
        "[[note]] is a link.",
        "[link](x.md) is one too.",
        "[1] A reference.",
        "{{ template }}\n",
        "{% raw %}",
        "[ ] a task",
        "{not json}",
        "{} is an empty object.",
        "[] is an empty list.",
        "Plain text.",
        'A line.\n{"type": "user"}',
    ],
)
def test_prose_is_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.md"
    path.write_text(text)
    source = source_of(path)
    source.prepare()
    assert isinstance(source, TextSource)
    assert text.strip() == "\n".join(piece.text for piece in source.pieces() if isinstance(piece, Segment))


def test_a_session_of_40_mb_is_read_within_the_memory_of_a_line(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    line = encode(CLAUDE | {"message": {"role": "user", "content": "We decide something. " * 500}})
    with path.open("wb") as file:
        for _ in range(4_000):
            file.write(line)
    source = TranscriptSource(path)
    tracemalloc.start()
    source.prepare()
    count = sum(1 for _ in source.pieces())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 4_000 == count
    assert peak < MAX_LINE < path.stat().st_size / 4


text_lines = st.sampled_from(
    [
        *("User: a", "Assistant: b", "#### c", "> d", "", "# aider chat started at 2026-05-04 10:00:00"),
        *("[Thinking] e", "[Tool call] f", "<user_query>", "{", '{"type": "user"}', "```", "## User", "[[", "\x1b[1m"),
    ]
) | st.text(max_size=12)


@given(st.lists(text_lines, max_size=12).map("\n".join))
def test_any_text_is_read_or_refused_and_lines_are_right(text: str) -> None:
    source = source_of_stdin(StdinSource(io.BytesIO(text.encode("utf-8", "replace"))))
    try:
        source.prepare()
    except SourceError:
        return
    lines = text.encode("utf-8", "replace").decode().replace("\r\n", "\n").replace("\r", "\n").split("\n")
    for piece in source.pieces():
        if isinstance(piece, Segment):
            numbers = range(piece.first, piece.last + 1)
            for number, words in zip(numbers, piece.text.split("\n"), strict=False):
                if "\x1b" not in lines[number - 1]:
                    assert words.strip() in lines[number - 1]
