"""Check and normalise the URL of an endpoint, and decide where its API begins."""

from __future__ import annotations

import re
import warnings
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import urlsplit

import attrs

from ctxbackends._config.display import display_value, has_unsafe_characters
from ctxbackends._config.variables import REFERENCE_HINT, find_variables, has_broken_reference
from ctxbackends._util.api_key_shapes import looks_like_key
from ctxbackends.errors import EndpointWarning, InvalidEndpointError

_HOST = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_.])?", re.ASCII)
ENDPOINT_HINT = "write it like http://localhost:8080"
V1 = "/v1"
"""The path of the OpenAI and the Anthropic API, unless a server has another one."""
_VERSION = re.compile(r"v[0-9]+(\.[0-9]+)?([a-z]+[0-9]*)?", re.ASCII | re.IGNORECASE)  # v4, v1beta, v1alpha2
_ROUTE = re.compile(
    r"/(chat/completions|completions|embeddings|responses|messages|models|api/(chat|generate|embed|embeddings|tags))/*\Z",
    re.ASCII,
)
_ALSO_BASES = ("messages", "models")
"""Routes only below the path of an API: Azure AI Foundry has an API that begins at ``/models``."""


@attrs.frozen(kw_only=True)
class APIRoot:
    """Where the API of a server begins.

    Attributes:
        base: The base URL, without the path of the API; the server's own endpoints are below it.
        url: The URL in front of ``/chat/completions``.
        other: The URL to try once if ``url`` responds with 404; None if the path is certain.
    """

    base: str
    url: str
    other: str | None = None

    @property
    def path(self) -> str:
        """The path between ``base`` and a route, ``/`` for none: a value for ``api_path``."""
        return self.url[len(self.base) :] or "/"


def find_api_root(endpoint: str, *, api_path: str | None = None, preset: str | None = None) -> APIRoot:
    """Return where the API of ``endpoint`` begins.

    Args:
        endpoint: A result of :func:`normalise_endpoint`, without variables.
        api_path: The path in the configuration of the backend; nothing else is tried then.
        preset: The path of the backend type, for an endpoint without a path.
    """
    path = urlsplit(endpoint).path
    certain = api_path if api_path is not None else preset if not path else None
    if certain is not None:
        return APIRoot(base=endpoint, url=endpoint + certain.rstrip("/"))
    last = path.rpartition("/")[2]
    forms = (endpoint + V1, endpoint)
    url, other = reversed(forms) if _is_api_segment(last) else forms
    return APIRoot(base=endpoint, url=url, other=other)


def normalise_endpoint(url: str, *, api_path: str = V1) -> str:
    """Return the base URL of a server, without a trailing slash, a route and the path of the API.

    A URL with references to variables is returned as it is written.

    Args:
        url: The URL as the user writes it.
        api_path: The path of the API, which is added to the base URL later.

    Raises:
        InvalidEndpointError: ``url`` is not an http(s) URL. The message shows at most its scheme and host, and nothing
            if the URL contains credentials.
    """
    value: Any = url
    if not isinstance(value, str) or not value:
        raise InvalidEndpointError(f"must be a non-empty string; {ENDPOINT_HINT}", key="endpoint")
    if any(c.isspace() for c in url) or has_unsafe_characters(url):
        raise _bad_endpoint("it contains white space or control characters", url)
    if has_broken_reference(url):
        raise InvalidEndpointError(f"invalid reference to a variable; {REFERENCE_HINT}", key="endpoint")
    if find_variables(url):
        return url
    if "?" in url or "#" in url:
        raise _bad_endpoint(
            "it contains a query or a fragment; write only scheme, host, port and path, and the query in the "
            "setting query",
            url,
        )
    scheme, separator, rest = url.partition("://")
    if not separator or scheme.lower() not in ("http", "https"):
        shown = _describe(url)
        problem = f"must start with http:// or https://; {ENDPOINT_HINT}"
        raise InvalidEndpointError(f"{shown} {problem}" if shown else f"invalid URL: it {problem}", key="endpoint")
    if "@" in rest.partition("/")[0]:
        raise _bad_endpoint(
            "it contains a user name or password; put the key in an environment variable, or user:password in one "
            "that basic_auth_env names",
            url,
        )
    parts = _split(url)
    if parts is None:
        raise _bad_endpoint(f"the host or port is invalid; {ENDPOINT_HINT}", url)
    scheme, host, port, path = parts
    path = remove_route(path, "endpoint").rstrip("/").removesuffix(api_path.rstrip("/")).rstrip("/")
    return f"{scheme}://{host}{'' if port is None else f':{port}'}{path}"


def remove_route(path: str, key: str) -> str:
    """Return ``path`` without a route such as ``/chat/completions`` at its end, with a warning if it had one."""
    match = _ROUTE.search(path)
    if match is None:
        return path
    base = path[: match.start()]
    if match[1] in _ALSO_BASES and not _is_api_segment(base.rpartition("/")[2]):
        return path
    problem = f"{key}: /{match[1]} was removed from the end, since the SDK adds the route of each request"
    warnings.warn(problem, EndpointWarning, stacklevel=2)
    return base


def _is_api_segment(segment: str) -> bool:
    """Return whether a path that ends in ``segment`` is the path of an API."""
    return segment == "openai" or _VERSION.fullmatch(segment) is not None


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
    return InvalidEndpointError(f"{f'invalid URL {_describe(url)}'.rstrip()}: {problem}", key="endpoint")


def _describe(url: str) -> str:
    """Return scheme and host in quotation marks; nothing if they contain a secret."""
    # A path or query can contain a token, and text before an "@" a password.
    start = re.sub(r"^((?:[A-Za-z][A-Za-z0-9+.-]*://)?[^/?#\\]*).*", r"\1", url, flags=re.DOTALL)
    return "" if "@" in url or looks_like_key(start) else display_value(start)
