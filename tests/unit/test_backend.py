"""HTTPBackend with its profile, codec, transport and retry policy."""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeAlias

import attrs
import pytest
from aioresponses import aioresponses
from yarl import URL

from ctxbackends._chat.events import Loading
from ctxbackends._chat.messages import Message
from ctxbackends._chat.requests import ChatOptions, ChatRequest, JSONObjectFormat, JSONSchemaFormat
from ctxbackends._chat.responses import Usage
from ctxbackends._chat.servers import ModelInfo
from ctxbackends._client.backend import Backend
from ctxbackends._client.http_backend import HTTPBackend
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._http.transport import Transport
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._profiles.model_names import same_model
from ctxbackends._profiles.option_support import OPENAI_COMPATIBLE_CHAT
from ctxbackends._profiles.profile import Profile
from ctxbackends._wire.base import HTTPRequest
from ctxbackends._wire.options import Unsupported
from ctxbackends.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BackendError,
    BadRequestError,
    ContextOverflowError,
    EmptyChoicesError,
    EmptyModelListError,
    InsufficientQuotaError,
    InternalServerError,
    InvalidEndpointError,
    MalformedResponseError,
    MissingKeyError,
    ModelLoadFailedError,
    ModelMismatchError,
    ModelMismatchWarning,
    ModelNotFoundError,
    NoModelError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RedirectError,
    ServerDiedError,
    ServiceUnavailableError,
    StreamInterruptedError,
    UnsupportedOperationError,
    UnsupportedOptionError,
)
from tests.conftest import (
    EVENT_STREAM,
    LAST_CHUNK,
    Do,
    RawServerFactory,
    Script,
    completion_body,
    event,
    http_chunk,
    http_response,
    models_body,
    sse,
)

STREAMED_TYPES = ("vllm", "llamacpp", "ollama", "lmstudio")
PLAIN_TYPES = ("openai", "anthropic", "openai-compatible")
TYPES = (*STREAMED_TYPES, *PLAIN_TYPES)
COLD = ("vllm", "llamacpp")
WARM = tuple(name for name in TYPES if name not in COLD)
KEY = "sk-made-up-0123456789abcdef"
URL_ = "http://gpu:8000"
CHAT = URL_ + "/v1/chat/completions"
MODELS = URL_ + "/v1/models"
EMBEDDINGS = URL_ + "/v1/embeddings"

Make: TypeAlias = Callable[..., HTTPBackend]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    """Makes backends over one transport, with no environment but the one that is given."""
    transport = Transport()

    def backend(type_: str, *, profile: Profile | None = None, launcher: Any = None, **settings: Any) -> HTTPBackend:
        environ = settings.pop("environ", {})
        # With a number of its own, no backend asks its server for one.
        common = {"default_model": "m", "wire_api": "chat_completions", "max_concurrency": 8}
        fields = {"endpoint": URL_, **common, **settings}
        if fields.pop("no_model", False):
            del fields["default_model"]
        config = BackendConfig(name="mine", type=type_, **fields)
        return HTTPBackend(
            config, profile=profile or PROFILES[type_], transport=transport, launcher=launcher, environ=environ
        )

    yield backend
    await transport.aclose()


@pytest.fixture
def mock_server() -> Iterator[aioresponses]:
    with aioresponses() as mock:
        yield mock


@pytest.fixture
def sleeps(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What would have been slept between two tries."""
    slept: list[float] = []
    sleep = asyncio.sleep

    async def record(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", record)
    return slept


def calls(mock: aioresponses) -> list[dict[str, Any]]:
    """The arguments of all requests, in their order."""
    return [call.kwargs for requests in mock.requests.values() for call in requests]


def body_of(mock: aioresponses, index: int = 0) -> Any:
    return json.loads(calls(mock)[index]["data"])


def completion_response(type_: str, text: str = "Hello", **options: Any) -> bytes:
    """An answer as this type of server gives it."""
    return sse(text, usage=(3, 2), **options) if type_ in STREAMED_TYPES else completion_body(text, **options)


def listing(type_: str, *ids: str) -> list[tuple[str, bytes]]:
    """What this type of server is asked for its models, in this order, and what it answers."""
    if type_ == "ollama":
        tags = (URL_ + "/api/tags", json.dumps({"models": [{"name": name} for name in ids]}).encode())
        return [tags, (URL_ + "/api/ps", b'{"models":[]}')] if ids else [tags]
    if type_ == "lmstudio":
        return [(URL_ + "/api/v1/models", json.dumps({"models": [{"key": name} for name in ids]}).encode())]
    return [(MODELS + ("?limit=1000" if type_ == "anthropic" else ""), models_body(*ids))]


def add_models(mock: aioresponses, type_: str, *ids: str, repeat: bool = False) -> None:
    """The server answers as in ``listing``."""
    for url, body in listing(type_, *ids):
        mock.get(url, body=body, repeat=repeat)
    add_is_sleeping(mock)


def add_is_sleeping(mock: aioresponses) -> None:
    """vLLM is asked whether it sleeps; outside of its development mode it has no route for that."""
    mock.get(f"{URL_}/is_sleeping", status=404, repeat=True)


def error_body(message: str, **more: Any) -> bytes:
    return json.dumps({"error": {"message": message, **more}}).encode()


# --- complete() -----------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", TYPES)
async def test_complete(type_: str, make: Make, mock_server: aioresponses) -> None:
    mock_server.post(CHAT, body=completion_response(type_))
    completion = await make(type_).complete("Hi", max_tokens=7)
    assert ("Hello", "stop", Usage(3, 2)) == (completion.text, completion.finish_reason, completion.usage)
    assert ("m", "m", "r1") == (completion.requested_model, completion.served_model, completion.response_id)
    assert completion_response(type_) == completion.raw
    limit = "max_completion_tokens" if type_ == "openai" else "max_tokens"
    expected: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "Hi"}], limit: 7}
    if type_ in STREAMED_TYPES:
        expected |= {"stream": True, "stream_options": {"include_usage": True}}
    if type_ == "llamacpp":
        expected["return_progress"] = True
    assert expected == body_of(mock_server)
    (call,) = calls(mock_server)
    assert (False, "application/json") == (call["allow_redirects"], call["headers"]["Content-Type"])


@pytest.mark.parametrize("type_", TYPES)
async def test_stream(type_: str, make: Make, mock_server: aioresponses) -> None:
    mock_server.post(CHAT, body=sse("Hel", "lo"))
    async with make(type_).stream([Message.system("Be brief."), Message.user("Hi")], model="m") as stream:
        assert ["Hel", "lo"] == [text async for text in stream.text()]
    assert ["system", "user"] == [message["role"] for message in body_of(mock_server)["messages"]]
    assert b"" == stream.completion.raw


async def test_a_long_prompt_is_released_when_its_response_begins(make: Make, mock_server: aioresponses) -> None:
    """It may be long, and the answer may be written for minutes."""
    mock_server.post(CHAT, body=sse("Hel", "lo"))
    prompt = "long " * 1000

    def requests() -> list[HTTPRequest]:
        return [
            object_
            for object_ in gc.get_objects()
            if isinstance(object_, HTTPRequest) and prompt.encode() in (object_.body or b"")
        ]

    stream = make("openai-compatible").stream(prompt)
    assert 1 == len(requests())
    async with stream:
        await anext(stream)
        assert [] == requests()
    assert prompt == body_of(mock_server)["messages"][0]["content"]


@pytest.mark.parametrize("twice", [{"messages": [Message.user("Other")]}, {"no_option": 1}])
async def test_unknown_options_are_rejected(make: Make, twice: dict[str, Any]) -> None:
    backend = make("openai-compatible")
    with pytest.raises(TypeError, match=next(iter(twice))):
        await backend.complete("Hi", **twice)
    with pytest.raises(TypeError, match=next(iter(twice))):
        backend.stream("Hi", **twice)


async def test_every_option_is_sent(make: Make, mock_server: aioresponses) -> None:
    mock_server.post(CHAT, body=completion_body(model="other"))
    schema = {"type": "object", "properties": {}, "required": [], "additionalProperties": False}
    completion = await make("openai-compatible").complete(
        Message.user("Hi"),
        model="other",
        max_tokens=1,
        temperature=0.0,
        top_p=0.5,
        seed=0,
        stop_sequences=["a", "b"],
        response_format=JSONSchemaFormat("thing", schema),
        extra_body={"top_k": 3},
    )
    expected = {
        "model": "other",
        "messages": [{"role": "user", "content": "Hi"}],
        "max_tokens": 1,
        "temperature": 0.0,
        "top_p": 0.5,
        "seed": 0,
        "stop": ["a", "b"],
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "thing", "schema": schema, "strict": True},
        },
        "top_k": 3,
    }
    assert expected == body_of(mock_server)
    assert "other" == completion.requested_model


async def test_omitted_options_are_not_sent(make: Make, mock_server: aioresponses) -> None:
    mock_server.post(CHAT, body=completion_body())
    await make("openai-compatible").complete(
        "Hi", model=None, max_tokens=None, temperature=None, stop_sequences=(), response_format=None, extra_body=None
    )
    assert {"model", "messages"} == set(body_of(mock_server))


async def test_a_chat_request_as_the_prompt(make: Make, mock_server: aioresponses) -> None:
    mock_server.post(CHAT, body=completion_body(model="theirs"))
    request = ChatRequest(messages=(Message.user("Hi"),), model="theirs", max_tokens=3, stop_sequences=("x",))
    backend = make("openai-compatible", no_model=True)
    assert "Hello" == (await backend.complete(request)).text
    assert {"model": "theirs", "max_tokens": 3, "stop": ["x"]}.items() <= body_of(mock_server).items()
    with pytest.raises(TypeError, match="has its own options"):
        await backend.complete(request, max_tokens=4)
    with pytest.raises(TypeError, match="has its own options"):
        backend.stream(request, seed=4)
    assert 1 == len(calls(mock_server))


def test_options_and_request_have_the_same_fields() -> None:
    fields = set(ChatRequest.__struct_fields__)
    assert fields - {"messages"} == set(ChatOptions.__annotations__)


@pytest.mark.parametrize("prompt", [[], ["text"], [Message.user("a"), "b"], 7])
async def test_invalid_prompts_are_rejected(prompt: Any, make: Make, mock_server: aioresponses) -> None:
    with pytest.raises(TypeError):
        await make("vllm").complete(prompt)
    assert [] == calls(mock_server)


@pytest.mark.parametrize("type_", TYPES)
async def test_no_model_sends_nothing(type_: str, make: Make, mock_server: aioresponses) -> None:
    backend = make(type_, no_model=True)
    with pytest.raises(NoModelError) as exc_info:
        await backend.complete("Hi")
    assert ("default_model", "mine") == (exc_info.value.key, exc_info.value.backend)
    with pytest.raises(NoModelError):
        backend.stream("Hi")
    if PROFILES[type_].embed is not None:
        with pytest.raises(NoModelError):
            await backend.embed("Hi")
    assert [] == calls(mock_server)


@pytest.mark.parametrize("wrong", [0, -1])
async def test_max_tokens_must_be_positive(wrong: int, make: Make, mock_server: aioresponses) -> None:
    with pytest.raises(ValueError, match="must be at least 1"):
        await make("vllm").complete("Hi", max_tokens=wrong)
    assert [] == calls(mock_server)


# --- options that a server would ignore -----------------------------------------------------------


SCHEMA = JSONSchemaFormat("thing", {"type": "object"})
ANY_OPTION: dict[str, Any] = {
    "max_tokens": 1,
    "temperature": 0.5,
    "top_p": 0.5,
    "seed": 1,
    "stop_sequences": ["x"],
    "extra_body": {"top_k": 1},
}
UNSUPPORTED_OPTIONS = {
    ("anthropic", "response_format: json_object"),
    ("anthropic", "response_format: json_schema"),
    ("anthropic", "seed"),
}
OPTIONS: list[tuple[str, dict[str, Any]]] = [
    *((name, {name: value}) for name, value in ANY_OPTION.items()),
    ("response_format: json_object", {"response_format": JSONObjectFormat()}),
    ("response_format: json_schema", {"response_format": SCHEMA}),
]


@pytest.mark.parametrize(("option", "options"), OPTIONS, ids=[name for name, _ in OPTIONS])
@pytest.mark.parametrize("type_", TYPES)
async def test_options_are_sent_or_rejected(
    type_: str, option: str, options: dict[str, Any], make: Make, mock_server: aioresponses
) -> None:
    mock_server.post(CHAT, body=completion_response(type_))
    backend = make(type_)
    if (type_, option) in UNSUPPORTED_OPTIONS:
        with pytest.raises(UnsupportedOptionError) as exc_info:
            await backend.complete("Hi", **options)
        assert (option, "mine", URL_) == (exc_info.value.option, exc_info.value.backend, exc_info.value.endpoint)
        with pytest.raises(UnsupportedOptionError):
            backend.stream("Hi", **options)
        assert [] == calls(mock_server)
    else:
        await backend.complete("Hi", **options)
        plain = {"model", "messages", "stream", "stream_options"} | set(PROFILES[type_].stream_members)
        assert 1 == len(set(body_of(mock_server)) - plain)


@pytest.mark.parametrize("option", [*ANY_OPTION, "response_format: json_object", "response_format: json_schema"])
async def test_a_profile_can_reject_any_option(option: str, make: Make) -> None:
    table = {**OPENAI_COMPATIBLE_CHAT, option: Unsupported("it is ignored")}
    profile = attrs.evolve(PROFILES["openai-compatible"], wire_apis={"chat_completions": table})
    with pytest.raises(UnsupportedOptionError, match=f'backend "mine": {option}: it is ignored'):
        make("openai-compatible", profile=profile).stream("Hi", **dict(OPTIONS)[option])


async def test_a_temperature_that_would_be_lowered(make: Make, mock_server: aioresponses) -> None:
    mock_server.post(CHAT, body=completion_body())
    backend = make("anthropic")
    with pytest.raises(UnsupportedOptionError, match=r"temperature: this server accepts at most 1"):
        await backend.complete("Hi", temperature=1.5)
    assert [] == calls(mock_server)
    await backend.complete("Hi", temperature=1.0)
    assert 1.0 == body_of(mock_server)["temperature"]


@pytest.mark.parametrize("member", ["model", "messages", "stream", "stream_options", "n", "max_tokens"])
async def test_extra_body_does_not_replace_what_has_an_option(
    member: str, make: Make, mock_server: aioresponses
) -> None:
    with pytest.raises(UnsupportedOptionError, match=f"extra_body: {member}"):
        await make("openai-compatible").complete("Hi", max_tokens=1, extra_body={member: 2})
    assert [] == calls(mock_server)


# --- statuses -------------------------------------------------------------------------------------


STATUSES: list[tuple[int, bytes, type[APIStatusError], int]] = [
    (301, b"", RedirectError, 1),
    (307, b"", RedirectError, 1),
    (400, error_body("bad"), BadRequestError, 1),
    (401, error_body("wrong key"), AuthenticationError, 1),
    (402, error_body("pay"), InsufficientQuotaError, 1),
    (429, b'{"error":{"message":"pay","code":"insufficient_quota"}}', InsufficientQuotaError, 1),
    (403, error_body("not yours"), PermissionDeniedError, 1),
    (404, b"page not found", NotFoundError, 2),  # with and without /v1
    (404, error_body("The model `m` does not exist.", code=404), ModelNotFoundError, 1),
    (400, error_body("model 'm' not found"), ModelNotFoundError, 1),
    (400, error_body("too long", type="exceed_context_size_error"), ContextOverflowError, 1),
    (413, b"", BadRequestError, 1),
    (422, b'{"detail":[{"loc":["body"]}]}', BadRequestError, 1),
    (429, error_body("slow down"), RateLimitError, 3),
    (500, b"", InternalServerError, 1),
    (500, error_body("failed to load model"), ModelLoadFailedError, 1),
    (502, b"<html>bad gateway</html>", InternalServerError, 1),
    (503, error_body("no slot available"), ServiceUnavailableError, 3),
    (504, b"", InternalServerError, 1),
    (529, error_body("overloaded"), ServiceUnavailableError, 3),
]


@pytest.mark.parametrize(
    ("status", "body", "kind", "tries"), STATUSES, ids=[f"{status}-{kind.__name__}" for status, _, kind, _ in STATUSES]
)
async def test_a_status_is_one_error(
    status: int,
    body: bytes,
    kind: type[APIStatusError],
    tries: int,
    make: Make,
    mock_server: aioresponses,
    sleeps: list[float],
) -> None:
    for url in (CHAT, CHAT.replace("/v1", "")):
        mock_server.post(url, status=status, body=body, headers={"X-Request-Id": "r7"}, repeat=True)
    for type_ in TYPES:
        mock_server.requests.clear()
        sleeps.clear()
        backend = make(type_)
        with pytest.raises(APIStatusError) as exc_info:
            await backend.complete("Hi")
        error = exc_info.value
        assert kind is type(error)
        assert (status, body, "r7") == (error.status_code, error.body, error.request_id)
        assert ("mine", URL_) == (error.backend, error.endpoint)
        assert (body.decode() or "(empty body)") in str(error)
        assert tries == len(calls(mock_server))
        assert [0.5, 1.0][: 0 if status == 404 else tries - 1] == sleeps
        with pytest.raises(kind):
            async with backend.stream("Hi"):
                pass


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("status", [401, 403])
async def test_a_rejected_key_has_its_source(status: int, type_: str, make: Make, mock_server: aioresponses) -> None:
    mock_server.post(CHAT, status=status, body=error_body("wrong key"), repeat=True)
    sources: list[tuple[dict[str, Any], str | None]] = [
        ({"api_key": KEY}, "api_key argument"),
        ({"api_key_env": "MY_KEY", "environ": {"MY_KEY": KEY}}, "MY_KEY"),
        ({"api_key_env": ""}, None),
    ]
    variable = PROFILES[type_].default_key_variable
    if variable is not None:
        sources.append(({"environ": {variable: KEY}}, variable))
    for settings, source in sources:
        with pytest.raises(AuthenticationError) as exc_info:
            await make(type_, **settings).complete("Hi")
        assert source == exc_info.value.key_source


async def test_a_key_that_is_not_set(make: Make) -> None:
    with pytest.raises(MissingKeyError) as exc_info:
        make("vllm", api_key_env="MY_KEY")
    assert "MY_KEY" == exc_info.value.variable


@pytest.mark.parametrize("type_", TYPES)
async def test_retry_after(type_: str, make: Make, mock_server: aioresponses, sleeps: list[float]) -> None:
    mock_server.post(CHAT, status=429, body=error_body("slow down"), headers={"Retry-After": "7"})
    mock_server.post(CHAT, status=429, body=error_body("slow down"), headers={"retry-after-ms": "20"})
    mock_server.post(CHAT, body=completion_response(type_))
    assert "Hello" == (await make(type_).complete("Hi")).text
    assert [7.0, 0.02] == sleeps


# --- keys -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", TYPES)
async def test_the_key_is_sent_in_one_header_if_there_is_one(type_: str, make: Make, mock_server: aioresponses) -> None:
    mock_server.post(CHAT, body=completion_response(type_), repeat=True)
    add_models(mock_server, type_, "m", repeat=True)
    bearer = ("Authorization", f"Bearer {KEY}")
    list_header = ("x-api-key", KEY) if type_ == "anthropic" else bearer
    list_requests = len(listing(type_, "m"))
    for settings, key_headers in (({"api_key": KEY}, [bearer, *[list_header] * list_requests]), ({}, [])):
        mock_server.requests.clear()
        backend = make(type_, **settings)
        await backend.complete("Hi")
        await backend.models()
        headers = [call["headers"] for call in calls(mock_server)]
        assert 1 + list_requests == len(headers)
        assert key_headers == [(name, value) for some in headers for name, value in some.items() if KEY in value]
        assert bool(key_headers) == (KEY in str(calls(mock_server)))
        if not key_headers:
            assert not {"authorization", "x-api-key"} & {name.lower() for some in headers for name in some}


@pytest.mark.parametrize(
    ("type_", "key_header"), [("anthropic", ("x-api-key", KEY)), ("vllm", ("Authorization", f"Bearer {KEY}"))]
)
async def test_the_key_on_the_messages_api(
    type_: str, key_header: tuple[str, str], make: Make, mock_server: aioresponses
) -> None:
    mock_server.post(URL_ + "/v1/messages", status=400, body=error_body("no"))
    with pytest.raises(BadRequestError):
        await make(type_, api_key=KEY, wire_api="messages").complete("Hi")
    (call,) = calls(mock_server)
    assert [key_header] == [(name, value) for name, value in call["headers"].items() if KEY in value]
    assert "2023-06-01" == call["headers"]["anthropic-version"]


def text_of_chain(error: BaseException) -> str:
    """All that can be seen of an error and of those that it came from."""
    texts = ["".join(traceback.format_exception(error))]
    pending: list[BaseException | None] = [error]
    while pending:
        current = pending.pop()
        if current is not None:
            texts += [str(current), repr(current), repr(vars(current)), repr(current.args)]
            pending += [current.__cause__, current.__context__]
    return "\n".join(texts)


ECHOES: list[tuple[str, Script]] = [
    ("status", [http_response(401, error_body(f"Incorrect API key: {KEY}", type=KEY), X_Request_Id=KEY, X_Key=KEY)]),
    ("text", [http_response(400, f"no: {KEY}".encode())]),
    ("redirect", [http_response(307, b"", Location=f"http://evil/?key={KEY}")]),
    ("retried", [http_response(429, error_body(KEY), Retry_After="0")]),
    ("no http", [f"{KEY}\r\n\r\n".encode(), Do.CLOSE]),
    ("no json", [http_response(200, f"<{KEY}>".encode())]),
    ("no utf-8", [http_response(200, f"{KEY}\xff".encode("latin-1"))]),
    ("model", [http_response(200, completion_body(model=KEY))]),
    ("in the stream", [http_response(200, event("a") + error_body(KEY).join([b"data: ", b"\n\n"]))]),
    ("malformed stream", [http_response(200, event("a") + f"data: {KEY}\n\n".encode())]),
    ("stray", [http_response(200, event("a") + f"{KEY}\n\n".encode())]),
    ("streamed model", [http_response(200, sse("a", model=KEY))]),
    ("finish", [http_response(200, event("a", finish=KEY))]),
]


@pytest.mark.parametrize("script", [script for _, script in ECHOES], ids=[name for name, _ in ECHOES])
@pytest.mark.parametrize("type_", ["vllm", "openai"])
async def test_an_echoed_key_is_masked(type_: str, script: Script, make: Make, raw_server: RawServerFactory) -> None:
    server = await raw_server([script] * 3)
    with pytest.raises(BackendError) as exc_info:
        await make(type_, endpoint=server.url, api_key=KEY, model_mismatch="error").complete("Hi")
    assert {f"Bearer {KEY}"} == {request.headers["authorization"] for request in server.requests}
    assert KEY not in text_of_chain(exc_info.value)


@pytest.mark.parametrize("type_", TYPES)
async def test_a_backend_shows_no_key(type_: str, make: Make) -> None:
    backend = make(type_, api_key=KEY)
    assert f"<HTTPBackend 'mine' ({type_}) at {URL_}>" == repr(backend)
    assert KEY not in f"{vars(backend)}"


# --- a generation is a job on somebody's GPU ------------------------------------------------------


NO_RESPONSE: list[tuple[str, Script, type[BackendError]]] = [
    ("closed", [Do.CLOSE], APIConnectionError),
    ("reset", [Do.RESET], APIConnectionError),
    ("in the headers", [b"HTTP/1.1 200 OK\r\nContent-", Do.CLOSE], APIConnectionError),
    ("in the body", [b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{", Do.CLOSE], BackendError),
    ("silent", [Do.HANG], APITimeoutError),
    ("500", [http_response(500, b"")], InternalServerError),
    ("502", [http_response(502, b"")], InternalServerError),
    ("no answer", [http_response(200, b"")], BackendError),
]


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize(("name", "script", "kind"), NO_RESPONSE, ids=[name for name, _, _ in NO_RESPONSE])
async def test_a_received_generation_is_not_retried(
    name: str, script: Script, kind: type[BackendError], type_: str, make: Make, raw_server: RawServerFactory
) -> None:
    server = await raw_server([script])
    with pytest.raises(kind):
        await make(type_, endpoint=server.url, timeout=0.1 if name == "silent" else 5.0).complete("Hi")
    assert 1 == len(server.requests)


@pytest.mark.parametrize("type_", TYPES)
async def test_a_stale_connection_is_retried(type_: str, make: Make, raw_server: RawServerFactory) -> None:
    response = http_response(200, completion_response(type_))
    server = await raw_server([[response], [Do.CLOSE]], [[response]])
    backend = make(type_, endpoint=server.url)
    await backend.complete("Hi")
    if type_ == "llamacpp":  # whose streams close their connection: here the server does not
        assert "close" == server.requests[0].headers["connection"]
    assert "Hello" == (await backend.complete("Hi")).text
    assert [0, 0, 1] == server.connection_numbers


@pytest.mark.parametrize("type_", TYPES)
async def test_generation_does_not_reuse_the_connection_of_a_probe(
    type_: str, make: Make, raw_server: RawServerFactory
) -> None:
    """So one that is closed without an answer is not sent again."""
    probes = [[http_response(200, body)] for _, body in listing(type_, "m")]
    server = await raw_server(probes, [[Do.CLOSE]])
    backend = make(type_, endpoint=server.url)
    await backend.models()
    with pytest.raises(APIConnectionError):
        await backend.complete("Hi")
    assert [*[0 for _ in probes], 1] == server.connection_numbers


async def test_the_probes_of_a_cold_start_share_a_connection(make: Make, raw_server: RawServerFactory) -> None:
    loading = http_response(503, b'{"error":{"message":"Loading model","type":"unavailable_error"}}')
    (_, body), *_ = listing("llamacpp", "m")
    server = await raw_server([[loading], [loading], [http_response(200, body)]])
    await make("llamacpp", endpoint=server.url).wait_ready()
    assert [0, 0, 0] == server.connection_numbers


async def test_a_command_reuses_no_connection(make: Make, raw_server: RawServerFactory) -> None:
    """One that is closed without a response may have been processed."""
    model_list = http_response(200, b'{"data":[{"id":"m","status":{"value":"loaded"}}]}')
    server = await raw_server([[model_list]], [[Do.CLOSE]])
    backend = make("llamacpp", endpoint=server.url, default_model="m")
    await backend.models()
    with pytest.raises(APIConnectionError):
        await backend.load()
    assert (["/v1/models", "/models/load"], [0, 1]) == (server.paths, server.connection_numbers)


async def test_the_stream_of_a_server_that_closes_afterwards_sends_connection_close(
    make: Make, raw_server: RawServerFactory
) -> None:
    for type_ in TYPES:
        script = [EVENT_STREAM, http_chunk(sse("Hello")), LAST_CHUNK]
        server = await raw_server([script])
        backend = make(type_, endpoint=server.url)
        async with backend.stream("Hi") as stream:
            await stream.get_final_completion()
        expected = ["close" if type_ == "llamacpp" else None]
        assert expected == [request.headers.get("connection") for request in server.requests]


@pytest.mark.parametrize("type_", WARM)
async def test_refused_at_once(type_: str, make: Make, refusing_url: str, sleeps: list[float]) -> None:
    backend = make(type_, endpoint=refusing_url)
    for use in (backend.complete("Hi"), backend.models(), backend.ping(), backend.wait_ready()):
        with pytest.raises(APIConnectionError) as exc_info:
            await use
        assert f'backend "mine" unreachable at {refusing_url}: connection refused' == str(exc_info.value)
    assert [] == sleeps


@pytest.mark.parametrize("type_", COLD)
async def test_a_cold_start_that_does_not_end(type_: str, make: Make, refusing_url: str) -> None:
    backend = make(type_, endpoint=refusing_url, ready_timeout=0.08)
    progress: list[Loading] = []
    for use in (
        backend.complete("Hi", on_progress=progress.append),
        backend.ping(on_progress=progress.append),
        backend.wait_ready(on_progress=progress.append),
    ):
        progress.clear()
        with pytest.raises(APIConnectionError) as exc_info:
            await use
        assert exc_info.value.refused
        assert (exc_info.value.waited or 0) >= 0.07
        assert {("refused", refusing_url, 0.08)} == {(event.state, event.endpoint, event.budget) for event in progress}


@pytest.mark.parametrize("type_", TYPES)
async def test_loading_then_ready(type_: str, make: Make, mock_server: aioresponses, sleeps: list[float]) -> None:
    for _ in range(2):
        mock_server.post(CHAT, status=503, body=error_body("Loading model", type="unavailable_error", code=503))
    mock_server.post(CHAT, body=completion_response(type_))
    progress: list[Loading] = []
    assert "Hello" == (await make(type_).complete("Hi", on_progress=progress.append)).text
    assert ["loading", "loading"][: 2 if type_ in COLD else 0] == [event.state for event in progress]


@pytest.mark.parametrize("type_", COLD)
async def test_a_cold_start_can_be_switched_off(type_: str, make: Make, refusing_url: str) -> None:
    with pytest.raises(APIConnectionError) as exc_info:
        await make(type_, endpoint=refusing_url, ready_timeout=0).complete("Hi")
    assert exc_info.value.waited is None


# --- the server that does not answer in time ------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "settings", "expected"),
    [
        ("openai", {"timeout": 0.05}, ("total", "timeout")),
        ("vllm", {"timeout": 0.05}, ("total", "timeout")),
        ("vllm", {"first_token_timeout": 0.05}, ("first_token", "first_token_timeout")),
    ],
)
async def test_timeouts_name_the_phase_and_the_key(
    type_: str, settings: dict[str, float], expected: tuple[str, str], make: Make, raw_server: RawServerFactory
) -> None:
    server = await raw_server([[Do.HANG]])
    with pytest.raises(APITimeoutError, match=f'^backend "mine": .* 0.05 s; raise {expected[1]}') as exc_info:
        await make(type_, endpoint=server.url, **settings).complete("Hi")
    assert expected == (exc_info.value.phase, exc_info.value.key)
    assert await server.client_closed()


async def test_a_plain_response_without_a_timeout_has_the_first_token_timeout(
    make: Make, raw_server: RawServerFactory
) -> None:
    server = await raw_server([[Do.HANG]])
    backend = make("vllm", endpoint=server.url, first_token_timeout=0.05)
    with pytest.raises(APITimeoutError) as exc_info:
        await backend.embed("Hi")
    assert ("total", "first_token_timeout") == (exc_info.value.phase, exc_info.value.key)


async def test_no_timeout(make: Make, mock_server: aioresponses) -> None:
    mock_server.post(CHAT, body=sse("Hello"))
    mock_server.post(EMBEDDINGS, body=json.dumps({"data": [{"embedding": [1.0]}]}))
    profile = attrs.evolve(PROFILES["vllm"], timeout=None, first_token_timeout=None, idle_timeout=None)
    backend = make("vllm", profile=profile)
    assert "Hello" == (await backend.complete("Hi")).text
    assert ((1.0,),) == (await backend.embed("Hi")).vectors


@pytest.mark.parametrize("type_", ["vllm", "openai"])
async def test_listing_models_has_a_separate_timeout(type_: str, make: Make, raw_server: RawServerFactory) -> None:
    server = await raw_server([[Do.HANG]])
    settings = {"ready_timeout": 0.05} if type_ == "vllm" else {"timeout": 0.05}
    with pytest.raises(APITimeoutError) as exc_info:
        await make(type_, endpoint=server.url, **settings).models()
    assert 0.05 == exc_info.value.limit


# --- answers that are no answers ------------------------------------------------------------------


async def test_no_choice(make: Make, mock_server: aioresponses) -> None:
    mock_server.post(CHAT, body=b'{"choices":[]}')
    with pytest.raises(EmptyChoicesError) as exc_info:
        await make("openai").complete("Hi")
    assert ("mine", b'{"choices":[]}') == (exc_info.value.backend, exc_info.value.body)


async def test_an_incomplete_plain_response(make: Make, mock_server: aioresponses) -> None:
    mock_server.post(CHAT, body=completion_body(finish=None))
    with pytest.raises(StreamInterruptedError):
        await make("openai").complete("Hi")


async def test_an_incomplete_stream_is_an_error(make: Make, mock_server: aioresponses) -> None:
    mock_server.post(CHAT, body=event("Hel") + event("lo"))
    with pytest.raises(StreamInterruptedError) as exc_info:
        await make("vllm").complete("Hi")
    assert ("Hello", "mine") == (exc_info.value.partial.text, exc_info.value.backend)


# --- the model that answered ----------------------------------------------------------------------


@pytest.mark.parametrize("type_", ["vllm", "openai"])
async def test_another_model_answered(type_: str, make: Make, mock_server: aioresponses) -> None:
    mock_server.post(CHAT, body=completion_response(type_, model="other"), repeat=True)
    with pytest.raises(ModelMismatchError) as exc_info:
        await make(type_, model_mismatch="error").complete("Hi")
    error = exc_info.value
    assert ("m", "other", "mine") == (error.requested_model, error.served_model, error.backend)
    with pytest.warns(ModelMismatchWarning, match='model mismatch: requested "m", served "other"'):
        completion = await make(type_, model_mismatch="warn").complete("Hi")
    assert ("m", "other") == (completion.requested_model, completion.served_model)
    assert "other" == (await make(type_, model_mismatch="ignore").complete("Hi")).served_model


async def test_a_profile_may_accept_other_models(make: Make, mock_server: aioresponses) -> None:
    mock_server.post(CHAT, body=completion_body(model="other"), repeat=True)
    profile = attrs.evolve(PROFILES["openai"], model_mismatch="ignore")
    assert "other" == (await make("openai", profile=profile).complete("Hi")).served_model
    with pytest.raises(ModelMismatchError):
        await make("openai", profile=profile, model_mismatch="error").complete("Hi")


async def test_a_server_that_does_not_name_its_model(make: Make, mock_server: aioresponses) -> None:
    mock_server.post(CHAT, body=completion_body(model=None))
    assert None is (await make("openai").complete("Hi")).served_model


@pytest.mark.parametrize(
    ("requested", "served", "same"),
    [
        ("m", "m", True),
        ("m", "n", False),
        ("gpt-4o", "gpt-4o-2024-08-06", True),
        ("gpt-4", "gpt-4-0613", True),
        ("claude-sonnet-4-5", "claude-sonnet-4-5-20250929", True),
        ("gpt-4o", "gpt-4o-mini", False),
        ("gpt-4o", "gpt-4o-mini-2024-07-18", False),
        ("gpt-4", "gpt-4-5", False),
        ("gpt-4o-2024-08-06", "gpt-4o", False),
        ("gpt-4o-2024-08-06", "gpt-4o-2024-11-20", False),
        ("llama3", "llama3:latest", True),
        ("llama3:latest", "llama3:latest", True),
        ("llama3", "llama3:70b", False),
        ("qwen3-4b", "/models/qwen3-4b.gguf", True),
        ("qwen3-4b.gguf", "/models/qwen3-4b.gguf", True),
        ("/old/qwen3-4b.gguf", "/models/qwen3-4b.gguf", True),
        ("qwen3-4b", "C:\\models\\qwen3-4b.gguf", True),
        ("qwen3-4b", "/models/qwen3-8b.gguf", False),
        ("qwen3", "/models/qwen3-4b.gguf", False),
        ("qwen3-4b", "/models/qwen3-4b", False),
    ],
)
def test_same_model(requested: str, served: str, same: bool) -> None:
    assert same is same_model(requested, served)


# --- what is it, and is it there ------------------------------------------------------------------


@pytest.mark.parametrize("type_", [name for name in TYPES if name not in ("ollama", "lmstudio", "anthropic")])
async def test_models(type_: str, make: Make, mock_server: aioresponses) -> None:
    mock_server.get(MODELS, body=models_body("a", "b", owned_by="me", max_model_len=4096))
    expected = tuple(ModelInfo(id=name, context_length=4096, owned_by="me") for name in "ab")
    assert expected == await make(type_).models()


async def test_models_of_anthropic(make: Make, mock_server: aioresponses) -> None:
    mock_server.get(MODELS + "?limit=1000", body=models_body("a", "b", max_input_tokens=4096))
    assert tuple(ModelInfo(id=name, context_length=4096) for name in "ab") == await make("anthropic").models()
    (call,) = calls(mock_server)
    assert "2023-06-01" == call["headers"]["anthropic-version"]


async def test_models_of_ollama(make: Make, mock_server: aioresponses) -> None:
    mock_server.get(URL_ + "/api/tags", payload={"models": [{"name": "a:latest"}, {"name": "b:4b"}]})
    mock_server.get(URL_ + "/api/ps", payload={"models": [{"name": "b:4b", "context_length": 4096}]})
    expected = (
        ModelInfo(id="a:latest", aliases=("a",), state="unloaded"),
        ModelInfo(id="b:4b", context_length=4096, state="loaded"),
    )
    assert expected == await make("ollama").models()


async def test_models_of_lm_studio(make: Make, mock_server: aioresponses) -> None:
    loaded = {"loaded_instances": [{"id": "a:2", "config": {"context_length": 4096}}], "max_context_length": 9999}
    mock_server.get(
        URL_ + "/api/v1/models",
        payload={"models": [{"key": "a", "publisher": "me", **loaded}, {"key": "b", "max_context_length": 9999}]},
    )
    expected = (
        ModelInfo(id="a", aliases=("a:2",), context_length=4096, owned_by="me", state="loaded"),
        ModelInfo(id="b", state="unloaded"),
    )
    assert expected == await make("lmstudio").models()


async def test_models_of_an_lm_studio_without_its_native_api(make: Make, mock_server: aioresponses) -> None:
    mock_server.get(URL_ + "/api/v1/models", status=404, body=b"not found")
    mock_server.get(MODELS, body=models_body("a", "b", owned_by="me"))
    assert tuple(ModelInfo(id=name, owned_by="me") for name in "ab") == await make("lmstudio").models()


@pytest.mark.parametrize("type_", TYPES)
@pytest.mark.parametrize("wait", [True, False])
async def test_ping(wait: bool, type_: str, make: Make, mock_server: aioresponses) -> None:
    add_models(mock_server, type_, "a", "b")
    ping = await make(type_).ping(wait=wait)
    assert ("mine", URL_, "a") == (ping.backend, ping.endpoint, ping.model)
    assert ping.elapsed >= 0


@pytest.mark.parametrize("type_", TYPES)
async def test_a_server_without_a_model_is_ready(type_: str, make: Make, mock_server: aioresponses) -> None:
    add_models(mock_server, type_, repeat=True)
    backend = make(type_)
    await backend.wait_ready()
    for use in (backend.models(), backend.ping()):
        with pytest.raises(EmptyModelListError) as exc_info:
            await use
        assert "mine" == exc_info.value.backend


@pytest.mark.parametrize("type_", COLD)
async def test_waiting_for_a_server_that_starts(
    type_: str, make: Make, mock_server: aioresponses, sleeps: list[float]
) -> None:
    for status, body in ((502, b"<html>"), (503, b""), (503, error_body("Loading model"))):
        mock_server.get(MODELS, status=status, body=body)
    mock_server.get(MODELS, body=models_body("m"))
    add_is_sleeping(mock_server)
    progress: list[Loading] = []
    await make(type_).wait_ready(on_progress=progress.append)
    assert ["starting", "starting", "loading"] == [event.state for event in progress]


@pytest.mark.parametrize("type_", COLD)
async def test_a_ping_that_does_not_wait(
    type_: str, make: Make, refusing_url: str, mock_server: aioresponses, sleeps: list[float]
) -> None:
    mock_server.get(MODELS, status=502, body=b"")
    mock_server.get(MODELS, status=503, body=error_body("Loading model"))
    mock_server.get(MODELS, status=503, body=error_body("no slot available"))
    for _ in range(3):
        with pytest.raises(InternalServerError):
            await make(type_).ping(wait=False)
    assert (3, []) == (len(calls(mock_server)), sleeps)
    mock_server.stop()
    with pytest.raises(APIConnectionError) as exc_info:
        await make(type_, endpoint=refusing_url).ping(wait=False)
    mock_server.start()
    assert (True, None, []) == (exc_info.value.refused, exc_info.value.waited, sleeps)


@pytest.mark.parametrize("status", [401, 500])
async def test_errors_that_last_are_not_waited_for(
    status: int, make: Make, mock_server: aioresponses, sleeps: list[float]
) -> None:
    for url in (MODELS, MODELS.replace("/v1", "")):
        mock_server.get(url, status=status, body=b"no", repeat=True)
    with pytest.raises(APIStatusError):
        await make("vllm").wait_ready()
    assert (2 if status == 404 else 1, []) == (len(calls(mock_server)), sleeps)


async def test_a_model_list_of_another_shape(make: Make, mock_server: aioresponses) -> None:
    mock_server.get(MODELS, body=b'{"models":[]}')
    with pytest.raises(MalformedResponseError):
        await make("vllm").models()


# --- a router, which answers before its models are loaded -----------------------------------------


def router_models(state: str | None, *, failed: bool = False, **more: Any) -> bytes:
    status = {} if state is None else {"status": {"value": state, "failed": failed}}
    other = {"id": "other", "status": {"value": "loading"}}
    return json.dumps({"data": [other, {"id": "m", **status, **more}]}).encode()


@pytest.mark.parametrize("name", ["m", "short"])
async def test_a_model_that_its_router_loads(
    name: str, make: Make, mock_server: aioresponses, sleeps: list[float]
) -> None:
    for state in ("loading", "loading", "loaded"):
        mock_server.get(MODELS, body=router_models(state, aliases=["short"]))
    progress: list[Loading] = []
    await make("llamacpp", default_model=name).wait_ready(on_progress=progress.append)
    assert ["loading", "loading"] == [event.state for event in progress]


async def test_a_model_that_its_router_cannot_load(make: Make, mock_server: aioresponses, sleeps: list[float]) -> None:
    mock_server.get(MODELS, body=router_models("loading"))
    mock_server.get(MODELS, body=router_models("unloaded", failed=True))
    with pytest.raises(ModelLoadFailedError, match="the model m failed to load") as exc_info:
        await make("llamacpp").ping()
    assert (2, "mine") == (len(calls(mock_server)), exc_info.value.backend)


@pytest.mark.parametrize("state", [None, "loaded", "unloaded"])
async def test_a_model_that_its_router_has(state: str | None, make: Make, mock_server: aioresponses) -> None:
    mock_server.get(MODELS, body=router_models(state))
    assert ("other", "m") == tuple(model.id for model in await make("llamacpp").models())


async def test_the_state_of_another_model_is_not_waited_for(make: Make, mock_server: aioresponses) -> None:
    mock_server.get(MODELS, body=router_models("loading"), repeat=True)
    await make("llamacpp", default_model="third").wait_ready()
    await make("llamacpp", no_model=True).wait_ready()
    await make("openai").wait_ready()  # no cold start, no waiting
    assert 3 == len(calls(mock_server))


# --- embeddings -----------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", [name for name in TYPES if name not in ("anthropic", "ollama")])
async def test_embeddings(type_: str, make: Make, mock_server: aioresponses) -> None:
    more: dict[str, Any] = {} if type_ == "llamacpp" else {"dimensions": 2}
    vectors = [{"index": 1, "embedding": [3.0, 4.0]}, {"index": 0, "embedding": [1.0, 2.0]}]
    payload = {"data": vectors, "model": "e", "usage": {"prompt_tokens": 2}}
    mock_server.post(EMBEDDINGS, payload=payload)
    embeddings = await make(type_).embed(["a", "b"], model="e", **more)
    assert ((1.0, 2.0), (3.0, 4.0)) == embeddings.vectors
    assert ("e", "e", Usage(2, 0)) == (embeddings.requested_model, embeddings.served_model, embeddings.usage)
    encoding = "base64" if type_ in ("vllm", "llamacpp", "openai") else "float"
    assert {"model": "e", "input": ["a", "b"], "encoding_format": encoding, **more} == body_of(mock_server)


async def test_embeddings_of_ollama(make: Make, mock_server: aioresponses) -> None:
    payload = {"embeddings": [[1.0, 2.0], [3.0, 4.0]], "model": "e", "prompt_eval_count": 2}
    mock_server.post(URL_ + "/api/embed", payload=payload)
    embeddings = await make("ollama").embed(["a", "b"], model="e", dimensions=2)
    assert ((1.0, 2.0), (3.0, 4.0)) == embeddings.vectors
    assert ("e", "e", Usage(2, 0)) == (embeddings.requested_model, embeddings.served_model, embeddings.usage)
    assert {"model": "e", "input": ["a", "b"], "truncate": False, "dimensions": 2} == body_of(mock_server)


async def test_dimensions_that_the_server_would_ignore(make: Make, mock_server: aioresponses) -> None:
    with pytest.raises(UnsupportedOptionError) as exc_info:
        await make("llamacpp").embed("a", dimensions=2)
    assert ("dimensions", "mine", URL_) == (exc_info.value.option, exc_info.value.backend, exc_info.value.endpoint)
    assert [] == calls(mock_server)


async def test_one_text(make: Make, mock_server: aioresponses) -> None:
    mock_server.post(EMBEDDINGS, payload={"data": [{"embedding": [1.0]}]})
    assert ((1.0,),) == (await make("vllm").embed("a")).vectors
    assert {"model": "m", "input": ["a"], "encoding_format": "base64"} == body_of(mock_server)


async def test_embeddings_of_another_model(make: Make, mock_server: aioresponses) -> None:
    mock_server.post(EMBEDDINGS, payload={"data": [{"embedding": [1.0]}], "model": "other"})
    with pytest.raises(ModelMismatchError):
        await make("vllm").embed("a")


async def test_no_embeddings(make: Make, mock_server: aioresponses) -> None:
    with pytest.raises(UnsupportedOperationError) as exc_info:
        await make("anthropic").embed("a")
    assert "embed" == exc_info.value.operation
    with pytest.raises(ValueError, match="at least one text"):
        await make("vllm").embed([])
    assert [] == calls(mock_server)


# --- a server that is started on first use --------------------------------------------------------


class FakeLauncher:
    """Gives the address of a server that is not there yet, and says why it ended."""

    description = "tiny.gguf"
    running = True
    shares_context = False

    def __init__(self, url: str, failure: BackendError | None = None) -> None:
        self._url = url
        self._failure = failure
        self.starts = 0
        self.is_closed = False

    async def start(self) -> str:
        self.starts += 1
        return self._url

    def failure(self) -> BackendError | None:
        return self._failure

    async def aclose(self) -> None:
        self.is_closed = True


async def test_a_server_is_started_on_first_use(make: Make, mock_server: aioresponses) -> None:
    mock_server.post(CHAT, body=sse("Hello"), repeat=True)
    launcher = FakeLauncher(URL_)
    backend = make("llamacpp", endpoint=None, launcher=launcher)
    assert ("tiny.gguf", 0) == (backend.endpoint, launcher.starts)
    assert "<HTTPBackend 'mine' (llamacpp) at tiny.gguf>" == repr(backend)
    await backend.complete("Hi")
    await backend.complete("Hi")
    assert (URL_, 2) == (backend.endpoint, launcher.starts)
    await backend.aclose()
    assert launcher.is_closed


async def test_a_started_server_that_ended(make: Make, refusing_url: str) -> None:
    failure = ServerDiedError("exit code 1", exit_code=1)
    backend = make("llamacpp", endpoint=None, launcher=FakeLauncher(refusing_url, failure))
    with pytest.raises(ServerDiedError) as exc_info:
        await backend.complete("Hi")
    assert failure is exc_info.value
    assert "mine" == failure.backend


async def test_a_dead_process_is_reported_after_its_connection_closed(make: Make, raw_server: RawServerFactory) -> None:
    server = await raw_server([[Do.CLOSE]])
    launcher = FakeLauncher(server.url)
    answers = iter([None, None, ServerDiedError("it died")])
    launcher.failure = lambda: next(answers)  # type: ignore[method-assign]
    with pytest.raises(ServerDiedError, match="it died") as exc_info:
        await make("llamacpp", endpoint=None, launcher=launcher).complete("Hi")
    assert isinstance(exc_info.value.__cause__, APIConnectionError)


async def test_a_live_process_keeps_the_error_of_its_connection(make: Make, raw_server: RawServerFactory) -> None:
    server = await raw_server([[Do.CLOSE]])
    with pytest.raises(APIConnectionError, match="closed the connection"):
        await make("llamacpp", endpoint=None, launcher=FakeLauncher(server.url)).complete("Hi")


# --- construction ---------------------------------------------------------------------------------


@pytest.mark.parametrize("type_", [name for name in TYPES if name != "openai-compatible"])
async def test_the_default_endpoint(type_: str, make: Make) -> None:
    assert PROFILES[type_].default_endpoint == make(type_, endpoint=None).endpoint


async def test_a_type_without_an_endpoint(make: Make) -> None:
    profile = Profile(type="mine", default_endpoint=None)
    with pytest.raises(InvalidEndpointError) as exc_info:
        make("mine", profile=profile, endpoint=None)
    assert ("endpoint", "mine") == (exc_info.value.key, exc_info.value.backend)


async def test_the_endpoint_may_have_a_path(make: Make, mock_server: aioresponses) -> None:
    mock_server.get(URL_ + "/proxy/v1/models", body=models_body("m"))
    await make("vllm", endpoint=URL_ + "/proxy/v1/").models()
    assert [("GET", URL(URL_ + "/proxy/v1/models"))] == list(mock_server.requests)


async def test_it_is_a_backend(make: Make) -> None:
    backend = make("vllm")
    assert isinstance(backend, Backend)
    assert ("mine", "vllm", "m", URL_) == (backend.name, backend.type, backend.default_model, backend.endpoint)
    await backend.aclose()
    for name, method in inspect.getmembers(Backend, inspect.isfunction):
        if not name.startswith("_"):
            theirs = inspect.signature(getattr(HTTPBackend, name))
            if name in ("complete", "stream"):  # its prompt has a default that is an error
                prompt = theirs.parameters["prompt"].replace(default=inspect.Parameter.empty)
                theirs = theirs.replace(parameters=[*({**theirs.parameters, "prompt": prompt}).values()])
            if name == "stream":
                theirs = theirs.replace(return_annotation="Stream")  # a ChatStream is one
            assert inspect.signature(method) == theirs


async def test_many_tasks_at_once(make: Make, raw_server: RawServerFactory) -> None:
    server = await raw_server([[http_response(200, completion_body(), Connection="close")]])
    backend = make("openai-compatible", endpoint=server.url)
    completions = await asyncio.gather(*(backend.complete(str(index)) for index in range(20)))
    assert {"Hello"} == {completion.text for completion in completions}
    assert {str(index) for index in range(20)} == {
        request.json["messages"][0]["content"] for request in server.requests
    }
