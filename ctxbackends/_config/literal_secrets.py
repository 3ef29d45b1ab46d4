"""Find secrets that settings contain themselves, instead of a reference to an environment variable."""

from __future__ import annotations

import re
from collections.abc import Mapping

from ctxbackends._config.display import display_name
from ctxbackends._config.request_settings import SECRET_HEADERS
from ctxbackends._config.variables import find_variables, remove_references
from ctxbackends._util.api_key_shapes import looks_like_key

# The last word of the names of headers, parameters and variables that contain a secret, such as X-Access-Token. "code"
# is the key of Azure Functions, and "sig" the signature of a URL.
_SECRET_WORDS = frozenset(
    {"apikey", "auth", "authorization", "code", "cookie", "credential", "credentials", "jwt", "key", "passwd"}
    | {"password", "pwd", "secret", "sig", "signature", "token"}
)


def is_secret_name(name: str) -> bool:
    """Return whether the name of a header, a parameter or a variable says that its value is a secret."""
    return name.lower() in SECRET_HEADERS or re.split("[^a-z0-9]+", name.lower())[-1] in _SECRET_WORDS


def find_literal_secret(
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
    endpoint: str | None = None,
    api_path: str | None = None,
) -> str | None:
    """Return which setting seems to contain a secret itself, without its value; None if none does."""
    for kind, items in (("header", headers), ("query parameter", query)):
        for name, value in (items or {}).items():
            if not find_variables(value) and is_secret_name(name):
                return f"the {kind} {display_name(name)}"
    for setting, path in (("endpoint", endpoint), ("api_path", api_path)):
        if any(map(looks_like_key, remove_references(path or "").split("/"))):
            return setting
    return None
