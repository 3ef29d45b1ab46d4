"""Addresses: loopback, private networks, and the airgap that allows nothing else."""

from __future__ import annotations

import re
import socket
from collections.abc import Collection
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import TypeAlias
from urllib.parse import urlsplit

from ctxbackends.errors import AirgapError

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
"""The networks that an airgapped registry connects to.

``ipaddress.is_private`` is not used: it includes the documentation ranges, and its networks change between Python
versions. 100.64.0.0/10 (RFC 6598) is a provider's network and not listed.
"""

# These also connect to this machine on Linux. RFC 1122 allows them as a source only, so an airgap refuses them.
_UNSPECIFIED: tuple[_Network, ...] = (IPv4Network("0.0.0.0/32"), IPv6Network("::/128"))

_NUMERIC = re.compile(r"(0x[0-9a-f]*|[0-9]+)(\.(0x[0-9a-f]*|[0-9]+)){0,3}\.?", re.ASCII | re.IGNORECASE)


def parse_address(host: str) -> IPv4Address | IPv6Address | None:
    """Return ``host`` as an address, or None for a name.

    Accept every form that the C library accepts (``0x7f.1``, ``2130706433``). Return an IPv4-mapped IPv6 address as
    IPv4.
    """
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


def _in_any(address: IPv4Address | IPv6Address, networks: Collection[_Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)


def is_localhost(name: str) -> bool:
    """Return whether RFC 6761, section 6.3, reserves the name for this machine."""
    return re.fullmatch(r"(.*\.)?localhost\.?", name, re.IGNORECASE) is not None


def is_loopback(host: str) -> bool:
    """Return whether ``host`` is written as this machine. Names are not resolved."""
    address = parse_address(host)
    return is_localhost(host) if address is None else _in_any(address, (*LOOPBACK, *_UNSPECIFIED))


def is_private_address(host: str) -> bool | None:
    """Return whether the address ``host`` is loopback or in a private network, or None for a name."""
    address = parse_address(host)
    return None if address is None else _in_any(address, (*PRIVATE, *_UNSPECIFIED))


def is_local(host: str) -> bool:
    """Return whether ``host`` is loopback or in a private network.

    Names are not resolved: False for a name other than localhost.
    """
    return is_loopback(host) or is_private_address(host) is True


# --- airgap -------------------------------------------------------------------------------------------


def check_endpoint(endpoint: str | None, *, trust_env: bool, backend: str | None = None) -> None:
    """Raise AirgapError if the endpoint is a public address, or if proxies are allowed.

    A name is checked when it is resolved, by ``check_addresses``.
    """
    address = parse_address(urlsplit(endpoint or "").hostname or "")
    if address is not None and not _in_any(address, PRIVATE):
        raise AirgapError(f"the endpoint {endpoint} is {_OUTSIDE}", endpoint=endpoint, backend=backend)
    if trust_env:
        problem = f"a proxy could forward requests for {endpoint} anywhere, and airgap is on; remove trust_env"
        raise AirgapError(problem, endpoint=endpoint, key="trust_env", backend=backend)


def check_addresses(host: str, addresses: Collection[str]) -> None:
    """Raise AirgapError unless every address of ``host`` is loopback or private.

    Those of localhost must be loopback. All are checked, since any of them may be connected to.
    """
    allowed = LOOPBACK if is_localhost(host) else PRIVATE
    for text in addresses:
        address = parse_address(text.partition("%")[0])
        if address is None or not _in_any(address, allowed):
            subject = f"{host} is" if text == host else f"{host} resolves to {text}, which is"
            raise AirgapError(f"{subject} {_OUTSIDE if allowed is PRIVATE else 'not loopback'}")


_OUTSIDE = "neither loopback nor in a private network; nothing was sent to it"
