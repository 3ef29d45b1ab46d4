"""Look up and check the API key of a backend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

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


def is_header_text(text: str) -> bool:
    """Return whether ``text`` is visible ASCII only. Servers reject the rest, and a line break injects a header."""
    return all("!" <= c <= "~" for c in text)


def invalid_key_error(source: str, *, backend: str, field: str) -> ConfigError:
    """Return the error for a key that is not header text; it does not contain the key."""
    problem = f"invalid API key in {source}: it contains white space, control or non-ASCII characters; remove them"
    return ConfigError(problem, key=field, backend=backend)
