"""A backend over HTTP: the profile of its type, a codec and the connection to its server.

The path of a request: ``complete`` -> ``codec.encode_chat`` -> ``connection.request`` -> ``codec.decode_chat``. All
other operations are functions of the profile, run by ``connection.execute``. Knows no vendor.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Unpack

import attrs

from ctxbackends._chat.events import OnProgress
from ctxbackends._chat.requests import ChatOptions, ChatRequest, JSONSchemaFormat, ResponseFormatForm, ToolForms
from ctxbackends._chat.responses import Completion, Embeddings
from ctxbackends._chat.servers import Capabilities, Enforcement, ModelInfo, Ping, ServerState, ServerStatus
from ctxbackends._client.call_settings import CallSettings
from ctxbackends._client.connection import ServerConnection
from ctxbackends._client.embedding import embed
from ctxbackends._client.launcher import Launcher
from ctxbackends._client.prompts import MISSING_PROMPT, Conversation, Prompt, build_chat_request, build_messages
from ctxbackends._client.readiness import is_response_of_ready_server, raise_if_not_loaded, state_of_failure
from ctxbackends._client.stream import ChatStream
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.request_options import RequestOptions
from ctxbackends._http.transport import Transport
from ctxbackends._profiles.capabilities import OPERATION_REASONS, build_capabilities, enforcement_of, find_refusal
from ctxbackends._profiles.model_names import is_listed
from ctxbackends._profiles.profile import Profile
from ctxbackends._response_formats import build_response_format
from ctxbackends._tools import build_tools
from ctxbackends._util.pickling import NotPicklable
from ctxbackends._util.secrets import ENVIRONMENT
from ctxbackends._wire.base import HTTPRequest, Operation, WireSettings
from ctxbackends._wire.body_settings import adapt_table
from ctxbackends._wire.operations.openai import VectorEncoding
from ctxbackends._wire.options import OptionTable
from ctxbackends.errors import (
    APIStatusError,
    BackendError,
    NoModelError,
    ResponseError,
    StrictSchemaError,
    UnsupportedOperationError,
    UnsupportedOptionError,
)


class HTTPBackend(NotPicklable):
    """A :class:`Backend` over HTTP, for every built-in type and for types of your own.

    Args:
        config: The configuration of the backend.
        profile: The profile of the backend type.
        transport: The transport, shared with other backends.
        launcher: Starts the server on first use, None for a server that runs already.
        environ: Searched for the API key.

    Raises:
        ConfigError: The configuration is not valid (MissingKeyError, InvalidEndpointError, AirgapError).
    """

    connection_class: type[ServerConnection] = ServerConnection

    def __init__(
        self,
        config: BackendConfig,
        *,
        profile: Profile,
        transport: Transport,
        launcher: Launcher | None = None,
        environ: Mapping[str, str] = ENVIRONMENT,
    ) -> None:
        self.name: str = config.name
        self.type: str = config.type
        self.default_model: str | None = config.default_model
        self._profile = profile
        self._settings = WireSettings(
            context_length=config.context_length,
            keep_alive=config.keep_alive,
            allow_missing_finish_reason=config.allow_missing_finish_reason,
            omit=profile.omit | {*(config.omit or ())},
            rename={**profile.rename, **(config.rename or {})},
            json_mode=profile.json_mode if config.json_mode is None else config.json_mode,
        )
        self._streams_as_configured = streams = config.complete_streams
        self._complete_streams = profile.complete_streams if streams is None else streams
        self._wire_api = config.wire_api or profile.wire_api
        self._codec = profile.codec(self._wire_api, self._settings)
        self._connection = self.connection_class(
            config, profile=profile, codec=self._codec, transport=transport, launcher=launcher, environ=environ
        )

    def __repr__(self) -> str:
        # Reports of an error in __init__ show the repr before there is a connection.
        where = f" at {self.endpoint}" if hasattr(self, "_connection") else ""
        return f"<{type(self).__name__} {self.name!r} ({self.type}){where}>"

    @property
    def endpoint(self) -> str:
        """The base URL, or a description of a server that is not started yet."""
        return self._connection.endpoint

    @property
    def schema_enforcement(self) -> Enforcement:
        """How the server enforces a JSON schema."""
        return enforcement_of(self._profile, self._settings)

    @property
    def capabilities(self) -> Capabilities:
        """See :attr:`Backend.capabilities`."""
        return build_capabilities(self._profile, self._wire_api, self._settings)

    @property
    def streams_long_answers(self) -> bool:
        """Whether an answer that takes long should be streamed, so that its tokens can be counted meanwhile.

        Not with ``complete_streams: false``, and not for a vendor's type: its answers take seconds, and OpenAI streams
        some models only for verified organizations.
        """
        by_default = self._complete_streams or self._profile.default_key_variable is None
        return by_default if self._streams_as_configured is None else self._streams_as_configured

    def refusal(self, option: str) -> str | None:
        """See :meth:`Backend.refusal`."""
        return find_refusal(option, self._profile, self._wire_api, self._settings)

    # --- readiness, models and status -------------------------------------------------------------

    async def wait_ready(
        self, *, request_options: RequestOptions | None = None, on_progress: OnProgress | None = None
    ) -> None:
        """See :meth:`Backend.wait_ready`."""
        call = self._connection.begin(request_options)
        try:
            await self._list_models(call, on_progress)
        except (APIStatusError, ResponseError) as error:
            if not is_response_of_ready_server(error):
                raise
        await self._check_not_sleeping(call)

    async def _check_not_sleeping(self, call: CallSettings) -> None:
        if self._profile.check_not_sleeping is not None:
            await self._connection.execute(self._profile.check_not_sleeping(), call=call, timeouts=call.timeouts.probe)

    async def ping(
        self,
        *,
        wait: bool = True,
        request_options: RequestOptions | None = None,
        on_progress: OnProgress | None = None,
    ) -> Ping:
        """See :meth:`Backend.ping`."""
        started = time.monotonic()
        call = self._connection.begin(request_options)
        models = await self._list_models(call, on_progress, wait=wait)
        await self._check_not_sleeping(call)
        default = self.default_model
        return Ping(
            backend=self.name,
            endpoint=self.endpoint,
            model=models[0].id,
            elapsed=time.monotonic() - started,
            default_model=default,
            default_model_listed=None if default is None else is_listed(default, models),
        )

    async def models(self, *, request_options: RequestOptions | None = None) -> tuple[ModelInfo, ...]:
        """See :meth:`Backend.models`."""
        return await self._list_models(self._connection.begin(request_options), None)

    async def _list_models(
        self, call: CallSettings, on_progress: OnProgress | None, *, wait: bool = True, model: str | None = None
    ) -> tuple[ModelInfo, ...]:
        def list_models() -> Operation[tuple[ModelInfo, ...]]:
            models = yield from self._profile.list_models()
            if call.timeouts.ready is not None:
                raise_if_not_loaded(models, model or self.default_model)
            return models

        retry = call.policy if wait else None
        return await self._connection.probe(list_models, call=call, retry=retry, on_progress=on_progress)

    async def status(self) -> ServerStatus:
        """See :meth:`Backend.status`."""
        launcher = self._connection.launcher
        if launcher is not None and not launcher.running:
            failure = launcher.failure()
            return self._status(
                "unreachable", str(failure) if failure is not None else "not started; the first request starts it"
            )
        timeouts = self._connection.probe_timeouts
        try:
            async with asyncio.timeout(timeouts.total):  # one probe, however many requests it takes
                status = await self._connection.execute(self._profile.status(self.default_model), timeouts=timeouts)
        except BackendError as error:
            return self._status(*state_of_failure(error))
        except TimeoutError:
            return self._status("unreachable", f"no complete response within {timeouts.total:g} s")
        if status.slots is not None:
            self._connection.limiter.set_limit(status.slots)
        return self._fill_status(status)

    def _status(self, state: ServerState, problem: str | None) -> ServerStatus:
        return self._fill_status(ServerStatus(state=state, problem=problem, model=self.default_model))

    def _fill_status(self, status: ServerStatus) -> ServerStatus:
        context = status.context_length or self._settings.context_length
        return attrs.evolve(
            status,
            backend=self.name,
            endpoint=self.endpoint,
            api_path=self._connection.api_path,
            context_length=context,
            shared_context=True if self._connection.shares_context else status.shared_context,
        )

    async def load(
        self,
        model: str | None = None,
        *,
        context_length: int | None = None,
        keep_alive: float | None = None,
        request_options: RequestOptions | None = None,
        on_progress: OnProgress | None = None,
    ) -> None:
        """See :meth:`Backend.load`."""
        if self._profile.load is None:
            raise self._unsupported("load")
        operation = self._profile.load(
            self._model(model),
            context_length=context_length or self._settings.context_length,
            keep_alive=keep_alive if keep_alive is not None else self._load_keep_alive(),
        )
        call = self._connection.begin(request_options)
        await self._connection.execute(operation, call=call, retry=call.policy, on_progress=on_progress)
        self._connection.limiter.invalidate()
        if self._profile.load_is_async:
            await self._list_models(call, on_progress, model=self._model(model))

    def _load_keep_alive(self) -> float | None:
        # If the server accepts keep_alive with each request, loading does not set it.
        return self._settings.keep_alive if self._profile.keep_alive_at is None else None

    async def unload(self, model: str | None = None, *, request_options: RequestOptions | None = None) -> None:
        """See :meth:`Backend.unload`."""
        if self._profile.unload is None:
            raise self._unsupported("unload")
        call = self._connection.begin(request_options)
        await self._connection.execute(self._profile.unload(self._model(model)), call=call, retry=call.policy)

    def _unsupported(self, operation: str) -> BackendError:
        return self._connection.annotate(
            UnsupportedOperationError(
                operation, f"not supported by the type {self.type}: {OPERATION_REASONS[operation]}"
            )
        )

    # --- generation -------------------------------------------------------------------------------

    async def complete(
        self,
        prompt: Prompt = MISSING_PROMPT,
        *,
        request_options: RequestOptions | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[ChatOptions],
    ) -> Completion:
        """See :meth:`Backend.complete`."""
        request = self._request(prompt, options)
        call = self._connection.begin(request_options)
        if self._complete_streams:
            async with self._open_stream(request, call=call, on_progress=on_progress, keep_raw=True) as stream:
                return await stream.get_final_completion()
        if self._profile.prepare is not None:
            await self._connection.prepare(
                request.model, self._build_preparation(request.model), call=call, on_progress=on_progress
            )
        completion = await self._connection.request(
            self._encode(request, stream=False),
            call=call,
            decode=partial(self._codec.decode_chat, requested_model=request.model),
            on_progress=on_progress,
            watch=self._profile.complete_streams,
        )
        if not self._connection.served_model.accepts(request.model, completion.served_model):
            mismatch = await self._connection.served_model.find_mismatch(request.model, completion.served_model)
            if mismatch is not None:
                mismatch.completion = completion
                raise self._connection.annotate(mismatch, call.headers)
        return completion

    def stream(
        self,
        prompt: Prompt = MISSING_PROMPT,
        *,
        request_options: RequestOptions | None = None,
        on_progress: OnProgress | None = None,
        **options: Unpack[ChatOptions],
    ) -> ChatStream:
        """See :meth:`Backend.stream`."""
        request = self._request(prompt, options)
        return self._open_stream(request, call=self._connection.begin(request_options), on_progress=on_progress)

    def _open_stream(
        self, request: ChatRequest, *, call: CallSettings, on_progress: OnProgress | None, keep_raw: bool = False
    ) -> ChatStream:
        return self._connection.stream(
            self._encode(request, stream=True),
            self._codec.stream_decoder(),
            call=call,
            requested_model=request.model,
            prepare=None if self._profile.prepare is None else self._build_preparation(request.model),
            on_progress=on_progress,
            keep_raw=keep_raw,
            may_be_silent=bool(request.tools) or isinstance(request.response_format, JSONSchemaFormat),
        )

    def _build_preparation(self, model: str) -> Callable[[], Operation[None]]:
        assert self._profile.prepare is not None, "called only for a profile with prepare"
        return partial(self._profile.prepare, model, self._settings)

    # --- embeddings and tokens --------------------------------------------------------------------

    async def embed(
        self,
        inputs: str | Sequence[str],
        *,
        model: str | None = None,
        dimensions: int | None = None,
        encoding: VectorEncoding | None = None,
        batch_size: int | None = None,
        request_options: RequestOptions | None = None,
    ) -> Embeddings:
        """See :meth:`Backend.embed`."""
        if self._profile.embed is None:
            raise self._unsupported("embed")
        return await embed(
            self._connection,
            self._profile,
            self._settings,
            [inputs] if isinstance(inputs, str) else list(inputs),
            model=partial(self._model, model),
            dimensions=dimensions,
            encoding=encoding,
            batch_size=batch_size,
            request_options=request_options,
        )

    async def count_tokens(
        self,
        prompt: Conversation,
        *,
        model: str | None = None,
        tools: ToolForms = None,
        response_format: ResponseFormatForm = None,
        request_options: RequestOptions | None = None,
    ) -> int:
        """See :meth:`Backend.count_tokens`."""
        count = self._profile.count_tokens
        if count is None:
            raise self._unsupported("count_tokens")
        request = ChatRequest(
            messages=build_messages(prompt),
            model=self._model(model),
            tools=build_tools(tools),
            response_format=build_response_format(response_format),
        )
        call = self._connection.begin(request_options)
        operation = count(request, self._token_count_table())
        return await self._connection.execute(operation, call=call, retry=call.policy)

    def _token_count_table(self) -> OptionTable:
        # Token counters use the default wire API of the type, whichever API generations use.
        return adapt_table(self._profile.wire_apis[self._profile.wire_api], self._settings)

    async def aclose(self) -> None:
        """See :meth:`Backend.aclose`."""
        await self._connection.aclose()

    # --- the parts of a request -------------------------------------------------------------------

    def _model(self, model: str | None) -> str:
        if model is not None and not isinstance(model, str):
            raise TypeError(f"model must be a string, not {type(model).__name__}")
        chosen = model or self.default_model
        if not chosen:
            raise NoModelError(
                f'no model given: pass model, or set default_model of backend "{self.name}"',
                key="default_model",
                backend=self.name,
            )
        return chosen

    def _request(self, prompt: Prompt, options: ChatOptions) -> ChatRequest:
        model = "" if isinstance(prompt, ChatRequest) else self._model(options.get("model"))
        return build_chat_request(prompt, model, options)

    def _encode(self, request: ChatRequest, *, stream: bool) -> HTTPRequest:
        try:
            return self._codec.encode_chat(request, stream=stream)
        except (UnsupportedOptionError, StrictSchemaError) as error:
            raise self._connection.annotate(error) from error.__cause__
