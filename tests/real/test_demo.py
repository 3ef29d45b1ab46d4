"""The demo, as ``nox -s demo`` runs it: on the embedded server, on a model file, and on a server that runs already."""

from __future__ import annotations

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


def test_the_demo_without_arguments() -> None:
    result = demo()
    assert (0, True) == (result.returncode, "waiting for" in result.stderr)
    for expected in (
        "A model with random weights",
        "ready at http://127.0.0.1:",
        "random (8192 tokens of context)",
        "finish_reason",
        "answered by random",
        "Decision(title=",
        "The words are noise, because the weights are random",
        "ctxbackends serve path/to/model.gguf",
    ):
        assert expected in result.stdout


def test_a_model_of_the_user(model: Callable[[str], Path]) -> None:
    path = model("tiny")
    result = demo(str(path))
    assert 0 == result.returncode
    assert f"answered by {path.name.removesuffix('.gguf')}" in result.stdout
    assert "The words are noise" not in result.stdout


async def test_a_server_of_the_user(server: LocalServer) -> None:
    result = demo("--endpoint", await server.start(), "--type", "llamacpp")
    assert 0 == result.returncode
    assert "answered by tiny" in result.stdout


def test_a_missing_file(tmp_path: Path) -> None:
    path = tmp_path / "none.gguf"
    result = demo(str(path))
    assert (1, f"demo: model_path: {path}: no such file\n") == (result.returncode, result.stderr)
