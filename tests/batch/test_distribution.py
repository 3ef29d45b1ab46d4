"""A batch on worker processes of this machine."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import BackendConfig, open_backend
from ctxbackends._engines.processes import ProcessEngine
from ctxbackends.batch import BatchAnswer, BatchError, BatchOptions, BatchRow, run_batch
from ctxbackends.batch._shares import divide_slots
from ctxbackends.errors import AuthenticationError
from tests.batch.test_servers import EchoServer
from tests.batch_server import MODEL, BatchServer, serve_batches
from tests.processes import find_workers, kill


@pytest.fixture
async def server() -> AsyncIterator[BatchServer]:
    async with serve_batches() as server:
        yield server


def config(server: BatchServer | EchoServer, name: str = "one", **settings: Any) -> BackendConfig:
    settings = {"default_model": MODEL, "complete_streams": False, **settings}
    return BackendConfig(name=name, type="openai-compatible", endpoint=server.url, **settings)


def rows(count: int) -> list[BatchRow]:
    return [BatchRow(id=f"r{number}", prompt=f"question {number}") for number in range(count)]


async def collect(backends: Any, batch: Any, **settings: Any) -> list[BatchAnswer]:
    async with run_batch(backends, batch, engine=ProcessEngine(), **settings) as run:
        return [answer async for answer in run]


def texts(answers: list[BatchAnswer]) -> list[tuple[str, str]]:
    return sorted((answer.row.id, answer.text) for answer in answers)


def expected(count: int) -> list[tuple[str, str]]:
    return sorted((f"r{number}", f"answer to question {number}") for number in range(count))


@pytest.mark.parametrize("workers", [1, 2, 4])
async def test_every_row_is_answered_once_within_the_limit(server: BatchServer, tmp_path: Path, workers: int) -> None:
    server.delay = 0.005
    options = BatchOptions(max_in_flight=4)
    answers = await collect(config(server), rows(100), workers=workers, options=options, journal=tmp_path / "j")
    assert texts(answers) == expected(100)
    assert len(server.prompts) == 100
    assert server.max_in_flight <= 4


async def test_resumed_in_this_process(server: BatchServer, tmp_path: Path) -> None:
    """The journal of workers is that of the batch."""
    await collect(config(server), rows(30), workers=2, journal=tmp_path / "j")
    async with run_batch(config(server), rows(40), journal=tmp_path / "j") as run:
        answers = [answer async for answer in run]
    assert texts(answers) == expected(40)
    assert len(server.prompts) == 40
    assert sum(answer.is_resumed for answer in answers) == 30


@pytest.mark.linux
async def test_killed_worker_is_replaced(server: BatchServer, tmp_path: Path) -> None:
    server.delay = 0.01
    options = BatchOptions(max_in_flight=8)
    children = set(find_workers(os.getpid()))
    answers = []
    async with run_batch(
        config(server), rows(300), engine=ProcessEngine(), workers=2, options=options, journal=tmp_path / "j"
    ) as run:
        async for answer in run:
            answers.append(answer)
            if len(answers) == 100:
                workers = set(find_workers(os.getpid())) - children
                kill(min(workers))
    assert texts(answers) == expected(300)
    assert len(server.prompts) <= 300 + 2 * 4
    assert server.max_in_flight <= 8
    [message] = run.report.worker_deaths
    assert re.fullmatch(r"worker [12] ended: killed by SIGKILL; \d rows? sent again", message)
    assert run.report.workers == 2


async def test_failed_rows(server: BatchServer, tmp_path: Path) -> None:
    server.statuses = {"question 3": [(400, {})] * 3}
    answers = await collect(config(server), rows(20), workers=2, journal=tmp_path / "j")
    assert [answer.row.id for answer in answers if answer.error is not None] == ["r3"]


async def test_error_of_all_rows(server: BatchServer, tmp_path: Path) -> None:
    server.statuses = {f"question {number}": [(401, {})] for number in range(100)}
    with pytest.raises(AuthenticationError):
        await collect(config(server), rows(100), workers=2, journal=tmp_path / "j")


async def test_worker_without_the_key(server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CTXBACKENDS_TEST_KEY", raising=False)
    with pytest.raises(Exception, match="CTXBACKENDS_TEST_KEY"):
        await collect(config(server, api_key_env="CTXBACKENDS_TEST_KEY"), rows(5), workers=2, journal=tmp_path / "j")
    assert server.prompts == []


async def test_cancelled_in_the_middle(server: BatchServer, tmp_path: Path) -> None:
    server.hold = lambda prompt: prompt == "question 20"
    running = asyncio.create_task(collect(config(server), rows(40), workers=2, journal=tmp_path / "j"))
    await server.wait_for(lambda server: "question 20" in server.prompts)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    server.hold = lambda _: False
    assert texts(await collect(config(server), rows(40), workers=2, journal=tmp_path / "j")) == expected(40)


async def test_backend_of_this_process(server: BatchServer) -> None:

    async with open_backend("openai-compatible", endpoint=server.url, default_model=MODEL) as backend:
        with pytest.raises(BatchError, match="BackendConfig"):
            run_batch(backend, rows(1), engine=ProcessEngine())


@pytest.mark.parametrize(
    ("limits", "workers", "shares"),
    [
        ({"a": 8}, 2, [{"a": 4}, {"a": 4}]),
        ({"a": 8}, 3, [{"a": 3}, {"a": 3}, {"a": 2}]),
        ({"a": 1, "b": 1}, 2, [{"a": 1}, {"b": 1}]),
        ({"a": 3, "b": 3}, 2, [{"a": 2, "b": 1}, {"a": 1, "b": 2}]),
        ({"a": 2, "b": 2, "c": 2}, 3, [{"a": 1, "b": 1}, {"a": 1, "c": 1}, {"b": 1, "c": 1}]),
    ],
    ids=str,
)
def test_shares(limits: dict[str, int], workers: int, shares: list[dict[str, int]]) -> None:
    assert divide_slots(limits, workers) == shares


def test_more_workers_than_slots() -> None:
    with pytest.raises(BatchError, match="use 3 workers"):
        divide_slots({"a": 2, "b": 1}, 4)
