"""The newest session of a directory, in the places where each agent writes its sessions."""

from __future__ import annotations

import hashlib
import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

from ctxbackends.knowledge._sources.transcripts.sessions import find_newest_session, find_sub_agents
from tests.knowledge.transcripts import encode


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "home").mkdir()
    return tmp_path / "home"


@pytest.fixture
def tool(tmp_path: Path) -> Path:
    """A git repository."""
    (tmp_path / "my.tool" / ".git").mkdir(parents=True)
    return tmp_path / "my.tool"


def write(path: Path, *records: Any, age: int = 0) -> Path:
    """Write JSON lines, last changed ``age`` seconds before another time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(encode(record) for record in records))
    os.utime(path, (1_800_000_000 - age,) * 2)
    return path


def claude_folder(base: Path, directory: Path) -> Path:
    return base / "projects" / re.sub(r"[^a-zA-Z0-9]", "-", str(directory))


def claude(cwd: Path) -> dict[str, Any]:
    return {"type": "user", "cwd": str(cwd), "sessionId": "s", "message": {"content": "Hello."}}


def codex(cwd: Path, **more: Any) -> dict[str, Any]:
    return {"type": "session_meta", "payload": {"id": "c", "cwd": str(cwd), **more}}


def copilot(cwd: Path) -> dict[str, Any]:
    return {"type": "session.start", "data": {"sessionId": "p", "context": {"cwd": str(cwd)}}}


def find(directory: Path, home: Path, **environ: str) -> tuple[str, Path] | None:
    session = find_newest_session(directory, home=home, environ=environ)
    return None if session is None else (session.agent, session.path)


def test_each_agent(home: Path, tool: Path) -> None:
    """Each is the newest once: they are written from the oldest to the newest."""
    assert None is find(tool, home)
    project_hash = hashlib.sha256(str(tool).encode()).hexdigest()
    cursor_slug = re.sub(r"[^a-zA-Z0-9]+", "-", str(tool)).strip("-")
    sessions = [
        ("Claude Code", claude_folder(home / ".claude", tool) / "a.jsonl", claude(tool)),
        ("Codex", home / ".codex" / "sessions" / "2026" / "05" / "04" / "rollout-a.jsonl", codex(tool)),
        ("Copilot CLI", home / ".copilot" / "session-state" / "a" / "events.jsonl", copilot(tool)),
        ("Copilot CLI", home / ".copilot" / "session-state" / "b.jsonl", copilot(tool)),
        ("Gemini CLI", home / ".gemini" / "tmp" / project_hash / "chats" / "session-a.json", {"sessionId": "g"}),
        (
            "Cursor",
            home / ".cursor" / "projects" / cursor_slug / "agent-transcripts" / "a" / "a.jsonl",
            {"role": "user", "message": {"content": "Hello."}},
        ),
        ("aider", tool / ".aider.chat.history.md", "# aider"),
    ]
    for age, (agent, path, record) in zip(range(100, 0, -1), sessions, strict=False):
        write(path, record, age=age)
        assert (agent, path) == find(tool, home)


def test_the_newest_of_an_agent(home: Path, tool: Path) -> None:
    folder = claude_folder(home / ".claude", tool)
    write(folder / "old.jsonl", claude(tool), age=30)
    new = write(folder / "new.jsonl", claude(tool), age=20)
    write(folder / "agent-x.jsonl", claude(tool), age=10)
    write(folder / "new" / "subagents" / "agent-y.jsonl", claude(tool), age=5)
    write(folder / "empty.jsonl", age=1)
    assert ("Claude Code", new) == find(tool, home)


def test_a_session_of_another_directory_is_not_taken(home: Path, tool: Path) -> None:
    other = tool.parent / "my-tool"  # Claude Code gives it the same folder
    assert claude_folder(home, tool) == claude_folder(home, other)
    write(claude_folder(home / ".claude", other) / "a.jsonl", claude(other))
    write(home / ".codex" / "sessions" / "rollout-a.jsonl", codex(other))
    write(home / ".codex" / "sessions" / "rollout-b.jsonl", codex(tool, source={"subagent": {}}))
    write(home / ".copilot" / "session-state" / "a.jsonl", copilot(other))
    assert None is find(tool, home)


def test_the_directories_above_count_up_to_the_root_of_the_repository(home: Path, tool: Path) -> None:
    (tool / "src" / "lib").mkdir(parents=True)
    outside = write(claude_folder(home / ".claude", tool.parent) / "a.jsonl", claude(tool.parent))
    assert None is find(tool / "src" / "lib", home)
    inside = write(claude_folder(home / ".claude", tool) / "a.jsonl", claude(tool), age=9)
    assert ("Claude Code", inside) == find(tool / "src" / "lib", home)
    assert ("Claude Code", outside) == find(tool.parent, home)


@pytest.mark.parametrize(
    ("variable", "agent", "place", "record"),
    [
        ("CLAUDE_CONFIG_DIR", "Claude Code", "claude", claude),
        ("CODEX_HOME", "Codex", "sessions/rollout-a.jsonl", codex),
        ("COPILOT_HOME", "Copilot CLI", "session-state/a/events.jsonl", copilot),
    ],
)
def test_variables_name_the_directories(
    tmp_path: Path, home: Path, tool: Path, variable: str, agent: str, place: str, record: Any
) -> None:
    base = tmp_path / "elsewhere"
    path = claude_folder(base, tool) / "a.jsonl" if place == "claude" else base / place
    write(path, record(tool))
    assert None is find(tool, home)
    assert (agent, path) == find(tool, home, **{variable: str(base)})


def test_the_registry_of_the_gemini_cli(tmp_path: Path, home: Path, tool: Path) -> None:
    registry = home / ".gemini" / "projects.json"
    registry.parent.mkdir()
    registry.write_text(json.dumps({"projects": {str(tool): "my-tool"}}))
    path = write(home / ".gemini" / "tmp" / "my-tool" / "chats" / "session-a.jsonl", {"sessionId": "g"})
    assert ("Gemini CLI", path) == find(tool, home)
    assert ("Gemini CLI", path) == find(tool, tmp_path, GEMINI_CLI_HOME=str(home))


def test_an_early_rollout_names_its_directory_in_a_message(home: Path, tool: Path) -> None:
    text = f"<environment_context>\n<cwd>{tool}</cwd>\n</environment_context>"
    path = write(
        home / ".codex" / "sessions" / "rollout-a.jsonl",
        {"id": "c", "timestamp": "t", "instructions": None},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": text}]},
    )
    assert ("Codex", path) == find(tool, home)


def test_broken_files_are_passed_over(home: Path, tool: Path) -> None:
    (home / ".gemini").mkdir()
    (home / ".gemini" / "projects.json").write_text("[")
    write(home / ".codex" / "sessions" / "rollout-b.jsonl", [1])
    (home / ".codex" / "sessions" / "rollout-c.jsonl").write_bytes(b"\xff{\n")
    path = write(home / ".codex" / "sessions" / "rollout-a.jsonl", codex(tool), age=50)
    assert ("Codex", path) == find(tool, home)


def test_sub_agents_of_a_session(home: Path, tool: Path) -> None:
    folder = claude_folder(home, tool)
    session = write(folder / "s.jsonl", claude(tool))
    assert () == find_sub_agents(session)
    paths = [write(folder / "s" / "subagents" / f"agent-{name}.jsonl", claude(tool)) for name in "ba"]
    paths.append(write(folder / "s" / "subagents" / "workflows" / "w" / "agent-c.jsonl", claude(tool)))
    write(folder / "s" / "subagents" / "workflows" / "w" / "journal.jsonl", {})
    assert tuple(sorted(paths)) == find_sub_agents(session)
