"""Request headers, checked once for all requests that share them."""

from __future__ import annotations

from collections.abc import Mapping

from ctxbackends._util.secrets import MaskedHeaders
from ctxbackends.errors import ConfigError


class CheckedHeaders(MaskedHeaders):
    """All headers of a request, looked at by :func:`checked_headers`."""


def check_headers(headers: Mapping[str, str]) -> CheckedHeaders:
    """Raises ConfigError where a name or value would end its line, or is not ASCII, which no two servers read alike."""
    masked = CheckedHeaders(headers)
    bad_name = next((name for name in masked if not _is_line_safe(name) or not _is_line_safe(masked[name])), None)
    if bad_name is not None:
        raise ConfigError(f"the header {bad_name!a} holds line breaks, other controls or non-ASCII characters")
    return masked


def _is_line_safe(text: str) -> bool:
    return text.isascii() and text.isprintable()
