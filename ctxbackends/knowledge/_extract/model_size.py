"""The number of kinds in one question, and whether it has example turns, by the size of the model."""

from __future__ import annotations

from ctxbackends._chat.servers import ServerStatus
from ctxbackends._client.backend import Backend
from ctxbackends.errors import BackendError

SMALL_MODEL = 4_000_000_000
"""Parameters. A smaller model follows a task with one kind of record, and loses track of several."""

TINY_MODEL = 1_000_000_000
"""Parameters. A smaller model repeats the example of a task, and follows example turns."""

SMALL_CONTEXT = 4_096
"""Tokens. If the server does not report the size of the model, this context or a smaller one means a small model."""


async def choose_kinds_per_question(backend: Backend, status: ServerStatus, *, model: str | None) -> int | None:
    """Return 1 for a small model, None (all kinds in one question) for another one.

    Args:
        backend: The backend, which lists its models if ``status`` is about another one.
        status: The status of the server.
        model: The model that the run requests; None for the backend's default.
    """
    parameters, context_length = await _find_size(backend, status, model)
    if parameters is not None:
        return 1 if parameters < SMALL_MODEL else None
    return 1 if context_length is not None and context_length <= SMALL_CONTEXT else None


async def needs_turns(backend: Backend, status: ServerStatus, *, model: str | None) -> bool:
    """Return whether the questions have example turns. The arguments are those of `choose_kinds_per_question`."""
    parameters, _ = await _find_size(backend, status, model)
    return parameters is not None and parameters < TINY_MODEL


async def _find_size(backend: Backend, status: ServerStatus, model: str | None) -> tuple[int | None, int | None]:
    """Return the parameters and the context length of a model, as far as the server reports them."""
    parameters, context_length = status.parameters, status.context_length
    if model is not None and model != status.model:
        try:
            models = await backend.models()
        except BackendError:  # a server without a list; nothing else of the run needs it
            models = ()
        info = next((info for info in models if model in (info.id, *info.aliases)), None)
        if info is not None:
            parameters, context_length = info.parameters, info.context_length or context_length
    return parameters, context_length
