"""The route to the server of one backend, by its configuration: the proxy and the TLS context."""

from __future__ import annotations

import attrs

from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._config.request_settings import ResolvedSettings
from ctxbackends._http.addresses import check_endpoint
from ctxbackends._http.proxy import DIRECT, Route, find_proxy_route
from ctxbackends._http.tls import build_tls_context
from ctxbackends.errors import ConfigError


def build_route(config: BackendConfig, settings: ResolvedSettings, *, airgap: bool) -> Route:
    """Return how requests reach the server. Raise ConfigError or AirgapError; nothing is sent."""
    base_url = settings.api.base
    if airgap:
        check_endpoint(settings.endpoint, trust_env=config.trust_env, backend=config.name)
    route = find_proxy_route(base_url, backend=config.name) if config.trust_env else DIRECT
    tls = build_tls_context(
        ca_bundle=config.ca_bundle,
        client_cert=config.client_cert,
        client_key=config.client_key,
        backend=config.name,
    )
    if tls is not None and not base_url.startswith("https://"):
        key = "ca_bundle" if config.ca_bundle is not None else "client_cert"
        raise ConfigError("requires an https:// endpoint", key=key, backend=config.name)
    hint = ""
    if base_url.startswith("https://") and config.client_cert is None:
        # Servers on asyncio (uvicorn, and so vLLM) end such a handshake without an alert.
        hint = "; the server may require a client certificate (client_cert)"
    if route.proxy is not None:
        hint += f"; the request went through the proxy {route.proxy}"
    return attrs.evolve(route, tls=tls, hint=hint)
