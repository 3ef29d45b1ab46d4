"""``complete_streams: false``: one plain response, and probes of a local server while it is awaited."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ctxbackends import BackendConfig, open_backend
from ctxbackends._config.reader import load_ctxrc
from ctxbackends.errors import APIConnectionError, APITimeoutError, ConfigError

LOCAL_TYPES = ("vllm", "llamacpp", "ollama", "lmstudio")
MESSAGE = {"role": "assistant", "content": "Hello"}
BODY = {
    "model": "m",
    "choices": [{"index": 0, "message": MESSAGE, "finish_reason": "stop"}],
    "message": MESSAGE,  # of Ollama
    "done": True,
    "done_reason": "stop",
}


class SlowServer:
    """Answers a POST when told to; a probe at once, or never."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.probed = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.answers_probes = True
        self.body: dict[str, object] = {}
        self._server: asyncio.Server

    async def start(self) -> str:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        return f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    def stop_listening(self) -> None:
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                method, path, _ = head.split("\r\n", 1)[0].split(" ")
                if method == "GET":
                    self.probed.set()
                    if self.answers_probes:
                        writer.write(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                    continue
                length = next(line for line in head.lower().split("\r\n") if line.startswith("content-length:"))
                self.body = json.loads(await reader.readexactly(int(length.split(":")[1])))
                self.requests.append(path)
                await self.may_answer.wait()
                body = json.dumps(BODY).encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))
        except asyncio.IncompleteReadError:
            writer.close()


@pytest.fixture
async def server(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[SlowServer]:
    monkeypatch.setattr("ctxbackends._client.watch.WATCH_SECONDS", 0.05)
    slow_server = SlowServer()
    yield slow_server
    slow_server.may_answer.set()
    slow_server.stop_listening()


@pytest.mark.parametrize("answers_probes", [True, False])
@pytest.mark.parametrize("type_", [name for name in LOCAL_TYPES if name != "lmstudio"])
async def test_a_slow_answer_is_returned(type_: str, answers_probes: bool, server: SlowServer) -> None:
    server.answers_probes = answers_probes
    async with open_backend(
        type_, endpoint=await server.start(), default_model="m", complete_streams=False, max_concurrency=4
    ) as backend:
        answer = asyncio.create_task(backend.complete("Hi"))
        await server.probed.wait()
        server.may_answer.set()
        assert "Hello" == (await answer).text
    assert not server.body.get("stream")
    assert 1 == len(server.requests)


@pytest.mark.parametrize("type_", [name for name in LOCAL_TYPES if name != "lmstudio"])
async def test_a_server_that_stopped_listening_is_an_error(type_: str, server: SlowServer) -> None:
    async with open_backend(
        type_, endpoint=await server.start(), default_model="m", complete_streams=False, max_concurrency=4
    ) as backend:
        answer = asyncio.create_task(backend.complete("Hi"))
        await server.probed.wait()
        server.stop_listening()
        with pytest.raises(APIConnectionError, match="stopped listening before it answered") as exc_info:
            await answer
    assert (True, False) == (exc_info.value.sent, exc_info.value.refused)
    assert 1 == len(server.requests), "it may have been processed"


async def test_the_timeout_counts(server: SlowServer) -> None:
    async with open_backend(
        "vllm", endpoint=await server.start(), default_model="m", complete_streams=False, timeout=0.2
    ) as backend:
        with pytest.raises(APITimeoutError):
            await backend.complete("Hi")


async def test_leaving_closes_the_connection(server: SlowServer) -> None:
    async with open_backend(
        "vllm", endpoint=await server.start(), default_model="m", complete_streams=False
    ) as backend:
        answer = asyncio.create_task(backend.complete("Hi"))
        await server.probed.wait()
        answer.cancel()
        with pytest.raises(asyncio.CancelledError):
            await answer
    assert {asyncio.current_task()} == {task for task in asyncio.all_tasks() if "_serve" not in repr(task)}


async def test_vendors_are_not_probed(server: SlowServer) -> None:
    async with open_backend(
        "openai", endpoint=await server.start(), default_model="m", api_key="k", complete_streams=False
    ) as backend:
        answer = asyncio.create_task(backend.complete("Hi"))
        await asyncio.sleep(0.2)  # four times the gap between two probes
        server.may_answer.set()
        await answer
    assert not server.probed.is_set()


def test_the_setting_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / ".ctxrc"
    path.write_text("backends:\n  - name: vllm\n    complete_streams: false\n", encoding="utf-8")
    config = load_ctxrc(path)
    assert config.backends[0].complete_streams is False


@pytest.mark.parametrize("value", ["no", 0, 1.0])
def test_another_value_is_an_error(value: object) -> None:
    with pytest.raises(ConfigError, match="complete_streams: must be true or false; omit it for the default"):
        BackendConfig(name="vllm", complete_streams=value)  # type: ignore[arg-type]
