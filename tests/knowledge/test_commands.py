"""The commands extract, compact and ingest, in this process or in a separate one (Ctrl-C, two runs, a full disk)."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ctxbackends.knowledge._proposals.store import read_proposal
from tests.knowledge.commands import (
    WITHIN,
    ctx,
    ctx_process,
    environment,
    list_written_files,
    project,
    snapshot_context,
    start_process,
)
from tests.knowledge.scripted_model import ScriptedModel, completion, decision, line_of

Serve = Callable[..., ScriptedModel]


def options(prompt: str) -> dict[str, Any]:
    """A decision for each sentence that says to keep an option, and an invented one where it says so."""
    quotes = re.findall(r"We keep option \d+\.", prompt)
    decisions = [decision(f"Keep option {quote[15:-1]}", quote, line_of(prompt, quote)) for quote in quotes]
    if "invent" in prompt:
        decisions.append(decision("Buy a boat", "We all want to buy a boat.", 1))
    return {"decisions": decisions}


NOTES = "# Meeting\n\nWe keep option 1.\n\nWe keep option 2.\nIt is late.\n"


def test_documents_become_a_proposal(tmp_path: Path, serve: Serve) -> None:
    model = serve(options)
    directory = project(tmp_path, model.url)
    (directory / "notes.md").write_text(NOTES + "\nDo not invent anything.\n")
    before = snapshot_context(directory)
    result = ctx(directory, "ingest", "notes.md")
    assert (0, 1) == (result.code, len(model.prompts)), result.err
    proposal = read_proposal(directory / result.proposal)
    assert ["Keep option 1", "Keep option 2"] == [row.title for row in proposal.rows]
    assert ["notes.md:3", "notes.md:5"] == [row.evidence[0].where for row in proposal.rows]
    assert ["DECISIONS.md:3", None] == [row.known_at for row in proposal.rows]
    assert ["its quote is not in the source"] == [item.reason for item in proposal.quarantined]
    facts = proposal.facts
    assert ("ingest", "model", "openai", model.url, "scripted", 1, 100, 10) == (
        facts.command,
        facts.backend,
        facts.backend_type,
        facts.endpoint,
        facts.served_model,
        facts.chunks,
        facts.input_tokens,
        facts.output_tokens,
    )
    assert "2 rows, 1 already in .context, 1 quarantined in 1 chunk," in result.err
    assert f"review them: ctxbackends proposals review {proposal.facts.id}" in result.err
    assert before == snapshot_context(directory)
    assert [f"proposals/{facts.id}.md"] == [
        name for name in list_written_files(directory) if not name.startswith("journal/.")
    ]


def test_standard_input(tmp_path: Path, serve: Serve) -> None:
    model = serve(options)
    directory = project(tmp_path, model.url)
    for run, *arguments in ((ctx_process, "extract"), (ctx, "ingest", "-", "--extract", "decisions")):
        result = run(directory, *arguments, text=NOTES.encode())
        assert 0 == result.code, result.err
        assert ["stdin:3", "stdin:5"] == [
            row.evidence[0].where for row in read_proposal(directory / result.proposal).rows
        ]


def test_a_transcript(tmp_path: Path, serve: Serve) -> None:
    model = serve(options)
    directory = project(tmp_path, model.url)
    lines = [
        {"type": "summary", "summary": "x"},
        {"type": "user", "message": {"role": "user", "content": "Which option?"}, "timestamp": "2026-02-19T14:30:00Z"},
        {
            "type": "assistant",
            "sessionId": "abc",
            "gitBranch": "main",
            "timestamp": "2026-02-19T14:31:00Z",
            "message": {"role": "assistant", "content": [{"type": "text", "text": "We keep option 7."}]},
        },
    ]
    text = "\n".join([json.dumps(lines[0]), json.dumps(lines[1]), "{broken", json.dumps(lines[2])])
    (directory / "session.jsonl").write_text(text)
    result = ctx(directory, "compact", "session.jsonl", "--emit", "decisions")
    assert 0 == result.code, result.err
    assert "skipped: session.jsonl:3: is not valid JSON" in result.err
    (row,) = read_proposal(directory / result.proposal).rows
    (evidence,) = row.evidence
    assert ("session.jsonl:4 (assistant, 2026-02-19T14:31:00Z)", "abc", "main") == (
        evidence.where,
        evidence.session_id,
        evidence.branch,
    )


def test_no_rows_no_proposal(tmp_path: Path, serve: Serve) -> None:
    directory = project(tmp_path, serve(options).url)
    (directory / "a.md").write_text("Nothing of note.\n")
    result = ctx(directory, "ingest", "a.md")
    assert (0, "", "nothing found in 1 chunk; no proposal written\n") == (result.code, result.out, result.err)
    assert [] == [name for name in list_written_files(directory) if not name.endswith(".gitignore")]


def test_a_dry_run_sends_and_writes_nothing(tmp_path: Path, serve: Serve) -> None:
    model = serve(options)
    directory = project(tmp_path, model.url)
    (directory / "a.md").write_text(NOTES)
    result = ctx(directory, "ingest", "a.md", "--dry-run", "--backend", "model")
    assert 0 == result.code, result.err
    expected = f"a.md  {len(NOTES)} bytes\n1 chunk of at most 8192 tokens would be sent to scripted at {model.url}"
    assert result.out.startswith(expected)
    assert ([], []) == (model.prompts, list_written_files(directory))


def test_a_dry_run_needs_neither_a_server_nor_a_context_directory(tmp_path: Path) -> None:
    (tmp_path / "docs").mkdir()
    for name in ("a.md", "b.md", "c.py", ".d.md"):
        (tmp_path / "docs" / name).write_text(NOTES)
    result = ctx(tmp_path, "ingest", "docs", "--no-pack", "--dry-run")
    assert 0 == result.code, result.err
    *inputs, chunks, tokens, time_ = result.out.splitlines()
    assert [f"docs/{name}  {len(NOTES)} bytes" for name in ("a.md", "b.md")] == inputs
    assert "2 chunks of at most 8192 tokens would be sent; use --backend to ask a server" == chunks
    assert re.fullmatch(r"about [\d,]+ tokens in all prompts \(3 bytes count as one\)", tokens)
    assert "if the server reads 400 and writes 20 tokens per second (--rate), 300 in each answer" in time_
    assert "skipped: docs: 1 file hidden (1 .md)\nskipped: docs: 1 file of unsupported types (1 .py)\n" == result.err
    assert ["docs"] == [path.name for path in tmp_path.iterdir()]

    plan = ctx(tmp_path, "ingest", "docs", "--no-pack", "--dry-run", "--json").events[-1]
    assert ("plan", None, None, 2, False) == tuple(
        plan[name] for name in ("event", "backend", "endpoint", "chunks", "is_counted")
    )
    one = ctx(tmp_path, "ingest", "docs", "--exclude", "b.md", "--dry-run", "--json").events[-1]
    assert plan["tokens"] == 2 * one["tokens"]


def test_include_and_exclude(tmp_path: Path) -> None:
    for name in ("docs/a.md", "docs/b.py", "docs/old/c.md", "docs/old/d.rst"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(NOTES)

    def read(*arguments: str) -> list[str]:
        plan = ctx(tmp_path, "ingest", "docs", *arguments, "--dry-run", "--json").events[-1]
        return [item["name"] for item in plan["inputs"]]

    assert ["docs/a.md", "docs/old/c.md", "docs/old/d.rst"] == read()
    assert ["docs/a.md"] == read("--exclude", "old")
    assert ["docs/a.md"] == read("--exclude", "docs/old/*.rst", "--exclude", "c.*")
    assert ["docs/b.py", "docs/old/d.rst"] == read("--include", "*.py", "--include", "*.rst")


def test_json_events(tmp_path: Path, serve: Serve) -> None:
    directory = project(tmp_path, serve(options).url)
    (directory / "a.md").write_text(NOTES + "\ninvent\n")
    result = ctx(directory, "ingest", "a.md", "--json")
    assert 0 == result.code, result.err
    names = [event["event"] for event in result.events if event["event"] != "activity"]
    assert ["row", "row", "quarantined", "progress", "done"] == names
    last = result.events[-1]
    assert (2, 1) == (last["report"]["rows"], last["report"]["quarantined"])
    assert (directory / last["proposal"]).exists()
    assert "a.md:3" not in result.err


# --- half-way -------------------------------------------------------------------------------------------


def long_notes(count: int = 12) -> str:
    return "\n\n".join(f"# Part {n}\n\nWe keep option {n}.{' And so on.' * 40}" for n in range(count)) + "\n"


SMALL = ("--chunk-tokens", "150", "--max-concurrency", "1")


def test_a_failure_leaves_no_proposal_and_a_journal(tmp_path: Path, serve: Serve) -> None:
    is_failing = True

    def script(prompt: str) -> Any:
        if is_failing and "option 6." in prompt:
            return web.json_response({"error": {"message": "out of memory"}}, status=500)
        return options(prompt)

    model = serve(script)
    directory = project(tmp_path, model.url)
    (directory / "a.md").write_text(long_notes())
    result = ctx(directory, "ingest", "a.md", *SMALL)
    assert 1 == result.code
    assert "6 answers in the journal; use --resume to continue" in result.err
    assert "out of memory" in result.err
    assert [] == list((directory / ".context" / "proposals").iterdir())

    # Without an option, nothing is requested again and nothing is lost.
    second = ctx(directory, "ingest", "a.md", *SMALL)
    assert 1 == second.code
    assert "use --resume to continue it, or --no-resume to start over" in second.err

    is_failing = False
    model.prompts.clear()
    resumption = ctx(directory, "ingest", "a.md", *SMALL, "--resume")
    assert (0, 6) == (resumption.code, len(model.prompts)), resumption.err
    rows = read_proposal(directory / resumption.proposal).rows
    assert [f"Keep option {n}" for n in range(12)] == [row.title for row in rows]
    assert [".gitignore"] == [path.name for path in (directory / ".context" / "journal").iterdir()]


def test_no_resume_starts_over(tmp_path: Path, serve: Serve) -> None:
    is_failing = True

    def script(prompt: str) -> Any:
        if is_failing and "option 3." in prompt:
            return web.json_response({"error": {"message": "out of memory"}}, status=500)
        return options(prompt)

    model = serve(script)
    directory = project(tmp_path, model.url)
    (directory / "a.md").write_text(long_notes(6))
    assert 1 == ctx(directory, "ingest", "a.md", *SMALL).code
    is_failing = False
    model.prompts.clear()
    result = ctx(directory, "ingest", "a.md", *SMALL, "--no-resume")
    assert (0, 6) == (result.code, len(model.prompts)), result.err


def test_an_interrupt_leaves_a_journal(tmp_path: Path, serve: Serve) -> None:
    model = serve(options, seconds=0.2)
    directory = project(tmp_path, model.url)
    (directory / "a.md").write_text(long_notes())
    before = snapshot_context(directory)
    process = start_process(directory, "ingest", "a.md", *SMALL)
    deadline = time.monotonic() + 30
    while len(model.prompts) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=30)
    assert 130 == process.returncode, err
    assert b"answers in the journal; use --resume to continue" in err
    assert b"interrupted" in err
    assert [] == list((directory / ".context" / "proposals").iterdir())
    model.seconds = 0
    requests = len(model.prompts)
    result = ctx(directory, "ingest", "a.md", *SMALL, "--resume")
    assert 0 == result.code, result.err
    assert len(model.prompts) - requests < 12
    assert 12 == len(read_proposal(directory / result.proposal).rows)
    assert before == snapshot_context(directory)


def test_concurrent_runs(tmp_path: Path, serve: Serve) -> None:
    model = serve(options, seconds=4.0)
    directory = project(tmp_path, model.url)
    for name in ("a.md", "b.md"):
        (directory / name).write_text(NOTES)
    first = start_process(directory, "ingest", "a.md")
    deadline = time.monotonic() + 30
    while not model.max_in_flight and time.monotonic() < deadline:
        time.sleep(0.01)
    model.seconds = 0  # for those that come later
    same = ctx(directory, "ingest", "a.md")
    other = ctx(directory, "ingest", "b.md")
    out, err = first.communicate(timeout=30)
    assert (1, 0, 0) == (same.code, other.code, first.returncode), (same.err, other.err, err)
    assert "journal is locked by another run of these inputs" in same.err
    assert 2 == len({out.decode().strip(), other.out.strip()})
    for path in (out.decode().strip(), other.out.strip()):
        assert 2 == len(read_proposal(directory / path).rows)


# --- errors -------------------------------------------------------------------------------------------


def files(directory: Path) -> None:
    (directory / "empty.md").write_text(" \n\n")
    (directory / "binary.md").write_bytes(b"abc\x00def")
    (directory / "latin.md").write_bytes("Grüße\n".encode("latin-1"))
    (directory / "none.jsonl").write_text('{"type": "summary"}\n')
    (directory / "secret").mkdir()
    (directory / "secret" / "plan.md").write_text(NOTES)
    if sys.platform != "win32":
        os.mkfifo(directory / "pipe.md")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["empty.md"], "empty.md: is empty"),
        (["binary.md"], "binary.md: is binary (NUL byte at byte 4); only text is supported"),
        (["latin.md"], "latin.md:1: is not UTF-8 (byte 3); convert it, for example with iconv -f LATIN1 -t UTF-8"),
        (["missing.md"], "missing.md: cannot be read: No such file or directory"),
        (["none.jsonl"], 'none.jsonl: is JSON with "type", not a transcript that can be read'),
        pytest.param(["pipe.md"], "pipe.md: is not a regular file", marks=pytest.mark.posix),
        (["*.nothing"], "*.nothing: matches no file"),
        (["a.md", "--out", "no/such"], "cannot create no/such: No such file or directory"),
        (["a.md", "--out", "a.md"], "not a directory: a.md; name a directory for the proposals"),
        (["a.md", "--model", ""], "no model given: use --model NAME, or set default_model"),
    ],
)
def test_bad_input(tmp_path: Path, serve: Serve, arguments: list[str], message: str) -> None:
    model = serve(options)
    directory = project(tmp_path, model.url)
    files(directory)
    (directory / "a.md").write_text(NOTES)
    if "--model" in arguments:
        (directory / ".ctxrc").write_text(f"backends: [{{name: openai, endpoint: '{model.url}'}}]\n")
        arguments = arguments[:1]
    result = ctx(directory, "ingest", *arguments)
    assert (1, "") == (result.code, result.out), result.err
    assert message in result.err
    assert 1 == len(result.err.strip().split("\n")) or "  pass --model" in result.err
    assert ([], []) == (
        model.prompts,
        [name for name in list_written_files(directory) if not name.endswith(".gitignore")],
    )


def test_empty_standard_input(tmp_path: Path, serve: Serve) -> None:
    directory = project(tmp_path, serve(options).url)
    result = ctx(directory, "extract")
    assert (1, "ctxbackends: stdin: is empty\n") == (result.code, result.err)


def test_unknown_kinds(tmp_path: Path) -> None:
    result = ctx(tmp_path, "ingest", "a.md", "--extract", "decisions,wishes")
    assert 2 == result.code
    assert "unknown kind: 'wishes'; the kinds are decisions, learnings, tasks" in result.err


def test_without_a_context_directory(tmp_path: Path, serve: Serve) -> None:
    model = serve(options)
    (tmp_path / ".ctxrc").write_text(
        f"backends: [{{name: openai, endpoint: '{model.url}', default_model: scripted}}]\n"
    )
    (tmp_path / "a.md").write_text(NOTES)
    result = ctx(tmp_path, "ingest", "a.md")
    assert (1, []) == (result.code, model.prompts)
    assert "no .context directory in this directory or its parents; create one (mkdir .context)" in result.err
    assert 0 == ctx(tmp_path, "ingest", "a.md", "--out", "found").code
    assert 1 == len(list((tmp_path / "found").glob("*.md")))


FULL_DISK = """\
set -e
mount -t tmpfs -o size=64k none .context
dd if=/dev/zero of=.context/fill bs=1k count=100 2>/dev/null || true
truncate -s -"$FREE"k .context/fill
"$PYTHON" -m ctxbackends ingest notes.md || echo "exit $?"
find .context -name '*.md' -o -name '*.tmp'
rm .context/fill
"$PYTHON" -m ctxbackends ingest notes.md --resume > /dev/null
ls .context/proposals
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("free", "words", "requests"),
    [
        (4, r"ctxbackends: cannot write the journal \S+: No space left on device\n", 2),
        (8, r"ctxbackends: cannot write \S+\.md: No space left on device; nothing was changed\n", 1),
    ],
)
def test_a_full_disk(tmp_path: Path, serve: Serve, free: int, words: str, requests: int) -> None:
    model = serve(options)
    directory = project(tmp_path, model.url)
    (directory / "notes.md").write_text(NOTES)
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("needs unshare, of util-linux")
    # A small file system in a mount namespace of its own: it goes with the process.
    result = subprocess.run(
        [unshare, "--map-root-user", "--mount", "sh", "-c", FULL_DISK],
        cwd=directory,
        capture_output=True,
        text=True,
        timeout=WITHIN,
        env=environment(FREE=str(free), PYTHON=sys.executable),
        check=False,
    )
    if re.match(r"(unshare|mount): .*", result.stderr):
        pytest.skip(f"no mounts for this user: {result.stderr.strip()}")
    assert re.search(words, result.stderr), result.stderr
    failed, *rest = result.stdout.splitlines()
    assert "exit 1" == failed
    (proposal,) = rest
    assert proposal.endswith("-notes.md")
    assert requests == len(model.prompts)


def test_known_rows_are_marked_with_out(tmp_path: Path, serve: Serve) -> None:
    directory = project(tmp_path, serve(options).url)
    (directory / "notes.md").write_text(NOTES)
    result = ctx(directory, "ingest", "notes.md", "--out", "found")
    assert 0 == result.code, result.err
    assert ["DECISIONS.md:3", None] == [row.known_at for row in read_proposal(directory / result.proposal).rows]
    assert [] == list_written_files(directory)


def test_a_model_without_a_usable_answer(tmp_path: Path, serve: Serve) -> None:
    directory = project(tmp_path, serve(lambda _: completion("", finish_reason="content_filter")).url)
    (directory / "a.md").write_text(NOTES)
    result = ctx(directory, "ingest", "a.md")
    assert 1 == result.code
    assert "a.md:1-6: no usable answer from the model: " in result.err
    assert "use --skip-failed to continue" in result.err


def test_a_file_that_changes_while_it_is_read(tmp_path: Path, serve: Serve) -> None:
    path = tmp_path / "a.md"

    def script(prompt: str) -> Any:
        text = path.read_text()
        path.write_text(text.replace("And", "Or ", 1) if "And" in text else text)
        return options(prompt)

    directory = project(tmp_path, serve(script).url)
    path.write_text(long_notes(1000))
    result = ctx(directory, "ingest", "a.md", "--chunk-tokens", "2000")
    assert 1 == result.code
    assert "a.md: changed while it was read; run the command again" in result.err
    assert [] == list((directory / ".context" / "proposals").iterdir())


# --- privacy -------------------------------------------------------------------------------------------


def test_secrets_are_masked_and_counted(tmp_path: Path, serve: Serve) -> None:
    model = serve(options)
    directory = project(tmp_path, model.url)
    key = "ghp_" + "a1B2c3D4" * 5
    (directory / "a.md").write_text(f"{NOTES}\nThe token is {key}.\n")
    result = ctx(directory, "ingest", "a.md")
    assert 0 == result.code, result.err
    assert "1 secret masked before sending" in result.err
    assert [False] == [key in requests for requests in model.prompts]
    assert 1 == read_proposal(directory / result.proposal).facts.masked


def test_redacted_files_go_to_loopback(tmp_path: Path, serve: Serve) -> None:
    model = serve(options)
    directory = project(tmp_path, model.url, more="privacy:\n  redact: [secret]\n")
    files(directory)
    assert 0 == ctx(directory, "ingest", "secret/plan.md").code
    assert 1 == len(model.prompts)


def test_redacted_files_go_through_no_proxy(tmp_path: Path, serve: Serve) -> None:
    model = serve(options)
    directory = project(tmp_path, model.url, more="    trust_env: true\nprivacy:\n  redact: [secret]\n")
    files(directory)
    (directory / "open.md").write_text(NOTES)
    result = ctx(directory, "ingest", "secret/plan.md", "open.md")
    assert (1, []) == (result.code, model.prompts)
    assert "a proxy could forward requests for" in result.err
    assert 0 == ctx(directory, "ingest", "open.md").code


def test_redacted_files_are_not_sent_to_public_endpoints(tmp_path: Path) -> None:
    # 192.0.2.1 is an address of no machine (RFC 5737), and is not private.
    directory = project(tmp_path, "http://192.0.2.1:9", kind="vllm", more="privacy:\n  redact: [secret]\n")
    files(directory)
    result = ctx(directory, "ingest", "secret/plan.md")
    assert 1 == result.code
    assert "secret/plan.md: not sent to http://192.0.2.1:9: matches privacy.redact of .ctxrc" in result.err


def test_other_files_are_sent_without_the_redacted(tmp_path: Path) -> None:
    directory = project(tmp_path, "http://192.0.2.1:9", kind="openai", more="privacy:\n  redact: [secret]\n")
    files(directory)
    (directory / "open.md").write_text(NOTES)
    # No server runs there: skipped files are reported before the first request.
    result = ctx(directory, "ingest", "secret/plan.md", "open.md", "--json", "--dry-run", "-b", "model")
    assert 1 == result.code
    events = [(event["event"], event["source"]) for event in result.events if event["event"] != "activity"]
    assert [("skipped", "secret/plan.md")] == events


# --- real input -----------------------------------------------------------------------------------------

ROOT = Path(__file__).parents[2]


def test_the_documents_of_this_project(tmp_path: Path, serve: Serve) -> None:
    def script(prompt: str) -> Any:
        heading = re.search(r"\n\[(\d+)\] (#+ \w+ \w[^\n]{8,})", prompt)  # a quote has two words
        if heading is None:
            return {}
        return {
            "terms": [{"line": int(heading[1]), "quote": heading[2], "term": heading[2].lstrip("# "), "definition": ""}]
        }

    model = serve(script)
    directory = project(tmp_path, model.url)
    shutil.copytree(ROOT / "docs", directory / "docs", ignore=shutil.ignore_patterns("_build"))
    shutil.copy(ROOT / "README.md", directory)
    result = ctx(directory, "ingest", "README.md", "docs", "--extract", "terms")
    assert 0 == result.code, result.err
    proposal = read_proposal(directory / result.proposal)
    assert () == proposal.quarantined
    assert len(proposal.facts.inputs) > 20
    for row in proposal.rows:
        for evidence in row.evidence:
            lines = (directory / evidence.source).read_text().split("\n")[evidence.first - 1 : evidence.last]
            assert evidence.quote in " ".join(" ".join(lines).split())


def test_a_transcript_of_several_megabytes(tmp_path: Path, serve: Serve) -> None:
    directory = project(tmp_path, serve(options).url)
    with (directory / "session.jsonl").open("w") as file:
        for number in range(4_000):
            role = "user" if number % 2 else "assistant"
            message = f"We keep option {number}." if number % 400 == 7 else "We talk. "
            content = [{"type": "text", "text": message + " And so on." * 90}]
            file.write(json.dumps({"type": role, "message": {"role": role, "content": content}}) + "\n")
    assert (directory / "session.jsonl").stat().st_size > 4_000_000
    result = ctx(directory, "compact", "session.jsonl", "--emit", "decisions")
    assert 0 == result.code, result.err
    rows = read_proposal(directory / result.proposal).rows
    expected = [(f"Keep option {number}", number + 1) for number in range(7, 4_000, 400)]
    assert expected == [(row.title, row.evidence[0].first) for row in rows]


# --- `.context/*.md` belongs to people --------------------------------------------------------------------

# The program, once for each line of JSON on standard input; an audit hook tells of all that could change a file there.
AUDIT = """
import json, os, sys
from pathlib import Path
root, context = sys.argv[1], os.path.realpath(sys.argv[2])
sys.path.append(root)
from tests.knowledge.commands import ctx
touched = []
def watch(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path, mode, flags = arguments
        writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_TRUNC | os.O_CREAT) if isinstance(flags, int) else "w" in mode
        paths = [path] if writes else []
    elif event in ("os.rename", "os.link", "os.remove", "os.truncate", "os.chmod", "os.utime", "shutil.move"):
        paths = [one for one in arguments if isinstance(one, (str, bytes))]
    else:
        return
    for path in paths:
        directory, name = os.path.split(os.path.realpath(os.fsdecode(path)))
        if directory == context and name.endswith(".md"):
            touched.append(f"{event} {path}")
sys.addaudithook(watch)
for line in sys.stdin:
    arguments, text = json.loads(line)
    done = ctx(Path.cwd(), *arguments, text=text.encode())
    print(json.dumps([done.code, done.out, done.err, touched]), flush=True)
"""


def test_no_command_changes_the_context_files(tmp_path: Path, serve: Serve) -> None:
    model = serve(options)
    directory = project(tmp_path, model.url)
    (directory / "notes.md").write_text(NOTES + "\ninvent\n")
    before = snapshot_context(directory)
    context = str(directory / ".context")
    program = subprocess.Popen(
        [sys.executable, "-c", AUDIT, ROOT, context],
        cwd=directory,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
    )

    def run(*arguments: str, text: str = "", code: int = 0) -> str:
        assert program.stdin is not None
        assert program.stdout is not None
        program.stdin.write(json.dumps([arguments, text]) + "\n")
        program.stdin.flush()
        exit_code, out, err, changes = json.loads(program.stdout.readline())
        assert (code, []) == (exit_code, changes), err
        assert before == snapshot_context(directory)
        return str(out)

    with program:
        run("setup", "--backend", "openai", "--name", "model", "--endpoint", model.url, "--model", "scripted")
        for command in (["ping"], ["status"], ["models"]):
            run(*command)
        run("extract", text=NOTES)
        run("compact", "notes.md")
        run("ingest", "notes.md", "--dry-run")
        path = run("ingest", "notes.md").strip()
        name = Path(path).stem
        for command in (
            ["list"],
            ["show", name],
            ["show", name, "--quarantined"],
            ["edit", name, "d1", "--set", "title=Keep the first option"],
            ["accept", name, "d1"],
            ["reject", name, "d2"],
            ["export", name],
            ["export", name, "--dir", "out"],
        ):
            run("proposals", *command)
        # Nor does a command with the explicit path.
        run("ingest", "notes.md", "--out", context, code=1)
        run("proposals", "export", name, "--dir", context, code=1)
