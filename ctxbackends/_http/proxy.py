"""The route of one backend, and the proxies of the environment."""

from __future__ import annotations

import re
import urllib.request
from base64 import b64encode
from ssl import SSLContext
from urllib.parse import unquote, urlsplit

import attrs

from ctxbackends._http.addresses import is_loopback
from ctxbackends._util.secrets import MaskedHeaders
from ctxbackends.errors import APIConnectionError, ConfigError

# --- the route ----------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Route:
    """How the requests of one backend reach its server.

    Attributes:
        proxy: The proxy's URL without credentials, None for a direct connection.
        proxy_headers: Headers for the proxy only.
        tls: The TLS context, None for the system's certificates.
        hint: A possible reason why the server closed a new connection, for the error.
    """

    proxy: str | None = None
    proxy_headers: MaskedHeaders = attrs.field(factory=MaskedHeaders)
    tls: SSLContext | None = None
    hint: str = ""


DIRECT = Route()


def find_proxy_route(endpoint: str, *, backend: str | None = None) -> Route:
    """Return the route to ``endpoint`` with the proxies of the environment. Loopback is never proxied.

    Raises:
        ConfigError: The proxy's URL is not valid. The error shows only its scheme.
    """
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    if is_loopback(host):
        return DIRECT
    proxies = urllib.request.getproxies_environment()
    netloc = f"[{host}]" if ":" in host else host
    bypass = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]  # not in typeshed
    if bypass(f"{netloc}:{parts.port}" if parts.port else netloc, proxies):
        return DIRECT
    name = parts.scheme if proxies.get(parts.scheme) else "all"
    url = proxies.get(name)
    if not url:
        return DIRECT
    problem, route = _parse_proxy_url(url if "://" in url else f"http://{url}")
    if problem:
        del url, proxies  # a traceback may show the values of a frame
        raise ConfigError(
            f"{name.upper()}_PROXY in the environment {problem}; correct it, add the host to NO_PROXY, or "
            "remove trust_env",
            key="trust_env",
            backend=backend,
        )
    return route


def _parse_proxy_url(url: str) -> tuple[str, Route]:
    """Return the problem of the proxy's URL, or "" and the route."""
    scheme = url.partition("://")[0].lower()
    if scheme not in ("http", "https"):
        label = scheme if re.fullmatch("[a-z0-9+.-]{1,16}", scheme) else "(not valid)"
        return f"has the scheme {label}; only http:// and https:// proxies are supported", DIRECT
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "has a bad host or port", DIRECT
    if not host or not re.fullmatch("[a-z0-9._:-]+", host) or port == 0:
        return "has a bad host or port", DIRECT
    headers = MaskedHeaders()
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        encoded = b64encode(credentials.encode("utf-8", "replace")).decode()
        headers["Proxy-Authorization"] = f"Basic {encoded}"  # RFC 7617
    netloc = f"[{host}]" if ":" in host else host
    return "", Route(proxy=f"{scheme}://{netloc}{'' if port is None else f':{port}'}", proxy_headers=headers)


def is_proxy(route: Route, host: str, port: int | None) -> bool:
    """Return whether this is the address of the route's proxy."""
    proxy = urlsplit(route.proxy or "")
    return (proxy.hostname, proxy.port or {"http": 80, "https": 443}.get(proxy.scheme)) == (host, port)


def proxy_error(route: Route, status: int) -> APIConnectionError:
    """Return the error for a response of the proxy itself. Never ``refused``, which means a starting server."""
    if status == 407:
        reason = "requires valid credentials (HTTP 407); write user:password@ in its URL"
    else:
        reason = f"cannot connect to the server (HTTP {status})"
    return APIConnectionError(
        f"the proxy {route.proxy} {reason}", permanent=status < 500
    )  # 5xx: it cannot reach it now
