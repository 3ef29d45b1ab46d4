"""A local server that several event loops, threads and processes use: one process for each process that uses it."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ctxbackends import BackendConfig, Registry
from ctxbackends.local import LocalServer
from ctxbackends.sync import SyncRegistry, serve_model
from ctxbackends.testing.plugin import tiny_model  # noqa: F401  # the fixture; the checkout has no plugin

pytestmark = pytest.mark.real


def config_of(model: Path) -> BackendConfig:
    return BackendConfig(name="local", type="llamacpp", model_path=str(model), parallel=2)


def find_server(registry: Registry) -> LocalServer:
    server = registry.resolve("local")._connection.launcher  # type: ignore[attr-defined]
    assert isinstance(server, LocalServer)
    return server


def test_threads_start_one_process(tiny_model: Callable[[str], Path]) -> None:  # noqa: F811  # the fixture
    registry = Registry([config_of(tiny_model("tiny"))])
    pids: set[int | None] = set()

    async def ask() -> str:
        text = (await registry.default().complete("Hello", max_tokens=4)).text
        pids.add(find_server(registry).pid)
        return text

    with ThreadPoolExecutor(3) as threads:
        asking = [threads.submit(lambda: asyncio.run(ask())) for _ in range(3)]
        assert all(done.result(60) for done in asking)
    assert asyncio.run(ask())  # the loop that started it has ended
    assert 1 == len(pids)
    asyncio.run(registry.aclose())
    assert not find_process(pids.pop())


def find_process(pid: int | None) -> bool:
    assert pid is not None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_serve_model_without_async(tiny_model: Callable[[str], Path]) -> None:  # noqa: F811  # the fixture
    with serve_model(tiny_model("tiny"), parallel=2) as backend:
        assert backend.complete("Hello", max_tokens=4).text
        with backend.stream("Hello", max_tokens=4) as stream:
            assert "".join(stream.text()) == stream.completion.text
        assert 2 == backend.status().slots


def test_a_deleted_registry_ends_its_server(tiny_model: Callable[[str], Path]) -> None:  # noqa: F811  # the fixture
    registry = SyncRegistry([config_of(tiny_model("tiny"))])
    registry.default().wait_ready()
    pid = find_server(registry.async_registry).pid
    process = find_server(registry.async_registry)._process
    assert process is not None
    del registry
    gc.collect()
    process.wait(10)
    assert not find_process(pid)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_starts_its_own_server(tiny_model: Callable[[str], Path]) -> None:  # noqa: F811  # the fixture
    if sys.platform == "win32":
        raise NotImplementedError
    with SyncRegistry([config_of(tiny_model("tiny"))]) as registry:
        backend = registry.default()
        assert backend.complete("Hello", max_tokens=4).text
        server = find_server(registry.async_registry)
        pid = server.pid
        reading, writing = os.pipe()
        if os.fork() == 0:
            try:
                text = backend.complete("Hello", max_tokens=4).text
                os.write(writing, f"{server.pid} {bool(text)}".encode())
                registry.close()
            finally:
                os._exit(0)
        _, status = os.wait()
        own_pid, answered = os.read(reading, 100).decode().split()
        os.close(reading)
        os.close(writing)
        assert (0, "True") == (status, answered)
        assert str(pid) != own_pid
        assert not find_process(int(own_pid))
        assert backend.complete("Hello", max_tokens=4).text  # the parent's is not disturbed
        assert pid == server.pid
