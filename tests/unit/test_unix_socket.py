"""Connections to a Unix socket."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import pytest
from aiohttp import web

from ctxbackends import BackendConfig, Registry, open_backend
from ctxbackends.errors import APIConnectionError, ClosedError, ConfigError, StreamInterruptedError
from tests.conftest import completion_body, event, http_response, models_body, sse

if sys.platform == "win32":
    pytest.skip("asyncio has no Unix sockets here", allow_module_level=True)

Serve: TypeAlias = Callable[..., Awaitable[str]]


@pytest.fixture
async def serve(tmp_path: Path) -> AsyncIterator[Serve]:
    """Starts a server on a socket, whose text is its name."""
    runners: list[web.AppRunner] = []

    async def start(name: str = "s") -> str:
        async def handle(request: web.Request) -> web.StreamResponse:
            value = json.loads(await request.read() or "{}")
            assert "localhost" == request.host
            if value.get("stream"):
                return web.Response(body=sse(name), content_type="text/event-stream")
            body = models_body("m") if request.method == "GET" else completion_body(name)
            return web.Response(body=body, content_type="application/json")

        app = web.Application()
        app.router.add_route("*", "/{path:.*}", handle)
        runner = web.AppRunner(app)
        await runner.setup()
        runners.append(runner)
        path = str(tmp_path / f"{name}.sock")
        await web.UnixSite(runner, path).start()
        return path

    yield start
    for runner in runners:
        await runner.cleanup()


def config_of(path: str, name: str = "mine", **settings: Any) -> BackendConfig:
    defaults = {"type": "openai-compatible", "unix_socket": path, "default_model": "m"}
    return BackendConfig(name=name, **{**defaults, **settings})


async def test_requests_and_streams(serve: Serve) -> None:
    async with Registry([config_of(await serve("Hello"))]) as registry:
        backend = registry.resolve("mine")
        for _ in range(2):  # also over the pooled connection
            assert "Hello" == (await backend.complete("Hi")).text
            async with backend.stream("Hi") as stream:
                assert "Hello" == (await stream.get_final_completion()).text
        assert "m" == (await backend.ping()).model
        assert "http://localhost" == backend.endpoint


async def test_two_sockets_have_two_pools(serve: Serve) -> None:
    configs = [config_of(await serve(name), name) for name in ("one", "two")]
    async with Registry(configs) as registry:
        for name in ("one", "two", "one", "two"):
            assert name == (await registry.resolve(name).complete("Hi")).text


@pytest.mark.parametrize("type_", ["vllm", "openai", "anthropic", "ollama", "openrouter"])
def test_the_endpoint_is_this_machine(type_: str) -> None:
    assert "http://localhost" == config_of("/s", type=type_).endpoint


async def test_the_airgap_allows_a_socket(serve: Serve) -> None:
    config = config_of(await serve("Hello"), type="openai")
    async with Registry([config], airgap=True) as registry:
        assert "Hello" == (await registry.resolve("mine").complete("Hi")).text


@pytest.mark.parametrize("url", ["https://localhost", "http://gpu:8000"])
async def test_a_variable_with_another_endpoint(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER", url)
    async with Registry([config_of("/s", endpoint="${SERVER}")]) as registry:
        with pytest.raises(ConfigError, match="requires an endpoint such as http://localhost") as exc_info:
            registry.resolve("mine")
        assert "unix_socket" == exc_info.value.key


async def test_a_socket_that_does_not_exist(tmp_path: Path) -> None:
    async with Registry([config_of(str(tmp_path / "none.sock"))]) as registry:
        backend = registry.resolve("mine")
        with pytest.raises(APIConnectionError) as exc_info:
            await backend.complete("Hi")
        assert (True, False) == (exc_info.value.refused, exc_info.value.sent)
        assert f"cannot connect to the socket {tmp_path / 'none.sock'} (No such file or directory)" in str(
            exc_info.value
        )
        assert "refused" == (await backend.status()).state


async def test_a_socket_that_nobody_listens_on(tmp_path: Path) -> None:
    path = str(tmp_path / "old.sock")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
    async with Registry([config_of(path)]) as registry:
        with pytest.raises(APIConnectionError) as exc_info:
            await registry.resolve("mine").complete("Hi")
    assert exc_info.value.refused


async def test_a_socket_that_is_created_later_is_a_cold_start(serve: Serve, tmp_path: Path) -> None:
    refused = asyncio.Event()
    config = config_of(str(tmp_path / "late.sock"), type="sglang")
    async with Registry([config]) as registry:
        request = asyncio.create_task(registry.resolve("mine").complete("Hi", on_progress=lambda _: refused.set()))
        await refused.wait()
        await serve("late")
        assert "late" == (await request).text


async def answer_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one request as if the connection were kept, and close it."""
    head = await reader.readuntil(b"\r\n\r\n")
    await reader.readexactly(int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
    writer.write(http_response(200, completion_body("Hello")))
    writer.close()


async def test_a_stale_connection_is_not_reused(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    server = await asyncio.start_unix_server(answer_once, path)
    try:
        async with Registry([config_of(path)]) as registry:
            backend = registry.resolve("mine")
            assert ["Hello"] * 3 == [(await backend.complete("Hi")).text for _ in range(3)]
    finally:
        server.close()


async def test_a_session_of_your_own_cannot_connect() -> None:
    async with aiohttp.ClientSession() as session, Registry([config_of("/s")], session=session) as registry:
        with pytest.raises(ConfigError, match="the aiohttp session that was passed in cannot connect") as exc_info:
            registry.resolve("mine")
        assert ("unix_socket", "mine") == (exc_info.value.key, exc_info.value.backend)


async def test_closing_ends_a_stream(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    begun, ended = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
        writer.write(head + event("Hel"))
        begun.set()
        await reader.read()  # until the client closes
        writer.close()
        ended.set()

    server = await asyncio.start_unix_server(hang, path)
    try:
        registry = Registry([config_of(path)])
        backend = registry.resolve("mine")

        async def read() -> None:
            async with backend.stream("Hi") as stream:
                await stream.get_final_completion()

        reading = asyncio.create_task(read())
        await begun.wait()
        await registry.aclose()
        with pytest.raises((ClosedError, StreamInterruptedError)):
            await reading
        await ended.wait()
        with pytest.raises(ClosedError):
            await backend.complete("Hi")
    finally:
        server.close()


def test_a_loop_after_another(tmp_path: Path) -> None:
    path = str(tmp_path / "s.sock")
    registry = Registry([config_of(path)])

    async def use() -> str:
        server = await asyncio.start_unix_server(answer_once, path)
        try:
            return (await registry.resolve("mine").complete("Hi")).text
        finally:
            server.close()
            with contextlib.suppress(FileNotFoundError):  # since Python 3.13, the server removes it
                os.unlink(path)

    assert ["Hello", "Hello"] == [asyncio.run(use()) for _ in range(2)]
    asyncio.run(registry.aclose())


async def test_open_backend(serve: Serve) -> None:
    async with open_backend("llamacpp", unix_socket=await serve("Hello"), default_model="m") as backend:
        assert "Hello" == (await backend.complete("Hi")).text
