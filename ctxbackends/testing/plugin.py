"""The pytest plugin: fixtures for tiny models, a real llama.cpp server and the fault server.

pytest loads it through its entry point; it imports nothing until a test requests a fixture. The llama.cpp server lives
as long as the test session, and each test gets its own backend.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

try:
    from pytest_asyncio import fixture as async_fixture
except ImportError:  # pragma: no cover  # without the extra `testing`, the plugin must not break pytest
    async_fixture = pytest.fixture  # type: ignore[assignment]  # takes one argument less

if TYPE_CHECKING:
    from ctxbackends._client.backend import Backend
    from ctxbackends.local import LocalServer
    from ctxbackends.testing._fault_server.server import FaultServer

CONTEXT_TOKENS = 4096
SLOTS = 2


@pytest.fixture(scope="session")
def tiny_model() -> Callable[[str], Path]:
    """Return a function from the name of a tiny model to the path of its file.

    The names are those of :data:`ctxbackends.testing.VARIANTS`: ``tiny``, ``tiny-tools``, ``slow-load`` and
    ``slow-tokens``. Each model is created once for each user of the machine.
    """
    from ctxbackends.testing._tiny_gguf import VARIANTS, cached_model

    return lambda variant: cached_model(VARIANTS[variant])


@pytest.fixture(scope="session")
def llama_server(tiny_model: Callable[[str], Path]) -> Iterator[LocalServer]:
    """Yield a real llama.cpp server with the model ``tiny``, for chat and embeddings.

    It starts once for the session: ``await llama_server.start()`` returns its URL.
    """
    import asyncio

    from ctxbackends.local import LocalServer

    server = LocalServer(
        tiny_model("tiny"), alias="tiny", ctx_size=CONTEXT_TOKENS, parallel=SLOTS, threads=1, embeddings=True
    )
    yield server
    asyncio.run(server.aclose())


@async_fixture
async def llama_backend(llama_server: LocalServer) -> AsyncIterator[Backend]:
    """Yield a ready backend that uses :func:`llama_server`. Requires pytest-asyncio."""
    from ctxbackends._registry import open_backend

    endpoint = await llama_server.start()
    async with open_backend("llamacpp", endpoint=endpoint, default_model=llama_server.alias) as backend:
        await backend.wait_ready()
        yield backend


@pytest.fixture
def fault_server() -> Iterator[FaultServer]:
    """Yield a new :class:`ctxbackends.testing.FaultServer` for each test, async or not.

    It runs in a thread, so it also serves a client that blocks the event loop of the test.
    """
    from ctxbackends.testing._fault_server.server import FaultServer

    with FaultServer() as server:
        yield server
