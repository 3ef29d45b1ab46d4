"""How a worker process opens a backend."""

from __future__ import annotations

import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import attrs

from ctxbackends._client.backend import Backend
from ctxbackends._config.backend_config import BackendConfig
from ctxbackends._engines.contract import EngineError
from ctxbackends._registry import Registry


@attrs.frozen
class BackendOpener:
    """Opens a backend in a worker process. It is pickled, and has no key: each worker reads the variable of the key.

    Attributes:
        config: The configuration of the backend, whose server runs already.
        airgap: Connect only to loopback and private addresses.

    Raises:
        EngineError: The configuration contains a secret, or a model file to serve.
    """

    config: BackendConfig
    airgap: bool = False

    def __attrs_post_init__(self) -> None:
        if self.config.model_path is not None:
            raise EngineError(
                f"workers cannot share a server that is started for one command: {self.config.model_path}; "
                "start it with `ctxbackends serve`, and use its endpoint"
            )
        try:
            pickle.dumps(self.config)
        except TypeError as error:
            raise EngineError(str(error)) from None

    @property
    def max_concurrency(self) -> int | None:
        """The most requests at once of all workers; None for the slots of the server."""
        return self.config.max_concurrency

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Backend]:
        """Open the backend. Raises ConfigError, such as MissingKeyError, if this process cannot use it."""
        async with Registry([self.config], airgap=self.airgap) as registry:
            yield registry.resolve(self.config.name)
