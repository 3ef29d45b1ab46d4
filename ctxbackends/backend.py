"""What a backend is (the protocol), and the one over HTTP: a profile, a codec, a transport and a policy put together.

The way of a request: ``complete`` -> ``codec.encode`` -> ``policy.call(transport.send)`` -> ``codec.decode``. Knows no
vendor: what differs between servers is a field of the profile or another codec.
"""

from __future__ import annotations

import asyncio
import math
import os
import time
import warnings
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from typing import Protocol, TypeAlias, TypeVar, Unpack, runtime_checkable

import attrs

from ctxbackends.config import BackendConfig, api_key_for
from ctxbackends.errors import (
    APITimeoutError,
    AuthenticationError,
    BackendError,
    EmptyModelListError,
    InvalidEndpointError,
    ModelLoadFailedError,
    ModelLoadingError,
    ModelMismatchError,
    ModelMismatchWarning,
    NoModelError,
    UnsupportedOperationError,
    UnsupportedOptionError,
    redact,
)
from ctxbackends.messages import ChatOptions, ChatRequest, JSONObjectFormat, JSONSchemaFormat, Message
from ctxbackends.profiles import Profile
from ctxbackends.retry import OnProgress, RetryPolicy
from ctxbackends.stream import ChatStream, StreamLimits, timeout_key
from ctxbackends.transport import ByteStream, Limits, Transport
from ctxbackends.types import Completion, Embeddings, ModelInfo, Ping
from ctxbackends.wire.http import HTTPRequest, HTTPResponse
from ctxbackends.wire.status import error_from

T = TypeVar("T")
Prompt: TypeAlias = str | Message | Sequence[Message] | ChatRequest
"""A user's text, one message, a conversation, or a whole request."""

CONTROL_TIMEOUT = 30.0
PROBE_TIMEOUT = 5.0


@runtime_checkable
class Backend(Protocol):
    """One model server, whatever it is. Implementations are safe for any number of tasks at once."""

    name: str
    type: str
    default_model: str | None

    @property
    def endpoint(self) -> str: ...

    async def wait_ready(self, *, on_progress: OnProgress | None = None) -> None:
        """Return when the server can answer. Waits through a cold start where the type has one; raises the last error
        when its budget ends."""
        ...

    async def ping(self, *, wait: bool = True, on_progress: OnProgress | None = None) -> Ping:
        """The first model that the server lists. ``wait=False`` does not wait for a cold start."""
        ...

    async def models(self) -> tuple[ModelInfo, ...]:
        """The models that the server lists, at least one (EmptyModelListError)."""
        ...

    async def complete(
        self, prompt: Prompt, *, on_progress: OnProgress | None = None, **options: Unpack[ChatOptions]
    ) -> Completion:
        """One whole answer, or an error; never a part of one. ``on_progress`` is told what a wait for a cold start
        sees."""
        ...

    def stream(
        self, prompt: Prompt, *, on_progress: OnProgress | None = None, **options: Unpack[ChatOptions]
    ) -> ChatStream:
        """One answer as it is written. Nothing is sent before the ``async with``."""
        ...

    async def embed(
        self, inputs: str | Sequence[str], *, model: str | None = None, dimensions: int | None = None
    ) -> Embeddings:
        """One vector for each text, in their order."""
        ...

    async def aclose(self) -> None:
        """Release what belongs to this backend alone (a server that it started). The session belongs to the
        registry."""
        ...


class Launcher(Protocol):
    """A server that is started on first use."""

    @property
    def description(self) -> str: ...

    async def start(self) -> str:
        """Start it where it does not run, and return its base URL. Called before every request."""
        ...

    def failure(self) -> BackendError | None:
        """Why it has ended, when it has ended by itself."""
        ...

    async def aclose(self) -> None: ...


class HTTPBackend:
    """A backend over HTTP. ``environ`` is where the API key is looked up."""

    def __init__(
        self,
        config: BackendConfig,
        *,
        profile: Profile,
        transport: Transport,
        launcher: Launcher | None = None,
        environ: Mapping[str, str] = os.environ,
    ) -> None:
        self.name = config.name
        self.type = config.type
        self.default_model = config.default_model
        self._profile = profile
        self._codec = profile.codec()
        self._transport = transport
        self._launcher = launcher
        endpoint = config.endpoint or profile.default_endpoint
        if launcher is None and endpoint is None:
            raise InvalidEndpointError(
                f"a backend of type {config.type} needs an endpoint", key="endpoint", backend=config.name
            )
        self._base_url = "" if launcher is not None or endpoint is None else endpoint
        found = api_key_for(config, profile, environ)
        self._key = found[0] if found is not None else None
        self._key_source = found[1] if found is not None else None
        self._headers: dict[str, str] = {"Content-Type": "application/json"}
        if self._key is not None:
            self._headers.update(self._codec.auth_headers(self._key))
        self._stream_headers = {**self._headers, **({"Connection": "close"} if profile.close_after_stream else {})}
        self._connect_timeout = _first(config.connect_timeout, profile.connect_timeout)
        self._limits = StreamLimits(
            first_token=_first(config.first_token_timeout, profile.first_token_timeout),
            idle=_first(config.idle_timeout, profile.idle_timeout),
            total=_first(config.timeout, profile.timeout),
        )
        self._ready_timeout = _first(config.ready_timeout, profile.ready_timeout) or None
        self._model_mismatch = config.model_mismatch or profile.model_mismatch
        self._policy = RetryPolicy(
            endpoint=self.endpoint,
            ready_timeout=self._ready_timeout,
            liveness=launcher.failure if launcher else _no_failure,
        )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r} ({self.type}) at {self.endpoint}>"

    @property
    def endpoint(self) -> str:
        """The base URL; before a server that this backend starts itself has one, what it will serve."""
        return self._base_url or (self._launcher.description if self._launcher else "")

    # --- what is it, and is it there --------------------------------------------------------------

    async def wait_ready(self, *, on_progress: OnProgress | None = None) -> None:
        with suppress(EmptyModelListError):  # it answers, which is what was asked
            await self._list_models(self._policy, on_progress)

    async def ping(self, *, wait: bool = True, on_progress: OnProgress | None = None) -> Ping:
        started = time.monotonic()
        models = await self._list_models(
            self._policy if wait else attrs.evolve(self._policy, ready_timeout=None, transient_attempts=1), on_progress
        )
        return Ping(backend=self.name, endpoint=self.endpoint, model=models[0].id, elapsed=time.monotonic() - started)

    async def models(self) -> tuple[ModelInfo, ...]:
        return await self._list_models(self._policy, None)

    async def _list_models(self, policy: RetryPolicy, on_progress: OnProgress | None) -> tuple[ModelInfo, ...]:
        request = self._codec.encode_models()
        limits = self._listing_limits()

        async def attempt() -> tuple[ModelInfo, ...]:
            models = self._codec.decode_models(await self._send(request, limits))
            if self._ready_timeout is not None:
                self._refuse_unloaded(models)
            return models

        return await self._call(policy, attempt, probe=True, on_progress=on_progress)

    def _refuse_unloaded(self, models: Sequence[ModelInfo]) -> None:
        """A llama-server router answers at once, and says of each model whether it is loaded."""
        wanted = next((model for model in models if self.default_model in (model.id, *model.aliases)), None)
        if wanted is None or wanted.state is None:
            return
        if wanted.state == "loading":
            raise ModelLoadingError(200, body=f"the model {wanted.id} is loading".encode(), message="Loading model")
        if wanted.state == "failed":
            raise ModelLoadFailedError(
                200, body=f"the model {wanted.id} failed to load".encode(), message="failed to load"
            )

    # --- generation -------------------------------------------------------------------------------

    async def complete(
        self, prompt: Prompt, *, on_progress: OnProgress | None = None, **options: Unpack[ChatOptions]
    ) -> Completion:
        request = self._chat_request(prompt, options)
        if self._profile.complete_streams:
            async with self._open_stream(request, on_progress=on_progress, keep_raw=True) as stream:
                return await stream.completed()
        encoded = self._codec.encode_chat(request, stream=False)
        limits = self._plain_limits()

        async def attempt() -> Completion:
            return self._codec.decode_chat(await self._send(encoded, limits), requested_model=request.model)

        completion = await self._call(self._policy, attempt, on_progress=on_progress)
        if completion.served_model is not None:
            self._check_model(request.model, completion.served_model)
        return completion

    def stream(
        self, prompt: Prompt, *, on_progress: OnProgress | None = None, **options: Unpack[ChatOptions]
    ) -> ChatStream:
        return self._open_stream(self._chat_request(prompt, options), on_progress=on_progress)

    def _open_stream(
        self, request: ChatRequest, *, on_progress: OnProgress | None, keep_raw: bool = False
    ) -> ChatStream:
        encoded = self._codec.encode_chat(request, stream=True)
        limits = Limits(connect=self._connect_timeout)
        until_headers = _shortest(("first_token", self._limits.first_token), ("total", self._limits.total))

        async def attempt() -> ByteStream:
            url = await self._url(encoded)
            try:
                async with asyncio.timeout(until_headers[1]):
                    opened = await self._transport.open(url, encoded, headers=self._stream_headers, limits=limits)
            except BackendError:
                raise
            except TimeoutError as error:
                phase, limit = until_headers
                raise APITimeoutError(phase, limit or 0.0, key=timeout_key(phase)) from error
            if isinstance(opened, HTTPResponse):
                raise error_from(opened)
            return opened

        async def open_body(sent: Callable[[], None]) -> ByteStream:
            async def timed() -> ByteStream:
                sent()
                return await attempt()

            return await self._call(self._policy, timed, on_progress=on_progress)

        return ChatStream(
            open_body,
            self._codec.stream_decoder(),
            requested_model=request.model,
            limits=self._limits,
            check_model=lambda served: self._check_model(request.model, served),
            explain=self._explain,
            pooled=not self._profile.close_after_stream,
            keep_raw=keep_raw,
        )

    async def embed(
        self, inputs: str | Sequence[str], *, model: str | None = None, dimensions: int | None = None
    ) -> Embeddings:
        if not self._profile.supports_embeddings:
            raise UnsupportedOperationError("embed", f"a backend of type {self.type} has no embeddings")
        texts = [inputs] if isinstance(inputs, str) else list(inputs)
        if not texts:
            raise ValueError("embed() needs at least one text")
        requested = self._model(model)
        encoded = self._codec.encode_embeddings(texts, model=requested, dimensions=dimensions)
        limits = self._plain_limits()

        async def attempt() -> Embeddings:
            return self._codec.decode_embeddings(
                await self._send(encoded, limits), requested_model=requested, count=len(texts)
            )

        embeddings = await self._call(self._policy, attempt)
        if embeddings.served_model is not None:
            self._check_model(requested, embeddings.served_model)
        return embeddings

    async def aclose(self) -> None:
        if self._launcher is not None:
            await self._launcher.aclose()

    # --- the parts of a request -------------------------------------------------------------------

    def _model(self, model: str | None) -> str:
        chosen = model or self.default_model
        if not chosen:
            raise NoModelError(
                f'no model is named in the request, and the backend "{self.name}" has no default_model',
                key="default_model",
                backend=self.name,
            )
        return chosen

    def _chat_request(self, prompt: Prompt, options: ChatOptions) -> ChatRequest:
        if isinstance(prompt, ChatRequest):
            if options:
                raise TypeError("a ChatRequest holds its options; pass no others")
            request = prompt
        else:
            fields = {name: value for name, value in options.items() if name not in ("model", "stop_sequences")}
            request = ChatRequest(
                messages=_messages(prompt),
                model=self._model(options.get("model")),
                stop_sequences=tuple(options.get("stop_sequences") or ()),
                **fields,  # type: ignore[arg-type]  # ChatOptions and ChatRequest have the same fields; a test holds them together
            )
        if request.max_tokens is not None and request.max_tokens < 1:
            raise ValueError(f"max_tokens is {request.max_tokens}; it must be 1 or more")
        for name in ("temperature", "top_p"):
            value = getattr(request, name)
            if value is not None and not math.isfinite(value):
                raise ValueError(f"{name} is {value}; it must be a finite number")
        self._refuse_ignored(request)
        return request

    def _refuse_ignored(self, request: ChatRequest) -> None:
        """Raise for options that this server would ignore, before anything is sent."""
        used = [
            name
            for name in ("max_tokens", "temperature", "top_p", "seed", "extra_body")
            if getattr(request, name) is not None
        ]
        if request.stop_sequences:
            used.append("stop_sequences")
        if isinstance(request.response_format, JSONSchemaFormat):
            used.append("response_format: json_schema")
        elif isinstance(request.response_format, JSONObjectFormat):
            used.append("response_format: json_object")
        for option in used:
            if option in self._profile.ignored_options:
                raise self._explain(UnsupportedOptionError(option, self._profile.ignored_options[option]))
        highest = self._profile.max_temperature
        if highest is not None and request.temperature is not None and request.temperature > highest:
            raise self._explain(
                UnsupportedOptionError(
                    "temperature", f"this server lowers {request.temperature:g} to {highest:g} silently"
                )
            )

    def _check_model(self, requested: str, served: str) -> None:
        if self._model_mismatch == "ignore" or same_model(requested, served):
            return
        error = ModelMismatchError(requested, served)
        if self._model_mismatch == "error":
            raise self._explain(error)
        warnings.warn(str(self._explain(error)), ModelMismatchWarning, stacklevel=2)

    def _listing_limits(self) -> Limits:
        """For the model list, which costs a server nothing: shorter than for an answer. At a server that starts, each
        look is short, and the whole wait is ``ready_timeout``."""
        connect, total = self._connect_timeout, self._limits.total
        if self._ready_timeout is not None:
            return Limits(connect=connect, total=min(PROBE_TIMEOUT, self._ready_timeout), total_key="ready_timeout")
        if total is not None and total <= CONTROL_TIMEOUT:
            return Limits(connect=connect, total=total)
        return Limits(connect=connect, total=CONTROL_TIMEOUT, total_key=None)

    def _plain_limits(self) -> Limits:
        """For an answer that comes in one piece: without a total limit, the limit of the first token holds for it."""
        if self._limits.total is not None:
            return Limits(connect=self._connect_timeout, total=self._limits.total)
        return Limits(connect=self._connect_timeout, total=self._limits.first_token, total_key="first_token_timeout")

    async def _url(self, request: HTTPRequest) -> str:
        if self._launcher is not None:
            self._base_url = await self._launcher.start()
        return self._base_url + request.path

    async def _send(self, request: HTTPRequest, limits: Limits) -> HTTPResponse:
        response = await self._transport.send(await self._url(request), request, headers=self._headers, limits=limits)
        if 200 <= response.status < 300:
            return response
        raise error_from(response)

    async def _call(
        self,
        policy: RetryPolicy,
        attempt: Callable[[], Awaitable[T]],
        *,
        probe: bool = False,
        on_progress: OnProgress | None = None,
    ) -> T:
        try:
            return await policy.call(attempt, probe=probe, on_progress=on_progress)
        except BackendError as error:
            raise self._explain(error) from error.__cause__

    def _explain(self, error: BackendError) -> BackendError:
        """Put in what only the backend knows, and take out what nobody may see."""
        error.backend = error.backend or self.name
        error.endpoint = error.endpoint or self.endpoint
        if isinstance(error, AuthenticationError):
            error.key_source = self._key_source
        if self._key is not None:
            redact(error, self._key)
        return error


def same_model(requested: str, served: str) -> bool:
    """Whether ``served`` is ``requested``, or one of the names that servers give the same model.

    A dated snapshot of an alias (``gpt-4o`` -> ``gpt-4o-2024-08-06``, ``...-20251001``), Ollama's implied tag
    (``:latest``), and the file that llama-server was started with (``/models/qwen3-4b.gguf`` for ``qwen3-4b``).
    """
    if requested == served:
        return True
    digits = served.removeprefix(f"{requested}-").replace("-", "")
    if (
        served.startswith(f"{requested}-") and digits.isdigit() and len(digits) >= 4
    ):  # gpt-4-0613, -2024-08-06, -20251001
        return True
    if f"{requested}:latest" == served:
        return True
    return served.endswith(".gguf") and _stem(served) == _stem(requested)


def _stem(model: str) -> str:
    return model.replace("\\", "/").rpartition("/")[2].removesuffix(".gguf")


def _messages(prompt: str | Message | Sequence[Message]) -> tuple[Message, ...]:
    if isinstance(prompt, str):
        return (Message.user(prompt),)
    if isinstance(prompt, Message):
        return (prompt,)
    messages = tuple(prompt)
    if not messages or not all(isinstance(message, Message) for message in messages):
        raise TypeError("a prompt is a text, a Message, or a non-empty sequence of Message")
    return messages


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _shortest(*phases: tuple[str, float | None]) -> tuple[str, float | None]:
    limited = [(limit, name) for name, limit in phases if limit is not None]
    if not limited:
        return phases[0]
    limit, name = min(limited)
    return name, limit


def _no_failure() -> BackendError | None:
    return None
