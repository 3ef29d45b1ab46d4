"""Status, loading and counting over a transport, and errors for operations that are not supported."""

from __future__ import annotations

import asyncio
import json
import math
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ctxbackends import BackendConfig, ConfigError, Registry, UnsupportedOperationError, open_backend
from ctxbackends._cli.root import ctxbackends_group
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends.testing._stand_ins.anthropic_stand_in import AnthropicStandIn
from ctxbackends.testing._stand_ins.lmstudio_stand_in import LMStudioStandIn
from ctxbackends.testing._stand_ins.ollama_stand_in import OllamaStandIn
from ctxbackends.testing._stand_ins.openai_stand_in import OpenAIStandIn
from tests.conftest import Do, RawServerFactory, http_response, models_body

LOADING = b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'


async def status_of(url: str, type_: str = "llamacpp", **settings: Any) -> Any:
    async with open_backend(type_, endpoint=url, **{"default_model": "m", **settings}) as backend:
        return await backend.status()


async def test_refused(refusing_url: str) -> None:
    status = await status_of(refusing_url)
    assert ("refused", "connection refused", "m") == (status.state, status.problem, status.model)


@pytest.mark.parametrize(
    ("script", "state", "problem"),
    [
        pytest.param([http_response(503, LOADING)], "loading", "Loading model", id="loading"),
        pytest.param([http_response(401, b'{"error":"Unauthorized"}')], "error", "HTTP 401", id="a wrong key"),
        pytest.param([http_response(502, b"<html>")], "error", "HTTP 502", id="a proxy"),
        pytest.param([Do.RESET], "unreachable", "closed the connection", id="reset"),
    ],
)
async def test_failure_is_a_state(raw_server: RawServerFactory, script: Any, state: str, problem: str) -> None:
    server = await raw_server([script])
    status = await status_of(server.url)
    assert state == status.state
    assert problem in status.problem
    requests = 2 if state == "unreachable" else 1  # aiohttp itself asks again where a connection breaks
    assert requests == len(server.requests), "nothing is waited for"


async def test_a_silent_server_is_unreachable(raw_server: RawServerFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxbackends._client.call_settings.PROBE_TIMEOUT", 0.2)
    server = await raw_server([[Do.HANG]])
    status = await status_of(server.url, ready_timeout=60)
    assert ("unreachable", True) == (status.state, "within 0.2 s" in status.problem)


async def test_status_of_an_openai_compatible_server(raw_server: RawServerFactory) -> None:
    server = await raw_server([[http_response(200, models_body("m"))]])
    status = await status_of(server.url, "openai-compatible")
    assert ("ready", "openai-compatible", server.url) == (status.state, status.backend, status.endpoint)


async def test_statuses_probe_all_backends_at_once(raw_server: RawServerFactory, refusing_url: str) -> None:
    """In parallel: the first answers only when the second was asked. One without its key is a line and no exception."""
    is_probed = asyncio.Event()

    async def second() -> None:
        while not two.requests:
            await asyncio.sleep(0.005)
        is_probed.set()

    row = await raw_server([[is_probed, http_response(200, models_body("m"))]])
    two = await raw_server([[http_response(200, models_body("m"))]])
    configs = [
        BackendConfig(name="one", type="openai-compatible", endpoint=row.url),
        BackendConfig(name="two", type="openai-compatible", endpoint=two.url),
        BackendConfig(name="gone", type="vllm", endpoint=refusing_url),
        BackendConfig(name="keyless", type="anthropic", api_key_env="NO_SUCH_VARIABLE_1"),
    ]
    async with Registry(configs) as registry:
        _, statuses = await asyncio.gather(second(), registry.statuses())
    assert ["one", "two", "gone", "keyless"] == [status.backend for status in statuses]
    assert ["ready", "ready", "refused", "error"] == [status.state for status in statuses]
    assert "NO_SUCH_VARIABLE_1" in (statuses[3].problem or "")


def ctx(*arguments: str) -> Any:
    return CliRunner().invoke(ctxbackends_group, ["status", *arguments])


def test_the_command_prints_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refusing_url: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".ctxrc").write_text(
        f"backends:\n- {{name: a, type: vllm, endpoint: '{refusing_url}', default_model: big}}\n"
        "- {name: b, type: llamacpp, model_path: none.gguf}\n",
        encoding="utf-8",
    )
    done = ctx()
    assert 0 == done.exit_code, done.output
    head, first, second = done.stdout.splitlines()
    assert ["backend", "endpoint", "state", "model", "problem"] == head.split()
    assert ["a", refusing_url, "refused", "big", "connection", "refused"] == first.split()
    assert "not started" in second
    statuses = json.loads(ctx("--json", "--backend", "a").stdout)
    assert [("a", "refused", "big")] == [(row["backend"], row["state"], row["model"]) for row in statuses]


def test_the_command_without_any_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert "no backend configured; run ctx setup" in str(ctx().exception)


# --- loading ------------------------------------------------------------------------------------------


async def test_one_task_loads_for_all() -> None:
    """And the model is looked at before each request: somebody may have unloaded it."""
    async with LMStudioStandIn() as server:
        settings: dict[str, Any] = {"context_length": 2048, "default_model": "qwen/qwen3-4b"}
        async with open_backend("lmstudio", endpoint=server.url, **settings) as backend:
            await asyncio.gather(*(backend.complete(f"[[say]]{n}[[/say]]", max_tokens=8) for n in range(5)))
            await backend.unload()
            await backend.complete("[[say]]again[[/say]]", max_tokens=8)
            assert 2048 == (await backend.status()).context_length
    loads = [request.json for request in server.requests if request.path == "/api/v1/models/load"]
    assert [2048, 2048] == [load["context_length"] for load in loads]


async def test_ollama_loads_with_the_configured_keep_alive() -> None:
    async with OllamaStandIn() as server:
        settings: dict[str, Any] = {"context_length": 8192, "keep_alive": math.inf}
        async with open_backend("ollama", endpoint=server.url, default_model="qwen3:4b", **settings) as backend:
            await backend.load()
            assert (8192, ("qwen3:4b",)) == ((await backend.status()).context_length, (await backend.status()).models)
            reply = await backend.complete("[[say]]Hi[[/say]]", max_tokens=8)
            assert reply.usage is not None
            assert reply.usage.load_seconds is not None
            await backend.unload()
            assert () == (await backend.status()).models
    chats = [request.json for request in server.requests if request.path == "/api/chat"]
    assert [8192, 8192, None] == [chat.get("options", {}).get("num_ctx") for chat in chats]
    assert [-1, -1, 0] == [chat["keep_alive"] for chat in chats]


async def test_lm_studio_is_loaded_with_the_context_before_the_first_request() -> None:
    async with LMStudioStandIn() as server:
        settings: dict[str, Any] = {"context_length": 2048, "keep_alive": 600.0, "default_model": "qwen/qwen3-4b"}
        async with open_backend("lmstudio", endpoint=server.url, **settings) as backend:
            for _ in range(2):
                await backend.complete("[[say]]Hi[[/say]]", max_tokens=8)
            assert 2048 == (await backend.status()).context_length
        async with open_backend("lmstudio", endpoint=server.url, **{**settings, "context_length": 4096}) as other:
            with pytest.raises(Exception, match="is loaded with a context of 2048 tokens"):
                await other.complete("[[say]]Hi[[/say]]", max_tokens=8)
            await other.load()
            await other.complete("[[say]]Hi[[/say]]", max_tokens=8)
            assert 4096 == (await other.status()).context_length
    loads = [request.json for request in server.requests if request.path == "/api/v1/models/load"]
    assert [2048, 4096] == [load["context_length"] for load in loads]
    chats = [request.json for request in server.requests if request.path == "/v1/chat/completions"]
    assert {600} == {chat["ttl"] for chat in chats}


@pytest.mark.parametrize("type_", ["openai", "anthropic", "openai-compatible"])
async def test_loading_that_is_not_supported(type_: str) -> None:
    async with open_backend(type_, endpoint="http://127.0.0.1:9", default_model="m") as backend:
        for operation in (backend.load, backend.unload):
            with pytest.raises(UnsupportedOperationError, match="models are always loaded"):
                await operation()


# --- what .ctxrc says for one type alone --------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (
            {"type": "vllm", "context_length": 5},
            "context_length: not supported for type vllm; supported for ollama, lmstudio",
        ),
        ({"type": "ollama", "organization": "o"}, "organization: not supported for type ollama; supported for openai"),
        ({"type": "vllm", "wire_api": "ollama"}, "wire_api: must be chat_completions or messages for type vllm"),
        ({"type": "lmstudio", "keep_alive": math.inf}, "keep_alive: must be whole seconds from 1s for type lmstudio"),
        ({"type": "lmstudio", "keep_alive": 0.5}, "keep_alive: must be whole seconds from 1s for type lmstudio"),
        (
            {"type": "ollama", "keep_alive": 5.0, "wire_api": "messages"},
            "keep_alive: not supported with wire_api: messages",
        ),
        ({"type": "ollama", "keep_alive": -1.0}, "keep_alive: must be greater than zero"),
        ({"type": "ollama", "context_length": 0}, "context_length: must be an integer from 1"),
        ({"type": "openai", "project": "a b"}, "project: must be visible ASCII"),
    ],
)
def test_unsupported_settings_are_rejected(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ConfigError) as exc_info:
        BackendConfig(name="x", **settings)
    assert str(exc_info.value).startswith(problem)


def test_every_setting_of_a_type_is_used_by_one() -> None:
    names = {name for profile in PROFILES.values() for name in profile.supported_settings}
    assert {"context_length", "keep_alive", "organization", "project"} == names


async def test_the_account_goes_as_headers() -> None:
    async with OpenAIStandIn(api_key="key-for-the-stand-in") as server:
        config = BackendConfig(
            name="o",
            type="openai",
            endpoint=server.url,
            api_key="key-for-the-stand-in",
            default_model="gpt-4.1-mini",
            organization="org-1",
            project="proj-1",
        )
        async with Registry([config]) as registry:
            await registry.resolve("o").complete("Hi", max_tokens=16)
    headers = server.requests[-1].headers
    assert ("org-1", "proj-1") == (headers["openai-organization"], headers["openai-project"])


KEY_HEADERS = (("messages", "x-api-key", "{}"), ("chat_completions", "authorization", "Bearer {}"))


async def test_key_headers_of_each_type() -> None:
    key = "key-for-the-stand-in"
    async with AnthropicStandIn(api_key=key) as server:
        for wire_api, name, value in (
            ("messages", "x-api-key", key),
            ("chat_completions", "authorization", f"Bearer {key}"),
        ):
            async with open_backend(
                "anthropic", endpoint=server.url, api_key=key, default_model="claude-haiku-4-5", wire_api=wire_api
            ) as backend:
                await backend.complete("Hi", max_tokens=16)
            headers = server.requests[-1].headers
            assert value.format(key) == headers[name]
            assert 1 == sum(key in value for value in headers.values())
