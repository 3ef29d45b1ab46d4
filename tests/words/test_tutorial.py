"""docs/tutorial.md with SmolLM2: each command runs, and what must be true of the outputs on the page is."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import attrs
import pytest

import ctxbackends
from tests.integrations.services import free_port
from tests.tutorial import outputs_of, questions_in, sessions, write_files

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]


@attrs.frozen
class Terminal:
    """A terminal of the reader.

    Attributes:
        directory: The working directory.
        port: The port of the server, instead of 8080.
        environment: The environment variables.
    """

    directory: Path
    port: int
    environment: dict[str, str]

    def arguments(self, command: str) -> list[str]:
        """Return the arguments of a command of the page."""
        program, *options = shlex.split(command)
        if program == "ctxbackends":
            if options[0] == "setup":
                options += ["--endpoint", f"http://localhost:{self.port}"]
            return [sys.executable, "-m", "ctxbackends", *options]
        return [sys.executable, *options]

    def run(self, command: str, *lines: str) -> str:
        """Run a command of the page, and return its standard output."""
        result = subprocess.run(
            self.arguments(command),
            cwd=self.directory,
            env=self.environment,
            input="".join(f"{line}\n" for line in lines),
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert 0 == result.returncode, result.stderr
        return result.stdout


@pytest.fixture
def terminal(cache: Path, tmp_path: Path) -> Iterator[Terminal]:
    """A terminal with the files of the page, and the server of the page in another one."""
    write_files(tmp_path)
    environment = {**os.environ, "PYTHONPATH": str(Path(ctxbackends.__file__).parents[1])}
    terminal = Terminal(tmp_path, free_port(), environment)
    command = [*terminal.arguments("ctxbackends serve smollm2"), "--port", str(terminal.port), "--threads", "1"]
    with subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=-1, stderr=-2, text=True) as server:
        assert server.stdout is not None
        try:
            for line in server.stdout:
                if match := re.match(r"export (CTX_SERVE_KEY)=(\S+)", line):
                    environment[match[1]] = match[2]
                    break
            yield terminal
        finally:
            server.kill()


def test_the_page(terminal: Terminal) -> None:
    chat, setup = (
        next(command for command, _ in sessions() if command.startswith(start))
        for start in ("ctxbackends chat", "ctxbackends setup --backend llamacpp")
    )
    assert [terminal.run(chat)] == outputs_of(chat)
    terminal.run(setup)
    [ping] = outputs_of("ctxbackends ping")
    assert ping.replace("8080", str(terminal.port)) == terminal.run("ctxbackends ping")
    assert [terminal.run("python ask.py")] == outputs_of("python ask.py")
    dialogue = outputs_of("python chat.py")[0]
    answers = terminal.run("python chat.py", *questions_in(dialogue))
    assert "The capital of France is Paris.\n> The capital of Italy is Rome.\n> " in answers
    assert "get_weather" not in answers  # as the page says: its template has no tools
    weather = terminal.run("python weather.py")
    assert "Lisbon" in weather
    assert "sunny" in weather
