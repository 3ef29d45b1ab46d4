"""Maps error responses to exceptions, for the error bodies of every vendor.

The shapes (docs/design/server-facts.md): ``{"error": {...}}`` with an integer or string code, ``{"error": "text"}``,
``{"detail": ...}``, ``{"message": ...}``, Anthropic's ``{"type": "error", "error": {...}}``, and an empty body.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard, TypeVar

import attrs
import msgspec

from ctxbackends._wire.base import HTTPRequest, HTTPResponse, Operation
from ctxbackends._wire.retry_after import parse_retry_after
from ctxbackends.errors import (
    APIStatusError,
    AuthenticationError,
    BackendError,
    BadRequestError,
    ContextOverflowError,
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

# Only for messages already recognized as an overflow; vLLM and OpenAI report the numbers nowhere else.
_LIMIT_NUMBERS = (
    re.compile(r"maximum context length is (\d{1,18})"),
    re.compile(r"configured limit of (\d{1,18})"),  # OpenAI, gpt-5
    re.compile(r"> (\d{1,18}) maximum"),  # Anthropic
    re.compile(r"n_ctx: (\d{1,18})"),  # LM Studio
    re.compile(r"exceed context limit: \d{1,18} \+ \d{1,18} > (\d{1,18})"),
    re.compile(r"current batch size: (\d{1,18})"),  # llama-server, for embeddings
)
_TOO_LARGE = re.compile(r"input \((\d{1,18}) tokens\) is too large to process")
_PROMPT_NUMBERS = (
    _TOO_LARGE,
    re.compile(r"exceed context limit: (\d{1,18})"),
    re.compile(r"prompt is too long: (\d{1,18}) tokens"),
    re.compile(r"n_keep: (\d{1,18})"),
    re.compile(r"at least (\d{1,18}) input tokens"),
    re.compile(r"resulted in (\d{1,18}) tokens"),
    re.compile(r"(\d{1,18}) in the messages"),
)


def find_request_id(headers: Mapping[str, str]) -> str | None:
    """Return the server's ID of the request, by which its operator can find it."""
    return headers.get("x-request-id") or headers.get("request-id")


@attrs.frozen
class ErrorDetails:
    """The content of an error body.

    Attributes:
        message: The text.
        type: The vendor's error type.
        code: The vendor's error code.
        fields: The object that contains them.
        request_id: The server's ID of the request.
    """

    message: str | None
    type: str | None
    code: str | int | None
    fields: Mapping[str, Any]
    request_id: str | None = None


def parse_error_body(body: bytes) -> ErrorDetails:
    """Parse an error body of any known shape; the details are empty for any other body."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ErrorDetails(None, None, None, {})
    return parse_error_value(value)


def parse_error_value(value: object) -> ErrorDetails:
    """Parse an error body that is already decoded."""
    if not _is_object(value):
        return ErrorDetails(None, None, None, {})
    inner = value.get("error", value)
    if isinstance(inner, str):
        # Ollama forwards the error body of its llama-server as a string (0.34 and newer).
        nested = parse_error_body(inner.encode("utf-8", "replace")) if inner.startswith("{") else None
        return nested if nested is not None and nested.message else ErrorDetails(inner, None, None, value)
    if not _is_object(inner):
        inner = value
    message = inner.get("message", inner.get("detail"))
    code = inner.get("code")
    return ErrorDetails(
        message if isinstance(message, str) else None,
        inner["type"] if isinstance(inner.get("type"), str) else None,
        code if isinstance(code, str | int) else None,
        inner,
        value["request_id"] if isinstance(value.get("request_id"), str) else None,
    )


def error_from_response(response: HTTPResponse) -> APIStatusError:
    """Return the exception for a response whose status is not 2xx."""
    details = parse_error_body(response.body)
    text = (details.message or "").casefold()
    kind = _BY_STATUS.get(response.status) or (InternalServerError if 500 <= response.status < 600 else APIStatusError)
    if 300 <= response.status < 400 and response.status != 304:  # 304 has no location
        kind = RedirectError
    elif response.status == 503 and "loading" in text:
        kind = ModelLoadingError
    elif response.status >= 500 and "failed to load" in text and "model" in text:
        kind = ModelLoadFailedError
    elif response.status in (400, 413, 422, 500) and _is_overflow(details, text):
        kind = ContextOverflowError
    elif response.status in (400, 404) and _is_missing_model(response.status, details, text):
        kind = ModelNotFoundError
    error = kind(
        response.status,
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
    return error


# Anthropic's error types, with the status that they have outside a stream.
_BUSY: Mapping[str | None, tuple[type[APIStatusError], int]] = {
    "overloaded_error": (ServiceUnavailableError, 529),
    "rate_limit_error": (RateLimitError, 429),
}


def error_from_event(data: bytes) -> BackendError:
    """Return the exception for an error event in a stream.

    A context overflow and an overloaded server get their own exceptions here too: LM Studio and Anthropic start the
    stream before they check.
    """
    details = parse_error_body(data)
    text_or_body = details.message or data[:512].decode("utf-8", "replace")
    if _is_overflow(details, text_or_body.casefold()):
        overflow = ContextOverflowError(200, body=data, message=details.message, error_type=details.type)
        overflow.input_tokens, overflow.context_length = _parse_overflow(details)
        return overflow
    if details.type in _BUSY:
        kind, status = _BUSY[details.type]
        return kind(status, body=data, message=details.message, error_type=details.type, request_id=details.request_id)
    return StreamInterruptedError(f"the server sent an error in the stream: {text_or_body}", body=data)


def error_from_success(response: HTTPResponse) -> BackendError:
    """Return the exception for an error object with a 2xx status, as LM Studio sends for unknown paths."""
    details = parse_error_body(response.body)
    text_or_body = details.message or response.body[:512].decode("utf-8", "replace")
    if "unexpected endpoint" in text_or_body.casefold():
        return NotFoundError(response.status, body=response.body, headers=response.headers, message=details.message)
    return ResponseError(f"the server sent an error under HTTP {response.status}: {text_or_body}", body=response.body)


def decode_response(decoder: msgspec.json.Decoder[T], response: HTTPResponse, *, api: str) -> T:
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
    if getattr(value, "error", None) is not None:
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


def _is_overflow(details: ErrorDetails, text: str) -> bool:
    return (
        details.type == "exceed_context_size_error"  # llama-server
        or details.code == "context_length_exceeded"  # OpenAI
        or "maximum context length" in text  # vLLM, which has no code for it
        or text.startswith("prompt is too long")  # Anthropic
        or "exceed context limit" in text
        or _TOO_LARGE.search(text) is not None  # llama-server, for embeddings
        or "exceeds the context length" in text  # Ollama, without numbers
        or "greater than the context length" in text  # LM Studio
    )


def _parse_overflow(details: ErrorDetails) -> tuple[int | None, int | None]:
    prompt, limit = details.fields.get("n_prompt_tokens"), details.fields.get("n_ctx")
    if isinstance(prompt, int) and isinstance(limit, int):
        return prompt, limit
    message = details.message or ""
    return _find_number(_PROMPT_NUMBERS, message), _find_number(_LIMIT_NUMBERS, message)


def _find_number(patterns: Sequence[re.Pattern[str]], text: str) -> int | None:
    return next((int(match[1]) for pattern in patterns if (match := pattern.search(text))), None)


# A message about the model itself, not about a tool or a text that contains the word.
_MODEL_MISSING = re.compile(r"^(error: )?(the |requested )?model\b.*not found")


def _is_missing_model(status: int, details: ErrorDetails, text: str) -> bool:
    if details.code == "model_not_found" or (status == 404 and details.fields.get("param") == "model"):
        return True
    if "invalid model identifier" in text:  # LM Studio without a code
        return True
    return "model" in text if status == 404 else _MODEL_MISSING.search(text) is not None


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)
