"""The settings of a `.ctxrc` as values to show: without keys, and without passwords in URLs."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import attrs

from ctxbackends._config.backend_config import DURATION_FIELDS, BackendConfig
from ctxbackends._config.served_as import ANY_MODEL
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._util.api_key_shapes import MASK, mask_keys

_USER = re.compile(r"(?<=://)[^/?#\\]*@")


def mask_url(url: str) -> str:
    """Return ``url`` with user, password and keys masked."""
    return mask_keys(_USER.sub(f"{MASK}@", url))[0]


def summarise(config: BackendConfig, environ: Mapping[str, str]) -> dict[str, Any]:
    """Return the settings of a backend that have a value, with the endpoint and the key variable of its type.

    Durations are seconds. ``api_key_set`` tells whether the variable of the key is set; its value is not read further.
    """
    values: dict[str, Any] = {
        field.name: _simplify(getattr(config, field.name))
        for field in attrs.fields(BackendConfig)
        if field.name in ("name", "type") or (field.name != "api_key" and getattr(config, field.name) != field.default)
    }
    endpoint, variable = find_endpoint(config), find_key_variable(config)
    if endpoint is not None:
        values["endpoint"] = endpoint
    if variable:
        values["api_key_env"] = variable
        values["api_key_set"] = bool(environ.get(variable))
    return values


def find_endpoint(config: BackendConfig) -> str | None:
    """Return the endpoint of the backend or of its type, masked; None for a model that is served here."""
    return mask_url(config.endpoint) if config.endpoint is not None else None


def find_key_variable(config: BackendConfig) -> str | None:
    """Return the environment variable of the API key; None or ``""`` if no key is sent."""
    profile = PROFILES.get(config.type)
    if config.api_key_env is not None or profile is None:
        return config.api_key_env
    return profile.default_key_variable


def credential_variables(config: BackendConfig) -> tuple[str, ...]:
    """Return the environment variables that the configuration names for its credentials."""
    names = (config.api_key_env, config.basic_auth_env, *(config.headers_env or {}).values())
    return tuple(name for name in names if name)


def format_setting(field: str, value: Any) -> str:
    """Return a value of :func:`summarise` as it is written in the file."""
    if isinstance(value, bool):
        return str(value).lower()
    if field in (*DURATION_FIELDS, "keep_alive"):
        return "forever" if value == math.inf else f"{value:.15g}s"
    if isinstance(value, list):
        return f"[{', '.join(value)}]"
    if isinstance(value, dict):
        return f"{{{', '.join(f'{name}: {format_setting(name, one)}' for name, one in value.items())}}}"
    return str(value)


def _simplify(value: Any) -> Any:
    if isinstance(value, Mapping):
        simple = {name: _simplify(one) for name, one in value.items()}
        return simple[ANY_MODEL] if list(simple) == [ANY_MODEL] else simple
    if isinstance(value, tuple | list | frozenset):
        return [_simplify(one) for one in value]
    return mask_keys(str(value))[0] if isinstance(value, str) else value
