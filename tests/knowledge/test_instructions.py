"""Additional instructions of a person: in each prompt, in the journal's keys and in the proposal."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ctxbackends.knowledge import Kind, ingest, read_proposal
from ctxbackends.knowledge._extract.journal import Journal
from ctxbackends.knowledge._extract.options import MAX_INSTRUCTIONS, RunOptions
from ctxbackends.knowledge._extract.prompt import Prompt
from ctxbackends.knowledge._proposals.markdown import parse, render
from tests.knowledge.commands import ctx, project
from tests.knowledge.factories import LinesSource
from tests.knowledge.scripted_model import ScriptedModel, decision, scripted_backend

YAML = "We chose YAML because people edit it by hand."
TEXT = "Leave out decisions about lunch. Größe zählt."


def test_they_are_in_the_task_of_each_question() -> None:
    kinds = (Kind.DECISION, Kind.TASK)
    (only,) = Prompt(kinds, instructions=TEXT).questions
    assert TEXT in only.instructions
    assert [1, 1] == [question.build_text("").count(TEXT) for question in Prompt(kinds, 1, instructions=TEXT).questions]
    alone, packed = only.select(Kind.TASK), only.packed
    assert TEXT in alone.instructions
    assert TEXT in packed.instructions


async def test_other_instructions_need_another_answer(tmp_path: Path) -> None:
    reused = []
    with closing(Journal(tmp_path / "journal" / "run.jsonl")) as journal:
        for instructions in (TEXT, TEXT, "Others.", None):
            async with scripted_backend(lambda _: {}) as (_, backend):
                run = ingest(
                    backend, [LinesSource(YAML)], kinds=[Kind.TASK], instructions=instructions, journal=journal
                )
                async for _ in run:
                    raise AssertionError("the model finds nothing")
            reused.append(run.report.reused)
    assert [0, 1, 0, 0] == reused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (" \n", "empty instructions; write some, or leave them out"),
        ("x" * 8001, "instructions too long: 8,001 characters; shorten them to at most 8,000"),
    ],
)
def test_instructions_that_cannot_be_used(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        RunOptions(instructions=text)
    assert MAX_INSTRUCTIONS == len(RunOptions(instructions="x" * MAX_INSTRUCTIONS).instructions or "")


def test_a_file_of_instructions(tmp_path: Path, serve: Callable[..., ScriptedModel]) -> None:
    model = serve(lambda _: {"decisions": [decision("Use YAML", YAML)]})
    directory = project(tmp_path, model.url)
    (directory / "notes.md").write_text(YAML)
    (directory / "more.txt").write_bytes(b"\xef\xbb\xbf" + TEXT.encode())
    result = ctx(directory, "ingest", "notes.md", "--extract", "decisions", "--instructions", "more.txt")
    assert 0 == result.code, result.err
    assert TEXT in model.bodies[0]["messages"][0]["content"]
    proposal = read_proposal(result.proposal)
    assert hashlib.sha256(TEXT.encode()).hexdigest() == proposal.facts.instructions_sha256
    assert TEXT not in result.proposal.read_text()
    assert proposal == parse(render(proposal))


def test_a_run_without_instructions_has_no_hash(tmp_path: Path, serve: Callable[..., ScriptedModel]) -> None:
    directory = project(tmp_path, serve(lambda _: {"decisions": [decision("Use YAML", YAML)]}).url)
    (directory / "notes.md").write_text(YAML)
    result = ctx(directory, "ingest", "notes.md")
    assert "instructions_sha256" not in result.proposal.read_text()
    assert None is read_proposal(result.proposal).facts.instructions_sha256


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read the instructions: more.txt: "),
        (b"Gr\xf6\xdfe", "more.txt is not UTF-8 (byte 3); convert it, for example with iconv -t UTF-8"),
        (b"", "more.txt: empty instructions; write some, or leave them out"),
        (b"x" * 9000, "more.txt: instructions too long: 9,000 characters; shorten them to at most 8,000"),
    ],
)
def test_a_file_that_cannot_be_used(tmp_path: Path, content: bytes | None, message: str) -> None:
    (tmp_path / "notes.md").write_text(YAML)
    if content is not None:
        (tmp_path / "more.txt").write_bytes(content)
    result = ctx(tmp_path, "ingest", "notes.md", "--dry-run", "--instructions", "more.txt")
    assert (1, message in result.err) == (result.code, True), result.err


def test_secrets_in_them_are_masked() -> None:
    key = "ghp_" + "aB3dE6gH9jK2mN5pQ8sT1vW4yZ7cF0hJ3kL6"
    (question,) = Prompt([Kind.TASK], instructions=f"Use the token {key} of the team.").questions
    assert "Use the token [masked] of the team." in question.instructions


@pytest.mark.parametrize(
    "options", [("--instructions", "secret/more.txt"), ("--kind", "thing=secret/thing.json")], ids=lambda one: one[0]
)
def test_files_that_match_privacy_redact_are_in_no_prompt_for_others(
    tmp_path: Path, options: tuple[str, str], serve: Callable[..., ScriptedModel]
) -> None:
    (tmp_path / "public").mkdir()
    (tmp_path / "local").mkdir()
    public = project(tmp_path / "public", "http://192.0.2.1:9", kind="vllm", more="privacy:\n  redact: [secret]\n")
    local = project(tmp_path / "local", serve(lambda _: {}).url, more="privacy:\n  redact: [secret]\n")
    for directory in (public, local):
        (directory / "notes.md").write_text(YAML)
        (directory / "secret").mkdir()
        (directory / "secret" / "more.txt").write_text(TEXT)
        (directory / "secret" / "thing.json").write_text('{"properties": {"title": {"type": "string"}}}')
    name = options[1].rpartition("=")[2]
    result = ctx(public, "ingest", "notes.md", *options)
    assert (1, f"{name}: not sent to http://192.0.2.1:9: matches privacy.redact" in result.err) == (result.code, True)
    assert 0 == ctx(local, "ingest", "notes.md", *options).code
