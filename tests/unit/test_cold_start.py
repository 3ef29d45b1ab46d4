"""Cold starts on real sockets: when a server is probed, and the cost of the wait. Remote servers are at 127.0.0.2."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import Iterator

import pytest

from ctxbackends import APIConnectionError, Loading, ModelLoadingError, open_backend
from ctxbackends._http.addresses import is_local
from tests.conftest import RawServerFactory, http_response

LOADING = http_response(503, b'{"error": {"message": "Loading model", "type": "unavailable_error", "code": 503}}')


@pytest.fixture
def bound() -> Iterator[socket.socket]:
    """A socket of 127.0.0.2 that does not listen yet."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.2", 0))
        yield bound


@pytest.fixture
def refusing(bound: socket.socket) -> str:
    return f"http://127.0.0.2:{bound.getsockname()[1]}"


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("localhost", True),
        ("127.0.0.2", True),
        ("::1", True),
        ("0.0.0.0", True),  # noqa: S104  # as the host of a URL
        ("10.1.2.3", True),
        ("192.168.1.1", True),
        ("fd00::1", True),
        ("8.8.8.8", False),
        ("100.64.0.1", False),
        ("gpu.example", False),
    ],
)
def test_loopback_and_private_addresses_are_local(host: str, local: bool) -> None:
    assert local == is_local(host)


async def probe_times(url: str, seconds: float) -> list[float]:
    """Return when the probes of a server that does not get ready failed, in seconds."""
    progress: list[Loading] = []
    async with open_backend("vllm", endpoint=url, ready_timeout=seconds) as backend:
        with pytest.raises((APIConnectionError, ModelLoadingError)):
            await backend.wait_ready(on_progress=progress.append)
    return [item.elapsed for item in progress]


async def test_a_local_server_is_probed_four_times_a_second(refusing: str) -> None:
    probes = await probe_times(refusing, 2.0)
    assert 4 <= len(probes) <= 12
    assert probes[1] >= 0.05


async def test_a_remote_server_is_probed_once_a_second(refusing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxbackends._client.sender.is_local", lambda _: False)
    probes = await probe_times(refusing, 4.0)
    assert len(probes) <= 10
    assert probes[-1] - probes[-2] >= 0.75


@pytest.mark.parametrize("local", [True, False], ids=["private", "foreign"])
async def test_first_response_after_the_server_listens(
    local: bool, bound: socket.socket, refusing: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctxbackends._client.sender.is_local", lambda _: local)
    body = b'{"object": "list", "data": [{"id": "tiny", "object": "model"}]}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(head % len(body) + body)
        writer.close()

    progress: list[Loading] = []
    async with open_backend("vllm", endpoint=refusing, ready_timeout=60.0) as backend:
        waiting = asyncio.create_task(backend.ping(on_progress=progress.append))
        while len(progress) < 3:
            await asyncio.sleep(0.01)
        server = await asyncio.start_server(serve, sock=bound)
        assert "tiny" == (await waiting).model
        server.close()
    assert {"refused"} == {item.state for item in progress}


async def test_waiting_needs_little_cpu(raw_server: RawServerFactory, refusing: str) -> None:
    """One percent is the aim (tests/benchmarks/cold.py); both ends of the connection run in this process, and other
    tests may keep the machine busy."""
    server = await raw_server([[LOADING]])
    await probe_times(refusing, 0.1)  # loads modules
    for url in (refusing, server.url):
        wall, cpu = time.monotonic(), time.process_time()
        await probe_times(url, 2.0)
        assert time.process_time() - cpu < 0.1 * (time.monotonic() - wall)


async def test_a_wait_and_a_retry_are_logged(raw_server: RawServerFactory, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "ctxbackends")
    busy = http_response(429, b'{"error": {"message": "said the server"}}', retry_after="0")
    done = http_response(200, b'{"object": "list", "data": [{"id": "tiny", "object": "model"}]}')
    server = await raw_server([[LOADING]], [[busy]], [[done]])
    async with open_backend("vllm", endpoint=server.url) as backend:
        await backend.models()
    waiting, retrying, ready = [record.getMessage() for record in caplog.records]
    assert f"Waiting for {server.url} to start (loading), up to 90 s" == waiting
    assert f"Retrying {server.url} in 0 s (HTTP 429, attempt 2 of 3)" == retrying
    assert ready.startswith("Waited 0.")
    assert ready.endswith(f" s for {server.url} to start")
