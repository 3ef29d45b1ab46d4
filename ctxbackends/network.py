"""Where a host is, and the way to it: airgap, the proxies of the environment, and the route of one backend. Knows no
configuration and sends nothing.
"""

from __future__ import annotations

import re
import socket
import urllib.request
from base64 import b64encode
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from ssl import SSLContext
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

import attrs

from ctxbackends.errors import AirgapError, APIConnectionError, ConfigError
from ctxbackends.masked import MaskedHeaders

_Network: TypeAlias = IPv4Network | IPv6Network

LOOPBACK: tuple[_Network, ...] = (
    IPv4Network("127.0.0.0/8"),  # RFC 1122, section 3.2.1.3
    IPv6Network("::1/128"),  # RFC 4291, section 2.5.3
)
PRIVATE: tuple[_Network, ...] = (
    *LOOPBACK,
    IPv4Network("10.0.0.0/8"),  # RFC 1918
    IPv4Network("172.16.0.0/12"),  # RFC 1918
    IPv4Network("192.168.0.0/16"),  # RFC 1918
    IPv4Network("169.254.0.0/16"),  # RFC 3927, link-local
    IPv6Network("fc00::/7"),  # RFC 4193, unique local
    IPv6Network("fe80::/10"),  # RFC 4291, section 2.5.6, link-local
)
"""What an airgapped registry talks to. Written out: ``ipaddress.is_private`` also takes in the ranges for
documentation, and what it takes in changes with Python. Not here: 100.64.0.0/10 (RFC 6598), which is a provider's
network."""

# What else connects to this machine on Linux; RFC 1122 allows it as a source alone, so an airgap refuses it.
_UNSPECIFIED: tuple[_Network, ...] = (IPv4Network("0.0.0.0/32"), IPv6Network("::/128"))

_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}\.?", re.ASCII | re.IGNORECASE)


def address_of(host: str) -> IPv4Address | IPv6Address | None:
    """The address that ``host`` is written as, in any form that the C library takes (``0x7f.1``, ``2130706433``), an
    IPv4 address inside of IPv6 as the IPv4 address; None for a name."""
    if _NUMERIC.fullmatch(host):
        try:
            return IPv4Address(socket.inet_aton(host.removesuffix(".")))
        except OSError:
            return None
    try:
        address = ip_address(host.strip("[]"))
    except ValueError:
        return None
    return address.ipv4_mapped or address if isinstance(address, IPv6Address) else address


def _within(address: IPv4Address | IPv6Address, networks: Collection[_Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def is_localhost(name: str) -> bool:
    """Whether the name is one that RFC 6761, section 6.3, keeps for this machine."""
    return re.fullmatch(r"(.*\.)?localhost\.?", name, re.IGNORECASE) is not None


def is_loopback(host: str) -> bool:
    """Whether ``host`` is this machine, as far as its text says: nothing is looked up."""
    address = address_of(host)
    return is_localhost(host) if address is None else _within(address, (*LOOPBACK, *_UNSPECIFIED))


def is_inside(host: str) -> bool | None:
    """Whether the address that ``host`` is written as is loopback or in a private network; None for a name."""
    address = address_of(host)
    return None if address is None else _within(address, (*PRIVATE, *_UNSPECIFIED))


def is_local(host: str) -> bool:
    """Return whether ``host`` is loopback or in a private network. Nothing is looked up: a name other than localhost is
    not."""
    return is_loopback(host) or is_inside(host) is True


# --- airgap -------------------------------------------------------------------------------------------


def check_endpoint(endpoint: str | None, *, trust_env: bool, backend: str | None = None) -> None:
    """Raise AirgapError where the endpoint's host is an address outside, or proxies may be used. What a name leads to
    is known when it is looked up; ``check_addresses`` judges it then."""
    address = address_of(urlsplit(endpoint or "").hostname or "")
    if address is not None and not _within(address, PRIVATE):
        raise AirgapError(f"the endpoint {endpoint} is {_OUTSIDE}", endpoint=endpoint, backend=backend)
    if trust_env:
        problem = f"a proxy could take what is for {endpoint} anywhere, and airgap is on; leave out trust_env"
        raise AirgapError(problem, endpoint=endpoint, key="trust_env", backend=backend)


def check_addresses(host: str, addresses: Collection[str]) -> None:
    """Raise AirgapError unless each of the addresses that ``host`` leads to is inside; those of localhost must be
    loopback. All of them: which one is connected to is a matter of chance."""
    allowed = LOOPBACK if is_localhost(host) else PRIVATE
    for written in addresses:
        address = address_of(written.partition("%")[0])
        if address is None or not _within(address, allowed):
            leads = f"{host} is" if written == host else f"{host} resolves to {written}, which is"
            raise AirgapError(f"{leads} {_OUTSIDE if allowed is PRIVATE else 'not loopback'}")


_OUTSIDE = "neither loopback nor in a private network; nothing was sent to it"


# --- the route ----------------------------------------------------------------------------------------


@attrs.frozen(kw_only=True)
class Route:
    """How requests of one backend travel. ``proxy``: its URL, without credentials. ``proxy_headers``: what the proxy
    alone gets. ``tls``: None for the system's certificates. ``hint``: what else it may mean when the server ends a
    connection that is new."""

    proxy: str | None = None
    proxy_headers: MaskedHeaders = attrs.field(factory=MaskedHeaders)
    tls: SSLContext | None = None
    hint: str = ""


DIRECT = Route()


def proxied(endpoint: str, *, backend: str | None = None) -> Route:
    """The route to ``endpoint`` by the proxies of the environment; loopback is never proxied.

    Raises ConfigError, which shows nothing of the proxy's URL but its scheme, where that cannot be used.
    """
    parts = urlsplit(endpoint)
    host = parts.hostname or ""
    if is_loopback(host):
        return DIRECT
    proxies = urllib.request.getproxies_environment()
    place = f"[{host}]" if ":" in host else host
    bypass = urllib.request.proxy_bypass_environment  # type: ignore[attr-defined]  # typeshed has it not
    if bypass(f"{place}:{parts.port}" if parts.port else place, proxies):
        return DIRECT
    name = parts.scheme if proxies.get(parts.scheme) else "all"
    written = proxies.get(name)
    if not written:
        return DIRECT
    problem, route = _route_by(written if "://" in written else f"http://{written}")
    if problem:
        del written, proxies  # a traceback may show the values of a frame
        raise ConfigError(
            f"{name.upper()}_PROXY of the environment {problem}; correct it, add the host to NO_PROXY, or leave out "
            "trust_env",
            key="trust_env",
            backend=backend,
        )
    return route


def _route_by(url: str) -> tuple[str, Route]:
    """What is wrong with the proxy's URL, or the route over it."""
    scheme = url.partition("://")[0].lower()
    if scheme not in ("http", "https"):
        shown = scheme if re.fullmatch("[a-z0-9+.-]{1,16}", scheme) else "another kind"
        return f"names a proxy of {shown}, and only http:// and https:// proxies can be used", DIRECT
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
    place = f"[{host}]" if ":" in host else host
    return "", Route(proxy=f"{scheme}://{place}{'' if port is None else f':{port}'}", proxy_headers=headers)


def is_proxy(route: Route, host: str, port: int | None) -> bool:
    """Whether this is the place of the route's proxy."""
    proxy = urlsplit(route.proxy or "")
    return (proxy.hostname, proxy.port or {"http": 80, "https": 443}.get(proxy.scheme)) == (host, port)


def proxy_refusal(route: Route, status: int) -> APIConnectionError:
    """What a proxy's own answer means. ``refused`` on none of them: that is the sign of a server that starts."""
    if status == 407:
        why = "wants other credentials, or some (user:password@ in its URL; HTTP 407)"
    else:
        why = f"does not connect to it (HTTP {status})"
    return APIConnectionError(f"the proxy {route.proxy} {why}", permanent=status < 500)  # 5xx: it cannot reach it now


class CheckedHeaders(MaskedHeaders):
    """All headers of a request, looked at by :func:`checked_headers`."""


def checked_headers(headers: Mapping[str, str]) -> CheckedHeaders:
    """Raises ConfigError where a name or value would end its line, or is not ASCII, which no two servers read alike."""
    masked = CheckedHeaders(headers)
    bad = next((name for name in masked if not _fits_line(name) or not _fits_line(masked[name])), None)
    if bad is not None:
        raise ConfigError(f"the header {bad!a} holds line breaks, other controls or non-ASCII characters")
    return masked


def _fits_line(text: str) -> bool:
    return text.isascii() and text.isprintable()
