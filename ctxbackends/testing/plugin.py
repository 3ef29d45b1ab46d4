"""The pytest plugin: fixtures that yield tiny models, a running real llama.cpp server and a server of faults. Loaded by
its entry point; imports nothing until a fixture is asked for.

The server lives as long as the test session and belongs to it; each test gets a backend of its own over it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

try:
    from pytest_asyncio import fixture as async_fixture
except ImportError:  # pragma: no cover  # without the extra `testing`, the plugin must not break anybody's pytest
    async_fixture = pytest.fixture  # type: ignore[assignment]  # takes one argument less

if TYPE_CHECKING:
    from ctxbackends.backend import Backend
    from ctxbackends.local import LocalServer
    from ctxbackends.testing.faults.server import FaultServer

CONTEXT_TOKENS = 4096
SLOTS = 2


@pytest.fixture(scope="session")
def tiny_model() -> Callable[[str], Path]:
    """The path of a tiny model: ``tiny``, ``tiny-tools``, ``slow-load`` or ``slow-tokens``. Made once for each user of
    the machine."""
    from ctxbackends.testing.tiny_gguf import VARIANTS, cached_model  # noqa: PLC0415

    return lambda variant: cached_model(VARIANTS[variant])


@pytest.fixture(scope="session")
def llama_server(tiny_model: Callable[[str], Path]) -> Iterator[LocalServer]:
    """A real llama.cpp server with the tiny model (chat and embeddings), started once for the session. ``await
    llama_server.start()`` gives its URL."""
    import asyncio  # noqa: PLC0415

    from ctxbackends.local import LocalServer  # noqa: PLC0415

    server = LocalServer(
        tiny_model("tiny"), alias="tiny", ctx_size=CONTEXT_TOKENS, parallel=SLOTS, threads=1, embeddings=True
    )
    yield server
    asyncio.run(server.aclose())


@async_fixture
async def llama_backend(llama_server: LocalServer) -> AsyncIterator[Backend]:
    """A ready backend over :func:`llama_server`. Needs pytest-asyncio."""
    from ctxbackends.registry import open_backend  # noqa: PLC0415

    endpoint = await llama_server.start()
    async with open_backend("llamacpp", endpoint=endpoint, default_model=llama_server.alias) as backend:
        await backend.wait_ready()
        yield backend


@pytest.fixture
def fault_server() -> Iterator[FaultServer]:
    """A :class:`ctxbackends.testing.FaultServer` of its own for each test, async or not.

    It runs in a thread, so that it also answers a client that blocks, and goes on where the event loop of a test does
    not: what a client does about a fault is then the client's own doing.
    """
    from ctxbackends.testing.faults.server import FaultServer  # noqa: PLC0415

    with FaultServer() as server:
        yield server
