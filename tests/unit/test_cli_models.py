"""The commands pull and models --local, and the names of models in serve and --model-path."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ctxbackends.local import _models as models
from ctxbackends.local._download import _find_uv
from tests.unit.model_index import MODEL, NAME, ModelIndex, serve_index, use_index
from tests.unit.test_cli import Result, ctx, free_port

pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")  # of a handler that waits for a client


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory of the cached models, in an empty working directory."""
    monkeypatch.setenv("CTXBACKENDS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "cache" / "models"


@pytest.fixture
def index(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ModelIndex]:
    """An index on loopback whose model is the known one, where a llama.cpp server is installed."""
    with serve_index(tmp_path) as served:
        use_index(monkeypatch, served.url)
        monkeypatch.setattr(models, "KNOWN_MODELS", (served.row,))
        monkeypatch.setattr(models, "has_server", lambda: True)
        if _find_uv() is not None:  # pip takes seconds to start
            find_spec = importlib.util.find_spec
            monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else find_spec(name))
        yield served


def test_pull(index: ModelIndex, cache: Path) -> None:
    path = cache / "small.gguf"
    first = ctx("pull", NAME)
    assert (0, "") == (first.code, first.out)
    assert MODEL == path.read_bytes()
    lines = first.err.splitlines()
    assert lines[0] == "downloading small (0% of 300 kB)"
    expected = [
        f"small (300 kB, Apache-2.0) was downloaded to {path}",
        f"try: ctxbackends chat --model-path small {models.CHAT_ARGUMENTS}",
    ]
    assert expected == lines[-2:]
    again = ctx("pull", NAME)
    assert [f"small (300 kB, Apache-2.0) is already at {path}", expected[1]] == again.err.splitlines()
    report = {"name": "small", "path": str(path), "size": len(MODEL), "license": "Apache-2.0"}
    assert report == json.loads(ctx("pull", NAME, "--json").out)


def test_pull_without_a_server(index: ModelIndex, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(models, "has_server", lambda: False)
    assert f"to serve it, run: {models.install_command()}" in ctx("pull", NAME).err.splitlines()


def test_pull_an_unknown_model(index: ModelIndex, cache: Path) -> None:
    problem = "ctxbackends: unknown model: smal; did you mean small?\n"
    assert Result(1, "", problem) == ctx("pull", "smal")
    assert not cache.exists()


def test_pull_with_an_airgap(index: ModelIndex, cache: Path, tmp_path: Path) -> None:
    (tmp_path / ".ctxrc").write_text("airgap: true\n")
    result = ctx("pull", NAME)
    assert (1, "", 1) == (result.code, result.out, len(result.err.splitlines()))
    assert result.err.startswith("ctxbackends: cannot download small: airgap is on in ")
    assert (0, False) == (index.downloads, cache.exists())


def test_pull_that_fails(index: ModelIndex, cache: Path) -> None:
    index.sent = 1000
    result = ctx("pull", NAME)
    assert (1, "") == (result.code, result.out)
    assert "ctxbackends: cannot download small: " in result.err
    assert [] == list(cache.iterdir())


@pytest.mark.posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_pull_that_is_ended(index: ModelIndex, cache: Path, number: signal.Signals) -> None:
    index.sent, index.stalls = 100_000, True
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # the shell of a test in the background ignores it
        "from ctxbackends._cli.root import run\n"
        "from ctxbackends.local import _models\n"
        "from ctxbackends.local._known_models import KnownModel\n"
        f"_models.KNOWN_MODELS = ({index.row!r},)\n"
        f"sys.argv[1:] = ['pull', '{NAME}']\n"
        "run('ctxbackends')\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env={**os.environ})
    assert index.stalled.wait(60)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert (130, True) == (process.returncode, errors.endswith("\ninterrupted\n"))
    assert [] == list(cache.iterdir())
    assert index.left.wait(20)


def test_models_local(index: ModelIndex, cache: Path) -> None:
    header = "model  state           size    license     description"
    row = "small  not downloaded  300 kB  Apache-2.0  a small model"
    hint = "download one with ctxbackends pull small\n"
    assert Result(0, f"{header}\n{row}\n", hint) == ctx("models", "--local")
    for options in (("--backend", "x"), ("--endpoint", "http://x"), ("--model-path", "x"), ("--no-wait",)):
        result = ctx("models", "--local", *options)
        assert (2, "") == (result.code, result.out)
        assert "--local asks no server: remove --no-wait and the options that select a backend" in result.err
    cache.mkdir(parents=True)
    (cache / "small.gguf").write_bytes(MODEL)
    (cache / "mine.gguf").write_bytes(b"GGUF")
    result = ctx("models", "--local")
    assert (0, "") == (result.code, result.err)
    assert [
        ["small", "cached", "300", "kB", "Apache-2.0", "a", "small", "model"],
        ["mine", "cached", "4", "bytes", str(cache / "mine.gguf")],
    ] == [line.split() for line in result.out.splitlines()[1:]]
    rows = json.loads(ctx("models", "--local", "--json").out)
    assert ["small", "mine"] == [row["name"] for row in rows]
    assert {
        "name": "small",
        "path": str(cache / "small.gguf"),
        "state": "cached",
        "size": len(MODEL),
        "license": "Apache-2.0",
        "description": "a small model",
    } == rows[0]


@pytest.mark.parametrize(
    "command",
    [
        ("serve",),
        ("chat", "Hello", "--model-path"),
        ("ping", "--model-path"),
        ("models", "--model-path"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("small", "model small is not downloaded; run ctxbackends pull small"),
        ("smal", "smal: no such file or model; did you mean small?"),
        ("nothere.gguf", "nothere.gguf: no such file"),
        ("empty.gguf", "empty.gguf is empty"),
        ("text.gguf", "text.gguf is not a GGUF file"),
    ],
)
def test_a_model_that_cannot_be_served(index: ModelIndex, command: tuple[str, ...], name: str, problem: str) -> None:
    Path("empty.gguf").touch()
    Path("text.gguf").write_text("words")
    assert Result(1, "", f"ctxbackends: {problem}\n") == ctx(*command, name)


@pytest.mark.parametrize("option", ["--backend", "--endpoint", "--api-key-env"])
def test_a_model_file_and_another_server(option: str, cache: Path) -> None:
    value = "http://127.0.0.1:1" if option == "--endpoint" else "llamacpp"
    result = ctx("models", "--model-path", "small", option, value)
    assert (2, "") == (result.code, result.out)
    assert "--model-path cannot be combined with --backend, --endpoint or --api-key-env" in result.err


def test_a_context_that_cannot_fit(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from ctxbackends.local import _memory  # noqa: PLC0415
    from tests.unit.test_gguf_header import model  # noqa: PLC0415

    monkeypatch.setattr(_memory, "total_memory", lambda: 10**9)
    Path("large.gguf").write_bytes(model())
    result = ctx("serve", "large.gguf", "--ctx-size", "100000", "--port", str(free_port()))
    need = "100000 tokens of context need 2.3 GB, and this machine has 1.0 GB of memory"
    assert Result(1, "", f"ctxbackends: --ctx-size: {need}; use at most 43402\n") == result
