"""The services of docs/examples/services: answers, clients that leave, health, and SIGTERM with streams in flight."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from ctxbackends.testing import FaultServer, faults
from ctxbackends.testing.faults import ResponseBuilder, Step
from tests.integrations.services import CHROMIUM, ENVIRONMENT, SERVICES, Service, open_page, run_service, write_ctxrc

pytest.importorskip("fastapi", reason="needs the group `services`, as in the nox session `integrations`")
pytest.importorskip("uvicorn", reason="needs the group `services`, as in the nox session `integrations`")

pytestmark = [pytest.mark.posix, pytest.mark.slow]
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="needs a Chromium on the PATH")


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[FaultServer]:
    async with FaultServer(pieces=("Hel", "lo")) as server:
        write_ctxrc(tmp_path, server)
        yield server


@pytest.fixture(params=["fastapi", "aiohttp"])
async def service(request: pytest.FixtureRequest, server: FaultServer, tmp_path: Path) -> AsyncIterator[Service]:
    async with run_service(request.param, tmp_path) as service:
        yield service


@pytest.fixture
async def client(service: Service) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(service.url) as client:
        yield client


def hold(event: asyncio.Event) -> Any:
    """A correct response whose second half comes after ``event``."""

    def script(response: ResponseBuilder) -> Iterator[Step]:
        steps = [*faults.respond(response)]
        yield from steps[: len(steps) // 2]
        yield event
        yield from steps[len(steps) // 2 :]

    return script


async def generation_started(server: FaultServer) -> None:
    while not server.generations:
        await asyncio.sleep(0.01)


async def read_events(response: aiohttp.ClientResponse) -> list[dict[str, Any]]:
    return [json.loads(line[6:]) async for line in response.content if line.startswith(b"data: ")]


def text_of(events: list[dict[str, Any]]) -> str:
    return "".join(event["text"] for event in events if event["type"] == "text")


# --- answers ------------------------------------------------------------------------------------------


async def test_answers_failures_and_health(server: FaultServer, client: aiohttp.ClientSession) -> None:
    async with client.post("/complete", json={"prompt": "Hi"}) as response:
        assert (200, {"text": "Hello"}) == (response.status, await response.json())
    async with client.get("/stream", params={"prompt": "Hi"}) as response:
        assert (200, "text/event-stream") == (response.status, response.content_type)
        events = await read_events(response)
    assert ("Hello", "finish") == (text_of(events), events[-1]["type"])

    server.play_always(faults.rate_limited(retry_after="90"))
    async with client.post("/complete", json={"prompt": "Hi"}) as response:
        assert (429, {"error": "RateLimitError"}) == (response.status, await response.json())
    async with client.get("/stream", params={"prompt": "Hi"}) as response:
        assert [{"type": "error", "error": "RateLimitError", "status": 429}] == await read_events(response)

    async with client.get("/health") as response:
        assert (200, {"state": "ready", "model": "m"}) == (response.status, await response.json())
    await server.stop()
    async with client.get("/health") as response:
        assert (503, "refused") == (response.status, (await response.json())["state"])


# --- clients that leave -------------------------------------------------------------------------------


async def test_a_client_that_leaves_frees_the_slot(server: FaultServer, service: Service) -> None:
    body = b'{"prompt": "Hi"}'
    plain = b"POST /complete HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    streamed = b"GET /stream?prompt=Hi HTTP/1.1\r\nHost: x\r\n\r\n"
    for request, fault in (
        (plain % (len(body), body), faults.no_response()),
        (streamed, faults.endless_stream()),
        (streamed, faults.no_response()),  # the service has nothing to send, and must notice without that
    ):
        server.play(fault)
        before = len(server.generations)
        reader, writer = await asyncio.open_connection("127.0.0.1", service.port)
        writer.write(request)
        while len(server.generations) == before:
            await asyncio.sleep(0.01)
        if fault.name == "endless_stream":
            await reader.readuntil(b"data: ")
        writer.close()
        await writer.wait_closed()
        await server.wait_idle()
    await check_log_is_clean(service)


async def check_log_is_clean(service: Service) -> None:
    service.terminate()
    assert "Traceback" not in await service.wait_ended()


# --- SIGTERM ------------------------------------------------------------------------------------------


async def test_sigterm_lets_streams_end(server: FaultServer, service: Service) -> None:
    released = asyncio.Event()
    server.play(hold(released))
    async with aiohttp.ClientSession(service.url) as client, client.get("/stream", params={"prompt": "Hi"}) as response:
        reading = asyncio.create_task(read_events(response))
        await generation_started(server)
        service.terminate()
        while await is_listening(service):
            await asyncio.sleep(0.02)
        released.set()
        events = await reading
    assert ("Hello", "finish") == (text_of(events), events[-1]["type"])
    assert "Traceback" not in await service.wait_ended()
    await server.wait_idle()


async def is_listening(service: Service) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", service.port)
    except OSError:
        return False
    writer.close()
    return True


async def run_worker(directory: Path) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, str(SERVICES / "worker.py"), cwd=directory, env=ENVIRONMENT, stdin=-1, stdout=-1, stderr=-1
    )


async def test_a_worker_answers_each_line(server: FaultServer, tmp_path: Path) -> None:
    worker = await run_worker(tmp_path)
    output, errors = await worker.communicate(b"one\ntwo\n")
    lines = sorted(output.decode().splitlines())
    assert [{"prompt": prompt, "text": "Hello"} for prompt in ("one", "two")] == [*map(json.loads, lines)]
    assert (b"", 0) == (errors, worker.returncode)


async def test_a_worker_that_gets_sigterm_finishes_what_it_has(server: FaultServer, tmp_path: Path) -> None:
    released = asyncio.Event()
    server.play(hold(released))
    worker = await run_worker(tmp_path)
    assert worker.stdin is not None
    assert worker.stderr is not None
    worker.stdin.write(b"one\n")
    await generation_started(server)
    worker.terminate()
    assert b"finishing the answers in flight\n" == await worker.stderr.readline()
    worker.stdin.write(b"too late\n")
    released.set()
    output, errors = await worker.communicate()
    assert {"prompt": "one", "text": "Hello"} == json.loads(output)
    assert (b"", 0) == (errors, worker.returncode)
    assert 1 == len(server.generations)


# --- a page -------------------------------------------------------------------------------------------

ASK = "document.querySelector('input').value = 'Hi'; document.querySelector('button').click()"


@needs_chromium
async def test_a_page_in_a_browser(server: FaultServer, tmp_path: Path) -> None:
    released = asyncio.Event()
    server.play(hold(released), faults.endless_stream())
    async with run_service("fastapi", tmp_path) as service, open_page(tmp_path) as page:
        await page.go_to(service.url)
        await page.wait_for("document.querySelector('form button') !== null")
        await page.evaluate(ASK)
        await page.wait_for("answer.textContent.length > 0")  # a part of the answer, while it comes
        assert "text" == await page.evaluate("state.textContent")
        assert "Hello".startswith(await page.evaluate("answer.textContent"))
        released.set()
        await page.wait_for("state.textContent === 'stop'")
        assert "Hello" == await page.evaluate("answer.textContent")
        assert 1 == len(server.generations)  # EventSource would connect again if it were not closed

        await page.evaluate(ASK)
        await page.wait_for("answer.textContent.length > 0")
        await page.go_to("about:blank")  # leaves the stream
        await server.wait_idle()
        await check_log_is_clean(service)
