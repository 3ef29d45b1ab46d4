"""Exceptions: attributes, messages, pickling, and the masking of keys."""

from __future__ import annotations

import copy
import inspect
import pickle
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends import errors as module
from ctxbackends._chat.messages import ToolCall
from ctxbackends._chat.responses import Completion, PartialCompletion, Usage
from ctxbackends._client.redact import redact
from ctxbackends.errors import (
    AirgapError,
    AmbiguousBackendError,
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BackendError,
    BadRequestError,
    ClosedError,
    ConfigError,
    ContextOverflowError,
    DuplicateBackendError,
    EmptyChoicesError,
    EmptyModelListError,
    EventLoopError,
    IncompleteOutputError,
    IncompleteResponseError,
    InsufficientQuotaError,
    InternalServerError,
    InvalidEndpointError,
    LocalServerUnavailableError,
    LocalServerWarning,
    MalformedResponseError,
    MissingKeyError,
    ModelDownloadError,
    ModelLoadFailedError,
    ModelLoadingError,
    ModelMismatchError,
    ModelMismatchWarning,
    ModelNotFoundError,
    NoBackendConfiguredError,
    NoModelError,
    NotFoundError,
    NoToolCallError,
    PermissionDeniedError,
    RateLimitError,
    RedirectError,
    ResponseError,
    ResponseInterruptedError,
    ResponseTooLargeError,
    ServerConfigurationError,
    ServerDiedError,
    ServerSleepingError,
    ServiceUnavailableError,
    StreamInterruptedError,
    StrictSchemaError,
    StructuredOutputError,
    ToolRoundsError,
    UnknownBackendError,
    UnknownBackendTypeError,
    UnsupportedOperationError,
    UnsupportedOptionError,
)

PARTIAL = PartialCompletion(text="a", tool_calls=(ToolCall("c", "f", "{"),), usage=Usage(1, 2), served_model="m")
STATUS: dict[str, Any] = {
    "body": b"no \xff",
    "headers": {"a": "b"},
    "message": "no",
    "error_type": "E",
    "retry_after": 1.5,
    "request_id": "r",
}
LOCATION: dict[str, Any] = {"path": ".ctxrc", "line": 3, "key": "backends.a"}


def plain(kind: type[BackendError]) -> Any:
    return pytest.param(kind("broken"), "broken", id=kind.__name__)


def config(kind: type[ConfigError]) -> Any:
    return pytest.param(kind("broken", **LOCATION, backend="b"), ".ctxrc:3: backends.a: broken", id=kind.__name__)


def status(kind: type[APIStatusError], **fields: Any) -> Any:
    error = kind(500, **STATUS)
    for name, value in fields.items():
        setattr(error, name, value)
    return pytest.param(error, "HTTP 500: no \ufffd", id=kind.__name__)


def not_found(method: str, url: str, route_servers: str | None) -> NotFoundError:
    error = NotFoundError(404, body=b"no")
    error.method, error.url, error.route_servers = method, url, route_servers
    return error


def response(kind: type[ResponseError]) -> Any:
    return pytest.param(kind("broken", body=b"b"), "broken", id=kind.__name__)


EXAMPLES = [
    plain(BackendError),
    plain(ClosedError),
    pytest.param(ClosedError("broken", partial=PARTIAL), "broken", id="ClosedError of a stream"),
    plain(EventLoopError),
    plain(LocalServerUnavailableError),
    plain(ModelDownloadError),
    plain(ServerConfigurationError),
    plain(ServerSleepingError),
    config(ConfigError),
    config(NoBackendConfiguredError),
    config(InvalidEndpointError),
    config(NoModelError),
    pytest.param(
        AmbiguousBackendError(["a", "b"]),
        "several backends configured: a, b; choose one with --backend or set default_backend",
        id="AmbiguousBackendError",
    ),
    pytest.param(
        UnknownBackendError("x", ["a", "b"], **LOCATION),
        '.ctxrc:3: backends.a: unknown backend: "x"; configured: a, b',
        id="UnknownBackendError",
    ),
    pytest.param(
        UnknownBackendTypeError("x", ["a", "b"], **LOCATION),
        '.ctxrc:3: backends.a: unknown backend type: "x"; choose one of a, b',
        id="UnknownBackendTypeError",
    ),
    pytest.param(
        DuplicateBackendError("a", kind="type"), 'duplicate type: "a"; use a different name', id="DuplicateBackendError"
    ),
    pytest.param(AirgapError("outside", endpoint="http://192.0.2.1", backend="b"), "airgap: outside", id="AirgapError"),
    pytest.param(
        MissingKeyError("KEY", backend="b"),
        'environment variable not set: KEY; set it to the API key of backend "b"',
        id="MissingKeyError",
    ),
    pytest.param(UnsupportedOptionError("seed", "ignored"), "seed: ignored", id="UnsupportedOptionError"),
    pytest.param(
        ToolRoundsError(3, messages=(), rounds=()),
        "the model still calls tools after 3 rounds; raise max_rounds, or go on with messages",
        id="ToolRoundsError",
    ),
    pytest.param(
        NoToolCallError(
            None, completion=Completion(text="No.", finish_reason="stop", requested_model="m"), messages=()
        ),
        "no tool call in the answer: tool_choice requires a call, finish_reason stop; "
        "use a model with tool support, or leave tool_choice out",
        id="NoToolCallError",
    ),
    pytest.param(
        StrictSchemaError("/properties/a", "an array needs items"),
        "schema cannot be strict at /properties/a: an array needs items",
        id="StrictSchemaError",
    ),
    pytest.param(UnsupportedOperationError("embed", "none"), "embed: none", id="UnsupportedOperationError"),
    pytest.param(
        APIConnectionError("broken", refused=True, sent=True, permanent=True),
        "broken",
        id="APIConnectionError",
    ),
    pytest.param(
        APITimeoutError("idle", 60.0, key="idle_timeout", partial=PARTIAL),
        "stream stalled: no further token within 60 s; raise idle_timeout to wait longer",
        id="APITimeoutError",
    ),
    pytest.param(ServerDiedError("broken", exit_code=1, log_tail=["a", "b"]), "broken", id="ServerDiedError"),
    status(APIStatusError),
    status(BadRequestError),
    status(ContextOverflowError, input_tokens=5, context_length=4),
    status(AuthenticationError, key_source="KEY"),
    status(PermissionDeniedError, key_source="KEY"),
    status(NotFoundError),
    pytest.param(
        not_found("POST", "http://h/api/chat", "Ollama"),
        "HTTP 404: no (requested: POST http://h/api/chat, a route of Ollama)",
        id="NotFoundError of a route",
    ),
    pytest.param(
        not_found("GET", "http://h/x\x1b", None),
        "HTTP 404: no (requested: GET http://h/x\\x1b)",
        id="NotFoundError of an unknown route",
    ),
    status(ModelNotFoundError),
    status(RateLimitError),
    status(InsufficientQuotaError),
    status(InternalServerError),
    status(ServiceUnavailableError),
    status(ModelLoadingError),
    status(ModelLoadFailedError),
    pytest.param(
        RedirectError(307, **STATUS),
        "HTTP 307: no \ufffd (redirect without a location not followed; correct the endpoint)",
        id="RedirectError",
    ),
    response(ResponseError),
    response(MalformedResponseError),
    response(EmptyModelListError),
    response(EmptyChoicesError),
    pytest.param(ResponseTooLargeError("a line", 5), "a line is larger than 5 bytes", id="ResponseTooLargeError"),
    pytest.param(IncompleteResponseError("broken", partial=PARTIAL), "broken", id="IncompleteResponseError"),
    pytest.param(ResponseInterruptedError("broken"), "broken", id="ResponseInterruptedError"),
    pytest.param(StreamInterruptedError("broken", partial=PARTIAL, body=b"b"), "broken", id="StreamInterruptedError"),
    pytest.param(
        ModelMismatchError("a", "b"),
        'model mismatch: requested "a", served "b"; '
        "request the served model, list it in served_as, or set model_mismatch: ignore for this backend",
        id="ModelMismatchError",
    ),
    pytest.param(StructuredOutputError("broken", text="{", pointer="$.a"), "broken", id="StructuredOutputError"),
    pytest.param(
        IncompleteOutputError("length", text="{"),
        "structured output is incomplete: finish_reason length; raise max_tokens",
        id="IncompleteOutputError",
    ),
]

CLASSES = {value for value in vars(module).values() if inspect.isclass(value) and issubclass(value, BackendError)}


def test_every_exception_has_an_example_and_a_docstring() -> None:
    assert CLASSES == {type(example.values[0]) for example in EXAMPLES}
    assert all("__doc__" in vars(kind) and kind.__doc__ for kind in CLASSES)


@pytest.mark.parametrize(("error", "message"), EXAMPLES)
def test_messages(error: BackendError, message: str) -> None:
    assert message == str(error)
    assert (error.problem,) == error.args
    assert message in "".join(traceback.format_exception_only(error))
    assert type(error).__name__ in repr(error)


def through_pickle(error: BackendError) -> BackendError:
    copy_ = pickle.loads(pickle.dumps(error))  # noqa: S301  # our own bytes
    assert isinstance(copy_, BackendError)
    return copy_


@pytest.mark.parametrize("duplicate", [through_pickle, copy.copy, copy.deepcopy], ids=["pickle", "copy", "deepcopy"])
@pytest.mark.parametrize(("error", "message"), EXAMPLES)
def test_exceptions_are_copied_with_their_attributes(
    error: BackendError, message: str, duplicate: Callable[[BackendError], BackendError]
) -> None:
    original = copy.copy(error)
    original.backend, original.endpoint, original.waited = "local", "http://h:1", 2.0
    clone = duplicate(original)
    assert type(error) is type(clone)
    assert vars(original) == vars(clone)
    assert ("local", "http://h:1", 2.0) == (clone.backend, clone.endpoint, clone.waited)
    assert original.args == clone.args
    assert str(original) == str(clone)
    assert repr(original) == repr(clone)
    assert message == str(error), "the copy is another object"


def test_exceptions_have_attributes() -> None:
    unknown = UnknownBackendError("x", ["a"])
    assert ("x", ("a",), None, None, None) == (unknown.name, unknown.names, unknown.path, unknown.line, unknown.key)
    assert ("a", "b") == AmbiguousBackendError(["a", "b"]).names
    kind = UnknownBackendTypeError("x", ["a"], **LOCATION)
    assert ("x", ("a",), ".ctxrc", 3, "backends.a") == (kind.type_name, kind.types, kind.path, kind.line, kind.key)
    duplicate = DuplicateBackendError("a")
    assert ("a", 'duplicate backend: "a"; use a different name') == (duplicate.name, str(duplicate))
    missing = MissingKeyError("KEY", backend="b")
    assert ("KEY", "b") == (missing.variable, missing.backend)
    assert "seed" == UnsupportedOptionError("seed", "x").option
    strict = StrictSchemaError("", "x")
    assert ("", "x", "schema cannot be strict at the root: x") == (strict.pointer, strict.reason, str(strict))
    assert isinstance(strict, ValueError)
    assert "embed" == UnsupportedOperationError("embed", "x").operation
    connection = APIConnectionError("x")
    assert [False] * 3 == [connection.refused, connection.sent, connection.permanent]
    timeout = APITimeoutError("total", 1.5, key="timeout")
    assert ("total", 1.5, "timeout", None) == (timeout.phase, timeout.limit, timeout.key, timeout.partial)
    death = ServerDiedError("x", exit_code=1, log_tail=["a"])
    assert (1, ("a",)) == (death.exit_code, death.log_tail)
    assert (b"b", 5) == (MalformedResponseError("x", body=b"b").body, ResponseTooLargeError("a line", 5).limit)
    assert (PartialCompletion(), b"") == (StreamInterruptedError("x").partial, StreamInterruptedError("x").body)
    assert b"b" == StreamInterruptedError("x", body=b"b").body
    mismatch = ModelMismatchError("a", "b")
    assert ("a", "b", None) == (mismatch.requested_model, mismatch.served_model, mismatch.completion)
    incomplete = IncompleteOutputError("length", text="{")
    assert ("length", "{", None) == (incomplete.finish_reason, incomplete.text, incomplete.pointer)
    bare = APIStatusError(500)
    assert (500, b"", {}, None, None, None, None) == (
        bare.status_code,
        bare.body,
        bare.headers,
        bare.message,
        bare.error_type,
        bare.retry_after,
        bare.request_id,
    )


def test_attributes_are_copies() -> None:
    headers = {"a": "b"}
    error = APIStatusError(500, headers=headers)
    headers["a"] = "c"
    assert {"a": "b"} == error.headers


@pytest.mark.parametrize(
    ("kind", "parents"),
    [
        (APITimeoutError, (BackendError, TimeoutError)),
        (ContextOverflowError, (BadRequestError, APIStatusError)),
        (PermissionDeniedError, (AuthenticationError, APIStatusError)),
        (ModelNotFoundError, (NotFoundError, APIStatusError)),
        (InsufficientQuotaError, (RateLimitError, APIStatusError)),
        (ModelLoadingError, (ServiceUnavailableError, InternalServerError, APIStatusError)),
        (ModelLoadFailedError, (InternalServerError,)),
        (IncompleteOutputError, (StructuredOutputError,)),
        (UnknownBackendError, (ConfigError,)),
        (EmptyChoicesError, (ResponseError,)),
        (ResponseTooLargeError, (ResponseError,)),
        (ModelMismatchWarning, (UserWarning,)),
        (LocalServerWarning, (UserWarning,)),
    ],
)
def test_base_classes(kind: type[BaseException], parents: tuple[type[BaseException], ...]) -> None:
    assert all(issubclass(kind, parent) for parent in parents)


def test_unrelated_classes() -> None:
    assert ["APITimeoutError"] == [kind.__name__ for kind in CLASSES if issubclass(kind, OSError)]
    assert not issubclass(ModelLoadFailedError, ServiceUnavailableError)
    assert not issubclass(StreamInterruptedError, ResponseError)


# --- messages -----------------------------------------------------------------------------------------


def test_a_message_has_the_backend_and_the_wait() -> None:
    error = BackendError("broken")
    error.waited = 90.04
    assert "broken (after waiting 90.0 s)" == str(error)
    error.backend = "local"
    assert 'backend "local": broken (after waiting 90.0 s)' == str(error)
    error.waited = 0.0
    assert 'backend "local": broken (after waiting 0.0 s)' == str(error)
    assert 'backend "b": broken' == str(BackendError("broken", backend="b", endpoint="http://h"))
    assert "" == str(BackendError())


@pytest.mark.parametrize(
    ("sent", "endpoint", "backend", "waited", "message"),
    [
        (False, None, None, None, "refused"),
        (False, "http://h:1", None, None, "unreachable at http://h:1: refused"),
        (False, "http://h:1", "local", None, 'backend "local" unreachable at http://h:1: refused'),
        (
            False,
            "http://h:1",
            "local",
            90.0,
            'backend "local" unreachable at http://h:1: refused (after waiting 90.0 s)',
        ),
        (False, None, "local", 1.0, 'backend "local": refused (after waiting 1.0 s)'),
        (True, "http://h:1", "local", None, 'backend "local": refused'),
    ],
)
def test_unreachable_means_that_nothing_was_sent(
    sent: bool, endpoint: str | None, backend: str | None, waited: float | None, message: str
) -> None:
    error = APIConnectionError("refused", sent=sent)
    error.endpoint, error.backend, error.waited = endpoint, backend, waited
    assert message == str(error)


@pytest.mark.parametrize(
    ("phase", "limit", "message"),
    [
        ("connect", 5.0, "no connection within 5 s; raise the_key to wait longer"),
        ("first_token", 0.25, "no first token within 0.25 s; raise the_key to wait longer"),
        ("idle", 60, "stream stalled: no further token within 60 s; raise the_key to wait longer"),
        ("total", 600.0, "no complete response within 600 s; raise the_key to wait longer"),
    ],
)
def test_a_timeout_names_its_phase_its_limit_and_the_key(phase: str, limit: float, message: str) -> None:
    error = APITimeoutError(phase, limit, key="the_key")
    assert message == str(error)
    assert isinstance(error, TimeoutError)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "broken"),
        ({"path": "f"}, "f: broken"),
        ({"path": "f", "line": 1}, "f:1: broken"),
        ({"key": "a.b"}, "a.b: broken"),
        ({"path": "f", "line": 1, "key": "a.b"}, "f:1: a.b: broken"),
        ({"path": "f", "backend": "b"}, "f: broken"),
    ],
)
def test_a_config_error_begins_with_its_position(fields: dict[str, Any], message: str) -> None:
    assert message == str(ConfigError("broken", **fields))


def test_an_unknown_backend_without_any_configured() -> None:
    assert 'unknown backend: "x"; configured: none' == str(UnknownBackendError("x", []))


def test_a_redirect_names_its_target() -> None:
    error = RedirectError(307)
    error.location = "http://evil"
    assert "HTTP 307: (empty body) (redirect to http://evil not followed; correct the endpoint)" == str(error)


# --- redact -------------------------------------------------------------------------------------------

KEY = "sk-geheim"


def everywhere(error: BaseException) -> str:
    """All that anyone could print of an error and of what it came from."""
    parts = []
    current: BaseException | None = error
    while current is not None:
        parts += [str(current), repr(current), repr(vars(current)), repr(current.args)]
        current = current.__cause__
    return "".join([*parts, *traceback.format_exception(error)])


LEAKS = [
    APIStatusError(
        401,
        body=f'{{"error":"wrong key {KEY}, {KEY}"}}'.encode(),
        headers={"x-echo": f"Bearer {KEY}"},
        message=f"wrong key {KEY}",
        error_type=KEY,
        request_id=KEY,
    ),
    BackendError(f"broken {KEY}", backend=KEY, endpoint=f"http://h/?key={KEY}"),
    ServerDiedError("died", log_tail=["fine", f"key={KEY}"]),
    UnknownBackendError(KEY, [KEY, "b"], path=KEY, key=KEY),
    StreamInterruptedError(f"error {KEY}", body=KEY.encode()),
    MalformedResponseError(f"what is {KEY}", body=b"\xff" + KEY.encode() + b"\xff"),
    StructuredOutputError(KEY, text=KEY, pointer=KEY),
    ModelMismatchError(KEY, KEY),
    APIConnectionError(KEY),
]


@pytest.mark.parametrize("leak", LEAKS, ids=lambda leak: type(leak).__name__)
def test_keys_are_removed_from_attributes(leak: BackendError) -> None:
    error = copy.deepcopy(leak)
    before = vars(copy.deepcopy(error))
    assert KEY in everywhere(error)
    redact(error, KEY)
    assert KEY not in everywhere(error)
    assert before.keys() == vars(error).keys()
    assert {name: type(value) for name, value in before.items()} == {
        name: type(value) for name, value in vars(error).items()
    }


def test_other_attributes_stay() -> None:
    error = copy.deepcopy(LEAKS[0])
    assert isinstance(error, APIStatusError)
    error.retry_after, error.waited = 1.5, 2.0
    redact(error, KEY)
    assert b'{"error":"wrong key [key], [key]"}' == error.body
    assert 'HTTP 401: {"error":"wrong key [key], [key]"} (after waiting 2.0 s)' == str(error)
    assert ({"x-echo": "Bearer [key]"}, "wrong key [key]", 401, 1.5, 2.0) == (
        error.headers,
        error.message,
        error.status_code,
        error.retry_after,
        error.waited,
    )
    death = ServerDiedError("died", exit_code=1, log_tail=["fine", KEY])
    redact(death, KEY)
    assert (1, ("fine", "[key]")) == (death.exit_code, death.log_tail)


def test_keys_are_removed_from_causes() -> None:
    first = APIStatusError(401, body=KEY.encode())
    second = APIConnectionError(f"lost {KEY}")
    third = StreamInterruptedError(f"cut {KEY}")
    third.__cause__, second.__cause__ = second, first
    redact(third, KEY)
    assert KEY not in everywhere(third)
    assert second is third.__cause__
    assert "lost [key]" == str(second)
    assert b"[key]" == first.body


def test_keys_are_removed_from_notes() -> None:
    error = BackendError("broken")
    error.add_note(f"with {KEY}")
    redact(error, KEY)
    assert KEY not in everywhere(error)
    assert ["with [key]"] == error.__notes__


class Foreign(Exception):
    """As other libraries write them."""

    def __init__(self, text: str, parts: list[str]) -> None:
        super().__init__(text, 5)
        self.text = text
        self.parts = parts


def test_keys_are_removed_from_foreign_errors() -> None:
    foreign = Foreign(f"sent {KEY}", [KEY])
    error = APIConnectionError("lost")
    error.__cause__ = foreign
    foreign.__context__ = APIStatusError(401, body=KEY.encode())
    redact(error, KEY)
    assert foreign is error.__cause__
    assert ("sent [key]", ("sent [key]", 5)) == (foreign.text, foreign.args)
    assert [KEY] == foreign.parts, "their other values are not ours to change"
    assert "401: [key]" in str(foreign.__context__)


def test_cyclic_causes_do_not_loop() -> None:
    one, other = BackendError(f"one {KEY}"), BackendError(f"other {KEY}")
    one.__context__, other.__context__ = other, one
    redact(one, KEY)
    assert ("one [key]", "other [key]") == (str(one), str(other))


@pytest.mark.parametrize(
    ("secret", "text", "expected"),
    [
        ("", "none of it", "none of it"),
        ("a1", "llama1 a1b 1a1 a12", "llama1 a1b 1a1 a12"),
        ("a1", "key a1", "key [key]"),
        ("a1", "a1", "[key]"),
        ("a1", '{"key":"a1"}, a1. (a1)\na1', '{"key":"[key]"}, [key]. ([key])\n[key]'),
        ("a1", "a1 a1,a1", "[key] [key],[key]"),
        ("a1", "my_a1_key", "my_[key]_key"),
        ("a1", "\u201ca1\u201d", "\u201c[key]\u201d"),
        ("a1", "\u00e9a1 a1\u0661", "\u00e9a1 a1\u0661"),
        ("A1", "key a1", "key a1"),
        ("x", "x is no key: x-ray, box, xx", "[key] is no key: [key]-ray, box, xx"),
        ("7", "HTTP/1.7, 77", "HTTP/1.[key], 77"),
        (".*", "any .* of it", "any [key] of it"),
        ("1234567", "x1234567 1234567", "x1234567 [key]"),
        ("12345678", "x12345678 12345678x", "x[key] [key]x"),
    ],
)
def test_a_short_key_is_masked_as_a_whole_word(secret: str, text: str, expected: str) -> None:
    error = APIStatusError(418, body=text.encode(), message=text, headers={"X-Echo": text})
    death = ServerDiedError("died", log_tail=["fine", text])
    error.__cause__, error.__context__ = Foreign(text, [text]), death
    assert (expected != text) is redact(error, secret)
    assert (expected.encode(), expected, {"x-echo": expected}) == (error.body, error.message, error.headers)
    assert f"HTTP 418: {expected}" == str(error)
    assert (expected, (expected, 5)) == (error.__cause__.text, error.__cause__.args)
    assert ("fine", expected) == death.log_tail


def test_binary_bytes_stay_unchanged() -> None:
    error = MalformedResponseError("no JSON", body=b"\xff\xfe a1 \xc3 a1b \xed\xa0\x80a1\xff")
    assert redact(error, "a1")
    assert b"\xff\xfe [key] \xc3 a1b \xed\xa0\x80[key]\xff" == error.body


def test_a_short_key_does_not_change_names_of_the_user() -> None:
    """No server put them there, and a key such as "1" would make another address of an endpoint."""
    error = APIConnectionError("lost 1")
    error.backend, error.endpoint = "gpu-1", "http://127.0.0.1:1"
    assert redact(error, "1")
    assert 'backend "gpu-1" unreachable at http://127.0.0.1:1: lost [key]' == str(error)


def test_partial_texts_are_not_masked() -> None:
    error = StreamInterruptedError("cut", partial=PARTIAL)
    redact(error, KEY)
    assert PARTIAL == error.partial


@given(st.text(), st.text(), st.text(alphabet="abcdef0123456789", min_size=8))
def test_any_text_with_a_key_is_masked(before: str, after: str, key: str) -> None:
    text = before + key + after
    error = APIStatusError(500, body=text.encode("utf-8", "replace"), message=text, headers={"h": text})
    redact(error, key)
    assert key not in error.headers["h"] + (error.message or "") + str(error)
    assert key.encode() not in error.body
    assert text.replace(key, "[key]") == error.message


def test_server_texts_have_no_control_characters() -> None:
    error = InternalServerError(500, body=b"\x1b[2J\x07first\n\tsecond \xc2\x9b1m", headers={})
    assert "HTTP 500: \\x1b[2J\\x07first\n\tsecond \\x9b1m" == str(error)
