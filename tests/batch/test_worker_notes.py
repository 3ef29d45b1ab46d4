"""Worker processes of a batch: they obey a Retry-After together, and the driver knows their servers and warnings."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import BackendConfig, ModelMismatchWarning
from ctxbackends.batch import BatchAnswer, BatchOptions, BatchReport, BatchRow, EngineError, ProcessEngine, run_batch
from ctxbackends.errors import APIConnectionError
from tests.batch.test_distribution import config, expected, rows, texts
from tests.batch_server import BatchServer, RetryAfter, serve_batches


@pytest.fixture
async def server() -> AsyncIterator[BatchServer]:
    async with serve_batches() as server:
        yield server


def refused(name: str, refusing_url: str) -> BackendConfig:
    return BackendConfig(name=name, type="openai-compatible", endpoint=refusing_url, default_model="tiny")


async def collect(backends: Any, batch: list[BatchRow], **settings: Any) -> list[BatchAnswer]:
    async with run_batch(backends, batch, engine=ProcessEngine(), **settings) as run:
        return [answer async for answer in run]


async def test_a_retry_after_of_one_worker_pauses_all(server: BatchServer, tmp_path: Path) -> None:
    """No request arrives in the pause, besides those that were in flight at the 429."""
    pause = RetryAfter(server, workers=3)
    answers = await collect(
        config(server),
        rows(30),
        workers=3,
        options=BatchOptions(max_in_flight=3),
        journal=tmp_path / "j",
        on_change=pause.note,
    )
    assert expected(30) == texts(answers)
    assert [("one",), ()] == pause.states
    assert 28 == len(pause.waits)
    assert pause.seconds <= min(pause.waits)


async def test_a_server_that_is_away_is_in_the_report(server: BatchServer, tmp_path: Path, refusing_url: str) -> None:
    states: list[tuple[str, ...]] = []
    backends = [config(server), refused("away", refusing_url)]
    note: Callable[[BatchReport], None] = lambda report: states.append(report.unavailable)  # noqa: E731
    answers = await collect(backends, rows(30), workers=2, journal=tmp_path / "j", on_change=note)
    assert expected(30) == texts(answers)
    assert ("away",) in states


async def test_rows_that_wait_for_the_limit_of_a_minute_are_in_the_report(server: BatchServer) -> None:
    options = BatchOptions(requests_per_minute=4)
    is_limited = asyncio.Event()

    def note(report: BatchReport) -> None:
        if report.is_rate_limited:
            is_limited.set()

    run = asyncio.create_task(collect(config(server), rows(30), workers=2, options=options, on_change=note))
    await is_limited.wait()
    run.cancel()
    await asyncio.gather(run, return_exceptions=True)
    assert 4 >= len(server.prompts)


async def test_the_driver_issues_the_warnings_of_workers_once(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    async with serve_batches(model="other") as server:
        backend = config(server, model_mismatch="warn")
        with warnings.catch_warnings(record=True) as issued:
            warnings.simplefilter("always")
            answers = await collect(backend, rows(20), workers=2, journal=tmp_path / "j")
    assert expected(20) == texts(answers)
    assert [ModelMismatchWarning] == [one.category for one in issued]
    assert "Warning" not in capfd.readouterr().err


# --- fewer slots than workers ---------------------------------------------------------------------


@pytest.mark.parametrize("is_first", [False, True])
async def test_a_worker_whose_servers_are_dead_leaves_its_rows_to_others(
    server: BatchServer, tmp_path: Path, refusing_url: str, is_first: bool
) -> None:
    """Each worker has a slot at one of the servers only."""
    backends = [config(server), refused("dead", refusing_url)]
    answers = await collect(
        backends[:: -1 if is_first else 1],
        rows(30),
        workers=2,
        options=BatchOptions(max_in_flight=1),
        journal=tmp_path / "j",
    )
    assert expected(30) == texts(answers)
    assert 30 == len(server.prompts)
    assert 1 == server.max_in_flight


async def test_all_servers_are_dead(tmp_path: Path, refusing_url: str) -> None:
    backends = [refused(name, refusing_url) for name in ("a", "b")]
    with pytest.raises(APIConnectionError, match=r'backend "[ab]"'):
        await collect(backends, rows(30), workers=2, options=BatchOptions(max_in_flight=1), journal=tmp_path / "j")


# --- before the first worker ----------------------------------------------------------------------


def test_a_configuration_that_workers_cannot_open(tmp_path: Path) -> None:
    for problem, settings in (
        ("start it with `ctxbackends serve`", {"type": "llamacpp", "model_path": str(tmp_path / "a.gguf")}),
        ("it contains an api_key", {"type": "openai", "api_key": "canary-0123456789"}),
    ):
        with pytest.raises(EngineError, match=problem) as caught:
            run_batch(BackendConfig(name="a", **settings), rows(1), engine=ProcessEngine(), workers=2)  # type: ignore[arg-type]
        assert "canary" not in str(caught.value)


class PoorEngine(ProcessEngine):
    """An engine that lacks the resources."""

    is_closed = False

    async def open(self, workers: int) -> None:
        raise EngineError(f"too few CPUs for {workers} workers")

    async def aclose(self) -> None:
        self.is_closed = True


async def test_an_engine_without_resources_is_an_error_before_a_row_is_read(server: BatchServer) -> None:
    read: list[str] = []

    def read_rows() -> Any:
        for row in rows(10):
            read.append(row.id)
            yield row

    engine = PoorEngine()
    with pytest.raises(EngineError, match="too few CPUs for 2 workers"):
        async with run_batch(config(server), read_rows(), engine=engine, workers=2) as run:
            assert [] == [answer async for answer in run]
    assert ([], [], True) == (read, server.prompts, engine.is_closed)
