"""What users of the SDK import in their own tests: tiny models and a running real server. Nothing in the library
imports it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ctxbackends.testing.tiny_gguf import VARIANTS as VARIANTS
    from ctxbackends.testing.tiny_gguf import TinyModel as TinyModel
    from ctxbackends.testing.tiny_gguf import cached_model as cached_model

__all__ = ["VARIANTS", "TinyModel", "cached_model"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ctxbackends.testing import tiny_gguf  # noqa: PLC0415  # needs the extra `testing`

    return getattr(tiny_gguf, name)
