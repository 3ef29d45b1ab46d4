"""Error responses of servers, and the exceptions that they become."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict
from rich.pretty import pretty_repr

from ctxbackends._wire.base import HTTPResponse
from ctxbackends._wire.errors import (
    ErrorDetails,
    error_from_response,
    error_from_success,
    parse_error_body,
    parse_error_value,
)
from ctxbackends.errors import (
    APIStatusError,
    AuthenticationError,
    BadRequestError,
    ContextOverflowError,
    InternalServerError,
    ModelLoadFailedError,
    ModelLoadingError,
    ModelNotFoundError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RedirectError,
    ServiceUnavailableError,
)

RECORDINGS = Path(__file__).parent / "recordings"


def recording(name: str) -> bytes:
    return (RECORDINGS / name).read_bytes()


def error_for(status: int, body: bytes = b"", headers: Mapping[str, str] | None = None) -> APIStatusError:
    return error_from_response(
        HTTPResponse(status=status, headers=headers or {}, body=body, received_at=1_000_000_000.0)
    )


LLAMA = {"server": "llama.cpp", "content-type": "application/json; charset=utf-8", "connection": "close"}
VLLM = {"server": "uvicorn", "content-type": "application/json"}
LOADING = b'{"error":{"message":"Loading model","type":"unavailable_error","code":503}}'


def row(
    case: str,
    status: int,
    body: bytes,
    kind: type[APIStatusError],
    headers: Mapping[str, str] | None = None,
    **fields: Any,
) -> Any:
    """``facts`` are what the exception says besides its body; what is not named must be None."""
    return pytest.param(status, headers or {}, body, kind, fields, id=case)


ERRORS = [
    # --- llama-server, builds b8672 to b11549
    row(
        "llama-server: loading",
        503,
        LOADING,
        ModelLoadingError,
        LLAMA,
        message="Loading model",
        error_type="unavailable_error",
    ),
    row(
        "llama-server: no slot",
        503,
        b'{"error":{"code":503,"message":"no slot available","type":"unavailable_error"}}',
        ServiceUnavailableError,
        LLAMA,
        message="no slot available",
        error_type="unavailable_error",
    ),
    row(
        "llama-server: the prompt does not fit",
        400,
        recording("llama-b11549-error-context.json"),
        ContextOverflowError,
        LLAMA,
        message="request (36017 tokens) exceeds the available context size (2048 tokens), try increasing it",
        error_type="exceed_context_size_error",
        input_tokens=36017,
        context_length=2048,
    ),
    row(
        "llama-server: wrong key",
        401,
        b'{"error":{"message":"Invalid API Key","type":"authentication_error","code":401}}',
        AuthenticationError,
        LLAMA,
        message="Invalid API Key",
        error_type="authentication_error",
    ),
    row(
        "llama-server: no such route",
        404,
        b'{"error":{"message":"File Not Found","type":"not_found_error","code":404}}',
        NotFoundError,
        LLAMA,
        message="File Not Found",
        error_type="not_found_error",
    ),
    row(
        "llama-server: embeddings are off",
        501,
        b'{"error":{"code":501,"message":"This server does not support embeddings. Start it with `--embeddings`",'
        b'"type":"not_supported_error"}}',
        InternalServerError,
        LLAMA,
        message="This server does not support embeddings. Start it with `--embeddings`",
        error_type="not_supported_error",
    ),
    row(
        "llama-server router: a broken model",
        500,
        b'{"error":{"code":500,"message":"model name=bad failed to load","type":"server_error"}}',
        ModelLoadFailedError,
        LLAMA,
        message="model name=bad failed to load",
        error_type="server_error",
    ),
    row(
        "llama-server: failed to load as 503 is no loading",
        503,
        b'{"error":{"code":503,"message":"model failed to load","type":"unavailable_error"}}',
        ModelLoadFailedError,
        message="model failed to load",
        error_type="unavailable_error",
    ),
    row(
        "a router: unknown model under 400",
        400,
        b'{"error":{"code":400,"message":"model \'nope\' not found","type":"invalid_request_error"}}',
        ModelNotFoundError,
        LLAMA,
        message="model 'nope' not found",
        error_type="invalid_request_error",
    ),
    row(
        "llama-server: a wrong type",
        400,
        b'{"error":{"code":400,"message":"Field \'temperature\': [json.exception.type_error.302] type must be number, '
        b'but is string","type":"invalid_request_error"}}',
        BadRequestError,
        LLAMA,
        message="Field 'temperature': [json.exception.type_error.302] type must be number, but is string",
        error_type="invalid_request_error",
    ),
    row("llama-server: a header of 9000 bytes", 400, b"", BadRequestError, {"server": "llama.cpp"}),
    row("llama-server: a body of 101 MiB", 413, b"", BadRequestError, {"server": "llama.cpp"}),
    row(
        "llama-server: image without a projector",
        500,
        b'{"error":{"code":500,"message":"image input is not supported","type":"server_error"}}',
        InternalServerError,
        message="image input is not supported",
        error_type="server_error",
    ),
    # --- vLLM 0.32.0
    row(
        "vLLM: wrong model",
        404,
        recording("vllm-0.32.0-error-model.json"),
        ModelNotFoundError,
        VLLM,
        message="The model `nope` does not exist. Valid aliases: tiny.",
        error_type="NotFoundError",
    ),
    row(
        "vLLM: the parameter alone says it",
        404,
        b'{"error":{"message":"nope","type":"NotFoundError","param":"model","code":404}}',
        ModelNotFoundError,
        VLLM,
        message="nope",
        error_type="NotFoundError",
    ),
    row(
        "vLLM: wrong model at the embeddings",
        404,
        b'{"error":{"message":"The model `nope` does not exist.","type":"NotFoundError","param":null,"code":404}}',
        ModelNotFoundError,
        VLLM,
        message="The model `nope` does not exist.",
        error_type="NotFoundError",
    ),
    row("vLLM: no such route", 404, b'{"detail":"Not Found"}', NotFoundError, VLLM, message="Not Found"),
    row("vLLM: wrong key", 401, b'{"error":"Unauthorized"}', AuthenticationError, VLLM, message="Unauthorized"),
    row(
        "vLLM: wrong method",
        405,
        b'{"detail":"Method Not Allowed"}',
        APIStatusError,
        VLLM,
        message="Method Not Allowed",
    ),
    row(
        "vLLM: the prompt does not fit",
        400,
        recording("vllm-0.32.0-error-context.json"),
        ContextOverflowError,
        VLLM,
        message="This model's maximum context length is 1024 tokens. However, your prompt contains at least 1025 input "
        "tokens, which exceeds this limit even without any output tokens. Please reduce the length of the input "
        "prompt. (parameter=input_tokens, value=1025)",
        error_type="BadRequestError",
        input_tokens=1025,
        context_length=1024,
    ),
    row(
        "vLLM: the prompt is refused by its characters",
        400,
        b'{"error":{"message":"This model\'s maximum context length is 8192 tokens. However, your prompt contains '
        b'3000050 characters (more than 303104 characters)","type":"BadRequestError","param":"input_text","code":400}}',
        ContextOverflowError,
        VLLM,
        message="This model's maximum context length is 8192 tokens. However, your prompt contains "
        "3000050 characters (more than 303104 characters)",
        error_type="BadRequestError",
        context_length=8192,
    ),
    row(
        "vLLM: max_tokens is more than the context",
        400,
        b'{"error":{"message":"max_tokens=5000 cannot be greater than max_model_len=1024.","type":"BadRequestError",'
        b'"param":"max_tokens","code":400}}',
        BadRequestError,
        VLLM,
        message="max_tokens=5000 cannot be greater than max_model_len=1024.",
        error_type="BadRequestError",
    ),
    row(
        "vLLM: drains",
        500,
        b'{"error":{"message":"cannot schedule new futures after shutdown","type":"InternalServerError","param":null,'
        b'"code":500}}',
        InternalServerError,
        VLLM,
        message="cannot schedule new futures after shutdown",
        error_type="InternalServerError",
    ),
    row("vLLM: the engine is dead", 503, b"", ServiceUnavailableError, VLLM),
    # --- OpenAI
    row(
        "OpenAI: the prompt does not fit",
        400,
        b'{"error":{"message":"This model\'s maximum context length is 8192 tokens. However, your messages resulted in '
        b'9001 tokens.","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}',
        ContextOverflowError,
        {"x-request-id": "req_1"},
        message="This model's maximum context length is 8192 tokens. However, your messages resulted in 9001 tokens.",
        error_type="invalid_request_error",
        request_id="req_1",
        input_tokens=9001,
        context_length=8192,
    ),
    row(
        "OpenAI: prompt and completion do not fit",
        400,
        b'{"error":{"message":"This model\'s maximum context length is 4097 tokens. However, you requested 5000 tokens '
        b'(1000 in the messages, 4000 in the completion).","code":"context_length_exceeded"}}',
        ContextOverflowError,
        message="This model's maximum context length is 4097 tokens. However, you requested 5000 tokens "
        "(1000 in the messages, 4000 in the completion).",
        input_tokens=1000,
        context_length=4097,
    ),
    row(
        "OpenAI: the code alone says it",
        400,
        b'{"error":{"message":"Your input exceeds the context window.","code":"context_length_exceeded"}}',
        ContextOverflowError,
        message="Your input exceeds the context window.",
    ),
    row(
        "OpenAI: wrong key",
        401,
        b'{"error":{"message":"Incorrect API key provided: sk-x.","type":"invalid_request_error","param":null,'
        b'"code":"invalid_api_key"}}',
        AuthenticationError,
        message="Incorrect API key provided: sk-x.",
        error_type="invalid_request_error",
    ),
    row(
        "OpenAI: wrong model",
        404,
        b'{"error":{"message":"nope","type":"invalid_request_error","param":null,"code":"model_not_found"}}',
        ModelNotFoundError,
        message="nope",
        error_type="invalid_request_error",
    ),
    row(
        "OpenAI: too many requests",
        429,
        b'{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}',
        RateLimitError,
        {"retry-after": "20", "retry-after-ms": "1500", "x-request-id": "req_2"},
        message="Rate limit reached",
        error_type="requests",
        retry_after=1.5,
        request_id="req_2",
    ),
    row("OpenAI: forbidden", 403, b'{"error":{"message":"no"}}', PermissionDeniedError, message="no"),
    # --- Anthropic
    row(
        "Anthropic: overloaded",
        529,
        b'{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"},"request_id":"req_3"}',
        ServiceUnavailableError,
        {"request-id": "req_3"},
        message="Overloaded",
        error_type="overloaded_error",
        request_id="req_3",
    ),
    row(
        "Anthropic: wrong model",
        404,
        b'{"type":"error","error":{"type":"not_found_error","message":"model: nope"}}',
        ModelNotFoundError,
        message="model: nope",
        error_type="not_found_error",
    ),
    # --- Ollama, proxies and others
    row(
        "Ollama: wrong model",
        404,
        b'{"error":"model \'nope\' not found, try pulling it first"}',
        ModelNotFoundError,
        message="model 'nope' not found, try pulling it first",
    ),
    row(
        "Ollama: busy",
        503,
        b'{"error":"server busy, please try again.  maximum pending requests exceeded"}',
        ServiceUnavailableError,
        message="server busy, please try again.  maximum pending requests exceeded",
    ),
    row(
        "FastAPI: a list of details",
        422,
        b'{"detail":[{"loc":["body"],"msg":"field required"}]}',
        BadRequestError,
    ),
    row(
        "a message at the top level",
        500,
        b'{"message":"boom","type":"E"}',
        InternalServerError,
        message="boom",
        error_type="E",
    ),
    row("an HTML page that speaks of loading", 503, b"<html>Loading model</html>", ServiceUnavailableError),
    row("an HTML page", 502, b"<html><h1>Bad Gateway</h1></html>", InternalServerError, {"content-type": "text/html"}),
    row("no JSON object", 500, b'["boom"]', InternalServerError),
    row("no UTF-8", 500, b'{"error":"\xff"}', InternalServerError),
    row("error is null", 500, b'{"error":null,"message":"boom"}', InternalServerError, message="boom"),
    row("members of other types", 500, b'{"error":{"message":5,"type":[],"code":{}}}', InternalServerError),
    row(
        "loading, but no 503",
        500,
        LOADING,
        InternalServerError,
        message="Loading model",
        error_type="unavailable_error",
    ),
    row("a teapot", 418, b"", APIStatusError),
    row("an unknown 5xx", 599, b"", InternalServerError),
    # --- redirects
    row("a redirect", 307, b"", RedirectError, {"location": "http://evil/v1"}, location="http://evil/v1"),
    row("a redirect to nowhere", 302, b"moved", RedirectError),
    row("not modified", 304, b"", APIStatusError),
]


@pytest.mark.parametrize(("status", "headers", "body", "kind", "fields"), ERRORS)
def test_responses_become_errors(
    status: int, headers: Mapping[str, str], body: bytes, kind: type[APIStatusError], fields: Mapping[str, Any]
) -> None:
    error = error_for(status, body, headers)
    assert kind is type(error)
    assert (status, body, headers) == (error.status_code, error.body, error.headers)
    names = ["message", "error_type", "retry_after", "request_id"]
    names += ["input_tokens", "context_length"] if kind is ContextOverflowError else []
    names += ["location"] if kind is RedirectError else []
    assert {**dict.fromkeys(names), **fields} == {name: getattr(error, name) for name in names}


@pytest.mark.parametrize("status", [400, 413, 422, 500])
def test_overflows_are_recognised_under_any_status(status: int) -> None:
    assert ContextOverflowError is type(error_for(status, recording("llama-b11549-error-context.json")))


@pytest.mark.parametrize("status", [401, 404, 429, 503])
def test_other_statuses_are_not_overflows(status: int) -> None:
    assert ContextOverflowError is not type(error_for(status, recording("llama-b11549-error-context.json")))


def test_too_long_numbers_are_ignored() -> None:
    error = error_for(400, b'{"error":{"message":"maximum context length is %b"}}' % (b"9" * 5000))
    assert ContextOverflowError is type(error)


@pytest.mark.parametrize("numbers", [b'"n_prompt_tokens":"5","n_ctx":4', b'"n_prompt_tokens":5,"n_ctx":null'])
def test_numbers_of_other_types_are_ignored(numbers: bytes) -> None:
    error = error_for(400, b'{"error":{"type":"exceed_context_size_error",%b}}' % numbers)
    assert isinstance(error, ContextOverflowError)
    assert (None, None) == (error.input_tokens, error.context_length)


# --- Retry-After ----------------------------------------------------------------------------------------

DATE = "Sun, 09 Sep 2001 01:46:40 GMT"  # 1_000_000_000, which is when the answers of this file were received
LATER = "Sun, 09 Sep 2001 01:47:10 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        pytest.param({}, None, id="none"),
        pytest.param({"retry-after": "20"}, 20.0, id="seconds"),
        pytest.param({"retry-after": " 1.5 "}, 1.5, id="a fraction, spaces around"),
        pytest.param({"retry-after": "0"}, 0.0, id="0"),
        pytest.param({"retry-after": "-1"}, None, id="negative"),
        pytest.param({"retry-after": "nan"}, None, id="NaN"),
        pytest.param({"retry-after": "inf"}, None, id="infinity"),
        pytest.param({"retry-after": "9" * 5000}, None, id="5000 digits"),
        pytest.param({"retry-after": ""}, None, id="empty"),
        pytest.param({"retry-after": "soon"}, None, id="garbage"),
        pytest.param({"retry-after": "Mon, 99 Foo 2001"}, None, id="almost a date"),
        pytest.param({"retry-after": "Sun, 09 Sep 99999 01:47:10 GMT"}, None, id="a year out of range"),
        pytest.param({"retry-after-ms": "1500"}, 1.5, id="ms"),
        pytest.param({"retry-after-ms": "1500", "retry-after": "9"}, 1.5, id="ms wins"),
        pytest.param({"retry-after-ms": "soon", "retry-after": "9"}, 9.0, id="ms that is garbage does not"),
        pytest.param({"retry-after-ms": "-1"}, None, id="ms, negative"),
        pytest.param({"retry-after": LATER}, 30.0, id="a date, after the time of receipt"),
        pytest.param({"retry-after": LATER, "date": LATER}, 0.0, id="a date, after the server's own clock"),
        pytest.param({"retry-after": LATER, "date": DATE}, 30.0, id="a date and the server's clock agree"),
        pytest.param(
            {"retry-after": "Sun, 22 Nov 2026 17:00:10 GMT", "date": "Sun, 22 Nov 2026 17:00:00 GMT"},
            10.0,
            id="the server's clock is far from ours",
        ),
        pytest.param({"retry-after": "Sun, 09 Sep 2001 03:47:10 +0200"}, 30.0, id="a date with a zone"),
        pytest.param({"retry-after": "Sun, 09 Sep 2001 01:47:10 -0000"}, 30.0, id="a date of no known zone is UTC"),
        pytest.param({"retry-after": "Sun, 09 Sep 2001 01:46:00 GMT"}, 0.0, id="a date that is past"),
        pytest.param({"retry-after": LATER, "date": "garbage"}, None, id="a date and a clock that is garbage"),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_parsed(status: int, headers: Mapping[str, str], seconds: float | None) -> None:
    assert seconds == error_for(status, headers=headers).retry_after


@pytest.mark.parametrize(
    ("headers", "request_id"),
    [
        ({}, None),
        ({"x-request-id": "a"}, "a"),
        ({"request-id": "b"}, "b"),
        ({"x-request-id": "a", "request-id": "b"}, "a"),
        ({"x-request-id": "", "request-id": "b"}, "b"),
    ],
)
def test_request_ids_are_parsed(headers: Mapping[str, str], request_id: str | None) -> None:
    assert request_id == error_for(500, headers=headers).request_id


# --- messages -------------------------------------------------------------------------------------------


def test_the_message_has_the_body() -> None:
    assert f"HTTP 503: {LOADING.decode()}" == str(error_for(503, LOADING))
    assert "HTTP 500: (empty body)" == str(error_for(500))
    assert "HTTP 500: (empty body)" == str(error_for(500, b" \r\n"))


def test_the_message_shows_512_bytes_and_the_body_keeps_all() -> None:
    body = b"x" * 511 + "漢".encode() + b"y" * 5000
    error = error_for(500, body)
    assert "HTTP 500: " + "x" * 511 + "\ufffd" == str(error)
    assert body == error.body


def test_the_message_of_a_redirect_has_advice() -> None:
    error = error_for(301, headers={"location": "https://h/"})
    assert "HTTP 301: (empty body) (redirect to https://h/ not followed; correct the endpoint)" == str(error)
    assert "(redirect without a location not followed; correct the endpoint)" in str(error_for(301))


# --- whatever comes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [b"", b"x", b"null", b"5", b'"x"', b"[]", b"\xff", b'{"error":"\\ud800"}', b"[" * 100_000, b'{"a":' * 100_000],
    ids=lambda body: body[:20].decode("utf-8", "replace"),
)
def test_unknown_bodies_have_no_details(body: bytes) -> None:
    assert ErrorDetails(None, None, None, {}) == parse_error_body(body)


@pytest.mark.parametrize(
    ("value", "fields"),
    [
        ({}, ErrorDetails(None, None, None, {})),
        (
            {"error": {"message": "a", "type": "t", "code": 5}},
            ErrorDetails("a", "t", 5, {"message": "a", "type": "t", "code": 5}),
        ),
        ({"error": {"message": "a", "code": "c"}}, ErrorDetails("a", None, "c", {"message": "a", "code": "c"})),
        ({"error": "a", "x": 1}, ErrorDetails("a", None, None, {"error": "a", "x": 1})),
        ({"error": ["a"], "message": "b"}, ErrorDetails("b", None, None, {"error": ["a"], "message": "b"})),
        ({"detail": "a"}, ErrorDetails("a", None, None, {"detail": "a"})),
        ({"message": "a", "detail": "b"}, ErrorDetails("a", None, None, {"message": "a", "detail": "b"})),
        ({"error": {"detail": "a"}}, ErrorDetails("a", None, None, {"detail": "a"})),
        ({"code": 1.5}, ErrorDetails(None, None, None, {"code": 1.5})),
    ],
)
def test_details_are_parsed(value: object, fields: ErrorDetails) -> None:
    assert fields == parse_error_value(value)
    assert fields == parse_error_body(msgspec.json.encode(value))


words = st.sampled_from(
    [
        "loading",
        "failed to load",
        "maximum context length is 5",
        "model",
        "not found",
        "context_length_exceeded",
        "9" * 5000,
    ]
)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | words,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "detail", "type", "code", "param", "n_ctx", "n_prompt_tokens"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=10,
)
bodies = st.binary() | json_values.map(msgspec.json.encode)
header_values = st.text(max_size=30) | st.sampled_from([DATE, LATER, "5", "-5"]) | st.floats().map(str)


@given(
    st.integers(300, 599),
    bodies,
    st.dictionaries(
        st.sampled_from(["retry-after", "retry-after-ms", "date", "x-request-id", "location"]), header_values
    ),
)
@example(400, b'{"error":{"message":"maximum context length is %b"}}' % (b"9" * 5000), {})
def test_any_response_becomes_an_error_with_its_body(status: int, body: bytes, headers: Mapping[str, str]) -> None:
    error = error_for(status, body, headers)
    assert (status, body) == (error.status_code, error.body)
    assert isinstance(error, RedirectError) == (300 <= status < 400 and status != 304)
    assert isinstance(error, InternalServerError) == (status >= 500 and not isinstance(error, ContextOverflowError))
    assert error.retry_after is None or 0 <= error.retry_after < float("inf")
    assert len(str(error)) < 512 + 200


@pytest.mark.parametrize("position", range(0, 200, 3))
def test_a_truncated_body_is_an_error_of_its_status(position: int) -> None:
    error = error_for(404, recording("vllm-0.32.0-error-model.json")[:position])
    assert isinstance(error, NotFoundError)


def test_the_repr_of_a_response_shows_neither_headers_nor_body() -> None:
    """Servers repeat keys. rich asks for more than repr() does."""
    answer = HTTPResponse(status=200, headers={"x": "secret"}, body=b"secret")
    assert "HTTPResponse(status=200, received_at=0.0)" == repr(answer) == pretty_repr(answer)


def test_errors_under_a_good_status_have_their_headers() -> None:
    body = b'{"error": "Unexpected endpoint or method. (POST /v1/chat)"}'
    answer = HTTPResponse(status=200, headers=CIMultiDict({"X-Request-ID": "r1"}), body=body)
    error = error_from_success(answer)
    assert isinstance(error, NotFoundError)
    assert {"x-request-id": "r1"} == error.headers
