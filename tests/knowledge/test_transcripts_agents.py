"""Sessions of Codex, Copilot CLI and Cursor, which write JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from ctxbackends.knowledge._sources.base import Segment
from tests.knowledge.transcripts import lines_of, read_records, said, skipped

TIME = "2026-05-04T10:00:00.000Z"


# --- Codex ----------------------------------------------------------------------------------------------


def line(kind: str, **payload: Any) -> dict[str, Any]:
    return {"timestamp": TIME, "type": kind, "payload": payload}


def message(role: str, text: str) -> dict[str, Any]:
    kind = "input_text" if role == "user" else "output_text"
    return {"type": "message", "role": role, "content": [{"type": kind, "text": text}]}


META = line("session_meta", id="c1", cwd="/home/ada/tool", git={"branch": "parser"}, source="cli")


def test_a_rollout_of_codex(tmp_path: Path) -> None:
    pieces = read_records(
        tmp_path,
        META,
        line("turn_context", cwd="/home/ada/tool", model="m"),
        line("response_item", **message("developer", "Be brief.")),
        line("response_item", **message("user", "<environment_context>\n<cwd>/x</cwd>\n</environment_context>")),
        line("response_item", **message("user", "JSON or YAML?")),
        line("event_msg", type="user_message", message="JSON or YAML?"),
        line("response_item", type="reasoning", summary=[], encrypted_content="x"),
        line("event_msg", type="agent_message", message="YAML, it has comments."),
        line("response_item", **message("assistant", "YAML, it has comments.")),
        line(
            "response_item",
            type="function_call",
            name="shell",
            call_id="f1",
            arguments='{"command":["bash","-lc","cat <<X\\na: \\"1\\"\\nX"],"workdir":"/x"}',
        ),
        line(
            "response_item",
            type="function_call_output",
            call_id="f1",
            output='{"output":"a: 1\\n","metadata":{"exit_code":1}}',
        ),
        line("response_item", type="custom_tool_call", name="apply_patch", call_id="f2", input="*** Begin Patch\n+a"),
        line("response_item", type="custom_tool_call_output", call_id="f2", output="Done"),
        line("event_msg", type="token_count", info={}),
        line("compacted", message="The user chose YAML."),
        line("event_msg", type="error", message="rate limit"),
        line("response_item", type="novelty"),
    )
    assert [
        (4, "system", "context"),
        (5, "user", "user"),
        (8, "assistant", "assistant"),
        (10, "tool", "shell call"),
        (11, "tool", "shell result (failed)"),
        (12, "tool", "apply_patch call"),
        (13, "tool", "apply_patch result"),
        (15, "summary", "summary"),
        (16, "system", "error"),
    ] == [item[:3] for item in lines_of(pieces)]
    texts = [words for _, _, words in said(pieces)]
    assert 'command:\nbash\n-lc\ncat <<X\na: "1"\nX\nworkdir: /x' == texts[3]
    assert "a: 1" == texts[4]
    assert [
        "s.jsonl: left out: 1 program instruction, 1 thinking block",
        "s.jsonl: records of unknown kinds were left out: novelty (1)",
    ] == skipped(pieces)
    segment = next(piece for piece in pieces if isinstance(piece, Segment))
    assert (TIME, "c1", "parser") == (segment.timestamp, segment.session_id, segment.branch)


def test_an_early_rollout_of_codex(tmp_path: Path) -> None:
    pieces = read_records(
        tmp_path,
        {"id": "c0", "timestamp": TIME, "instructions": None, "git": {"branch": "main"}},
        {"record_type": "state"},
        message("user", "<environment_context>x</environment_context>"),
        message("user", "JSON or YAML?"),
        {"type": "reasoning", "summary": []},
        {"type": "local_shell_call", "call_id": "f", "action": {"type": "exec", "command": ["ls", "-l"]}},
        {"type": "function_call_output", "call_id": "f", "output": "a.md"},
        message("assistant", "YAML."),
    )
    assert [
        (3, "system", "<environment_context>x</environment_context>"),
        (4, "user", "JSON or YAML?"),
        (6, "tool", "ls\n-l"),
        (7, "tool", "a.md"),
        (8, "assistant", "YAML."),
    ] == said(pieces)
    segments = [piece for piece in pieces if isinstance(piece, Segment)]
    assert {("c0", "main")} == {(one.session_id, one.branch) for one in segments}


def test_messages_of_codex_that_are_only_events_are_read(tmp_path: Path) -> None:
    pieces = read_records(
        tmp_path,
        META,
        line("event_msg", type="user_message", message="JSON or YAML?"),
        line("event_msg", type="agent_message", message="YAML."),
        line("event_msg", type="user_message", message="Go on."),
        line("response_item", **message("user", "Go on.")),
        line("event_msg", type="user_message", message="Go on."),
    )
    assert [(2, "user"), (3, "assistant"), (4, "user"), (6, "user")] == [item[:2] for item in said(pieces)]


def test_a_sub_agent_of_codex_is_not_asked_by_the_user(tmp_path: Path) -> None:
    meta = line("session_meta", id="c2", source={"subagent": {"thread_spawn": {"parent_thread_id": "c1"}}})
    pieces = read_records(tmp_path, meta, line("response_item", **message("user", "Look for it.")))
    assert [(2, "assistant", "prompt to a sub-agent", "Look for it.")] == lines_of(pieces)


# --- Copilot CLI ----------------------------------------------------------------------------------------


def event(kind: str, **data: Any) -> dict[str, Any]:
    return {"type": kind, "data": data, "id": "e", "timestamp": TIME, "parentId": None}


def test_a_session_of_the_copilot_cli(tmp_path: Path) -> None:
    arguments = {"command": "cat 'a b'"}
    pieces = read_records(
        tmp_path,
        event("session.start", sessionId="p1", producer="copilot-agent", context={"cwd": "/x", "branch": "main"}),
        event("system.message", content="You are an agent."),
        event("user.message", content="JSON or YAML?", transformedContent="<x>JSON or YAML?</x>", attachments=[{}]),
        event("user.message", content="Wake up.", source="schedule"),
        event(
            "assistant.message",
            content="I look.",
            reasoningText="hm",
            toolRequests=[{"toolCallId": "t1", "name": "bash", "arguments": arguments}],
        ),
        event("tool.execution_start", toolCallId="t1", toolName="bash", arguments=arguments),
        event("tool.execution_complete", toolCallId="t1", success=True, result={"content": "a: 1"}),
        event("tool.execution_start", toolCallId="t2", toolName="view", arguments={"path": "a"}),
        event("tool.execution_complete", toolCallId="t2", success=False, error={"message": "no such file"}),
        event("session.compaction_complete", success=True, summaryContent="YAML was chosen."),
        event("session.error", message="rate limit"),
        event("assistant.message", content="Found.", parentToolCallId="t3"),
        event("hook.start", hookType="x"),
    )
    assert [
        (3, "user", "user", "JSON or YAML?"),
        (4, "system", "notice", "Wake up."),
        (5, "assistant", "assistant", "I look."),
        (5, "tool", "bash call", "command: cat 'a b'"),
        (7, "tool", "bash result", "a: 1"),
        (8, "tool", "view call", "path: a"),
        (9, "tool", "view result (failed)", "no such file"),
        (10, "summary", "summary", "YAML was chosen."),
        (11, "system", "error", "rate limit"),
        (12, "assistant", "assistant (sub-agent)", "Found."),
    ] == lines_of(pieces)
    assert ["s.jsonl: left out: 1 attachment, 1 program instruction, 1 thinking block"] == skipped(pieces)
    segment = next(piece for piece in pieces if isinstance(piece, Segment))
    assert (TIME, "p1", "main") == (segment.timestamp, segment.session_id, segment.branch)


# --- Cursor ---------------------------------------------------------------------------------------------


def test_a_session_of_cursor(tmp_path: Path) -> None:
    def turn(role: str, *blocks: dict[str, Any]) -> dict[str, Any]:
        return {"role": role, "message": {"content": list(blocks)}}

    query = "<attached_files>\na.py\n</attached_files>\n<user_query>\nJSON or YAML?\n</user_query>"
    pieces = read_records(
        tmp_path,
        turn("user", {"type": "text", "text": query}),
        turn(
            "assistant",
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "t", "name": "Read", "input": {"path": "a.py"}},
        ),
        turn("user", {"type": "tool_result", "tool_use_id": "t", "content": "a = 1"}),
        {"type": "turn_ended"},
        turn("user", {"type": "text", "text": "YAML then."}),
    )
    assert [
        (1, "system", "context", "<attached_files>\na.py\n</attached_files>"),
        (1, "user", "user", "JSON or YAML?"),
        (2, "assistant", "assistant", "I look."),
        (2, "tool", "Read call", "path: a.py"),
        (3, "tool", "Read result", "a = 1"),
        (5, "user", "user", "YAML then."),
    ] == lines_of(pieces)


@pytest.mark.parametrize(
    "record",
    [
        META,
        event("user.message", content=1),
        {"role": "user", "message": {"content": [{"type": "text"}]}},
        line("response_item", type="function_call", arguments="{" * 2_000),
        line("response_item", type="message", role="user", content=[1, None, {"type": "input_text", "text": None}]),
        {
            "type": "assistant",
            "message": {"content": [{"type": "tool_use", "input": json.loads("[" * 400 + "]" * 400)}]},
        },
    ],
)
def test_unexpected_values_do_not_end_a_session(tmp_path: Path, record: Any) -> None:
    good = line("response_item", **message("user", "Good."))
    if record.get("type") == "assistant":
        good = {"type": "user", "message": {"content": "Good."}}
    elif "role" in record:
        good = {"role": "user", "message": {"content": "Good."}}
    elif "data" in record:
        good = event("user.message", content="Good.")
    assert (2, "user", "Good.") == said(read_records(tmp_path, record, good))[-1]
