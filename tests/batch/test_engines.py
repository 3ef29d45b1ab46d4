"""The engine of processes: real workers that are killed, fail, and end with their driver."""

from __future__ import annotations

import asyncio
import os
import pickle
import socket
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import attrs
import pytest

from ctxbackends._engines.contract import Channel, EngineError, WorkerDiedError, divide
from ctxbackends._engines.distribute import WorkerDeath
from ctxbackends._engines.hosting import WorkerHost, decode_outcome
from ctxbackends._engines.processes import ProcessEngine
from ctxbackends._engines.ray import RayEngine, describe_death
from ctxbackends._engines.shared_directory import SharedDirectory
from ctxbackends.errors import AuthenticationError
from tests.engine_workers import CountingServer, Parts, ask, counting_server, driver_process, ids, ignore, numbers
from tests.processes import is_running, kill

ROOT = str(Path(__file__).parents[2])


@pytest.fixture(autouse=True)
def _tests_for_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let worker processes, which get the path of the driver, import the tests; the package comes first."""
    monkeypatch.setattr(sys, "path", [*sys.path, ROOT])


@pytest.fixture
async def server() -> AsyncIterator[CountingServer]:
    async with counting_server() as server:
        yield server


@pytest.fixture
def parts(tmp_path: Path) -> Parts:
    return Parts(tmp_path)


@pytest.fixture
async def engine() -> AsyncIterator[ProcessEngine]:
    engine = ProcessEngine()
    yield engine
    await engine.aclose()


# --- a worker process -----------------------------------------------------------------------------


async def test_a_worker_answers_blocks_and_raises(engine: ProcessEngine, parts: Parts, server: CountingServer) -> None:
    worker = await engine.start(parts.spec(server.url, "a"), "worker 1", ignore)
    blocks = await asyncio.gather(worker.answer(["1", "2"]), worker.answer(["3"]))
    assert (["1=ok", "2=ok"], ["3=ok"]) == tuple(blocks)
    assert ["print=ok"] == await worker.answer(["print"])  # between the messages
    text = "x" * 3000
    large = [f"{text}{item}" for item in range(100)]  # more than a pipe holds
    assert [f"{item}=ok" for item in large] == await worker.answer(large)
    with pytest.raises(AuthenticationError, match="invalid API key") as caught:
        await worker.answer(["fail"])
    assert 401 == caught.value.status_code
    with pytest.raises(EngineError, match=r"worker failed: OddError: odd"):
        await worker.answer(["odd"])
    assert ["4=ok"] == await worker.answer(["4"])
    await worker.aclose()
    assert not is_running(worker.pid)
    assert socket.gethostname() == worker.host


async def test_an_exception_on_opening_ends_the_process(
    engine: ProcessEngine, parts: Parts, server: CountingServer
) -> None:
    with pytest.raises(KeyError, match="CTX_TEST_MISSING_KEY"):
        await engine.start(parts.spec(server.url, "a", key_variable="CTX_TEST_MISSING_KEY"), "worker 1", ignore)
    (worker,) = engine._workers
    assert not is_running(worker.pid)


@pytest.mark.posix
async def test_a_killed_process_is_an_error_of_all_its_blocks_and_the_next(engine: ProcessEngine, parts: Parts) -> None:
    async with counting_server(seconds=60) as server:
        worker = await engine.start(parts.spec(server.url, "a"), "worker 1", ignore)
        blocks = [asyncio.ensure_future(worker.answer([item])) for item in ("1", "2")]
        await server.wait_requests(2)
        kill(worker.pid)
        outcomes = await asyncio.gather(*blocks, return_exceptions=True)
        await server.wait_idle()
        assert ["worker 1 ended: killed by SIGKILL"] * 2 == [str(outcome) for outcome in outcomes]
        with pytest.raises(WorkerDiedError, match="killed by SIGKILL"):
            await worker.answer(["3"])
        await worker.aclose()
        await worker.aclose()


async def test_closing_a_worker_cancels_its_requests(engine: ProcessEngine, parts: Parts) -> None:
    async with counting_server(seconds=60) as server:
        worker = await engine.start(parts.spec(server.url, "a"), "worker 1", ignore)
        block = asyncio.ensure_future(worker.answer(["1"]))
        await server.wait_requests(1)
        await worker.aclose()
        await server.wait_idle()
        assert not is_running(worker.pid)
        with pytest.raises(WorkerDiedError, match="exit status 0"):
            await block


async def test_the_versions_must_be_the_same() -> None:
    outcome = await WorkerHost(ignore).open(pickle.dumps(("0.0.1", b"")))
    with pytest.raises(EngineError, match=r"versions of ctxbackends differ: .*, 0\.0\.1 here; install the same one"):
        decode_outcome(outcome)


# --- blocks and workers ---------------------------------------------------------------------------


@pytest.mark.posix
@pytest.mark.parametrize("workers", [2, *(pytest.param(workers, marks=pytest.mark.full) for workers in (1, 4))])
async def test_a_killed_worker_is_replaced_within_the_limit(engine: ProcessEngine, parts: Parts, workers: int) -> None:
    deaths: list[WorkerDeath] = []

    async with counting_server(seconds=0.02) as server:

        async def kill_one() -> None:
            for count in (40, 120):
                await server.wait_requests(count)
                victim = next(worker for worker in engine._workers if is_running(worker.pid))
                kill(victim.pid)
                engine._workers.discard(victim)

        killing = asyncio.create_task(kill_one())
        answers = await ask(engine, parts, server.url, numbers(200), workers=workers, on_death=deaths.append)
        await killing
    assert Counter(numbers(200)) == ids(answers)
    assert 4 * workers >= server.peak
    assert 200 + 2 * 8 >= server.requests.total()  # two blocks of each death
    assert ["killed by SIGKILL"] * 2 == [str(death.error).split(": ")[1] for death in deaths]
    assert all(8 >= death.items for death in deaths)


@pytest.mark.posix
async def test_workers_end_with_their_driver_and_another_driver_goes_on(parts: Parts) -> None:
    async with counting_server(seconds=0.02) as server:
        arguments = {
            "engine": "processes",
            "workers": 2,
            "max_in_flight": 8,
            "items": 200,
            "url": server.url,
            "directory": str(parts.directory),
        }
        async with driver_process(**arguments) as driver:
            await server.wait_requests(80)
            driver.kill()
            await driver.wait()
            await server.wait_idle()
            sent = server.requests.total()
        async with driver_process(**arguments) as driver:
            output, _ = await driver.communicate()
        assert 0 == driver.returncode
        assert Counter(numbers(200)) == ids(parts.read()) | ids(output.decode().split())
        assert 200 + 8 >= server.requests.total()
        assert 200 > sent
        assert 8 >= server.peak
        async with driver_process(**arguments) as driver:
            output, _ = await driver.communicate()
        assert (b"", 0) == (output, driver.returncode)
        assert 200 + 8 >= server.requests.total()


@pytest.mark.full
async def test_an_exception_of_a_worker_ends_the_run(engine: ProcessEngine, parts: Parts) -> None:
    async with counting_server(seconds=0.02) as server:
        with pytest.raises(AuthenticationError):
            await ask(engine, parts, server.url, [*numbers(20), "fail", *numbers(200)])
        await server.wait_idle()
    assert not any(is_running(worker.pid) for worker in engine._workers)


async def test_cancelling_a_run_ends_its_workers(engine: ProcessEngine, parts: Parts) -> None:
    async with counting_server(seconds=60) as server:
        run = asyncio.create_task(ask(engine, parts, server.url, numbers(100)))
        await server.wait_requests(8)
        run.cancel()
        await asyncio.wait([run])
        await server.wait_idle()
        assert 8 == server.requests.total()
    assert not any(is_running(worker.pid) for worker in engine._workers)


# --- the directory --------------------------------------------------------------------------------


@pytest.mark.full
async def test_workers_prove_that_they_share_the_directory(
    engine: ProcessEngine, parts: Parts, server: CountingServer
) -> None:
    directory = SharedDirectory(parts.directory)
    answers = await ask(engine, parts, server.url, numbers(8), directory=directory)
    directory.close()
    assert Counter(numbers(8)) == ids(answers)
    assert {"part-0-0", "part-1-0", "pids"} == {file.name for file in parts.directory.iterdir()}


async def test_a_directory_that_the_worker_does_not_share(
    parts: Parts, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctxbackends._engines.shared_directory.WITHIN_SECONDS", 0.2)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    spec = SharedDirectory(parts.directory).wrap(parts.spec("http://127.0.0.1:9", "a"))
    with pytest.raises(EngineError) as caught:
        await attrs.evolve(spec, directory=elsewhere).open(Channel(ignore))
    assert (
        f"directory is not shared with the worker on host {socket.gethostname()}: {elsewhere}; "
        "use --journal with a directory that all nodes mount"
    ) == str(caught.value)
    assert [] == list(elsewhere.iterdir())


async def test_a_directory_where_the_driver_does_not_see_the_file_of_the_worker(
    parts: Parts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctxbackends._engines.shared_directory.WITHIN_SECONDS", 0.2)
    directory = SharedDirectory(parts.directory)
    spec = directory.wrap(parts.spec("http://127.0.0.1:9", "a"))
    with pytest.raises(EngineError, match=f"worker on host node7: {parts.directory}; use --journal"):
        await directory.verify(spec, "node7")


# --- limits ---------------------------------------------------------------------------------------


def test_a_limit_is_divided() -> None:
    assert [3, 3, 2] == divide(8, 3, "max_in_flight")
    assert [1, 1] == divide(2, 2, "max_in_flight")
    assert [None, None] == divide(None, 2, "--rpm")


def test_more_workers_than_the_limit_allows() -> None:
    with pytest.raises(EngineError, match=r"^--rpm is smaller than the workers: 3 < 4; use 3 workers or fewer$"):
        divide(3, 4, "--rpm")


async def test_no_workers(engine: ProcessEngine) -> None:
    with pytest.raises(EngineError, match=r"^invalid number of workers: 0; use at least 1$"):
        await engine.open(0)


# --- Ray that cannot be used ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "message"),
    [
        ("ray://head:10001", r"^address is not supported: ray://head:10001; run the command on a node of the cluster"),
        ("head", r"^invalid address: head; use HOST:PORT, or auto$"),
        ("127.0.0.1:http", r"^invalid address: 127\.0\.0\.1:http; use HOST:PORT, or auto$"),
    ],
)
async def test_an_address_of_ray_that_is_not_supported(address: str, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        await RayEngine(address).open(2)


async def test_an_address_where_nobody_listens(refusing_url: str) -> None:
    address = refusing_url.removeprefix("http://")
    with pytest.raises(EngineError, match=rf"^cannot connect to Ray at {address}: .*(refused|failed)"):
        await RayEngine(address).open(2)


async def test_a_server_that_is_not_ray(monkeypatch: pytest.MonkeyPatch, server: CountingServer) -> None:
    address = server.url.removeprefix("http://")
    monkeypatch.setitem(sys.modules, "ray", FakeRay(ConnectionError("no GCS")))
    with pytest.raises(EngineError, match=rf"^cannot connect to Ray at {address}: no GCS$"):
        await RayEngine(address).open(2)


class FakeRay(ModuleType):
    """Ray where it cannot connect, or with so many CPUs."""

    def __init__(self, error: Exception | None = None, free: float = 0, total: float = 0) -> None:
        super().__init__("ray")
        self.error = error
        self.options: dict[str, Any] = {}
        self.has_shut_down = False
        self.available_resources = lambda: {"CPU": free} if free else {}
        self.cluster_resources = lambda: {"CPU": total}

    def is_initialized(self) -> bool:
        return False

    def init(self, **options: Any) -> None:
        self.options = options
        if self.error is not None:
            raise self.error

    def shutdown(self) -> None:
        self.has_shut_down = True


async def test_another_version_of_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    cause = RuntimeError("Version mismatch: The cluster was started with:\n    Ray: 2.50.0\n    Python: 3.12.1")
    error = ConnectionError("Failed to connect to Ray cluster")
    error.__cause__ = cause
    monkeypatch.setitem(sys.modules, "ray", FakeRay(error))
    with pytest.raises(EngineError) as caught:
        await RayEngine("auto").open(2)
    assert (
        "cannot connect to Ray at auto: Version mismatch: The cluster was started with: Ray: 2.50.0 Python: 3.12.1; "
        "install the versions of the cluster"
    ) == str(caught.value)


async def test_without_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with pytest.raises(EngineError, match=r"^ray is not installed; run pip install 'ctxbackends\[ray\]'$"):
        await RayEngine().open(1)


async def test_too_few_cpus_of_a_cluster(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxbackends._engines.ray.CPU_SECONDS", 0.0)
    ray = FakeRay(free=1.5, total=8)
    monkeypatch.setitem(sys.modules, "ray", ray)
    engine = RayEngine("auto")
    with pytest.raises(
        EngineError, match=r"^too few CPUs for 2 workers: 1\.5 of 8 are free; use 1 or fewer, or add nodes$"
    ):
        await engine.open(2)
    assert "auto" == ray.options["address"]
    assert not ray.options["log_to_driver"]
    assert ray.has_shut_down


async def test_too_few_cpus_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Known before the start of a cluster, which takes a while."""
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(
        EngineError, match=r"^too few CPUs for 3 workers: 2 of 2 are free; use 2 or fewer, or add nodes$"
    ):
        await RayEngine(options={"num_cpus": 2}).open(3)


async def test_a_cluster_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "1")
    monkeypatch.delenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", raising=False)
    ray = FakeRay(free=2, total=2)
    monkeypatch.setitem(sys.modules, "ray", ray)
    await RayEngine(options={"num_cpus": 2}).open(2)
    assert ("local", False, 2) == tuple(ray.options[name] for name in ("address", "include_dashboard", "num_cpus"))
    assert "0" == os.environ["RAY_USAGE_STATS_ENABLED"]
    assert "0" == os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"]  # binds 127.0.0.1


@pytest.mark.parametrize(
    ("text", "message", "settle"),
    [
        (
            "The actor is dead because its worker process has died. Worker exit type: X",
            "its process died",
            1.0,
        ),
        ("The actor died because its node has died. Node Id: 1f3a", "its node died", 15.0),
        ("The actor 02 is unavailable: rpc error.\nThe task", "The actor 02 is unavailable: rpc error. The task", 15.0),
    ],
)
def test_a_worker_that_may_still_run_is_replaced_after_its_lease(text: str, message: str, settle: float) -> None:
    error = describe_death("worker 2", RuntimeError(text))
    assert (f"worker 2 ended: {message}", settle) == (str(error), error.settle)
