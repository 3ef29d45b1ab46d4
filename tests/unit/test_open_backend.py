"""A backend that is opened for longer than a block: by ``await open_backend()``, and closed by its ``aclose()``."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, assert_type

import aiohttp
import attrs
import pytest
from aiohttp import web

import ctxbackends
from ctxbackends import (
    Backend,
    BackendConfig,
    BackendContext,
    ClosedError,
    ConfigError,
    HTTPBackend,
    MissingKeyError,
    open_backend,
    serve_model,
    sync,
)
from ctxbackends.sync import SyncBackend, _loop_thread
from ctxbackends.testing import FaultServer
from tests.conftest import Do, RawServerFactory, http_response, models_body

MODELS = http_response(200, models_body("m"))


def config(url: str, **settings: Any) -> BackendConfig:
    return BackendConfig(**{"name": "gpu", "type": "vllm", "endpoint": url, "default_model": "m", **settings})


async def list_ids(backend: Backend) -> list[str]:
    return [model.id for model in await backend.models()]


async def assert_closed(backend: Backend) -> None:
    for call in (backend.models, lambda: backend.complete("Hello", model="m")):
        with pytest.raises(ClosedError, match="this registry or backend is closed"):
            await call()


def test_types() -> None:
    assert_type(open_backend("vllm"), BackendContext[Backend])
    assert_type(serve_model("m.gguf"), BackendContext[HTTPBackend])


async def test_a_backend_is_open_until_it_is_closed(raw_server: RawServerFactory) -> None:
    server = await raw_server([[MODELS], [MODELS]])
    backend = assert_type(await open_backend(config(server.url)), Backend)
    for _ in range(2):
        gc.collect()
        assert ["m"] == await list_ids(backend)
    assert 1 == len(server.connections)
    await backend.aclose()
    assert await server.client_closed()
    await assert_closed(backend)
    await backend.aclose()  # idempotent
    await assert_closed(backend)


async def test_entering_without_keeping_the_manager(raw_server: RawServerFactory) -> None:
    server = await raw_server([[MODELS]])
    backend = await open_backend("vllm", endpoint=server.url).__aenter__()
    gc.collect()
    assert ["m"] == await list_ids(backend)
    await backend.aclose()
    assert await server.client_closed()
    await assert_closed(backend)


async def test_closing_inside_the_block(raw_server: RawServerFactory) -> None:
    server = await raw_server([[MODELS]])
    async with open_backend(config(server.url)) as backend:
        assert_type(backend, Backend)
        assert ["m"] == await list_ids(backend)
        await backend.aclose()
        await assert_closed(backend)


async def test_a_block_closes_the_backend(raw_server: RawServerFactory) -> None:
    server = await raw_server([[MODELS]])
    with pytest.raises(ZeroDivisionError):
        async with open_backend(config(server.url)) as backend:
            assert ["m"] == await list_ids(backend)
            raise ZeroDivisionError
    assert await server.client_closed()
    await assert_closed(backend)


async def test_each_use_opens_another_backend(refusing_url: str) -> None:
    context = open_backend(config(refusing_url))
    one, other = await context, await context
    assert one is not other
    async with context as third:
        assert third not in (one, other)
        with pytest.raises(RuntimeError, match="the backend is open already"):
            await context.__aenter__()
    async with context as fourth:
        assert fourth is not third
    await assert_closed(fourth)
    await one.aclose()
    assert "refused" == (await other.status()).state  # not closed with the first
    await other.aclose()


async def test_requests_in_flight_end_with_the_close(raw_server: RawServerFactory) -> None:
    server = await raw_server([[Do.HANG]])
    backend = await open_backend(config(server.url))
    call = asyncio.ensure_future(backend.complete("Hello"))
    while not server.requests:
        await asyncio.sleep(0.001)
    await backend.aclose()
    with pytest.raises(ClosedError):
        await call


async def test_other_settings_with_a_configuration(refusing_url: str) -> None:
    given = config(refusing_url)
    with pytest.raises(TypeError, match=r"not accepted with a BackendConfig: name, timeout; set it there, with attrs"):
        await open_backend(given, name="other", timeout=5.0)
    with pytest.raises(TypeError, match="not accepted with a BackendConfig: timeout"):
        sync.open_backend(given, timeout=5.0)
    async with open_backend(given) as backend:
        assert ("gpu", "vllm") == (backend.name, backend.type)


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"endpoint": "no url"}, ConfigError),
        ({"api_key_env": "NOT_SET_ANYWHERE"}, MissingKeyError),
        ({"endpont": "http://gpu:8000"}, TypeError),
    ],
)
async def test_a_failure_leaves_nothing_open(settings: dict[str, Any], kind: type[Exception]) -> None:
    with pytest.raises(kind):
        await open_backend("vllm", **settings)
    with pytest.raises(kind):
        async with open_backend("vllm", **settings):
            pass
    with pytest.raises(kind):
        sync.open_backend("vllm", **settings)
    gc.collect()  # an open session would warn


async def test_a_session_that_is_passed_in_stays_open(raw_server: RawServerFactory) -> None:
    server = await raw_server([[MODELS]])
    async with aiohttp.ClientSession() as session:
        backend = await open_backend(config(server.url), session=session)
        assert ["m"] == await list_ids(backend)
        await backend.aclose()
        assert not session.closed
        await assert_closed(backend)


@pytest.mark.posix
async def test_the_connections_of_a_unix_socket_are_closed() -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(body=models_body("m"), content_type="application/json")

    app = web.Application()
    app.router.add_get("/v1/models", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    with tempfile.TemporaryDirectory() as directory:  # a short path
        path = f"{directory}/socket"
        await web.UnixSite(runner, path).start()
        backend = await open_backend("vllm", unix_socket=path)
        assert ["m"] == await list_ids(backend)
        await backend.aclose()
        await assert_closed(backend)
        await runner.cleanup()
    gc.collect()


def test_one_backend_in_several_loops() -> None:
    """Opened on one loop, used on two others, of which one runs in another thread, and closed on the last."""
    reasons: list[str] = []

    async def ask(backend: Backend) -> None:
        reasons.append((await backend.complete("Hello")).finish_reason)

    async def open_it(url: str) -> Backend:
        return await open_backend(config(url))

    with FaultServer() as server:
        backend = asyncio.run(open_it(server.url))
        thread = threading.Thread(target=lambda: asyncio.run(ask(backend)))
        thread.start()
        thread.join()
        asyncio.run(ask(backend))
        asyncio.run(backend.aclose())
        with pytest.raises(ClosedError):
            asyncio.run(ask(backend))
    assert ["stop", "stop"] == reasons
    gc.collect()


UNCLOSED = """
import asyncio, gc, sys
from ctxbackends import open_backend
from ctxbackends.testing import FaultServer

async def main():
    async with FaultServer() as server:
        backend = await open_backend("vllm", endpoint=server.url, default_model="m")
        print((await backend.complete("Hello")).finish_reason)
        if "close" in sys.argv:
            await backend.aclose()
            del backend
        open_backend("vllm")  # not used
        gc.collect()

asyncio.run(main())
gc.collect()
"""


@pytest.mark.parametrize("end", ["close", "leave open"])
def test_no_warnings(end: str) -> None:
    """The end of the event loop closes a backend that was left open."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", UNCLOSED, end],
        capture_output=True,
        text=True,
        timeout=100,
        env={**os.environ, "PYTHONPATH": str(Path(ctxbackends.__file__).parent.parent)},
    )
    assert (0, "stop\n", "") == (done.returncode, done.stdout, done.stderr)


# --- without async ------------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[FaultServer]:
    with FaultServer() as running:
        yield running


def test_a_sync_backend_is_open_until_it_is_closed(server: FaultServer) -> None:
    backend = assert_type(sync.open_backend(config(server.url)), SyncBackend)
    for _ in range(2):
        gc.collect()
        assert "stop" == backend.complete("Hello").finish_reason
    backend.close()
    for _ in range(2):
        with pytest.raises(ClosedError):
            backend.complete("Hello")
        backend.close()  # idempotent


def test_a_sync_block(server: FaultServer) -> None:
    with pytest.raises(ZeroDivisionError), sync.open_backend("vllm", endpoint=server.url, default_model="m") as backend:
        assert_type(backend, SyncBackend)
        assert "stop" == backend.complete("Hello").finish_reason
        raise ZeroDivisionError
    with pytest.raises(ClosedError):
        backend.complete("Hello")


def test_a_sync_backend_that_is_dropped_is_closed(server: FaultServer) -> None:
    backend = sync.open_backend(config(server.url))
    assert "stop" == backend.complete("Hello").finish_reason
    async_backend = backend.async_backend
    del backend
    gc.collect()
    closed = threading.Event()
    while not closed.wait(0.01):
        try:
            _loop_thread.run(async_backend.models)
        except ClosedError:
            closed.set()


def test_a_sync_backend_reads_its_key_when_it_opens(server: FaultServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKER_KEY", "a-key-of-the-worker")
    with sync.open_backend(attrs.evolve(config(server.url), api_key_env="WORKER_KEY")) as backend:
        backend.complete("Hello")
    assert "Bearer a-key-of-the-worker" == server.requests[-1].headers["authorization"]
