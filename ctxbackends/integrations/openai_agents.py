"""Use backends as models of the OpenAI Agents SDK (extra ``openai-agents``).

The SDK's own converters for chat completions translate its items to messages, and answers to its events.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, contextmanager
from typing import Any

import attrs

from ctxbackends._chat.messages import Message
from ctxbackends._chat.requests import JSONSchemaFormat, NamedTool
from ctxbackends._client.backend import Backend
from ctxbackends._config.request_options import RequestOptions
from ctxbackends._registry import Registry
from ctxbackends.errors import BackendError
from ctxbackends.integrations._common import (
    BackendReference,
    BackendSource,
    UnsupportedOptions,
    check_unsupported,
    logger,
    require_extra,
    select_options,
)

with require_extra("openai-agents"):
    from agents import (
        Model,
        ModelProvider,
        ModelResponse,
        ModelSettings,
        ModelTracing,
        SpanError,
        UserError,
        generation_span,
    )
    from agents.models._retry_runtime import should_disable_provider_managed_retries
    from agents.models.chatcmpl_converter import Converter
    from agents.models.default_models import get_default_model_settings
    from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest
    from openai import Omit
    from openai.types.responses import Response

    from ctxbackends.integrations._openai_agents.errors import build_retry_advice, translate_error
    from ctxbackends.integrations._openai_agents.messages import build_messages
    from ctxbackends.integrations._openai_agents.output_tool import build_output_tool, needs_output_tool
    from ctxbackends.integrations._openai_agents.responses import ResponseBuilder, build_model_response, replay

__all__ = ["CtxModel", "CtxModelProvider"]

_SETTINGS = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "max_tokens", "top_logprobs")
_UNSUPPORTED_SETTINGS = (
    "truncation",
    "verbosity",
    "metadata",
    "store",
    "prompt_cache_retention",
    "response_include",
    "extra_query",
    "context_management",
    "prompt_cache_options",
)
_DEFAULTS = {"truncation": "disabled", "store": False}
"""Settings whose values are how a backend behaves anyway."""


class CtxModelProvider(ModelProvider):
    """A provider for models named ``backend/model``, such as ``local/qwen3-4b``.

    The name of a backend alone, ``local``, is its ``default_model``; an agent without a model uses the default backend.

    Args:
        backend: Use only this backend, and take each name as a model of it: a configuration, the name of a backend in
            the nearest ``.ctxrc``, or a backend. None for all backends of the ``.ctxrc``.
        unsupported: How to treat an option that the backend does not support, see :class:`CtxModel`.

    Raises:
        TypeError: ``backend`` is none of these.
        ValueError: ``unsupported`` is invalid.
    """

    def __init__(self, backend: BackendSource | None = None, *, unsupported: UnsupportedOptions = "error") -> None:
        self._reference = None if backend is None else BackendReference.of(backend)
        self._unsupported: UnsupportedOptions = check_unsupported(unsupported)

    def get_model(self, model_name: str | None) -> CtxModel:
        """Return the model of a name, None for the default one.

        Raises:
            UserError: The backend is not configured.
        """
        reference, model = self._reference, model_name
        try:
            if reference is None:
                name, _, model = (model_name or Registry.from_ctxrc().default().name).partition("/")
                reference = BackendReference.of(name)
            reference.get()
        except BackendError as error:
            raise UserError(str(error)) from error
        ctx_model = CtxModel(reference, model or None, unsupported=self._unsupported)
        if model_name is None:
            ctx_model._ignored_settings = get_default_model_settings()
        return ctx_model


@attrs.frozen
class _Request:
    """A request, and the builder of its response."""

    backend: Backend
    messages: list[Any]
    options: dict[str, Any]
    request_options: RequestOptions | None
    builder: ResponseBuilder


class CtxModel(Model):
    """A model of a backend.

    Args:
        backend: A configuration, the name of a backend in the nearest ``.ctxrc``, or a backend.
        model: The name of the model, None for the backend's ``default_model``.
        unsupported: ``error`` raises a UserError for a setting that the backend does not support. ``drop`` leaves out
            those that tune an answer, and logs their names.

    Raises:
        TypeError: ``backend`` is none of these.
        ValueError: ``unsupported`` is invalid.
    """

    def __init__(
        self,
        backend: BackendSource | BackendReference,
        model: str | None = None,
        *,
        unsupported: UnsupportedOptions = "error",
    ) -> None:
        self._reference = backend if isinstance(backend, BackendReference) else BackendReference.of(backend)
        self.model = model
        self._unsupported: UnsupportedOptions = check_unsupported(unsupported)
        self._ignored_settings = ModelSettings()
        """The settings for GPT-5 that the SDK gives to an agent without a model."""

    async def get_response(  # noqa: PLR0917  # the SDK's signature
        self,
        system_instructions: str | None,
        input: Any,  # noqa: A002  # the SDK's name
        model_settings: ModelSettings,
        tools: list[Any],
        output_schema: Any,
        handoffs: list[Any],
        tracing: ModelTracing,
        *,
        previous_response_id: str | None = None,
        conversation_id: str | None = None,
        prompt: Any = None,
    ) -> ModelResponse:
        """Return the whole answer of the model. See :meth:`agents.Model.get_response`."""
        _check_stateless(previous_response_id, conversation_id, prompt)
        request = self._build_request(system_instructions, input, model_settings, tools, output_schema, handoffs)
        backend, builder = request.backend, request.builder
        with _trace(request, tracing) as record:
            try:
                completion = await backend.complete(
                    request.messages, request_options=request.request_options, **request.options
                )
            except (BackendError, TypeError, ValueError) as error:
                raise translate_error(error, backend.endpoint) from error
            *_, last = [event async for event in builder.convert(replay(completion))]
            response = builder.finish(last.response, completion)
            record(response)
            return build_model_response(response, completion)

    async def stream_response(  # noqa: PLR0917  # as above
        self,
        system_instructions: str | None,
        input: Any,  # noqa: A002  # the SDK's name
        model_settings: ModelSettings,
        tools: list[Any],
        output_schema: Any,
        handoffs: list[Any],
        tracing: ModelTracing,
        *,
        previous_response_id: str | None = None,
        conversation_id: str | None = None,
        prompt: Any = None,
    ) -> AsyncIterator[Any]:
        """Stream the answer of the model as response events. See :meth:`agents.Model.stream_response`."""
        _check_stateless(previous_response_id, conversation_id, prompt)
        request = self._build_request(system_instructions, input, model_settings, tools, output_schema, handoffs)
        backend, builder = request.backend, request.builder
        with _trace(request, tracing) as record:
            try:
                stream = backend.stream(request.messages, request_options=request.request_options, **request.options)
            except (BackendError, TypeError, ValueError) as error:
                raise translate_error(error, backend.endpoint) from error
            try:
                async with stream, aclosing(builder.convert(stream)) as events:
                    async for event in events:
                        if event.type == "response.completed":
                            record(builder.finish(event.response, stream.completion))
                        yield event
            except BackendError as error:
                raise translate_error(error, backend.endpoint) from error

    def get_retry_advice(self, request: ModelRetryAdviceRequest) -> ModelRetryAdvice | None:
        """Return whether a failed request can be sent again: only if the server did not process it."""
        error = request.error.__cause__
        return build_retry_advice(error) if isinstance(error, BackendError) else None

    # --- requests -------------------------------------------------------------------------------------

    def _build_request(
        self,
        system_instructions: str | None,
        items: Any,
        settings: ModelSettings,
        tools: list[Any],
        output_schema: Any,
        handoffs: list[Any],
    ) -> _Request:
        try:
            backend = self._reference.get()
            model = str(self.model or backend.default_model)
            source = f"{backend.name}/{model}"
            messages: list[Any] = [Message.system(system_instructions)] if system_instructions else []
            messages += [Message.user(items)] if isinstance(items, str) else build_messages(items, source)
            all_tools: list[Any] = [
                *(Converter.tool_to_openai(tool) for tool in tools),
                *(Converter.convert_handoff_tool(handoff) for handoff in handoffs),
            ]
            response_format = _build_format(output_schema)
            options = {**self._build_options(settings), "model": self.model, "response_format": response_format}
            has_output_tool = False
            if response_format is not None and all_tools and needs_output_tool(backend, options):
                has_output_tool = True
                all_tools.append(build_output_tool(response_format))
                del options["response_format"]
                if options["tool_choice"] in (None, "auto") and backend.refusal("tool_choice: required") is None:
                    options["tool_choice"] = "required"
            options["tools"] = all_tools or None
            builder = ResponseBuilder(
                backend,
                model=model,
                source=source,
                call_ids=set() if isinstance(items, str) else {item["call_id"] for item in items if "call_id" in item},
                is_structured=response_format is not None,
                has_output_tool=has_output_tool,
            )
            selected = select_options(backend, options, self._unsupported)
            return _Request(backend, messages, selected, _build_request_options(settings), builder)
        except (BackendError, TypeError, ValueError) as error:
            raise UserError(str(error)) from error

    def _build_options(self, settings: ModelSettings) -> dict[str, Any]:
        reasoning = settings.reasoning.model_dump(exclude_none=True) if settings.reasoning is not None else {}
        if settings.reasoning == self._ignored_settings.reasoning:
            reasoning = {}
        choice: Any = Converter.convert_tool_choice(settings.tool_choice)  # a dict for a named tool
        options: dict[str, Any] = {
            **{name: getattr(settings, name) for name in _SETTINGS},
            "logprobs": None if settings.top_logprobs is None else True,
            "reasoning_effort": reasoning.pop("effort", None),
            "tool_choice": NamedTool(choice["function"]["name"]) if isinstance(choice, dict) else choice or None,
            "parallel_tool_calls": settings.parallel_tool_calls,
            "extra_body": settings.extra_body,
        }
        extra = settings.extra_args or {}
        if twice := sorted(name for name in extra if options.get(name) is not None):
            raise UserError(f"set twice, in extra_args and in ModelSettings: {', '.join(twice)}; remove one")
        values = {name: getattr(settings, name) for name in _UNSUPPORTED_SETTINGS}
        if values["verbosity"] == self._ignored_settings.verbosity:
            del values["verbosity"]
        names = [name for name, value in values.items() if value and value != _DEFAULTS.get(name)]
        for name in [*names, *(f"reasoning.{name}" for name in reasoning)]:
            if self._unsupported == "error":
                raise UserError(
                    f"ModelSettings.{name} is not supported by CtxModel; remove it, pass unsupported='drop', or pass "
                    "the server's own option in extra_body"
                )
            logger.info("ModelSettings.%s is not sent: CtxModel does not support it", name)
        return {**options, **extra}


def _check_stateless(previous_response_id: str | None, conversation_id: str | None, prompt: Any) -> None:
    values = {"previous_response_id": previous_response_id, "conversation_id": conversation_id, "prompt": prompt}
    for name, value in values.items():
        if value is not None:
            raise UserError(f"{name} is not supported by CtxModel; pass the whole conversation")


def _build_format(output_schema: Any) -> JSONSchemaFormat | None:
    if output_schema is None or output_schema.is_plain_text():
        return None
    return JSONSchemaFormat("final_output", output_schema.json_schema(), strict=output_schema.is_strict_json_schema())


def _build_request_options(settings: ModelSettings) -> RequestOptions | None:
    headers = {name: value for name, value in (settings.extra_headers or {}).items() if not isinstance(value, Omit)}
    max_retries = 0 if should_disable_provider_managed_retries() else None  # the runner retries
    if not headers and max_retries is None:
        return None
    return RequestOptions(headers=headers or None, max_retries=max_retries)


_PRIVATE_OPTIONS = ("tools", "response_format", "extra_body")


@contextmanager
def _trace(request: _Request, tracing: ModelTracing) -> Iterator[Callable[[Response], None]]:
    """Trace one request; call the result with the response."""
    config = {name: value for name, value in request.options.items() if name not in _PRIVATE_OPTIONS}
    config["tool_choice"] = str(config.get("tool_choice"))
    with generation_span(
        model=str(request.options.get("model") or request.backend.default_model),
        model_config={"base_url": request.backend.endpoint, **config},
        disabled=tracing.is_disabled(),
    ) as span:
        if tracing.include_data():
            span.span_data.input = [
                item.to_dict() if isinstance(item, Message) else dict(item) for item in request.messages
            ]

        def record(response: Response) -> None:
            if tracing.include_data():
                span.span_data.output = [response.model_dump()]
            if response.usage is not None:
                span.span_data.usage = response.usage.model_dump()

        try:
            yield record
        except Exception as error:
            text = str(error) if tracing.include_data() else type(error).__name__  # it may repeat the prompt
            span.set_error(SpanError(message="the request failed", data={"error": text}))
            raise
