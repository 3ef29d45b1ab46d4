"""A served model without a block: ``await serve_model()`` runs the server until ``aclose()``."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import BackendConfig, ClosedError, HTTPBackend, ServerDiedError, open_backend, serve_model, sync
from ctxbackends.local import LocalServer

pytestmark = pytest.mark.real


@pytest.fixture
def servers(monkeypatch: pytest.MonkeyPatch) -> list[LocalServer]:
    """The servers that are created."""
    created: list[LocalServer] = []
    create = LocalServer.__init__

    def record(self: LocalServer, *arguments: Any, **options: Any) -> None:
        create(self, *arguments, **options)
        created.append(self)

    monkeypatch.setattr(LocalServer, "__init__", record)
    return created


@pytest.fixture
def options(environment: Mapping[str, str]) -> dict[str, Any]:
    return {"environment": environment, "threads": 1, "ctx_size": 512}


async def test_a_served_model_runs_until_it_is_closed(
    servers: list[LocalServer], options: dict[str, Any], model: Callable[[str], Path]
) -> None:
    backend: HTTPBackend = await serve_model(model("tiny"), **options)
    gc.collect()
    (server,) = servers
    assert server.running
    assert (await backend.complete("Hello", max_tokens=2)).text
    for _ in range(2):
        await backend.aclose()
        assert not server.running
        with pytest.raises(ClosedError):
            await backend.complete("Hello", max_tokens=2)


async def test_a_server_that_does_not_start_leaves_nothing(
    servers: list[LocalServer], options: dict[str, Any], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.gguf"
    await asyncio.to_thread(broken.write_bytes, b"GGUF" + bytes(100))
    with pytest.raises(ServerDiedError):
        await serve_model(broken, **options)
    assert [False] == [server.running for server in servers]
    gc.collect()


async def test_a_cancelled_start_leaves_nothing(
    servers: list[LocalServer], options: dict[str, Any], model: Callable[[str], Path]
) -> None:
    waiting = asyncio.Event()
    opening = asyncio.ensure_future(
        wait_for(serve_model(model("tiny"), on_progress=lambda _: waiting.set(), **options))
    )
    await waiting.wait()
    opening.cancel()
    with pytest.raises(asyncio.CancelledError):
        await opening
    assert [False] == [server.running for server in servers]


async def wait_for(context: Any) -> Any:
    return await context


async def test_a_backend_with_model_path(
    servers: list[LocalServer], environment: Mapping[str, str], model: Callable[[str], Path]
) -> None:
    if environment:
        pytest.skip("a configuration has no environment")
    backend = await open_backend(
        BackendConfig(name="worker", type="llamacpp", model_path=str(model("tiny")), ctx_size=512, threads=1)
    )
    gc.collect()
    assert (await backend.complete("Hello", max_tokens=2)).text
    (server,) = servers
    assert server.running
    await backend.aclose()
    assert not server.running


def test_without_async(servers: list[LocalServer], options: dict[str, Any], model: Callable[[str], Path]) -> None:
    backend = sync.serve_model(model("tiny"), **options)
    gc.collect()
    (server,) = servers
    assert backend.complete("Hello", max_tokens=2).text
    for _ in range(2):
        backend.close()
        assert not server.running
        with pytest.raises(ClosedError):
            backend.complete("Hello", max_tokens=2)
    with sync.serve_model(model("tiny"), **options) as other:
        assert servers[1].running
        assert "ready" == other.status().state
    assert not servers[1].running
