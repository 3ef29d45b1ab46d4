"""The recipe of docs/cookbook.md for FastAPI: it streams, and ends the generation when the client leaves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from ctxbackends.testing import FaultServer
from ctxbackends.testing.faults import Do, ResponseBuilder, Step
from tests.integrations.services import Service, run_service, write_ctxrc
from tests.programs import sections

pytest.importorskip("fastapi", reason="needs the group `services`, as in the nox session `integrations`")
pytest.importorskip("uvicorn", reason="needs the group `services`, as in the nox session `integrations`")

pytestmark = [pytest.mark.posix, pytest.mark.slow]
RECIPE = sections("cookbook")["Stream into a FastAPI response"]


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FaultServer]:
    async with FaultServer(pieces=("Hello, ", "Ada.")) as server:
        write_ctxrc(tmp_path, server)
        yield server


@pytest.fixture
async def service(server: FaultServer, tmp_path: Path) -> AsyncIterator[Service]:
    (tmp_path / "app.py").write_text(RECIPE.program)
    async with run_service("cookbook", tmp_path) as service:
        yield service


async def test_the_output_of_curl(service: Service) -> None:
    async with aiohttp.request("GET", f"{service.url}/stream", params={"prompt": "Hello"}) as response:
        assert "text/event-stream" == response.content_type
        assert RECIPE.output.rstrip() == (await response.text()).rstrip()


async def test_a_client_that_leaves(server: FaultServer, service: Service) -> None:
    def script(response: ResponseBuilder) -> Iterator[Step]:
        yield response.head()
        yield response.frame(response.stream_start + response.text_event("Hello, "))
        yield Do.HANG

    server.play(script)
    async with aiohttp.request("GET", f"{service.url}/stream", params={"prompt": "Hello"}) as response:
        assert await response.content.readline()
    async with asyncio.timeout(60):
        await server.wait_idle()
    assert ["client"] == [connection.closed_by for connection in server.connections if connection.requests]
