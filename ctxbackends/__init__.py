"""ctxbackends: one async interface to the model server that you already run. Public names, imported on first use (PEP
562); no other code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctxbackends.backend import Backend as Backend
    from ctxbackends.config import BackendConfig as BackendConfig
    from ctxbackends.errors import AirgapError as AirgapError
    from ctxbackends.errors import AmbiguousBackendError as AmbiguousBackendError
    from ctxbackends.errors import APIConnectionError as APIConnectionError
    from ctxbackends.errors import APIStatusError as APIStatusError
    from ctxbackends.errors import APITimeoutError as APITimeoutError
    from ctxbackends.errors import AuthenticationError as AuthenticationError
    from ctxbackends.errors import BackendError as BackendError
    from ctxbackends.errors import BadRequestError as BadRequestError
    from ctxbackends.errors import ClosedError as ClosedError
    from ctxbackends.errors import ConfigError as ConfigError
    from ctxbackends.errors import ContextOverflowError as ContextOverflowError
    from ctxbackends.errors import DuplicateBackendError as DuplicateBackendError
    from ctxbackends.errors import EmptyChoicesError as EmptyChoicesError
    from ctxbackends.errors import EmptyModelListError as EmptyModelListError
    from ctxbackends.errors import EventLoopError as EventLoopError
    from ctxbackends.errors import IncompleteOutputError as IncompleteOutputError
    from ctxbackends.errors import InternalServerError as InternalServerError
    from ctxbackends.errors import InvalidEndpointError as InvalidEndpointError
    from ctxbackends.errors import LocalServerUnavailableError as LocalServerUnavailableError
    from ctxbackends.errors import MalformedResponseError as MalformedResponseError
    from ctxbackends.errors import MissingKeyError as MissingKeyError
    from ctxbackends.errors import ModelLoadFailedError as ModelLoadFailedError
    from ctxbackends.errors import ModelLoadingError as ModelLoadingError
    from ctxbackends.errors import ModelMismatchError as ModelMismatchError
    from ctxbackends.errors import ModelMismatchWarning as ModelMismatchWarning
    from ctxbackends.errors import ModelNotFoundError as ModelNotFoundError
    from ctxbackends.errors import NoBackendConfiguredError as NoBackendConfiguredError
    from ctxbackends.errors import NoModelError as NoModelError
    from ctxbackends.errors import NotFoundError as NotFoundError
    from ctxbackends.errors import PermissionDeniedError as PermissionDeniedError
    from ctxbackends.errors import RateLimitError as RateLimitError
    from ctxbackends.errors import RedirectError as RedirectError
    from ctxbackends.errors import ResponseError as ResponseError
    from ctxbackends.errors import ResponseTooLargeError as ResponseTooLargeError
    from ctxbackends.errors import ServerConfigurationError as ServerConfigurationError
    from ctxbackends.errors import ServerDiedError as ServerDiedError
    from ctxbackends.errors import ServerSleepingError as ServerSleepingError
    from ctxbackends.errors import ServiceUnavailableError as ServiceUnavailableError
    from ctxbackends.errors import StreamInterruptedError as StreamInterruptedError
    from ctxbackends.errors import StructuredOutputError as StructuredOutputError
    from ctxbackends.errors import UnknownBackendError as UnknownBackendError
    from ctxbackends.errors import UnknownBackendTypeError as UnknownBackendTypeError
    from ctxbackends.errors import UnsupportedOperationError as UnsupportedOperationError
    from ctxbackends.errors import UnsupportedOptionError as UnsupportedOptionError
    from ctxbackends.httpbackend import HTTPBackend as HTTPBackend
    from ctxbackends.local import LocalServer as LocalServer
    from ctxbackends.local import serve_model as serve_model
    from ctxbackends.messages import ChatOptions as ChatOptions
    from ctxbackends.messages import ChatRequest as ChatRequest
    from ctxbackends.messages import ChoiceFormat as ChoiceFormat
    from ctxbackends.messages import GrammarFormat as GrammarFormat
    from ctxbackends.messages import ImagePart as ImagePart
    from ctxbackends.messages import JSONObjectFormat as JSONObjectFormat
    from ctxbackends.messages import JSONSchemaFormat as JSONSchemaFormat
    from ctxbackends.messages import Message as Message
    from ctxbackends.messages import NamedTool as NamedTool
    from ctxbackends.messages import ReasoningPart as ReasoningPart
    from ctxbackends.messages import RegexFormat as RegexFormat
    from ctxbackends.messages import ResponseFormat as ResponseFormat
    from ctxbackends.messages import TextPart as TextPart
    from ctxbackends.messages import Tool as Tool
    from ctxbackends.messages import ToolCall as ToolCall
    from ctxbackends.messages import ToolResult as ToolResult
    from ctxbackends.profiles import PROFILES as PROFILES
    from ctxbackends.profiles import BackendType as BackendType
    from ctxbackends.profiles import Profile as Profile
    from ctxbackends.profiles import WireAPI as WireAPI
    from ctxbackends.registry import Registry as Registry
    from ctxbackends.registry import http_backend as http_backend
    from ctxbackends.registry import open_backend as open_backend
    from ctxbackends.stream import ChatStream as ChatStream
    from ctxbackends.structured import Extraction as Extraction
    from ctxbackends.structured import SchemaProbe as SchemaProbe
    from ctxbackends.structured import extract as extract
    from ctxbackends.structured import extract_result as extract_result
    from ctxbackends.structured import probe_schema as probe_schema
    from ctxbackends.tools import arguments_of as arguments_of
    from ctxbackends.tools import tool_of as tool_of
    from ctxbackends.types import Completion as Completion
    from ctxbackends.types import Embeddings as Embeddings
    from ctxbackends.types import Enforcement as Enforcement
    from ctxbackends.types import Finish as Finish
    from ctxbackends.types import FinishReason as FinishReason
    from ctxbackends.types import Loading as Loading
    from ctxbackends.types import ModelInfo as ModelInfo
    from ctxbackends.types import PartialCompletion as PartialCompletion
    from ctxbackends.types import Ping as Ping
    from ctxbackends.types import PromptProgress as PromptProgress
    from ctxbackends.types import ReasoningDelta as ReasoningDelta
    from ctxbackends.types import RefusalDelta as RefusalDelta
    from ctxbackends.types import ServerStatus as ServerStatus
    from ctxbackends.types import StreamEvent as StreamEvent
    from ctxbackends.types import TextDelta as TextDelta
    from ctxbackends.types import TokenLogprob as TokenLogprob
    from ctxbackends.types import ToolCallDelta as ToolCallDelta
    from ctxbackends.types import Usage as Usage

__version__: str

_HOMES = {
    "messages": (
        "ChatOptions",
        "ChatRequest",
        "ChoiceFormat",
        "GrammarFormat",
        "ImagePart",
        "JSONObjectFormat",
        "JSONSchemaFormat",
        "Message",
        "NamedTool",
        "ReasoningPart",
        "RegexFormat",
        "ResponseFormat",
        "TextPart",
        "Tool",
        "ToolCall",
        "ToolResult",
    ),
    "types": (
        "Completion",
        "Embeddings",
        "Enforcement",
        "Finish",
        "FinishReason",
        "Loading",
        "ModelInfo",
        "PartialCompletion",
        "Ping",
        "PromptProgress",
        "ReasoningDelta",
        "RefusalDelta",
        "ServerStatus",
        "StreamEvent",
        "TextDelta",
        "TokenLogprob",
        "ToolCallDelta",
        "Usage",
    ),
    "errors": (
        "APIConnectionError",
        "APIStatusError",
        "APITimeoutError",
        "AirgapError",
        "AmbiguousBackendError",
        "AuthenticationError",
        "BackendError",
        "BadRequestError",
        "ClosedError",
        "ConfigError",
        "ContextOverflowError",
        "DuplicateBackendError",
        "EmptyChoicesError",
        "EmptyModelListError",
        "EventLoopError",
        "IncompleteOutputError",
        "InternalServerError",
        "InvalidEndpointError",
        "LocalServerUnavailableError",
        "MalformedResponseError",
        "MissingKeyError",
        "ModelLoadFailedError",
        "ModelLoadingError",
        "ModelMismatchError",
        "ModelMismatchWarning",
        "ModelNotFoundError",
        "NoBackendConfiguredError",
        "NoModelError",
        "NotFoundError",
        "PermissionDeniedError",
        "RateLimitError",
        "RedirectError",
        "ResponseError",
        "ResponseTooLargeError",
        "ServerConfigurationError",
        "ServerDiedError",
        "ServerSleepingError",
        "ServiceUnavailableError",
        "StreamInterruptedError",
        "StructuredOutputError",
        "UnknownBackendError",
        "UnknownBackendTypeError",
        "UnsupportedOperationError",
        "UnsupportedOptionError",
    ),
    "profiles": (
        "BackendType",
        "PROFILES",
        "Profile",
        "WireAPI",
    ),
    "config": ("BackendConfig",),
    "tools": (
        "arguments_of",
        "tool_of",
    ),
    "backend": ("Backend",),
    "httpbackend": ("HTTPBackend",),
    "stream": ("ChatStream",),
    "structured": (
        "Extraction",
        "SchemaProbe",
        "extract",
        "extract_result",
        "probe_schema",
    ),
    "registry": (
        "Registry",
        "http_backend",
        "open_backend",
    ),
    "local": (
        "LocalServer",
        "serve_model",
    ),
}
_HOME_OF = {name: module for module, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)  # noqa: PLE0605  # one source for the names; a test holds it against the imports above


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415  # slow to import

        return version("ctxbackends")
    if name not in _HOME_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  # only on use

    value = getattr(import_module(f"ctxbackends.{_HOME_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
