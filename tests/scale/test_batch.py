"""Batches on Ray: an actor that is killed, a node that is removed, and the key of the servers."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import BackendConfig, ModelMismatchWarning
from ctxbackends._engines.ray import RayEngine
from ctxbackends.batch import BatchAnswer, BatchOptions, BatchRow, run_batch
from ctxbackends.errors import MissingKeyError
from tests.batch_server import MODEL, BatchServer, RetryAfter, serve_batches
from tests.processes import find_descendants, kill
from tests.scale.cluster import LoopbackCluster


@pytest.fixture
async def server() -> AsyncIterator[BatchServer]:
    async with serve_batches() as server:
        server.delay = 0.02
        yield server


def config(server: BatchServer, **settings: Any) -> BackendConfig:
    settings = {"default_model": MODEL, "complete_streams": False, **settings}
    return BackendConfig(name="one", type="openai-compatible", endpoint=server.url, **settings)


def rows(count: int) -> list[BatchRow]:
    return [BatchRow(id=f"r{number}", prompt=f"question {number}") for number in range(count)]


def expected(count: int) -> list[tuple[str, str]]:
    return sorted((f"r{number}", f"answer to question {number}") for number in range(count))


def texts(answers: list[BatchAnswer]) -> list[tuple[str, str]]:
    return sorted((answer.row.id, answer.text) for answer in answers)


def find_actors() -> set[int]:
    """The processes of workers. Ray writes the name of the class into their titles."""
    processes = find_descendants(os.getpid())
    return {pid for pid in processes if b"ray::WorkerActor" in Path(f"/proc/{pid}/cmdline").read_bytes()}


@pytest.mark.parametrize("kills", [0, pytest.param(1, marks=pytest.mark.full)])
async def test_a_removed_node_and_a_killed_actor_lose_nothing(
    cluster: LoopbackCluster, server: BatchServer, tmp_path: Path, key_variable: str, kills: int
) -> None:
    """Two nodes with two CPUs each, and three workers: at least one on the node that is removed."""
    options = BatchOptions(max_in_flight=12)
    backend = config(server, api_key_env=key_variable)
    journal = tmp_path / "journal"
    answers = []
    with cluster.more_cpus(4) as node:
        async with run_batch(
            backend, rows(900), engine=RayEngine(cluster.address), workers=3, options=options, journal=journal
        ) as run:
            async for answer in run:
                answers.append(answer)
                if len(answers) == 100:
                    await asyncio.to_thread(cluster.remove_node, node)
                if kills and len(answers) == 500:
                    kill(min(find_actors()))
    assert expected(900) == texts(answers)
    assert 12 >= server.max_in_flight
    # Two workers are lost with the node at most; each has four requests at once, and answers that it did not store.
    sent = len(server.prompts)
    assert 900 + (2 + kills) * 8 >= sent
    key = os.environ[key_variable].encode()
    files = [file for root in (cluster.directory, tmp_path) for file in root.rglob("*") if file.is_file()]
    assert any(file.parent == journal for file in files)
    assert [] == [file for file in files if key in file.read_bytes()]
    # Another run, without an engine, has nothing to ask.
    async with run_batch(backend, rows(900), options=options, journal=journal) as run:
        assert expected(900) == texts([answer async for answer in run])
    assert sent == len(server.prompts)


async def test_a_retry_after_and_the_warning_of_one_actor_concern_all(
    cluster: LoopbackCluster, server: BatchServer, tmp_path: Path
) -> None:
    """No request arrives in the pause, besides those in flight; the driver issues the warning of both actors once."""
    pause = RetryAfter(server, workers=2)
    server.model = "other"
    with pytest.warns(ModelMismatchWarning) as warnings:
        async with run_batch(
            config(server, model_mismatch="warn"),
            rows(30),
            engine=RayEngine(cluster.address),
            workers=2,
            options=BatchOptions(max_in_flight=2),
            journal=tmp_path / "journal",
            on_change=pause.note,
        ) as run:
            assert expected(30) == texts([answer async for answer in run])
    assert [("one",), ()] == pause.states
    assert 29 == len(pause.waits)
    assert pause.seconds <= min(pause.waits)
    assert 1 == len(warnings)


@pytest.mark.full
async def test_a_worker_without_the_key(
    cluster: LoopbackCluster, server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CTX_TEST_KEY_OF_THE_DRIVER", "of-the-driver-alone")
    backend = config(server, api_key_env="CTX_TEST_KEY_OF_THE_DRIVER")
    with pytest.raises(MissingKeyError, match="CTX_TEST_KEY_OF_THE_DRIVER"):
        async with run_batch(backend, rows(10), engine=RayEngine(cluster.address), journal=tmp_path / "j") as run:
            assert [] == [answer async for answer in run]
    assert [] == server.prompts
