"""The number of kinds in one question, and whether it has example turns, by the size of the model."""

from __future__ import annotations

import attrs

from ctxbackends._chat.servers import ServerStatus
from ctxbackends._client.backend import Backend
from ctxbackends.errors import BackendError

SMALL_MODEL = 4_000_000_000
"""Parameters. A smaller model follows a task with one kind of record, and loses track of several."""

TINY_MODEL = 1_000_000_000
"""Parameters. A smaller model repeats the example of a task, and follows example turns."""

SMALL_CONTEXT = 4_096
"""Tokens. If the server does not report the size of the model, this context or a smaller one means a small model."""


@attrs.frozen
class ModelSize:
    """The size of a model, as far as the server reports it.

    Attributes:
        parameters: The number of parameters.
        context_length: The context in tokens.
    """

    parameters: int | None
    context_length: int | None

    @property
    def kinds_per_question(self) -> int | None:
        """1 for a small model, None (all kinds in one question) for another one."""
        if self.parameters is not None:
            return 1 if self.parameters < SMALL_MODEL else None
        return 1 if self.context_length is not None and self.context_length <= SMALL_CONTEXT else None

    @property
    def needs_turns(self) -> bool:
        """Whether the questions have example turns."""
        return self.parameters is not None and self.parameters < TINY_MODEL


async def read_model_size(backend: Backend, status: ServerStatus, *, model: str | None) -> ModelSize:
    """Return the size of a model.

    Args:
        backend: The backend, which lists its models if ``status`` is about another one.
        status: The status of the server.
        model: The model that the run requests; None for the backend's default.
    """
    size = ModelSize(status.parameters, status.context_length)
    if model is None or model == status.model:
        return size
    try:
        models = await backend.models()
    except BackendError:  # a server without a list; nothing else of the run needs it
        return size
    info = next((info for info in models if model in (info.id, *info.aliases)), None)
    return size if info is None else ModelSize(info.parameters, info.context_length or size.context_length)
