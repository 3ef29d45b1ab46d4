"""Which endpoints are private. In doubt an endpoint is public."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

import anyio

from ctxbackends._http.addresses import is_localhost, is_private_address


async def is_private(endpoint: str) -> bool:
    """Return whether an endpoint is on this machine or in a private network.

    A host name is private if all its addresses are. One that cannot be resolved is public.
    """
    host = urlsplit(endpoint).hostname or ""
    if not host or is_localhost(host):
        return bool(host)
    is_address_inside = is_private_address(host)
    if is_address_inside is not None:
        return is_address_inside
    try:
        addresses = await anyio.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return False
    return bool(addresses) and all(is_private_address(str(one[4][0]).partition("%")[0]) is True for one in addresses)
