"""Look up and check the API key of a backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ctxbackends._config.request_settings import SECRET_HEADERS
from ctxbackends._profiles.profile import Profile
from ctxbackends.errors import ConfigError, MissingKeyError

if TYPE_CHECKING:
    from ctxbackends._config.backend_config import BackendConfig


def find_api_key(config: BackendConfig, profile: Profile, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """Return the API key and its source: the name of a variable, or ``api_key argument``. None if no key is sent.

    Raises:
        MissingKeyError: The variable in ``api_key_env`` is unset or empty.
        ConfigError: The key contains characters that cannot be sent in a header. The message does not show the key.
    """
    if config.api_key is not None:
        return config.api_key, "api_key argument"
    variable = profile.default_key_variable if config.api_key_env is None else config.api_key_env
    if not variable:
        return None
    key = environ.get(variable, "")
    if not key:
        if config.api_key_env is None:
            return None
        raise MissingKeyError(variable, backend=config.name)
    if not is_header_text(key):
        del key  # tracebacks can show local variables
        raise invalid_key_error(f"the variable {variable}", backend=config.name, field="api_key_env")
    return key, variable


def find_vendor_variable(config: BackendConfig, profile: Profile) -> str | None:
    """Return the usual variable of a vendor's API key if its own endpoint would be asked without another credential.

    Vendors are on the internet; a server of the user may need no key.
    """
    default = profile.default_endpoint or ""
    if config.api_key_env is not None or config.endpoint != default or not default.startswith("https://"):
        return None
    headers = {name.lower() for name in (*(config.headers or ()), *(config.headers_env or ()))}
    others = (config.api_key, config.basic_auth_env, config.client_cert, config.query)
    has_other = any(other is not None for other in others) or not SECRET_HEADERS.isdisjoint(headers)
    return None if has_other else profile.default_key_variable


def is_header_text(text: str) -> bool:
    """Return whether ``text`` is visible ASCII only. Servers reject the rest, and a line break injects a header."""
    return all("!" <= c <= "~" for c in text)


def invalid_key_error(source: str, *, backend: str, field: str) -> ConfigError:
    """Return the error for a key that is not header text; it does not contain the key."""
    kind = "variable" if field == "api_key_env" else "argument"
    problem = f"invalid API key in {source}: it contains spaces, a line break or non-ASCII characters; check the {kind}"
    return ConfigError(problem, key=field, backend=backend)
