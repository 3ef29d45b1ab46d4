"""Where the API of a server begins: `endpoint`, `api_path`, and the other form after a 404."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import pytest
from aiohttp import web

from ctxbackends import Backend, BackendConfig, EndpointWarning, open_backend
from ctxbackends._config.endpoint import APIRoot, find_api_root, normalise_endpoint
from ctxbackends._config.reader import load_ctxrc
from ctxbackends._config.writer import setup_backend
from ctxbackends.errors import AuthenticationError, BadRequestError, ConfigError, ModelNotFoundError, NotFoundError
from tests.conftest import TestServerFactory, completion_body, models_body, sse

Answer: TypeAlias = tuple[int, str, bytes]
Serve: TypeAlias = Callable[[Mapping[str, Answer]], Awaitable[tuple[str, list[str]]]]

JSON = "application/json"
CHAT: Answer = (200, JSON, completion_body())
MISSING: Answer = (404, JSON, b'{"error":{"message":"Not Found"}}')
PAGE: Answer = (200, "text/html; charset=utf-8", b"<html>the web interface</html>")


@pytest.fixture
def serve(test_server: TestServerFactory) -> Serve:
    """Starts a server with these responses by path, 404 for others; returns its URL and the paths of the requests."""

    async def start(answers: Mapping[str, Answer]) -> tuple[str, list[str]]:
        paths: list[str] = []

        async def handle(request: web.Request) -> web.StreamResponse:
            paths.append(request.path)
            status, kind, body = answers.get(request.path, MISSING)
            if status == 200 and kind == JSON and b'"stream":true' in await request.read():
                kind, body = "text/event-stream", sse("Hello")
            return web.Response(status=status, body=body, headers={"Content-Type": kind})

        server = await test_server(handle)
        return str(server.make_url("")).rstrip("/"), paths

    return start


def compatible(endpoint: str, **settings: Any) -> Any:
    return open_backend("openai-compatible", endpoint=endpoint, default_model="m", max_concurrency=8, **settings)


# --- the URL as it is written -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "path", "url", "other"),
    [
        ("http://h", "/v1", "http://h/v1", "http://h"),
        ("http://h/api", "/v1", "http://h/api/v1", "http://h/api"),
        ("http://h/api/paas/v4", "/", "http://h/api/paas/v4", "http://h/api/paas/v4/v1"),
        ("http://h/v1beta", "/", "http://h/v1beta", "http://h/v1beta/v1"),
        ("http://h/v1beta2/openai", "/", "http://h/v1beta2/openai", "http://h/v1beta2/openai/v1"),
        ("http://h/openai", "/", "http://h/openai", "http://h/openai/v1"),
        ("http://h/v2.1", "/", "http://h/v2.1", "http://h/v2.1/v1"),
        ("http://h/vision", "/v1", "http://h/vision/v1", "http://h/vision"),
        ("http://h/openai-proxy", "/v1", "http://h/openai-proxy/v1", "http://h/openai-proxy"),
        ("http://h/v4/team", "/v1", "http://h/v4/team/v1", "http://h/v4/team"),
        ("http://h/inference", "/v1", "http://h/inference/v1", "http://h/inference"),
    ],
)
def test_the_path_without_a_setting(endpoint: str, path: str, url: str, other: str) -> None:
    root = find_api_root(endpoint)
    assert APIRoot(base=endpoint, url=url, other=other) == root
    assert path == root.path


@pytest.mark.parametrize(
    ("endpoint", "api_path", "preset", "url"),
    [
        ("http://h", "/", None, "http://h"),
        ("http://h", "/v9/x", None, "http://h/v9/x"),
        ("http://h/v4", "/", None, "http://h/v4"),
        ("http://h", "/a", "/b", "http://h/a"),
        ("http://h", None, "/b", "http://h/b"),
        ("http://h", None, "/", "http://h"),
    ],
)
def test_a_set_path_is_certain(endpoint: str, api_path: str | None, preset: str | None, url: str) -> None:
    assert APIRoot(base=endpoint, url=url) == find_api_root(endpoint, api_path=api_path, preset=preset)


ROUTES = [
    ("http://h/v1/chat/completions", "http://h", "chat/completions"),
    ("http://h/v1/chat/completions/", "http://h", "chat/completions"),
    ("http://h/chat/completions", "http://h", "chat/completions"),
    ("http://h/api/paas/v4/chat/completions", "http://h/api/paas/v4", "chat/completions"),
    ("http://h/v1/completions", "http://h", "completions"),
    ("http://h/v1/embeddings", "http://h", "embeddings"),
    ("http://h/v1/responses", "http://h", "responses"),
    ("http://h/v1/models", "http://h", "models"),
    ("http://h/v1beta/openai/models", "http://h/v1beta/openai", "models"),
    ("http://h/v1/messages", "http://h", "messages"),
    ("http://h:11434/api/chat", "http://h:11434", "api/chat"),
    ("http://h:11434/api/generate", "http://h:11434", "api/generate"),
]


@pytest.mark.parametrize(("written", "endpoint", "route"), ROUTES)
def test_a_route_at_the_end_is_removed(written: str, endpoint: str, route: str) -> None:
    with pytest.warns(EndpointWarning, match=f"^endpoint: /{route} was removed from the end"):
        config = BackendConfig(name="a", type="openai-compatible", endpoint=written)
    assert endpoint == config.endpoint


@pytest.mark.parametrize("written", ["http://h/models", "http://h/messages", "http://h/mycompletions", "http://h/chat"])
def test_a_path_that_only_looks_like_a_route_is_kept(written: str) -> None:
    assert written == normalise_endpoint(written)


@pytest.mark.parametrize(
    ("written", "api_path", "endpoint"),
    [
        ("http://h/v4", "/v4", "http://h"),
        ("http://h/v4/", "/v4", "http://h"),
        ("http://h/v1", "/", "http://h/v1"),
        ("http://h/v1", "/v2", "http://h/v1"),
        ("http://h/a/b", "/a/b/", "http://h"),
    ],
)
def test_the_set_path_is_not_added_twice(written: str, api_path: str, endpoint: str) -> None:
    config = BackendConfig(name="a", type="openai-compatible", endpoint=written, api_path=api_path)
    assert (endpoint, api_path.rstrip("/") or "/") == (config.endpoint, config.api_path)
    assert config == attrs.evolve(config)


def test_a_route_in_the_set_path_is_removed() -> None:
    with pytest.warns(EndpointWarning, match="^api_path: /chat/completions was removed"):
        config = BackendConfig(name="vllm", api_path="/v3/chat/completions")
    assert "/v3" == config.api_path


@pytest.mark.parametrize("api_path", ["", "v1", "/v1?x=1", "/a b", "//h", "/a/../b", "/ä", "/${X}", "/a#b", 5, "/a\n"])
def test_an_invalid_path(api_path: Any) -> None:
    with pytest.raises(ConfigError, match=r"^api_path: must be a path such as ") as exc_info:
        BackendConfig(name="vllm", api_path=api_path)
    assert ("api_path", "vllm") == (exc_info.value.key, exc_info.value.backend)


@pytest.mark.parametrize("endpoint", ["http://h", "http://h/api", "http://h/v4", "http://h/v1/v1"])
def test_setup_writes_an_endpoint_that_is_read_again(endpoint: str, tmp_path: Path) -> None:
    path = tmp_path / ".ctxrc"
    for type_ in ("openai-compatible", "zai", "infinity"):
        setup_backend(path, type=type_, endpoint=endpoint)
    expected = {
        type_: BackendConfig(name=type_, endpoint=endpoint).endpoint
        for type_ in ("openai-compatible", "zai", "infinity")
    }
    assert expected == {config.type: config.endpoint for config in load_ctxrc(path).backends}


# --- the other form after a 404 -----------------------------------------------------------------------


async def complete(backend: Backend) -> str:
    return (await backend.complete("Hi")).text


async def stream(backend: Backend) -> str:
    async with backend.stream("Hi") as answer:
        return (await answer.get_final_completion()).text


async def list_models(backend: Backend) -> str:
    return (await backend.models())[0].id


async def embed(backend: Backend) -> str:
    return str((await backend.embed("x")).vectors[0][0])


OPERATIONS = [
    pytest.param(complete, "/chat/completions", CHAT, "Hello", id="complete"),
    pytest.param(stream, "/chat/completions", CHAT, "Hello", id="stream"),
    pytest.param(list_models, "/models", (200, JSON, models_body("m1")), "m1", id="models"),
    pytest.param(embed, "/embeddings", (200, JSON, b'{"data":[{"index":0,"embedding":[0.5]}]}'), "0.5", id="embed"),
]


@pytest.mark.parametrize(("operation", "route", "answer", "result"), OPERATIONS)
@pytest.mark.parametrize(
    ("base", "first", "second", "api_path"),
    [("/inference", "/inference/v1", "/inference", "/"), ("/openai", "/openai", "/openai/v1", "/v1")],
)
async def test_the_other_form_is_tried_once_and_kept(
    operation: Callable[[Backend], Awaitable[str]],
    route: str,
    answer: Answer,
    result: str,
    base: str,
    first: str,
    second: str,
    api_path: str,
    serve: Serve,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, logger="ctxbackends")
    url, paths = await serve({second + route: answer})
    async with compatible(url + base) as backend:
        assert result == await operation(backend)
        assert result == await operation(backend)
        assert [first + route, second + route, second + route] == paths
        assert api_path == (await backend.status()).api_path
    logged = [record.getMessage() for record in caplog.records if record.levelno == logging.INFO]
    before = "/v1" if api_path == "/" else "/"
    assert [f"Using api_path {api_path} for openai-compatible: {route} is not below {before}"] == logged


async def test_the_slot_is_free_again_for_the_other_form(serve: Serve) -> None:
    url, _ = await serve({"/x/chat/completions": CHAT})
    async with open_backend("openai-compatible", endpoint=url + "/x", default_model="m", max_concurrency=1) as backend:
        assert ["Hello"] * 4 == await asyncio.gather(*(complete(backend) for _ in range(4)))
        assert "Hello" == await stream(backend)


async def test_requests_at_the_same_time_all_find_the_other_form(serve: Serve) -> None:
    url, _ = await serve({"/x/chat/completions": CHAT})
    async with compatible(url + "/x") as backend:
        assert ["Hello"] * 8 == await asyncio.gather(*(complete(backend) for _ in range(8)))


async def test_after_a_success_nothing_else_is_tried(serve: Serve) -> None:
    url, paths = await serve({"/v1/chat/completions": CHAT, "/embeddings": CHAT})
    async with compatible(url) as backend:
        await complete(backend)
        with pytest.raises(NotFoundError):
            await embed(backend)
    assert ["/v1/chat/completions", "/v1/embeddings"] == paths


@pytest.mark.parametrize("operation", [complete, stream, list_models, embed])
async def test_where_neither_form_exists_the_first_error_is_raised(
    operation: Callable[[Backend], Awaitable[str]], serve: Serve
) -> None:
    url, paths = await serve({})
    async with compatible(url) as backend:
        with pytest.raises(NotFoundError) as exc_info:
            await operation(backend)
        assert 2 == len(paths)
        assert url + paths[0] == exc_info.value.url
        assert paths[0].startswith("/v1/")
        assert "/v1" == (await backend.status()).api_path


async def test_a_missing_model_is_not_a_missing_route(serve: Serve) -> None:
    missing = (404, JSON, b'{"error":{"message":"The model `m` does not exist.","code":"model_not_found"}}')
    url, paths = await serve({"/v1/chat/completions": missing, "/chat/completions": CHAT})
    async with compatible(url) as backend:
        for operation in (complete, stream):
            with pytest.raises(ModelNotFoundError):
                await operation(backend)
    assert ["/v1/chat/completions"] * 2 == paths


@pytest.mark.parametrize(
    ("status", "body", "kind", "kept"),
    [
        (404, b'{"error":{"message":"model `m` not found","code":"model_not_found"}}', ModelNotFoundError, True),
        (400, b'{"error":{"message":"bad temperature"}}', BadRequestError, True),
        (401, b'{"error":{"message":"no key"}}', AuthenticationError, False),
        (405, b'{"error":{"message":"use GET"}}', NotFoundError, False),
        (403, b"<html>go away</html>", NotFoundError, False),
        (500, b"<html>oops</html>", NotFoundError, False),
    ],
)
async def test_an_error_of_the_other_form(
    status: int, body: bytes, kind: type[Exception], kept: bool, serve: Serve
) -> None:
    url, paths = await serve({"/chat/completions": (status, JSON, body)})
    async with compatible(url) as backend:
        for operation in (complete, stream):
            with pytest.raises(kind) as exc_info:
                await operation(backend)
            assert kind is type(exc_info.value)
    first, second = "/v1/chat/completions", "/chat/completions"
    assert ([first, second, second] if kept else [first, second, first, second]) == paths


@pytest.mark.parametrize("status", [401, 403, 500])
async def test_an_error_of_the_other_form_says_nothing_about_a_list(status: int, serve: Serve) -> None:
    url, _ = await serve({"/models": (status, JSON, b'{"error":{"message":"no"}}')})
    async with compatible(url) as backend:
        with pytest.raises(NotFoundError):
            await list_models(backend)


@pytest.mark.parametrize("operation", [complete, stream, list_models])
async def test_a_page_is_not_an_api(operation: Callable[[Backend], Awaitable[str]], serve: Serve) -> None:
    url, paths = await serve({"/chat/completions": PAGE, "/models": PAGE})
    async with compatible(url) as backend:
        for _ in range(2):
            with pytest.raises(NotFoundError):
                await operation(backend)
    assert 4 == len(paths)


async def test_a_page_at_the_first_form_does_not_confirm_it(serve: Serve) -> None:
    url, _ = await serve({"/v1/models": PAGE, "/chat/completions": CHAT})
    async with compatible(url) as backend:
        await backend.status()
        assert "Hello" == await complete(backend)


@pytest.mark.parametrize("settings", [{"api_path": "/v1"}, {"api_path": "/"}])
async def test_a_set_path_has_no_other_form(settings: dict[str, str], serve: Serve) -> None:
    url, paths = await serve({})
    async with compatible(url, **settings) as backend:
        with pytest.raises(NotFoundError):
            await complete(backend)
        assert settings["api_path"] == (await backend.status()).api_path
    assert [settings["api_path"].rstrip("/") + "/chat/completions"] == paths[:1]
    assert 2 == len(paths)  # with that of the status


async def test_the_servers_own_routes_have_no_other_form(serve: Serve) -> None:
    url, paths = await serve({})
    async with open_backend("ollama", endpoint=url, default_model="m") as backend:
        with pytest.raises(NotFoundError):
            await complete(backend)
    assert ["/api/chat"] == paths


async def test_the_servers_own_routes_are_below_the_endpoint(serve: Serve) -> None:
    answers = {
        "/root/tokenize": (200, JSON, b'{"count":3,"tokens":[1,2,3],"max_model_len":9}'),
        "/root/api/chat/completions": CHAT,
    }
    url, paths = await serve(answers)
    async with open_backend("vllm", endpoint=url + "/root", api_path="/api", default_model="m") as backend:
        assert 3 == await backend.count_tokens("Hi")
        assert "Hello" == await complete(backend)
    assert ["/root/tokenize", "/root/api/chat/completions"] == paths


async def test_messages_has_the_path_too(serve: Serve) -> None:
    url, paths = await serve({})
    async with open_backend("anthropic", endpoint=url, api_path="/x/v2", default_model="m") as backend:
        with pytest.raises(NotFoundError):
            await complete(backend)
    assert ["/x/v2/messages"] == paths
