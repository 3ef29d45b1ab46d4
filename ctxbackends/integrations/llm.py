"""The plugin for the command line tool llm: the backends of the nearest ``.ctxrc`` as models.

llm loads this module by its entry point for each command, so the rest is imported on use, and nothing in a ``.ctxrc``
raises here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ctxbackends.integrations._common import require_extra

with require_extra("llm"):
    from llm import hookimpl

if TYPE_CHECKING:
    from ctxbackends.integrations._llm.models import AsyncCtxModel, CtxEmbeddingModel, CtxModel

__all__ = ("AsyncCtxModel", "CtxEmbeddingModel", "CtxModel")

_reported: set[str] = set()


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from ctxbackends.integrations._llm import models  # slow, and needs a current llm

    return getattr(models, name)


@hookimpl
def register_models(register: Callable[..., None]) -> None:
    """Register ``ctx``, the default backend, and ``ctx/NAME`` for each backend of the nearest ``.ctxrc``."""
    with _report_errors():
        from ctxbackends.integrations._common import list_backends
        from ctxbackends.integrations._llm.models import AsyncCtxModel, CtxModel

        register(CtxModel(), AsyncCtxModel())
        for name in list_backends():
            register(CtxModel(name), AsyncCtxModel(name))


@hookimpl
def register_embedding_models(register: Callable[..., None]) -> None:
    """Register ``ctx/NAME`` for each backend of the nearest ``.ctxrc`` that supports embeddings."""
    with _report_errors():
        from ctxbackends.integrations._common import list_backends
        from ctxbackends.integrations._llm.models import CtxEmbeddingModel

        for name in list_backends():
            model = CtxEmbeddingModel(name)
            if model.is_supported:
                register(model)


@contextmanager
def _report_errors() -> Iterator[None]:
    """Print an error once for each process."""
    try:
        yield
    except Exception as error:  # noqa: BLE001  # llm has other models, which stay usable
        message = f"ctxbackends: {error}"
        if message not in _reported:
            _reported.add(message)
            print(message, file=sys.stderr)  # noqa: T201  # llm shows no logs
