"""The way to one server: its URL, headers, limits and retries, and its errors with what only this side knows. Knows no
wire format and no operation.

``run`` drives the steps of an operation: each request that they yield goes out, and its answer or its error goes back
into them.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, Protocol, TypeVar
from urllib.parse import urlsplit

import attrs

from ctxbackends.aiohttp_body import ByteStream
from ctxbackends.aiohttp_errors import without_frames
from ctxbackends.config import BackendConfig, api_key_for
from ctxbackends.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BackendError,
    ConfigError,
    InvalidEndpointError,
    ModelLoadingError,
    NotFoundError,
    ResponseError,
    redact,
)
from ctxbackends.limiter import Limiter, Release
from ctxbackends.masked import ENVIRONMENT, MaskedHeaders, Secret
from ctxbackends.network import DIRECT, CheckedHeaders, Route, check_endpoint, is_local, proxied
from ctxbackends.profiles import Profile
from ctxbackends.retry import RetryPolicy
from ctxbackends.stream import StreamLimits, timeout_key
from ctxbackends.tls import tls_context
from ctxbackends.transport import Limits, Transport
from ctxbackends.types import OnProgress
from ctxbackends.wire.http import Codec, HTTPRequest, HTTPResponse, Operation
from ctxbackends.wire.status import error_from_response

T = TypeVar("T")

CONTROL_TIMEOUT = 30.0
PROBE_TIMEOUT = 5.0
DEATH_KNOWN_AFTER = 0.5
"""Seconds after which a process that closed a connection is taken to be alive."""


class Launcher(Protocol):
    """A server that is started on first use."""

    @property
    def description(self) -> str: ...

    @property
    def running(self) -> bool:
        """Whether its process is there now."""
        ...

    async def start(self) -> str:
        """Start it where it does not run, and return its base URL. Called before every request."""
        ...

    def failure(self) -> BackendError | None:
        """Why it has ended, when it has ended by itself."""
        ...

    async def aclose(self) -> None: ...


class ServerLink:
    """See the module. ``environ`` is where the API key is looked up."""

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
        self._name = config.name
        self._transport = transport
        self.launcher = launcher
        endpoint = config.endpoint or profile.default_endpoint
        if launcher is None and endpoint is None:
            raise InvalidEndpointError(
                f"a backend of type {config.type} needs an endpoint", key="endpoint", backend=config.name
            )
        self._base_url = "" if launcher is not None or endpoint is None else endpoint
        self._route = self._way(config)
        self._key, self._key_source = _found_key(config, profile, environ)
        common = {"Content-Type": "application/json", **_account_headers(config)}
        chat = {**common, **self._auth(codec.auth_headers)}
        closing = {"Connection": "close"} if profile.close_after_stream else {}
        self._headers = {
            "control": MaskedHeaders({**common, **self._auth(profile.auth)}),
            "chat": MaskedHeaders(chat),
            "stream": MaskedHeaders({**chat, **closing}),
        }
        self._checked: dict[tuple[str, tuple[tuple[str, str], ...]], CheckedHeaders] = {}
        self._connect_timeout = _first(config.connect_timeout, profile.connect_timeout)
        self._open_limits = Limits(connect=self._connect_timeout)
        self.limits = StreamLimits(
            first_token=_first(config.first_token_timeout, profile.first_token_timeout),
            idle=_first(config.idle_timeout, profile.idle_timeout),
            total=_first(config.timeout, profile.timeout),
        )
        self._open_phase = _shortest(("first_token", self.limits.first_token), ("total", self.limits.total))
        # For an answer that comes in one piece: without a total limit, the limit of the first token holds for it.
        total, key = self.limits.total, "timeout"
        if total is None:
            total, key = self.limits.first_token, "first_token_timeout"
        self.plain_limits = Limits(connect=self._connect_timeout, total=total, total_key=key)
        self.ready_timeout = _first(config.ready_timeout, profile.ready_timeout) or None
        slots = profile.slots
        look = None if slots is None else lambda: self._ask_slots(slots(config.default_model))
        self.limiter = Limiter(config.max_concurrency, look=look)
        self.policy = RetryPolicy(endpoint=self.endpoint, ready_timeout=self.ready_timeout, local=self._is_local())

    def _is_local(self) -> bool:
        return self.launcher is not None or is_local(urlsplit(self._base_url).hostname or "")

    def _way(self, config: BackendConfig) -> Route:
        """Where it is allowed to go, and how. Raises ConfigError and AirgapError; nothing is sent."""
        if self.launcher is not None:
            return DIRECT  # on this machine, over plain HTTP
        if self._transport.airgap:
            check_endpoint(self._base_url, trust_env=config.trust_env, backend=config.name)
        route = proxied(self._base_url, backend=config.name) if config.trust_env else DIRECT
        tls = tls_context(
            ca_bundle=config.ca_bundle,
            client_cert=config.client_cert,
            client_key=config.client_key,
            backend=config.name,
        )
        if tls is not None and not self._base_url.startswith("https://"):
            key = "ca_bundle" if config.ca_bundle is not None else "client_cert"
            raise ConfigError(
                "is for TLS, and has no effect without an https:// endpoint", key=key, backend=config.name
            )
        # Servers on asyncio (uvicorn, and so vLLM) end such a handshake without the alert that would say why.
        asks = "; a server that demands a client certificate (client_cert) may end it so"
        hint = asks if self._base_url.startswith("https://") and config.client_cert is None else ""
        if route.proxy is not None:
            hint += f"; the way there is through the proxy {route.proxy}"
        return attrs.evolve(route, tls=tls, hint=hint)

    def _auth(self, headers_for: Callable[[str], Mapping[str, str]]) -> Mapping[str, str]:
        return MaskedHeaders(headers_for(self._key.reveal())) if self._key is not None else {}

    @property
    def endpoint(self) -> str:
        """The base URL; before a server that is started here has one, what it will serve."""
        return self._base_url or (self.launcher.description if self.launcher else "")

    def check(self) -> None:
        """Raise ClosedError and EventLoopError, where nothing can be sent from here."""
        self._transport.check()

    # --- limits -----------------------------------------------------------------------------------

    def listing_limits(self) -> Limits:
        """For what costs a server nothing: shorter than for an answer. At a server that starts, each look is short, and
        the whole wait is ``ready_timeout``."""
        connect, total = self._connect_timeout, self.limits.total
        if self.ready_timeout is not None:
            return Limits(connect=connect, total=min(PROBE_TIMEOUT, self.ready_timeout), total_key="ready_timeout")
        if total is not None and total <= CONTROL_TIMEOUT:
            return Limits(connect=connect, total=total)
        return Limits(connect=connect, total=CONTROL_TIMEOUT, total_key=None)

    def look_limits(self) -> Limits:
        """For one look that is not to keep anybody waiting."""
        return Limits(connect=self._connect_timeout, total=PROBE_TIMEOUT, total_key=None)

    # --- requests ---------------------------------------------------------------------------------

    async def send(
        self, request: HTTPRequest, limits: Limits, *, chat: bool = False, work: bool = False
    ) -> HTTPResponse:
        """One request, once. ``chat``: with the headers of a generation. ``work``: it takes one of the server's places.
        Raises for any answer but a 2xx."""
        headers = self._headers_for(request, "chat" if chat else "control")
        url = self._base_url + _checked_path(request.path) if self.launcher is None else await self._started(request)
        release = await self._place() if work and not self.limiter.is_open else None
        try:
            # What only looks at a server leaves no connection behind. A generation on one that is closed without an
            # answer looks like one on a connection that had been closed before, and would be sent again.
            response = await self._transport.send(
                url, request, headers=headers, limits=limits, route=self._route, keep=work
            )
        except APIConnectionError as error:
            await self._on_connection_error(error)
            raise
        finally:
            if release is not None:
                release()
        if 200 <= response.status < 300:
            return response
        raise error_from_response(response)

    async def open(self, request: HTTPRequest, *, sent: Callable[[], None]) -> ByteStream:
        """One request for a stream, once, until its headers have come. It keeps its place until the stream is closed.
        ``sent`` is called when the wait for the server begins, after the one for a place."""
        phase, limit = self._open_phase
        headers = self._headers_for(request, "stream")
        url = self._base_url + _checked_path(request.path) if self.launcher is None else await self._started(request)
        release = await self._place() if not self.limiter.is_open else None
        opened: ByteStream | HTTPResponse | None = None
        try:
            sent()
            with self._transport.within(limit):
                opened = await self._transport.open(
                    url, request, headers=headers, limits=self._open_limits, route=self._route
                )
        except APIConnectionError as error:
            await self._on_connection_error(error)
            raise
        except BackendError:
            raise
        except TimeoutError as error:
            raise APITimeoutError(phase, limit or 0.0, key=timeout_key(phase)) from without_frames(error)
        finally:
            if release is not None and isinstance(opened, ByteStream):
                opened.on_close(release)
            elif release is not None:
                release()
        if isinstance(opened, ByteStream):
            return opened
        assert opened is not None, "it was answered"
        raise error_from_response(opened)

    async def _place(self) -> Release:
        with self._transport.use():
            return await self.limiter.take()

    async def _ask_slots(self, slots: Operation[int | None]) -> int | None:
        """How many requests the server works on at once. Raises what a generation would meet without being sent: nobody
        listens, or the model is loading. What else goes wrong is left to the generation."""
        limits = self.look_limits()
        try:
            return await self.run(slots, lambda request: self.send(request, limits))
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

    async def _on_connection_error(self, error: APIConnectionError) -> None:
        """Raise why the server's process ended, where it did. A process closes its connections before it is known to
        have ended."""
        if not error.sent:
            self.limiter.forget()  # what comes back may work on another number of requests
        if self.launcher is None:
            return
        deadline = time.monotonic() + (DEATH_KNOWN_AFTER if error.sent else 0.0)
        while (died := self.launcher.failure()) is None and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        if died is not None:
            raise died from error

    async def call(
        self,
        attempt: Callable[[], Awaitable[T]],
        *,
        policy: RetryPolicy | None = None,
        probe: bool = False,
        on_progress: OnProgress | None = None,
    ) -> T:
        """``attempt`` under the retry policy, its error explained."""
        started = time.monotonic()
        try:
            return await attempt()
        except BackendError as first:
            return await self.recover(
                attempt, first, started=started, policy=policy, probe=probe, on_progress=on_progress
            )

    async def recover(
        self,
        attempt: Callable[[], Awaitable[T]],
        first: BackendError,
        *,
        started: float,
        policy: RetryPolicy | None = None,
        probe: bool = False,
        on_progress: OnProgress | None = None,
    ) -> T:
        """What follows a first attempt that failed with ``first``: the retry policy, and the last error explained. Most
        requests go straight through, and never see it."""
        try:
            with self._transport.use():
                return await (policy or self.policy).retry(
                    attempt, first, started=started, probe=probe, on_progress=on_progress
                )
        except BackendError as error:
            raise self.explain(error) from error.__cause__

    async def run(self, steps: Operation[T], send: Callable[[HTTPRequest], Awaitable[HTTPResponse]]) -> T:
        """The result of ``steps``, each request of which goes through ``send``."""
        try:
            request = next(steps)
            while True:
                try:
                    with self._transport.use():
                        response = await send(request)
                except BackendError as error:
                    request = steps.throw(error)
                else:
                    request = steps.send(response)
        except StopIteration as end:
            result: T = end.value
            return result
        except BackendError as error:
            raise self.explain(error) from error.__cause__

    async def run_retried(self, steps: Operation[T], *, on_progress: OnProgress | None = None, work: bool = False) -> T:
        """The same, with each request under the retry policy."""
        limits = self.plain_limits

        async def send(request: HTTPRequest) -> HTTPResponse:
            return await self.call(lambda: self.send(request, limits, work=work), on_progress=on_progress)

        return await self.run(steps, send)

    def explain(self, error: BackendError) -> BackendError:
        """Put in what only the backend knows, and take out what nobody may see."""
        error.backend = error.backend or self._name
        error.endpoint = error.endpoint or self.endpoint
        if isinstance(error, AuthenticationError):
            error.key_source = self._key_source
        if self._key is not None and redact(error, self._key.reveal()):
            without_frames(error)  # the answer that it was in is in them
        return error

    def _headers_for(self, request: HTTPRequest, kind: Literal["control", "chat", "stream"]) -> CheckedHeaders:
        """Put together and checked once for all requests that have the same ones. Raises ConfigError."""
        key = kind, tuple(request.headers.items())
        headers = self._checked.get(key)
        if headers is None:
            headers = self._checked[key] = self._transport.prepared({**self._headers[kind], **request.headers})
        return headers

    async def _started(self, request: HTTPRequest) -> str:
        """The URL at the server that is started here."""
        assert self.launcher is not None, "only asked for where there is one"
        self._base_url = await self.launcher.start()
        return self._base_url + _checked_path(request.path)


@functools.lru_cache(256)
def _checked_path(path: str) -> str:
    """``path``, where it is one: "@other" behind a host and a port would be another host. Raises ConfigError."""
    if not path.startswith("/") or not path.isascii() or not path.isprintable() or " " in path:
        raise ConfigError(
            f"the path {path!a} of a request must begin with a slash, and hold no white space, controls or "
            "non-ASCII characters; percent-encode them (urllib.parse.quote)"
        )
    return path


def without_waiting(policy: RetryPolicy) -> RetryPolicy:
    """The policy of one look: nothing is waited for and nothing tried again."""
    return attrs.evolve(policy, ready_timeout=None, transient_attempts=1)


def _account_headers(config: BackendConfig) -> dict[str, str]:
    # https://platform.openai.com/docs/api-reference/authentication
    named = {"OpenAI-Organization": config.organization, "OpenAI-Project": config.project}
    return {header: value for header, value in named.items() if value is not None}


def _found_key(config: BackendConfig, profile: Profile, environ: Mapping[str, str]) -> tuple[Secret | None, str | None]:
    found = api_key_for(config, profile, environ)
    return (None, None) if found is None else (Secret(found[0]), found[1])


def _first(*values: float | None) -> float | None:
    return next((value for value in values if value is not None), None)


def _shortest(*phases: tuple[str, float | None]) -> tuple[str, float | None]:
    limited = [(limit, name) for name, limit in phases if limit is not None]
    if not limited:
        return phases[0]
    limit, name = min(limited)
    return name, limit
