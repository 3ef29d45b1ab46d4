"""Maps error responses to exceptions, for the error bodies of every vendor.

The shapes (docs/design/server-facts.md): ``{"error": {...}}`` with an integer or string code, ``{"error": "text"}``,
``{"detail": ...}``, ``{"message": ...}``, Anthropic's ``{"type": "error", "error": {...}}``, Gemini's list of one
object, and an empty body. :mod:`ctxbackends._wire.error_wordings` has the table of messages and codes.
"""

from __future__ import annotations

import re
from collections.abc import Container, Mapping
from typing import Any, Protocol, TypeGuard, TypeVar

import attrs
import msgspec

from ctxbackends._wire.base import HTTPRequest, HTTPResponse, Operation, encode_json
from ctxbackends._wire.error_wordings import CODES, MAX_TEXT, STATUS_OF_WORD, find_kind, find_numbers
from ctxbackends._wire.retry_after import parse_retry_after
from ctxbackends.errors import (
    APIStatusError,
    AuthenticationError,
    BackendError,
    BadRequestError,
    ContextOverflowError,
    InsufficientQuotaError,
    InternalServerError,
    MalformedResponseError,
    ModelLoadFailedError,
    ModelLoadingError,
    ModelNotFoundError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    RedirectError,
    ResponseError,
    ServiceUnavailableError,
    StreamInterruptedError,
)

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)

_MORE_CODES = ("status", "error_type", "StatusCode", "status_code")  # Gemini; TGI; Ollama's cloud; others

_BY_STATUS: Mapping[int, type[APIStatusError]] = {
    400: BadRequestError,
    413: BadRequestError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    422: BadRequestError,
    429: RateLimitError,
    503: ServiceUnavailableError,
    529: ServiceUnavailableError,  # Anthropic: overloaded
}


def find_request_id(headers: Mapping[str, str]) -> str | None:
    """Return the server's ID of the request, by which its operator can find it."""
    return (
        headers.get("x-request-id")
        or headers.get("request-id")  # Anthropic
        or headers.get("apim-request-id")  # Azure
        or headers.get("mistral-correlation-id")
        or headers.get("x-generation-id")  # OpenRouter
        or headers.get("x-ds-trace-id")  # DeepSeek
    )


@attrs.frozen
class ErrorDetails:
    """The content of an error body.

    Attributes:
        message: The text.
        type: The vendor's error type.
        code: The vendor's error code.
        fields: The object that contains them.
        request_id: The server's ID of the request.
        upstream: The text of the error that a gateway passes on, such as OpenRouter's ``metadata.raw``.
    """

    message: str | None
    type: str | None
    code: str | int | None
    fields: Mapping[str, Any]
    request_id: str | None = None
    upstream: str | None = None

    @property
    def texts(self) -> tuple[str, ...]:
        """The message and that of the server behind a gateway, which may have wordings of the table."""
        return tuple(text for text in (self.message, self.upstream) if text)

    @property
    def words(self) -> tuple[str, ...]:
        """The codes and types in lower case."""
        words = (self.code, self.type, *(self.fields.get(name) for name in _MORE_CODES))
        return tuple(str(word).casefold() for word in words if isinstance(word, str | int))


def parse_error_body(body: bytes) -> ErrorDetails:
    """Parse an error body of any known shape; the details are empty for any other body."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ErrorDetails(None, None, None, {})
    return parse_error_value(value)


def parse_error_value(value: object) -> ErrorDetails:
    """Parse an error body that is already decoded."""
    if isinstance(value, list) and value and _is_object(value[0]):
        value = value[0]  # Gemini: a list of one
    if not _is_object(value):
        return ErrorDetails(None, None, None, {})
    inner = value.get("error", value)
    if isinstance(inner, str):
        # Ollama forwards the error body of its llama-server as a string (0.34 and newer).
        nested = parse_error_body(inner.encode("utf-8", "replace")) if inner.startswith("{") else None
        return nested if nested is not None and nested.message else ErrorDetails(inner, None, _find_code(value), value)
    result = value.get("base_resp")
    if _is_object(result) and result.get("status_code"):  # MiniMax, with HTTP 200
        inner = {**result, "message": result.get("status_msg"), "code": result["status_code"]}
    elif not _is_object(inner):
        inner = value
    message = inner.get("message", inner.get("detail"))
    return ErrorDetails(
        message if isinstance(message, str) else None,
        inner["type"] if isinstance(inner.get("type"), str) else None,
        _find_code(inner),
        inner,
        value["request_id"] if isinstance(value.get("request_id"), str) else None,
        _find_upstream(inner.get("metadata")),
    )


def _find_code(fields: Mapping[str, Any]) -> str | int | None:
    code = fields.get("code")
    return code if isinstance(code, str | int) else None


def _find_upstream(metadata: object) -> str | None:
    raw = metadata.get("raw") if _is_object(metadata) else None
    if _is_object(raw):
        return parse_error_value(raw).message
    if not isinstance(raw, str):
        return None
    return parse_error_body(raw.encode("utf-8", "replace")).message or raw


def error_from_response(response: HTTPResponse) -> APIStatusError:
    """Return the exception for a response whose status is not 2xx."""
    details = parse_error_body(response.body)
    return _build_error(_classify(response.status, details, response.body), response.status, details, response)


def _classify(status: int, details: ErrorDetails, body: bytes) -> type[APIStatusError]:
    """Return the exception for a status and an error body: by the status, then by codes, then by wordings."""
    text = (details.message or "").casefold()
    if 300 <= status < 400 and status != 304:  # 304 has no location
        return RedirectError
    if status == 402:
        return InsufficientQuotaError
    if status == 503 and "loading" in text:
        return ModelLoadingError
    if status >= 500 and "failed to load" in text and "model" in text:
        return ModelLoadFailedError
    kind = _find_kind(details, body)
    if kind is not None and status in _STATUSES[kind]:
        return kind
    if status == 404 and ("model" in text or details.fields.get("param") == "model"):
        return ModelNotFoundError
    return _BY_STATUS.get(status) or (InternalServerError if 500 <= status < 600 else APIStatusError)


# The statuses under which codes and wordings count. A rate limit is none of these, whatever its message mentions.
_STATUSES: Mapping[type[APIStatusError], Container[int]] = {
    ContextOverflowError: (400, 413, 422, 500),
    ModelNotFoundError: (400, 404, 422),
    InsufficientQuotaError: (400, 401, 403, 429),
}


def _find_kind(details: ErrorDetails, body: bytes) -> type[APIStatusError] | None:
    """Return the exception of the error's code or message in the table of wordings."""
    for word in details.words:
        if word in CODES:
            return CODES[word]
    texts = details.texts
    if not texts and not body.lstrip().startswith((b"<", b"{", b"[")):
        texts = (body[:MAX_TEXT].decode("utf-8", "replace"),)  # some proxies send plain text
    return next((kind for text in texts if (kind := find_kind(text)) is not None), None)


def _build_error(
    kind: type[APIStatusError], status: int, details: ErrorDetails, response: HTTPResponse
) -> APIStatusError:
    error = kind(
        status,
        body=response.body,
        headers=response.headers,
        message=details.message,
        error_type=details.type,
        retry_after=parse_retry_after(response),
        request_id=find_request_id(response.headers) or details.request_id,
    )
    if isinstance(error, RedirectError):
        error.location = response.headers.get("location")
    if isinstance(error, ContextOverflowError):
        error.input_tokens, error.context_length = _parse_overflow(details)
        # Of llama-server, which has another message for a request that is too long on its own.
        text = (details.message or "").casefold()
        error.shared_context = "context size has been exceeded" in text and details.type == "server_error"
        error.exceeds_batch = "too large to process" in text
    return error


def error_from_event(data: bytes) -> BackendError:
    """Return the exception for an error event in a stream.

    An error with a code, a type or a wording that says more than that something failed gets the exception that it has
    as a response: servers start the stream before they check.
    """
    error = _error_under_success(HTTPResponse(status=200, headers={}, body=data))
    if error is not None:
        return error
    return StreamInterruptedError(f"the server sent an error in the stream: {_get_text(data)}", body=data)


def error_from_success(response: HTTPResponse) -> BackendError:
    """Return the exception for an error object with a 2xx status, as gateways send it."""
    error = _error_under_success(response)
    if error is not None:
        return error
    return ResponseError(
        f"the server sent an error under HTTP {response.status}: {_get_text(response.body)}", body=response.body
    )


def error_from_choice(value: object, response: HTTPResponse) -> BackendError:
    """Return the exception for an error inside a choice of a 2xx response, as OpenRouter sends it."""
    error = error_from_success(msgspec.structs.replace(response, body=encode_json({"error": value})))
    if isinstance(error, APIStatusError | ResponseError):
        error.body = response.body
    return error


def _error_under_success(response: HTTPResponse) -> APIStatusError | None:
    """Return the exception for an error object with a 2xx status if the object says which one, else None."""
    details = parse_error_body(response.body)
    if "unexpected endpoint" in (details.message or "").casefold():  # LM Studio, for unknown paths
        return _build_error(NotFoundError, response.status, details, response)
    status = _find_status(details)
    kind = _find_kind(details, response.body)
    if kind is None and status is not None:
        kind = _classify(status, details, response.body)
    if kind is None:
        return None
    return _build_error(kind, status or response.status, details, response)


def _find_status(details: ErrorDetails) -> int | None:
    """Return the HTTP status that an error object names; None for 500, which servers send for any failure."""
    for word in details.words:
        if _STATUS.fullmatch(word):
            return int(word) if word != "500" else None
        if word in STATUS_OF_WORD:
            return STATUS_OF_WORD[word]
    return None


_STATUS = re.compile("[45][0-9]{2}", re.ASCII)


def _get_text(body: bytes) -> str:
    return parse_error_body(body).message or body[:512].decode("utf-8", "replace")


class Decoder(Protocol[T_co]):
    """A decoder of JSON to a type: msgspec's, or one that is lenient outside the answer."""

    def decode(self, data: bytes, /) -> T_co: ...


def decode_response(decoder: Decoder[T], response: HTTPResponse, *, api: str) -> T:
    """Decode the body of a 2xx response.

    Raises:
        MalformedResponseError: The body does not match.
        BackendError: The body is an error object.
    """
    # msgspec does not convert UnicodeDecodeError and RecursionError.
    try:
        value = decoder.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise_for_error_body(response)
        raise MalformedResponseError(f"unexpected response from {api}: {error}", body=response.body) from error
    if getattr(value, "error", None):  # some servers send an empty one with a good response
        raise error_from_success(response)
    return value


def fetch(kind: type[T], request: HTTPRequest, *, api: str) -> Operation[T]:
    """Send a request and decode its response, see :func:`decode_response`."""
    response = yield request
    return decode_response(msgspec.json.Decoder(kind), response, api=api)


def raise_for_error_body(response: HTTPResponse) -> None:
    """Raise if the body is an error object."""
    if parse_error_body(response.body).message is not None:
        raise error_from_success(response)


def raise_for_failed_command(response: HTTPResponse) -> None:
    """Raise if a 2xx response to a command reports that the command failed."""
    try:
        value = msgspec.json.decode(response.body) if response.body else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if _is_object(value) and (value.get("error") or value.get("success") is False):
        raise error_from_success(response)


def _parse_overflow(details: ErrorDetails) -> tuple[int | None, int | None]:
    prompt, limit = details.fields.get("n_prompt_tokens"), details.fields.get("n_ctx")
    if isinstance(prompt, int) and isinstance(limit, int):
        return prompt, limit
    return next((numbers for text in details.texts if any(numbers := find_numbers(text))), (None, None))


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)
