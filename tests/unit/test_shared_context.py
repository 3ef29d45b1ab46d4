"""A llama-server whose slots share one context: the error and the status tell it."""

from __future__ import annotations

import importlib.util
import json
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ctxbackends import ContextOverflowError, StreamInterruptedError, open_backend
from ctxbackends._cli.error_messages import format_error
from ctxbackends._wire.base import HTTPResponse
from ctxbackends._wire.errors import error_from_event, error_from_response
from ctxbackends.local import LocalServer
from tests.conftest import TestServerFactory

FULL = {"error": {"code": 500, "message": "Context size has been exceeded.", "type": "server_error"}}
TOO_LONG = {"error": {"code": 400, "message": "too long", "type": "exceed_context_size_error", "n_ctx": 4}}


@pytest.mark.parametrize(
    ("status", "body", "shared"),
    [(500, FULL, True), (400, TOO_LONG, False), (400, {"error": "Context size has been exceeded."}, False)],
)
def test_the_error_tells_a_shared_context(status: int, body: dict[str, Any], shared: bool) -> None:
    data = json.dumps(body).encode()
    for error in (
        error_from_response(HTTPResponse(status=status, headers={}, body=data)),
        error_from_event(data),
    ):
        assert isinstance(error, ContextOverflowError)
        assert shared is error.shared_context
        assert shared is ("share one context" in (format_error(error) or ""))


@pytest.mark.parametrize("content", [False, True])
@pytest.mark.parametrize("slots", [1, 4])
async def test_the_status_tells_it_after_the_failure(slots: int, content: bool, test_server: TestServerFactory) -> None:
    chunk = {"id": "r", "model": "m", "choices": [{"index": 0, "delta": {"content": "Hi"}}]}
    events = [chunk, FULL] if content else [FULL]

    async def respond(request: web.Request) -> web.Response:
        if request.path == "/health":
            return web.json_response({"status": "ok"})
        if request.path == "/v1/models":
            return web.json_response({"data": [{"id": "m", "meta": {"n_ctx": 1024}}]})
        if request.path == "/props":
            return web.json_response({"default_generation_settings": {"n_ctx": 1024}, "total_slots": slots})
        if request.path == "/slots":
            return web.json_response([{"is_processing": False}] * slots)
        text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
        return web.Response(text=text, content_type="text/event-stream")

    server = await test_server(respond)
    async with open_backend("llamacpp", endpoint=str(server.make_url("")), default_model="m") as backend:
        status = await backend.status()
        assert (1024, slots, False if slots == 1 else None) == (
            status.context_length,
            status.slots,
            status.shared_context,
        )
        with pytest.raises(StreamInterruptedError if content else ContextOverflowError) as caught:
            await backend.complete("Hi")
        assert isinstance(caught.value.__cause__ if content else caught.value, ContextOverflowError)
        status = await backend.status()
        assert (1024, True) == (status.context_length, status.shared_context)


@pytest.mark.parametrize("has_wheel", [False, True])
@pytest.mark.parametrize(
    ("options", "with_wheel", "with_program"),
    [
        ({}, False, True),
        ({"parallel": 1}, False, False),
        ({"parallel": 4}, False, False),
        ({"parallel": 4, "embeddings": True}, True, True),
        ({"parallel": 1, "embeddings": True}, False, False),
        ({"embeddings": True}, False, True),
    ],
)
def test_an_embedded_server_knows_it(
    options: dict[str, Any], with_wheel: bool, with_program: bool, has_wheel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = ModuleSpec("xllamacpp", None) if has_wheel else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: spec)
    assert (with_wheel if has_wheel else with_program) is LocalServer(Path("m.gguf"), **options).shares_context
