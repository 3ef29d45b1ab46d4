"""Real llama.cpp servers for the tests: the newest build of the wheel, and the oldest that listens on HTTP, whose
answers differ."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ctxbackends import Backend, LocalServer, open_backend
from ctxbackends.testing import VARIANTS, cached_model

OLD_BUILD = "CTXBACKENDS_TEST_OLD_XLLAMACPP"
SLOTS = 2
CONTEXT_TOKENS = 4096  # over both slots

ServerFactory = Callable[..., LocalServer]


@pytest.fixture(scope="session", params=["newest", "b8672"])
def environment(request: pytest.FixtureRequest) -> Mapping[str, str]:
    """The environment of a server process of this build."""
    if request.param == "newest":
        return {}
    directory = os.environ.get(OLD_BUILD)
    if not directory:
        pytest.skip(f"{OLD_BUILD} names no directory with an xllamacpp of llama.cpp b8672; nox sets it")
    return {"PYTHONPATH": directory}


@pytest.fixture(scope="session")
def model() -> Callable[[str], Path]:
    return lambda variant: cached_model(VARIANTS[variant])


@pytest.fixture(scope="session")
def server_of(environment: Mapping[str, str], model: Callable[[str], Path]) -> ServerFactory:
    """A server that is not started yet; whoever makes it closes it."""

    def make(variant: str, **options: Any) -> LocalServer:
        return LocalServer(model(variant), **{"alias": variant, "environment": environment, "threads": 1, **options})

    return make


@pytest.fixture(scope="session")
def server(server_of: ServerFactory) -> Iterator[LocalServer]:
    """The quick model, for the whole session."""
    shared = server_of("tiny", parallel=SLOTS, ctx_size=CONTEXT_TOKENS, embeddings=True)
    yield shared
    asyncio.run(shared.aclose())


@pytest.fixture(scope="session")
def slow_server(server_of: ServerFactory) -> Iterator[LocalServer]:
    """The model that generates slowly and never ends, for what happens in mid-stream."""
    shared = server_of("slow-tokens", parallel=SLOTS, ctx_size=CONTEXT_TOKENS)
    yield shared
    asyncio.run(shared.aclose())


@asynccontextmanager
async def over(server: LocalServer, **settings: Any) -> AsyncIterator[Backend]:
    """A ready backend over a server that runs already: it knows nothing of the process."""
    endpoint = await server.start()
    async with open_backend("llamacpp", endpoint=endpoint, default_model=server.alias, **settings) as backend:
        await backend.wait_ready()
        yield backend


@pytest.fixture
async def backend(server: LocalServer) -> AsyncIterator[Backend]:
    async with over(server) as ready:
        yield ready


@pytest.fixture
async def slow_backend(slow_server: LocalServer) -> AsyncIterator[Backend]:
    async with over(slow_server) as ready:
        yield ready


async def busy_slots(endpoint: str) -> int:
    """How many slots generate, as the server itself says."""
    async with aiohttp.ClientSession() as session, session.get(f"{endpoint}/slots") as response:
        return sum(slot["is_processing"] for slot in await response.json())


async def wait_for_slots(expected: int, endpoint: str, *, within: float) -> int:
    """The number of busy slots, once it is ``expected``, or after ``within`` seconds. Asked rarely: each look keeps
    llama-server from noticing a closed connection for a while."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + within
    while (busy := await busy_slots(endpoint)) != expected and loop.time() < deadline:
        await asyncio.sleep(0.2)
    return busy
