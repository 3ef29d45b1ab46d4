"""README.md and docs/: every Python block runs, every `.ctxrc` parses, every help text is the program's own, and every
public name and every key of `.ctxrc` is described."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
from click.testing import CliRunner

import ctxbackends
from ctxbackends import LocalServer
from ctxbackends._cli.root import ctx_group, ctxbackends_group
from ctxbackends._config.reader import parse_ctxrc
from ctxbackends.testing.plugin import llama_server, tiny_model  # noqa: F401  # fixtures; the checkout has no plugin
from tests import server_pages
from tests.pages import BLOCK

ROOT = Path(__file__).parents[2]
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in (ROOT / "docs").rglob("*.md") if not {"_build", "changes"} & {*page.parts}),
]

# What the pages name, and what stands for it here: the addresses are the tiny server's, and the model is its own.
STAND_INS = ("http://localhost:8080", "http://localhost:8081", "http://localhost:8000", "http://gpu:8000")
MODELS = ("qwen3-4b", "qwen3-32b", "qwen3-embedding-0.6b")
# The `.ctxrc` of a project whose programs the pages show.
CTXRC = """
default_backend: local
backends:
  - name: local
    type: llamacpp
    endpoint: http://localhost:8080
    default_model: qwen3-4b
    ready_timeout: 2m
  - name: gpu
    type: vllm
    endpoint: http://gpu:8000
    default_model: qwen3-32b
  - name: cloud
    type: openai
    api_key_env: OPENAI_API_KEY
    default_model: gpt-4o
    timeout: 90s
"""


@attrs.frozen
class Block:
    page: Path
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT).as_posix()}:{self.line}"


def blocks(language: str) -> list[Block]:
    matches = []
    for page in PAGES:
        text = page.read_text()
        for match in BLOCK.finditer(text):
            if match[1] == language:
                matches.append(Block(page, text.count("\n", 0, match.start(2)) + 1, language, match[2]))
    return matches


def is_pytest(block: Block) -> bool:
    return "def test_" in block.text


def is_program(block: Block) -> bool:
    """Whether it is a program whose functions other processes import."""
    return "if __name__ == " in block.text


def is_of_framework(block: Block) -> bool:
    """Whether it needs a framework: the tests of its adapter run it, see tests/integrations/pages.py."""
    return block.page.parent.name == "frameworks" and block.page.name != "index.md"


def is_of_migration(block: Block) -> bool:
    """Whether it needs the client of a vendor: tests/migration.py runs it."""
    return block.page.parent.name == "migrate"


def is_of_server(block: Block) -> bool:
    """Whether it needs a vendor's server: test_docs_servers.py runs it with a stand-in."""
    return block.page.parent.name == "servers" and block.page.stem in server_pages.STAND_INS


def has_own_test(block: Block) -> bool:
    """Whether it is of a page whose programs and outputs test_docs_tutorial.py or test_docs_cookbook.py checks."""
    return block.page.parent.name == "docs" and block.page.name in ("tutorial.md", "cookbook.md")


def run_block(block: Block, project: Callable[[str], str]) -> None:
    if is_of_framework(block):
        Path(".ctxrc").write_text(project(FRAMEWORKS_CTXRC))
    code = "\n" * (block.line - 1) + project(block.text)  # a traceback then names the line of the page
    exec(compile(code, str(block.page), "exec", dont_inherit=True), {"__name__": "__main__"})  # noqa: S102


@pytest.fixture
def project(
    llama_server: LocalServer,  # noqa: F811  # the fixture
    tiny_model: Callable[[str], Path],  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[str], str]:
    """A directory with what the pages take for granted, a `.ctxrc` and a model file; gives their texts, made true."""
    endpoint = asyncio.run(llama_server.start())

    def adapt(text: str) -> str:
        for address in STAND_INS:
            text = text.replace(address, endpoint)
        for model in MODELS:
            text = text.replace(model, llama_server.alias)
        return text

    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{llama_server.alias}.gguf").symlink_to(tiny_model("tiny"))
    (tmp_path / ".ctxrc").write_text(adapt(CTXRC))
    monkeypatch.chdir(tmp_path)
    return adapt


FRAMEWORKS_CTXRC = next(block.text for block in blocks("yaml") if block.page == ROOT / "docs/frameworks/index.md")


@pytest.mark.real
@pytest.mark.parametrize(
    "block",
    [
        block
        for block in blocks("python")
        if not (
            is_pytest(block)
            or is_of_framework(block)
            or is_of_migration(block)
            or is_of_server(block)
            or is_program(block)
            or has_own_test(block)
        )
    ],
    ids=str,
)
def test_python_runs(block: Block, project: Callable[[str], str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("NOTSET", logger="ctxbackends")  # restored after a page that sets it
    run_block(block, project)


@pytest.mark.real
@pytest.mark.parametrize(
    "block", [block for block in blocks("python") if is_program(block) and not has_own_test(block)], ids=str
)
def test_programs_run(block: Block, project: Callable[[str], str]) -> None:
    Path("program.py").write_text(project(block.text))
    done = subprocess.run(
        [sys.executable, "-W", "error", "program.py"],
        env={**os.environ, "PYTHONPATH": str(Path(ctxbackends.__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert (0, "") == (done.returncode, done.stderr)
    assert done.stdout


@pytest.mark.full
@pytest.mark.real
@pytest.mark.parametrize(
    "block", [block for block in blocks("python") if is_pytest(block) and not has_own_test(block)], ids=str
)
def test_tests_pass(block: Block, tmp_path: Path) -> None:
    (tmp_path / "test_page.py").write_text(block.text)
    (tmp_path / "pytest.ini").write_text("[pytest]\nasyncio_mode = auto\n")
    plugins = ["-p", "ctxbackends.testing.plugin", "-p", "pytest_asyncio.plugin"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *plugins, "test_page.py"],
        cwd=tmp_path,
        env={
            **os.environ,
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",  # the same plugins, installed or not
            "PYTHONPATH": str(Path(ctxbackends.__file__).parents[1]),
        },
        capture_output=True,
        text=True,
    )
    assert 0 == done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("block", blocks("yaml"), ids=str)
def test_ctxrc_parses(block: Block) -> None:
    config = parse_ctxrc(block.text, path=str(block.page))
    assert config.backends or config.redact


HELP = re.compile(r"\$ (ctx|ctxbackends)((?: \w+)*) --help\n(.*)", re.DOTALL)


@pytest.mark.parametrize("block", [block for block in blocks("console") if HELP.match(block.text)], ids=str)
def test_help_is_the_programs_own(block: Block, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(block.page))  # no other ctx is there
    match = HELP.match(block.text)
    assert match is not None
    group = ctx_group if match[1] == "ctx" else ctxbackends_group
    help_result = CliRunner().invoke(group, [*match[2].split(), "--help"], prog_name=match[1], terminal_width=78)
    assert help_result.output == match[3]
