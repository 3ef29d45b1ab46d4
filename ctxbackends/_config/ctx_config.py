"""The settings of a `.ctxrc` that concern this package."""

from __future__ import annotations

from pathlib import Path

import attrs

from ctxbackends._config.backend_config import BackendConfig


@attrs.frozen(kw_only=True)
class CtxConfig:
    """The settings of a ``.ctxrc`` that concern this package.

    Attributes:
        backends: The backends, in the order of the file.
        default_backend: Name of the default backend; None if there is none.
        airgap: Whether only loopback and private endpoints are allowed. Default False.
        redact: Globs, relative to the directory of the file. Matching files are sent only to loopback and private
            endpoints by the ``ctx`` commands.
        path: The file; None without one.
    """

    backends: tuple[BackendConfig, ...] = ()
    default_backend: str | None = None
    airgap: bool = False
    redact: tuple[str, ...] = ()
    path: Path | None = None
