"""Extraction on the workers of an engine: the rows, the journal and the limit are those of one process."""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import BackendConfig, open_backend
from ctxbackends._engines.backends import BackendOpener
from ctxbackends._engines.contract import EngineError
from ctxbackends._engines.processes import ProcessEngine
from ctxbackends.errors import AirgapError, MissingKeyError
from ctxbackends.knowledge import ChunkError, Journal, Kind, Privacy, RunOptions, ingest
from ctxbackends.knowledge._extract.activity import Activity
from ctxbackends.knowledge._extract.progress import Progress
from ctxbackends.knowledge._extract.prompt import Prompt
from ctxbackends.knowledge._own_kinds import record_type_of
from tests.knowledge.commands import ctx, project, start_process
from tests.knowledge.engines import (
    FAILURE,
    FILLER,
    PARTS,
    SECRET,
    LocalEngine,
    LocalWorker,
    answer,
    propose,
    quote_of,
    read,
    without_time,
    workers,
    write_documents,
)
from tests.knowledge.factories import LinesSource
from tests.knowledge.scripted_model import ScriptedModel
from tests.processes import find_workers, kill

Serve = Callable[..., ScriptedModel]
KEY = "k" * 20
# --- the same as in one process -------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 4])
async def test_the_proposal_is_that_of_one_process(serve: Serve, tmp_path: Path, count: int) -> None:
    model = serve(answer)
    write_documents(tmp_path)
    alone = await propose(model, tmp_path)
    prompts, model.prompts = sorted(model.prompts), []
    model.max_in_flight = 0
    engine = LocalEngine()
    outcome = await propose(model, tmp_path, workers=workers(model, count, engine))
    assert prompts == sorted(model.prompts)
    assert not any(SECRET in prompt for prompt in model.prompts)
    assert alone.rows == outcome.rows
    assert PARTS - 1 + 4 == len(outcome.rows)
    assert read(alone) == read(outcome)
    figures = ("chunks", "requests", "cut", "masked", "second_looks", "recovered", "skipped", "output_tokens", "merged")
    for name in figures:
        assert getattr(alone.report, name) == getattr(outcome.report, name), name
    assert min(alone.report.cut, alone.report.recovered, alone.report.masked, len(alone.report.skipped)) > 0
    assert 4 >= model.max_in_flight
    assert count == len(engine.specs)
    assert engine.is_closed
    assert [] == [path for path in (tmp_path / "proposals" / ".journal").iterdir() if path.suffix == ".jsonl"]


@pytest.mark.slow
@pytest.mark.parametrize("count", [2, pytest.param(1, marks=pytest.mark.full), pytest.param(4, marks=pytest.mark.full)])
async def test_processes(serve: Serve, tmp_path: Path, count: int) -> None:
    model = serve(answer)
    write_documents(tmp_path)
    alone = await propose(model, tmp_path)
    model.max_in_flight = 0
    outcome = await propose(model, tmp_path, workers=workers(model, count, ProcessEngine()))
    assert read(alone) == read(outcome)
    assert alone.rows == outcome.rows
    assert 4 >= model.max_in_flight
    assert [] == find_workers(os.getpid())


async def test_rows_arrive_in_the_order_of_the_text(serve: Serve) -> None:
    def slow(prompt: str) -> Any:
        time.sleep(0.05 if "part 0 " in prompt else 0)
        return answer(prompt)

    model = serve(slow)
    source = LinesSource(*(f"{quote_of(str(number))} {FILLER}" for number in range(5)))
    events: list[object] = []
    async with (
        open_backend("openai", name="model", endpoint=model.url, api_key_env="", default_model="scripted") as backend,
        ingest(
            backend,
            [source],
            kinds=[Kind.DECISION],
            chunk_tokens=500,
            on_event=events.append,
            workers=workers(model, 2),
        ) as run,
    ):
        titles = [row.record.title async for row in run]  # type: ignore[union-attr]  # decisions
    assert [f"Choose option {number}" for number in (0, 1, 2, 3, 4)] == titles
    assert [1, 2, 3, 4, 5] == [event.chunks for event in events if isinstance(event, Progress)]
    activity = [event for event in events if isinstance(event, Activity)]
    assert all(event.in_flight <= 8 for event in activity)
    assert 5 == run.report.requests


# --- the journal ----------------------------------------------------------------------------------------


async def test_an_error_ends_the_run_and_the_next_one_resumes(serve: Serve, tmp_path: Path) -> None:
    model = serve(answer)
    write_documents(tmp_path)
    options = RunOptions(kinds=[Kind.DECISION], chunk_tokens=500)
    with pytest.raises(ChunkError, match=r"docs/minutes.md:15: no usable answer") as raised:
        await propose(model, tmp_path, options=options, workers=workers(model, 2))
    assert raised.value.__cause__ is not None
    (first,) = [path for path in (tmp_path / "proposals" / ".journal").glob("*.jsonl") if "part" not in path.name]
    journal = Journal(first)
    answers = len(journal)
    journal.close()
    assert answers >= 7
    model.prompts.clear()
    with pytest.raises(ChunkError):  # in one process
        await propose(model, tmp_path, options=options, resume=True)
    asked = [prompt for prompt in model.prompts if quote_of("7") not in prompt]
    assert not any(quote_of(str(number)) in prompt for number in range(7) for prompt in asked)
    model.script = lambda prompt: {} if quote_of("7") in prompt else answer(prompt)
    model.prompts.clear()
    outcome = await propose(model, tmp_path, options=options, resume=True, workers=workers(model, 2))
    assert PARTS - 2 == len(outcome.rows)  # one is in quarantine
    assert not any(quote_of("3") in prompt for prompt in model.prompts)


async def test_answers_of_a_dead_worker_are_not_asked_again(serve: Serve, tmp_path: Path) -> None:
    model = serve(answer)
    write_documents(tmp_path)
    alone = await propose(model, tmp_path)
    prompts, model.prompts = sorted(model.prompts), []
    deaths: list[LocalWorker[Any, Any]] = []

    def kills(worker: LocalWorker[Any, Any]) -> bool:
        if worker.blocks < 3 or len(deaths) == 2:
            return False
        deaths.append(worker)
        return True

    outcome = await propose(model, tmp_path, workers=workers(model, 2, LocalEngine(kills=kills)))
    assert 2 == len(deaths)
    assert read(alone) == read(outcome)
    # All its answers were in its part, but for the chunk without an answer.
    assert prompts == sorted(dict.fromkeys(model.prompts))
    assert len(prompts) + 8 >= len(model.prompts)


@pytest.mark.linux
@pytest.mark.slow
async def test_a_killed_process(serve: Serve, tmp_path: Path) -> None:
    model = serve(answer, seconds=0.05)
    write_documents(tmp_path, 40)
    alone = await propose(model, tmp_path)
    requests, model.prompts = len(model.prompts), []
    running = asyncio.create_task(propose(model, tmp_path, workers=workers(model, 2, ProcessEngine())))
    while len(model.prompts) < 20:
        await asyncio.sleep(0.01)
    kill(find_workers(os.getpid())[0])
    model.max_in_flight = 0
    outcome = await running
    assert read(alone) == read(outcome)
    assert requests + 2 >= len(model.prompts)  # half of the requests in flight
    assert 4 >= model.max_in_flight


@pytest.mark.linux
@pytest.mark.slow
def test_a_killed_driver(serve: Serve, tmp_path: Path) -> None:
    model = serve(answer, seconds=0.05)
    directory = project(tmp_path, model.url)
    write_documents(directory, 40)
    options = ("ingest", "docs", "--extract", "decisions", "--chunk-tokens", "500", "--skip-failed")
    alone = ctx(directory, *options, OPENAI_API_KEY=KEY)
    assert 0 == alone.code, alone.err
    requests, model.prompts = len(model.prompts), []
    process = start_process(directory, *options, "--engine", "processes", "--workers", "2", OPENAI_API_KEY=KEY)
    try:
        while len(model.prompts) < 15:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        children = find_workers(process.pid)
        process.kill()
    finally:
        process.communicate()
    wait_for_end(children)
    resumed = ctx(directory, *options, "--resume", OPENAI_API_KEY=KEY)
    assert 0 == resumed.code, resumed.err
    assert without_time(alone.proposal) == without_time(resumed.proposal)
    assert requests + 2 * 4 >= len(model.prompts)  # those in flight, and those whose answers were being written


@pytest.mark.linux
@pytest.mark.slow
def test_ctrl_c_ends_the_workers(serve: Serve, tmp_path: Path) -> None:
    model = serve(answer, seconds=0.1)
    directory = project(tmp_path, model.url)
    write_documents(directory)
    options = ("ingest", "docs", "--extract", "decisions", "--chunk-tokens", "500", "--engine", "processes")
    process = start_process(directory, *options, "--workers", "2", OPENAI_API_KEY=KEY)
    try:
        while len(model.prompts) < 4:
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        children = find_workers(process.pid)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert 130 == process.returncode
    assert b"use --resume to continue" in err
    assert 2 == len(children)
    wait_for_end(children)


def wait_for_end(processes: list[int]) -> None:
    """Wait until the processes have ended, whose parent does not wait for them any more."""
    for pid in processes:
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2]:
            time.sleep(0.01)


# --- errors ---------------------------------------------------------------------------------------------


async def test_more_workers_than_requests_at_once(serve: Serve, tmp_path: Path) -> None:
    model = serve(answer)
    write_documents(tmp_path)
    engine = LocalEngine()
    with pytest.raises(EngineError, match="max_concurrency is smaller than the workers: 4 < 5; use 4 workers or fewer"):
        await propose(model, tmp_path, workers=workers(model, 5, engine))
    with pytest.raises(EngineError, match="1 < 2"):  # the limit of the backend
        await propose(model, tmp_path, workers=workers(model, 2, engine, max_concurrency=1))
    assert [] == model.prompts + engine.specs


async def test_an_engine_without_resources(serve: Serve, tmp_path: Path) -> None:
    model = serve(answer)
    write_documents(tmp_path)
    engine = LocalEngine(resources=1)
    with pytest.raises(EngineError, match="too few CPUs"):
        await propose(model, tmp_path, workers=workers(model, 2, engine))
    assert engine.is_closed
    assert [] == model.prompts


async def test_an_engine_without_resources_is_an_error_before_the_server_is_asked(
    serve: Serve, tmp_path: Path, refusing_url: str
) -> None:
    model = serve(answer)
    model.url = refusing_url
    write_documents(tmp_path)
    with pytest.raises(EngineError, match="too few CPUs"):
        await propose(model, tmp_path, workers=workers(model, 2, LocalEngine(resources=1)))


async def test_a_directory_that_workers_do_not_share(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ctxbackends._engines.shared_directory.WITHIN_SECONDS", 0.2)
    model = serve(answer)
    write_documents(tmp_path)
    engine = LocalEngine(directory=tmp_path / "elsewhere")
    with pytest.raises(EngineError, match=r"not shared with the worker .*use --out with a directory that all nodes"):
        await propose(model, tmp_path, workers=workers(model, 2, engine))
    assert [] == model.prompts


async def test_a_worker_without_the_key(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = serve(answer)
    write_documents(tmp_path)
    monkeypatch.delenv("TEST_WORKER_KEY", raising=False)
    with pytest.raises(MissingKeyError, match="TEST_WORKER_KEY"):
        await propose(model, tmp_path, workers=workers(model, 2, api_key_env="TEST_WORKER_KEY"))
    assert [] == model.prompts


async def test_the_key_is_in_no_spec(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = serve(answer)
    write_documents(tmp_path)
    monkeypatch.setenv("TEST_WORKER_KEY", "canary-0123456789")
    engine = LocalEngine()
    await propose(model, tmp_path, workers=workers(model, 2, engine, api_key_env="TEST_WORKER_KEY"))
    assert 2 == len(engine.specs)
    assert not any(b"canary" in spec for spec in engine.specs)


def test_a_configuration_that_workers_cannot_use(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="it contains an api_key"):
        BackendOpener(BackendConfig(name="openai", api_key="canary-0123456789"))
    with pytest.raises(EngineError, match="start it with `ctxbackends serve`"):
        BackendOpener(BackendConfig(name="llamacpp", model_path=str(tmp_path / "a.gguf")))


async def test_the_airgap_is_on_in_a_worker() -> None:
    public = BackendConfig(name="openai", endpoint="https://8.8.8.8", api_key_env="")
    opener = pickle.loads(pickle.dumps(BackendOpener(public, airgap=True)))  # noqa: S301
    with pytest.raises(AirgapError):
        async with opener.open():
            pass


async def test_redacted_files_are_not_sent_by_workers(serve: Serve, tmp_path: Path) -> None:
    model = serve(answer)
    write_documents(tmp_path)
    privacy = Privacy(("note*.md",), tmp_path / "docs")
    outcome = await propose(model, tmp_path, privacy=privacy, workers=workers(model, 2))
    assert any("pump" in prompt for prompt in model.prompts)  # the model is on loopback
    assert PARTS + 3 == len(outcome.rows)


# --- values that are pickled ----------------------------------------------------------------------------


def test_records_of_own_kinds_and_prompts_are_pickled() -> None:
    record: Any = record_type_of(FAILURE)
    one = record(machine="pump", hours=3)
    copy = pickle.loads(pickle.dumps(one))  # noqa: S301
    assert (type(one), one) == (type(copy), copy)
    prompt = Prompt([Kind.DECISION, FAILURE], 1, answer_tokens=1_000, instructions="Only the pumps.", has_turns=True)
    other = pickle.loads(pickle.dumps(prompt))  # noqa: S301
    assert [one.sha256 for one in prompt.questions] == [one.sha256 for one in other.questions]


# --- the command ----------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_command(serve: Serve, tmp_path: Path) -> None:
    model = serve(answer)
    directory = project(tmp_path, model.url, more="privacy:\n  redact: ['docs/note*']\n")
    write_documents(directory)
    options = ("ingest", "docs", "--extract", "decisions", "--chunk-tokens", "500", "--skip-failed")
    result = ctx(directory, *options, "--engine", "processes", "--workers", "2", OPENAI_API_KEY=KEY)
    assert (0, 19) == (result.code, result.proposal.read_text().count("Choose option")), result.err


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--engine", "processes"), "requires --workers"),
        (("--workers", "2"), "require --engine"),
        (("--engine", "processes", "--workers", "2", "--model-path", "a.gguf"), "--model-path"),
    ],
)
def test_options_that_do_not_fit_together(tmp_path: Path, options: tuple[str, ...], problem: str) -> None:
    (tmp_path / "a.md").write_text("We chose YAML.\n")
    result = ctx(tmp_path, "ingest", "a.md", *options)
    assert 2 == result.code
    assert problem in result.err


def test_a_dry_run_starts_no_worker(serve: Serve, tmp_path: Path) -> None:
    model = serve(answer)
    directory = project(tmp_path, model.url)
    write_documents(directory)
    options = ("--dry-run", "--backend", "model", "--engine", "ray", "--workers", "100000")
    result = ctx(directory, "ingest", "docs", *options, OPENAI_API_KEY=KEY)
    assert 0 == result.code, result.err
    assert "would be sent" in result.out
