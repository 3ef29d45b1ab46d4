"""The first line on the terminal: before the modules of a command are imported, and erased before anything else."""
# ruff: noqa: F811  # fixtures are imported

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from ctxbackends._cli import commands, live_line
from ctxbackends._cli.live_line import COMMANDS, FIRST_TEXT, LINE
from tests.terminals import Screen, Terminal, terminal
from tests.unit.test_cli import (
    WITHIN,
    Script,
    _alone,  # noqa: F401  # a fixture
    backend,
    ctxrc,
    environment,
    script,  # noqa: F401  # a fixture
    without_coverage,
)
from tests.unit.test_cli_interrupts import INTERRUPTED_IMPORT

FIRST = f"\r{FIRST_TEXT}\x1b[J\r"
ERASE = "\r\x1b[J"

ARGUMENTS = {
    "batch": ["rows.jsonl", "-o", "out.jsonl"],
    "chat": ["--raw", "Hi"],
    "compact": ["session.jsonl"],
    "count": ["Hi"],
    "doctor": [],
    "embed": ["Hi"],
    "extract": [],
    "ingest": ["notes.md"],
    "load": [],
    "models": [],
    "ping": [],
    "pull": ["nothing"],
    "serve": ["nothing.gguf"],
    "status": [],
    "unload": [],
}


def shown(at: Terminal) -> list[str]:
    """The lines that are left on the screen."""
    screen = Screen(80)
    screen.feed(at.raw)
    return screen.lines


def test_each_command_exists() -> None:
    assert COMMANDS == ARGUMENTS.keys()
    assert COMMANDS < {*commands.VERBS, *commands.TOP_LEVEL}


@pytest.mark.posix
@pytest.mark.parametrize(
    "command",
    [
        pytest.param(name, marks=() if name in ("chat", "ingest", "status") else pytest.mark.full)
        for name in sorted(COMMANDS)
    ],
)
def test_the_first_line_of_a_command(script: Script, command: str) -> None:
    ctxrc(backend(script.endpoint))
    Path("notes.md").write_text("We use YAML.\n", encoding="utf-8")
    with terminal(command, *ARGUMENTS[command]) as at:
        at.end()
    assert at.raw.startswith(FIRST)
    lines = shown(at)
    assert lines
    assert not any(line.startswith(FIRST_TEXT) for line in lines)
    assert not any("waiting for" in line or "asking" in line for line in lines)


@pytest.mark.posix
@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["chat", "--no-such-option"], "No such option"),
        (["chat", "Hi", "there"], "more than one prompt"),
        (["chat", "--schema", "{", "Hi"], "--schema"),
        (["--debug", "embed", "--lines", "nothing.txt"], "nothing.txt"),
        (["status", "--backend", "nowhere"], "nowhere"),
    ],
)
def test_an_error_is_shown_alone(script: Script, arguments: list[str], expected: str) -> None:
    ctxrc(backend(script.endpoint))
    with terminal(*arguments) as at:
        assert at.end() in (1, 2)
    first, _, rest = at.raw.partition(ERASE)
    assert first.startswith(FIRST.removesuffix(ERASE))
    assert expected in rest
    assert FIRST_TEXT not in " ".join(shown(at))


@pytest.mark.posix
@pytest.mark.parametrize("arguments", [["chat", "Hi"], ["ai", "chat", "Hi"], ["ingest", "notes.md"]])
def test_the_first_line_of_ctx(script: Script, arguments: list[str]) -> None:
    ctxrc(backend(script.endpoint))
    code = "import sys; sys.argv[0] = 'ctx'; from ctxbackends._cli import ctx; ctx()"
    with terminal(*arguments, program=("-c", code), PATH="") as at:
        at.end()
    assert (arguments[0] != "chat") == at.raw.startswith(FIRST)  # `ctx chat` would be a command of another program


@pytest.mark.posix
@pytest.mark.parametrize(
    ("arguments", "variables"),
    [
        (["chat", "--quiet", "--raw", "Hi"], {}),
        (["chat", "-q", "--raw", "Hi"], {}),
        (["chat", "-cq", "Hi"], {}),
        (["chat", "--help"], {}),
        (["embed", "-h"], {}),
        (["--version"], {}),
        (["--help"], {}),
        (["chat", "Hi"], {"TERM": "dumb"}),
        (["chat", "Hi"], {"TERM": ""}),
        (["chat", "Hi"], {"TERM": "unknown"}),
        (["config", "list"], {}),
        (["logs", "path"], {}),
    ],
)
def test_nothing_is_drawn(script: Script, arguments: list[str], variables: dict[str, str]) -> None:
    ctxrc(backend(script.endpoint))
    with terminal(*arguments, **variables) as at:
        at.end()
    assert at.raw
    assert f"\r{FIRST_TEXT}" not in at.raw
    assert "\x1b[J" not in at.raw


@pytest.mark.posix
def test_without_colours(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    with terminal("chat", "--raw", "Hi", NO_COLOR="1") as at:
        assert 0 == at.end()
    assert at.raw.startswith(FIRST)
    assert ["Héllo"] == shown(at)


@pytest.mark.posix
def test_the_line_is_drawn_before_click_is_imported(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    code = (
        "import sys\n"
        "class Finder:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name == 'click':\n"
        "            sys.stderr.write('click')\n"
        "sys.meta_path.insert(0, Finder())\n"
        "from ctxbackends._cli import ctxbackends\n"
        "ctxbackends()"
    )
    with terminal("chat", "Hi", program=("-c", code)) as at:
        at.end()
    assert at.raw.startswith(f"{FIRST}click")


@pytest.mark.posix
@pytest.mark.parametrize(
    "module", ["click", "ctxbackends._cli.chat.command", "ctxbackends._cli.chat.answer", "aiohttp"]
)
def test_an_interrupted_import_leaves_no_line(script: Script, module: str) -> None:
    ctxrc(backend(script.endpoint))
    with terminal(module, "chat", "Hi", program=("-c", INTERRUPTED_IMPORT)) as at:
        assert 130 == at.end()
    assert at.raw.startswith(FIRST)
    assert ["", "interrupted"] == shown(at)


@pytest.mark.posix
def test_a_pipe_is_read_first(script: Script) -> None:
    """The program that writes into it may use the terminal."""
    ctxrc(backend(script.endpoint))
    code = "import os, sys; from ctxbackends._cli import ctxbackends\nread, write = os.pipe(); os.dup2(read, 0)\n"
    code += "os.write(write, b'Hi'); os.close(write); print('other', file=sys.stderr); ctxbackends()"
    with terminal("chat", "--raw", program=("-c", code)) as at:
        assert 0 == at.end()
    before, drawn, after = at.raw.partition(FIRST)
    assert ("other\r\n", FIRST) == (before, drawn)
    assert after.startswith("\rwaiting for the answer")
    assert ["other", "Héllo"] == shown(at)


@pytest.mark.posix
def test_a_prompt_that_is_typed(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    with terminal("chat", "--raw", "-") as at:
        at.type("Hello\n\x04")
        assert 0 == at.end()
    assert at.raw.startswith("Hello\r\n")
    assert "Hello\n" == script.chat_body["messages"][0]["content"]


@pytest.mark.posix
def test_standard_error_in_a_file(script: Script, tmp_path: Path) -> None:
    ctxrc(backend(script.endpoint))
    errors = tmp_path / "errors.txt"
    with terminal("chat", "--raw", "Hi", stderr=errors) as at:
        assert 0 == at.end()
    assert "Héllo\r\n" == at.raw
    assert "" == errors.read_text(encoding="utf-8")


@pytest.mark.posix
def test_standard_output_in_a_file(script: Script, tmp_path: Path) -> None:
    ctxrc(backend(script.endpoint))
    output = tmp_path / "output.txt"
    with terminal("chat", "Hi", stdout=output) as at:
        assert 0 == at.end()
    assert at.raw.startswith(FIRST)
    assert [] == shown(at)
    assert "Héllo\n" == output.read_text(encoding="utf-8")


def test_the_line_needs_no_module() -> None:
    code = (
        "import sys; before = {*sys.modules}\n"
        "import ctxbackends._cli.live_line\n"
        "print(*sorted({*sys.modules} - before - {'__future__'}))"
    )
    result = subprocess.run(
        [sys.executable, "-S", "-c", code],
        env=without_coverage(environment()),
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=True,
    )
    names = [name for name in result.stdout.split() if not name.startswith("ctxbackends")]
    assert not {"typing", "re", "enum", "click", "contextlib"} & {*names}


def test_the_line_is_erased_once(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(live_line, "window_size", lambda _: (6, 24))
    with LINE, LINE:
        LINE.erase()
        LINE.show("starting")
    LINE.erase()
    assert f"\rstart\x1b[J\r{ERASE}" == capsys.readouterr().err
