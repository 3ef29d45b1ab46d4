"""The categories of pydantic-ai's errors for ours."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic_ai import exceptions

from ctxbackends import errors

_USAGE_ERRORS = (
    errors.ConfigError,
    errors.UnsupportedOptionError,
    errors.UnsupportedOperationError,
    errors.ClosedError,
    errors.EventLoopError,
)
"""Errors of the program, which another model does not mend."""

_STATUS_CATEGORIES: Sequence[tuple[type[errors.APIStatusError], Any]] = (
    (errors.InsufficientQuotaError, exceptions.ModelQuotaExceededError),
    (errors.RateLimitError, exceptions.ModelRateLimitError),
    (errors.ContextOverflowError, exceptions.ModelContextWindowExceededError),
    (errors.AuthenticationError, exceptions.ModelAuthenticationError),
    (errors.NotFoundError, exceptions.ModelNotFoundError),
    (errors.BadRequestError, exceptions.ModelRequestRejectedError),
    (errors.ModelLoadFailedError, exceptions.ModelServerError),
    (errors.ServiceUnavailableError, exceptions.ModelUnavailableError),
    (errors.InternalServerError, exceptions.ModelServerError),
)


def to_framework_error(error: errors.BackendError, model: str, *, in_stream: bool = False) -> Exception:
    """Return pydantic-ai's error for an error of a backend: UserError, or the category of ModelAPIError."""
    if isinstance(error, _USAGE_ERRORS):
        return exceptions.UserError(str(error))
    cause = error.__cause__ if isinstance(error, errors.StreamInterruptedError) else error
    if isinstance(cause, errors.APIStatusError):
        return _to_status_error(cause, str(error), model, in_stream or cause is not error)
    message = str(error)
    if isinstance(error, errors.APITimeoutError):
        return exceptions.ModelTimeoutError(model, message, phase=_phase(error.phase != "connect"), in_stream=in_stream)
    if isinstance(error, errors.APIConnectionError):
        return exceptions.ModelConnectionError(model, message, phase=_phase(error.sent), in_stream=in_stream)
    if isinstance(error, errors.IncompleteResponseError | errors.ServerDiedError):
        return exceptions.ModelConnectionError(model, message, phase="read", in_stream=in_stream)
    if isinstance(error, errors.LocalServerUnavailableError | errors.ServerSleepingError):
        return exceptions.ModelUnavailableError(model, message, in_stream=in_stream)
    return exceptions.ModelAPIError(model, message, in_stream=in_stream)


def _phase(is_sent: bool) -> Literal["connect", "read"]:
    return "read" if is_sent else "connect"


def _to_status_error(error: errors.APIStatusError, message: str, model: str, in_stream: bool) -> Exception:
    category = next((category for kind, category in _STATUS_CATEGORIES if isinstance(error, kind)), None)
    if category is exceptions.ModelUnavailableError and error.status_code == 529:
        category = exceptions.ModelOverloadedError
    common: dict[str, Any] = {
        "body": _decode_body(error.body),
        "provider_error_type": error.error_type,
        "retry_after": error.retry_after,
        "in_stream": in_stream,
    }
    if error.status_code < 400 and category is not None:  # an error under a success status
        return category(model, message, **common)
    return exceptions.ModelHTTPError.for_category(
        category, status_code=error.status_code, model_name=model, headers=error.headers, hint=message, **common
    )


def _decode_body(body: bytes) -> object:
    try:
        return json.loads(body)
    except ValueError:
        return body.decode("utf-8", "replace") or None
