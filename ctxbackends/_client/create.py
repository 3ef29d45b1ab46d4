"""Creates the backend of a configuration: with observers if its transport has some."""

from __future__ import annotations

from ctxbackends._client.http_backend import HTTPBackend
from ctxbackends._client.launcher import Launcher
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._http.transport import Transport
from ctxbackends._profiles.profile import Profile


def create_backend(
    config: BackendConfig, *, profile: Profile, transport: Transport, launcher: Launcher | None = None
) -> HTTPBackend:
    """Return a backend over HTTP. Raise ConfigError if the configuration is not valid."""
    if not transport.observers:
        return HTTPBackend(config, profile=profile, transport=transport, launcher=launcher)
    from ctxbackends._client.observed import ObservedBackend  # noqa: PLC0415  # needed only with observers

    return ObservedBackend(config, profile=profile, transport=transport, launcher=launcher)
