"""The connection to one server: generations, streams and operations, and which of them are retried.

``request`` and ``stream`` send a generation. ``execute`` runs an operation: it sends each request that the operation
yields, and passes the response or the error back. ``retry`` is the policy of their retries, None for no retry. Knows no
wire format.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from ctxbackends._chat.events import OnProgress
from ctxbackends._client.call_settings import CallSettings
from ctxbackends._client.concurrency import Limiter
from ctxbackends._client.keyed_lock import KeyedLock
from ctxbackends._client.launcher import Launcher
from ctxbackends._client.request_headers import CallHeaders
from ctxbackends._client.retry import RetryPolicy
from ctxbackends._client.sender import RequestSender
from ctxbackends._client.served_model import ServedModelCheck
from ctxbackends._client.stream import ChatStream
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.request_options import RequestOptions
from ctxbackends._config.served_as import normalise_served_as
from ctxbackends._http.body import ByteStream
from ctxbackends._http.transport import RequestTimeouts, Transport
from ctxbackends._profiles.profile import Profile
from ctxbackends._util.secrets import ENVIRONMENT
from ctxbackends._wire.base import Codec, HTTPRequest, HTTPResponse, Operation, StreamDecoder
from ctxbackends.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BackendError,
    ClosedError,
    ContextOverflowError,
    ModelLoadingError,
    ModelMismatchError,
    NotFoundError,
    ResponseError,
    StreamInterruptedError,
)

T = TypeVar("T")


class ConnectionSource:
    """Opens the request of one stream over the connection, see StreamSource."""

    __slots__ = ("_body", "_call", "_connection", "_model", "_prepare", "_request", "_route", "_sender", "_started")

    def __init__(
        self,
        connection: ServerConnection,
        sender: RequestSender,
        request: HTTPRequest,
        model: str,
        prepare: Callable[[], Operation[None]] | None,
        call: CallSettings,
    ) -> None:
        self._connection = connection
        self._sender = sender
        self._request: HTTPRequest | None = request
        self._route = (request.method, request.path)
        self._model = model
        self._prepare = prepare
        self._call = call
        self._started = time.monotonic()
        self._body: ByteStream | None = None

    @property
    def can_open_immediately(self) -> bool:
        return self._prepare is None

    @property
    def is_closed(self) -> bool:
        return self._sender.is_closed

    async def open(self) -> ByteStream:
        assert self._request is not None, "a stream is opened once"
        self._connection.check_accepts_requests()
        self._started = time.monotonic()
        return self._begin(await self._sender.open(self._request, call=self._call))

    async def reopen(self, error: BackendError | None, *, on_progress: OnProgress) -> ByteStream:
        request, connection, call = self._request, self._connection, self._call
        assert request is not None, "a stream is opened once"
        if error is None:
            connection.check_accepts_requests()
        if self._prepare is not None:
            await connection.prepare(self._model, self._prepare, call=call, on_progress=on_progress)
        attempt = functools.partial(self._sender.open, request, call=call)
        del request
        if error is None:
            body = await connection.attempt(attempt, retry=call.policy, headers=call.headers, on_progress=on_progress)
        else:
            body = await connection.recover(
                attempt,
                error,
                started=self._started,
                retry=call.policy,
                headers=call.headers,
                on_progress=on_progress,
            )
        return self._begin(body)

    def _begin(self, body: ByteStream) -> ByteStream:
        self._request = None  # a long prompt must not stay in memory while its response is streamed
        self._body = body
        return body

    def close(self) -> None:
        if self._body is not None:
            self._body.close()

    def accepts_model(self, served: str) -> bool:
        return self._connection.served_model.accepts(self._model, served)

    async def find_mismatch(self, served: str) -> ModelMismatchError | None:
        return await self._connection.served_model.find_mismatch(self._model, served)

    def annotate(self, error: BackendError) -> BackendError:
        self._sender.name_route(error, *self._route)
        return self._connection.annotate(error, self._call.headers)


class ServerConnection:
    """The connection of one backend to its server. ``environ`` is searched for the API key."""

    sender_class: type[RequestSender] = RequestSender
    source_class: type[ConnectionSource] = ConnectionSource
    stream_class: type[ChatStream] = ChatStream

    def __init__(
        self,
        config: BackendConfig,
        *,
        profile: Profile,
        codec: Codec,
        transport: Transport,
        launcher: Launcher | None,
        environ: Mapping[str, str] = ENVIRONMENT,
    ) -> None:
        slots = profile.slots
        probe = None if slots is None else lambda: self._probe_slots(slots(config.default_model))
        self.launcher = launcher
        self.limiter: Limiter = Limiter(config.max_concurrency, probe=probe)
        self._sender = self.sender_class(
            config,
            profile=profile,
            codec=codec,
            transport=transport,
            launcher=launcher,
            limiter=self.limiter,
            environ=environ,
        )
        self.shares_context: bool = launcher is not None and launcher.shares_context
        self._pooled = not profile.close_after_stream
        self.served_model: ServedModelCheck = ServedModelCheck(
            policy=config.model_mismatch or profile.model_mismatch,
            served_as=normalise_served_as(config.served_as) if config.served_as is not None else {},
            list_models=lambda: self.execute(profile.list_models(), timeouts=self.probe_timeouts),
            annotate=self.annotate,
        )
        self._preparing: KeyedLock[str] = KeyedLock()
        self._transport = self._sender.transport
        self._own_transport = transport if transport.closes_with_backend else None
        self.defaults: CallSettings = self._sender.defaults
        self.probe_timeouts: RequestTimeouts = self.defaults.timeouts.probe

    @property
    def endpoint(self) -> str:
        """The base URL, or a description of a server that is not started yet."""
        return self._sender.endpoint

    @property
    def api_path(self) -> str | None:
        """The path between the endpoint and a route of the API; None for a server that the SDK starts."""
        return self._sender.api_path if self.launcher is None else None

    def shares_account(self, other: ServerConnection) -> bool:
        """Return whether both send to the same host and port with the same key."""
        return self._sender.account == other._sender.account

    def begin(self, options: RequestOptions | None = None) -> CallSettings:
        """Return the settings of a new call.

        Raises:
            ClosedError: The registry is draining.
            TypeError: ``options`` are not RequestOptions.
            ConfigError: A header cannot be used.
        """
        self.check_accepts_requests()
        return self.defaults if options is None else self._sender.calls.get(options)

    def check_accepts_requests(self) -> None:
        """Raise ClosedError if the registry is draining."""
        if self._transport.is_draining:
            raise self.annotate(ClosedError("the registry is draining and takes no new requests; open a new one"))

    async def aclose(self) -> None:
        """Stop the server if the SDK started it, and close a transport that no other backend uses."""
        try:
            if self._own_transport is not None:
                await self._own_transport.aclose()
        finally:
            if self.launcher is not None:
                await self.launcher.aclose()

    async def in_flight(self, call: Callable[[], Awaitable[T]]) -> T:
        """Return the result of a call of several requests, which a drain waits for and a close ends."""
        try:
            with self._sender.cancel_on_close():
                return await call()
        except ClosedError as error:
            raise self.annotate(error) from None

    def annotate(self, error: BackendError, headers: CallHeaders | None = None) -> BackendError:
        """Add the backend, the endpoint and the source of the key to ``error``, and remove the API key.

        The secrets in the ``headers`` of the call are removed too.
        """
        overflow = error.__cause__ if isinstance(error, StreamInterruptedError) else error
        if isinstance(overflow, ContextOverflowError) and overflow.shared_context:
            self.shares_context = True
        return self._sender.annotate(error, headers)

    async def request(
        self,
        request: HTTPRequest,
        *,
        call: CallSettings,
        decode: Callable[[HTTPResponse], T],
        on_progress: OnProgress | None = None,
        watch: bool = False,
    ) -> T:
        """Send a generation and return its decoded response. An error of ``decode`` is never retried.

        With ``watch``, the request also fails if the server refuses connections while the response is awaited.
        """
        attempt = functools.partial(
            self._sender.send,
            request,
            call.timeouts.request,
            call=call,
            auth="chat",
            acquire_slot=True,
            watch=watch,
        )
        response = await self.attempt(attempt, retry=call.policy, headers=call.headers, on_progress=on_progress)
        try:
            return decode(response)
        except BackendError as error:
            self._sender.name_route(error, request.method, request.path)
            raise self.annotate(error, call.headers) from error.__cause__

    def stream(
        self,
        request: HTTPRequest,
        decoder: StreamDecoder,
        *,
        call: CallSettings,
        requested_model: str,
        prepare: Callable[[], Operation[None]] | None,
        on_progress: OnProgress | None,
        keep_raw: bool,
        may_be_silent: bool = False,
    ) -> ChatStream:
        """Return a stream that sends ``request`` when it is entered, after the operation of ``prepare``.

        ``may_be_silent`` means that the server may generate a whole tool call or object before it sends it.
        """
        return self.stream_class(
            self.source_class(self, self._sender, request, requested_model, prepare, call),
            decoder,
            requested_model=requested_model,
            timeouts=call.timeouts.silent_stream if may_be_silent else call.timeouts.stream,
            on_progress=on_progress,
            pooled=self._pooled,
            keep_raw=keep_raw,
        )

    async def execute(
        self,
        operation: Operation[T],
        *,
        call: CallSettings | None = None,
        timeouts: RequestTimeouts | None = None,
        acquire_slot: bool = False,
        retry: RetryPolicy | None = None,
        on_progress: OnProgress | None = None,
    ) -> T:
        """Run ``operation`` and return its result. ``retry`` applies to each of its requests."""
        call = call or self.defaults
        timeouts = timeouts or call.timeouts.request
        request: HTTPRequest | None = None
        try:
            request = next(operation)
            while True:
                attempt = functools.partial(self._sender.send, request, timeouts, call=call, acquire_slot=acquire_slot)
                try:
                    response = await self.attempt(attempt, retry=retry, headers=call.headers, on_progress=on_progress)
                except BackendError as error:
                    request = operation.throw(error)
                else:
                    request = operation.send(response)
        except StopIteration as end:
            result: T = end.value
            return result
        except BackendError as error:
            if request is not None:
                self._sender.name_route(error, request.method, request.path)
            raise self.annotate(error, call.headers) from error.__cause__

    async def probe(
        self,
        operation: Callable[[], Operation[T]],
        *,
        call: CallSettings,
        retry: RetryPolicy | None,
        on_progress: OnProgress | None = None,
    ) -> T:
        """Run an operation that changes nothing on the server, and return its result.

        It is retried as a whole, also if the server does not respond.
        """

        async def attempt() -> T:
            return await self.execute(operation(), call=call, timeouts=call.timeouts.list)

        return await self.attempt(attempt, retry=retry, headers=call.headers, probe=True, on_progress=on_progress)

    async def prepare(
        self,
        model: str,
        operation: Callable[[], Operation[None]],
        *,
        call: CallSettings,
        on_progress: OnProgress | None,
    ) -> None:
        """Run the operation that precedes each generation, for one task at a time.

        It runs each time, since the server may have unloaded the model.
        """
        self._sender.check()
        async with self._preparing.acquire(model):
            await self.execute(operation(), call=call, retry=call.policy, on_progress=on_progress)

    async def attempt(
        self,
        attempt: Callable[[], Awaitable[T]],
        *,
        retry: RetryPolicy | None,
        headers: CallHeaders | None = None,
        probe: bool = False,
        on_progress: OnProgress | None = None,
    ) -> T:
        """Call ``attempt``, and :meth:`recover` from its failure."""
        started = time.monotonic()
        try:
            return await attempt()
        except BackendError as error:
            return await self.recover(
                attempt, error, started=started, retry=retry, headers=headers, probe=probe, on_progress=on_progress
            )

    async def recover(
        self,
        attempt: Callable[[], Awaitable[T]],
        error: BackendError,
        *,
        started: float,
        retry: RetryPolicy | None,
        headers: CallHeaders | None = None,
        probe: bool = False,
        on_progress: OnProgress | None = None,
    ) -> T:
        """Retry ``attempt`` after ``error``, or raise the last error, annotated."""
        try:
            if retry is None:
                raise error
            with self._sender.cancel_on_close():
                return await retry.retry(attempt, error, started=started, probe=probe, on_progress=on_progress)
        except BackendError as latest:
            raise self.annotate(latest, headers) from latest.__cause__

    async def _probe_slots(self, slots: Operation[int | None]) -> int | None:
        """Return the number of slots of the server.

        Raise only errors before the generation is sent: connection refused, or the model is loading. The generation
        raises all others.
        """
        try:
            return await self.execute(slots, timeouts=self.probe_timeouts)
        except ModelLoadingError:
            raise
        except (NotFoundError, AuthenticationError, ResponseError):
            return None
        except APIConnectionError as error:
            if not error.sent:
                raise
            return 0
        except (APITimeoutError, APIStatusError):
            return 0
