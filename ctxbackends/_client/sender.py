"""One attempt at a request: its URL, headers, timeouts and slot, and the details of its errors.

Knows no operation and no retry.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Literal, TypeAlias, TypeVar
from urllib.parse import urlsplit

import attrs

from ctxbackends._client.call_settings import CallSettings, CallSettingsFactory
from ctxbackends._client.concurrency import Limiter
from ctxbackends._client.launcher import Launcher
from ctxbackends._client.redact import redact
from ctxbackends._client.request_headers import CallHeaders, build_account_headers, find_fixed_headers, merge_headers
from ctxbackends._client.routes import build_route
from ctxbackends._client.slots import Release
from ctxbackends._client.stream_source import timeout_key
from ctxbackends._client.urls import ServerURLs, is_from_api, is_html
from ctxbackends._client.watch import watch_server
from ctxbackends._config.api_key import find_api_key
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.endpoint import find_api_root
from ctxbackends._config.request_settings import resolve_settings
from ctxbackends._http.addresses import is_local
from ctxbackends._http.body import ByteStream
from ctxbackends._http.deadlines import Deadline
from ctxbackends._http.errors import strip_tracebacks
from ctxbackends._http.headers import CheckedHeaders
from ctxbackends._http.proxy import DIRECT
from ctxbackends._http.sessions import Pool
from ctxbackends._http.transport import RequestTimeouts, Transport
from ctxbackends._profiles.profile import Profile
from ctxbackends._profiles.routes import find_route_servers
from ctxbackends._util.secrets import MaskedHeaders, Secret
from ctxbackends._wire.base import Codec, HTTPRequest, HTTPResponse
from ctxbackends._wire.errors import error_from_response
from ctxbackends.errors import (
    APIConnectionError,
    APIStatusError,
    APITimeoutError,
    AuthenticationError,
    BackendError,
    ConfigError,
    InvalidEndpointError,
    ModelNotFoundError,
    NotFoundError,
)

T = TypeVar("T", ByteStream, HTTPResponse)
E = TypeVar("E", bound=BackendError)
Auth: TypeAlias = Literal["control", "chat", "stream"]
"""The set of headers of a request."""

_logger = logging.getLogger("ctxbackends")

DEATH_KNOWN_AFTER = 0.5
"""Seconds after which a process that closed a connection counts as alive."""


class RequestSender:
    """Sends each request once. ``environ`` is searched for the API key."""

    on_attempt: Callable[[bool], None] | None = None
    """Called before a request is sent, with whether it has taken a slot."""

    def __init__(
        self,
        config: BackendConfig,
        *,
        profile: Profile,
        codec: Codec,
        transport: Transport,
        launcher: Launcher | None,
        limiter: Limiter,
        environ: Mapping[str, str],
    ) -> None:
        self._name = config.name
        self.transport: Transport = _select_transport(transport, config)
        self._unix_socket = config.unix_socket
        self.launcher = launcher
        self.limiter = limiter
        endpoint = config.endpoint or profile.default_endpoint
        if launcher is None and endpoint is None:
            raise InvalidEndpointError(
                f"a backend of type {config.type} requires an endpoint", key="endpoint", backend=config.name
            )
        settings = resolve_settings(config, profile, endpoint or "", environ)
        self._urls = ServerURLs(settings.api, settings.query, backend=config.name)
        self._endpoint = settings.endpoint if launcher is None else ""
        # A server that the SDK starts is on this machine, over plain HTTP.
        self._route = DIRECT if launcher is not None else build_route(config, settings, airgap=self.transport.airgap)
        self._key, self._key_source = _find_key(config, profile, environ)
        self._secrets = (*((self._key,) if self._key is not None else ()), *settings.secrets)
        common = {"Content-Type": "application/json", **build_account_headers(config)}
        closing = {"Connection": "close"} if profile.close_after_stream else {}
        key_is_explicit = config.api_key is not None or bool(config.api_key_env)

        def merge(auth: Callable[[str], Mapping[str, str]]) -> MaskedHeaders:
            return merge_headers(common, self._auth(auth), settings.headers, key_is_explicit, config.name)

        chat = merge(codec.auth_headers)
        self._headers = {
            "control": merge(profile.auth),
            "chat": chat,
            "stream": MaskedHeaders({**chat, **closing}),
        }
        self._header_cache: dict[tuple[str, tuple[tuple[str, str], ...]], CheckedHeaders] = {}
        self.calls: CallSettingsFactory = CallSettingsFactory(
            config,
            profile,
            environ,
            endpoint=self.endpoint,
            local=launcher is not None or is_local(urlsplit(self.endpoint).hostname or ""),
            fixed_headers=find_fixed_headers(config, common, self._auth(codec.auth_headers), self._auth(profile.auth)),
        )
        self.defaults: CallSettings = self.calls.defaults

    def _auth(self, headers_for: Callable[[str], Mapping[str, str]]) -> Mapping[str, str]:
        return MaskedHeaders(headers_for(self._key.reveal())) if self._key is not None else {}

    @property
    def endpoint(self) -> str:
        """The base URL without secrets, or a description of a server that is not started yet."""
        return self._endpoint or (self.launcher.description if self.launcher else "")

    @property
    def account(self) -> tuple[object, ...]:
        """The server and the key: equal for two senders whose requests count together."""
        return (self.launcher or urlsplit(self._endpoint).netloc, self._unix_socket, self._key)

    @property
    def api_path(self) -> str:
        """The path between the endpoint and a route of the OpenAI or Anthropic API, ``/`` for none."""
        return self._urls.api.path

    def cancel_on_close(self) -> Deadline:
        """Return a context that ends with ClosedError when the client is closed."""
        return self.transport.cancel_on_close()

    @property
    def is_closed(self) -> bool:
        """Whether the client was closed."""
        return self.transport.is_closed

    def check(self) -> None:
        """Raise ClosedError if this is closed, and EventLoopError on another event loop."""
        self.transport.check()

    # --- one attempt ------------------------------------------------------------------------------

    async def send(
        self,
        request: HTTPRequest,
        timeouts: RequestTimeouts,
        *,
        call: CallSettings,
        auth: Auth = "control",
        acquire_slot: bool = False,
        watch: bool = False,
        pool: Pool | None = None,
        api_url: str | None = None,
    ) -> HTTPResponse:
        """Send one request once. Raise the error of any response but a 2xx.

        Args:
            request: The request.
            timeouts: The timeouts.
            call: The settings of the call.
            auth: The set of headers.
            acquire_slot: The request is a generation.
            watch: Raise an error if the server refuses connections while the response is awaited.
            pool: The connections to reuse; by default those of generations or of probes, and none for a command.
            api_url: The other URL, which is tried after a 404.
        """
        headers = self._headers_for(request, auth, call.headers)
        if self.launcher is not None:
            await self._start()
        url = self._urls.get(request.path) if api_url is None else self._urls.build(request.path, api_url)
        release = await self._acquire_slot() if acquire_slot and not self.limiter.is_unlimited else None
        if pool is None:
            pool = "generations" if acquire_slot else "probes" if request.method == "GET" else "none"
        sent_at = time.monotonic()
        status: int | None = None
        try:
            if self.on_attempt is not None:
                self.on_attempt(acquire_slot)
            # A generation on a reused connection that is closed without a response looks like one on a stale
            # connection, and would be retried. So probes, several a second at a cold start, share no connection with
            # generations, and commands reuse none.
            sending = self.transport.send(
                url,
                request,
                headers=headers,
                timeouts=timeouts,
                route=self._route,
                pool=pool,
                retry_stale=call.policy.max_retries > 0,
            )
            response = await (watch_server(sending, self._is_refused) if watch and self.launcher is None else sending)
            status = response.status
        except APIConnectionError as error:
            await self._on_unreachable(error)
            raise
        finally:
            if release is not None:
                release()
            if _logger.isEnabledFor(logging.DEBUG):
                _log_request(request, status, time.monotonic() - sent_at)
        if 200 <= response.status < 300:
            if api_url is None and self._urls.api.other is not None:
                self._urls.confirm(request, response.headers)
            return response
        attempt = functools.partial(
            self.send, request, timeouts, call=call, auth=auth, acquire_slot=acquire_slot, watch=watch, pool=pool
        )
        return await self._fail_or_try_elsewhere(response, request, url, api_url, attempt)

    async def _is_refused(self) -> bool:
        """Return whether the server refuses a connection. A busy server is slow to answer, but accepts it."""
        try:
            await self.send(
                HTTPRequest("GET", "/v1/models"), self.defaults.timeouts.probe, call=self.defaults, pool="none"
            )
        except APIConnectionError as error:
            return error.refused
        except BackendError:
            pass
        return False

    async def open(self, request: HTTPRequest, *, call: CallSettings, api_url: str | None = None) -> ByteStream:
        """Send one request for a stream once, and return its body after the headers. It keeps its slot until closed."""
        phase, limit = call.timeouts.open_phase
        headers = self._headers_for(request, "stream", call.headers)
        if self.launcher is not None:
            await self._start()
        url = self._urls.get(request.path) if api_url is None else self._urls.build(request.path, api_url)
        release = await self._acquire_slot() if not self.limiter.is_unlimited else None
        loop = asyncio.get_running_loop()
        sent_at = loop.time()
        result: ByteStream | HTTPResponse | None = None
        try:
            if self.on_attempt is not None:
                self.on_attempt(True)  # noqa: FBT003  # a callback
            with self.transport.deadline(limit):
                result = await self.transport.open(
                    url,
                    request,
                    headers=headers,
                    timeouts=call.timeouts.open,
                    route=self._route,
                    retry_stale=call.policy.max_retries > 0,
                )
        except APIConnectionError as error:
            await self._on_unreachable(error)
            raise
        except BackendError:
            raise
        except TimeoutError as error:
            raise APITimeoutError(phase, limit or 0.0, key=timeout_key(phase)) from strip_tracebacks(error)
        finally:
            if release is not None and isinstance(result, ByteStream):
                result.on_close(release)
            elif release is not None:
                release()
            if _logger.isEnabledFor(logging.DEBUG):
                status = 200 if isinstance(result, ByteStream) else result.status if result is not None else None
                _log_request(request, status, loop.time() - sent_at)
        if isinstance(result, ByteStream):
            result.sent_at = sent_at
            if api_url is None and self._urls.api.other is not None:
                self._urls.confirm(request, result.headers)
            return result
        assert result is not None, "there was a response"
        attempt = functools.partial(self.open, request, call=call)
        return await self._fail_or_try_elsewhere(result, request, url, api_url, attempt)

    # --- URLs -------------------------------------------------------------------------------------

    async def _start(self) -> None:
        """Start the server if it is not running, and use its address."""
        assert self.launcher is not None, "called only for a server that the SDK starts"
        base = await self.launcher.start()
        if base != self._endpoint:
            self._endpoint = base
            self._urls.set_api(attrs.evolve(find_api_root(base), other=None))

    async def _fail_or_try_elsewhere(
        self,
        failed: HTTPResponse,
        request: HTTPRequest,
        url: str,
        api_url: str | None,
        attempt: Callable[..., Awaitable[T]],
    ) -> T:
        """Raise the error of a response, or send the request to the other URL of the API if there is one.

        That is done once. The error is raised too if the other URL is not that of the API either.
        """
        error = self.name_route(error_from_response(failed), request.method, request.path, api_url)
        other = self._urls.find_other(request, error, url) if api_url is None else None
        if other is None:
            raise error
        try:
            response = await attempt(api_url=other)
        except BackendError as second:
            # A list may be missing where all else works, so that another error than 404 says nothing.
            if request.method == "GET" or not is_from_api(second):
                raise error from None
            if isinstance(second, APIStatusError) and second.status_code not in (401, 403):
                self._urls.switch(request)
            raise
        if is_html(response.headers):
            if isinstance(response, ByteStream):
                response.close()
            raise error
        self._urls.switch(request)
        return response

    async def _acquire_slot(self, on_wait: Callable[[], None] | None = None) -> Release:
        with self.transport.cancel_on_close():
            return await self.limiter.acquire(on_wait)

    async def _on_unreachable(self, error: APIConnectionError) -> None:
        """Raise why the server's process ended, if it did. It closes its connections shortly before it ends."""
        if not error.sent:
            self.limiter.invalidate()  # the server may return with another number of slots
        if self.launcher is None:
            return
        deadline = time.monotonic() + (DEATH_KNOWN_AFTER if error.sent else 0.0)
        while (failure := self.launcher.failure()) is None and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        if failure is not None:
            raise failure from error

    def annotate(self, error: BackendError, headers: CallHeaders | None = None) -> BackendError:
        """Add the backend, the endpoint and the source of the key to ``error``, and remove the API key.

        The secrets in the ``headers`` of the call are removed too.
        """
        error.backend = error.backend or self._name
        error.endpoint = error.endpoint or self.endpoint
        if isinstance(error, AuthenticationError):
            error.key_source = self._key_source
        secrets = self._secrets if headers is None else (*self._secrets, *headers.secrets)
        if secrets and redact(error, *(secret.reveal() for secret in secrets)):
            strip_tracebacks(error)  # their frames contain the response with the key
        return error

    def name_route(self, error: E, method: str, path: str, api_url: str | None = None) -> E:
        """Add to a NotFoundError the route that was requested, and the servers that have it."""
        if isinstance(error, NotFoundError) and error.status_code != 400 and error.url is None:
            error.method, error.url = method, self._urls.locate(path, api_url or self._urls.api.url)
            if not isinstance(error, ModelNotFoundError):
                error.route_servers = find_route_servers(path)
        return error

    def _headers_for(self, request: HTTPRequest, kind: Auth, own: CallHeaders | None) -> CheckedHeaders:
        """Return the headers of ``request``, built and checked once for all that share them. Raise ConfigError.

        Those of a call of its ``own`` headers are not shared.
        """
        if own is not None:
            return self.transport.prepare_headers(own.merge_into({**self._headers[kind], **request.headers}))
        key = kind, tuple(request.headers.items())
        headers = self._header_cache.get(key)
        if headers is None:
            headers = self._header_cache[key] = self.transport.prepare_headers(
                {**self._headers[kind], **request.headers}
            )
        return headers


def _select_transport(transport: Transport, config: BackendConfig) -> Transport:
    if config.unix_socket is None:
        return transport
    try:
        return transport.for_unix_socket(config.unix_socket)
    except ConfigError as error:
        error.backend = config.name
        raise


def _log_request(request: HTTPRequest, status: int | None, seconds: float) -> None:
    _logger.debug("%s %s: %s in %.3f s", request.method, request.path, status or "no response", seconds)


def _find_key(config: BackendConfig, profile: Profile, environ: Mapping[str, str]) -> tuple[Secret | None, str | None]:
    key = find_api_key(config, profile, environ)
    return (None, None) if key is None else (Secret(key[0]), key[1])
