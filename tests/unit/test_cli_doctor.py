"""The command doctor: what it finds and says, what it never sends, and what it never shows."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from ctxbackends._cli import detection, diagnosis
from ctxbackends._cli.detection import FoundServer, find_servers, local_endpoints
from ctxbackends._cli.log_store import LogStore
from ctxbackends.testing import LMStudioStandIn, OllamaStandIn, OpenAIStandIn
from tests.conftest import TestServerFactory
from tests.unit.test_cli import Result, ctx

KEY = "sk-test-0123456789abcdef"
SetEndpoints = Callable[..., None]


@pytest.fixture(autouse=True)
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty directory on a machine where nothing is configured and no key is set; returns the directory."""
    monkeypatch.setenv("CTXBACKENDS_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CTXBACKENDS_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(diagnosis, "find_next", lambda: None)
    monkeypatch.setattr(diagnosis, "has_server", lambda: True)
    for profile in diagnosis.PROFILES.values():
        if profile.default_key_variable is not None:
            monkeypatch.delenv(profile.default_key_variable, raising=False)
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path / "project"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> SetEndpoints:
    """Sets the known endpoints of this machine."""

    def set_endpoints(*endpoints: str) -> None:
        monkeypatch.setattr(diagnosis, "local_endpoints", lambda: dict.fromkeys(endpoints, ()))

    set_endpoints()
    return set_endpoints


async def doctor(*arguments: str, tty: str = "") -> Result:
    return await asyncio.to_thread(ctx, "doctor", *arguments, tty=tty)


async def diagnose() -> dict[str, Any]:
    result = await doctor("--json")
    data: dict[str, Any] = json.loads(result.out)
    assert (result.code == 0) == data["usable"]
    return data


# --- the servers of this machine ------------------------------------------------------------------------


def test_the_known_endpoints_are_those_of_the_types_and_on_loopback() -> None:
    assert {
        "http://localhost:8000",
        "http://localhost:8080",
        "http://localhost:11434",
        "http://localhost:1234",
    } < set(local_endpoints())
    assert [] == [endpoint for endpoint in local_endpoints() if not endpoint.startswith("http://localhost:")]


async def test_each_server_says_what_it_is(known: SetEndpoints) -> None:
    async with OllamaStandIn() as ollama, LMStudioStandIn() as lmstudio, OpenAIStandIn() as openai:
        servers = await find_servers([openai.url, ollama.url, lmstudio.url])
        requests = [*ollama.requests, *lmstudio.requests, *openai.requests]
    assert [("openai-compatible", "ready"), ("ollama", "ready"), ("lmstudio", "ready")] == [
        (server.type, server.state) for server in servers
    ]
    assert (ollama.version, ("qwen3:4b", "nomic-embed-text:latest")) == (servers[1].version, servers[1].models)
    assert ("qwen/qwen3-4b", "text-embedding-nomic-embed-text-v1.5") == servers[2].models
    assert {"GET"} == {request.method for request in requests}  # no generation, nothing loaded
    assert [] == [request for request in requests if "authorization" in request.headers]


def json_of(value: Any, status: int = 200) -> Callable[[], web.StreamResponse]:
    return lambda: web.json_response(value, status=status)


LLAMACPP = {
    "/v1/models": json_of({"data": [{"id": "tiny", "owned_by": "llamacpp"}]}),
    "/health": json_of({"status": "ok"}),
    "/props": json_of({"build_info": "b9000", "total_slots": 1, "default_generation_settings": {"n_ctx": 4096}}),
}
VLLM = {
    "/v1/models": json_of({"data": [{"id": "qwen", "owned_by": "vllm"}]}),
    "/health": lambda: web.Response(text=""),
    "/version": json_of({"version": "0.11.0"}),
}
OLLAMA_WITHOUT_MODELS = {
    "/v1/models": json_of({"object": "list", "data": None}),
    "/api/version": json_of({"version": "0.12.0"}),
    "/api/ps": json_of({"models": []}),
}


@pytest.mark.parametrize(
    ("routes", "expected"),
    [
        pytest.param(LLAMACPP, ("llamacpp", "ready", None, "b9000", ("tiny",), ("tiny",)), id="llama.cpp"),
        pytest.param(VLLM, ("vllm", "ready", None, "0.11.0", ("qwen",), ("qwen",)), id="vLLM"),
        pytest.param(
            {"/v1/models": json_of({"data": [{"id": "qwen", "owned_by": "sglang"}]})},
            ("sglang", "ready", None, None, ("qwen",), None),
            id="SGLang",
        ),
        pytest.param(OLLAMA_WITHOUT_MODELS, ("ollama", "ready", None, "0.12.0", (), ()), id="Ollama without models"),
        pytest.param(
            {"/v1/models": json_of({"data": [{"id": "gpt-9", "owned_by": "openai"}]})},
            ("openai-compatible", "ready", None, None, ("gpt-9",), None),
            id="a proxy to a vendor",
        ),
        pytest.param(
            {"/v1/models": json_of({"error": {"message": "Loading model", "type": "unavailable_error"}}, 503)},
            (None, "loading", "it is loading a model", None, (), None),
            id="loading",
        ),
        pytest.param(
            {"/v1/models": json_of({"error": {"message": "no key"}}, 401)},
            (None, "error", "it requires an API key", None, (), None),
            id="with a key",
        ),
        pytest.param(
            {}, (None, "error", "it does not answer like a model server", None, (), None), id="no model server"
        ),
        pytest.param(
            {"/v1/models": lambda: web.Response(text="<html>Jenkins</html>", content_type="text/html")},
            (None, "error", "it does not answer like a model server", None, (), None),
            id="HTML",
        ),
    ],
)
async def test_a_server_is_what_it_says(
    test_server: TestServerFactory, routes: dict[str, Callable[[], web.StreamResponse]], expected: tuple[Any, ...]
) -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        return routes.get(request.path, json_of({"error": "not found"}, 404))()

    server = await test_server(handler)
    url = str(server.make_url("")).rstrip("/")
    type_, state, problem, version, models, loaded = expected
    assert (
        FoundServer(
            endpoint=url, type=type_, state=state, problem=problem, version=version, models=models, loaded=loaded
        ),
    ) == await find_servers([url])


async def test_a_server_that_does_not_answer_is_no_wait(
    test_server: TestServerFactory, monkeypatch: pytest.MonkeyPatch, refusing_url: str
) -> None:
    monkeypatch.setattr(detection, "_SECONDS", 0.3)
    released = asyncio.Event()

    async def handler(_: web.Request) -> web.StreamResponse:
        await released.wait()
        return web.Response()

    server = await test_server(handler)
    url = str(server.make_url("")).rstrip("/")
    servers = await find_servers([url, refusing_url])
    released.set()
    assert [(url, None, "error")] == [(server.endpoint, server.type, server.state) for server in servers]
    assert "within 0.3 s" in str(servers[0].problem)
