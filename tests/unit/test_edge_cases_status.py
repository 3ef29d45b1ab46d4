"""Edge cases of readiness: servers that respond but are not ready, and misleading statuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ctxbackends import (
    APIConnectionError,
    AuthenticationError,
    BackendConfig,
    BackendError,
    ModelLoadFailedError,
    Registry,
    ServerSleepingError,
    open_backend,
)
from ctxbackends._profiles.model_names import same_model
from ctxbackends._wire.base import HTTPResponse
from ctxbackends._wire.errors import raise_for_failed_command
from tests.conftest import Do, RawServerFactory, http_response, models_body


async def test_sleeping_vllm_is_not_ready(raw_server: RawServerFactory) -> None:
    """It would take a chat, and say nothing for ever."""
    scripts = [[http_response(200, models_body("m"))], [http_response(200, b'{"is_sleeping":true}')]]
    server = await raw_server(*[[script] for script in scripts * 2])
    async with open_backend("vllm", endpoint=server.url) as backend:
        for call in (backend.wait_ready, backend.ping):
            with pytest.raises(ServerSleepingError, match=r"wake it with load\(\)"):
                await call()


async def test_failed_load_with_status_200(raw_server: RawServerFactory) -> None:
    server = await raw_server([[http_response(200, b'{"error":"no memory"}')]])
    async with open_backend("ollama", endpoint=server.url, default_model="m") as backend:
        with pytest.raises(BackendError, match="no memory"):
            await backend.load()


@pytest.mark.parametrize("body", [b'{"success":false}', b'{"error":{"message":"no"}}'])
def test_failed_command_raises(body: bytes) -> None:
    with pytest.raises(BackendError):
        raise_for_failed_command(HTTPResponse(status=200, headers={}, body=body))


@pytest.mark.parametrize("body", [b"", b"OK", b'{"success":true}', b'{"error":null}', b"[]"])
def test_successful_command(body: bytes) -> None:
    raise_for_failed_command(HTTPResponse(status=200, headers={}, body=body))


def router_row(state: str, **more: Any) -> bytes:
    return json.dumps({"data": [{"id": "m", "status": {"value": state, **more}}]}).encode()


async def test_load_waits_for_the_router(raw_server: RawServerFactory) -> None:
    done = [[http_response(200, b'{"success":true}')]]
    server = await raw_server(
        done, [[http_response(200, router_row(state))] for state in ("loading", "loading", "loaded")]
    )
    progress: list[Any] = []
    async with open_backend("llamacpp", endpoint=server.url, default_model="m") as backend:
        await backend.load(on_progress=progress.append)
    assert ["/models/load", "/v1/models", "/v1/models", "/v1/models"] == server.paths
    assert ["loading", "loading"] == [event.state for event in progress]
    server = await raw_server(done, [[http_response(200, router_row("unloaded", failed=True, exit_code=1))]])
    async with open_backend("llamacpp", endpoint=server.url, default_model="m") as backend:
        with pytest.raises(ModelLoadFailedError):
            await backend.load()


async def test_probe_timeout_covers_all_requests_of_a_status(
    raw_server: RawServerFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctxbackends._client.call_settings.PROBE_TIMEOUT", 0.3)
    server = await raw_server(
        [[0.2, http_response(200, b'{"status":"ok"}')], [0.2, http_response(200, models_body("m"))], [Do.HANG]]
    )
    async with open_backend("llamacpp", endpoint=server.url, default_model="m") as backend:
        status = await backend.status()
    assert ("unreachable", "no complete response within 0.3 s") == (status.state, status.problem)


async def test_statuses_with_one_failure() -> None:
    class BrokenStream:
        name, type, default_model, endpoint = "b", "broken", None, "x"

        async def status(self) -> Any:
            raise BackendError("it fell over")

        async def aclose(self) -> None: ...

    async with Registry() as registry:
        registry.register("broken", lambda _config, _transport: BrokenStream())  # type: ignore[arg-type, return-value]
        registry.configure(BackendConfig(name="b", type="broken"))
        (status,) = await registry.statuses()
    assert ("error", "it fell over") == (status.state, status.problem)
    with pytest.raises(BackendError, match="closed"):
        await registry.statuses()


def test_latest_alias_of_a_model() -> None:
    assert same_model("claude-3-7-sonnet-latest", "claude-3-7-sonnet-20250219")
    assert not same_model("claude-3-7-sonnet-latest", "claude-3-5-sonnet-20241022")


async def test_llama_server_status_with_a_wrong_key(raw_server: RawServerFactory) -> None:
    refusal = http_response(401, b'{"error":{"code":401,"message":"Invalid API Key","type":"authentication_error"}}')
    server = await raw_server([[http_response(200, b'{"status":"ok"}')]], [[refusal]])
    async with open_backend("llamacpp", endpoint=server.url, default_model="m") as backend:
        status = await backend.status()
    assert ("error", True) == (status.state, "Invalid API Key" in (status.problem or ""))
    assert issubclass(AuthenticationError, BackendError)


async def test_invalid_host_name() -> None:
    async with open_backend("openai-compatible", endpoint="http://a..b", default_model="m") as backend:
        with pytest.raises(APIConnectionError, match="cannot find the host") as exc_info:
            await backend.complete("Hello")
    assert exc_info.value.permanent
