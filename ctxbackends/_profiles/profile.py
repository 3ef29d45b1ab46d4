"""The row of a backend type, and the protocols of its operations."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal, Protocol, TypeAlias

import attrs

from ctxbackends._chat.requests import ChatRequest
from ctxbackends._chat.responses import Embeddings
from ctxbackends._chat.servers import Enforcement, ModelInfo, ServerStatus
from ctxbackends._profiles import option_support as tables
from ctxbackends._wire.base import Codec, Operation, WireSettings, bearer_header
from ctxbackends._wire.body_settings import adapt_table
from ctxbackends._wire.formats.anthropic_messages import AnthropicCodec, x_api_key
from ctxbackends._wire.formats.ollama_chat import OllamaCodec
from ctxbackends._wire.formats.openai_chat import OpenAIChatCodec
from ctxbackends._wire.operations import openai as openai_server
from ctxbackends._wire.operations.openai import VectorEncoding
from ctxbackends._wire.options import OptionTable

MismatchPolicy: TypeAlias = Literal["error", "warn", "ignore"]


class BackendType(StrEnum):
    """The values of ``type`` in ``.ctxrc``."""

    VLLM = "vllm"
    OPENAI_COMPATIBLE = "openai-compatible"
    OPENAI = "openai"
    ANTHROPIC = "anthropic"
    OLLAMA = "ollama"
    LMSTUDIO = "lmstudio"
    LLAMACPP = "llamacpp"
    AZURE_OPENAI = "azure-openai"
    GEMINI = "gemini"
    OPENROUTER = "openrouter"
    DEEPSEEK = "deepseek"
    MISTRAL = "mistral"
    GROQ = "groq"
    TOGETHER = "together"
    XAI = "xai"
    HUGGINGFACE = "huggingface"
    CEREBRAS = "cerebras"
    PERPLEXITY = "perplexity"
    FIREWORKS = "fireworks"
    MOONSHOT = "moonshot"
    DASHSCOPE = "dashscope"
    ZAI = "zai"
    SGLANG = "sglang"
    TGI = "tgi"
    LLAMA_SWAP = "llama-swap"
    LITELLM = "litellm"
    INFINITY = "infinity"


class WireAPI(StrEnum):
    """The values of ``wire_api`` in ``.ctxrc``: the wire formats for chat requests."""

    CHAT_COMPLETIONS = "chat_completions"
    MESSAGES = "messages"
    OLLAMA = "ollama"


class EmbedOperation(Protocol):
    """An operation that requests one batch of embeddings."""

    def __call__(
        self,
        inputs: Sequence[str],
        *,
        model: str,
        dimensions: int | None,
        encoding: VectorEncoding | None,
        settings: WireSettings,
    ) -> Operation[Embeddings]: ...


class LoadOperation(Protocol):
    """An operation that loads a model into memory."""

    def __call__(self, model: str, *, context_length: int | None, keep_alive: float | None) -> Operation[None]: ...


def _freeze(values: Mapping[Any, Any]) -> Mapping[Any, Any]:
    return MappingProxyType(dict(values))


@attrs.frozen(kw_only=True)
class Profile:
    """The defaults and operations of one backend type. Operations are None if the server does not support them.

    Attributes:
        type: The name of the type in ``.ctxrc``.
        default_endpoint: The URL of the server, None if the user must configure one.
        wire_apis: The supported wire formats with their option tables; the first is the default.
        default_key_variable: The environment variable of the API key, None if no key is sent by default.
        auth: Builds the headers that carry an API key.
        ready_timeout: Seconds to wait for a cold start; None if the server listens before it loads, so that a refused
            connection means a wrong address.
        connect_timeout: Seconds to establish the connection.
        first_token_timeout: Seconds until the first token of a stream, None for no limit.
        idle_timeout: Seconds between tokens of a stream, None for no limit.
        silent_idle_timeout: The same for requests with tools or a schema: servers send a tool call only when it is
            whole, after minutes of silence.
        timeout: Total seconds of a request, None for no limit.
        complete_streams: ``complete()`` sends a streamed request, because the server frees the slot of a cancelled
            request only if it is streamed, or hangs in ways that only the time between tokens reveals.
        close_after_stream: The server closes the connection after every stream although its headers promise otherwise;
            the connection is not pooled.
        model_mismatch: How to react if the response comes from another model than the requested one.
        stream_members: Members that are added to the body of every streamed chat completion.
        keep_alive_at: The member of a chat completion that sets how long the model stays loaded.
        schema_enforcement: How the server enforces the schema of a response.
        list_models: Lists the models.
        status: Probes the server.
        embed: Requests embeddings.
        embed_batch: The maximum of texts per embedding request.
        embed_dimensions: Whether the server supports shorter vectors.
        vector_encodings: The supported encodings of vectors.
        vector_encoding: The one that is requested by default.
        load: Loads a model.
        unload: Unloads a model.
        count_tokens: Counts the tokens of a prompt.
        prepare: Runs before each generation.
        check_not_sleeping: Raises if the server responds but would never answer a chat request.
        slots: Returns how many requests the server processes at once: None if unknown, 0 if not loaded yet.
        load_is_async: Whether the response to a load request comes before the model is loaded.
        supported_settings: The settings of ``.ctxrc`` that only this type supports, with the wire formats that support
            them.
        api_path: The path of the API, ``/`` for none; None for ``/v1`` or the version at the end of the endpoint.
        query: Parameters for the URL of every request.
        headers: Headers of every request.
        omit: Members of the request body that are not sent.
        rename: Members of the request body with the server's own name.
        json_mode: A JSON schema is sent as JSON mode, and described in the prompt.
    """

    type: str
    default_endpoint: str | None
    wire_apis: Mapping[str, OptionTable] = attrs.field(
        factory=lambda: {WireAPI.CHAT_COMPLETIONS: tables.OPENAI_COMPATIBLE_CHAT}, converter=_freeze
    )
    default_key_variable: str | None = None
    auth: Callable[[str], Mapping[str, str]] = bearer_header
    ready_timeout: float | None = None
    connect_timeout: float = 5.0
    first_token_timeout: float | None = 600.0
    idle_timeout: float | None = 60.0
    silent_idle_timeout: float | None = 300.0
    timeout: float | None = None
    complete_streams: bool = False
    close_after_stream: bool = False
    model_mismatch: MismatchPolicy = "error"
    stream_members: Mapping[str, Any] = attrs.field(factory=dict, converter=_freeze)
    keep_alive_at: str | None = None
    schema_enforcement: Enforcement = "unverified"
    list_models: Callable[[], Operation[tuple[ModelInfo, ...]]] = openai_server.list_models
    status: Callable[[str | None], Operation[ServerStatus]] = openai_server.status_from_models
    embed: EmbedOperation | None = openai_server.embed
    embed_batch: int = 512
    embed_dimensions: bool = True
    vector_encodings: tuple[VectorEncoding, ...] = ("float", "base64")
    vector_encoding: VectorEncoding = "float"
    load: LoadOperation | None = None
    unload: Callable[[str], Operation[None]] | None = None
    count_tokens: Callable[[ChatRequest, OptionTable], Operation[int]] | None = None
    prepare: Callable[[str, WireSettings], Operation[None]] | None = None
    check_not_sleeping: Callable[[], Operation[None]] | None = None
    slots: Callable[[str | None], Operation[int | None]] | None = None
    load_is_async: bool = False
    supported_settings: Mapping[str, frozenset[str]] = attrs.field(factory=dict, converter=_freeze)
    api_path: str | None = None
    query: Mapping[str, str] = attrs.field(factory=dict, converter=_freeze)
    headers: Mapping[str, str] = attrs.field(factory=dict, converter=_freeze)
    omit: frozenset[str] = frozenset()
    rename: Mapping[str, str] = attrs.field(factory=dict, converter=_freeze)
    json_mode: bool = False

    @property
    def wire_api(self) -> str:
        """The default wire format."""
        return next(iter(self.wire_apis))

    @property
    def default_settings(self) -> WireSettings:
        """The settings of a backend that configures none."""
        return WireSettings(omit=self.omit, rename=self.rename, json_mode=self.json_mode)

    def codec(self, wire_api: str | None = None, settings: WireSettings | None = None) -> Codec:
        """Return the codec of a wire format.

        Raises:
            ValueError: This type does not support ``wire_api``.
        """
        name = wire_api or self.wire_api
        if name not in self.wire_apis:
            raise ValueError(f"unsupported wire_api for type {self.type}: {name!r}; use {' or '.join(self.wire_apis)}")
        if settings is None:
            settings = self.default_settings
        table = adapt_table(self.wire_apis[name], settings)
        match WireAPI(name):
            case WireAPI.MESSAGES:
                return AnthropicCodec(table=table, own_key=self.auth is x_api_key, settings=settings)
            case WireAPI.OLLAMA:
                return OllamaCodec(table=table, settings=settings)
            case WireAPI.CHAT_COMPLETIONS:
                keep = settings.keep_alive
                members = {self.keep_alive_at: int(keep)} if self.keep_alive_at is not None and keep is not None else {}
                return OpenAIChatCodec(
                    table=table,
                    members=members,
                    stream_members=self.stream_members,
                    settings=settings,
                    auth=self.auth if self.auth is not x_api_key else bearer_header,
                )
