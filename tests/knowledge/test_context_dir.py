"""Where ``.context`` is: ``CTX_DIR``, else ``context_dir`` of ``.ctxrc``, else the nearest one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ctxbackends.errors import ConfigError
from ctxbackends.knowledge._errors import ProposalError
from ctxbackends.knowledge._proposals.store import context_directory, find_context, prepare_directory, read_proposal
from tests.knowledge.commands import ctx, project
from tests.knowledge.factories import write_example
from tests.knowledge.scripted_model import ScriptedModel, decision


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory below the one of ``.ctxrc``, with a ``.context`` of its own."""
    (tmp_path / "below" / ".context").mkdir(parents=True)
    (tmp_path / "docs" / "memory").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "below")
    monkeypatch.delenv("CTX_DIR", raising=False)
    return tmp_path


def test_the_key_is_relative_to_its_file(here: Path) -> None:
    assert here / "below" / ".context" == context_directory()
    (here / ".ctxrc").write_text("context_dir: docs/memory\n")
    assert here / "docs" / "memory" == context_directory() == find_context()
    (here / ".ctxrc").write_text(f"context_dir: {here}/docs\n")
    assert here / "docs" == context_directory()


def test_the_variable_wins(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / ".ctxrc").write_text("context_dir: docs\n")
    monkeypatch.setenv("CTX_DIR", str(here / "docs" / "memory"))
    assert here / "docs" / "memory" == context_directory()
    monkeypatch.setenv("CTX_DIR", "../docs")
    assert here / "docs" == context_directory()
    monkeypatch.setenv("CTX_DIR", "")
    (here / ".ctxrc").unlink()
    assert here / "below" / ".context" == context_directory()


def test_a_directory_that_is_missing(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Never another one in silence."""
    (here / ".ctxrc").write_text("context_dir: nowhere\n")
    assert find_context() is None
    with pytest.raises(ProposalError) as failure:
        context_directory()
    advice = "create it, or use --out"
    assert f"context_dir of {here}/.ctxrc is not a directory: {here}/nowhere; {advice}" == str(failure.value)
    monkeypatch.setenv("CTX_DIR", "/nowhere")
    with pytest.raises(ProposalError) as failure:
        context_directory()
    assert f"CTX_DIR is not a directory: /nowhere; {advice}" == str(failure.value)


@pytest.mark.parametrize("value", ["[docs]", "''", "3", "{a: b}", "null", '"a\\0b"'])
def test_a_value_that_is_not_a_path(here: Path, value: str) -> None:
    (here / ".ctxrc").write_text(f"airgap: false\ncontext_dir: {value}\n")
    with pytest.raises(ConfigError) as failure:
        find_context()
    problem = "context_dir: must be the path of a directory, such as docs/context"
    assert f"{here}/.ctxrc:2: {problem}" == str(failure.value)


def test_proposals_are_not_written_to_the_context_itself(here: Path) -> None:
    memory = here / "docs" / "memory"
    with pytest.raises(
        ProposalError,
        match=r"cannot write proposals to the context directory itself: .*; use a subdirectory such as .*/proposals",
    ):
        prepare_directory(memory, context=memory)


def test_a_run_and_its_proposals(tmp_path: Path, serve: object) -> None:
    def answer(prompt: str) -> dict[str, object]:
        return {"decisions": [decision("Keep option 1", "We keep option 1.", 1)]}

    assert callable(serve)
    model: ScriptedModel = serve(answer)
    directory = project(tmp_path, model.url, more="context_dir: memory\n")
    (directory / ".context").rename(directory / "memory")
    (directory / "notes.md").write_text("We keep option 1.\n")
    result = ctx(directory, "ingest", "notes.md", "--extract", "decisions")
    assert (0, directory / "memory" / "proposals") == (result.code, result.proposal.parent), result.err
    assert ["DECISIONS.md:3"] == [row.known_at for row in read_proposal(result.proposal).rows]
    assert {"DECISIONS.md", "TASKS.md", "journal", "proposals"} == {
        path.name for path in (directory / "memory").iterdir()
    }
    assert not (directory / ".context").exists()
    assert result.proposal.stem in ctx(directory, "proposals", "list").out
    failure = ctx(directory, "ingest", "notes.md", "--out", "memory")
    assert (1, True) == (failure.code, "cannot write proposals to the context directory itself" in failure.err)


def test_the_variable_on_the_command_line(tmp_path: Path) -> None:
    write_example(tmp_path / "elsewhere")
    prompt = ctx(tmp_path, "proposals", "list", CTX_DIR=str(tmp_path / "elsewhere" / ".context"))
    assert (0, True) == (prompt.code, "20261123T130500Z-notes" in prompt.out), prompt.err
