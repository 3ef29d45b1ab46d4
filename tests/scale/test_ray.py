"""The engine of Ray: actors and drivers that are killed, a node that is removed, the limits, keys and addresses."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator

import pytest

from ctxbackends._engines.contract import EngineError
from ctxbackends._engines.distribute import WorkerDeath
from ctxbackends._engines.hosting import encode_spec
from ctxbackends._engines.ray import RayEngine
from ctxbackends._engines.shared_directory import SharedDirectory
from ctxbackends.errors import AuthenticationError
from tests.engine_workers import CountingServer, Parts, ask, counting_server, driver_process, ids, ignore, numbers
from tests.processes import find_descendants, is_running, kill
from tests.scale.cluster import LoopbackCluster
from tests.scale.sockets import find_listeners


@pytest.fixture
async def engine(cluster: LoopbackCluster) -> AsyncIterator[RayEngine]:
    engine = RayEngine(cluster.address)
    yield engine
    await engine.aclose()


async def test_a_worker_answers_blocks_and_raises(engine: RayEngine, parts: Parts, server: CountingServer) -> None:
    await engine.open(1)
    worker = await engine.start(parts.spec(server.url, "a"), "worker 1", ignore)
    blocks = await asyncio.gather(worker.answer(["1", "2"]), worker.answer(["3"]))
    assert (["1=ok", "2=ok"], ["3=ok"]) == tuple(blocks)
    with pytest.raises(AuthenticationError, match="invalid API key") as caught:
        await worker.answer(["fail"])
    assert 401 == caught.value.status_code
    with pytest.raises(EngineError, match=r"worker failed: OddError: odd"):
        await worker.answer(["odd"])
    assert ["4=ok"] == await worker.answer(["4"])
    await worker.aclose()
    (pid,) = parts.pids()
    while is_running(pid):
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("workers", [2, *(pytest.param(workers, marks=pytest.mark.full) for workers in (1, 4))])
async def test_a_killed_actor_is_replaced_within_the_limit(
    cluster: LoopbackCluster, engine: RayEngine, parts: Parts, server: CountingServer, workers: int
) -> None:
    deaths: list[WorkerDeath] = []

    async def kill_one() -> None:
        await server.wait_requests(60)
        kill(parts.pids()[0])

    killing = asyncio.create_task(kill_one())
    with cluster.more_cpus(workers):
        answers = await ask(engine, parts, server.url, numbers(400), workers=workers, on_death=deaths.append)
    await killing
    assert Counter(numbers(400)) == ids(answers)
    assert 4 * workers >= server.peak
    assert 400 + 8 >= server.requests.total()  # two blocks
    # Before it, an actor may have started on a node of an earlier test that was going away.
    assert "its process died" == str(deaths[-1].error).split(": ")[1]
    assert [0] * (len(deaths) - 1) == [death.items for death in deaths[:-1]]
    assert 8 >= deaths[0].items


async def test_actors_end_with_their_driver_and_another_driver_goes_on(
    cluster: LoopbackCluster, parts: Parts, server: CountingServer
) -> None:
    arguments = {
        "engine": cluster.address,
        "workers": 1,
        "max_in_flight": 8,
        "items": 400,
        "url": server.url,
        "directory": str(parts.directory),
    }
    async with driver_process(**arguments) as driver:
        await server.wait_requests(100)
        driver.kill()
        await driver.wait()
        for pid in parts.pids():
            while is_running(pid):
                await asyncio.sleep(0.05)
        await server.wait_idle()
        sent = server.requests.total()
    async with driver_process(**arguments) as driver:
        await server.wait_requests(sent + 50)
        kill(parts.pids()[-1])
        output, errors = await driver.communicate()
    assert 0 == driver.returncode
    assert errors.startswith(b"worker 1 ended: its process died; ")
    assert 1 == errors.count(b"\n")
    assert {"ok"} == {line.partition("=")[2] for line in output.decode().splitlines()}  # nothing of Ray's
    assert set(numbers(400)) == ids(parts.read()).keys()
    assert 300 > sent
    assert 400 + 2 * 8 >= server.requests.total()
    assert 8 >= server.peak


# --- keys and addresses ---------------------------------------------------------------------------


async def test_neither_the_key_nor_an_address_of_the_network(
    cluster: LoopbackCluster, engine: RayEngine, parts: Parts, server: CountingServer, key_variable: str
) -> None:
    key = os.environ[key_variable]
    directory = SharedDirectory(parts.directory)
    spec = directory.wrap(parts.spec(server.url, "a", key_variable=key_variable))
    assert key.encode() not in encode_spec(spec)
    await engine.open(1)
    worker = await engine.start(spec, "worker 1", ignore)
    await directory.verify(spec, worker.host)
    directory.close()
    assert ["1=ok", "2=ok"] == await worker.answer(["1", "2"])
    assert {key} == server.keys  # the worker has it
    files = [file for root in (cluster.directory, parts.directory) for file in root.rglob("*") if file.is_file()]
    assert any("raylet" in file.name for file in files)
    assert [] == [file for file in files if key.encode() in file.read_bytes()]
    processes = find_descendants(os.getpid())
    assert parts.pids()[0] in processes
    assert {"127.0.0.1"} == find_listeners(processes)


@pytest.mark.full
async def test_a_cluster_that_the_engine_starts_listens_on_loopback_and_ends_with_its_driver(
    parts: Parts, server: CountingServer
) -> None:
    """The driver kills itself after some answers, and its cluster ends."""
    arguments = {
        "engine": "local",
        "workers": 1,
        "max_in_flight": 4,
        "items": 200,
        "url": server.url,
        "directory": str(parts.directory),
    }
    async with driver_process(**arguments) as driver:
        await server.wait_requests(20)
        processes = find_descendants(driver.pid)
        assert parts.pids()[0] in processes
        assert {"127.0.0.1"} == find_listeners(processes)
        driver.kill()
        await driver.wait()
        while any(is_running(pid) for pid in processes):
            await asyncio.sleep(0.05)
        await server.wait_idle()
        sent = server.requests.total()
        await asyncio.sleep(0.2)
    assert sent == server.requests.total() < 200


@pytest.mark.full
async def test_actors_end_when_their_driver_is_silent(cluster: LoopbackCluster, parts: Parts) -> None:
    if sys.platform == "win32":
        raise NotImplementedError("the module is skipped there")
    async with counting_server(seconds=600) as server:
        arguments = {
            "engine": cluster.address,
            "workers": 1,
            "max_in_flight": 4,
            "items": 200,
            "url": server.url,
            "directory": str(parts.directory),
        }
        async with driver_process(**arguments) as driver:
            await server.wait_requests(4)
            driver.send_signal(signal.SIGSTOP)
            await server.wait_idle()
            while is_running(parts.pids()[0]):
                await asyncio.sleep(0.05)


# --- a cluster that does not fit -----------------------------------------------------------------


async def test_too_few_cpus(engine: RayEngine) -> None:
    async with asyncio.timeout(10):
        with pytest.raises(
            EngineError, match=r"^too few CPUs for 3 workers: 2 of 2 are free; use 2 or fewer, or add nodes$"
        ):
            await engine.open(3)


@pytest.mark.full
async def test_a_worker_without_the_key(engine: RayEngine, parts: Parts, server: CountingServer) -> None:
    with pytest.raises(KeyError, match="CTX_TEST_MISSING_KEY"):
        await ask(engine, parts, server.url, numbers(8), workers=1, key_variable="CTX_TEST_MISSING_KEY")
    assert not server.requests
