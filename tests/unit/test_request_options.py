"""RequestOptions and max_retries: their values, and how they change one call and no other."""

from __future__ import annotations

import contextlib
import copy
import pickle
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    Backend,
    BackendConfig,
    BackendError,
    ConfigError,
    MissingKeyError,
    RateLimitError,
    Registry,
    RequestOptions,
    extract,
    extract_result,
    open_backend,
    probe_schema,
)
from ctxbackends._config.reader import parse_ctxrc
from ctxbackends._config.writer import setup_backend
from ctxbackends.testing import FaultServer, faults

SECRET = "tok-3f9a77b1c2d4"
KEY = "sk-" + "k3y" * 12


# --- values ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["timeout", "first_token_timeout", "idle_timeout", "ready_timeout"])
@pytest.mark.parametrize(("value", "seconds"), [(2, 2.0), (0.25, 0.25), ("300ms", 0.3), ("1m30s", 90.0), (None, None)])
def test_durations_are_seconds_or_texts(field: str, value: object, seconds: float | None) -> None:
    fields: dict[str, Any] = {field: value}
    assert seconds == getattr(RequestOptions(**fields), field) == getattr(BackendConfig(name="vllm", **fields), field)


@pytest.mark.parametrize(
    ("fields", "problem"),
    [
        ({"timeout": 0}, "must be greater than zero"),
        ({"timeout": "0s"}, "must be greater than zero"),
        ({"idle_timeout": -1}, "must be greater than zero"),
        ({"first_token_timeout": "5"}, "duration has no unit: 5; write 5s"),
        ({"ready_timeout": "-5s"}, "duration must not be negative"),
        ({"ready_timeout": True}, "must be a number of seconds or a duration"),
        ({"timeout": float("nan")}, "must be a number of seconds or a duration"),
        ({"timeout": [1]}, "must be a number of seconds or a duration"),
        ({"max_retries": -1}, "must be an integer from 0"),
        ({"max_retries": 1.0}, "must be an integer from 0"),
        ({"max_retries": True}, "must be an integer from 0"),
        ({"max_retries": "2"}, "must be an integer from 0"),
        ({"headers": ["X-A"]}, "must be a mapping of names to strings"),
        ({"headers": {"X-A": 1}}, "must be a mapping of names to strings"),
        ({"headers": {"X A": "1"}}, "not a valid name of a header"),
        ({"headers": {"X-A": "1", "x-a": "2"}}, "the header is set twice"),
        ({"headers": {"X-A": "a\r\nX-B: b"}}, "must be printable ASCII"),
        ({"headers": {"Content-Length": "1"}}, "the SDK sets this header"),
        ({"headers": {"Authorization": SECRET}}, "a secret isn't allowed here"),
        ({"headers": {"X-A": KEY}}, "looks like an API key (not shown)"),
        ({"headers": {"X-A": "${broken"}}, "invalid reference to a variable"),
    ],
)
def test_invalid_values_name_their_field_as_in_the_configuration(fields: dict[str, Any], problem: str) -> None:
    for kind in (RequestOptions, lambda **fields: BackendConfig(name="vllm", **fields)):
        with pytest.raises(ConfigError) as exc_info:
            kind(**fields)
        assert [*fields] == [exc_info.value.key]
        assert problem in exc_info.value.problem
        assert SECRET not in str(exc_info.value)
        assert KEY not in str(exc_info.value)


def test_options_are_values() -> None:
    options = RequestOptions(timeout="2s", headers={"X-A": "value"})
    assert {options: 1} == {RequestOptions(timeout=2, headers={"X-A": "value"}): 1}
    assert options == pickle.loads(pickle.dumps(options)) == copy.deepcopy(options)  # noqa: S301  # its own bytes
    assert "value" not in repr(options)
    assert "X-A" in repr(options)
    with pytest.raises(AttributeError):
        options.timeout = 3  # type: ignore[misc]


@pytest.mark.parametrize("value", [0, 7])
def test_ctxrc_has_max_retries(value: int) -> None:
    config = parse_ctxrc(f"backends: [{{name: vllm, max_retries: {value}}}]", path=".ctxrc")
    assert [value] == [backend.max_retries for backend in config.backends]


@pytest.mark.parametrize("value", ["-1", "two", "1.5", "'2'", "true", str(2**31)])
def test_ctxrc_refuses_other_max_retries(value: str) -> None:
    with pytest.raises(ConfigError, match="must be an integer from 0 to 2147483647") as exc_info:
        parse_ctxrc(f"backends:\n  - name: vllm\n    max_retries: {value}\n", path=".ctxrc")
    assert ("backends[0].max_retries", 3) == (exc_info.value.key, exc_info.value.line)


def test_setup_keeps_max_retries(tmp_path: Path) -> None:
    path = tmp_path / ".ctxrc"
    path.write_text("backends:\n  - name: vllm\n    max_retries: 0  # never\n")
    setup_backend(path, type="vllm", default_model="m")
    assert "    max_retries: 0  # never\n    default_model: m\n" in path.read_text()


# --- every call -----------------------------------------------------------------------------------

Call = Callable[[Backend, RequestOptions | None], Awaitable[object]]


async def read_stream(backend: Backend, options: RequestOptions | None) -> object:
    async with backend.stream("Hi", request_options=options) as stream:
        return await stream.get_final_completion()


GENERATIONS: dict[str, Call] = {
    "complete": lambda backend, options: backend.complete("Hi", request_options=options),
    "stream": read_stream,
    "extract": lambda backend, options: extract(backend, dict[str, str], "Hi", request_options=options),
    "extract_result": lambda backend, options: extract_result(backend, dict[str, str], "Hi", request_options=options),
    "embed": lambda backend, options: backend.embed("Hi", request_options=options),
    "probe_schema": lambda backend, options: probe_schema(backend, request_options=options),
}
CALLS: dict[str, Call] = {
    **GENERATIONS,
    "count_tokens": lambda backend, options: backend.count_tokens("Hi", request_options=options),
    "wait_ready": lambda backend, options: backend.wait_ready(request_options=options),
    "ping": lambda backend, options: backend.ping(request_options=options),
    "models": lambda backend, options: backend.models(request_options=options),
    "load": lambda backend, options: backend.load(request_options=options),
    "unload": lambda backend, options: backend.unload(request_options=options),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_the_headers_of_a_call_are_sent_with_its_requests(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OWN_VALUE", SECRET)
    headers = {"X-Team": "red", "x-configured": "call", "X-Own": "v=${OWN_VALUE}"}
    async with (
        FaultServer(pieces=('{"a": ', '"b"}')) as server,
        open_backend("vllm", endpoint=server.url, default_model="m", headers={"X-Configured": "file"}) as backend,
    ):
        for options in (RequestOptions(headers=headers), None):
            server.requests.clear()
            with contextlib.suppress(BackendError):  # the server has no route for tokens
                await call(backend, options)
            assert server.requests
            expected = ("red", "call", f"v={SECRET}") if options else (None, "file", None)
            for request in server.requests:
                assert expected == tuple(request.headers.get(name) for name in ("x-team", "x-configured", "x-own"))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_ready_timeout_of_zero_does_not_wait(call: Call) -> None:
    async with FaultServer() as server:
        url = server.url
    async with open_backend("vllm", endpoint=url, default_model="m") as backend:
        with pytest.raises(APIConnectionError) as exc_info:
            await call(backend, RequestOptions(ready_timeout=0))
    assert (True, None) == (exc_info.value.refused, exc_info.value.waited)


@pytest.mark.parametrize("call", GENERATIONS.values(), ids=GENERATIONS)
@pytest.mark.parametrize("max_retries", [0, 1, 4])
async def test_max_retries_bounds_the_requests(call: Call, max_retries: int) -> None:
    async with FaultServer() as server, open_backend("vllm", endpoint=server.url, default_model="m") as backend:
        server.play_always(faults.rate_limited("0"))
        for _ in range(2):
            server.requests.clear()
            with pytest.raises(RateLimitError):
                await call(backend, RequestOptions(max_retries=max_retries))
            assert 1 + max_retries == len(server.generations)
        server.requests.clear()
        with pytest.raises(RateLimitError):
            await call(backend, None)
        assert 3 == len(server.generations)


@pytest.mark.parametrize("call", GENERATIONS.values(), ids=GENERATIONS)
async def test_the_configuration_has_max_retries_too(call: Call) -> None:
    async with (
        FaultServer() as server,
        open_backend("vllm", endpoint=server.url, default_model="m", max_retries=0) as backend,
    ):
        server.play_always(faults.busy())
        with pytest.raises(BackendError):
            await call(backend, None)
        assert 1 == len(server.generations)
        server.requests.clear()
        with pytest.raises(BackendError):
            await call(backend, RequestOptions(max_retries=1))
        assert 2 == len(server.generations)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_other_types_are_named(call: Call) -> None:
    async with open_backend("vllm", default_model="m") as backend:
        with pytest.raises(TypeError, match="request_options must be RequestOptions, not dict"):
            await call(backend, {"timeout": 3})  # type: ignore[arg-type]


# --- timeouts -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "fault", "field", "phase"),
    [
        ("vllm", "no_response", "first_token_timeout", "first_token"),
        ("vllm", "no_response", "timeout", "total"),
        ("vllm", "comments_only", "first_token_timeout", "first_token"),
        ("vllm", "stall", "idle_timeout", "idle"),
        ("vllm", "stall", "timeout", "total"),
        ("openai", "no_response", "timeout", "total"),
    ],
)
async def test_the_timeouts_of_a_call_are_its_own(type_: str, fault: str, field: str, phase: str) -> None:
    fields: dict[str, Any] = {field: "60ms"}
    options = RequestOptions(**fields)
    async with (
        FaultServer() as server,
        open_backend(type_, endpoint=server.url, default_model="m", api_key="k", **(fields | {field: 45.0})) as backend,
    ):
        server.play(faults.CATALOGUE[fault])
        with pytest.raises(APITimeoutError) as exc_info:
            await backend.complete("Hi", request_options=options)
        assert (phase, 0.06, field) == (exc_info.value.phase, exc_info.value.limit, exc_info.value.key)
        assert "Hello, world." == (await backend.complete("Hi")).text


async def test_the_idle_timeout_of_a_call_is_also_that_of_an_object() -> None:
    async with FaultServer() as server, open_backend("vllm", endpoint=server.url, default_model="m") as backend:
        server.play(faults.stall())
        with pytest.raises(APITimeoutError) as exc_info:
            await extract(backend, dict[str, str], "Hi", request_options=RequestOptions(idle_timeout=0.06))
        assert ("idle", 0.06) == (exc_info.value.phase, exc_info.value.limit)


async def test_a_call_can_wait_where_the_type_does_not() -> None:
    async with FaultServer() as server:
        server.play(faults.refuse(seconds=0.2))
        async with open_backend("openai", endpoint=server.url, default_model="m", api_key="k") as backend:
            with pytest.raises(APIConnectionError, match="refused"):
                await backend.complete("Hi")
            completion = await backend.complete("Hi", request_options=RequestOptions(ready_timeout=20))
            assert "Hello, world." == completion.text


# --- headers and credentials ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "settings", "header"),
    [
        ("openai", {"api_key": "k"}, "authorization"),
        ("anthropic", {"api_key": "k"}, "X-Api-Key"),
        ("openai", {"api_key": "k", "organization": "o"}, "OpenAI-Organization"),
        ("vllm", {"headers_env": {"X-Gateway": "OWN_VALUE"}}, "x-gateway"),
        ("vllm", {"headers": {"X-Gateway": "v ${OWN_VALUE}"}}, "x-gateway"),
        ("vllm", {"basic_auth_env": "OWN_PAIR"}, "Authorization"),
    ],
)
async def test_a_call_does_not_replace_credentials(
    type_: str, settings: dict[str, Any], header: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OWN_VALUE", SECRET)
    monkeypatch.setenv("OWN_PAIR", "me:word")
    options = RequestOptions(headers={header: "${OWN_VALUE}"})
    async with (
        FaultServer() as server,
        open_backend(type_, name="one", endpoint=server.url, default_model="m", **settings) as backend,
    ):
        with pytest.raises(ConfigError, match=f"the header {header} is set by the configuration") as exc_info:
            await backend.complete("Hi", request_options=options)
        assert ("headers", "one") == (exc_info.value.key, exc_info.value.backend)
        assert [] == server.requests


async def test_a_variable_that_is_not_set_is_an_error() -> None:
    async with FaultServer() as server, open_backend("vllm", endpoint=server.url, default_model="m") as backend:
        options = RequestOptions(headers={"X-Own": "${CTXBACKENDS_TEST_UNSET}"})
        with pytest.raises(MissingKeyError) as exc_info:
            await backend.complete("Hi", request_options=options)
        assert "CTXBACKENDS_TEST_UNSET" == exc_info.value.variable
        assert [] == server.requests


@pytest.mark.parametrize("call", GENERATIONS.values(), ids=GENERATIONS)
@pytest.mark.parametrize("headers", [{"X-Own": "${OWN_VALUE}"}, {"X-Session-Token": SECRET}], ids=["variable", "name"])
async def test_errors_never_show_the_secrets_of_a_call(
    call: Call, headers: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server echoes the secret in the body and in a header."""
    monkeypatch.setenv("OWN_VALUE", SECRET)
    async with (
        FaultServer() as server,
        open_backend("vllm", endpoint=server.url, default_model="m") as backend,
    ):
        server.play(_echo(SECRET))
        with pytest.raises(AuthenticationError) as exc_info:
            await call(backend, RequestOptions(headers=headers))
        assert SECRET in server.requests[0].headers.values()
    texts = [str(exc_info.value), repr(vars(exc_info.value))]
    texts += traceback.TracebackException.from_exception(exc_info.value).format()
    assert "[key]" in texts[0]
    assert not [text for text in texts if SECRET in text]


def _echo(secret: str) -> faults.Script:
    body = f'{{"error": {{"message": "bad token: {secret}", "type": "auth"}}}}'.encode()
    head = f"HTTP/1.1 401 Unauthorized\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"

    def script(_: faults.ResponseBuilder) -> Any:
        yield f"{head}WWW-Authenticate: Bearer {secret}\r\n\r\n".encode() + body

    return script


async def test_the_values_of_variables_are_read_for_each_call(monkeypatch: pytest.MonkeyPatch) -> None:
    options = RequestOptions(headers={"X-Own": "${OWN_VALUE}"})
    async with Registry([BackendConfig(name="vllm", default_model="m")]) as registry, FaultServer() as server:
        registry.configure(BackendConfig(name="two", type="vllm", endpoint=server.url, default_model="m"))
        for value in ("first", "second"):
            monkeypatch.setenv("OWN_VALUE", value)
            await registry.resolve("two").complete("Hi", request_options=options)
        assert ["first", "second"] == [request.headers["x-own"] for request in server.generations]
