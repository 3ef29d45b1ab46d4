"""The public exceptions. All derive from :class:`BackendError`; a timeout is also a ``TimeoutError``.

Names follow the OpenAI and Anthropic SDKs where the meaning is the same::

    BackendError
      * ConfigError
        * NoBackendConfiguredError
        * AmbiguousBackendError
        * UnknownBackendError
        * UnknownBackendTypeError
        * DuplicateBackendError
        * InvalidEndpointError
        * AirgapError
        * MissingKeyError
        * NoModelError
      * UnsupportedOptionError
      * StrictSchemaError
      * UnsupportedOperationError
      * ServerConfigurationError
      * ServerSleepingError
      * ClosedError
      * EventLoopError
      * APIConnectionError
      * APITimeoutError
      * ServerDiedError
      * LocalServerUnavailableError
      * ModelDownloadError
      * APIStatusError
        * BadRequestError
          * ContextOverflowError
        * AuthenticationError
          * PermissionDeniedError
        * NotFoundError
          * ModelNotFoundError
        * RateLimitError
          * InsufficientQuotaError
        * InternalServerError
          * ServiceUnavailableError
            * ModelLoadingError
          * ModelLoadFailedError
        * RedirectError
      * ResponseError
        * MalformedResponseError
        * ResponseTooLargeError
        * EmptyModelListError
        * EmptyChoicesError
      * IncompleteResponseError
        * ResponseInterruptedError (also an APIConnectionError)
        * StreamInterruptedError
      * ModelMismatchError
      * StructuredOutputError
        * IncompleteOutputError
      * ToolRoundsError
      * NoToolCallError
"""

from __future__ import annotations

from ctxbackends.errors._base import BackendError as BackendError
from ctxbackends.errors._configuration import AirgapError as AirgapError
from ctxbackends.errors._configuration import AmbiguousBackendError as AmbiguousBackendError
from ctxbackends.errors._configuration import ClosedError as ClosedError
from ctxbackends.errors._configuration import ConfigError as ConfigError
from ctxbackends.errors._configuration import DuplicateBackendError as DuplicateBackendError
from ctxbackends.errors._configuration import EndpointWarning as EndpointWarning
from ctxbackends.errors._configuration import EventLoopError as EventLoopError
from ctxbackends.errors._configuration import InvalidEndpointError as InvalidEndpointError
from ctxbackends.errors._configuration import MissingKeyError as MissingKeyError
from ctxbackends.errors._configuration import NoBackendConfiguredError as NoBackendConfiguredError
from ctxbackends.errors._configuration import NoModelError as NoModelError
from ctxbackends.errors._configuration import ServerConfigurationError as ServerConfigurationError
from ctxbackends.errors._configuration import ServerSleepingError as ServerSleepingError
from ctxbackends.errors._configuration import StrictSchemaError as StrictSchemaError
from ctxbackends.errors._configuration import UnknownBackendError as UnknownBackendError
from ctxbackends.errors._configuration import UnknownBackendTypeError as UnknownBackendTypeError
from ctxbackends.errors._configuration import UnsupportedOperationError as UnsupportedOperationError
from ctxbackends.errors._configuration import UnsupportedOptionError as UnsupportedOptionError
from ctxbackends.errors._http_status import http_status_of as http_status_of
from ctxbackends.errors._server import APIConnectionError as APIConnectionError
from ctxbackends.errors._server import APIStatusError as APIStatusError
from ctxbackends.errors._server import APITimeoutError as APITimeoutError
from ctxbackends.errors._server import AuthenticationError as AuthenticationError
from ctxbackends.errors._server import BadRequestError as BadRequestError
from ctxbackends.errors._server import ContextOverflowError as ContextOverflowError
from ctxbackends.errors._server import EmptyChoicesError as EmptyChoicesError
from ctxbackends.errors._server import EmptyModelListError as EmptyModelListError
from ctxbackends.errors._server import IncompleteOutputError as IncompleteOutputError
from ctxbackends.errors._server import IncompleteResponseError as IncompleteResponseError
from ctxbackends.errors._server import InsufficientQuotaError as InsufficientQuotaError
from ctxbackends.errors._server import InternalServerError as InternalServerError
from ctxbackends.errors._server import LocalServerUnavailableError as LocalServerUnavailableError
from ctxbackends.errors._server import LocalServerWarning as LocalServerWarning
from ctxbackends.errors._server import MalformedResponseError as MalformedResponseError
from ctxbackends.errors._server import ModelDownloadError as ModelDownloadError
from ctxbackends.errors._server import ModelLoadFailedError as ModelLoadFailedError
from ctxbackends.errors._server import ModelLoadingError as ModelLoadingError
from ctxbackends.errors._server import ModelMismatchError as ModelMismatchError
from ctxbackends.errors._server import ModelMismatchWarning as ModelMismatchWarning
from ctxbackends.errors._server import ModelNotFoundError as ModelNotFoundError
from ctxbackends.errors._server import NotFoundError as NotFoundError
from ctxbackends.errors._server import NoToolCallError as NoToolCallError
from ctxbackends.errors._server import PermissionDeniedError as PermissionDeniedError
from ctxbackends.errors._server import RateLimitError as RateLimitError
from ctxbackends.errors._server import RedirectError as RedirectError
from ctxbackends.errors._server import ResponseError as ResponseError
from ctxbackends.errors._server import ResponseInterruptedError as ResponseInterruptedError
from ctxbackends.errors._server import ResponseTooLargeError as ResponseTooLargeError
from ctxbackends.errors._server import ServerDiedError as ServerDiedError
from ctxbackends.errors._server import ServiceUnavailableError as ServiceUnavailableError
from ctxbackends.errors._server import StreamInterruptedError as StreamInterruptedError
from ctxbackends.errors._server import StructuredOutputError as StructuredOutputError
from ctxbackends.errors._server import ToolRoundsError as ToolRoundsError


def _set_public_module() -> None:
    """Show the public name in tracebacks, as httpx does."""
    for kind in list(globals().values()):
        if isinstance(kind, type) or kind is http_status_of:
            kind.__module__ = __name__


_set_public_module()
