"""ctxbackends: one async interface to the model server that you already run. Public names, imported on first use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctxbackends._lazy import install

__all__: list[str]

if TYPE_CHECKING or not install(__name__):
    from ctxbackends._chat.events import CitationDelta as CitationDelta
    from ctxbackends._chat.events import Finish as Finish
    from ctxbackends._chat.events import Loading as Loading
    from ctxbackends._chat.events import PromptProgress as PromptProgress
    from ctxbackends._chat.events import ReasoningDelta as ReasoningDelta
    from ctxbackends._chat.events import RefusalDelta as RefusalDelta
    from ctxbackends._chat.events import StreamEvent as StreamEvent
    from ctxbackends._chat.events import TextDelta as TextDelta
    from ctxbackends._chat.events import ToolCallDelta as ToolCallDelta
    from ctxbackends._chat.media import AudioPart as AudioPart
    from ctxbackends._chat.media import FilePart as FilePart
    from ctxbackends._chat.media import ImagePart as ImagePart
    from ctxbackends._chat.messages import Message as Message
    from ctxbackends._chat.messages import OpaquePart as OpaquePart
    from ctxbackends._chat.messages import ReasoningPart as ReasoningPart
    from ctxbackends._chat.messages import TextPart as TextPart
    from ctxbackends._chat.messages import ToolCall as ToolCall
    from ctxbackends._chat.messages import ToolResult as ToolResult
    from ctxbackends._chat.requests import ChatOptions as ChatOptions
    from ctxbackends._chat.requests import ChatRequest as ChatRequest
    from ctxbackends._chat.requests import ChoiceFormat as ChoiceFormat
    from ctxbackends._chat.requests import GrammarFormat as GrammarFormat
    from ctxbackends._chat.requests import JSONObjectFormat as JSONObjectFormat
    from ctxbackends._chat.requests import JSONSchemaFormat as JSONSchemaFormat
    from ctxbackends._chat.requests import NamedTool as NamedTool
    from ctxbackends._chat.requests import RegexFormat as RegexFormat
    from ctxbackends._chat.requests import ResponseFormat as ResponseFormat
    from ctxbackends._chat.requests import Tool as Tool
    from ctxbackends._chat.responses import Citation as Citation
    from ctxbackends._chat.responses import Completion as Completion
    from ctxbackends._chat.responses import Embeddings as Embeddings
    from ctxbackends._chat.responses import FinishReason as FinishReason
    from ctxbackends._chat.responses import PartialCompletion as PartialCompletion
    from ctxbackends._chat.responses import TokenLogprob as TokenLogprob
    from ctxbackends._chat.responses import Usage as Usage
    from ctxbackends._chat.servers import Capabilities as Capabilities
    from ctxbackends._chat.servers import Enforcement as Enforcement
    from ctxbackends._chat.servers import ModelInfo as ModelInfo
    from ctxbackends._chat.servers import Ping as Ping
    from ctxbackends._chat.servers import ServerStatus as ServerStatus
    from ctxbackends._client.backend import Backend as Backend
    from ctxbackends._client.http_backend import HTTPBackend as HTTPBackend
    from ctxbackends._client.stream import ChatStream as ChatStream
    from ctxbackends._config.backend_config import BackendConfig as BackendConfig
    from ctxbackends._profiles.builtin import PROFILES as PROFILES
    from ctxbackends._profiles.profile import BackendType as BackendType
    from ctxbackends._profiles.profile import Profile as Profile
    from ctxbackends._profiles.profile import WireAPI as WireAPI
    from ctxbackends._registry import Registry as Registry
    from ctxbackends._registry import http_backend as http_backend
    from ctxbackends._registry import open_backend as open_backend
    from ctxbackends._structured import Extraction as Extraction
    from ctxbackends._structured import SchemaProbe as SchemaProbe
    from ctxbackends._structured import extract as extract
    from ctxbackends._structured import extract_result as extract_result
    from ctxbackends._structured import probe_schema as probe_schema
    from ctxbackends._tools import arguments_of as arguments_of
    from ctxbackends._tools import tool_of as tool_of
    from ctxbackends._version import __version__ as __version__
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
    from ctxbackends.errors import EndpointWarning as EndpointWarning
    from ctxbackends.errors import EventLoopError as EventLoopError
    from ctxbackends.errors import IncompleteOutputError as IncompleteOutputError
    from ctxbackends.errors import InsufficientQuotaError as InsufficientQuotaError
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
    from ctxbackends.local import LocalServer as LocalServer
    from ctxbackends.local import serve_model as serve_model
