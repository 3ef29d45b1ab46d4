"""Request headers, checked once for all requests that share them."""

from __future__ import annotations

from collections.abc import Mapping

from ctxbackends._util.secrets import MaskedHeaders
from ctxbackends.errors import ConfigError


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
