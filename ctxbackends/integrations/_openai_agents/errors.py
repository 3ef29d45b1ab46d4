"""The errors of backends as those that the OpenAI Agents SDK and its users handle, and when to retry."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import httpx2
import openai
from agents import ModelBehaviorError, UserError
from agents.retry import ModelRetryAdvice

from ctxbackends.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BackendError,
    BadRequestError,
    ClosedError,
    ConfigError,
    ContextOverflowError,
    EventLoopError,
    IncompleteResponseError,
    InsufficientQuotaError,
    InternalServerError,
    LocalServerUnavailableError,
    ModelMismatchError,
    ModelNotFoundError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitError,
    ResponseError,
    ServerConfigurationError,
    ServerDiedError,
    ServerSleepingError,
    ServiceUnavailableError,
    StreamInterruptedError,
    StrictSchemaError,
    UnsupportedOperationError,
    UnsupportedOptionError,
)

_STATUS_ERRORS: Mapping[type[APIStatusError], type[openai.APIStatusError]] = {
    PermissionDeniedError: openai.PermissionDeniedError,
    AuthenticationError: openai.AuthenticationError,
    NotFoundError: openai.NotFoundError,
    RateLimitError: openai.RateLimitError,
    InternalServerError: openai.InternalServerError,
    BadRequestError: openai.BadRequestError,
    APIStatusError: openai.APIStatusError,
}
_STATUSES: Mapping[int, type[openai.APIStatusError]] = {
    409: openai.ConflictError,
    422: openai.UnprocessableEntityError,
}
_CODES: Mapping[type[APIStatusError], str] = {
    ContextOverflowError: "context_length_exceeded",
    ModelNotFoundError: "model_not_found",
    InsufficientQuotaError: "insufficient_quota",
}
"""OpenAI's codes, which its users check."""


def _build_status_error(error: APIStatusError, request: httpx2.Request) -> openai.APIStatusError:
    kind = next(theirs for ours, theirs in _STATUS_ERRORS.items() if isinstance(error, ours))
    if kind is openai.BadRequestError:
        kind = _STATUSES.get(error.status_code, kind)
    headers = {} if error.request_id is None else {"x-request-id": error.request_id}
    if error.retry_after is not None:
        headers["retry-after"] = f"{error.retry_after:g}"
    code = next((code for ours, code in _CODES.items() if isinstance(error, ours)), error.error_type)
    return kind(
        str(error),
        response=httpx2.Response(error.status_code, headers=headers, content=error.body, request=request),
        body={"message": error.message, "type": error.error_type, "code": code},
    )


def _build_timeout_error(error: BackendError, request: httpx2.Request) -> openai.APIError:
    timeout = openai.APITimeoutError(request)
    timeout.message = str(error)
    timeout.args = (timeout.message,)  # the class sets its own message
    return timeout


def _build_connection_error(error: BackendError, request: httpx2.Request) -> openai.APIError:
    if isinstance(error, StreamInterruptedError) and (error.body or isinstance(error.__cause__, APIStatusError)):
        return openai.APIError(str(error), request, body=None)  # the server sent an error in the stream
    return openai.APIConnectionError(message=str(error), request=request)


_USER_ERRORS = (
    ClosedError,
    ConfigError,
    EventLoopError,
    ServerConfigurationError,
    ServerSleepingError,
    StrictSchemaError,
    UnsupportedOperationError,
    UnsupportedOptionError,
)
_CONNECTION_ERRORS = (APIConnectionError, IncompleteResponseError, LocalServerUnavailableError, ServerDiedError)

_Build = Callable[..., Exception]
_BUILDERS: tuple[tuple[tuple[type[BackendError], ...], _Build], ...] = (
    (_USER_ERRORS, lambda error, _: UserError(str(error))),
    ((APITimeoutError,), _build_timeout_error),
    ((APIStatusError,), _build_status_error),
    (_CONNECTION_ERRORS, _build_connection_error),
    ((ResponseError, ModelMismatchError), lambda error, _: ModelBehaviorError(str(error))),
    ((BackendError,), lambda error, request: openai.APIError(str(error), request, body=None)),
)


def translate_error(error: BackendError | TypeError | ValueError, endpoint: str = "") -> Exception:
    """Return the error to raise from ``error``.

    Wrong settings become UserError, answers that cannot be used ModelBehaviorError, and failures of the connection or
    the server the error of the ``openai`` package, as from the SDK's own models.
    """
    if not isinstance(error, BackendError):
        return UserError(str(error))
    request = httpx2.Request("POST", error.endpoint or endpoint)
    return next(build(error, request) for kinds, build in _BUILDERS if isinstance(error, kinds))


# --- retries ------------------------------------------------------------------------------------------

_PROCESSED = (
    APIConnectionError,
    APITimeoutError,
    IncompleteResponseError,
    InternalServerError,
    ModelMismatchError,
    ResponseError,
    ServerDiedError,
)
"""After these errors, the server may have generated the answer."""


def build_retry_advice(error: BackendError) -> ModelRetryAdvice:
    """Return whether to send a failed request again: suggested only if the server did not process it."""
    was_not_processed = (
        (isinstance(error, APIConnectionError) and not error.sent)
        or (isinstance(error, APITimeoutError) and error.phase == "connect")
        or isinstance(error, RateLimitError | ServiceUnavailableError)
    )
    is_permanent = isinstance(error, InsufficientQuotaError) or getattr(error, "permanent", False)
    partial = getattr(error, "partial", None)
    return ModelRetryAdvice(
        suggested=was_not_processed and not is_permanent,
        retry_after=error.retry_after if isinstance(error, APIStatusError) else None,
        replay_safety="safe" if was_not_processed else "unsafe" if isinstance(error, _PROCESSED) else None,
        reason=str(error),
        response_started=bool(partial and (partial.text or partial.reasoning or partial.tool_calls)),
    )
