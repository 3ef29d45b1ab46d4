"""Endpoints: check a URL and bring it to one form."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import urlsplit

from ctxbackends._config.display import display_value, has_unsafe_characters
from ctxbackends._util.key_shapes import looks_like_key
from ctxbackends.errors import (
    InvalidEndpointError,
)

# --- endpoints ----------------------------------------------------------------------------------------

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?", re.ASCII)
ENDPOINT_HINT = "write it like http://localhost:8080"


def normalise_endpoint(url: str) -> str:
    """The base URL of a server: no trailing slash, and no trailing ``/v1``, which the codec adds.

    Raises InvalidEndpointError, which shows no more of the URL than its scheme and host, and nothing of it where it
    holds credentials.
    """
    given: Any = url
    if not isinstance(given, str) or not given:
        raise InvalidEndpointError(f"the endpoint is empty or no text; {ENDPOINT_HINT}", key="endpoint")
    if any(c.isspace() for c in url) or has_unsafe_characters(url):
        raise _bad_endpoint("contains white space or control characters", url)
    if "?" in url or "#" in url:
        raise _bad_endpoint("has a query or a fragment; only scheme, host, port and a path belong here", url)
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise _bad_endpoint(f"does not begin with http:// or https://; {ENDPOINT_HINT}", url)
    if "@" in rest.partition("/")[0]:
        raise _bad_endpoint("holds a user name or password; put the key into an environment variable", url)
    parts = _split(url)
    if parts is None:
        raise _bad_endpoint(f"has a bad host or port; {ENDPOINT_HINT}", url)
    scheme, host, port, path = parts
    path = path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{scheme}://{host}{'' if port is None else f':{port}'}{path}"


def _split(url: str) -> tuple[str, str, int | None, str] | None:
    """Scheme, host, port and path; None for a bad host or port, since Python's errors repeat what stands there."""
    try:  # urlsplit refuses unbalanced brackets, .port what is no port, ipaddress what is in brackets and no address
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
        valid = port != 0 and (_HOST.fullmatch(host) or (":" in host and not IPv6Address(host).scope_id))
    except ValueError:
        return None
    host = f"[{host}]" if ":" in host else host
    # urlsplit passes over what stands between "]" and the port, an empty port, and the brackets around a name.
    written = parts.netloc.lower() if port is None else parts.netloc.lower().rpartition(":")[0]
    return (parts.scheme, host, port, parts.path) if valid and written == host else None


def _bad_endpoint(problem: str, url: str) -> InvalidEndpointError:
    # Past the host there may be a token in the path or the query; an "@" anywhere may follow a password.
    start = re.sub(r"^((?:[A-Za-z][A-Za-z0-9+.-]*://)?[^/?#\\]*).*", r"\1", url, flags=re.DOTALL)
    what = "the endpoint" if "@" in url or looks_like_key(start) else f"the endpoint {display_value(start)}"
    return InvalidEndpointError(f"{what} {problem}", key="endpoint")
