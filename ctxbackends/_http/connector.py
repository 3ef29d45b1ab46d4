"""aiohttp's resolver and connector with checks, and the translation of errors around one request.

Knows no session and no wire format.
"""

from __future__ import annotations

import asyncio
import contextvars
import select
import socket
import sys
import time
import weakref
from typing import Any, Self

import aiohttp
from aiohttp.abc import ResolveResult
from aiohttp.connector import Connection

from ctxbackends._http.addresses import check_addresses
from ctxbackends._http.errors import AIOHTTP_ERRORS, strip_tracebacks, translate
from ctxbackends._http.proxy import Route
from ctxbackends.errors import AirgapError, APITimeoutError, BackendError

STALE_SECONDS = 0.1
"""How long after its reuse a pooled connection that fails counts as closed before.

The server's reset arrives within a round trip. A connection that closes later has most likely been read from, and a
generation may have begun.
"""


class LoopbackResolver(aiohttp.ThreadedResolver):
    """A resolver that drops ``::1`` on machines without IPv6, where containers still resolve ``localhost`` to it.

    Otherwise aiohttp reports a refused connection as two failures in one text, which cannot be told from a permanent
    failure. With ``airgap``, each resolved address is checked here, just before the connection to it.
    """

    def __init__(self, *, airgap: bool = False) -> None:
        super().__init__()
        self._airgap = airgap

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        results = await super().resolve(host, port, family)
        if self._airgap:
            check_addresses(host, [result["host"] for result in results])
        usable = [result for result in results if result["host"] != "::1" or _has_ipv6_loopback()]
        return usable or results


def _has_ipv6_loopback() -> bool:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        return False
    return True


def create_checked_socket(address: tuple[Any, ...]) -> socket.socket:
    """Return a socket for a checked address: aiohttp resolves no host that is already an address."""
    host = str(address[4][0])
    check_addresses(host, [host])
    return socket.socket(*address[:3])


class CheckedConnector(aiohttp.BaseConnector):
    """A connector that discards pooled connections with unread input.

    The input is the end of the connection, or a response without a request, which aiohttp would read as the response to
    the next request. The connector also notes in the request's context that its connection was reused: a TraceConfig
    tells the same, but makes the whole request 8 % slower (tests/benchmarks/parts.py).
    """

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._pooled: weakref.WeakSet[Any] = weakref.WeakSet()

    def leave_open(self) -> None:
        """Do not close the connections when this is deleted."""
        self._closed = True

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109  # aiohttp names it
    ) -> Connection:
        while True:
            connection = await super().connect(req, traces, timeout)
            protocol, transport = connection.protocol, connection.transport
            if protocol not in self._pooled:
                self._pooled.add(protocol)
                return connection
            is_broken = protocol is None or protocol.should_close or transport is None or transport.is_closing()
            if not is_broken and not _has_unread(transport):
                context = _context.get()
                if context is not None:
                    context.reused_at = time.monotonic()
                return connection
            connection.close()


class Connector(CheckedConnector, aiohttp.TCPConnector):
    """The connector for TCP."""


class UnixConnector(CheckedConnector, aiohttp.UnixConnector):
    """The connector for a Unix socket, whatever host the URL has."""


def _has_unread(transport: asyncio.Transport | None) -> bool:
    """Return whether the connection has unread input; False with TLS, which has messages of its protocol.

    Keeping the poll object would save 0.3 us of a request.
    """
    if transport is None or transport.get_extra_info("ssl_object") is not None:
        return False
    descriptor = transport.get_extra_info("socket").fileno()
    if sys.platform == "win32":
        # The proactor's pending read consumes data at once; the end of the connection is visible here.
        return bool(select.select([descriptor], [], [], 0)[0])
    poller = select.poll()  # select() does not support descriptors above 1023 here
    poller.register(descriptor, select.POLLIN)
    return bool(poller.poll(0))


class RequestContext:
    """The context of one request, which translates aiohttp's errors.

    Attributes:
        reused_at: When the connection was taken from the pool (``time.monotonic()``), None for a new one.
        airgap_error: The error of an address that is not allowed. The context suppresses it; raise it after the block.
    """

    __slots__ = ("_connect_timeout", "_route", "_token", "airgap_error", "reused_at")

    def __init__(self, route: Route, connect_timeout: float | None) -> None:
        self._route = route
        self._connect_timeout = connect_timeout
        self.reused_at: float | None = None
        self.airgap_error: AirgapError

    def __enter__(self) -> Self:
        self._token = _context.set(self)
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> bool:
        _context.reset(self._token)
        if isinstance(error, AirgapError):
            # A new error: the frames of the resolver's error contain the headers, and other tasks may share it.
            self.airgap_error = AirgapError(error.problem, key=error.key)
            return True
        if isinstance(error, BackendError) or not isinstance(error, AIOHTTP_ERRORS):
            return False
        if isinstance(error, aiohttp.ConnectionTimeoutError):
            limit = self._connect_timeout or 0.0
            raise APITimeoutError("connect", limit, key="connect_timeout") from strip_tracebacks(error)
        raise translate(error, reused=self._is_stale, started=False, route=self._route) from strip_tracebacks(error)

    @property
    def _is_stale(self) -> bool:
        """Whether the connection failed so soon after its reuse that it had been closed before."""
        return self.reused_at is not None and time.monotonic() < self.reused_at + STALE_SECONDS


_context: contextvars.ContextVar[RequestContext | None] = contextvars.ContextVar("ctxbackends_request", default=None)
