"""The headers of the requests to one server."""

from __future__ import annotations

from collections.abc import Mapping

from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._util.secrets import MaskedHeaders
from ctxbackends.errors import ConfigError


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
