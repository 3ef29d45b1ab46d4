"""A model and an embedding model for pydantic-ai, on any backend. Needs the extra ``pydantic-ai``."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, cast

from ctxbackends._chat.events import Loading
from ctxbackends._chat.messages import Message
from ctxbackends._chat.servers import Capabilities
from ctxbackends._client.backend import Backend
from ctxbackends._config.request_options import RequestOptions
from ctxbackends.errors import BackendError, ConfigError
from ctxbackends.integrations._common import (
    BackendReference,
    BackendSource,
    UnsupportedOptions,
    check_unsupported,
    require_extra,
    select_options,
)

with require_extra("pydantic-ai"):
    from pydantic_ai.embeddings import EmbeddingModel, EmbeddingResult, EmbeddingSettings
    from pydantic_ai.embeddings.result import EmbedInputType
    from pydantic_ai.exceptions import UserError
    from pydantic_ai.messages import ModelMessage, ModelResponse
    from pydantic_ai.models import Model, ModelRequestParameters, StreamedResponse, check_allow_model_requests
    from pydantic_ai.profiles import ModelProfile, ModelProfileSpec
    from pydantic_ai.settings import ModelSettings
    from pydantic_ai.usage import RequestUsage

    from ctxbackends.integrations._pydantic_ai.errors import to_framework_error
    from ctxbackends.integrations._pydantic_ai.messages import build_messages
    from ctxbackends.integrations._pydantic_ai.responses import build_response, build_usage
    from ctxbackends.integrations._pydantic_ai.settings import UNSUPPORTED_SETTINGS as UNSUPPORTED_SETTINGS
    from ctxbackends.integrations._pydantic_ai.settings import CtxModelSettings as CtxModelSettings
    from ctxbackends.integrations._pydantic_ai.settings import build_options, build_request_options, choose_tools
    from ctxbackends.integrations._pydantic_ai.streaming import CtxStreamedResponse

__all__ = ("CtxEmbeddingModel", "CtxModel", "CtxModelSettings")


@dataclass(init=False, repr=False, eq=False)
class _OnBackend:
    """The parts that both models share. The fields are compared and pickled."""

    _reference: BackendReference
    _model: str | None
    _unsupported: UnsupportedOptions

    def _refer(self, backend: BackendSource, model: str | None, unsupported: UnsupportedOptions) -> None:
        self._reference = BackendReference.of(backend)
        self._model = model
        self._unsupported = check_unsupported(unsupported)

    @property
    def _backend(self) -> Backend:
        try:
            return self._reference.get()
        except ConfigError as error:
            raise UserError(str(error)) from error

    @property
    def model_name(self) -> str:
        """The name of the model."""
        name = self._model or self._backend.default_model
        if not name:
            raise UserError(f'no model: the backend "{self._backend.name}" has no default_model; pass model=')
        return name

    @property
    def system(self) -> str:
        """The type of the backend, such as ``vllm``."""
        return str(self._backend.type)

    @property
    def base_url(self) -> str:
        """The URL of the server."""
        return self._backend.endpoint

    @contextmanager
    def _framework_errors(self) -> Iterator[None]:
        try:
            yield
        except BackendError as error:
            raise to_framework_error(error, self.model_name) from error
        except (TypeError, ValueError) as error:  # of an option
            raise UserError(str(error)) from error


@dataclass(init=False, repr=False)
class CtxModel(_OnBackend, Model[Any]):
    """A model of pydantic-ai on a backend of ctxbackends.

    Args:
        backend: A configuration, the name of a backend in the nearest ``.ctxrc``, or a backend.
        model: The name of the model; None for the backend's ``default_model``.
        unsupported: How to treat a setting that the backend does not support: ``error`` raises UserError, ``drop``
            leaves out settings that tune the answer, as pydantic-ai's own models do.
        settings: Default settings.
        profile: Changes to the profile, which is built from the capabilities of the backend.

    Raises:
        TypeError: ``backend`` is of another type.
        ValueError: ``unsupported`` is invalid.
    """

    unsupported_settings = UNSUPPORTED_SETTINGS
    _relocates_tool_files = True  # what tools return besides text goes into a user message

    def __init__(
        self,
        backend: BackendSource,
        model: str | None = None,
        *,
        unsupported: UnsupportedOptions = "error",
        settings: ModelSettings | None = None,
        profile: ModelProfileSpec | None = None,
    ) -> None:
        self._refer(backend, model, unsupported)
        super().__init__(settings=settings, profile=profile)

    @cached_property
    def _capabilities(self) -> Capabilities:
        return self._backend.capabilities

    def _provider_model_profile(self) -> ModelProfile:
        capabilities = self._capabilities
        profile = ModelProfile(
            supports_tools=capabilities.tools,
            supports_json_schema_output="json_schema" in capabilities.response_formats,
            supports_json_object_output="json_object" in capabilities.response_formats,
            # Small models call output tools badly, and a grammar costs nothing.
            default_structured_output_mode="native" if capabilities.schema_enforcement == "grammar" else "tool",
            supports_thinking=capabilities.reasoning,
            supports_forced_tool_choice="required" in capabilities.tool_choices,
            # The Messages API rejects a forced tool call while the model thinks.
            supports_forced_tool_choice_with_thinking=capabilities.wire_api != "messages",
            # Chat templates of local models, and the Messages API, take a system message only at the start.
            supports_inline_system_prompts=self.system == "openai",
            supports_image_input=capabilities.images,
            supports_audio_file_input=capabilities.audio,
            supports_video_input=False,
        )
        if not capabilities.files:  # documents of text are sent as text
            profile["supported_document_media_types"] = frozenset({"text/plain", "text/csv", "text/html"})
        return profile

    def prepare_request(
        self, model_settings: ModelSettings | None, model_request_parameters: ModelRequestParameters
    ) -> tuple[ModelSettings | None, ModelRequestParameters]:
        """See :meth:`Model.prepare_request`. With function tools, the default of a structured output is a tool."""
        if model_request_parameters.function_tools:  # a grammar for the output would prevent the calls
            model_request_parameters = model_request_parameters.with_default_output_mode("tool")
        return super().prepare_request(model_settings, model_request_parameters)

    async def request(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> ModelResponse:
        """See :meth:`Model.request`."""
        check_allow_model_requests()
        settings, parameters = self.prepare_request(model_settings, model_request_parameters)
        with self._framework_errors():
            prompt, arguments = await self._build_request(messages, settings, parameters)
            completion = await self._backend.complete(prompt, **arguments)
        return build_response(completion, provider_name=self.system, provider_url=self.base_url)

    @asynccontextmanager
    async def request_stream(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
        run_context: Any = None,  # noqa: ARG002  # part of the interface
    ) -> AsyncIterator[StreamedResponse]:
        """See :meth:`Model.request_stream`. An error before the first token is raised on entering."""
        check_allow_model_requests()
        settings, parameters = self.prepare_request(model_settings, model_request_parameters)
        with self._framework_errors():
            prompt, arguments = await self._build_request(messages, settings, parameters)
            stream = await self._backend.stream(prompt, **arguments).__aenter__()
        try:
            with self._framework_errors():
                first = await anext(stream)
                while isinstance(first, Loading):
                    first = await anext(stream)
            yield CtxStreamedResponse(
                model_request_parameters=parameters,
                _first=first,
                _stream=stream,
                _model_name=self.model_name,
                _provider_name=self.system,
                _provider_url=self.base_url,
            )
        finally:
            await stream.aclose()

    async def count_tokens(
        self,
        messages: list[ModelMessage],
        model_settings: ModelSettings | None,
        model_request_parameters: ModelRequestParameters,
    ) -> RequestUsage:
        """See :meth:`Model.count_tokens`. The server counts; the number is never estimated."""
        check_allow_model_requests()
        settings, parameters = self.prepare_request(model_settings, model_request_parameters)
        tools, _ = choose_tools(self.profile, settings or {}, parameters)
        with self._framework_errors():
            prompt = await self._build_prompt(messages, parameters)
            count = await self._backend.count_tokens(prompt, model=self.model_name, tools=tools)
        return RequestUsage(input_tokens=count)

    # --- the parts of a request -------------------------------------------------------------------

    async def _build_prompt(
        self, messages: Sequence[ModelMessage], parameters: ModelRequestParameters
    ) -> list[Message]:
        instructions = self._get_instruction_parts(messages, parameters) or ()
        takes_reasoning = "reasoning" in self._capabilities.message_parts
        return await build_messages(messages, instructions, system=self.system, takes_reasoning=takes_reasoning)

    async def _build_request(
        self, messages: Sequence[ModelMessage], settings: ModelSettings | None, parameters: ModelRequestParameters
    ) -> tuple[list[Message], dict[str, Any]]:
        settings = cast("CtxModelSettings", settings or {})
        ignored = sorted(UNSUPPORTED_SETTINGS & settings.keys())
        if ignored and self._unsupported == "error":
            raise UserError(f"settings not supported by CtxModel: {', '.join(ignored)}; remove them")
        options = build_options(self.profile, self._capabilities.schema_enforcement, settings, parameters)
        arguments = select_options(self._backend, options, self._unsupported)
        arguments["model"] = self.model_name
        request_options = build_request_options(settings)
        if request_options is not None:
            arguments["request_options"] = request_options
        return await self._build_prompt(messages, parameters), arguments


@dataclass(init=False, repr=False)
class CtxEmbeddingModel(_OnBackend, EmbeddingModel):
    """An embedding model of pydantic-ai on a backend of ctxbackends.

    Args:
        backend: A configuration, the name of a backend in the nearest ``.ctxrc``, or a backend.
        model: The name of the model; None for the backend's ``default_model``.
        unsupported: How to treat a setting that the backend does not support: ``error`` raises UserError, ``drop``
            leaves out ``dimensions`` and ``truncate``.
        settings: Default settings.

    Raises:
        TypeError: ``backend`` is of another type.
        ValueError: ``unsupported`` is invalid.
    """

    def __init__(
        self,
        backend: BackendSource,
        model: str | None = None,
        *,
        unsupported: UnsupportedOptions = "error",
        settings: EmbeddingSettings | None = None,
    ) -> None:
        self._refer(backend, model, unsupported)
        super().__init__(settings=settings)

    async def embed(
        self, inputs: str | Sequence[str], *, input_type: EmbedInputType, settings: EmbeddingSettings | None = None
    ) -> EmbeddingResult:
        """See :meth:`EmbeddingModel.embed`. The texts are sent unchanged, whatever the ``input_type``."""
        texts, chosen = self.prepare_embed(inputs, settings)
        ignored = sorted({"extra_body", "truncate"} & chosen.keys())
        if ignored and self._unsupported == "error":
            raise UserError(f"settings not supported by CtxEmbeddingModel: {', '.join(ignored)}; remove them")
        backend = self._backend
        dimensions = chosen.get("dimensions")
        if self._unsupported == "drop" and backend.refusal("dimensions") is not None:
            dimensions = None
        headers = chosen.get("extra_headers")
        with self._framework_errors():
            embeddings = await backend.embed(
                texts,
                model=self.model_name,
                dimensions=dimensions,
                request_options=RequestOptions(headers=headers) if headers else None,
            )
        return EmbeddingResult(
            embeddings=embeddings.vectors,
            inputs=texts,
            input_type=input_type,
            model_name=embeddings.served_model or embeddings.requested_model,
            provider_name=self.system,
            usage=build_usage(embeddings.usage),
        )

    async def count_tokens(self, text: str) -> int:
        """See :meth:`EmbeddingModel.count_tokens`. The server counts; the number is never estimated."""
        with self._framework_errors():
            return await self._backend.count_tokens(text, model=self.model_name)
