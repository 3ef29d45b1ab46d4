"""aiohttp's errors in ours: a table, first match wins. Sends nothing, and keeps nothing of a request."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from typing import Any, TypeAlias, cast

import aiohttp

from ctxbackends._http.proxy import DIRECT, Route, is_proxy, proxy_error
from ctxbackends._http.tls import describe_verify_error, find_alert
from ctxbackends._util.secrets import exception_chain
from ctxbackends.errors import APIConnectionError, BackendError, MalformedResponseError

# A name that no IDNA encoding has is a UnicodeError.
AIOHTTP_ERRORS = (aiohttp.ClientError, OSError, UnicodeError)


class StaleConnectionError(APIConnectionError):
    """A connection that came from the pool, and that the server had closed before any byte of an answer. The transport
    sends the request once more, on a new connection; nobody else sees this error."""


_Translation: TypeAlias = Callable[[BaseException], BackendError]

# Errors in which the request was not sent, since no connection ever stood.
_NOT_SENT: tuple[tuple[type[BaseException], _Translation], ...] = (
    (
        aiohttp.ClientConnectorDNSError,
        lambda error: APIConnectionError(f"the name does not resolve ({_reason(error)})", permanent=True),
    ),
    (
        aiohttp.ClientConnectorCertificateError,
        lambda error: APIConnectionError(
            f"its certificate does not verify ({describe_verify_error(getattr(error, 'certificate_error', error))})",
            permanent=True,
        ),
    ),
    (aiohttp.ClientSSLError, lambda error: APIConnectionError(f"no TLS connection ({_reason(error)})", permanent=True)),
    (aiohttp.InvalidURL, lambda _: APIConnectionError("the URL is invalid", permanent=True)),
    (aiohttp.ClientConnectorError, lambda error: _connect_error(error)),
)


def _connect_error(error: BaseException) -> APIConnectionError:
    number = getattr(getattr(error, "os_error", None), "errno", None)
    return APIConnectionError(
        "connection refused" if number == errno.ECONNREFUSED else _reason(error), refused=number == errno.ECONNREFUSED
    )


def translate(error: BaseException, *, reused: bool, started: bool, route: Route = DIRECT) -> BackendError:
    """The one right error. ``reused``: the connection came from the pool, and may have been closed before; ``started``:
    a part of the answer had come."""
    if isinstance(error, UnicodeError):
        return APIConnectionError("the name does not resolve (it is no host name)", permanent=True)
    if isinstance(error, aiohttp.ClientHttpProxyError):
        return proxy_error(route, error.status)
    if isinstance(error, aiohttp.ClientConnectorError) and (
        isinstance(error, aiohttp.ClientProxyConnectionError) or is_proxy(route, error.host, error.port)
    ):
        # Never ``refused``, which is the sign of a server that starts.
        # The last row matches every connector error.
        direct_error = next(build(error) for kind, build in _NOT_SENT if isinstance(error, kind))
        return APIConnectionError(
            f"cannot connect to the proxy {route.proxy}: {direct_error.problem}; correct the proxy variables of the "
            "environment, or remove trust_env",
            permanent=getattr(direct_error, "permanent", False),
        )
    alert = next((alert for alert in map(find_alert, exception_chain(error)) if alert), None)
    if alert is not None:
        return APIConnectionError(f"no TLS connection: {alert}", permanent=True)
    inner = getattr(error, "os_error", None)
    if isinstance(inner, ConnectionResetError) and inner.errno is None:  # without a number it is asyncio's own
        return APIConnectionError(f"the other side ended the TLS handshake{route.hint}")
    for kind, build in _NOT_SENT:
        if isinstance(error, kind):
            return build(error)
    if isinstance(error, aiohttp.ClientPayloadError):
        return APIConnectionError("the connection broke before the answer was whole", sent=True)
    if isinstance(error, aiohttp.ServerDisconnectedError | OSError):
        # aiohttp puts a half-read answer in the place of the message.
        started = started or not isinstance(getattr(error, "message", ""), str)
        when = "in the middle of the answer" if started else "before an answer came"
        hint = "" if started or reused else route.hint
        kind = StaleConnectionError if reused and not started else APIConnectionError
        return kind(f"the server closed the connection {when}{hint}", sent=True)
    if isinstance(error, aiohttp.ClientConnectionError):
        return APIConnectionError(f"the connection ended: {error}", sent=True)
    return MalformedResponseError(f"the answer is no valid HTTP: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    # aiohttp's message goes on with the bytes that it could not read, and its text with the URL.
    return (getattr(error, "message", "") or _reason(error)).partition("\n")[0].rstrip(": ")


def strip_tracebacks(error: BaseException) -> BaseException:
    """``error`` and those that it came from, less what their frames and facts hold of the request: the key is in its
    headers."""
    for link in exception_chain(error):
        link.__traceback__ = None
        if isinstance(link, aiohttp.ClientResponseError):
            link.request_info = link.request_info._replace(headers=cast(Any, {}))
            link.headers, link.history, link.args = None, (), ()
        elif isinstance(link, aiohttp.ServerDisconnectedError) and not isinstance(link.message, str):
            link.message, link.args = "Server disconnected", ("Server disconnected",)  # a half-read answer was there
    return error


def _reason(error: BaseException) -> str:
    inner = getattr(error, "os_error", None)
    reason = str(getattr(inner, "strerror", None) or inner or str(error) or type(error).__name__)
    if reason.startswith("Connect call failed") and inner is not None and inner.errno:
        return os.strerror(inner.errno)  # asyncio's text says the address and not the reason
    return reason
