"""Request headers, checked once for all requests that share them."""

from __future__ import annotations

from collections.abc import Mapping

from ctxbackends._util.secrets import MaskedHeaders
from ctxbackends.errors import ConfigError


class CheckedHeaders(MaskedHeaders):
    """The headers of a request, after :func:`check_headers`."""


def check_headers(headers: Mapping[str, str]) -> CheckedHeaders:
    """Return ``headers``, or raise ConfigError for line breaks, control and non-ASCII characters.

    Servers decode non-ASCII headers differently.
    """
    masked = CheckedHeaders(headers)
    bad_name = next((name for name in masked if not _is_line_safe(name) or not _is_line_safe(masked[name])), None)
    if bad_name is not None:
        raise ConfigError(
            f"the header {bad_name!a} has line breaks, control characters or non-ASCII characters; remove them"
        )
    return masked


def _is_line_safe(text: str) -> bool:
    return text.isascii() and text.isprintable()
