"""Completion of the command line, in this process and in real shells on a pseudo-terminal."""

from __future__ import annotations

import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import pytest

import ctxbackends
from ctxbackends._cli import commands
from ctxbackends._cli.completion import SCRIPTS
from tests.unit.test_cli import Result, ctx, without_coverage

with suppress(ImportError):  # not on Windows
    import pty

WITHIN = 60.0
CTXRC = """\
default_backend: local
backends:
  - name: local
    type: llamacpp
    default_model: llama3:8b
  - name: my box
    type: vllm
    default_model: qwen3-4b
  - name: cloud
    type: openai
"""


@pytest.fixture(autouse=True)
def _project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CTXBACKENDS_CACHE_DIR", str(tmp_path / "cache"))
    Path(".ctxrc").write_text(CTXRC, encoding="utf-8")


def complete(monkeypatch: pytest.MonkeyPatch, line: str, *, answer_for: str = "zsh", **variables: str) -> list[str]:
    """The texts that complete ``line`` at its end; ``file`` and ``dir`` for names of files."""
    monkeypatch.setenv("_CTXBACKENDS_COMPLETE", f"{answer_for}_complete")
    monkeypatch.setenv("COMP_LINE", f"ctxbackends {line}")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    result = ctx()
    assert (0, "") == (result.code, result.err)
    rows = [row.split("\t") for row in result.out.splitlines()]
    return [text if kind == "plain" else kind for kind, text, _ in rows]


TOP = ["default_backend", "airgap", "context_dir", "privacy.redact"]


@pytest.mark.parametrize(
    ("line", "texts"),
    [
        ("", [*commands.VERBS, *commands.TOP_LEVEL]),
        ("comp", ["completion", "compact"]),
        ("--ver", ["--version"]),
        ("nothing", []),
        ("config s", ["set", "show"]),
        ("completion ", ["bash", "zsh", "fish"]),
        ("ping --backend ", ["local", "my box", "cloud"]),
        ("ping -b l", ["local"]),
        ("ping --backend=l", ["--backend=local"]),
        ("ping -b 'my ", ["my box"]),
        ("ping -b my\\ b", ["my box"]),
        ("ping --endpoint http://h -b op", ["openai", "openai-compatible", "openrouter"]),
        ("chat --sys", ["--system"]),
        ("chat -m ", ["llama3:8b", "qwen3-4b"]),
        ("chat -b 'my box' --model=", ["--model=qwen3-4b"]),
        ("load llama3:", ["llama3:8b"]),
        ("chat -f ", ["file"]),
        ("ingest a.md ", ["file"]),
        ("serve mod", ["file"]),
        ("setup --backend lm", ["lmstudio"]),
        ("config show c", ["cloud"]),
        ("config default ", ["local", "my box", "cloud"]),
        ("config remove c", ["cloud", "cloud.", "context_dir"]),
        ("config set ", ["local.", "my box.", "cloud.", *TOP]),
        ("config set cloud.time", ["cloud.timeout"]),
        ("config set default_backend c", ["cloud"]),
        ("config set airgap ", ["true", "false"]),
        ("config set cloud.trust_env f", ["false"]),
        ("config set cloud.model_mismatch ", ["error", "warn", "ignore"]),
        ("config set cloud.type vl", ["vllm"]),
        ("config set local.model_path mo", ["file"]),
        ("config set cloud.timeout ", []),
    ],
)
def test_what_completes(monkeypatch: pytest.MonkeyPatch, line: str, texts: list[str]) -> None:
    def connect(*_: object) -> None:
        raise AssertionError("completion opens no socket")

    monkeypatch.setattr(socket.socket, "connect", connect)
    assert texts == complete(monkeypatch, line)


def test_cached_models_complete_serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "cache" / "models").mkdir(parents=True)
    (tmp_path / "cache" / "models" / "mine.gguf").touch()
    assert ["mine", "file"] == complete(monkeypatch, "serve mi")
    assert "smollm2" in complete(monkeypatch, "pull ")


@pytest.mark.parametrize(
    ("line", "word", "texts"),
    [
        ("chat -m llama3:", "llama3:", ["8b"]),  # bash replaces what follows the colon
        ("chat -m 'llama3:", "'llama3:", ["llama3:8b"]),
        ("chat --backend=lo", "lo", ["local"]),
        ("chat --backend my", "my", ["my\\ box"]),
        ("chat --backend 'my", "'my", ["my box"]),
    ],
)
def test_words_of_bash(monkeypatch: pytest.MonkeyPatch, line: str, word: str, texts: list[str]) -> None:
    variables = {"COMP_WORD": word, "COMP_WORDBREAKS": " \t\n\"'><=;|&(:"}
    assert texts == complete(monkeypatch, line, answer_for="bash", **variables)


def test_bash_without_the_colon_among_its_word_breaks(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = complete(monkeypatch, "chat -m llama3:", answer_for="bash", COMP_WORD="llama3:", COMP_WORDBREAKS=" =")
    assert ["llama3:8b"] == texts


@pytest.mark.parametrize(
    "content", [b"backends: [", b"\xff", b"a: &x *x", None], ids=["not YAML", "not UTF-8", "alias", "directory"]
)
@pytest.mark.parametrize("line", ["ping -b ", "chat -m ", "config set ", "config set airgap "])
def test_a_broken_file_prints_nothing(monkeypatch: pytest.MonkeyPatch, content: bytes | None, line: str) -> None:
    Path(".ctxrc").unlink()
    if content is None:
        Path(".ctxrc").mkdir()
    else:
        Path(".ctxrc").write_bytes(content)
    monkeypatch.setenv("_CTXBACKENDS_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_LINE", f"ctxbackends {line}")
    result = ctx()
    assert "" == result.err
    assert result.out in ("", "plain\ttrue\t\nplain\tfalse\t\n")


def test_an_invalid_file_still_completes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is being written: one wrong value must not turn everything off."""
    Path(".ctxrc").write_text("backends:\n- name: gpu\n  timeout: soon\n- 3\n", encoding="utf-8")
    assert ["gpu"] == complete(monkeypatch, "ping -b ")


def test_without_a_file_the_types_complete(monkeypatch: pytest.MonkeyPatch) -> None:
    Path(".ctxrc").unlink()
    assert "ollama" in complete(monkeypatch, "ping -b ")
    assert [] == complete(monkeypatch, "chat -m ")
    assert [] == complete(monkeypatch, "config show ")


@pytest.mark.parametrize("shell", list(SCRIPTS))
def test_the_script(monkeypatch: pytest.MonkeyPatch, shell: str) -> None:
    assert Result(0, SCRIPTS[shell], "") == ctx("completion", shell)
    monkeypatch.setenv("_CTXBACKENDS_COMPLETE", f"{shell}_source")
    assert Result(0, SCRIPTS[shell], "") == ctx()


@pytest.mark.parametrize("instruction", ["", "nushell_complete", "bash_run"])
def test_an_unknown_instruction_prints_nothing(monkeypatch: pytest.MonkeyPatch, instruction: str) -> None:
    monkeypatch.setenv("_CTXBACKENDS_COMPLETE", instruction)
    assert Result(1, "", "") == ctx()


def test_an_unknown_shell() -> None:
    result = ctx("completion", "tcsh")
    assert 2 == result.code
    assert "'tcsh' is not one of 'bash', 'zsh', 'fish'" in result.err


def test_a_programming_error_prints_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> Any:
        raise RuntimeError

    monkeypatch.setattr(click.Command, "shell_complete", fail)
    monkeypatch.setenv("_CTXBACKENDS_COMPLETE", "zsh_complete")
    monkeypatch.setenv("COMP_LINE", "ctxbackends p")
    assert Result(1, "", "") == ctx()


def test_completion_imports_no_heavy_package() -> None:
    code = (
        "import sys; sys.argv = ['ctxbackends']\n"
        "from ctxbackends._cli import ctxbackends\n"
        "try: ctxbackends()\n"
        "except SystemExit: pass\n"
        "print(sorted({'aiohttp', 'rich', 'tenacity', 'prompt_toolkit', 'sqlite3'} & sys.modules.keys()))"
    )
    for line in ("ch", "chat -b ", "chat -m ", "config show "):
        environment = {**_environment(), "_CTXBACKENDS_COMPLETE": "zsh_complete", "COMP_LINE": f"ctxbackends {line}"}
        command = [sys.executable, "-c", code]
        variables = without_coverage(environment)
        result = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=WITHIN, check=True)
        assert result.stdout.endswith("[]\n"), (line, result.stdout)
        assert "plain\t" in result.stdout


# --- real shells ------------------------------------------------------------------------------------


def _environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(Path(ctxbackends.__file__).parent.parent)}


class Shell:
    """An interactive shell on a pseudo-terminal. ``ctxbackends`` in it completes, or else records its arguments."""

    output: str
    _pid: int
    _terminal: int
    START: Mapping[str, list[str]] = {
        "bash": ["bash", "--norc", "--noprofile", "-i"],
        "zsh": ["zsh", "-f", "-i"],
        "fish": ["fish", "--no-config", "--interactive"],
    }
    LOAD: Mapping[str, str] = {
        "bash": 'eval "$(ctxbackends completion bash)"',
        "zsh": 'eval "$(ctxbackends completion zsh)"',
        "fish": "ctxbackends completion fish | source",
    }

    def __init__(self, name: str, directory: Path) -> None:
        self._arguments = directory / "arguments"
        programs = directory / "bin"
        programs.mkdir()
        program = programs / "ctxbackends"
        program.write_text(
            "#!/bin/sh\n"
            f'if [ -n "$_CTXBACKENDS_COMPLETE" ] || [ "$1" = completion ]; then\n'
            f'  exec "{sys.executable}" -m ctxbackends "$@"\n'
            "fi\n"
            f"printf '<%s>' \"$@\" > '{self._arguments}.new'\n"
            f"mv '{self._arguments}.new' '{self._arguments}'\n"
        )
        program.chmod(0o755)
        home = directory / "home"
        home.mkdir()
        environment = {
            **_environment(),
            "PATH": f"{programs}:{os.environ['PATH']}",
            "HOME": str(home),
            "TERM": "xterm",
            "PS1": "> ",
            "XDG_CONFIG_HOME": str(home),
            "XDG_DATA_HOME": str(home),
            "HISTFILE": "",
            "LC_ALL": "C.UTF-8",
        }
        if sys.platform == "win32":
            raise NotImplementedError
        self._pid, self._terminal = pty.fork()
        if self._pid == 0:
            os.execvpe(self.START[name][0], self.START[name], environment)  # noqa: S606  # the shell under test
        self.output = ""
        self.type(f"{self.LOAD[name]}\r")
        self.type("ctxbackends is ready\r")
        assert "<is><ready>" == self.arguments()

    def type(self, text: str) -> None:
        os.write(self._terminal, text.encode())

    def read(self, seconds: float) -> None:
        if select.select([self._terminal], [], [], seconds)[0]:
            text = os.read(self._terminal, 65536).decode(errors="replace")
            self.output += text
            if "\x1b[c" in text or "\x1b[0c" in text:  # fish asks what the terminal is
                self.type("\x1b[?62c")

    def arguments(self) -> str:
        """The arguments of the program that was run with Enter."""
        deadline = time.monotonic() + WITHIN
        while not self._arguments.exists():
            assert time.monotonic() < deadline, self.output
            self.read(0.05)
        text = self._arguments.read_text()
        self._arguments.unlink()
        return text

    def wait_for(self, text: str) -> None:
        deadline = time.monotonic() + WITHIN
        while text not in self.output:
            assert time.monotonic() < deadline, self.output
            self.read(0.05)

    def close(self) -> None:
        os.close(self._terminal)
        os.waitpid(self._pid, 0)


@pytest.fixture(params=list(SCRIPTS))
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Shell]:
    if sys.platform == "win32" or shutil.which(request.param) is None:
        pytest.skip(f"{request.param} is not installed")
    shell = Shell(request.param, tmp_path)
    try:
        yield shell
    finally:
        shell.close()


@pytest.mark.posix
@pytest.mark.slow
def test_in_a_shell(shell: Shell) -> None:
    Path("notes.md").touch()
    Path("other.md").touch()
    for line, expected in {
        "ctxbackends stat\t": "<status>",
        "ctxbackends config sho\tlo\t": "<config><show><local>",
        "ctxbackends chat --backend clo\t": "<chat><--backend><cloud>",
        "ctxbackends chat --backend=clo\t": "<chat><--backend=cloud>",
        "ctxbackends chat -b my\t": "<chat><-b><my box>",
        "ctxbackends chat -m llama3:\t": "<chat><-m><llama3:8b>",
        "ctxbackends chat --model=llama3:\t": "<chat><--model=llama3:8b>",
        "ctxbackends chat -f not\t": "<chat><-f><notes.md>",
        "ctxbackends setup --backend openr\t": "<setup><--backend><openrouter>",
    }.items():
        shell.type(f"{line}\r")
        assert expected == shell.arguments(), shell.output


@pytest.mark.posix
@pytest.mark.slow
def test_a_list_in_a_shell(shell: Shell) -> None:
    shell.type("ctxbackends chat --backend \t\t")
    for name in ("local", "cloud"):
        shell.wait_for(name)


@pytest.mark.posix
@pytest.mark.slow
def test_a_broken_file_in_a_shell(shell: Shell) -> None:
    Path(".ctxrc").write_text("backends: [", encoding="utf-8")
    shell.type("ctxbackends chat --backend lo\t\r")
    assert "<chat><--backend><lo>" == shell.arguments()
    assert "Traceback" not in shell.output
    assert "YAML" not in shell.output
