"""An answer with an error status to the one right exception. Knows every vendor's error body; knows no retry and no
transport.

Shapes seen (docs/design/server-facts.md): ``{"error": {...}}`` with an integer or a string code, ``{"error": "text"}``,
``{"detail": ...}``, ``{"message": ...}``, Anthropic's ``{"type": "error", "error": {...}}``, and no body at all.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, TypeGuard, TypeVar

import attrs
import msgspec

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
from ctxbackends.wire.http import HTTPResponse, decode_json

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

# Only to read the two numbers out of a sentence that was already recognised; vLLM and OpenAI give them nowhere else.
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
    """The server's own name of a request, by which its operator finds it."""
    return headers.get("x-request-id") or headers.get("request-id")


@attrs.frozen
class ErrorDetails:
    """What a vendor's error body says: the sentence, the vendor's type and code, and the object that held them."""

    message: str | None
    type: str | None
    code: str | int | None
    fields: Mapping[str, Any]
    request_id: str | None = None


def parse_error_body(body: bytes) -> ErrorDetails:
    """Read an error body of any known shape; what is no JSON or of no known shape gives empty facts."""
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ErrorDetails(None, None, None, {})
    return parse_error_value(value)


def parse_error_value(value: object) -> ErrorDetails:
    """The same for a value that is decoded already."""
    if not _is_object(value):
        return ErrorDetails(None, None, None, {})
    inner = value.get("error", value)
    if isinstance(inner, str):
        # Ollama hands on what the llama-server behind it said, as a text (0.34 and newer).
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
    """The exception for an answer that is no 2xx."""
    facts = parse_error_body(response.body)
    text = (facts.message or "").casefold()
    kind = _BY_STATUS.get(response.status) or (InternalServerError if 500 <= response.status < 600 else APIStatusError)
    if 300 <= response.status < 400 and response.status != 304:  # which points nowhere
        kind = RedirectError
    elif response.status == 503 and "loading" in text:
        kind = ModelLoadingError
    elif response.status >= 500 and "failed to load" in text and "model" in text:
        kind = ModelLoadFailedError
    elif response.status in (400, 413, 422, 500) and _is_overflow(facts, text):
        kind = ContextOverflowError
    elif response.status in (400, 404) and _is_missing_model(response.status, facts, text):
        kind = ModelNotFoundError
    error = kind(
        response.status,
        body=response.body,
        headers=response.headers,
        message=facts.message,
        error_type=facts.type,
        retry_after=_retry_after(response),
        request_id=find_request_id(response.headers) or facts.request_id,
    )
    if isinstance(error, RedirectError):
        error.location = response.headers.get("location")
    if isinstance(error, ContextOverflowError):
        error.input_tokens, error.context_length = _parse_overflow(facts)
    return error


# Anthropic's, with the statuses that they have outside of a stream.
_BUSY: Mapping[str | None, tuple[type[APIStatusError], int]] = {
    "overloaded_error": (ServiceUnavailableError, 529),
    "rate_limit_error": (RateLimitError, 429),
}


def error_from_event(data: bytes) -> BackendError:
    """The exception for an error that came inside a stream, ``data`` being its event. A prompt that does not fit, and a
    server that has no place, are what they are also there: LM Studio and Anthropic begin the stream before they
    look."""
    facts = parse_error_body(data)
    said = facts.message or data[:512].decode("utf-8", "replace")
    if _is_overflow(facts, said.casefold()):
        overflow = ContextOverflowError(200, body=data, message=facts.message, error_type=facts.type)
        overflow.input_tokens, overflow.context_length = _parse_overflow(facts)
        return overflow
    if facts.type in _BUSY:
        kind, status = _BUSY[facts.type]
        return kind(status, body=data, message=facts.message, error_type=facts.type, request_id=facts.request_id)
    return StreamInterruptedError(f"the server sent an error in the stream: {said}", body=data)


def error_from_success(response: HTTPResponse) -> BackendError:
    """The exception for an error object under a good status. LM Studio answers unknown paths so."""
    facts = parse_error_body(response.body)
    said = facts.message or response.body[:512].decode("utf-8", "replace")
    if "unexpected endpoint" in said.casefold():
        return NotFoundError(response.status, body=response.body, headers=response.headers, message=facts.message)
    return ResponseError(f"the server sent an error under HTTP {response.status}: {said}", body=response.body)


def decode_response(decoder: msgspec.json.Decoder[T], response: HTTPResponse, *, api: str) -> T:
    """The body of a 2xx answer as ``decoder`` knows it. Raises MalformedResponseError, and where the body is an error
    object instead, what that says."""
    try:
        return decode_json(decoder, response.body, api=api)
    except MalformedResponseError:
        raise_for_error_body(response)
        raise


def raise_for_error_body(response: HTTPResponse) -> None:
    """Raise where a body that is no answer says what went wrong."""
    if parse_error_body(response.body).message is not None:
        raise error_from_success(response)


def raise_for_failed_command(response: HTTPResponse) -> None:
    """Raise where the answer to an order says, under a good status, that it was not carried out."""
    try:
        said = msgspec.json.decode(response.body) if response.body else None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return
    if _is_object(said) and (said.get("error") or said.get("success") is False):
        raise error_from_success(response)


def _is_overflow(facts: ErrorDetails, text: str) -> bool:
    return (
        facts.type == "exceed_context_size_error"  # llama-server
        or facts.code == "context_length_exceeded"  # OpenAI
        or "maximum context length" in text  # vLLM has no code of its own for it
        or text.startswith("prompt is too long")  # nor has Anthropic
        or "exceed context limit" in text
        or _TOO_LARGE.search(text) is not None  # llama-server, for embeddings
        or "exceeds the context length" in text  # nor has Ollama, which tells no numbers
        or "greater than the context length" in text  # nor has LM Studio
    )


def _parse_overflow(facts: ErrorDetails) -> tuple[int | None, int | None]:
    prompt, limit = facts.fields.get("n_prompt_tokens"), facts.fields.get("n_ctx")
    if isinstance(prompt, int) and isinstance(limit, int):
        return prompt, limit
    message = facts.message or ""
    return _find_number(_PROMPT_NUMBERS, message), _find_number(_LIMIT_NUMBERS, message)


def _find_number(patterns: Sequence[re.Pattern[str]], text: str) -> int | None:
    return next((int(match[1]) for pattern in patterns if (match := pattern.search(text))), None)


# A sentence about the model itself, and not about a tool or a text with that word in it.
_MODEL_MISSING = re.compile(r"^(error: )?(the |requested )?model\b.*not found")


def _is_missing_model(status: int, facts: ErrorDetails, text: str) -> bool:
    if facts.code == "model_not_found" or (status == 404 and facts.fields.get("param") == "model"):
        return True
    if "invalid model identifier" in text:  # LM Studio, where it gives no code
        return True
    return "model" in text if status == 404 else _MODEL_MISSING.search(text) is not None


def _retry_after(response: HTTPResponse) -> float | None:
    """Seconds to wait. ``retry-after-ms`` is OpenAI's finer form and wins; ``Retry-After`` is seconds or a date (RFC
    9110, 10.2.3)."""
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        value = response.headers.get(name, "").strip()
        try:
            seconds = float(value) * unit
        except ValueError:
            continue
        return seconds if 0 <= seconds < float("inf") else None
    try:
        date = parsedate_to_datetime(response.headers.get("retry-after", ""))
        # The server's own clock where it tells it: only the difference matters, and clocks differ.
        base = response.headers.get("date")
        sent = parsedate_to_datetime(base).replace(tzinfo=UTC).timestamp() if base else response.received_at
        return max(0.0, date.replace(tzinfo=date.tzinfo or UTC).timestamp() - sent)
    except (ValueError, TypeError, OverflowError, IndexError):
        return None


def _is_object(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict)
