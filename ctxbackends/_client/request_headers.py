"""The headers of the requests to one server."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

import attrs

from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.variables import expand_variables, find_variables
from ctxbackends._util.secrets import MaskedHeaders, Secret
from ctxbackends.errors import ConfigError

_SECRET_NAME = re.compile("auth|cookie|credential|key|passw|secret|session|token", re.IGNORECASE)


@attrs.frozen
class CallHeaders:
    """The headers of one call besides those of the backend.

    Attributes:
        headers: The headers.
        secrets: The values that messages must not show.
    """

    headers: MaskedHeaders
    secrets: tuple[Secret, ...]

    def merge_into(self, headers: Mapping[str, str]) -> MaskedHeaders:
        """Return ``headers`` with those of the call, which replace others of the same name."""
        names = {name.lower() for name in self.headers}
        kept = {name: value for name, value in headers.items() if name.lower() not in names}
        return MaskedHeaders({**kept, **self.headers})


def build_call_headers(
    headers: Mapping[str, str], environ: Mapping[str, str], *, fixed: Collection[str], backend: str
) -> CallHeaders:
    """Return the headers of a call with the values of their variables.

    Args:
        headers: The headers of its options.
        environ: Contains the variables.
        fixed: Headers that a call cannot replace, in lower case.
        backend: The backend's name, for errors.

    Raises:
        MissingKeyError: A variable is unset or empty.
        ConfigError: A header is one of ``fixed``.
    """
    expanded, secrets = MaskedHeaders(), list[Secret]()
    for name, text in headers.items():
        if name.lower() in fixed:
            raise ConfigError(
                f"the header {name} is set by the configuration of the backend; remove it from the request",
                key="headers",
                backend=backend,
            )
        expanded[name] = expand_variables(text, environ, backend=backend, purpose=f"a part of the header {name}")
        secrets += [Secret(environ.get(variable, "")) for variable in find_variables(text)]
        if _SECRET_NAME.search(name):
            secrets.append(Secret(expanded[name]))
    return CallHeaders(expanded, tuple(secrets))


def find_fixed_headers(config: BackendConfig, *headers: Mapping[str, str]) -> frozenset[str]:
    """Return the headers that a call cannot replace, in lower case: ``headers``, and configured credentials."""
    names = {name for each in headers for name in each}
    names |= {name for name, value in (config.headers or {}).items() if find_variables(value)}
    names |= {*(config.headers_env or ())}
    if config.basic_auth_env is not None:
        names.add("Authorization")
    return frozenset(name.lower() for name in names)


def merge_headers(
    common: Mapping[str, str], auth: Mapping[str, str], own: Mapping[str, str], key_is_explicit: bool, backend: str
) -> MaskedHeaders:
    """Return all headers. A header of the configuration replaces a key from the type's default variable."""
    headers = MaskedHeaders(common)
    names = {name.lower() for name in own}
    for name, value in auth.items():
        if name.lower() not in names:
            headers[name] = value
        elif key_is_explicit:
            raise ConfigError(
                f"the header {name} carries the API key already; remove it, or set api_key_env to an empty string",
                key="headers",
                backend=backend,
            )
    twice = next((name for name in common if name.lower() in names), None)
    if twice is not None:
        raise ConfigError(f"the header {twice} is set by another setting too", key="headers", backend=backend)
    headers.update(own)
    return headers


def build_account_headers(config: BackendConfig) -> dict[str, str]:
    # https://platform.openai.com/docs/api-reference/authentication
    headers = {"OpenAI-Organization": config.organization, "OpenAI-Project": config.project}
    return {header: value for header, value in headers.items() if value is not None}
