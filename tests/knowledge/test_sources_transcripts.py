from __future__ import annotations

import json
import tempfile
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends.knowledge._errors import SourceChangedError, SourceError
from ctxbackends.knowledge._sources.base import Piece, Segment, SkippedInput
from ctxbackends.knowledge._sources.transcripts import MAX_LINE, TranscriptSource

USER = {
    "type": "user",
    "timestamp": "2026-02-19T14:30:00.000Z",
    "sessionId": "abc",
    "gitBranch": "main",
    "message": {"role": "user", "content": "Why YAML?"},
}


def transcript(tmp_path: Path, *lines: Any) -> list[Piece]:
    path = tmp_path / "s.jsonl"
    path.write_bytes(b"\n".join(line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines))
    source = TranscriptSource(path, name="s.jsonl")
    source.prepare()
    return list(source.pieces())


def summarize(pieces: list[Piece]) -> list[tuple[int, str, str, int]]:
    return [(piece.first, piece.label, piece.text, piece.boundary) for piece in pieces if isinstance(piece, Segment)]


def skipped_inputs(pieces: list[Piece]) -> list[str]:
    return [str(piece) for piece in pieces if isinstance(piece, SkippedInput)]


def assistant(*blocks: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "assistant", "message": {"role": "assistant", "content": list(blocks)}, **more}


def text(words: str) -> dict[str, Any]:
    return {"type": "text", "text": words}


def test_claude_code(tmp_path: Path) -> None:
    pieces = transcript(
        tmp_path,
        {"type": "summary", "summary": "Configuration", "leafUuid": "x"},
        USER,
        assistant(
            {"type": "thinking", "thinking": "hm", "signature": "s"},
            text("I look."),
            {"type": "tool_use", "id": "t1", "name": "Bash", "input": {"command": "ls -l"}},
        ),
        {
            "type": "user",
            "message": {
                "role": "user",
                "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "a.md\nb.md"}],
            },
        },
        {"type": "system", "subtype": "stop_hook_summary"},
        {"type": "user", "isMeta": True, "message": {"role": "user", "content": "caveat"}},
        assistant(text("From a helper."), isSidechain=True),
    )
    assert [
        (2, "user", "Why YAML?", 2),
        (3, "assistant", "I look.", 1),
        (3, "Bash call", "command: ls -l", 1),
        (4, "Bash result", "a.md\nb.md", 1),
        (7, "assistant (sub-agent)", "From a helper.", 1),
    ] == summarize(pieces)
    first = next(piece for piece in pieces if isinstance(piece, Segment))
    assert ["user", "assistant", "tool", "tool", "assistant"] == [
        piece.speaker for piece in pieces if isinstance(piece, Segment)
    ]
    assert ("2026-02-19T14:30:00.000Z", "abc", "main", 2) == (
        first.timestamp,
        first.session_id,
        first.branch,
        first.last,
    )


def test_cursor(tmp_path: Path) -> None:
    pieces = transcript(
        tmp_path,
        {"role": "user", "message": {"content": [text("Why YAML?")]}},
        {"role": "assistant", "message": {"content": [text("People edit it.")]}},
        {"role": "assistant", "content": "By hand."},
    )
    assert [
        (1, "user", "Why YAML?", 2),
        (2, "assistant", "People edit it.", 1),
        (3, "assistant", "By hand.", 1),
    ] == summarize(pieces)


def test_results_of_other_forms(tmp_path: Path) -> None:
    def result(content: Any, **more: Any) -> dict[str, Any]:
        block = {"type": "tool_result", "tool_use_id": "t", "content": content, **more}
        return {"type": "user", "message": {"role": "user", "content": [block]}}

    pieces = transcript(
        tmp_path,
        result([text("one"), {"type": "image", "source": {}}, text("two")]),
        result("no such file", is_error=True),
        result(None),
    )
    assert [(1, "tool result", "one\ntwo", 1), (2, "tool result (failed)", "no such file", 1)] == summarize(pieces)


def test_a_long_result_is_shortened_and_reported(tmp_path: Path) -> None:
    block = {"type": "tool_result", "tool_use_id": "t", "content": "a" * 9_000 + "z"}
    pieces = transcript(tmp_path, {"type": "user", "message": {"role": "user", "content": [block]}})
    assert ["s.jsonl:1: 5,001 of 9,001 characters of a tool result were left out"] == skipped_inputs(pieces)
    ((_, _, text, _),) = summarize(pieces)
    assert "a" * 3_000 + "\n[... 5001 characters ...]\n" + "a" * 999 + "z" == text


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{", "is not valid JSON"),
        (b"\xff\xfe", "is not valid JSON"),
        (b'{"type":"user","message":{"role":"user","content":"\xff"}}', "is not valid JSON"),
        (b"[" * 5000, "is not valid JSON"),
        (b"[1]", "is not a JSON object"),
        (b'"text"', "is not a JSON object"),
        (b"{}", "is not a transcript line: it has neither type nor role"),
        (
            b'{"type":"user","message":{"role":"user","content":7}}',
            "has content that is neither a string nor a list of blocks",
        ),
        (b'{"type":"user","message":{"role":"user","content":["x"]}}', "has a content block that is not an object"),
        (b'{"type":"user","message":{"content":[{"type":"text"}]}}', "has a text block without text"),
        (b'{"type":"user","message":{"content":"\\ud800"}}', "is not valid JSON"),
    ],
)
def test_an_invalid_line_is_reported_and_skipped(tmp_path: Path, line: bytes, reason: str) -> None:
    pieces = transcript(tmp_path, USER, line, assistant(text("Yes.")))
    assert [f"s.jsonl:2: {reason}"] == skipped_inputs(pieces)
    assert [(1, "user", "Why YAML?", 2), (3, "assistant", "Yes.", 1)] == summarize(pieces)


def test_a_line_of_20_mb_is_reported_and_not_loaded(tmp_path: Path) -> None:
    long = json.dumps(assistant(text("x" * (20 << 20)))).encode()
    path = tmp_path / "s.jsonl"
    path.write_bytes(json.dumps(USER).encode() + b"\n" + long + b"\n" + json.dumps(assistant(text("Yes."))).encode())
    source = TranscriptSource(path, name="s.jsonl")
    tracemalloc.start()
    source.prepare()
    pieces = list(source.pieces())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert ["s.jsonl:2: has 20.0 MB; lines of more than 8 MB are skipped"] == skipped_inputs(pieces)
    assert [1, 3] == [item[0] for item in summarize(pieces)]
    assert peak < 2 * MAX_LINE + (3 << 20) < 20 << 20


def test_not_a_transcript(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    for data, problem in (
        (b'{"type": "summary"}\n', 'is JSON with "type", not a transcript that can be read'),
        (b'{"type": "summary", "leafUuid": "x"}\n', "is a transcript of Claude Code without a message"),
        (b'{"a": 1}\n{"b": 2}\n', 'is JSON lines with "a", not a transcript that can be read'),
        (b"plain text\n", "is not a transcript"),
    ):
        path.write_bytes(data)
        with pytest.raises(SourceError, match=problem):
            TranscriptSource(path).prepare()
    path.write_bytes(b" \n")
    with pytest.raises(SourceError, match="is empty"):
        TranscriptSource(path).prepare()


def test_an_open_session(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps(USER) + "\n")
    source = TranscriptSource(path)
    source.prepare()
    with path.open("a") as file:
        file.write(json.dumps(assistant(text("Later."))) + "\n")
    assert [1] == [item[0] for item in summarize(list(source.pieces()))]
    path.write_text(json.dumps(USER | {"sessionId": "xyz"}) + "\n")
    with pytest.raises(SourceChangedError):
        list(source.pieces())


NAMES = ["type", "text", "content", "input", "id"]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES), inner, max_size=4),
    max_leaves=10,
)


@given(
    st.binary(max_size=60)
    | st.fixed_dictionaries(
        {"type": st.sampled_from(["user", "assistant", "x"]), "message": json_values}, optional={"role": json_values}
    ).map(lambda value: json.dumps(value).encode())
    | st.fixed_dictionaries(
        {"role": st.just("user"), "message": st.fixed_dictionaries({"content": st.lists(json_values)})}
    ).map(lambda value: json.dumps(value).encode())
)
def test_any_line_is_read_or_reported(data: bytes) -> None:
    with tempfile.TemporaryDirectory() as directory:
        for piece in transcript(Path(directory), USER, data):
            assert isinstance(piece, SkippedInput) or piece.text.strip()


def test_several_megabytes_are_read_as_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "s.jsonl"
    line = json.dumps(assistant(text("We talk. " * 100), timestamp="2026-02-19T14:30:00Z")) + "\n"
    with path.open("w") as file:
        for _ in range(8_000):
            file.write(line)
    source = TranscriptSource(path)
    tracemalloc.start()
    source.prepare()
    count = sum(1 for _ in source.pieces())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 8_000 == count
    assert peak < path.stat().st_size / 3
