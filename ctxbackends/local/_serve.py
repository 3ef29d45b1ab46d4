"""Serve a model file and return a backend for it."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Unpack

import attrs

from ctxbackends._chat.events import OnProgress
from ctxbackends._chat.observer import Observer
from ctxbackends._client.backend_context import BackendContext
from ctxbackends._client.create import create_backend
from ctxbackends._client.http_backend import HTTPBackend
from ctxbackends._config.api_key import find_api_key
from ctxbackends._config.backend_config import LOCAL_ONLY, BackendConfig
from ctxbackends._config.backend_settings import BackendSettings
from ctxbackends._http.transport import Transport
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._profiles.profile import BackendType
from ctxbackends._util.secrets import ENVIRONMENT
from ctxbackends.local._options import ServeModelKeywords
from ctxbackends.local._process import LocalServer


def managed_backend(config: BackendConfig, transport: Transport, *, server: LocalServer | None = None) -> HTTPBackend:
    """Return a backend whose server is started on first use.

    Args:
        config: The configuration of the backend, with ``model_path``. If it has no API key, a new one is generated.
        transport: The transport for the requests.
        server: The server; None to create one from the configuration.

    Raises:
        ConfigError: The API key is invalid or missing.
    """
    profile = PROFILES[BackendType.LLAMACPP]
    if server is None:
        assert config.model_path is not None, "only a backend with model_path is managed"
        options: Any = {field: getattr(config, field) for field in LOCAL_ONLY}
        key = (find_api_key(config, profile, ENVIRONMENT) or (fresh_key(),))[0]
        server = LocalServer(config.model_path, alias=config.default_model, api_key=key, **options)
    return create_backend(
        attrs.evolve(
            config, default_model=config.default_model or server.alias, api_key=server.api_key, api_key_env=None
        ),
        profile=profile,
        transport=transport,
        launcher=server,
    )


def fresh_key() -> str:
    """Return a random API key. Web pages and other users of the machine can reach a loopback port."""
    return secrets.token_urlsafe(24)


def serve_model(
    model_path: str | Path,
    *,
    name: str = "local",
    on_progress: OnProgress | None = None,
    settings: BackendSettings | None = None,
    observers: Iterable[Observer] = (),
    **options: Unpack[ServeModelKeywords],
) -> BackendContext[HTTPBackend]:
    """Start a llama.cpp server and open a ready backend for it.

    ``async with serve_model("model.gguf") as backend`` ends the server at the end of the block. ``backend = await
    serve_model("model.gguf")`` runs it until ``await backend.aclose()``.

    The server requires a new random API key, which the backend sends.

    Args:
        model_path: The GGUF file.
        name: Name of the backend.
        on_progress: Called with a `Loading` for each probe while the server starts.
        settings: Fields of BackendConfig, such as timeouts (in seconds) or ``model_mismatch``; no API key.
        observers: Get the facts about every request, see :class:`~ctxbackends.Observer`.
        options: Fields of :class:`~ctxbackends.local.ServerOptions`, without ``api_key``.

    Raises:
        ConfigError: The model file, the port or a setting cannot be used.
        LocalServerUnavailableError: No llama.cpp server is installed.
        ServerDiedError: The server exited while loading the model.
        APITimeoutError: The server was not ready within ``ready_timeout``.
        TypeError: A setting or an option is unknown, or is an API key.
    """

    async def start() -> tuple[HTTPBackend, Callable[[], Awaitable[None]]]:
        for field in ("api_key", "api_key_env"):
            if field in options or field in (settings or {}):
                raise TypeError(
                    f"serve_model() does not accept {field}: it always uses a new key; "
                    "use LocalServer to choose the key"
                )
        server = LocalServer(model_path, api_key=fresh_key(), **options)
        transport = Transport(observers=observers)
        transport.closes_with_backend = True
        fields: BackendSettings = {**(settings or {}), "model_path": str(model_path)}
        config = BackendConfig(name=name, type=BackendType.LLAMACPP, **fields)
        backend = managed_backend(config, transport, server=server)
        try:
            await backend.wait_ready(on_progress=on_progress)
        except BaseException:
            await backend.aclose()
            raise
        return backend, backend.aclose

    return BackendContext(start)
