"""The end of a stream when something else happens at the same time, such as a cancel or a closing registry."""

from __future__ import annotations

import asyncio
import math
import os
import sys
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from ctxbackends import (
    APIConnectionError,
    AuthenticationError,
    BackendConfig,
    ClosedError,
    ConfigError,
    Registry,
    open_backend,
)
from ctxbackends.local._gguf import check_model_file

CHUNK = b'data: {"model":"m","choices":[{"index":0,"delta":{"content":"a"},"finish_reason":%b}]}\n\n'


async def _end_late(request: web.Request) -> web.StreamResponse:
    """A whole answer whose body stays open."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(CHUNK % b'"stop"' + b"data: [DONE]\n\n")
    await asyncio.sleep(30)  # until the client closes
    return response


async def _never_end(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(request)
    await response.write(CHUNK % b"null")
    await asyncio.sleep(30)
    return response


def server_of(handler: object) -> TestServer:
    app = web.Application()
    app.router.add_post("/v1/chat/completions", handler)  # type: ignore[arg-type]  # a handler
    return TestServer(app)


async def test_a_cancel_while_the_end_of_the_body_is_awaited_loses_nothing() -> None:
    async with (
        server_of(_end_late) as server,
        open_backend("vllm", endpoint=str(server.make_url("")), default_model="m") as backend,
        backend.stream("Hi") as stream,
    ):
        reading = asyncio.create_task(stream.get_final_completion())
        await asyncio.sleep(0.1)  # it has the whole answer, and waits for the end of the body
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        assert "a" == (await asyncio.wait_for(stream.get_final_completion(), 5)).text


async def test_a_stream_ends_when_its_registry_closes() -> None:
    async with server_of(_never_end) as server:
        config = BackendConfig(name="m", type="vllm", endpoint=str(server.make_url("")), default_model="m")
        registry = Registry([config])
        async with registry.default().stream("Hi") as stream:
            await anext(stream)
            reading = asyncio.create_task(stream.get_final_completion())
            await asyncio.sleep(0.05)  # it waits for the next event
            await registry.aclose()
            with pytest.raises(ClosedError, match="the registry or backend was closed") as exc_info:
                await asyncio.wait_for(reading, 5)
    assert exc_info.value.partial is not None
    assert ("a", "m") == (exc_info.value.partial.text, exc_info.value.backend)


async def test_raise_for_status_of_a_borrowed_session_is_ignored() -> None:
    async def refuse(_: web.Request) -> web.Response:
        return web.Response(status=401, body=b'{"error":"Unauthorized"}')

    async with (
        server_of(refuse) as server,
        aiohttp.ClientSession(raise_for_status=True) as session,
        open_backend("openai-compatible", endpoint=str(server.make_url("")), default_model="m", session=session) as b,
    ):
        with pytest.raises(AuthenticationError):
            await b.complete("Hi")


async def test_a_borrowed_session_with_a_proxy_is_rejected() -> None:
    async with aiohttp.ClientSession(trust_env=True) as session:
        with pytest.raises(ConfigError, match="trust_env=True"):
            Registry(session=session)


@pytest.mark.parametrize("name", ["temperature", "top_p"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
async def test_numbers_outside_of_json_are_rejected(name: str, value: float) -> None:
    async with open_backend("vllm", default_model="m") as backend:
        with pytest.raises(ValueError, match=f"{name} must be a finite number: {value}"):
            await backend.complete("Hi", **{name: value})  # type: ignore[arg-type]  # the name is a parameter


async def test_a_placeholder_key_does_not_split_words() -> None:
    async with open_backend(
        "openai-compatible", endpoint="http://127.0.0.1:1", api_key="1", default_model="m"
    ) as backend:
        with pytest.raises(APIConnectionError, match=r"unreachable at http://127\.0\.0\.1:1"):
            await backend.complete("Hi")


@pytest.mark.posix
def test_a_pipe_is_not_a_model(tmp_path: Path) -> None:
    if sys.platform == "win32":
        raise NotImplementedError
    os.mkfifo(tmp_path / "model.gguf")
    with pytest.raises(ConfigError, match="is not a regular file"):
        check_model_file(tmp_path / "model.gguf")
