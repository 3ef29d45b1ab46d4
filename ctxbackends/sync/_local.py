"""Serve a model file without async."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Unpack

from ctxbackends import local
from ctxbackends._chat.events import OnProgress
from ctxbackends._chat.observer import Observer
from ctxbackends._config.backend_settings import BackendSettings
from ctxbackends.local._options import ServeModelKeywords
from ctxbackends.sync._backend import SyncBackend
from ctxbackends.sync._loop_thread import Closer, close, shared


def serve_model(
    model_path: str | Path,
    *,
    name: str = "local",
    on_progress: OnProgress | None = None,
    settings: BackendSettings | None = None,
    observers: Iterable[Observer] = (),
    **options: Unpack[ServeModelKeywords],
) -> SyncBackend:
    """Start a llama.cpp server and return a ready backend for it.

    ``with serve_model("model.gguf") as backend`` ends the server at the end of the block; otherwise ``backend.close()``
    does.

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
    inbox: SimpleQueue[Any] = SimpleQueue()
    serving = local.serve_model(
        model_path,
        name=name,
        on_progress=None if on_progress is None else inbox.put,
        settings=settings,
        observers=observers,
        **options,
    )
    try:
        backend = SyncBackend(shared.thread.call(serving.__aenter__, inbox=inbox, report=on_progress))
    except BaseException:  # this thread may have been interrupted after the server had started
        close(lambda: serving.__aexit__(None, None, None))
        raise
    backend._registry_closer = Closer(backend.async_backend.aclose)
    shared.close_at_exit(backend.async_backend)
    return backend
