"""HTTPRequest in; HTTPResponse, a stream of bytes, or a typed error out. Owns the session. Knows no wire format and no
retry.

One session for each event loop, made on first use and closed with the transport or with the loop, whichever comes
first.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import weakref
from collections.abc import AsyncGenerator, Awaitable, Mapping
from typing import Any, TypeAlias

import aiohttp
import attrs

from ctxbackends._http.body import ByteStream, is_success, read_body
from ctxbackends._http.connector import Connector, LoopbackResolver, RequestContext, create_checked_socket
from ctxbackends._http.deadlines import Deadline, Deadlines
from ctxbackends._http.errors import StaleConnectionError, strip_tracebacks
from ctxbackends._http.headers import CheckedHeaders, check_headers
from ctxbackends._http.proxy import DIRECT, Route, proxy_error
from ctxbackends._util.secrets import MaskedHeaders
from ctxbackends._wire.base import HTTPRequest, HTTPResponse
from ctxbackends.errors import (
    AirgapError,
    APITimeoutError,
    BackendError,
    ClosedError,
    ConfigError,
    EventLoopError,
)

Session: TypeAlias = aiohttp.ClientSession
"""What a service that has its own session passes in."""

_SESSION_HEADERS = {
    "User-Agent": "ctxbackends",
    "Accept-Encoding": "identity",
    "Content-Type": "application/json",
}

KEEPALIVE_SECONDS = 4.0
"""vLLM and llama-server close idle connections after 5.0 s; a POST on a connection that closes in that moment is lost,
and aiohttp repeats no POST."""


@attrs.frozen(kw_only=True)
class RequestTimeouts:
    """Times in seconds, None for no limit. ``total_key`` is the configuration key that the error names, None where none
    can be tuned."""

    connect: float | None = None
    total: float | None = None
    total_key: str | None = "timeout"


class Transport:
    """Sends requests over one shared aiohttp session. ``session``: a borrowed one, which is never closed here.
    ``airgap``: connects to nothing but loopback and private addresses."""

    def __init__(self, *, session: aiohttp.ClientSession | None = None, airgap: bool = False) -> None:
        if session is not None and airgap:
            raise ConfigError(
                "a session of your own looks up names in its own way, which airgap cannot judge; pass no session",
                key="airgap",
            )
        if session is not None and _skips_verification(session):
            raise ConfigError("the aiohttp session's connector verifies no certificates (ssl); pass one that does")
        if session is not None and session.trust_env:
            # Prompts and keys would go to the proxies of the environment, those for a server on loopback too.
            raise ConfigError("the aiohttp session has trust_env=True; pass one without it")
        self._borrowed = session
        self.airgap = airgap
        self._session: aiohttp.ClientSession | None = None
        self._fresh: aiohttp.ClientSession | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._guard: AsyncGenerator[None, None] | None = None
        self._closed = False
        self._streams: weakref.WeakSet[ByteStream] = weakref.WeakSet()
        self._deadlines = Deadlines()

    def cancel_on_close(self) -> Deadline:
        """Return a context for everything that waits for a server: it is ended at once, with ClosedError, when the
        transport is closed. Raise EventLoopError and ClosedError where this cannot be used."""
        self.check()
        return self._deadlines.limit()

    def deadline(self, seconds: float | None) -> Deadline:
        """Return the same for one request, which checks by itself whether this can be used; TimeoutError after
        ``seconds``."""
        return self._deadlines.limit(seconds)

    def check(self) -> None:
        """Raise ClosedError after the end, and EventLoopError where another event loop uses this."""
        if self._closed:
            raise ClosedError("this registry or backend is closed")
        if self._session is None or self._session.closed or self._loop is None or self._loop.is_closed():
            return
        if self._loop is not asyncio.get_running_loop():
            raise EventLoopError(
                "this registry or backend is in use on another event loop; two loops at once need one each"
            )

    def prepare_headers(self, headers: Mapping[str, str]) -> CheckedHeaders:
        """What goes with each request of those that have these headers, looked at once for all of them. The own session
        has some already: what comes with a request is merged one by one, in a microsecond. Raises ConfigError."""
        checked = check_headers(headers)
        if self._borrowed is not None:
            return checked
        return CheckedHeaders((name, value) for name, value in checked.items() if _SESSION_HEADERS.get(name) != value)

    async def send(
        self,
        url: str,
        request: HTTPRequest,
        *,
        headers: Mapping[str, str],
        timeouts: RequestTimeouts,
        route: Route = DIRECT,
        keep: bool = True,
    ) -> HTTPResponse:
        """One request, its answer read whole, whatever its status. ``headers``: CheckedHeaders are all that is sent;
        others are checked, and the request's own come with them. ``keep``: the connection, for the next one.

        Raises APIConnectionError, APITimeoutError (phases ``connect`` and ``total``), ResponseTooLargeError.
        """
        session = (self._current_session() or await self._ready_session()) if keep else await self._fresh_session()
        while True:
            try:
                with self._deadlines.limit(timeouts.total), RequestContext(route, timeouts.connect) as context:
                    response = await self._request(session, url, request, headers, timeouts, route)
                    try:
                        answer = await read_body(_raise_for_proxy_auth(response, route))
                    except BaseException:
                        response.close()
                        raise
                    if not response.content.at_eof():  # else the connection is in the pool already
                        response.release()
                    return answer
                raise context.airgap_error  # it held AirgapError back; every other way has left by now
            except StaleConnectionError:
                pass  # left first, so that its error is not the context of what comes now
            except BackendError:
                raise  # APITimeoutError is a TimeoutError
            except TimeoutError as error:
                raise APITimeoutError("total", timeouts.total or 0.0, key=timeouts.total_key) from strip_tracebacks(
                    error
                )
            session = await self._fresh_session()

    async def open(
        self,
        url: str,
        request: HTTPRequest,
        *,
        headers: Mapping[str, str],
        timeouts: RequestTimeouts,
        route: Route = DIRECT,
    ) -> ByteStream | HTTPResponse:
        """Send, and hand out the body as a stream where the status is 2xx; otherwise the answer, read whole up to a
        limit."""
        session = self._current_session() or await self._ready_session()
        while True:
            try:
                with RequestContext(route, timeouts.connect) as context:
                    response = _raise_for_proxy_auth(
                        await self._request(session, url, request, headers, timeouts, route), route
                    )
                    if not is_success(response):
                        async with response:
                            return await read_body(response)
                    stream = ByteStream(response)
                    self._streams.add(stream)
                    return stream
                raise context.airgap_error  # it held AirgapError back; every other way has left by now
            except StaleConnectionError:
                pass
            session = await self._fresh_session()

    def _request(
        self,
        session: aiohttp.ClientSession,
        url: str,
        request: HTTPRequest,
        headers: Mapping[str, str],
        timeouts: RequestTimeouts,
        route: Route,
    ) -> Awaitable[aiohttp.ClientResponse]:
        if self.airgap and route.proxy is not None:
            raise AirgapError("a proxy can lead anywhere", key="trust_env")
        sent_headers: MaskedHeaders = (
            headers if isinstance(headers, CheckedHeaders) else check_headers({**headers, **request.headers})
        )
        if route.proxy is not None and not url.startswith("https:"):
            # A proxy takes them from the request itself, and keeps them.
            sent_headers = MaskedHeaders({**sent_headers, **route.proxy_headers})
        return session.request(
            request.method,
            url,
            data=request.body,
            headers=sent_headers,
            raise_for_status=False,  # a borrowed session may have it set; the status is ours to read
            allow_redirects=False,  # a redirect would carry the prompt and the key to another host
            timeout=_build_timeout(timeouts.connect),
            ssl=route.tls or True,
            proxy=route.proxy,
            proxy_headers=route.proxy_headers,
        )

    def _current_session(self) -> aiohttp.ClientSession | None:
        """The session, where it can be used as it is: the quick way through :meth:`_ready_session`."""
        session = self._session
        if session is None or self._closed or session.closed or self._loop is not asyncio.get_running_loop():
            return None
        return session

    async def _ready_session(self) -> aiohttp.ClientSession:
        self.check()
        if self._borrowed is not None:
            if self._borrowed.closed:
                raise ClosedError("the aiohttp session that was passed in is closed")
            return self._borrowed
        loop = asyncio.get_running_loop()
        if self._session is not None and self._loop is loop and not self._session.closed:
            return self._session
        self._session, self._fresh = self._new_session(keepalive_timeout=KEEPALIVE_SECONDS), None
        self._loop = loop
        self._guard = _close_with_loop(self)
        await anext(self._guard)
        return self._session

    async def _fresh_session(self) -> aiohttp.ClientSession:
        """One that keeps no connections. Where one of a pool was closed, the others may be so as well."""
        session = await self._ready_session()
        if session is self._borrowed:
            return session
        if self._fresh is None:
            self._fresh = self._new_session(force_close=True)
        return self._fresh

    def _new_session(self, **pooling: Any) -> aiohttp.ClientSession:
        return aiohttp.ClientSession(
            connector=Connector(
                limit=0,
                resolver=LoopbackResolver(airgap=self.airgap),
                socket_factory=create_checked_socket if self.airgap else None,
                **pooling,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,  # nothing compressed is asked for, and what comes so all the same is refused
            trust_env=False,  # loopback is never proxied
            headers=_SESSION_HEADERS,
        )

    async def aclose(self) -> None:
        """Close the own session. Idempotent. A session of a loop that has ended was closed with that loop."""
        self._closed = True
        self._deadlines.close()
        loop = self._loop
        for stream in list(self._streams):  # who reads one learns at once, and not after a timeout
            if loop is None or loop is asyncio.get_running_loop():
                stream.close()
            elif not loop.is_closed():
                loop.call_soon_threadsafe(stream.close)
        guard, self._guard = self._guard, None
        if guard is None or self._loop is not asyncio.get_running_loop():
            return  # on its own loop, what is left of the guard closes the sessions
        await guard.aclose()

    async def close_sessions(self) -> None:
        """What the end of the loop does as well."""
        sessions, self._session, self._fresh = (self._session, self._fresh), None, None
        for session in sessions:
            if session is not None:
                await session.close()


def _raise_for_proxy_auth(response: aiohttp.ClientResponse, route: Route) -> aiohttp.ClientResponse:
    """``response``, where it is no proxy's own demand for credentials."""
    if response.status == 407 and route.proxy is not None:
        response.close()
        raise proxy_error(route, 407)
    return response


@functools.lru_cache(64)
def _build_timeout(connect: float | None) -> aiohttp.ClientTimeout:
    """No limit for the whole, which has its own watch here: aiohttp makes a timer for each."""
    return aiohttp.ClientTimeout(total=None, sock_connect=connect)


async def _close_with_loop(transport: Transport) -> AsyncGenerator[None, None]:
    """Suspended while sessions are open. ``asyncio.run`` closes the loop's async generators before the loop, and the
    sessions with this one, so a client that nobody closed leaves no open socket and no ResourceWarning behind."""
    try:
        yield
    finally:
        await transport.close_sessions()


def _skips_verification(session: aiohttp.ClientSession) -> bool:
    setting = getattr(session.connector, "_ssl", True)
    return setting is False or (isinstance(setting, ssl.SSLContext) and setting.verify_mode == ssl.CERT_NONE)
