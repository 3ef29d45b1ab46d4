"""HTTPRequest in; HTTPResponse, a stream of bytes, or a typed error out. Owns the session. Knows no wire format and no
retry.

One session for each event loop, made on first use and closed with the transport or with the loop, whichever comes
first.
"""

from __future__ import annotations

import asyncio
import contextvars
import functools
import select
import socket
import ssl
import time
import weakref
from collections.abc import AsyncGenerator, Awaitable, Mapping
from types import TracebackType
from typing import Any, Self, TypeAlias

import aiohttp
import attrs
from aiohttp.abc import ResolveResult
from aiohttp.connector import Connection

from ctxbackends.aiohttp_body import ByteStream, is_good, read_whole
from ctxbackends.aiohttp_errors import AIOHTTP_ERRORS, StaleConnectionError, translate, without_frames
from ctxbackends.errors import (
    AirgapError,
    APITimeoutError,
    BackendError,
    ClosedError,
    ConfigError,
    EventLoopError,
)
from ctxbackends.masked import MaskedHeaders
from ctxbackends.network import DIRECT, CheckedHeaders, Route, check_addresses, checked_headers, proxy_refusal
from ctxbackends.waits import Wait, Waits
from ctxbackends.wire.http import HTTPRequest, HTTPResponse

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

STALE_SECONDS = 0.1
"""A pooled connection that had been closed shows it within the time that a packet takes to come back. One that closes
later has most likely been read from, and a generation may have begun."""


@attrs.frozen(kw_only=True)
class Limits:
    """Times in seconds, None for no limit. ``total_key`` is the configuration key that the error names, None where none
    can be tuned."""

    connect: float | None = None
    total: float | None = None
    total_key: str | None = "timeout"


class _LoopbackResolver(aiohttp.ThreadedResolver):
    """Leaves out ``::1`` on machines without IPv6, where containers still resolve ``localhost`` to it.

    Without this, a refused connection is reported as two different failures in one text, and could not be told from a
    permanent one. ``airgap``: judges each address here, where the look-up is the one whose answer is connected to.
    """

    def __init__(self, *, airgap: bool = False) -> None:
        super().__init__()
        self._airgap = airgap

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await super().resolve(host, port, family)
        if self._airgap:
            check_addresses(host, [result["host"] for result in found])
        usable = [result for result in found if result["host"] != "::1" or _has_ipv6_loopback()]
        return usable or found


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def _airgapped_socket(address: tuple[Any, ...]) -> socket.socket:
    """What every connection begins with: aiohttp asks no resolver about a host that is an address already."""
    host = str(address[4][0])
    check_addresses(host, [host])
    return socket.socket(*address[:3])


class _Connector(aiohttp.TCPConnector):
    """Hands out no pooled connection on which something came while nobody had asked: the end of it, or an answer to
    nothing, which aiohttp would read as the answer to the next request.

    Notes in the request's contact that its connection came from the pool. A TraceConfig would tell as much, and makes
    the whole request cost a tenth more.
    """

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._known: weakref.WeakKeyDictionary[Any, select.poll | None] = weakref.WeakKeyDictionary()

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # aiohttp names it
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol, transport = connection.protocol, connection.transport
            try:
                looked = self._known[protocol]
            except KeyError:
                self._known[protocol] = _look_at(connection)
                return connection
            spoiled = protocol is None or protocol.should_close or transport is None or transport.is_closing()
            if not spoiled and (looked is None or not looked.poll(0)):
                contact = _contact.get()
                if contact is not None:
                    contact.reused_at = time.monotonic()
                return connection
            connection.close()


def _look_at(connection: Connection) -> select.poll | None:
    """What tells whether something came on this connection that the event loop has not read yet; made once for all the
    times that it comes out of the pool. None with TLS, to which itself may belong what comes."""
    transport = connection.transport
    if transport is None or transport.get_extra_info("ssl_object") is not None:
        return None
    looked = select.poll()
    looked.register(transport.get_extra_info("socket").fileno(), select.POLLIN)
    return looked


class _Contact:
    """One request and its answer, around which aiohttp's errors become ours. ``reused_at``: when the connection was
    taken from the pool, None where it is new. ``refused``: no connection to this address was allowed."""

    __slots__ = ("_before", "_limits", "_route", "refused", "reused_at")

    def __init__(self, route: Route, limits: Limits) -> None:
        self._route = route
        self._limits = limits
        self.reused_at: float | None = None
        self.refused: AirgapError

    def __enter__(self) -> Self:
        self._before = _contact.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        _contact.reset(self._before)
        if isinstance(error, AirgapError):
            # Made anew: the frames of the resolver's error hold the request's headers, and others may wait for it.
            self.refused = AirgapError(error.problem, key=error.key)
            return True
        if isinstance(error, BackendError) or not isinstance(error, AIOHTTP_ERRORS):
            return False
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            limit = self._limits.connect or 0.0
            raise APITimeoutError("connect", limit, key="connect_timeout") from without_frames(error)
        raise translate(error, reused=self._is_stale, started=False, route=self._route) from without_frames(error)

    @property
    def _is_stale(self) -> bool:
        """Whether the connection failed so soon after it came from the pool that it had been closed before."""
        return self.reused_at is not None and time.monotonic() < self.reused_at + STALE_SECONDS


_contact: contextvars.ContextVar[_Contact | None] = contextvars.ContextVar("ctxbackends_contact", default=None)


class Transport:
    """Sends requests over one shared aiohttp session. ``session``: a borrowed one, which is never closed here.
    ``airgap``: connects to nothing but loopback and private addresses."""

    def __init__(self, *, session: aiohttp.ClientSession | None = None, airgap: bool = False) -> None:
        if session is not None and airgap:
            raise ConfigError(
                "a session of your own looks up names in its own way, which airgap cannot judge; pass no session",
                key="airgap",
            )
        if session is not None and _verifies_nothing(session):
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
        self._waits = Waits()

    def use(self) -> Wait:
        """``with transport.use():`` around everything that waits for a server: where the transport is closed meanwhile,
        the wait ends at once, with ClosedError. Raises EventLoopError and ClosedError where it cannot be used."""
        self.check()
        return self._waits.wait()

    def within(self, seconds: float | None) -> Wait:
        """The same around one request, which looks by itself whether this can be used; TimeoutError after
        ``seconds``."""
        return self._waits.wait(seconds)

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

    def prepared(self, headers: Mapping[str, str]) -> CheckedHeaders:
        """What goes with each request of those that have these headers, looked at once for all of them. The own session
        has some already: what comes with a request is merged one by one, in a microsecond. Raises ConfigError."""
        checked = checked_headers(headers)
        if self._borrowed is not None:
            return checked
        return CheckedHeaders((name, value) for name, value in checked.items() if _SESSION_HEADERS.get(name) != value)

    async def send(
        self,
        url: str,
        request: HTTPRequest,
        *,
        headers: Mapping[str, str],
        limits: Limits,
        route: Route = DIRECT,
        keep: bool = True,
    ) -> HTTPResponse:
        """One request, its answer read whole, whatever its status. ``headers``: CheckedHeaders are all that is sent;
        others are checked, and the request's own come with them. ``keep``: the connection, for the next one.

        Raises APIConnectionError, APITimeoutError (phases ``connect`` and ``total``), ResponseTooLargeError.
        """
        session = (self._standing() or await self._ready_session()) if keep else await self._fresh_session()
        while True:
            try:
                with self._waits.wait(limits.total), _Contact(route, limits) as contact:
                    response = await self._request(session, url, request, headers, limits, route)
                    try:
                        answer = await read_whole(_direct(response, route))
                    except BaseException:
                        response.close()
                        raise
                    if not response.content.at_eof():  # else the connection is in the pool already
                        response.release()
                    return answer
                raise contact.refused
            except StaleConnectionError:
                pass  # left first, so that its error is not the context of what comes now
            except BackendError:
                raise  # APITimeoutError is a TimeoutError
            except TimeoutError as error:
                raise APITimeoutError("total", limits.total or 0.0, key=limits.total_key) from without_frames(error)
            session = await self._fresh_session()

    async def open(
        self, url: str, request: HTTPRequest, *, headers: Mapping[str, str], limits: Limits, route: Route = DIRECT
    ) -> ByteStream | HTTPResponse:
        """Send, and hand out the body as a stream where the status is 2xx; otherwise the answer, read whole up to a
        limit."""
        session = self._standing() or await self._ready_session()
        while True:
            try:
                with _Contact(route, limits) as contact:
                    response = _direct(await self._request(session, url, request, headers, limits, route), route)
                    if not is_good(response):
                        async with response:
                            return await read_whole(response)
                    stream = ByteStream(response)
                    self._streams.add(stream)
                    return stream
                raise contact.refused
            except StaleConnectionError:
                pass
            session = await self._fresh_session()

    def _request(
        self,
        session: aiohttp.ClientSession,
        url: str,
        request: HTTPRequest,
        headers: Mapping[str, str],
        limits: Limits,
        route: Route,
    ) -> Awaitable[aiohttp.ClientResponse]:
        if self.airgap and route.proxy is not None:
            raise AirgapError("a proxy can lead anywhere", key="trust_env")
        sent: MaskedHeaders = (
            headers if isinstance(headers, CheckedHeaders) else checked_headers({**headers, **request.headers})
        )
        if route.proxy is not None and not url.startswith("https:"):
            # A proxy takes them from the request itself, and keeps them.
            sent = MaskedHeaders({**sent, **route.proxy_headers})
        return session.request(
            request.method,
            url,
            data=request.body,
            headers=sent,
            raise_for_status=False,  # a borrowed session may have it set; the status is ours to read
            allow_redirects=False,  # a redirect would carry the prompt and the key to another host
            timeout=_timeout(limits.connect),
            ssl=route.tls or True,
            proxy=route.proxy,
            proxy_headers=route.proxy_headers,
        )

    def _standing(self) -> aiohttp.ClientSession | None:
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
            connector=_Connector(
                limit=0,
                resolver=_LoopbackResolver(airgap=self.airgap),
                socket_factory=_airgapped_socket if self.airgap else None,
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
        self._waits.close()
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


def _direct(response: aiohttp.ClientResponse, route: Route) -> aiohttp.ClientResponse:
    """``response``, where it is no proxy's own demand for credentials."""
    if response.status == 407 and route.proxy is not None:
        response.close()
        raise proxy_refusal(route, 407)
    return response


@functools.lru_cache(64)
def _timeout(connect: float | None) -> aiohttp.ClientTimeout:
    """No limit for the whole, which has its own watch here: aiohttp makes a timer for each."""
    return aiohttp.ClientTimeout(total=None, sock_connect=connect)


async def _close_with_loop(transport: Transport) -> AsyncGenerator[None, None]:
    """Suspended while sessions are open. ``asyncio.run`` closes the loop's async generators before the loop, and the
    sessions with this one, so a client that nobody closed leaves no open socket and no ResourceWarning behind."""
    try:
        yield
    finally:
        await transport.close_sessions()


def _verifies_nothing(session: aiohttp.ClientSession) -> bool:
    told = getattr(session.connector, "_ssl", True)
    return told is False or (isinstance(told, ssl.SSLContext) and told.verify_mode == ssl.CERT_NONE)
