"""The HTTP transport: sends an HTTPRequest, and returns a response, a stream or a typed error.

Has sessions for each event loop, created on first use and closed with the transport or the loop, whichever comes
first. Knows no wire format and no retry.
"""

from __future__ import annotations

import asyncio
import functools
import ssl
import sys
from collections.abc import Awaitable, Iterable, Mapping
from typing import TypeAlias

import aiohttp
import attrs

from ctxbackends._chat.observer import Observer
from ctxbackends._http.body import ByteStream, is_success, read_body
from ctxbackends._http.connector import RequestContext
from ctxbackends._http.deadlines import Deadline
from ctxbackends._http.errors import StaleConnectionError, strip_tracebacks
from ctxbackends._http.headers import CheckedHeaders, check_headers
from ctxbackends._http.proxy import DIRECT, Route, proxy_error
from ctxbackends._http.sessions import SESSION_HEADERS, LoopSessions, Pool
from ctxbackends._util.forks import Lock, reset_in_child
from ctxbackends._util.secrets import MaskedHeaders
from ctxbackends._wire.base import HTTPRequest, HTTPResponse
from ctxbackends.errors import AirgapError, APITimeoutError, BackendError, ClosedError, ConfigError, EventLoopError

Session: TypeAlias = aiohttp.ClientSession
"""The session that a service with its own aiohttp session passes in."""

_left_to_parent: list[LoopSessions] = []
"""Sessions of the parent process: if they were collected, their transports would change the parent's selector."""


@attrs.frozen(kw_only=True)
class RequestTimeouts:
    """The timeouts of one request.

    Attributes:
        connect: Seconds to establish the connection, None for no limit.
        total: Seconds for the whole request, None for no limit.
        total_key: The configuration key of ``total``, which the error names; None for a fixed timeout.
    """

    connect: float | None = None
    total: float | None = None
    total_key: str | None = "timeout"


class Transport:
    """Sends requests over aiohttp sessions, on any number of event loops.

    Args:
        session: A borrowed session, which stays open. It belongs to its event loop.
        airgap: Connect only to loopback and private addresses.
        observers: The observers of the backends that use this transport.

    Attributes:
        closes_with_backend: Whether its only backend closes it too.
    """

    def __init__(
        self,
        *,
        session: aiohttp.ClientSession | None = None,
        airgap: bool = False,
        observers: Iterable[Observer] = (),
    ) -> None:
        if session is not None and airgap:
            raise ConfigError(
                "airgap cannot check the names that a session of your own resolves; remove session or airgap",
                key="airgap",
            )
        if session is not None and _skips_verification(session):
            raise ConfigError("the aiohttp session's connector does not verify certificates (ssl); pass one that does")
        if session is not None and session.trust_env:
            # Prompts and keys would go to the proxies of the environment, even for a server on loopback.
            raise ConfigError("the aiohttp session has trust_env=True; pass one without it")
        self.observers: tuple[Observer, ...] = tuple(observers)
        for observer in self.observers:
            if not isinstance(observer, Observer):
                raise TypeError(f"not an observer: {observer!r}; pass objects of classes derived from Observer")
        self._borrowed = session
        self._unix_socket: str | None = None
        self._children: dict[str, Transport] = {}
        self.airgap = airgap
        self._lock = Lock()
        self._sessions: dict[asyncio.AbstractEventLoop, LoopSessions] = {}
        self._closed = False
        self.is_draining: bool = False
        self.closes_with_backend: bool = False
        reset_in_child(self)

    def reset_after_fork(self) -> None:
        """Leave the sessions of all loops to the parent process."""
        _left_to_parent.extend(self._sessions.values())
        for sessions in self._sessions.values():
            sessions.leave_to_parent()
        self._sessions = {}

    def for_unix_socket(self, path: str) -> Transport:
        """Return the transport that connects to a Unix socket; it closes with this one.

        It has its own pool: two sockets may have the same URL.

        Raises:
            ConfigError: The session was passed in, or the system has no Unix sockets.
        """
        if self._borrowed is not None:
            raise ConfigError(
                "the aiohttp session that was passed in cannot connect to it; remove session", key="unix_socket"
            )
        if sys.platform == "win32":
            raise ConfigError("not supported on Windows; remove it, and set endpoint", key="unix_socket")
        child = self._children.get(path)
        if child is None:
            child = self._children[path] = Transport(airgap=self.airgap)
            child._unix_socket = path
            child._closed = self._closed
            child.is_draining = self.is_draining
        return child

    def start_drain(self) -> None:
        """Let the backends take no new requests; those in flight go on."""
        self.is_draining = True
        for child in self._children.values():
            child.start_drain()

    @property
    def is_busy(self) -> bool:
        """Whether requests are in flight on any loop."""
        children, sessions = [*self._children.values()], [*self._sessions.values()]
        return any(child.is_busy for child in children) or any(each.is_busy for each in sessions)

    def cancel_on_close(self) -> Deadline:
        """Return a context for a wait, which ends with ClosedError when the transport is closed.

        Raises:
            ClosedError: The transport is closed.
            EventLoopError: The session that was passed in belongs to another event loop.
        """
        self.check()
        return self._loop_sessions().deadlines.limit()

    def deadline(self, seconds: float | None) -> Deadline:
        """Return such a context for one request. It raises TimeoutError after ``seconds``."""
        return self._loop_sessions().deadlines.limit(seconds)

    @property
    def is_closed(self) -> bool:
        """Whether this was closed."""
        return self._closed

    def check(self) -> None:
        """Raise ClosedError if this is closed, and EventLoopError if its session belongs to another event loop."""
        if self._closed:
            raise ClosedError("this registry or backend is closed")
        if self._borrowed is not None and self._borrowed._loop is not asyncio.get_running_loop():
            raise EventLoopError(
                "the aiohttp session that was passed in belongs to another event loop; "
                "use the registry on that loop, or let it create its sessions"
            )

    def prepare_headers(self, headers: Mapping[str, str]) -> CheckedHeaders:
        """Return ``headers`` checked, for all requests that share them. Raise ConfigError.

        Headers that our own session has already are left out: aiohttp merges each header of a request in a microsecond.
        """
        checked = check_headers(headers)
        if self._borrowed is not None:
            return checked
        return CheckedHeaders((name, value) for name, value in checked.items() if SESSION_HEADERS.get(name) != value)

    async def send(
        self,
        url: str,
        request: HTTPRequest,
        *,
        headers: Mapping[str, str],
        timeouts: RequestTimeouts,
        route: Route = DIRECT,
        pool: Pool = "generations",
        retry_stale: bool = True,
    ) -> HTTPResponse:
        """Send one request and return its whole response, whatever its status.

        Args:
            url: The URL of the request.
            request: The request.
            headers: CheckedHeaders are sent alone. Others are checked first, and sent with those of the request.
            timeouts: The timeouts.
            route: How to reach the server.
            pool: The connections to reuse.
            retry_stale: Send the request again, on a new connection, if a reused one closes without a response.

        Raises:
            APIConnectionError: The connection failed.
            APITimeoutError: The phase ``connect`` or ``total`` timed out.
            ResponseTooLargeError: The response exceeds the limit.
        """
        session = await self._pool_session(pool)
        deadlines = self._loop_sessions().deadlines
        while True:
            try:
                with deadlines.limit(timeouts.total), RequestContext(route, timeouts.connect) as context:
                    response = await self._request(session, url, request, headers, timeouts, route)
                    try:
                        answer = await read_body(_raise_for_proxy_auth(response, route))
                    except BaseException:
                        response.close()
                        raise
                    if not response.content.at_eof():  # else the connection is in the pool already
                        response.release()
                    return answer
                raise context.airgap_error  # suppressed by the context; every other path has left
            except StaleConnectionError as error:
                if not retry_stale:
                    raise error.for_caller() from error.__cause__
                # retried below, so that this error is not the context of the next one
            except BackendError:
                raise  # APITimeoutError is a TimeoutError
            except TimeoutError as error:
                raise APITimeoutError("total", timeouts.total or 0.0, key=timeouts.total_key) from strip_tracebacks(
                    error
                )
            session = await self._pool_session("none")

    async def open(
        self,
        url: str,
        request: HTTPRequest,
        *,
        headers: Mapping[str, str],
        timeouts: RequestTimeouts,
        route: Route = DIRECT,
        retry_stale: bool = True,
    ) -> ByteStream | HTTPResponse:
        """Send one request and return the body of a 2xx response as a stream, or another response up to a limit."""
        session = await self._pool_session("generations")
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
                    self._loop_sessions().streams.add(stream)
                    return stream
                raise context.airgap_error  # suppressed by the context; every other path has left
            except StaleConnectionError as error:
                if not retry_stale:
                    raise error.for_caller() from error.__cause__
            session = await self._pool_session("none")

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
            raise AirgapError("a proxy can connect anywhere, and airgap is on; remove trust_env", key="trust_env")
        sent_headers: MaskedHeaders = (
            headers if isinstance(headers, CheckedHeaders) else check_headers({**headers, **request.headers})
        )
        if route.proxy is not None and not url.startswith("https:"):
            # A proxy reads them from the request itself.
            sent_headers = MaskedHeaders({**sent_headers, **route.proxy_headers})
        return session.request(
            request.method,
            url,
            data=request.body,
            headers=sent_headers,
            raise_for_status=False,  # a borrowed session may set it; the status is read here
            allow_redirects=False,  # a redirect would carry the prompt and the key to another host
            timeout=_build_timeout(timeouts.connect),
            ssl=route.tls or True,
            proxy=route.proxy,
            proxy_headers=route.proxy_headers,
        )

    async def _pool_session(self, pool: Pool) -> aiohttp.ClientSession:
        """Return the session of ``pool`` for this loop. A borrowed session has one pool for all."""
        self.check()
        if self._borrowed is None:
            return await self._loop_sessions().get(pool)
        if self._borrowed.closed:
            raise ClosedError("the aiohttp session that was passed in is closed")
        return self._borrowed

    def _loop_sessions(self) -> LoopSessions:
        """Return the sessions of the running loop."""
        loop = asyncio.get_running_loop()
        sessions = self._sessions.get(loop)
        if sessions is not None:
            return sessions
        with self._lock:
            self.check()
            for ended in [loop for loop in self._sessions if loop.is_closed()]:
                del self._sessions[ended]
            created = self._sessions[loop] = LoopSessions(loop, airgap=self.airgap, unix_socket=self._unix_socket)
            return created

    async def aclose(self) -> None:
        """Close our own sessions on all loops. Idempotent."""
        with self._lock:
            self._closed = True
            sessions = [*self._sessions.values()]
        await asyncio.gather(
            *(child.aclose() for child in self._children.values()), *(closing.aclose() for closing in sessions)
        )


def _raise_for_proxy_auth(response: aiohttp.ClientResponse, route: Route) -> aiohttp.ClientResponse:
    """Return ``response``, or raise if the proxy requires credentials."""
    if response.status == 407 and route.proxy is not None:
        response.close()
        raise proxy_error(route, 407)
    return response


@functools.lru_cache(64)
def _build_timeout(connect: float | None) -> aiohttp.ClientTimeout:
    """Return the connect timeout alone: aiohttp creates a timer for each total, which Deadlines share."""
    return aiohttp.ClientTimeout(total=None, sock_connect=connect)


def _skips_verification(session: aiohttp.ClientSession) -> bool:
    setting = getattr(session.connector, "_ssl", True)
    return setting is False or (isinstance(setting, ssl.SSLContext) and setting.verify_mode == ssl.CERT_NONE)
