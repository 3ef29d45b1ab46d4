"""Check and normalise the URL of an endpoint."""

from __future__ import annotations

import re
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import urlsplit

from ctxbackends._config.display import display_value, has_unsafe_characters
from ctxbackends._util.api_key_shapes import looks_like_key
from ctxbackends.errors import InvalidEndpointError

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?", re.ASCII)
ENDPOINT_HINT = "write it like http://localhost:8080"


def normalise_endpoint(url: str) -> str:
    """Return the base URL of a server, without a trailing slash and without ``/v1``, which the codec adds.

    Raises:
        InvalidEndpointError: ``url`` is not an http(s) URL. The message shows at most its scheme and host, and nothing
            if the URL contains credentials.
    """
    value: Any = url
    if not isinstance(value, str) or not value:
        raise InvalidEndpointError(f"must be a non-empty string; {ENDPOINT_HINT}", key="endpoint")
    if any(c.isspace() for c in url) or has_unsafe_characters(url):
        raise _bad_endpoint("it contains white space or control characters", url)
    if "?" in url or "#" in url:
        raise _bad_endpoint("it contains a query or a fragment; write only scheme, host, port and path", url)
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        raise _bad_endpoint(f"it must begin with http:// or https://; {ENDPOINT_HINT}", url)
    if "@" in rest.partition("/")[0]:
        raise _bad_endpoint("it contains a user name or password; put the key in an environment variable", url)
    parts = _split(url)
    if parts is None:
        raise _bad_endpoint(f"the host or port is invalid; {ENDPOINT_HINT}", url)
    scheme, host, port, path = parts
    path = path.rstrip("/").removesuffix("/v1").rstrip("/")
    return f"{scheme}://{host}{'' if port is None else f':{port}'}{path}"


def _split(url: str) -> tuple[str, str, int | None, str] | None:
    """Return scheme, host, port and path; None for an invalid host or port, since Python's errors repeat the text."""
    try:  # urlsplit rejects unbalanced brackets, .port invalid ports, and ipaddress an invalid address in brackets
        parts = urlsplit(url)
        port, host = parts.port, parts.hostname or ""
        valid = port != 0 and (_HOST.fullmatch(host) or (":" in host and not IPv6Address(host).scope_id))
    except ValueError:
        return None
    host = f"[{host}]" if ":" in host else host
    # urlsplit ignores text between "]" and the port, an empty port, and brackets around a name.
    netloc = parts.netloc.lower() if port is None else parts.netloc.lower().rpartition(":")[0]
    return (parts.scheme, host, port, parts.path) if valid and netloc == host else None


def _bad_endpoint(problem: str, url: str) -> InvalidEndpointError:
    # A path or query can contain a token, and text before an "@" a password.
    start = re.sub(r"^((?:[A-Za-z][A-Za-z0-9+.-]*://)?[^/?#\\]*).*", r"\1", url, flags=re.DOTALL)
    shown = "" if "@" in url or looks_like_key(start) else f" {display_value(start)}"
    return InvalidEndpointError(f"invalid URL{shown}: {problem}", key="endpoint")
