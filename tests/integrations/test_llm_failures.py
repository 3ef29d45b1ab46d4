"""The plugin for llm where something fails: error categories, cancellation, a server that starts late."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("llm", reason="needs the extra llm: nox -s integrations")

import llm
import llm.cli
from click.testing import CliRunner

from ctxbackends import BackendConfig, LocalServer, Registry
from ctxbackends.integrations import close_backends
from ctxbackends.integrations._llm import models
from ctxbackends.integrations.llm import AsyncCtxModel, CtxModel
from ctxbackends.testing import FaultServer, faults
from ctxbackends.testing._fault_server.answers import dump, plain
from tests.faults.outcomes import Failure, Success
from tests.faults.test_table import Case
from tests.integrations.fault_cases import FAULT_CASES, config_of
from tests.integrations.pages import llama_server, tiny_model  # noqa: F401  # fixtures
from tests.real.conftest import wait_for_slots


@pytest.fixture(autouse=True)
async def closed_backends() -> AsyncIterator[None]:
    yield
    await close_backends()


@pytest.mark.parametrize("case", FAULT_CASES, ids=str)
async def test_faults(case: Case) -> None:
    """llm has one category for what a server does, whose message is ours."""
    expected = case.expected
    async with FaultServer() as server:
        server.play(faults.CATALOGUE[case.fault])
        model = AsyncCtxModel(config_of(case, server))
        response = model.prompt("Hello", stream=case.operation == "stream")
        if isinstance(expected, Success):
            assert ("" if expected.calls else "Hello, world.") == await response.text()
        else:
            assert isinstance(expected, Failure)
            with pytest.raises(llm.ModelError) as exc_info:
                await response.text()
            assert expected.error is type(exc_info.value.__cause__)
            assert expected.message in str(exc_info.value)
        assert expected.requests in (None, len(server.generations))


@pytest.mark.parametrize("stream", [False, True])
async def test_one_request_without_retries(stream: bool) -> None:
    async with FaultServer() as server:
        server.play_always(lambda _: iter([plain(503, dump({"error": {"message": "no", "type": "t"}}))]))
        config = BackendConfig(name="b", type="openai", endpoint=server.url, api_key="k", default_model="m")
        model = CtxModel(config)
        with pytest.raises(llm.ModelError):
            await asyncio.to_thread(lambda: model.prompt("Hi", stream=stream, max_retries=0, ready_timeout=0).text())
        assert 1 == len(server.generations)


# --- a real server ------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow_server(tiny_model: Callable[[str], Any]) -> Any:  # noqa: F811  # the fixture
    server = LocalServer(tiny_model("slow-tokens"), alias="slow", ctx_size=4096, parallel=2, threads=1)
    yield server
    asyncio.run(server.aclose())


@pytest.mark.real
async def test_leaving_a_stream_frees_the_slot(slow_server: LocalServer) -> None:
    endpoint = await slow_server.start()
    config = BackendConfig(name="slow", type="llamacpp", endpoint=endpoint, default_model="slow")

    def leave() -> None:
        for _ in CtxModel(config).prompt("Hello", max_tokens=2000):
            break

    await asyncio.to_thread(leave)
    assert 0 == await wait_for_slots(0, endpoint, within=2)


@pytest.mark.real
@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_frees_the_slot(slow_server: LocalServer, stream: bool) -> None:
    endpoint = await slow_server.start()
    config = BackendConfig(name="slow", type="llamacpp", endpoint=endpoint, default_model="slow")
    async with Registry([config]) as registry:
        await registry.default().wait_ready()

    async def ask() -> str:
        return str(await AsyncCtxModel(config).prompt("Hello", stream=stream, max_tokens=2000).text())

    asking = asyncio.create_task(ask())
    assert 1 == await wait_for_slots(1, endpoint, within=20)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert 0 == await wait_for_slots(0, endpoint, within=2)


@pytest.mark.real
async def test_a_server_that_starts_after_the_call(
    tiny_model: Callable[[str], Any],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waiting = threading.Event()
    monkeypatch.setattr(models, "_Waiting", lambda: lambda _: waiting.set())
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = BackendConfig(name="late", type="llamacpp", endpoint=f"http://127.0.0.1:{port}", default_model="tiny")
    asking = asyncio.create_task(asyncio.to_thread(lambda: CtxModel(config).prompt("Hello", max_tokens=8).text()))
    await asyncio.to_thread(waiting.wait)
    server = LocalServer(tiny_model("tiny"), alias="tiny", port=port)
    await server.start()
    try:
        assert await asking
    finally:
        await server.aclose()


@pytest.mark.real
@pytest.mark.parametrize("flags", [(), ("--no-stream",), ("--async",)], ids=" ".join)
async def test_the_command_line_with_a_real_server(
    flags: tuple[str, ...],
    llama_server: LocalServer,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LLM_USER_PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    endpoint = await llama_server.start()
    text = f"backends:\n  - name: b\n    type: llamacpp\n    endpoint: {endpoint}\n"
    (tmp_path / ".ctxrc").write_text(f"{text}    default_model: {llama_server.alias}\n")
    arguments = ["-m", "ctx/b", "--schema", "name, people int", "-o", "max_tokens", "300", *flags, "A town"]
    result = await asyncio.to_thread(CliRunner().invoke, llm.cli.cli, arguments)
    assert 0 == result.exit_code, result.output
    assert {"name", "people"} == set(json.loads(result.stdout))
