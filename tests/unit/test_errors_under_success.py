"""Errors under HTTP 200 through a backend: their class, that nothing is retried, and the route of a 404."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ctxbackends import (
    BackendError,
    Completion,
    ContextOverflowError,
    InsufficientQuotaError,
    InternalServerError,
    ModelNotFoundError,
    NotFoundError,
    RateLimitError,
    ServiceUnavailableError,
    StreamInterruptedError,
    open_backend,
)
from tests.conftest import RawServer, RawServerFactory, http_response

MODEL = {"id": "r", "model": "m"}


def choice(**members: Any) -> dict[str, Any]:
    return {**MODEL, "choices": [{"index": 0, **members}]}


async def ask(server: RawServer, stream: bool, type_: str = "openai-compatible") -> Completion:
    async with open_backend(type_, endpoint=server.url, default_model="m") as backend:
        if not stream:
            return await backend.complete("Hi")
        async with backend.stream("Hi") as answer:
            return await answer.get_final_completion()


UPSTREAM = {"code": 502, "message": "Upstream error", "metadata": {"raw": "bad gateway"}}

PLAIN = [
    (
        choice(message={"role": "assistant", "content": ""}, finish_reason=None, error=UPSTREAM),
        InternalServerError,
        502,
    ),
    (
        choice(message={"content": "par"}, finish_reason="error", error={"code": 429, "message": "x"}),
        RateLimitError,
        429,
    ),
    ({"error": {"code": 429, "message": "slow down"}}, RateLimitError, 429),
    ({"error": {"code": 503, "message": "busy"}}, ServiceUnavailableError, 503),
    ({"error": {"code": 402, "message": "pay"}}, InsufficientQuotaError, 402),
    ([{"error": {"code": 429, "message": "slow down", "status": "RESOURCE_EXHAUSTED"}}], RateLimitError, 429),
    ({"error": {"code": 400, "message": "x is not a valid model ID"}, "user_id": "u"}, ModelNotFoundError, 400),
    ({"object": "error", "message": "prompt is too long: 5 tokens > 4 maximum"}, ContextOverflowError, 200),
    (
        {"choices": None, "base_resp": {"status_code": 1008, "status_msg": "insufficient balance"}},
        InsufficientQuotaError,
        200,
    ),
]


@pytest.mark.parametrize(("body", "kind", "status"), PLAIN)
async def test_an_error_in_one_body(body: Any, kind: Any, status: int, raw_server: RawServerFactory) -> None:
    server = await raw_server(*[[[http_response(200, json.dumps(body).encode())]]] * 3)
    with pytest.raises(BackendError) as caught:
        await ask(server, stream=False)
    assert (kind, status) == (type(caught.value), caught.value.status_code)  # type: ignore[attr-defined]  # by its type
    assert json.dumps(body).encode() == caught.value.body  # type: ignore[attr-defined]
    assert 1 == len(server.requests)


@pytest.mark.parametrize("odd", [None, {}, ""])
async def test_an_empty_error_in_a_choice_is_none(odd: object, raw_server: RawServerFactory) -> None:
    body = choice(message={"content": "Hi"}, finish_reason="stop", error=odd)
    server = await raw_server([[http_response(200, json.dumps(body).encode())]])
    assert "Hi" == (await ask(server, stream=False)).text


STREAMED = [
    ({"error": {"code": 429, "message": "slow down"}}, RateLimitError),
    ({**choice(delta={"content": ""}, finish_reason="error"), "error": UPSTREAM}, InternalServerError),
    (choice(delta={}, finish_reason="error", error=UPSTREAM), InternalServerError),
    ({"error": {"message": "prompt is too long: 5 tokens > 4 maximum"}}, ContextOverflowError),
    ({"error": {"code": 400, "message": "Model Not Exist"}}, ModelNotFoundError),
    ({"error": {"code": "insufficient_quota", "message": "pay"}}, InsufficientQuotaError),
]


@pytest.mark.parametrize("content", [False, True])
@pytest.mark.parametrize(("event", "kind"), STREAMED)
async def test_an_error_in_a_stream(event: Any, kind: Any, content: bool, raw_server: RawServerFactory) -> None:
    events = [choice(delta={"role": "assistant", "content": "Hel" if content else ""}), event]
    body = "".join(f"data: {json.dumps(one)}\n\n" for one in events).encode() + b"data: [DONE]\n\n"
    server = await raw_server(*[[[http_response(200, body, Content_Type="text/event-stream")]]] * 3)
    with pytest.raises(BackendError) as caught:
        await ask(server, stream=True)
    error = caught.value
    assert 1 == len(server.requests)
    if not content:
        assert kind is type(error)
        return
    assert isinstance(error, StreamInterruptedError)
    assert "Hel" == error.partial.text
    assert kind is type(error.__cause__)
    assert str(error).startswith('backend "openai-compatible": the server sent an error in the stream: ')
    assert json.loads(error.body)


# --- the route of a 404 ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "stream", "path", "servers"),
    [
        ("ollama", False, "/api/chat", "Ollama"),
        ("ollama", True, "/api/chat", "Ollama"),
        ("anthropic", True, "/v1/messages", "Anthropic, and of servers with its Messages format"),
        ("vllm", False, "/v1/chat/completions", "OpenAI-compatible servers"),
    ],
)
async def test_a_404_names_its_route(
    type_: str, stream: bool, path: str, servers: str, raw_server: RawServerFactory
) -> None:
    server = await raw_server(*[[[http_response(404, b"404 page not found")]]] * 3)
    with pytest.raises(NotFoundError) as caught:
        await ask(server, stream, type_)
    error = caught.value
    assert ("POST", server.url + path, servers) == (error.method, error.url, error.route_servers)
    assert str(error).endswith(f"(requested: POST {server.url}{path}, a route of {servers})")


async def test_a_missing_model_names_its_route_too(raw_server: RawServerFactory) -> None:
    server = await raw_server([[http_response(404, b'{"error":{"message":"The model `m` does not exist."}}')]])
    with pytest.raises(ModelNotFoundError) as caught:
        await ask(server, stream=False)
    assert ("POST", f"{server.url}/v1/chat/completions", None) == (
        caught.value.method,
        caught.value.url,
        caught.value.route_servers,
    )


async def test_an_unknown_endpoint_of_lm_studio_names_its_route(raw_server: RawServerFactory) -> None:
    body = b'{"error":"Unexpected endpoint or method. (GET /v1/models)"}'
    server = await raw_server([[http_response(200, body)]])
    async with open_backend("openai-compatible", endpoint=server.url) as backend:
        with pytest.raises(NotFoundError) as caught:
            await backend.models()
    assert ("GET", f"{server.url}/v1/models", "OpenAI-compatible servers") == (
        caught.value.method,
        caught.value.url,
        caught.value.route_servers,
    )
