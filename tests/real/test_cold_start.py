"""Cold starts of a real server: refused, loading, ready, and the failures."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Mapping
from itertools import groupby
from pathlib import Path

import pytest

from ctxbackends import (
    APIConnectionError,
    ClosedError,
    ConfigError,
    Loading,
    LocalServer,
    Registry,
    ServerDiedError,
    open_backend,
    serve_model,
)
from ctxbackends._config.backend_config import BackendConfig
from tests.real.conftest import ServerFactory

if sys.platform == "win32":
    pytest.skip("sends signals to the server", allow_module_level=True)

pytestmark = pytest.mark.real


async def test_refused_then_loading_then_ready(server_of: ServerFactory) -> None:
    server = server_of("slow-load")
    progress: list[Loading] = []
    try:
        endpoint = await server.start()
        async with open_backend("llamacpp", endpoint=endpoint, default_model="slow-load") as backend:
            await backend.wait_ready(on_progress=progress.append)
            assert [state for state, _ in groupby(event.state for event in progress)] == ["refused", "loading"]
            assert (await backend.ping()).model == "slow-load"
    finally:
        await server.aclose()
    assert [event.elapsed for event in progress] == sorted(event.elapsed for event in progress)
    assert str(progress[0]) == f"waiting for {endpoint} (refused, 0 s of 90 s)"


async def test_a_completion_waits_by_itself(server_of: ServerFactory) -> None:
    server = server_of("slow-load")
    try:
        async with open_backend("llamacpp", endpoint=await server.start(), default_model="slow-load") as backend:
            answer = await backend.complete("Hello", max_tokens=4)
    finally:
        await server.aclose()
    assert answer.served_model == "slow-load"
    assert answer.usage is not None
    assert 1 <= answer.usage.output_tokens <= 4


async def test_without_waiting_it_is_refused_at_once() -> None:
    async with open_backend("llamacpp", endpoint=f"http://127.0.0.1:{free_port()}") as backend:
        with pytest.raises(APIConnectionError) as exc_info:
            await backend.ping(wait=False)
    assert exc_info.value.refused
    assert exc_info.value.waited is None


async def test_the_last_error_when_the_budget_ends() -> None:
    async with open_backend("llamacpp", endpoint=f"http://127.0.0.1:{free_port()}", ready_timeout=0.3) as backend:
        with pytest.raises(APIConnectionError) as exc_info:
            await backend.wait_ready()
    assert exc_info.value.refused
    assert exc_info.value.waited is not None
    assert exc_info.value.waited >= 0.3


async def test_a_server_that_dies_while_loading_is_an_error(server_of: ServerFactory) -> None:
    server = server_of("slow-load")
    try:
        endpoint = await server.start()

        def kill_once_loading(event: Loading) -> None:
            if event.state == "loading" and server.pid is not None:
                os.kill(server.pid, signal.SIGKILL)

        async with open_backend("llamacpp", endpoint=endpoint, default_model="slow-load") as backend:
            with pytest.raises(ServerDiedError, match="died while loading"):
                await backend.wait_ready(on_progress=kill_once_loading)
    finally:
        await server.aclose()


async def test_a_managed_server_that_dies_has_its_exit_code(
    model: Callable[[str], Path], environment: Mapping[str, str]
) -> None:
    before = set(find_servers())

    def kill_new_children(_: Loading) -> None:
        for pid in set(find_servers()) - before:
            os.kill(pid, signal.SIGKILL)

    with pytest.raises(ServerDiedError) as exc_info:
        async with serve_model(model("slow-load"), environment=environment, on_progress=kill_new_children):
            pytest.fail("it cannot become ready")
    assert exc_info.value.exit_code == -signal.SIGKILL


def find_servers() -> list[int]:
    """Server processes that this process started."""
    pids = []
    for entry in Path("/proc").iterdir():
        try:
            status = (entry / "stat").read_text().rpartition(")")[2].split()
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if entry.name.isdigit() and int(status[1]) == os.getpid() and b"_worker.py" in command and status[0] != "Z":
            pids.append(int(entry.name))
    return pids


@pytest.mark.parametrize("fraction", [0.999, 0.5, 0.01])
async def test_a_truncated_model_fails_at_once_with_the_end_of_the_log(
    fraction: float, model: Callable[[str], Path], environment: Mapping[str, str], tmp_path: Path
) -> None:
    content = model("tiny").read_bytes()
    damaged_file = tmp_path / "broken.gguf"
    damaged_file.write_bytes(content[: int(len(content) * fraction)])
    with pytest.raises(ServerDiedError) as exc_info:
        async with serve_model(damaged_file, environment=environment):
            pytest.fail("it cannot become ready")
    assert exc_info.value.exit_code == 1
    assert "load" in "\n".join(exc_info.value.log_tail)
    assert str(damaged_file) in str(exc_info.value)


async def test_a_dead_server_is_an_error_for_a_while_then_restarted(
    model: Callable[[str], Path], environment: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = set(find_servers())
    async with serve_model(model("tiny"), environment=environment, alias="tiny") as backend:
        (pid,) = set(find_servers()) - before
        os.kill(pid, signal.SIGKILL)
        while pid in find_servers():
            await asyncio.sleep(0.02)
        for _ in range(2):  # everyone who asks now is told
            with pytest.raises(ServerDiedError):
                await backend.complete("Hello", max_tokens=2)
        monkeypatch.setattr("ctxbackends.local._process.RELAUNCH_AFTER_SECONDS", 0.0)
        assert (await backend.complete("Hello", max_tokens=2)).served_model == "tiny"


async def test_a_port_in_use(server: LocalServer, model: Callable[[str], Path]) -> None:
    port = int((await server.start()).rpartition(":")[2])
    with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is in use"):
        await LocalServer(model("tiny"), port=port).start()


@pytest.mark.parametrize(
    ("content", "problem"),
    [(None, "no such file"), (b"", "is empty"), (b"# a text", "is not a GGUF file")],
)
async def test_a_file_that_is_not_a_model(content: bytes | None, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=problem):
        await LocalServer(path).start()


async def test_a_model_path_in_the_registry_starts_on_first_use_and_ends_with_it(model: Callable[[str], Path]) -> None:
    before = set(find_servers())
    async with Registry([BackendConfig(name="mine", type="llamacpp", model_path=str(model("tiny")))]) as registry:
        backend = registry.default()
        assert set(find_servers()) == before
        first = await backend.complete("Hello", max_tokens=2)
        servers = set(find_servers()) - before
        assert len(servers) == 1
        second = await backend.complete("Hello", max_tokens=2)
        assert set(find_servers()) - before == servers
        assert first.served_model == second.served_model == backend.default_model
    assert set(find_servers()) == before


def test_one_registry_and_its_server_over_several_event_loops(model: Callable[[str], Path]) -> None:
    registry = Registry([BackendConfig(name="mine", type="llamacpp", model_path=str(model("tiny")))])

    async def ask() -> set[int]:
        await registry.default().complete("Hello", max_tokens=2)
        return set(find_servers())

    assert asyncio.run(ask()) == asyncio.run(ask())
    asyncio.run(registry.aclose())


async def test_many_tasks_on_a_broken_model_fail_together(
    model: Callable[[str], Path], environment: Mapping[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """One process, not one after another for each of them."""
    caplog.set_level("INFO", logger="ctxbackends")
    damaged_file = tmp_path / "broken.gguf"
    damaged_file.write_bytes(model("tiny").read_bytes()[:100_000])
    async with Registry([BackendConfig(name="mine", type="llamacpp", model_path=str(damaged_file))]) as registry:
        completions = (registry.default().complete("Hello", max_tokens=2) for _ in range(20))
        answers = await asyncio.gather(*completions, return_exceptions=True)
    assert {ServerDiedError} == {type(answer) for answer in answers}
    assert 1 == sum(message.startswith("Started a llama.cpp server") for message in caplog.messages)


async def test_a_closed_registry_starts_no_server(model: Callable[[str], Path]) -> None:
    before = set(find_servers())
    async with Registry([BackendConfig(name="mine", type="llamacpp", model_path=str(model("tiny")))]) as registry:
        backend = registry.default()
    with pytest.raises(ClosedError):
        await backend.complete("Hello", max_tokens=2)
    assert before == set(find_servers())


def test_the_server_outlives_the_thread_that_started_it(model: Callable[[str], Path]) -> None:
    registry = Registry([BackendConfig(name="mine", type="llamacpp", model_path=str(model("tiny")))])
    servers: list[set[int]] = []

    def ask() -> None:
        async def complete() -> None:
            await registry.default().complete("Hello", max_tokens=2)
            servers.append(set(find_servers()))

        asyncio.run(complete())

    for _ in range(2):
        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
    asyncio.run(registry.aclose())
    assert [servers[0], servers[0]] == servers


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
