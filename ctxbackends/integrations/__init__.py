"""Use a backend in other frameworks. Only the module of a framework imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ctxbackends._lazy import install

__all__: list[str]

if TYPE_CHECKING or not install(__name__):
    from ctxbackends.integrations._common import close_backends as close_backends
