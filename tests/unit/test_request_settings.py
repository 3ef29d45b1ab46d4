"""Query, headers, Basic authentication, variables, and members of the body: checks, requests and secrets."""

from __future__ import annotations

import json
import logging
import pickle
from base64 import b64encode
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeAlias

import attrs
import pytest
from aiohttp import web

from ctxbackends import (
    BackendConfig,
    JSONObjectFormat,
    JSONSchemaFormat,
    Message,
    Registry,
    Tool,
    UnsupportedOptionError,
    extract,
    open_backend,
)
from ctxbackends._client.urls import ServerURLs
from ctxbackends._config.endpoint import find_api_root
from ctxbackends._config.reader import parse_ctxrc
from ctxbackends._config.writer import setup_backend
from ctxbackends.errors import (
    AirgapError,
    APIStatusError,
    BackendError,
    ConfigError,
    InvalidEndpointError,
    MissingKeyError,
    StructuredOutputError,
)
from tests.conftest import TestServerFactory, completion_body, models_body, sse

KEY = "sk-made-up-0123456789abcdef"
PASSWORD = "made-up-password"  # a secret in the environment
Request: TypeAlias = tuple[str, dict[str, str], Any]


@attrs.frozen
class Server:
    url: str
    requests: list[Request]


@pytest.fixture
def serve(test_server: TestServerFactory) -> Callable[..., Awaitable[Server]]:
    """Starts a server that answers chats with ``text`` or ``body``, and keeps URL, headers and body of each request."""

    async def start(text: str = "Hello", *, status: int = 200, body: bytes | None = None) -> Server:
        requests: list[Request] = []

        async def handle(request: web.Request) -> web.StreamResponse:
            data = await request.read()
            value = json.loads(data) if data else None
            requests.append((str(request.rel_url), dict(request.headers), value))
            if request.method == "GET":
                return web.Response(body=models_body("m"))
            if isinstance(value, dict) and value.get("stream"):
                return web.Response(body=sse(text), content_type="text/event-stream")
            if request.path.endswith("/embeddings"):
                return web.Response(body=b'{"data":[{"index":0,"embedding":[0.5]}]}', content_type="application/json")
            return web.Response(
                status=status, body=completion_body(text) if body is None else body, content_type="application/json"
            )

        server = await test_server(handle)
        return Server(str(server.make_url("")).rstrip("/"), requests)

    return start


Serve: TypeAlias = Callable[..., Awaitable[Server]]


def compatible(endpoint: str, **settings: Any) -> Any:
    return open_backend("openai-compatible", **{"endpoint": endpoint, "default_model": "m", **settings})


# --- wrong use ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "key", "problem"),
    [
        ({"query": "a=b"}, "query", "must be a mapping of names to strings"),
        ({"query": {"a": 1}}, "query", "must be a mapping of names to strings"),
        ({"query": {}}, "query", "must not be empty; omit it for none"),
        ({"query": {"": "x"}}, "query", "the names must not be empty, have control characters or look like API keys"),
        ({"query": {"a": ""}}, "query", "a: must not be empty or have leading or trailing white space"),
        ({"query": {"a": "x\ny"}}, "query", "a: must not contain control characters"),
        (
            {"query": {"key": KEY}},
            "query",
            "key: looks like an API key (not shown); put it into an environment variable",
        ),
        ({"query": {"a": "${}"}}, "query", "a: invalid reference to a variable; write a variable as ${NAME}"),
        ({"headers": ["X-A: b"]}, "headers", "must be a mapping of names to strings"),
        ({"headers": {}}, "headers", "must not be empty"),
        ({"headers": {"X A": "b"}}, "headers", "X A: not a valid name of a header"),
        ({"headers": {"X-A": "ä"}}, "headers", "X-A: must be printable ASCII"),
        ({"headers": {"X-A": "a\r\nX-B: c"}}, "headers", "X-A: must be printable ASCII"),
        ({"headers": {"X-A": "${A"}}, "headers", "X-A: invalid reference to a variable"),
        ({"headers": {"X-A": KEY}}, "headers", "X-A: looks like an API key (not shown)"),
        ({"headers": {"X-A": f"${{A}} {KEY}"}}, "headers", "X-A: looks like an API key (not shown)"),
        ({"headers": {"Content-Length": "3"}}, "headers", "Content-Length: the SDK sets this header"),
        ({"headers": {"host": "h"}}, "headers", "host: the SDK sets this header"),
        ({"headers": {"X-A": "b", "x-a": "c"}}, "headers", "x-a: the header is set twice"),
        *(
            ({"headers": {name: "word"}}, "headers", f"{name}: a secret isn't allowed here; put it into an environment")
            for name in ("Authorization", "authorization", "api-key", "X-API-Key", "Proxy-Authorization", "Cookie")
        ),
        ({"headers_env": {"X-A": KEY}}, "headers_env", "X-A: must be the name of an environment variable"),
        ({"headers_env": {"X-A": "two words"}}, "headers_env", "X-A: must be the name of an environment variable"),
        ({"headers_env": {"X-A": ""}}, "headers_env", "X-A: must be the name of an environment variable"),
        ({"headers": {"X-A": "b"}, "headers_env": {"x-a": "C"}}, "headers_env", "x-a: the header is set twice"),
        ({"basic_auth_env": "me:secret"}, "basic_auth_env", "must be the name of an environment variable"),
        ({"basic_auth_env": ""}, "basic_auth_env", "must be the name of an environment variable"),
        ({"basic_auth_env": "A", "headers_env": {"authorization": "B"}}, "basic_auth_env", "the header Authorization"),
        ({"omit": "seed"}, "omit", "must be a list of members of the request body"),
        ({"omit": []}, "omit", "must be a list of members"),
        ({"omit": [1]}, "omit", "must be a list of members"),
        ({"omit": ["a.b"]}, "omit", "not a member at the top level of the request body: 'a.b'"),
        ({"omit": ["messages"]}, "omit", "messages is part of every request"),
        ({"rename": {"model": "m"}}, "rename", "model is part of every request"),
        ({"rename": {"seed": "model"}}, "rename", "model is part of every request"),
        ({"rename": {"a": "c", "b": "c"}}, "rename", "a name is used twice"),
        ({"rename": {"a": "b", "b": "c"}}, "rename", "a name is used twice"),
        ({"rename": {"a": ""}}, "rename", "not a member at the top level of the request body: ''"),
        ({"rename": {"a": "b"}, "omit": ["a"]}, "rename", "a is in omit too; remove one"),
        ({"json_mode": 1}, "json_mode", "must be true or false"),
        ({"json_mode": "yes"}, "json_mode", "must be true or false"),
        ({"json_mode": True, "wire_api": "messages"}, "json_mode", "not supported with wire_api: messages"),
        ({"unix_socket": ""}, "unix_socket", "must not be empty"),
        ({"unix_socket": "/" + "x" * 107}, "unix_socket", "must have at most 107 bytes"),
        ({"unix_socket": "/s", "trust_env": True}, "unix_socket", "not supported with trust_env"),
        ({"unix_socket": "/s", "endpoint": "https://localhost"}, "unix_socket", "requires an endpoint such as"),
        (
            {"unix_socket": "/s", "endpoint": "http://gpu"},
            "unix_socket",
            "requires an endpoint such as http://localhost",
        ),
        (
            {"unix_socket": "/s", "endpoint": "https://localhost", "ca_bundle": "/ca.pem"},
            "unix_socket",
            "not supported with ca_bundle",
        ),
    ],
)
def test_wrong_use(settings: dict[str, Any], key: str, problem: str) -> None:
    with pytest.raises(ConfigError) as exc_info:
        BackendConfig(name="mine", type="openai-compatible", **{"endpoint": "http://localhost", **settings})
    assert (key, "mine") == (exc_info.value.key, exc_info.value.backend)
    assert exc_info.value.problem.startswith(problem)
    assert KEY not in str(exc_info.value)


@pytest.mark.parametrize(
    "settings",
    [
        {"api_path": "/x"},
        {"query": {"a": "b"}},
        {"headers": {"X-A": "b"}},
        {"headers_env": {"X-A": "B"}},
        {"basic_auth_env": "B"},
        {"unix_socket": "/s"},
    ],
)
def test_settings_that_a_managed_server_does_not_have(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="not supported with model_path") as exc_info:
        BackendConfig(name="llamacpp", model_path="/m.gguf", **settings)
    assert [*settings] == [exc_info.value.key]


def test_ollamas_own_format_has_no_json_mode() -> None:
    with pytest.raises(ConfigError, match="not supported with wire_api: ollama"):
        BackendConfig(name="ollama", json_mode=True)
    assert BackendConfig(name="ollama", json_mode=True, wire_api="chat_completions").json_mode


def test_a_configuration_is_immutable_hashable_and_can_be_pickled() -> None:
    query = {"a": "b"}
    config = BackendConfig(name="vllm", query=query, rename={"x": "y"}, omit=["seed"], headers={"X-A": "b"})
    query["a"] = "changed"
    assert ({"a": "b"}, ("seed",)) == (config.query, config.omit)
    assert config == pickle.loads(pickle.dumps(config)) == attrs.evolve(config)  # noqa: S301  # made here
    assert hash(config) == hash(attrs.evolve(config))
    with pytest.raises(TypeError):
        config.query["a"] = "c"  # type: ignore[index]


# --- .ctxrc -------------------------------------------------------------------------------------------

CTXRC = """
backends:
  - name: a
    type: openai-compatible
    endpoint: http://${HOST}/x
    api_path: /v2
    query: {api-version: 2024-10-21, "n": 3, flag: true}
    headers:
      X-Title: my app
      X-Token: ${TOKEN}
    headers_env: {api-key: SOME_KEY}
    omit: [stream_options]
    rename: {max_tokens: max_completion_tokens}
    json_mode: true
  - name: b
    type: ollama
    basic_auth_env: LOGIN
    unix_socket: run/o.sock
"""


def test_the_settings_in_a_file(tmp_path: Path) -> None:
    first, second = parse_ctxrc(CTXRC, path=str(tmp_path / ".ctxrc")).backends
    assert ("http://${HOST}/x", "/v2") == (first.endpoint, first.api_path)
    assert {"api-version": "2024-10-21", "n": "3", "flag": "true"} == first.query
    assert {"X-Title": "my app", "X-Token": "${TOKEN}"} == first.headers
    assert ({"api-key": "SOME_KEY"}, ("stream_options",), True) == (first.headers_env, first.omit, first.json_mode)
    assert {"max_tokens": "max_completion_tokens"} == first.rename
    assert ("LOGIN", str(tmp_path / "run/o.sock")) == (second.basic_auth_env, second.unix_socket)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("query: 5", "backends[0].query: must be a mapping, such as {name: value}"),
        ("query: {a: }", "backends[0].query: a: must be a string; put it in quotes"),
        ("query: {a: [b]}", "backends[0].query: a: must be a string; put it in quotes"),
        ("query: {a: b, a: c}", "backends[0].query: duplicate name: a"),
        ("query: {<<: {a: b}}", "backends[0].query: the names must be strings; merge keys are not supported here"),
        ("headers: {Authorization: word}", "backends[0].headers: Authorization: a secret isn't allowed here"),
        (f"headers: {{X-A: {KEY}}}", "backends[0].headers: X-A: looks like an API key (not shown)"),
        (f"headers: {{{KEY}: a}}", "backends[0].headers: (not shown): "),
        ("omit: seed", "backends[0].omit: must be a list of names, such as [stream_options]"),
        ("omit: [5]", "backends[0].omit: must be a list of names, such as [stream_options]"),
        ("json_mode: yes", "backends[0].json_mode: must be true or false, without quotes"),
        ("api_path: v1", "backends[0].api_path: must be a path such as /api/v2, without a query; / for none"),
        (
            "endpoint: http://${A/x",
            "backends[0].endpoint: invalid reference to a variable; write a variable as ${NAME}",
        ),
    ],
)
def test_wrong_use_in_a_file_has_its_line(line: str, problem: str) -> None:
    with pytest.raises(ConfigError) as exc_info:
        parse_ctxrc(f"backends:\n  - name: vllm\n    {line}\n", path="/x/.ctxrc")
    assert str(exc_info.value).startswith(f"/x/.ctxrc:3: {problem}")
    assert KEY not in str(exc_info.value)


def test_setup_keeps_the_settings(tmp_path: Path) -> None:
    path = tmp_path / ".ctxrc"
    path.write_text(CTXRC)
    before = parse_ctxrc(CTXRC, path=str(path)).backends[0]
    setup_backend(path, type="openai-compatible", name="a", default_model="big")
    text = path.read_text()
    assert CTXRC.replace("    json_mode: true\n", "    json_mode: true\n    default_model: big\n") == text
    assert attrs.evolve(before, default_model="big") == parse_ctxrc(text, path=str(path)).backends[0]


def test_setup_writes_a_variable(tmp_path: Path) -> None:
    path = tmp_path / ".ctxrc"
    setup_backend(path, type="vllm", endpoint="${VLLM_URL}")
    assert 'endpoint: "${VLLM_URL}"' in path.read_text()


# --- query and headers --------------------------------------------------------------------------------


async def test_query_and_headers_are_sent_with_every_request(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    monkeypatch.setenv("TOKEN", "word")
    server = await serve()
    settings = {
        "query": {"api-version": "2024-10-21", "q": "a b&c"},
        "headers": {"X-Title": "my app", "Authorization": "Token ${TOKEN}", "User-Agent": "mine"},
        "headers_env": {"api-key": "SOME_KEY"},
    }
    async with compatible(server.url, **settings) as backend:
        await backend.complete("Hi")
        async with backend.stream("Hi") as stream:
            await stream.get_final_completion()
        await backend.models()
        await backend.embed("x")
    query = "?api-version=2024-10-21&q=a+b%26c"
    paths = ["/v1/chat/completions", "/v1/chat/completions", "/v1/models", "/v1/embeddings"]
    assert [path + query for path in paths] == [url for url, _, _ in server.requests]
    sent = {"X-Title": "my app", "Authorization": "Token word", "User-Agent": "mine", "api-key": KEY}
    for _, headers, _ in server.requests:
        assert sent == {name: headers[name] for name in sent}


def test_the_query_follows_that_of_the_request() -> None:
    urls = ServerURLs(find_api_root("http://h"), "a=b", backend="mine")
    expected = ["http://h/v1/models?limit=5&a=b", "http://h/v1/models?a=b", "http://h/props?a=b"]
    assert expected == [urls.get(path) for path in ("/v1/models?limit=5", "/v1/models", "/props")]


async def test_azure_with_a_deployment_in_the_path(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AZURE_OPENAI_API_KEY", KEY)
    server = await serve()
    async with open_backend(
        "azure-openai",
        endpoint=server.url,
        api_path="/openai/deployments/gpt4",
        query={"api-version": "2024-10-21"},
        default_model="m",
    ) as backend:
        await backend.complete("Hi")
    ((url, headers, _),) = server.requests
    assert "/openai/deployments/gpt4/chat/completions?api-version=2024-10-21" == url
    assert (KEY, None) == (headers.get("api-key"), headers.get("Authorization"))


async def test_a_header_replaces_the_default_key_and_not_a_set_one(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("TOKEN", "word")
    server = await serve()
    headers = {"authorization": "Bearer ${TOKEN}"}
    async with open_backend("openai", endpoint=server.url, default_model="m", headers=headers) as backend:
        await backend.complete("Hi")
    assert "Bearer word" == server.requests[0][1]["Authorization"]
    assert KEY not in str(server.requests)
    explicit: tuple[dict[str, Any], ...] = ({"api_key": KEY}, {"api_key_env": "OPENAI_API_KEY"})
    for settings in explicit:
        with pytest.raises(ConfigError, match="the header Authorization carries the API key already"):
            async with open_backend("openai", endpoint=server.url, headers=headers, **settings):
                pass


async def test_a_header_that_another_setting_sends(serve: Serve) -> None:
    server = await serve()
    with pytest.raises(ConfigError, match="the header OpenAI-Project is set by another setting too"):
        async with open_backend("openai", endpoint=server.url, project="p", headers={"openai-project": "q"}):
            pass


# --- Basic authentication -----------------------------------------------------------------------------


async def test_basic_authentication(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGIN", f"me:{PASSWORD}:ü")
    server = await serve()
    async with compatible(server.url, basic_auth_env="LOGIN") as backend:
        await backend.complete("Hi")
    encoded = b64encode(f"me:{PASSWORD}:ü".encode()).decode()
    assert f"Basic {encoded}" == server.requests[0][1]["Authorization"]


@pytest.mark.parametrize("value", [PASSWORD, f":{PASSWORD}", f"me:{PASSWORD}\n"])
async def test_an_invalid_login(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGIN", value)
    with pytest.raises(ConfigError, match="invalid value in the variable LOGIN: it must be user:password") as exc_info:
        async with compatible("http://h", basic_auth_env="LOGIN"):
            pass
    assert "basic_auth_env" == exc_info.value.key
    assert PASSWORD not in str(exc_info.value)


async def test_basic_authentication_beside_anthropics_key(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOGIN", "me:word")
    server = await serve(status=500)
    async with open_backend(
        "anthropic", endpoint=server.url, api_key=KEY, basic_auth_env="LOGIN", default_model="m"
    ) as backend:
        with pytest.raises(APIStatusError):
            await backend.complete("Hi")
    headers = server.requests[0][1]
    assert (KEY, "Basic bWU6d29yZA==") == (headers["x-api-key"], headers["Authorization"])


# --- variables ----------------------------------------------------------------------------------------

REFERENCES: list[tuple[dict[str, Any], str]] = [
    ({"endpoint": "${NOT_SET}"}, "the endpoint"),
    ({"headers": {"X-A": "a ${NOT_SET}"}}, "a part of the header X-A"),
    ({"headers_env": {"X-A": "NOT_SET"}}, "the header X-A"),
    ({"query": {"q": "${NOT_SET}"}}, "a part of the query q"),
    ({"basic_auth_env": "NOT_SET"}, "user:password"),
]


@pytest.mark.parametrize("empty", [False, True])
@pytest.mark.parametrize(("settings", "purpose"), REFERENCES)
async def test_an_unset_variable_is_named(
    settings: dict[str, Any], purpose: str, empty: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if empty:
        monkeypatch.setenv("NOT_SET", "")
    else:
        monkeypatch.delenv("NOT_SET", raising=False)
    config = BackendConfig(name="mine", type="openai-compatible", **{"endpoint": "http://h", **settings})
    async with Registry([config]) as registry:  # other backends of the file can be used
        with pytest.raises(MissingKeyError) as exc_info:
            registry.resolve("mine")
        assert ("NOT_SET", "mine") == (exc_info.value.variable, exc_info.value.backend)
        problem = f'environment variable not set: NOT_SET; set it to {purpose} of backend "mine"'
        assert problem == str(exc_info.value)
        assert [problem] == [status.problem for status in await registry.statuses()]


@pytest.mark.parametrize(
    ("template", "base"),
    [("${SERVER}", ""), ("${SERVER}/v1", ""), ("http://${HOST}", ""), ("http://127.0.0.1:${PORT}/${PART}/v1", "/team")],
)
async def test_variables_in_the_endpoint(
    template: str, base: str, serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = await serve()
    monkeypatch.setenv("SERVER", server.url)
    monkeypatch.setenv("HOST", server.url.removeprefix("http://"))
    monkeypatch.setenv("PORT", server.url.rpartition(":")[2])
    monkeypatch.setenv("PART", "team")
    async with compatible(template) as backend:
        await backend.complete("Hi")
        assert backend.endpoint.startswith(server.url)
    assert [f"{base}/v1/chat/completions"] == [url for url, _, _ in server.requests]


@pytest.mark.parametrize(
    "value", ["gpu", "ftp://h", "http://me:hidden@h", "http://h?x=1", "http://${OTHER}", "http://", "http://h\n"]
)
async def test_a_variable_that_is_no_endpoint(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER", value)
    with pytest.raises(InvalidEndpointError) as exc_info:
        async with compatible("${SERVER}"):
            pass
    assert ("endpoint", "openai-compatible") == (exc_info.value.key, exc_info.value.backend)
    assert "hidden" not in str(exc_info.value)


@pytest.mark.parametrize(("host", "allowed"), [("127.0.0.1", True), ("10.1.2.3", True), ("93.184.216.34", False)])
async def test_the_airgap_judges_the_expanded_endpoint(
    host: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOST", host)
    config = BackendConfig(name="mine", type="vllm", endpoint="http://${HOST}:8000")
    async with Registry([config], airgap=True) as registry:
        if allowed:
            assert f"http://{host}:8000" == registry.resolve("mine").endpoint
            return
        with pytest.raises(AirgapError, match=host):
            registry.resolve("mine")


async def test_the_airgaps_error_shows_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKEN", "made-up-token")
    config = BackendConfig(name="mine", type="vllm", endpoint="http://93.184.216.34/${TOKEN}")
    async with Registry([config], airgap=True) as registry:
        with pytest.raises(AirgapError, match=r"^airgap: the endpoint http://93.184.216.34/.masked. is neither"):
            registry.resolve("mine")


async def test_a_literal_value_is_not_expanded_twice(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("A", "${B}")
    monkeypatch.setenv("B", "secret")
    server = await serve()
    async with compatible(server.url, headers={"X-A": "${A} $B $$ {B}"}) as backend:
        await backend.complete("Hi")
    assert "${B} $B $$ {B}" == server.requests[0][1]["X-A"]


# --- secrets ------------------------------------------------------------------------------------------

SECRETS = {
    "FIRST": "first-made-up-secret",
    "SECOND": "second-made-up-secret",
    "THIRD": "third-made-up-secret",
    "FOURTH": "fourth made-up&secret",
    "LOGIN": f"me:{PASSWORD}",
}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_value_from_a_variable_is_in_no_error_and_no_log(
    stream: bool, test_server: TestServerFactory, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)

    async def echo(request: web.Request) -> web.StreamResponse:
        text = json.dumps({"error": {"message": f"{request.rel_url} {dict(request.headers)}"}})
        return web.Response(status=404, text=text, content_type="application/json", headers={"X-Echo": text})

    server = await test_server(echo)
    settings: dict[str, Any] = {
        "endpoint": f"{str(server.make_url('')).rstrip('/')}/${{FIRST}}",
        "headers": {"X-A": "Token ${SECOND}"},
        "headers_env": {"X-B": "THIRD"},
        "query": {"q": "${FOURTH}"},
        "basic_auth_env": "LOGIN",
    }
    async with compatible(**settings) as backend:
        with pytest.raises(BackendError) as exc_info:
            if stream:
                async with backend.stream("Hi"):
                    pass
            await backend.complete("Hi")
        error = exc_info.value
        status = await backend.status()
        texts = [str(error), repr(vars(error)), repr(backend), backend.endpoint, str(status)]
        texts += [repr(vars(record)) for record in caplog.records if record.name == "ctxbackends"]
    encoded = b64encode(SECRETS["LOGIN"].encode()).decode()
    for text in texts:
        for secret in (*SECRETS.values(), PASSWORD, encoded, "fourth+made-up%26secret"):
            assert secret not in text
    assert str(server.port) in backend.endpoint
    assert "/[masked]" in backend.endpoint


async def test_a_secret_is_not_in_the_repr_of_the_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SECRETS.items():
        monkeypatch.setenv(name, value)
    config = BackendConfig(name="vllm", headers={"X-A": "${FIRST}"}, headers_env={"X-B": "SECOND"})
    assert "made-up" not in repr(config)
    assert "${FIRST}" in repr(config)


# --- members of the body ------------------------------------------------------------------------------


async def test_omitted_members_are_not_sent(serve: Serve) -> None:
    server = await serve()
    async with compatible(server.url, omit=["stream_options", "encoding_format"]) as backend:
        async with backend.stream("Hi") as stream:
            await stream.get_final_completion()
        await backend.embed("x")
    messages = [{"role": "user", "content": "Hi"}]
    assert {"model": "m", "messages": messages, "stream": True} == server.requests[0][2]
    assert {"model": "m", "input": ["x"]} == server.requests[1][2]


@pytest.mark.parametrize(
    ("omit", "options", "option"),
    [
        ("temperature", {"temperature": 0.5}, "temperature"),
        ("stop", {"stop_sequences": ["x"]}, "stop_sequences"),
        ("response_format", {"response_format": JSONObjectFormat()}, "response_format: json_object"),
        ("tools", {"tools": [Tool("t", "", {"type": "object"})]}, "tools"),
        ("user", {"extra_body": {"user": "me"}}, "extra_body: user"),
        ("stream_options", {"extra_body": {"stream_options": {}}}, "extra_body: stream_options"),
    ],
)
async def test_an_omitted_member_that_is_set(omit: str, options: dict[str, Any], option: str, serve: Serve) -> None:
    server = await serve()
    async with compatible(server.url, omit=[omit]) as backend:
        with pytest.raises(UnsupportedOptionError) as exc_info:
            await backend.complete("Hi", **options)
        assert option == exc_info.value.option
        assert "this backend leaves it out (omit in its configuration)" in str(exc_info.value)
        await backend.complete("Hi")
    assert 1 == len(server.requests)


@pytest.mark.parametrize(
    ("omit", "options"), [("dimensions", {"dimensions": 3}), ("encoding_format", {"encoding": "float"})]
)
async def test_an_omitted_member_of_embeddings(omit: str, options: dict[str, Any], serve: Serve) -> None:
    server = await serve()
    async with compatible(server.url, omit=[omit]) as backend:
        with pytest.raises(UnsupportedOptionError):
            await backend.embed("x", **options)
    assert [] == server.requests


async def test_renamed_members(serve: Serve) -> None:
    server = await serve()
    rename = {"max_tokens": "max_completion_tokens", "stop": "halt", "input": "texts", "stream_options": "options"}
    async with compatible(server.url, rename=rename) as backend:
        await backend.complete("Hi", max_tokens=7, stop_sequences=["x"])
        async with backend.stream("Hi") as stream:
            await stream.get_final_completion()
        await backend.embed("x")
        for extra, text in (
            ({"max_tokens": 1}, "this backend renames it; pass max_completion_tokens instead"),
            ({"max_completion_tokens": 1}, "max_completion_tokens is already set by an option"),
        ):
            with pytest.raises(UnsupportedOptionError, match=text):
                await backend.complete("Hi", max_tokens=7, extra_body=extra)
    messages = [{"role": "user", "content": "Hi"}]
    bodies = [body for _, _, body in server.requests]
    assert {"model": "m", "messages": messages, "max_completion_tokens": 7, "halt": ["x"]} == bodies[0]
    assert {"include_usage": True} == bodies[1]["options"]
    assert ["x"] == bodies[2]["texts"]


async def test_omit_and_rename_on_other_wires(serve: Serve) -> None:
    server = await serve(status=500)
    for type_, settings, expected in (
        ("anthropic", {"omit": ["max_tokens"]}, {"model", "messages"}),
        (
            "ollama",
            {"rename": {"options": "settings"}},
            {"model", "messages", "stream", "settings", "shift", "truncate"},
        ),
    ):
        async with open_backend(type_, endpoint=server.url, default_model="m", **settings) as backend:
            with pytest.raises(BackendError):
                await backend.complete("Hi", temperature=0.5)
        assert expected <= set(server.requests[-1][2]) | {"stream"}
        assert {"max_tokens", "options"}.isdisjoint(server.requests[-1][2])


# --- JSON mode ----------------------------------------------------------------------------------------


@attrs.frozen
class Title:
    title: str


SCHEMA = {"type": "object", "properties": {"title": {"type": "string"}}, "required": ["title"]}


async def test_extraction_in_json_mode(serve: Serve) -> None:
    server = await serve('{"title":"x"}')
    async with compatible(server.url, json_mode=True) as backend:
        assert Title("x") == await extract(backend, Title, "the text", instructions="Find the title.")
        assert "unverified" == backend.schema_enforcement
    body = server.requests[0][2]
    assert {"type": "json_object"} == body["response_format"]
    system, user = body["messages"]
    assert system["content"].startswith("Find the title.\n\nAnswer with one JSON object that matches this JSON Schema")
    assert '"title"' in system["content"]
    assert {"role": "user", "content": "the text"} == user


@pytest.mark.parametrize("target", [list[str], int, str])
async def test_extraction_of_other_types_in_json_mode(target: Any, serve: Serve) -> None:
    value: Any = {list[str]: ["a"], int: 3, str: "b"}[target]
    server = await serve(json.dumps({"value": value}))
    async with compatible(server.url, json_mode=True) as backend:
        assert value == await extract(backend, target, "the text")


async def test_an_answer_that_does_not_match_in_json_mode(serve: Serve) -> None:
    server = await serve('{"name":"x"}')
    async with compatible(server.url, json_mode=True) as backend:
        with pytest.raises(StructuredOutputError, match="title"):
            await extract(backend, Title, "the text")


@pytest.mark.parametrize(
    ("prompt", "first"),
    [
        ("Hi", "Answer with one JSON object"),
        ([Message.system("Be brief."), Message.user("Hi")], "Be brief.\n\nAnswer with one JSON object"),
    ],
)
async def test_a_schema_in_json_mode(prompt: Any, first: str, serve: Serve) -> None:
    server = await serve('{"title":"x"}')
    async with compatible(server.url, json_mode=True) as backend:
        await backend.complete(prompt, response_format=JSONSchemaFormat("t", SCHEMA))
        await backend.complete(prompt, response_format=JSONObjectFormat())
    with_schema, without = (body for _, _, body in server.requests)
    system, *others = with_schema["messages"]
    assert "system" == system["role"]
    assert system["content"].startswith(first)
    assert system["content"].endswith(json.dumps(SCHEMA, separators=(",", ":")))
    assert [{"role": "user", "content": "Hi"}] == others
    assert {"type": "json_object"} == with_schema["response_format"] == without["response_format"]
    assert "JSON Schema" not in str(without["messages"])


async def test_json_mode_can_be_turned_off(serve: Serve) -> None:
    server = await serve('{"title":"x"}')
    async with open_backend("deepseek", endpoint=server.url, default_model="m", json_mode=False) as backend:
        await extract(backend, Title, "the text")
    assert "json_schema" == server.requests[0][2]["response_format"]["type"]


async def test_json_mode_of_a_server_with_grammars(serve: Serve) -> None:
    server = await serve('{"title":"x"}')
    async with open_backend("llamacpp", endpoint=server.url, default_model="m", json_mode=True) as backend:
        assert Title("x") == await extract(backend, Title, "the text")
        assert "unverified" == backend.schema_enforcement
    chats = [body for url, _, body in server.requests if url == "/v1/chat/completions"]
    assert [{"type": "json_object"}] == [body["response_format"] for body in chats]
