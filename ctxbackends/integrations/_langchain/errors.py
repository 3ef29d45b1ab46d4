"""LangChain's categories of errors for those of ctxbackends."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from langchain_core import exceptions as langchain

from ctxbackends import errors
from ctxbackends.errors import BackendError

CATEGORIES: tuple[tuple[tuple[type[BackendError], ...], type[langchain.ModelError]], ...] = (
    ((errors.ContextOverflowError,), langchain.ContextOverflowError),
    ((errors.PermissionDeniedError,), langchain.ModelPermissionDeniedError),
    ((errors.AuthenticationError, errors.MissingKeyError), langchain.ModelAuthenticationError),
    ((errors.NotFoundError,), langchain.ModelNotFoundError),
    ((errors.RateLimitError,), langchain.ModelRateLimitError),
    (
        (
            errors.BadRequestError,
            errors.RedirectError,
            errors.UnsupportedOptionError,
            errors.UnsupportedOperationError,
            errors.StrictSchemaError,
            errors.NoModelError,
        ),
        langchain.ModelInvalidRequestError,
    ),
    ((errors.InternalServerError, errors.ResponseError), langchain.ModelAPIError),
    ((errors.APITimeoutError,), langchain.ModelTimeoutError),
    (
        (errors.APIConnectionError, errors.IncompleteResponseError, errors.ServerDiedError),
        langchain.ModelConnectionError,
    ),
    ((BackendError,), langchain.ModelError),
)
"""The first row with a class of the error has its category."""


@contextmanager
def raise_model_errors() -> Iterator[None]:
    """Raise each BackendError as one that belongs to LangChain's category too."""
    try:
        yield
    except BackendError as error:
        if isinstance(error, langchain.ModelError):
            raise
        raise to_model_error(error) from error


def to_model_error(error: BackendError) -> BackendError:
    """Return the error as a ``langchain_core.exceptions.ModelError`` with the same attributes."""
    # An error that the server sent in its stream has the category that it would have as a response.
    is_sent = isinstance(error, errors.IncompleteResponseError) and isinstance(error.__cause__, errors.APIStatusError)
    judged = error.__cause__ if is_sent else error
    category = next(category for kinds, category in CATEGORIES if isinstance(judged, kinds))
    return _build(type(error), category, dict(error.__dict__), _may_succeed(judged, category))


def _may_succeed(error: BaseException | None, category: type[langchain.ModelError]) -> bool:
    """Return whether another try may succeed."""
    if isinstance(error, errors.InsufficientQuotaError | errors.ModelLoadFailedError | errors.ResponseTooLargeError):
        return False
    return category.is_retryable and not getattr(error, "permanent", False)


def _build(
    kind: type[BackendError], category: type[langchain.ModelError], attributes: dict[str, Any], is_retryable: bool
) -> BackendError:
    both = _build_class(kind, category)  # type: ignore[arg-type]  # mypy does not accept a type as Hashable
    error: BackendError = both.__new__(both, attributes["problem"])
    error.args = (attributes["problem"],)
    error.__dict__.update(attributes, is_retryable=is_retryable)
    return error


@functools.cache
def _build_class(kind: type[BackendError], category: type[langchain.ModelError]) -> type[BackendError]:
    def reduce(self: BackendError) -> tuple[Any, ...]:
        attributes = {name: value for name, value in self.__dict__.items() if name != "is_retryable"}
        return _build, (kind, category, attributes, self.__dict__["is_retryable"])

    members = {"__doc__": kind.__doc__, "__module__": kind.__module__, "__reduce__": reduce}
    return type(kind.__name__, (kind, category), members)
