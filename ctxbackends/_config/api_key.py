"""API keys: look one up in the environment, and refuse one in a file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from ctxbackends._profiles.profile import Profile
from ctxbackends.errors import ConfigError, MissingKeyError

if TYPE_CHECKING:
    from ctxbackends._config.backend_config import BackendConfig


def find_api_key(config: BackendConfig, profile: Profile, environ: Mapping[str, str]) -> tuple[str, str] | None:
    """The key and where it came from (a variable's name, or ``api_key argument``); None where no key is sent.

    Raises MissingKeyError where ``api_key_env`` names a variable that is unset or empty, and ConfigError, without the
    value, where a key could not be a header.
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
        del key  # a traceback may show the values of a frame
        raise invalid_key_error(f"the variable {variable}", backend=config.name, field="api_key_env")
    return key, variable


def is_header_text(text: str) -> bool:
    """Whether ``text`` is visible ASCII alone. A line break in a header is an injected header; servers refuse the
    rest."""
    return all("!" <= c <= "~" for c in text)


def invalid_key_error(source: str, *, backend: str, field: str) -> ConfigError:
    problem = f"{source} holds white space, control characters or non-ASCII characters, which no API key has"
    return ConfigError(problem, key=field, backend=backend)
