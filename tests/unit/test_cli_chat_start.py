"""The start of chat: what it imports, and the first line on the terminal."""
# ruff: noqa: F811  # fixtures are imported

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.paced_server import paced_server
from tests.terminals import terminal
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


def imports(code: str, *modules: str) -> list[str]:
    """Those of ``modules`` that a program has imported at its end."""
    loaded = f"sorted({{*{modules!r}}} & sys.modules.keys())"
    end = f"import atexit, sys; atexit.register(lambda: print({loaded}, file=sys.stderr))"
    result = subprocess.run(
        [sys.executable, "-c", f"{end}\n{code}"],
        env=without_coverage(environment()),
        input="Hi",
        capture_output=True,
        text=True,
        timeout=WITHIN,
        check=True,
    )
    return [name.strip("'") for name in result.stderr.strip().splitlines()[-1].strip("[]").split(", ") if name]


def test_the_options_are_read_before_the_heavy_modules_are_loaded() -> None:
    heavy = ("asyncio", "attr", "msgspec", "aiohttp", "tenacity", "rich", "prompt_toolkit", "sqlite3")
    assert [] == imports("import ctxbackends._cli.chat.command", *heavy)


def test_an_answer_in_a_pipe_needs_no_terminal_and_no_log(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    code = "sys.argv = ['ctxbackends', 'chat']\nfrom ctxbackends._cli import ctxbackends\nctxbackends()"
    absent = ("rich", "markdown_it", "pygments", "prompt_toolkit", "sqlite3")
    assert ["aiohttp"] == imports(code, "aiohttp", *absent)
    assert "Hi" == script.chat_body["messages"][0]["content"]


@pytest.mark.posix
def test_the_first_line_is_seen_before_the_answer(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    script.silent = True
    with terminal("chat", "Hi") as at:
        first = at.read_until("starting")
        assert [] == script.requests
        at.read_until("waiting for the answer", after=first)
        at.type("\x03")
        assert 130 == at.end()
        assert at.raw.endswith("interrupted\r\n")


@pytest.mark.posix
@pytest.mark.parametrize("arguments", [["-o", "temprature=1"], ["-f", "nothere.txt"], ["--tool", "nothere:f", "--yes"]])
def test_the_first_line_is_erased_before_an_error(script: Script, arguments: list[str]) -> None:
    ctxrc(backend(script.endpoint))
    with terminal("chat", *arguments, "Hi") as at:
        assert at.end() in (1, 2)
        before, erased, after = at.raw.rpartition("\r\x1b[J")
    assert "starting" in before
    assert erased
    assert "starting" not in after
    assert "temprature" in after or "nothere" in after


@pytest.mark.posix
@pytest.mark.parametrize("option", [["--schema", "name,"], ["--json"]])
def test_the_progress_of_an_answer_that_is_printed_when_it_is_whole(option: list[str], tmp_path: Path) -> None:
    output = tmp_path / "output.json"
    with (
        paced_server() as server,
        terminal("chat", "--endpoint", server.url, "--model", "tiny", *option, "Hi", stdout=output) as at,
    ):
        reply = server.next_reply()
        reply.send('{"name": ')
        at.read_until("receiving the answer (9 characters), ")
        reply.send('"Maria"')
        at.read_until("receiving the answer (16 characters), ")
        reply.finish("}")
        assert 0 == at.end()
        assert at.raw.endswith("\r\x1b[J")
    value = json.loads(output.read_text(encoding="utf-8"))
    assert {"name": "Maria"} == (value if "--schema" in option else json.loads(value["text"]))


@pytest.mark.posix
def test_quiet_shows_nothing(script: Script) -> None:
    ctxrc(backend(script.endpoint))
    with terminal("chat", "--quiet", "--raw", "Hi") as at:
        assert 0 == at.end()
        assert "Héllo\r\n" == at.raw


@pytest.mark.posix
@pytest.mark.parametrize("columns", [20, 40, 120])
def test_the_statistics_break_between_words(script: Script, columns: int) -> None:
    ctxrc(backend(script.endpoint))
    with terminal("chat", "--raw", "--stats", "Hi", columns=columns) as at:
        assert 0 == at.end()
    lines = at.raw.partition("Héllo\r\n")[2].splitlines()
    assert all(len(line) <= columns for line in lines)
    assert "3 tokens in, 2 out, first token after" in " ".join(lines)
