"""The HTTP status with which a gateway answers for each exception."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from ctxbackends.errors._base import BackendError
from ctxbackends.errors._configuration import (
    ClosedError,
    ConfigError,
    NoModelError,
    ServerConfigurationError,
    ServerSleepingError,
    StrictSchemaError,
    UnknownBackendError,
    UnsupportedOperationError,
    UnsupportedOptionError,
)
from ctxbackends.errors._server import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    BadRequestError,
    ContextOverflowError,
    IncompleteResponseError,
    InsufficientQuotaError,
    LocalServerUnavailableError,
    ModelDownloadError,
    ModelMismatchError,
    ModelNotFoundError,
    NoToolCallError,
    RateLimitError,
    ResponseError,
    ServerDiedError,
    ServiceUnavailableError,
    StructuredOutputError,
    ToolRoundsError,
)

_STATUSES: Mapping[type[BackendError], int] = MappingProxyType(
    {
        # the request of the client
        UnsupportedOptionError: 400,
        StrictSchemaError: 400,
        NoModelError: 400,
        BadRequestError: 400,
        ContextOverflowError: 400,
        ModelNotFoundError: 404,
        UnknownBackendError: 404,
        UnsupportedOperationError: 501,
        # the load
        RateLimitError: 429,
        ServiceUnavailableError: 503,
        ServerSleepingError: 503,
        ClosedError: 503,
        APITimeoutError: 504,
        # the server behind the gateway, and the account of the gateway there
        APIConnectionError: 502,
        APIStatusError: 502,
        InsufficientQuotaError: 502,
        IncompleteResponseError: 502,
        ModelMismatchError: 502,
        ResponseError: 502,
        ServerDiedError: 502,
        StructuredOutputError: 502,
        ToolRoundsError: 502,
        NoToolCallError: 502,
        # the gateway itself
        ConfigError: 500,
        LocalServerUnavailableError: 500,
        ModelDownloadError: 500,
        ServerConfigurationError: 500,
        BackendError: 500,
    }
)
_PASSED_ON = frozenset({400, 409, 413, 415, 422, 431, 451})
"""Statuses about the content of a request, which the client can change."""


def http_status_of(error: BaseException) -> int:
    """Return the HTTP status with which a gateway answers a client after ``error``.

    A status of the server about the content of the request (such as 413 or 422) is passed on. A rejected key or an
    account without credit is a failure of the gateway for its client, and not one of the client's own credentials.

    Args:
        error: An exception of this package; 500 for any other.
    """
    if isinstance(error, BadRequestError) and error.status_code in _PASSED_ON:
        return error.status_code
    if isinstance(error, APIStatusError) and error.status_code in (408, 504) and not isinstance(error, RateLimitError):
        return 504
    return next((_STATUSES[kind] for kind in type(error).__mro__ if kind in _STATUSES), 500)
