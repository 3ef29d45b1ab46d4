"""The API key is nowhere but in the request: not in messages, logs, reprs, or the values of the frames of a traceback.

The key is in the environment alone. A test names it by :func:`canary`, so that no frame of its own holds it.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._registry import Registry, open_backend
from ctxbackends._util.secrets import ENVIRONMENT, MaskedHeaders, Secret
from ctxbackends.errors import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    BackendError,
    ConfigError,
    InternalServerError,
    MalformedResponseError,
    MissingKeyError,
    RedirectError,
    StreamInterruptedError,
)
from tests.conftest import EVENT_STREAM, Do, RawServerFactory, Script, event, http_chunk, http_response

MARK = "canary-0123456789"


def canary() -> str:
    return os.environ["CANARY"]


@pytest.fixture(autouse=True)
def a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CANARY", f"sk-{MARK}-abcdef")


def report(error: BaseException) -> str:
    """All that a reporter of errors shows: the chain with the values of every frame, and the facts."""
    tracebacks, texts, chain = "", "", [error]
    for link in chain:
        texts += f"{link} {link!r} {vars(link)} {link.args}"
        chain += [other for other in (link.__cause__, link.__context__) if other is not None and other not in chain]
        tracebacks += "".join(traceback.TracebackException.from_exception(link, capture_locals=True).format())
    return tracebacks + texts


async def completes(backend: Any) -> None:
    await backend.complete("Hi", model="m")


async def streams(backend: Any) -> None:
    async with backend.stream("Hi", model="m") as stream:
        await stream.get_final_completion()


async def lists(backend: Any) -> None:
    await backend.models()


ECHO = b'{"error": {"message": "Incorrect API key provided: %s"}}'
FAILURES: list[Any] = [
    pytest.param(None, {}, APIConnectionError, id="refused"),
    pytest.param([Do.CLOSE], {}, APIConnectionError, id="closed before headers"),
    pytest.param([b"HTTP/1.1 200 OK\r\nX-Echo: %s\r\nContent-Le", Do.CLOSE], {}, APIConnectionError, id="in headers"),
    pytest.param([http_response(200, b"%s", A="b")[:-1], Do.CLOSE], {}, BackendError, id="in the body"),
    pytest.param([http_response(401, ECHO, X_Echo="%s")], {}, AuthenticationError, id="401"),
    pytest.param([http_response(500, b"%s")], {}, InternalServerError, id="500"),
    pytest.param([b"SSH-2.0-%s\r\n\r\n", Do.CLOSE], {}, MalformedResponseError, id="no HTTP"),
    pytest.param([http_response(200, b"<html>%s", X_Echo="%s")], {}, BackendError, id="no JSON"),
    pytest.param([Do.HANG], {"timeout": 0.1}, APITimeoutError, id="total"),
    pytest.param([Do.HANG], {"first_token_timeout": 0.1}, APITimeoutError, id="first token"),
    pytest.param([http_response(307, b"%s", Location="http://192.0.2.1/%s")], {}, RedirectError, id="redirect"),
]


def with_key(script: Script | None) -> list[Any]:
    """The script, with the key in the place of ``%s`` and a length that is right for it."""
    steps: list[Any] = []
    for action in script or []:
        if isinstance(action, bytes):
            growth = len(canary()) - 2
            head, separator, body = action.replace(b"%s", canary().encode()).partition(b"\r\n\r\n")
            length = len(action.partition(b"\r\n\r\n")[2])
            length_header = b"Content-Length: %d" % (len(body) if growth else length)
            steps.append(head.replace(b"Content-Length: %d" % length, length_header) + separator + body)
        else:
            steps.append(action)
    return steps


@pytest.mark.parametrize("use", [completes, *(pytest.param(one, marks=pytest.mark.full) for one in (streams, lists))])
@pytest.mark.parametrize(("script", "settings", "kind"), FAILURES)
async def test_the_key_is_in_no_report(
    script: Script | None,
    settings: dict[str, float],
    kind: type[BackendError],
    use: Callable[[Any], Any],
    raw_server: RawServerFactory,
    refusing_url: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    if use is lists and settings:
        settings = {"timeout": 0.1}  # a listing has no first token
    url = refusing_url if script is None else (await raw_server([with_key(script)])).url
    config = BackendConfig(
        name="gpu",
        type="vllm",
        endpoint=url,
        api_key_env="CANARY",
        ready_timeout=0,
        **settings,  # type: ignore[arg-type]
    )
    async with Registry([config]) as registry:
        with pytest.raises(kind) as exc_info:
            await use(registry.resolve())
    gc.collect()
    loop.set_debug(False)
    assert MARK not in report(exc_info.value)
    assert MARK not in caplog.text
    requests = [
        record.getMessage() for record in caplog.records if record.name == "ctxbackends" and record.levelname == "DEBUG"
    ]
    assert requests
    assert all(line.startswith(("GET /v1/models: ", "POST /v1/chat/completions: ")) for line in requests)
    assert MARK.encode() not in pickle.dumps(exc_info.value)


def stream_script(end: str) -> Script:
    refusal = b'data: {"error": {"message": "%s"}}\n\n' % canary().encode()
    ends: dict[str, list[Any]] = {"close": [Do.CLOSE], "reset": [Do.RESET], "refusal": [http_chunk(refusal), Do.CLOSE]}
    return [EVENT_STREAM, http_chunk(event("a")), *ends[end]]


async def test_a_truncated_stream_shows_no_key(raw_server: RawServerFactory, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    for end in ("close", "reset", "refusal"):
        url = (await raw_server([stream_script(end)])).url
        async with open_backend("vllm", endpoint=url, api_key_env="CANARY") as backend:
            with pytest.raises(StreamInterruptedError) as exc_info:
                await streams(backend)
        assert MARK not in report(exc_info.value)
    assert MARK not in caplog.text


async def test_a_stalled_stream_shows_no_key(raw_server: RawServerFactory) -> None:
    server = await raw_server([[EVENT_STREAM, http_chunk(event("a")), Do.HANG]])
    async with open_backend("vllm", endpoint=server.url, api_key_env="CANARY", idle_timeout=0.1) as backend:
        with pytest.raises(APITimeoutError) as exc_info:
            await streams(backend)
    assert MARK not in report(exc_info.value)


@pytest.mark.parametrize("type_", ["vllm", "anthropic", "openai"])
async def test_objects_with_the_key_do_not_show_it(type_: str) -> None:
    config = BackendConfig(name="a", type=type_, api_key_env="CANARY")
    async with Registry([config]) as registry:
        backend = registry.resolve()
        assert MARK not in f"{vars(backend)} {backend} {vars(registry)} {config}"


def test_secrets_and_headers_are_masked() -> None:
    assert ("<secret>", "text") == (repr(Secret("text")), Secret("text").reveal())
    headers = MaskedHeaders({"X-Own": "text"})
    assert ("<headers X-Own>", "<headers X-Own>", "text") == (repr(headers), str(headers), headers["X-Own"])
    assert ("<environment>", canary(), len(os.environ)) == (repr(ENVIRONMENT), ENVIRONMENT["CANARY"], len(ENVIRONMENT))
    assert set(os.environ) == set(ENVIRONMENT)


@pytest.mark.parametrize(("variable", "kind"), [("NO_SUCH_KEY", MissingKeyError), ("BROKEN_CANARY", ConfigError)])
async def test_a_key_that_cannot_be_used(
    variable: str, kind: type[ConfigError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BROKEN_CANARY", canary() + "\n")
    config = BackendConfig(name="a", type="vllm", api_key_env=variable)
    async with Registry([config]) as registry:
        with pytest.raises(kind) as exc_info:
            registry.resolve()
    assert MARK not in report(exc_info.value)


async def test_an_invalid_tls_file_shows_no_key() -> None:
    config = BackendConfig(
        name="a", type="vllm", endpoint="https://gpu", api_key_env="CANARY", ca_bundle="/nowhere/ca.pem"
    )
    async with Registry([config]) as registry:
        with pytest.raises(ConfigError, match="cannot be read") as exc_info:
            registry.resolve()
    assert MARK not in report(exc_info.value)


@pytest.mark.parametrize("scheme", ["http", "https"])
async def test_the_credentials_of_a_proxy(
    scheme: str, raw_server: RawServerFactory, refusing_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy = await raw_server([[Do.CLOSE]])
    refusing = await raw_server([[http_response(407)]])
    for url in (proxy.url, refusing.url, refusing_url):
        monkeypatch.setenv("ALL_PROXY", url.replace("//", f"//me:{canary()}@"))
        for name in ("no_proxy", "NO_PROXY", "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.delenv(name, raising=False)
        endpoint = f"{scheme}://gpu.invalid"
        async with open_backend("vllm", endpoint=endpoint, trust_env=True, ready_timeout=0, api_key_env="") as backend:
            with pytest.raises(APIConnectionError) as exc_info:
                await completes(backend)
            assert MARK not in f"{vars(backend)}"
        text = report(exc_info.value)
        assert MARK not in text
        assert "Basic " not in text
