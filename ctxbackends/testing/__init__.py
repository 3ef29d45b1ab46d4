"""Helpers for the tests of programs that use model servers.

``FaultServer`` and ``faults`` simulate server failures; ``cached_model``, ``TinyModel`` and ``VARIANTS`` create tiny
models for a real server. The pytest plugin has fixtures for them. Nothing else in the library imports this package.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctxbackends.testing import faults as faults
    from ctxbackends.testing.faults.server import FaultServer as FaultServer
    from ctxbackends.testing.tiny_gguf import VARIANTS as VARIANTS
    from ctxbackends.testing.tiny_gguf import TinyModel as TinyModel
    from ctxbackends.testing.tiny_gguf import cached_model as cached_model

# The models need the extra `testing`, the faults do not.
_HOMES = {
    "FaultServer": "faults.server",
    "VARIANTS": "tiny_gguf",
    "TinyModel": "tiny_gguf",
    "cached_model": "tiny_gguf",
}

__all__ = ["VARIANTS", "FaultServer", "TinyModel", "cached_model", "faults"]


def __getattr__(name: str) -> Any:
    if name == "faults":
        return import_module("ctxbackends.testing.faults")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"ctxbackends.testing.{_HOMES[name]}"), name)
