"""The translation of aiohttp's errors: a table, first match wins. Keeps no part of a request."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import aiohttp
from aiohttp.client_exceptions import UnixClientConnectorError

from ctxbackends._http.proxy import DIRECT, Route, is_proxy, proxy_error
from ctxbackends._http.tls import describe_verify_error, find_alert
from ctxbackends._util.secrets import exception_chain
from ctxbackends.errors import APIConnectionError, BackendError, MalformedResponseError, ResponseInterruptedError

# A name without an IDNA encoding raises a UnicodeError.
AIOHTTP_ERRORS = (aiohttp.ClientError, OSError, UnicodeError)


class StaleConnectionError(APIConnectionError):
    """A reused connection that the server closed before any byte of a response.

    The transport sends the request once more on a new connection, so this error is never raised to the caller.
    """

    def for_caller(self) -> APIConnectionError:
        """Return the error without a retry."""
        return APIConnectionError(self.problem, sent=True)


_Translation: TypeAlias = Callable[[BaseException], BackendError]

# Errors before a connection was established: the request was not sent.
_NOT_SENT: tuple[tuple[type[BaseException], _Translation], ...] = (
    (
        aiohttp.ClientConnectorDNSError,
        lambda error: APIConnectionError(
            f"cannot find the host {getattr(error, 'host', None)} ({_reason(error)})", permanent=True
        ),
    ),
    (
        aiohttp.ClientConnectorCertificateError,
        lambda error: APIConnectionError(
            f"certificate verification failed ({describe_verify_error(getattr(error, 'certificate_error', error))})",
            permanent=True,
        ),
    ),
    (
        aiohttp.ClientSSLError,
        lambda error: APIConnectionError(f"TLS handshake failed: {_reason(error)}", permanent=True),
    ),
    (aiohttp.InvalidURL, lambda _: APIConnectionError("the URL is invalid", permanent=True)),
    (aiohttp.ClientConnectorError, lambda error: _connect_error(error)),  # noqa: PLW0108  # defined below
)


def _connect_error(error: BaseException) -> APIConnectionError:
    number = getattr(getattr(error, "os_error", None), "errno", None)
    if isinstance(error, UnixClientConnectorError):
        # A server that starts has not created its socket yet.
        refused = number in (errno.ECONNREFUSED, errno.ENOENT)
        return APIConnectionError(f"cannot connect to the socket {error.path} ({_reason(error)})", refused=refused)
    return APIConnectionError(
        "connection refused" if number == errno.ECONNREFUSED else _reason(error), refused=number == errno.ECONNREFUSED
    )


def translate(error: BaseException, *, reused: bool, started: bool, route: Route = DIRECT) -> BackendError:
    """Return the error of this package for an error of aiohttp.

    Args:
        error: The error.
        reused: The connection came from the pool, and may have been closed before.
        started: A part of the response had arrived.
        route: How the request was sent.
    """
    if isinstance(error, UnicodeError):
        return APIConnectionError("cannot find the host: its name is not valid", permanent=True)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return proxy_error(route, error.status)
    if isinstance(error, aiohttp.ClientConnectorError) and (
        isinstance(error, aiohttp.ClientProxyConnectionError) or is_proxy(route, error.host, error.port)
    ):
        # Never ``refused``, which means a starting server.
        # The last row matches every connector error.
        direct_error = next(build(error) for kind, build in _NOT_SENT if isinstance(error, kind))
        return APIConnectionError(
            f"cannot connect to the proxy {route.proxy}: {direct_error.problem}; correct the proxy variables of the "
            "environment, or remove trust_env",
            permanent=getattr(direct_error, "permanent", False),
        )
    alert = next((alert for alert in map(find_alert, exception_chain(error)) if alert), None)
    if alert is not None:
        return APIConnectionError(f"TLS handshake failed: {alert}", permanent=True)
    inner = getattr(error, "os_error", None)
    if isinstance(inner, ConnectionResetError) and inner.errno is None:  # asyncio raises it without a number
        return APIConnectionError(f"the server closed the connection during the TLS handshake{route.hint}")
    for kind, build in _NOT_SENT:
        if isinstance(error, kind):
            return build(error)
    if isinstance(error, aiohttp.ClientPayloadError):
        return ResponseInterruptedError("the connection broke before the response was complete")
    if isinstance(error, aiohttp.ServerDisconnectedError | OSError):
        # aiohttp uses a partly read response as the message.
        started = started or not isinstance(getattr(error, "message", ""), str)
        when = "during the response" if started else "before a response"
        hint = "" if started or reused else route.hint
        kind = StaleConnectionError if reused and not started else APIConnectionError
        return kind(f"the server closed the connection {when}{hint}", sent=True)
    if isinstance(error, aiohttp.ClientConnectionError):
        return APIConnectionError(f"the connection ended: {error}", sent=True)
    return MalformedResponseError(f"the response is not valid HTTP: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    # aiohttp appends the bytes that it could not parse to the message, and the URL to the text.
    return (getattr(error, "message", "") or _reason(error)).partition("\n")[0].rstrip(": ")


def strip_tracebacks(error: BaseException) -> BaseException:
    """Remove the request, whose headers contain the API key, from ``error`` and its causes, and return ``error``."""
    for link in exception_chain(error):
        link.__traceback__ = None
        if isinstance(link, aiohttp.ClientResponseError):
            link.request_info = link.request_info._replace(headers=cast("Any", {}))
            link.headers, link.history, link.args = None, (), ()
        elif isinstance(link, aiohttp.ServerDisconnectedError) and not isinstance(link.message, str):
            link.message, link.args = "Server disconnected", ("Server disconnected",)  # was a partly read response
    return error


def _reason(error: BaseException) -> str:
    inner = getattr(error, "os_error", None)
    reason = str(getattr(inner, "strerror", None) or inner or str(error) or type(error).__name__)
    if reason.startswith("Connect call failed") and inner is not None and inner.errno:
        return os.strerror(inner.errno)  # asyncio's text has the address and not the reason
    return reason
