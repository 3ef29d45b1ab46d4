"""The backend of a registry with observers. Without observers, none of this is used, or imported."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any, Self, Unpack
from urllib.parse import urlsplit

from ctxbackends._chat.events import OnProgress
from ctxbackends._chat.observer import ObservedOperation, RequestContent, ServerAddress
from ctxbackends._chat.requests import ChatOptions, ChatRequest, NamedTool
from ctxbackends._chat.responses import Completion, Embeddings
from ctxbackends._client.connection import ConnectionSource, ServerConnection
from ctxbackends._client.http_backend import HTTPBackend
from ctxbackends._client.observation import Observation, current_observation, detach
from ctxbackends._client.prompts import MISSING_PROMPT, Prompt
from ctxbackends._client.sender import RequestSender
from ctxbackends._client.stream import ChatStream
from ctxbackends._client.stream_source import Body
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.request_options import RequestOptions
from ctxbackends._http.body import ByteStream
from ctxbackends._http.transport import Transport
from ctxbackends._wire.base import HTTPResponse
from ctxbackends.errors import BackendError

_DEFAULT_PORTS = {"http": 80, "https": 443}
_NOT_SHOWN = frozenset({"messages", "model", "tools", "tool_choice", "response_format", "extra_body"})
_PLAIN_OPTIONS = tuple(name for name in ChatRequest.__struct_fields__ if name not in _NOT_SHOWN)


class ObservedSender(RequestSender):
    """Reports each attempt and each wait for a slot."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.on_attempt = self._report_attempt

    def _report_attempt(self, has_slot: bool) -> None:
        observation = current_observation()
        # A generation's own request takes a slot; others with it are probes, lists and preparations.
        if observation is not None and (has_slot or observation.is_only_control):
            observation.report_attempt(observation.facts.server or split_endpoint(self.endpoint))

    async def send(self, *args: Any, **options: Any) -> HTTPResponse:
        """See :meth:`RequestSender.send`."""
        observation = current_observation()
        if observation is None:
            return await super().send(*args, **options)
        with observation.sending():
            return await super().send(*args, **options)

    async def open(self, *args: Any, **options: Any) -> ByteStream:
        """See :meth:`RequestSender.open`."""
        observation = current_observation()
        assert observation is not None, "a stream is opened by its source"
        with observation.sending():
            return await super().open(*args, **options)

    async def _acquire_slot(self, on_wait: Any = None) -> Any:
        observation = current_observation()
        return await super()._acquire_slot(on_wait if observation is None else observation.report_queue)


class ObservedSource(ConnectionSource):
    """Works for the observation of its stream, in whichever task opens it."""

    __slots__ = ("observation",)

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        observation = current_observation()
        assert observation is not None, "a stream is created by ObservedBackend"
        self.observation = observation

    async def open(self) -> ByteStream:
        """See :meth:`ConnectionSource.open`."""
        with self.observation.work():
            try:
                return await super().open()
            except BackendError:
                raise  # may be retried
            except Exception as error:
                self.observation.fail_or_leave(error)
                raise

    async def reopen(self, error: BackendError | None, *, on_progress: OnProgress) -> ByteStream:
        """See :meth:`ConnectionSource.reopen`."""
        with self.observation.work():
            try:
                return await super().reopen(error, on_progress=on_progress)
            except Exception as latest:
                self.observation.fail_or_leave(latest)
                raise


class ObservedStream(ChatStream):
    """Reports the first event, the model and the end. Works once a stream, not once an event."""

    __slots__ = ("_observation",)

    def __init__(self, source: ObservedSource, *args: Any, **options: Any) -> None:
        super().__init__(source, *args, **options)
        self._observation = source.observation

    async def __aenter__(self) -> Self:
        if not self._entered and not self._closed:
            self._observation.start()
        return await super().__aenter__()

    def _begin_answer(self, loop: asyncio.AbstractEventLoop) -> None:
        super()._begin_answer(loop)
        self._observation.report_first_event()

    async def _check_model(self, served: str, body: Body, loop: asyncio.AbstractEventLoop) -> None:
        self._observation.report_served(served, self._decoder.response_id)
        await super()._check_model(served, body, loop)

    async def _finish(self, body: Body) -> None:
        try:
            await super()._finish(body)
        finally:
            if self._completion is not None:
                self._observation.finish(self._completion)

    def _close(self) -> None:
        super()._close()
        if self._entered:
            self._observation.fail_or_leave(self._error)


class ChunkObservedStream(ObservedStream):
    """Notes also when each chunk with events arrived."""

    __slots__ = ()

    def _decode(self, data: bytes) -> Any:
        events = super()._decode(data)
        if events and (times := self._observation.chunk_times) is not None:
            times.append(time.monotonic())
        return events


class ObservedConnection(ServerConnection):
    """A connection with the observed classes."""

    sender_class = ObservedSender
    source_class = ObservedSource
    stream_class = ObservedStream


class ChunkObservedConnection(ObservedConnection):
    """A connection whose streams note the time of each chunk."""

    stream_class = ChunkObservedStream


class ObservedBackend(HTTPBackend):
    """A backend that reports its chat requests, embeddings, token counts and model loads to observers."""

    def __init__(self, config: BackendConfig, *, transport: Transport, **options: Any) -> None:
        self._observers = transport.observers
        if any(observer.chunk_times for observer in self._observers):
            self.connection_class = ChunkObservedConnection
        else:
            self.connection_class = ObservedConnection
        super().__init__(config, transport=transport, **options)

    def _observe(
        self,
        operation: ObservedOperation,
        model: str | None,
        *,
        stream: bool = False,
        content: RequestContent | None = None,
        options: Mapping[str, Any],
    ) -> Observation:
        return Observation(
            self._observers,
            content=content,
            operation=operation,
            backend=self.name,
            type=str(self.type),
            model=model or self.default_model,
            server=split_endpoint(self.endpoint),
            stream=stream,
            options={name: value for name, value in options.items() if value is not None and name != "request_options"},
        )

    def _observe_chat(self, request: ChatRequest, *, stream: bool) -> Observation:
        content = RequestContent(messages=request.messages, tools=request.tools)
        return self._observe("chat", request.model, stream=stream, content=content, options=_describe_options(request))

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
        with self._observe_chat(request, stream=False) as observation:
            completion = await super().complete(
                request, request_options=request_options, on_progress=detach(on_progress)
            )
            observation.finish(completion)
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
        observation = self._observe_chat(request, stream=True)
        with observation.work():
            try:
                return super().stream(request, request_options=request_options, on_progress=detach(on_progress))
            except Exception as error:
                observation.start()
                observation.fail_or_leave(error)
                raise

    async def embed(self, inputs: str | Sequence[str], *, model: str | None = None, **options: Any) -> Embeddings:
        """See :meth:`Backend.embed`."""
        with self._observe("embeddings", model, options=options) as observation:
            embeddings = await super().embed(inputs, model=model, **options)
            observation.finish(usage=embeddings.usage, served_model=embeddings.served_model)
            return embeddings

    async def count_tokens(self, prompt: Any, *, model: str | None = None, **options: Any) -> int:
        """See :meth:`Backend.count_tokens`."""
        with self._observe("count_tokens", model, options={}) as observation:
            count = await super().count_tokens(prompt, model=model, **options)
            observation.finish()
            return count

    async def load(self, model: str | None = None, *, on_progress: OnProgress | None = None, **options: Any) -> None:
        """See :meth:`Backend.load`."""
        with self._observe("load", model, options=options) as observation:
            await super().load(model, on_progress=detach(on_progress), **options)
            observation.finish()


def split_endpoint(endpoint: str) -> ServerAddress | None:
    parts = urlsplit(endpoint)
    if parts.scheme not in _DEFAULT_PORTS or parts.hostname is None:
        return None  # the description of a local server that is not started yet
    return ServerAddress(
        scheme=parts.scheme,
        host=parts.hostname,
        port=parts.port or _DEFAULT_PORTS[parts.scheme],
        path=parts.path.rstrip("/"),
    )


def _describe_options(request: ChatRequest) -> dict[str, Any]:
    """Return the options of ``request`` without content: the tools and the format are only named."""
    choice = request.tool_choice
    return {
        **{name: getattr(request, name) for name in _PLAIN_OPTIONS},
        "stop_sequences": request.stop_sequences or None,
        "tools": tuple(tool.name for tool in request.tools) or None,
        "tool_choice": choice.name if isinstance(choice, NamedTool) else choice,
        "response_format": None if request.response_format is None else type(request.response_format).__name__,
    }
