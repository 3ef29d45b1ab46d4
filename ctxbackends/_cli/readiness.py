"""The wait for a server and for its answer, of an operation that reports no progress itself."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from ctxbackends._cli.terminal import waiting


@asynccontextmanager
async def ready(backend: Any, operation: str) -> AsyncIterator[None]:
    """Wait until the server is ready, and show that and the wait for the answer, to the end of the block.

    There is nothing to wait for if the backend does not support ``operation``.
    """
    with waiting() as line:
        if backend.refusal(operation) is None:
            await backend.wait_ready(on_progress=line)
            line.show("waiting for the answer")
        yield
