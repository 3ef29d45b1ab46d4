"""docs/servers/compatible.md: the entry for a vendor without a preset, its commands and its program are the same."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import ctxbackends
from ctxbackends import BackendConfig, open_backend
from ctxbackends._cli.root import ctxbackends_group
from ctxbackends._config.reader import parse_ctxrc
from ctxbackends.testing import OpenAIStandIn
from tests.integrations.stand_in_threads import serve
from tests.pages import code_blocks, read_sections
from tests.server_pages import KEY

SECTION = read_sections("servers/compatible")["A vendor without a preset"]


def block(language: str) -> str:
    (text,) = code_blocks(SECTION, language)
    return text


def entry() -> BackendConfig:
    return parse_ctxrc(block("yaml"), path=".ctxrc").backends[0]


def test_the_commands_write_the_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for line in block("console").replace("\\\n", "").splitlines():
        program, *arguments = shlex.split(line.removeprefix("$ "))
        assert "ctxbackends" == program
        done = CliRunner().invoke(ctxbackends_group, arguments)
        assert 0 == done.exit_code, done.output
    assert (entry(),) == parse_ctxrc(Path(".ctxrc").read_text("utf-8"), path=".ctxrc").backends


def test_the_program_has_the_entry_and_runs(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ACME_KEY", KEY)
    configs: list[BackendConfig] = []
    with serve(OpenAIStandIn(api_key=KEY, models=["acme-large"])) as stand_in:

        def open_stand_in(type_: str, **settings: Any) -> Any:
            configs.append(BackendConfig(type=type_, **settings))
            return open_backend(type_, **{**settings, "endpoint": stand_in.url})

        monkeypatch.setattr(ctxbackends, "open_backend", open_stand_in)
        exec(compile(block("python"), "compatible.md", "exec", dont_inherit=True), {"__name__": "__main__"})  # noqa: S102
    assert [entry()] == configs
    (request,) = [request for request in stand_in.requests if request.method == "POST"]
    assert ("blue", 200) == (request.headers["x-acme-team"], request.json["max_completion_tokens"])
    assert "max_tokens" not in request.json
    reason, answer = capsys.readouterr().out.splitlines()[:2]
    assert f'print(backend.refusal("seed"))  # {reason}\n' in block("python")
    assert answer
