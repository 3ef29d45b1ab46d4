"""compact with several transcripts, the newest session, speakers, and as a hook."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctxbackends._cli.hook import child_arguments
from ctxbackends.knowledge._proposals.store import read_proposal
from tests.knowledge.commands import WITHIN, ctx, ctx_process, list_written_files, project
from tests.knowledge.scripted_model import ScriptedModel, decision, line_of
from tests.knowledge.transcripts import encode

Serve = Callable[..., ScriptedModel]


def keep_options(prompt: str) -> dict[str, Any]:
    quotes = re.findall(r"We keep option \d+\.", prompt)
    return {"decisions": [decision(f"Option {quote[15:-1]}", quote, line_of(prompt, quote)) for quote in quotes]}


def user(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "user", "sessionId": "s", "message": {"role": "user", "content": text}, **more}


def assistant(text: str) -> dict[str, Any]:
    return {"type": "assistant", "message": {"role": "assistant", "content": [{"type": "text", "text": text}]}}


SESSION = (
    user("We keep option 1."),
    assistant("We keep option 2."),
    user("We keep option 3.", isCompactSummary=True),
    user("<local-command-stdout>We keep option 4.</local-command-stdout>"),
)


def write(path: Path, *records: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(encode(record) for record in records))
    return path


def speakers_of_rows(directory: Path, proposal: Path) -> list[tuple[str, str | None]]:
    return [(row.title, row.evidence[0].speaker) for row in read_proposal(directory / proposal).rows]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (
            [],
            [("Option 1", "user"), ("Option 2", "assistant"), ("Option 3", "summary"), ("Option 4", "system")],
        ),
        (["--dialogue-only"], [("Option 1", "user"), ("Option 2", "assistant")]),
        (["--speakers", "summary,user"], [("Option 1", "user"), ("Option 3", "summary")]),
    ],
)
def test_speakers(tmp_path: Path, serve: Serve, options: list[str], expected: list[tuple[str, str]]) -> None:
    directory = project(tmp_path, serve(keep_options).url)
    write(directory / "s.jsonl", *SESSION)
    result = ctx(directory, "compact", "s.jsonl", *options)
    assert 0 == result.code, result.err
    assert expected == speakers_of_rows(directory, result.proposal)
    text = (directory / result.proposal).read_text()
    assert ("Option 3", "summary") not in expected or "- **Only evidence:** a summary that the agent wrote" in text
    assert bool(options) == ("passages of other speakers were left out" in result.err)
    shown = ctx(directory, "proposals", "show").out
    assert "s.jsonl:1 (user)" in shown
    assert (("Option 3", "summary") in expected) == ("only evidence: a summary that the agent wrote" in shown)
    exported = ctx(directory, "proposals", "show", "--json").out
    assert expected == [(row["record"]["title"], row["evidence"][0]["speaker"]) for row in json.loads(exported)["rows"]]


def test_the_export_names_the_speaker(tmp_path: Path, serve: Serve) -> None:
    directory = project(tmp_path, serve(keep_options).url)
    write(directory / "s.jsonl", *SESSION[:1])
    ctx(directory, "compact", "s.jsonl")
    ctx(directory, "proposals", "edit", "latest", "d1", "--set", "context=asked", "--set", "rationale=cheap")
    ctx(directory, "proposals", "edit", "latest", "d1", "--set", "consequence=none so far")
    ctx(directory, "proposals", "accept", "d1")
    assert "s.jsonl:1 (user)" in ctx(directory, "proposals", "export").out


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (["--speakers", "user,nobody"], "unknown speaker: 'nobody'; the speakers are user, assistant, tool, summary"),
        (["--speakers", "user", "--dialogue-only"], "--dialogue-only and --speakers exclude each other"),
    ],
)
def test_invalid_speakers(tmp_path: Path, options: list[str], problem: str) -> None:
    result = ctx(project(tmp_path, None), "compact", "s.jsonl", *options)
    assert 2 == result.code
    assert problem in result.err


def test_a_dry_run_counts_only_these_speakers(tmp_path: Path) -> None:
    directory = project(tmp_path, None)
    write(directory / "s.jsonl", *SESSION, assistant("We talk. " * 5_000))
    whole = ctx(directory, "compact", "s.jsonl", "--dry-run", "--json").events[-1]
    one = ctx(directory, "compact", "s.jsonl", "--dry-run", "--json", "--speakers", "user").events[-1]
    assert one["chunks"] < whole["chunks"]


def test_several_transcripts(tmp_path: Path, serve: Serve) -> None:
    directory = project(tmp_path, serve(keep_options).url)
    write(directory / "a.jsonl", *SESSION[:1])
    write(directory / "b.json", {"role": "user", "message": {"content": "We keep option 7."}})
    result = ctx(directory, "compact", "a.jsonl", "b.json", "-", text=b"User: We keep option 8.\n\nAssistant: Yes.\n")
    assert 0 == result.code, result.err
    rows = read_proposal(directory / result.proposal).rows
    assert ["a.jsonl:1 (user)", "b.json:1 (user)", "stdin:1 (user)"] == [row.evidence[0].where for row in rows]


@pytest.mark.parametrize("arguments", [[], ["s.jsonl", "--last"], ["--last", "--hook", "claude-code"]])
def test_one_kind_of_input(tmp_path: Path, arguments: list[str]) -> None:
    result = ctx(project(tmp_path, None), "compact", *arguments)
    assert 2 == result.code
    assert "pass transcripts, --last or --hook, and only one of them" in result.err


def test_a_transcript_of_an_unknown_program_is_refused(tmp_path: Path) -> None:
    directory = project(tmp_path, None)
    result = ctx(directory, "compact", "-", "--dry-run", text=encode({"kind": "x"}) + encode({"kind": "y"}))
    assert 1 == result.code
    assert 'stdin: is JSON lines with "kind", not a transcript that can be read' in result.err


# --- the newest session ---------------------------------------------------------------------------------


def claude_folder(base: Path, directory: Path) -> Path:
    return base / "projects" / re.sub(r"[^a-zA-Z0-9]", "-", str(directory))


def test_the_newest_session_of_the_directory(tmp_path: Path, serve: Serve) -> None:
    directory = project(tmp_path, serve(keep_options).url)
    path = write(claude_folder(tmp_path / "claude", directory) / "abc.jsonl", *SESSION[:1])
    result = ctx(directory, "compact", "--last", CLAUDE_CONFIG_DIR=str(tmp_path / "claude"), HOME=str(tmp_path))
    assert 0 == result.code, result.err
    assert re.search(rf"session of Claude Code, last changed [0-9: -]+Z: {re.escape(str(path))}\n", result.err)
    assert [("Option 1", "user")] == speakers_of_rows(directory, result.proposal)


def test_no_session_of_the_directory(tmp_path: Path) -> None:
    directory = project(tmp_path, None)
    result = ctx(directory, "compact", "--last", CLAUDE_CONFIG_DIR=str(tmp_path / "claude"), HOME=str(tmp_path))
    assert (1, "") == (result.code, result.out)
    assert f"no session of an agent found for {directory}" in result.err


@pytest.mark.parametrize(
    ("options", "rows"),
    [([], [("Option 1", "user"), ("Option 5", "assistant")]), (["--no-subagents"], [("Option 1", "user")])],
)
def test_sub_agents_of_a_session(tmp_path: Path, serve: Serve, options: list[str], rows: list[tuple[str, str]]) -> None:
    directory = project(tmp_path, serve(keep_options).url)
    write(directory / "s.jsonl", *SESSION[:1])
    write(directory / "s" / "subagents" / "agent-a.jsonl", user("We keep option 5.", isSidechain=True))
    write(directory / "s" / "subagents" / "agent-b.jsonl")
    result = ctx(directory, "compact", "s.jsonl", *options)
    assert rows == speakers_of_rows(directory, result.proposal)
    assert bool(options) != ("1 transcript of sub-agents read too" in result.err)
    assert bool(options) != ("agent-b.jsonl: is empty" in result.err)


# --- hooks ----------------------------------------------------------------------------------------------


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> list[subprocess.Popen[bytes]]:
    """The processes that a hook starts."""
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start(*arguments: Any, **options: Any) -> Any:
        started.append(popen(*arguments, **options))
        return started[-1]

    monkeypatch.setattr("ctxbackends._cli.hook.subprocess.Popen", start)
    return started


def hook_input(directory: Path, transcript: Path, **more: Any) -> bytes:
    event = {"session_id": "s", "transcript_path": str(transcript), "cwd": str(directory)}
    return json.dumps(event | (more or {"hook_event_name": "SessionEnd", "reason": "exit"})).encode()


@pytest.mark.parametrize("more", [{}, {"hook_event_name": "PreCompact", "trigger": "auto", "custom_instructions": ""}])
def test_a_hook_compacts_the_session_in_the_background(
    tmp_path: Path, serve: Serve, processes: list[subprocess.Popen[bytes]], more: dict[str, Any]
) -> None:
    (tmp_path / "tool").mkdir()
    directory = project(tmp_path / "tool", serve(keep_options).url)
    transcript = write(tmp_path / "sessions" / "abc.jsonl", *SESSION)
    text = hook_input(directory, transcript, **more)
    # An agent may run it in another directory.
    result = ctx(tmp_path, "compact", "--hook", "claude-code", "--dialogue-only", text=text)
    assert (0, "", "") == (result.code, result.out, result.err)
    (process,) = processes
    assert 0 == process.wait(WITHIN)
    (proposal,) = [name for name in list_written_files(directory) if name.startswith("proposals/")]
    assert [("Option 1", "user"), ("Option 2", "assistant")] == speakers_of_rows(directory / ".context", Path(proposal))
    log = (directory / ".context" / "journal" / "hook.log").read_text()
    why = "PreCompact (auto)" if more else "SessionEnd (exit)"
    assert re.match(rf"[0-9TZ:-]+ {re.escape(why)}: {re.escape(str(transcript))}\n", log)
    assert "2 rows, 1 part skipped in 1 chunk" in log
    assert "*\n" == (directory / ".context" / "journal" / ".gitignore").read_text()


def test_a_failure_in_the_background_is_in_the_log(tmp_path: Path, processes: list[subprocess.Popen[bytes]]) -> None:
    directory = project(tmp_path, "http://127.0.0.1:9")
    transcript = write(tmp_path / "abc.jsonl", *SESSION)
    result = ctx(directory, "compact", "--hook=claude-code", text=hook_input(directory, transcript))
    assert (0, "", "") == (result.code, result.out, result.err)
    assert 1 == processes[0].wait(WITHIN)
    assert "unreachable" in (directory / ".context" / "journal" / "hook.log").read_text()


@pytest.mark.parametrize(
    ("text", "code", "problem"),
    [
        (b"", 1, "invalid input of a hook"),
        (b'{"hook_event_name": "SessionEnd"}', 1, "invalid input of a hook: Object missing required field"),
        (
            b'{"hook_event_name": "Stop", "transcript_path": "x"}',
            1,
            "hook event not supported: 'Stop'; use SessionEnd or PreCompact",
        ),
        (b'{"hook_event_name": "SessionEnd", "transcript_path": "/no/file"}', 0, "the session has no transcript"),
    ],
)
def test_what_a_hook_cannot_use(tmp_path: Path, text: bytes, code: int, problem: str) -> None:
    """No exit code is 2, with which a hook would block the agent."""
    result = ctx(project(tmp_path, None), "compact", "--hook", "claude-code", text=text)
    assert (code, "") == (result.code, result.out)
    assert problem in result.err


def test_a_project_without_context_is_left_alone(tmp_path: Path) -> None:
    transcript = write(tmp_path / "abc.jsonl", *SESSION)
    result = ctx_process(tmp_path, "compact", "--hook", "claude-code", text=hook_input(tmp_path, transcript))
    assert (0, "") == (result.code, result.out)
    assert f"nothing was compacted: no .context directory in {tmp_path} or above it" in result.err
    assert ["abc.jsonl"] == [path.name for path in tmp_path.iterdir()]


def test_the_recipe_of_the_documentation(
    tmp_path: Path, serve: Serve, processes: list[subprocess.Popen[bytes]]
) -> None:
    directory = project(tmp_path, serve(keep_options).url)
    page = (Path(__file__).parents[2] / "docs" / "knowledge" / "hooks.md").read_text("utf-8")
    settings = json.loads(page.partition("```json\n")[2].partition("```")[0])
    assert ["SessionEnd", "PreCompact"] == list(settings["hooks"])
    for event, (entry,) in settings["hooks"].items():
        (hook,) = entry["hooks"]
        program, *arguments = shlex.split(hook["command"])
        transcript = write(tmp_path / f"{event}.jsonl", *SESSION)
        result = ctx(directory, *arguments, text=hook_input(directory, transcript, hook_event_name=event))
        assert ("ctxbackends", 0, "") == (program, result.code, result.out), result.err
    assert [0, 0] == [process.wait(WITHIN) for process in processes]
    proposals = [name for name in list_written_files(directory) if name.startswith("proposals/")]
    assert 2 == len(proposals)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["compact", "--hook", "claude-code"], ["compact", "--resume", "--", "/s.jsonl"]),
        (["compact", "--hook=claude-code", "-b", "x"], ["compact", "-b", "x", "--resume", "--", "/s.jsonl"]),
        (["compact", "--no-resume", "--hook", "claude-code"], ["compact", "--no-resume", "--", "/s.jsonl"]),
    ],
)
def test_the_arguments_of_the_run(arguments: list[str], expected: list[str]) -> None:
    assert expected == child_arguments(arguments, Path("/s.jsonl"))
