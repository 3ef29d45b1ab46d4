"""LangChain: a chat model and embeddings over any backend. Needs the extra ``langchain``.

Errors are those of ctxbackends and belong to LangChain's categories as well: a :class:`ctxbackends.RateLimitError` is
also a ``langchain_core.exceptions.ModelRateLimitError``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self, TypeAlias, cast

import attrs

from ctxbackends import BackendConfig, ChatOptions, RequestOptions
from ctxbackends.integrations._common import (
    BackendReference,
    BackendSource,
    UnsupportedOptions,
    require_extra,
    select_options,
)

with require_extra("langchain"):
    from langchain_core.embeddings import Embeddings
    from langchain_core.language_models import BaseChatModel, LanguageModelInput
    from langchain_core.language_models.base import LangSmithParams
    from langchain_core.language_models.model_profile import ModelProfile
    from langchain_core.messages import AIMessage, BaseMessage
    from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
    from langchain_core.runnables import Runnable
    from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, model_validator

    from ctxbackends.integrations._langchain.errors import raise_model_errors
    from ctxbackends.integrations._langchain.messages import (
        build_last_chunks,
        to_ai_message,
        to_chunk,
        to_messages,
        to_tool,
        to_tool_choice,
    )
    from ctxbackends.integrations._langchain.output import build_structured_model

__all__ = ["ChatCtxbackends", "CtxbackendsEmbeddings"]

_REQUEST_OPTIONS = tuple(field.name for field in attrs.fields(RequestOptions))
_CALL_OPTIONS = ("tools", "tool_choice", "parallel_tool_calls", "response_format", "stop_sequences")
_OPTIONS = tuple(name for name in (*ChatOptions.__annotations__, "stop") if name not in _CALL_OPTIONS)


def _to_reference(backend: BackendSource | BackendReference) -> BackendReference:
    return backend if isinstance(backend, BackendReference) else BackendReference.of(backend)


if TYPE_CHECKING:
    _Source: TypeAlias = BackendSource | BackendReference  # accepted by the constructors
else:
    _Source = Annotated[BackendReference, BeforeValidator(_to_reference)]


class ChatCtxbackends(BaseChatModel):
    """A LangChain chat model that uses a backend.

    An option that is None is not sent. Every option can also be passed to a call, as in ``model.invoke(..., seed=7)``.

    Attributes:
        backend: A :class:`ctxbackends.BackendConfig`, the name of a backend in the nearest ``.ctxrc``, or a
            :class:`ctxbackends.Backend`.
        model: The name of the model; None for the backend's ``default_model``.
        unsupported: ``error`` or ``drop`` for options that the backend does not support and that tune the answer.
        api_key: The API key, if ``backend`` is a BackendConfig. It prevents pickling.
        streaming: Whether ``invoke()`` streams its request through ``stream()``.
        stop: Texts that end the answer and are not part of it.

    The other options are those of :class:`ctxbackends.ChatOptions` and :class:`ctxbackends.RequestOptions`.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    backend: _Source
    model: str | None = None
    unsupported: UnsupportedOptions = "error"
    api_key: SecretStr | str | None = Field(default=None, exclude=True, repr=False)
    streaming: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    stop: list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    reasoning_effort: str | None = None
    reasoning_budget: int | None = None
    extra_body: dict[str, Any] | None = None
    timeout: float | str | None = None
    first_token_timeout: float | str | None = None
    idle_timeout: float | str | None = None
    ready_timeout: float | str | None = None
    max_retries: int | None = None
    headers: dict[str, str] | None = None

    @model_validator(mode="before")
    @classmethod
    def _set_api_key(cls, values: dict[str, Any]) -> dict[str, Any]:
        config, key = values.get("backend"), values.get("api_key")
        if key is None or isinstance(config, BackendReference):
            return values
        if not isinstance(config, BackendConfig):
            raise ValueError("api_key requires a BackendConfig as backend; or name its variable in api_key_env")
        secret = key.get_secret_value() if isinstance(key, SecretStr) else key
        return {**values, "backend": attrs.evolve(config, api_key=secret), "api_key": SecretStr(secret)}

    @model_validator(mode="after")
    def _check(self) -> Self:
        self._build_request_options({})
        self._reference.get()  # a wrong name or configuration fails here and not in the first call
        return self

    @property
    def _reference(self) -> BackendReference:
        return cast("BackendReference", self.backend)

    # --- the description of the model ---------------------------------------------------------------

    @property
    def _llm_type(self) -> str:
        return "ctxbackends"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        backend = self._reference.get()
        values = {name: getattr(self, name) for name in (*_OPTIONS, "unsupported")}
        values["model"] = self._model_name
        chosen = {name: value for name, value in values.items() if value is not None}
        return {"backend": backend.name, "backend_type": backend.type, "endpoint": backend.endpoint, **chosen}

    @property
    def _model_name(self) -> str:
        return self.model or self._reference.get().default_model or ""

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        name = kwargs.pop("model", None) or self._model_name
        return super()._get_ls_params(stop=stop or self.stop, **kwargs, model=name)

    def _resolve_model_profile(self) -> ModelProfile:
        can = self._reference.get().capabilities
        return ModelProfile(
            text_inputs=True,
            image_inputs=can.images,
            image_url_inputs=can.image_urls,
            audio_inputs=can.audio,
            video_inputs=False,
            pdf_inputs=can.files,
            image_tool_message=can.images,
            pdf_tool_message=False,
            text_outputs=True,
            tool_calling=can.tools,
            tool_choice="required" in can.tool_choices,
            tool_call_streaming=can.tools,
            # Agents then ask for it together with tools, which a grammar would keep the model from calling.
            structured_output="json_schema" in can.response_formats and can.schema_enforcement == "native",
            temperature="temperature" in can.options,
        )

    def get_num_tokens(self, text: str) -> int:
        """Return the number of tokens in a text, as the server counts them."""
        with raise_model_errors():
            return self._reference.get_sync().count_tokens(text, model=self.model)

    def get_num_tokens_from_messages(self, messages: list[BaseMessage], tools: Sequence[Any] | None = None) -> int:
        """Return the number of tokens in a conversation, as the server counts them, with the tools of the request."""
        with raise_model_errors():
            dicts = [to_tool(tool) for tool in tools or ()]
            return self._reference.get_sync().count_tokens(
                to_messages(messages, self.unsupported), model=self.model, tools=dicts
            )

    # --- requests -----------------------------------------------------------------------------------

    def _generate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        with raise_model_errors():
            completion = self._reference.get_sync().complete(**self._build_request(messages, stop, kwargs))
        return ChatResult(generations=[ChatGeneration(message=to_ai_message(completion))])

    async def _agenerate(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        with raise_model_errors():
            completion = await self._reference.get().complete(**self._build_request(messages, stop, kwargs))
        return ChatResult(generations=[ChatGeneration(message=to_ai_message(completion))])

    def _stream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        backend = self._reference.get_sync()
        with raise_model_errors(), backend.stream(**self._build_request(messages, stop, kwargs)) as stream:
            for event in stream:
                chunk = to_chunk(event)
                if chunk is not None:
                    yield chunk
            yield from build_last_chunks(stream.completion)

    async def _astream(
        self, messages: list[BaseMessage], stop: list[str] | None = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        with raise_model_errors():
            async with self._reference.get().stream(**self._build_request(messages, stop, kwargs)) as stream:
                async for event in stream:
                    chunk = to_chunk(event)
                    if chunk is not None:
                        yield chunk
                for chunk in build_last_chunks(stream.completion):
                    yield chunk

    def _build_request(
        self, messages: list[BaseMessage], stop: list[str] | None, call: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the arguments of the backend's method: the options of the model, replaced by those of the call."""
        options = {name: getattr(self, name) for name in _OPTIONS}
        options |= {name: value for name, value in call.items() if name not in (*_REQUEST_OPTIONS, "stream")}
        own_stop = options.pop("stop")
        options.setdefault("stop_sequences", (own_stop if stop is None else stop) or None)
        options["tool_choice"] = to_tool_choice(options.get("tool_choice"))
        return {
            "prompt": to_messages(messages, self.unsupported),
            "request_options": self._build_request_options(call),
            **select_options(self._reference.get(), options, self.unsupported),
        }

    def _build_request_options(self, call: Mapping[str, Any]) -> RequestOptions | None:
        values = {name: call[name] if name in call else getattr(self, name) for name in _REQUEST_OPTIONS}
        return RequestOptions(**values) if any(value is not None for value in values.values()) else None

    # --- tools and structured output ----------------------------------------------------------------

    def bind_tools(
        self,
        tools: Sequence[dict[str, Any] | type | Callable[..., Any] | Any],
        *,
        tool_choice: str | dict[str, Any] | bool | None = None,
        strict: bool | None = None,
        parallel_tool_calls: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Return the model with tools.

        Args:
            tools: LangChain tools, functions, pydantic classes, or dicts in the form of OpenAI or Anthropic.
            tool_choice: ``auto``, ``none``, ``any`` or ``required``, the name of a tool, or a dict in OpenAI's form.
            strict: Ask the server to enforce the schemas of the arguments.
            parallel_tool_calls: False for at most one call per response.
            **kwargs: Further options of the calls.

        Raises:
            ValueError: A tool cannot be converted, or its schema cannot be strict.
        """
        options = {"tool_choice": tool_choice, "parallel_tool_calls": parallel_tool_calls}
        kwargs |= {name: value for name, value in options.items() if value is not None}
        return self.bind(tools=[to_tool(tool, strict) for tool in tools], **kwargs)

    def with_structured_output(
        self,
        schema: dict[str, Any] | type,
        *,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Return the model with answers of a type.

        An answer that is not whole, or does not match a pydantic class, is an error.

        Args:
            schema: A pydantic class, a TypedDict, a JSON Schema with a title, or a tool in OpenAI's form.
            method: ``json_schema`` enforces the schema where the server can, ``function_calling`` requires the call of
                a tool, and ``json_mode`` only asks for a JSON object, whose members the prompt must describe.
            include_raw: Return a dict of ``raw`` (the message), ``parsed`` and ``parsing_error``.
            strict: Ask the server to enforce the schema, which must then be strict.
            **kwargs: Further options of the calls.

        Raises:
            ValueError: ``method`` is unknown, or the schema cannot be converted or cannot be strict.
        """
        enforcement = self._reference.get().schema_enforcement
        return build_structured_model(
            self, schema, method, enforcement=enforcement, strict=strict, include_raw=include_raw, options=kwargs
        )


class CtxbackendsEmbeddings(BaseModel, Embeddings):
    """LangChain embeddings of a backend.

    Attributes:
        backend: A :class:`ctxbackends.BackendConfig`, the name of a backend in the nearest ``.ctxrc``, or a
            :class:`ctxbackends.Backend`.
        model: The name of the model; None for the backend's ``default_model``.
        dimensions: The length of the vectors, for models that can shorten them.
        batch_size: The number of texts in one request; None for as many as one response has room for.
        timeout: Seconds for a whole request, or a text such as ``2m``.
        max_retries: How often a request that the server did not process is sent again.
    """

    model_config: ClassVar[ConfigDict] = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    backend: _Source
    model: str | None = None
    dimensions: int | None = None
    batch_size: int | None = None
    timeout: float | str | None = None
    max_retries: int | None = None

    @property
    def _reference(self) -> BackendReference:
        return cast("BackendReference", self.backend)

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector for each text."""
        if not texts:
            return []
        with raise_model_errors():
            return [list(vector) for vector in self._reference.get_sync().embed(texts, **self._build_options()).vectors]

    def embed_query(self, text: str) -> list[float]:
        """Return the vector of a text."""
        return self.embed_documents([text])[0]

    async def aembed_documents(self, texts: list[str]) -> list[list[float]]:
        """Return one vector for each text."""
        if not texts:
            return []
        with raise_model_errors():
            embeddings = await self._reference.get().embed(texts, **self._build_options())
        return [list(vector) for vector in embeddings.vectors]

    async def aembed_query(self, text: str) -> list[float]:
        """Return the vector of a text."""
        return (await self.aembed_documents([text]))[0]

    def _build_options(self) -> dict[str, Any]:
        options: dict[str, Any] = {name: getattr(self, name) for name in ("model", "dimensions", "batch_size")}
        return options | {"request_options": RequestOptions(timeout=self.timeout, max_retries=self.max_retries)}
