"""Transcripts that are one JSON document (Gemini CLI, ChatGPT) and those in plain text."""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends.knowledge._sources.base import Segment
from ctxbackends.knowledge._sources.transcripts import TranscriptSource
from ctxbackends.knowledge._sources.transcripts.json_values import iter_values
from tests.knowledge.transcripts import lines_of, read_file, read_records, said, skipped

TIME = "2026-05-04T10:00:00.000Z"


def write(path: Path, value: Any, indent: int | None = 2) -> Path:
    path.write_text(json.dumps(value, indent=indent, ensure_ascii=False), "utf-8")
    return path


def line_with(path: Path, words: str) -> int:
    """Return the only line of a file that has these words."""
    (number,) = (number for number, line in enumerate(path.read_text("utf-8").split("\n"), 1) if words in line)
    return number


# --- Gemini CLI -----------------------------------------------------------------------------------------


def gemini(name: str, kind: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"id": name, "timestamp": TIME, "type": kind, "content": content, **more}


MESSAGES = [
    gemini("1", "user", [{"text": "JSON or YAML?"}, {"inlineData": {"data": "x"}}]),
    gemini(
        "2",
        "gemini",
        'YAML, because\npeople need "comments".',
        thoughts=[{"subject": "hm"}],
        toolCalls=[
            {
                "id": "t",
                "name": "write_file",
                "args": {"file_path": "a.md", "content": "We use YAML.\nIt has comments."},
                "result": [{"functionResponse": {"name": "write_file", "response": {"output": "written"}}}],
                "status": "success",
            }
        ],
    ),
    gemini("3", "info", "Request cancelled."),
    gemini("4", "user", "See the file.\n--- Content from referenced files ---\na: 1"),
    gemini("5", "novelty", "x"),
]
SESSION = {"sessionId": "g1", "projectHash": "f" * 64, "startTime": TIME, "messages": MESSAGES, "summary": "Formats"}


@pytest.mark.parametrize("indent", [2, None])
def test_a_session_of_the_gemini_cli(tmp_path: Path, indent: int | None) -> None:
    path = write(tmp_path / "session-1.json", SESSION, indent)
    pieces = read_file(path)
    assert [
        ("user", "user", "JSON or YAML?"),
        ("assistant", "assistant", 'YAML, because\npeople need "comments".'),
        ("tool", "write_file call", "file_path: a.md\ncontent:\nWe use YAML.\nIt has comments."),
        ("tool", "write_file result", "written"),
        ("system", "info", "Request cancelled."),
        ("user", "user", "See the file."),
        ("tool", "referenced files result", "a: 1"),
    ] == [item[1:] for item in lines_of(pieces)]
    assert [
        "session-1.json: left out: 1 image, 1 thinking block",
        "session-1.json: records of unknown kinds were left out: novelty (1)",
    ] == skipped(pieces)
    segments = [piece for piece in pieces if isinstance(piece, Segment)]
    assert {("g1", TIME)} == {(one.session_id, one.timestamp) for one in segments}
    if indent:
        for words, at in (("JSON or", 0), ("YAML, because", 1), ('"written"', 3), ("Request cancelled", 4)):
            assert line_with(path, words) == segments[at].first


def test_a_log_of_the_gemini_cli(tmp_path: Path) -> None:
    """A message is written again when it changes, and can be taken back."""
    call = {"name": "ls", "args": {"path": "."}, "status": "executing"}
    done = call | {"status": "success", "resultDisplay": "a.md"}
    pieces = read_records(
        tmp_path,
        {"sessionId": "g2", "projectHash": "x", "startTime": TIME, "kind": "main"},
        gemini("1", "user", "JSON or YAML?"),
        gemini("2", "gemini", "I look.", toolCalls=[call]),
        gemini("2", "gemini", "I look.", toolCalls=[done]),
        gemini("3", "user", "Redis then."),
        gemini("4", "gemini", "Redis."),
        {"$rewindTo": "3"},
        gemini("5", "user", "Valkey then."),
        {"$set": {"summary": "x", "messages": [gemini("1", "user", "JSON or YAML?"), gemini("0", "user", "Earlier.")]}},
        {"$rewindTo": "unknown"},
        name="session.jsonl",
    )
    assert [
        (2, "user", "JSON or YAML?"),
        (4, "assistant", "I look."),
        (4, "tool", "path: ."),
        (4, "tool", "a.md"),
        (8, "user", "Valkey then."),
        (9, "user", "Earlier."),
    ] == said(pieces)
    assert ["session.jsonl: left out: 2 withdrawn messages"] == skipped(pieces)


CONTENTS = [
    {"role": "user", "parts": [{"text": "JSON or YAML?"}]},
    {"role": "model", "parts": [{"text": "YAML."}, {"functionCall": {"name": "ls", "args": {"path": "."}}}]},
    {"role": "user", "parts": [{"functionResponse": {"name": "ls", "response": {"output": "a.md"}}}]},
]


@pytest.mark.parametrize("document", [CONTENTS, {"history": CONTENTS, "authType": "x"}])
def test_a_checkpoint_of_the_gemini_cli(tmp_path: Path, document: Any) -> None:
    assert [
        ("user", "JSON or YAML?"),
        ("assistant", "YAML."),
        ("tool", "path: ."),
        ("tool", "a.md"),
    ] == [item[1:] for item in said(read_file(write(tmp_path / "checkpoint-a.json", document)))]


# --- ChatGPT --------------------------------------------------------------------------------------------


def node(name: str, parent: str | None, role: str, parts: Any, **more: Any) -> dict[str, Any]:
    content = parts if isinstance(parts, dict) else {"content_type": "text", "parts": parts}
    message = {"id": name, "author": {"role": role}, "create_time": 1_777_000_000.5, "content": content, **more}
    return {"id": name, "message": message, "parent": parent, "children": []}


def conversation(title: str, *nodes: dict[str, Any], current: str | None) -> dict[str, Any]:
    root: dict[str, Any] = {"id": "root", "message": None, "parent": None, "children": []}
    mapping = {one["id"]: one for one in (root, *nodes)}
    for one in nodes:
        mapping[one["parent"]]["children"].append(one["id"])
    return {"title": title, "mapping": mapping, "current_node": current, "conversation_id": f"id-{title}"}


YAML_TALK = conversation(
    "YAML",
    # The order in the file is not the order of the conversation.
    node("b2", "a1", "assistant", ["YAML, because\npeople edit it, é, by hand."]),
    node("a1", "h0", "user", ["JSON or YAML?", {"content_type": "image_asset_pointer", "asset_pointer": "x"}]),
    node("h0", "root", "system", [""], metadata={"is_visually_hidden_from_conversation": True}),
    node("b1", "a1", "assistant", ["JSON."]),
    node("t1", "b2", "assistant", {"content_type": "code", "text": 'print("a")'}, recipient="python"),
    node("t2", "t1", "tool", {"content_type": "execution_output", "text": "a"}),
    node("t3", "t2", "assistant", {"content_type": "thoughts", "thoughts": []}),
    node("c1", "t3", "user", ["Then YAML."]),
    current="c1",
)


@pytest.mark.parametrize("indent", [1, None])
def test_an_export_of_chatgpt(tmp_path: Path, indent: int | None) -> None:
    other = conversation("Go", node("x", "root", "user", ["Go or Rust?"]), current=None)
    path = write(tmp_path / "conversations.json", [YAML_TALK, other], indent)
    pieces = read_file(path)
    assert [
        ("user", "user", "JSON or YAML?"),
        ("assistant", "assistant", "YAML, because\npeople edit it, é, by hand."),
        ("tool", "python call", 'print("a")'),
        ("tool", "tool result", "a"),
        ("user", "user", "Then YAML."),
        ("user", "user", "Go or Rust?"),
    ] == [item[1:] for item in lines_of(pieces)]
    assert ["conversations.json: left out: 1 hidden message, 1 image, 1 replaced message, 1 thinking block"] == skipped(
        pieces
    )
    segments = [piece for piece in pieces if isinstance(piece, Segment)]
    assert ("2026-04-24T03:06:40Z", "id-YAML", "id-Go") == (
        segments[0].timestamp,
        segments[0].session_id,
        segments[-1].session_id,
    )
    if indent:
        for words, at in (("JSON or YAML?", 0), ("by hand", 1), ("Then YAML", 4), ("Go or Rust", 5)):
            assert line_with(path, words) == segments[at].first


def test_one_conversation_of_chatgpt(tmp_path: Path) -> None:
    assert "JSON or YAML?" == said(read_file(write(tmp_path / "one.json", YAML_TALK)))[0][2]


def test_an_export_larger_than_a_block_is_read_as_a_stream(tmp_path: Path) -> None:
    talk = conversation("Long", node("x", "root", "user", ["We say a word. " * 2_000]), current="x")
    path = write(tmp_path / "c.json", [talk] * 600, None)
    source = TranscriptSource(path)
    tracemalloc.start()
    source.prepare()
    count = sum(1 for _ in source.pieces())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 1_200 == count
    assert peak < path.stat().st_size / 4


json_values = st.recursive(
    st.none() | st.integers() | st.text(max_size=8) | st.sampled_from(['"', "\\", '\\"', "{", "}]"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


def objects_at(value: Any, depth: int) -> list[Any]:
    """Return the objects inside of ``depth`` others, from the decoded document."""
    inner = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    if depth == 0:
        return [value] if isinstance(value, dict) else []
    return [found for one in inner for found in objects_at(one, depth - 1)]


@given(json_values, st.integers(0, 3), st.integers(1, 9), st.sampled_from([None, 1]), st.booleans())
def test_objects_of_a_document_are_found_with_their_lines(
    value: Any, depth: int, size: int, indent: int | None, ascii_only: bool
) -> None:
    data = json.dumps(value, indent=indent, ensure_ascii=ascii_only).encode("utf-8", "surrogatepass")
    blocks = [data[at : at + size] for at in range(0, len(data), size)]
    values = list(iter_values(blocks, depth))
    assert objects_at(value, depth) == [json.loads(one.data.decode("utf-8", "surrogatepass")) for one in values]
    for one in values:
        starts = [at for at in range(len(data)) if data.startswith(one.data, at)]
        assert one.line in [data.count(b"\n", 0, at) + 1 for at in starts]


# --- plain text -----------------------------------------------------------------------------------------


def test_the_history_of_aider(tmp_path: Path) -> None:
    path = tmp_path / ".aider.chat.history.md"
    path.write_text(
        "\n# aider chat started at 2026-05-04 10:00:00\n\n> Aider v0.86  \n> Git repo: .git  \n\n#### JSON or YAML?  \n"
        "#### Think of comments.  \n\nYAML, because it\nhas comments.\n\n```yaml\na: 1\n\nb: 2\n```\n\n"
        "> Applied edit to a.yaml  \n\n# aider chat started at 2026-05-05 11:00:00\n\n#### Good.\n\nThanks.\n"
    )
    pieces = read_file(path)
    assert [
        (4, "system", "Aider v0.86\nGit repo: .git"),
        (7, "user", "JSON or YAML?  \nThink of comments.  "),
        (10, "assistant", "YAML, because it\nhas comments."),
        (13, "assistant", "```yaml\na: 1\n\nb: 2\n```"),
        (19, "system", "Applied edit to a.yaml"),
        (23, "user", "Good."),
        (25, "assistant", "Thanks."),
    ] == said(pieces)
    segments = [piece for piece in pieces if isinstance(piece, Segment)]
    assert ("2026-05-04 10:00:00", "2026-05-05 11:00:00") == (segments[0].timestamp, segments[-1].timestamp)
    assert [1, 2, 1, 1, 1, 2, 1] == [one.boundary for one in segments]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "User: JSON or YAML?\n\nAssistant: YAML.\nIt has comments.\n\nA paragraph: more.\n\nUser: Good.\n",
            [
                (1, "user", "JSON or YAML?"),
                (3, "assistant", "YAML.\nIt has comments."),
                (6, "assistant", "A paragraph: more."),
                (8, "user", "Good."),
            ],
        ),
        (
            "# Talk\n\n**Human:**\nJSON or YAML?\n\n**Claude**: YAML.\n",
            [(1, None, "# Talk"), (4, "user", "JSON or YAML?"), (6, "assistant", "YAML.")],
        ),
        (
            "## User\n\nJSON or YAML?\n\n## Assistant\n\nYAML.\n\n## User stories\n\nNone.\n",
            [
                (3, "user", "JSON or YAML?"),
                (7, "assistant", "YAML."),
                (9, "assistant", "## User stories"),
                (11, "assistant", "None."),
            ],
        ),
        (
            (
                "user:\n<user_query>\nJSON or YAML?\n</user_query>\n\nassistant:\n[Thinking] hm\nand hm\n\nI look.\n"
                "[Tool call] Read\n  path: a.py\n\n[Tool result] Read\na = 1\n\nassistant:\nYAML.\n"
            ),
            [
                (3, "user", "JSON or YAML?"),
                (10, "assistant", "I look."),
                (11, "tool", " Read\n  path: a.py"),
                (14, "tool", " Read\na = 1"),
                (18, "assistant", "YAML."),
            ],
        ),
    ],
)
def test_text_with_speakers(tmp_path: Path, text: str, expected: list[Any]) -> None:
    path = tmp_path / "talk.txt"
    path.write_text(text)
    assert expected == said(read_file(path))


@pytest.mark.parametrize(
    "text",
    [
        "# Notes\n\nUser: the person who runs the tool.\n",
        "We met.\n\nUser: hello\nAssistant: hello\n",
        "Alice: JSON or YAML?\nBob: YAML.\n",
        "User guide\n==========\n\nAssistant mode\n",
    ],
)
def test_text_that_is_no_transcript_has_no_speakers(tmp_path: Path, text: str) -> None:
    path = tmp_path / "notes.md"
    path.write_text(text)
    assert {None} == {speaker for _, speaker, _ in said(read_file(path))}
