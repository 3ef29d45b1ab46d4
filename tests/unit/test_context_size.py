"""The context of a local server: what is reduced, what cannot fit, and what `serve` prints."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from ctxbackends import ConfigError, LocalServerWarning
from ctxbackends._chat.servers import ServerStatus
from ctxbackends.local import _memory as memory
from ctxbackends.local._gguf import ModelHeader
from ctxbackends.local._memory import describe_context, fit_context, total_memory

HEADER = ModelHeader(context_length=8192, bytes_per_token=1000)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 1 GB of memory."""
    monkeypatch.setattr(memory, "total_memory", lambda: 10**9)


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("ctx_size", "parallel", "expected", "warning"),
    [
        (8192, 1, 8192, None),
        (8193, 1, 8192, "ctx_size reduced from 8193 to 8192, the context of the model"),
        (2**31 - 1, 1, 8192, "ctx_size reduced from 2147483647 to 8192, the context of the model"),
        (16384, 2, 16384, None),
        (20000, 2, 16384, "ctx_size reduced from 20000 to 16384, the context of the model, 8192 for each of 2 slots"),
        (20000, None, 20000, None),
    ],
)
def test_a_context_that_the_model_cannot_use(
    ctx_size: int, parallel: int | None, expected: int, warning: str | None
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert expected == fit_context(ctx_size, HEADER, parallel=parallel)
    assert [(LocalServerWarning, warning)] * (warning is not None) == [
        (one.category, str(one.message)) for one in caught
    ]


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("header", "ctx_size", "parallel", "fits"),
    [
        (HEADER, 1_000_000, 1000, True),
        (HEADER, 1_000_001, 1000, False),
        (HEADER, 1_000_001, None, False),
        (ModelHeader(context_length=None, bytes_per_token=1000), 1_000_001, 1, False),
        (ModelHeader(context_length=2**30, bytes_per_token=None), 2**30, 1, True),
        (ModelHeader(), 2**30, 1, True),
    ],
)
def test_a_context_that_cannot_fit(header: ModelHeader, ctx_size: int, parallel: int | None, fits: bool) -> None:
    if fits:
        assert ctx_size == fit_context(ctx_size, header, parallel=parallel)
        return
    with pytest.raises(ConfigError) as error:
        fit_context(ctx_size, header, parallel=parallel)
    need = "1000001 tokens of context need 1.0 GB, and this machine has 1.0 GB of memory"
    assert f"ctx_size: {need}; use at most 1000000" == str(error.value)


def test_an_unknown_memory_refuses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "total_memory", lambda: None)
    assert 10**9 == fit_context(10**9, HEADER, parallel=10**6)


# --- the memory of the machine --------------------------------------------------------------------------


@pytest.fixture
def linux(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A Linux machine with 1,000 kB of memory and 200 kB of swap space, without a container and a GPU."""
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    monkeypatch.setattr(memory, "_GPU_DEVICES", (str(tmp_path / "gpu"),))
    (tmp_path / "meminfo").write_text("MemTotal:    1000 kB\nMemFree:  1 kB\nHugePages_Total:  0\nSwapTotal: 200 kB\n")
    return tmp_path


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 1200 * 1024),
        ({"memory.max": "max\n", "memory.swap.max": "max\n"}, 1200 * 1024),
        ({"memory.max": "5000\n", "memory.swap.max": "max\n"}, 1200 * 1024),
        ({"memory.max": "5000\n", "memory.swap.max": "0\n"}, 5000),
        ({"memory.max": "5000\n", "memory.swap.max": "70\n"}, 5070),
        ({"memory.max": "5000\n"}, 1200 * 1024),
        ({"memory.max": f"{2**60}\n", "memory.swap.max": "0\n"}, 1200 * 1024),
        ({"meminfo": ""}, None),
        ({"meminfo": "MemTotal: much\n"}, None),
        ({"gpu": ""}, None),
    ],
)
def test_the_memory_on_linux(linux: Path, files: dict[str, str], expected: int | None) -> None:
    for name, content in files.items():
        (linux / name).write_text(content)
    assert expected == total_memory()


def test_no_meminfo(linux: Path) -> None:
    (linux / "meminfo").unlink()
    assert total_memory() is None


@pytest.mark.linux
def test_the_memory_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_GPU_DEVICES", ())
    total = total_memory()
    assert total is not None
    assert 0 < total


@pytest.mark.parametrize(
    ("machine", "output", "expected"),
    [("arm64", b"17179869184\n", 2**34), ("arm64", b"?", None), ("x86_64", b"17179869184\n", None)],
)
def test_the_memory_on_macos(
    machine: str, output: bytes, expected: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine=machine), raising=False)

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        assert ["/usr/sbin/sysctl", "-n", "hw.memsize"] == command
        return subprocess.CompletedProcess(command, 0, output)

    monkeypatch.setattr(subprocess, "run", run)
    assert expected == total_memory()


def test_macos_without_sysctl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(os, "uname", lambda: SimpleNamespace(machine="arm64"), raising=False)

    def run(*_: Any, **__: Any) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(subprocess, "run", run)
    assert total_memory() is None


def test_the_memory_on_windows_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    assert total_memory() is None


# --- the line of `serve` ----------------------------------------------------------------------------------


def status(context_length: int | None, slots: int | None, *, shared: bool | None = False) -> ServerStatus:
    return ServerStatus(
        backend="serve",
        endpoint="http://127.0.0.1:8080",
        state="ready",
        context_length=context_length,
        slots=slots,
        shared_context=shared,
    )


@pytest.mark.parametrize(
    ("server", "ctx_size", "expected"),
    [
        (status(8192, 1), None, None),
        (status(8192, 1), 8192, None),
        (status(8192, 1), 100_000, None),  # a warning has said it
        (status(1024, 1), 1000, None),  # rounded up
        (status(4096, 2), 8192, "context: 4096 tokens for each of 2 slots"),
        (status(4096, 2), None, "context: 4096 tokens for each of 2 slots"),
        (status(4096, 1), None, "context: 4096 tokens instead of the model's 8192, to fit into the memory"),
        (status(2048, 2), None, "context: 2048 tokens instead of the model's 8192, to fit into the memory"),
        (status(4096, 1), 8000, "context: 4096 tokens instead of 8000; llama.cpp reduced it"),
        (status(8192, 4, shared=True), 8192, None),
        (status(None, None), 8192, None),
        (status(4096, None), 8192, "context: 4096 tokens instead of 8192; llama.cpp reduced it"),
    ],
)
def test_the_context_of_a_request(server: ServerStatus, ctx_size: int | None, expected: str | None) -> None:
    assert expected == describe_context(server, HEADER, ctx_size=ctx_size)


def test_a_header_without_a_context() -> None:
    assert describe_context(status(4096, 1), ModelHeader(), ctx_size=None) is None
