"""Use a backend in other frameworks. Each module needs the extra of its framework, and is the only one to import it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctxbackends._lazy import install

__all__: list[str]

if TYPE_CHECKING or not install(__name__):
    from ctxbackends.integrations._common import close_backends as close_backends
