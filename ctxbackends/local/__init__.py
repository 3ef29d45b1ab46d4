"""The embedded llama.cpp server: a model file in, a ready backend out. Public names, imported on first use; the process
is `server`'s, the child's own code is `worker`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctxbackends.local.options import ServerOptions as ServerOptions
    from ctxbackends.local.serve import managed_backend as managed_backend
    from ctxbackends.local.serve import serve_model as serve_model
    from ctxbackends.local.server import LocalServer as LocalServer

_HOMES = {
    "LocalServer": "ctxbackends.local.server",
    "ServerOptions": "ctxbackends.local.options",
    "managed_backend": "ctxbackends.local.serve",
    "serve_model": "ctxbackends.local.serve",
}

__all__ = ["LocalServer", "ServerOptions", "managed_backend", "serve_model"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module  # noqa: PLC0415  # only on use

    return getattr(import_module(_HOMES[name]), name)
