"""A run of a batch against a server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import Backend, open_backend
from ctxbackends.batch import (
    BatchAnswer,
    BatchError,
    BatchInputError,
    BatchJournalError,
    BatchOptions,
    BatchRow,
    run_batch,
)
from ctxbackends.errors import AuthenticationError
from tests.batch_server import MODEL, BatchServer, serve_batches


@pytest.fixture
async def server() -> AsyncIterator[BatchServer]:
    async with serve_batches() as server:
        yield server


@asynccontextmanager
async def opened(server: BatchServer, **settings: Any) -> AsyncIterator[Backend]:
    settings = {"name": "one", "default_model": MODEL, "complete_streams": False, **settings}
    async with open_backend("openai-compatible", endpoint=server.url, **settings) as backend:
        yield backend


def rows(count: int, start: int = 0) -> list[BatchRow]:
    return [BatchRow(id=f"r{number}", prompt=f"question {number}") for number in range(start, start + count)]


async def collect(backend: Backend, batch: Any, **settings: Any) -> dict[str, BatchAnswer]:
    async with run_batch(backend, batch, **settings) as run:
        answers = [answer async for answer in run]
    assert len({answer.row.id for answer in answers}) == len(answers)
    return {answer.row.id: answer for answer in answers}


def texts(answers: dict[str, BatchAnswer]) -> dict[str, str]:
    return {row_id: answer.text for row_id, answer in answers.items()}


EXPECTED = {f"r{number}": f"answer to question {number}" for number in range(40)}


async def test_every_row_is_answered_once(server: BatchServer) -> None:
    async with opened(server) as backend:
        answers = await collect(backend, rows(40))
    assert texts(answers) == EXPECTED
    assert sorted(server.prompts) == sorted(f"question {number}" for number in range(40))
    assert {answer.backend for answer in answers.values()} == {"one"}


class Wrapper:
    """A backend that passes everything on."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __getattr__(self, name: str) -> Any:
        return getattr(self._backend, name)


async def test_wrapper_of_a_backend(server: BatchServer) -> None:
    async with opened(server) as backend:
        wrapper: Any = Wrapper(backend)
        assert {"r0", "r1"} == {*await collect(wrapper, rows(2))}


async def test_figures(server: BatchServer) -> None:
    server.statuses = {"question 3": [(400, {})], "question 5": [(500, {})]}
    async with opened(server) as backend, run_batch(backend, rows(10)) as run:
        answers = {answer.row.id: answer async for answer in run}
    report = run.report
    assert (report.rows, report.answered, report.failed, report.resumed) == (10, 9, 1, 0)
    assert (report.requests, report.repeated) == (11, 1)
    assert answers["r3"].error is not None
    assert answers["r3"].error.status_code == 400
    assert (answers["r5"].attempts, answers["r3"].attempts) == (2, 1)
    assert report.by_backend == {"one": 9}
    assert report.seconds > 0


async def generate(count: int) -> AsyncIterator[BatchRow]:
    for row in rows(count):
        await asyncio.sleep(0)
        yield row


@pytest.mark.parametrize("validate", [True, False], ids=["validated", "not-validated"])
@pytest.mark.parametrize("kind", ["list", "generator", "async-generator"])
async def test_rows_from_any_iterable(server: BatchServer, kind: str, validate: bool) -> None:
    batch: Any = {"list": rows(40), "generator": iter(rows(40)), "async-generator": generate(40)}[kind]
    async with opened(server) as backend:
        answers = await collect(backend, batch, options=BatchOptions(validate=validate))
    assert texts(answers) == EXPECTED


async def test_duplicate_ids_are_an_error_before_the_first_request(server: BatchServer) -> None:
    async with opened(server) as backend:
        with pytest.raises(BatchInputError, match="r1"):
            await collect(backend, [*rows(3), *rows(1, 1)])
    assert server.prompts == []


# --- the journal ------------------------------------------------------------------------------------------


async def test_answered_rows_are_not_asked_again_and_failed_ones_are(server: BatchServer, tmp_path: Path) -> None:
    server.statuses = {"question 7": [(400, {})]}
    async with opened(server) as backend:
        first = await collect(backend, rows(20), journal=tmp_path / "journal")
        assert first["r7"].error is not None
        server.prompts.clear()
        second = await collect(backend, rows(40), journal=tmp_path / "journal")
    assert texts(second) == EXPECTED
    assert sorted(server.prompts) == sorted(["question 7", *(f"question {number}" for number in range(20, 40))])
    assert {row_id for row_id, answer in second.items() if answer.is_resumed} == {f"r{n}" for n in range(20) if n != 7}


async def test_fresh_asks_all_rows_again(server: BatchServer, tmp_path: Path) -> None:
    async with opened(server) as backend:
        await collect(backend, rows(5), journal=tmp_path / "journal")
        await collect(backend, rows(5), journal=tmp_path / "journal", fresh=True)
    assert set(server.counts.values()) == {2}


@pytest.mark.parametrize(
    "changed",
    [BatchOptions(options={"temperature": 1.0}), BatchOptions(model="other"), BatchOptions(system="Be brief.")],
    ids=["options", "model", "system"],
)
async def test_journal_of_a_run_with_other_options(server: BatchServer, tmp_path: Path, changed: BatchOptions) -> None:
    async with opened(server) as backend:
        await collect(backend, rows(5), journal=tmp_path / "journal")
        with pytest.raises(BatchJournalError, match="--fresh"):
            await collect(backend, rows(5), journal=tmp_path / "journal", options=changed)
    assert len(server.prompts) == 5


async def test_limits_may_change_between_runs(server: BatchServer, tmp_path: Path) -> None:
    async with opened(server) as backend:
        await collect(backend, rows(5), journal=tmp_path / "journal")
        options = BatchOptions(max_in_flight=2, requests_per_minute=1000, max_retries=0)
        answers = await collect(backend, rows(40), journal=tmp_path / "journal", options=options)
    assert texts(answers) == EXPECTED
    assert len(server.prompts) == 40


async def test_changed_row_is_asked_again(server: BatchServer, tmp_path: Path) -> None:
    batch = rows(5)
    async with opened(server) as backend:
        await collect(backend, batch, journal=tmp_path / "journal")
        batch[2] = BatchRow(id="r2", prompt="another question")
        server.prompts.clear()
        answers = await collect(backend, batch, journal=tmp_path / "journal")
    assert server.prompts == ["another question"]
    assert answers["r2"].text == "answer to another question"


async def test_answers_of_another_model_in_the_journal_are_an_error(server: BatchServer, tmp_path: Path) -> None:
    async with opened(server, model_mismatch="ignore") as backend:
        await collect(backend, rows(5), journal=tmp_path / "journal")
        server.model = "bigger"
        with pytest.raises(BatchError, match="bigger"):
            await collect(backend, rows(10), journal=tmp_path / "journal")


# --- errors of all rows ------------------------------------------------------------------------------------


async def test_error_of_all_rows_ends_the_batch_and_keeps_what_was_sent(server: BatchServer, tmp_path: Path) -> None:
    # question 2 is refused while question 0 and 1 are in flight; they are answered afterwards.
    server.hold = lambda prompt: prompt in ("question 0", "question 1")
    server.statuses = {"question 2": [(401, {})]}
    async with opened(server) as backend:
        options = BatchOptions(max_in_flight=3)
        running = asyncio.create_task(collect(backend, rows(40), journal=tmp_path / "journal", options=options))
        await server.wait_for(lambda server: "question 2" in server.prompts)
        await asyncio.sleep(0.05)
        server.release.set()
        with pytest.raises(AuthenticationError):
            await running
        assert len(server.prompts) < 10
        sent = set(server.prompts) - {"question 2"}
        server.prompts.clear()
        answers = await collect(backend, rows(40), journal=tmp_path / "journal", options=options)
    assert texts(answers) == EXPECTED
    assert not sent & set(server.prompts)


@pytest.mark.parametrize("when", ["first", "later"])
async def test_forbidden_row(server: BatchServer, when: str) -> None:
    refused = "question 0" if when == "first" else "question 9"
    server.statuses = {refused: [(403, {})]}
    async with opened(server) as backend:
        options = BatchOptions(max_in_flight=1)
        if when == "first":
            with pytest.raises(AuthenticationError):
                await collect(backend, rows(40), options=options)
        else:
            answers = await collect(backend, rows(40), options=options)
            assert [row_id for row_id, answer in answers.items() if answer.error is not None] == ["r9"]


# --- leaving -----------------------------------------------------------------------------------------------


async def test_leaving_cancels_the_requests(server: BatchServer, tmp_path: Path) -> None:
    server.hold = lambda prompt: prompt != "question 0"
    async with opened(server) as backend:
        async with run_batch(backend, rows(100), journal=tmp_path / "journal") as run:
            async for answer in run:
                assert answer.row.id == "r0"
                break
        async with asyncio.timeout(30):
            while server.in_flight:
                await asyncio.sleep(0.01)
        server.hold = lambda _: False
        answers = await collect(backend, rows(40), journal=tmp_path / "journal")
    assert texts(answers) == EXPECTED


async def test_cancelled_in_the_middle(server: BatchServer, tmp_path: Path) -> None:
    server.hold = lambda prompt: prompt == "question 20"
    async with opened(server) as backend:
        running = asyncio.create_task(collect(backend, rows(40), journal=tmp_path / "journal"))
        await server.wait_for(lambda server: "question 20" in server.prompts)
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
        server.hold = lambda _: False
        answers = await collect(backend, rows(40), journal=tmp_path / "journal")
    assert texts(answers) == EXPECTED
    assert server.counts["question 20"] == 2


@pytest.mark.parametrize("kind", ["list", "async-generator"])
async def test_no_generator_is_left_to_the_garbage_collector(server: BatchServer, kind: str) -> None:
    """Its loop would end before it is closed: "Task was destroyed but it is pending"."""
    server.hold = lambda prompt: prompt == "question 20"
    hooks = sys.get_asyncgen_hooks()
    finalized: list[Any] = []
    sys.set_asyncgen_hooks(firstiter=hooks.firstiter, finalizer=finalized.append)
    try:
        async with opened(server) as backend:
            batch: Any = rows(40) if kind == "list" else generate(40)
            options = BatchOptions(max_in_flight=2, validate=False)
            running = asyncio.create_task(collect(backend, batch, options=options))
            await server.wait_for(lambda server: "question 20" in server.prompts)
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await running
            del batch, running
            gc.collect()
    finally:
        sys.set_asyncgen_hooks(*hooks)
    assert finalized == []


async def test_slow_reader_stops_the_requests(server: BatchServer) -> None:
    async with opened(server) as backend, run_batch(backend, rows(500), options=BatchOptions(max_in_flight=4)) as run:
        count = 0
        async for _ in run:
            await asyncio.sleep(0.02)
            assert len(server.prompts) < count + 30
            count += 1
            if count == 20:
                break


async def test_batch_can_be_iterated_over_once(server: BatchServer) -> None:
    async with opened(server) as backend:
        run = run_batch(backend, rows(3))
        assert len([answer async for answer in run]) == 3
        with pytest.raises(BatchError, match="again"):
            async for _ in run:
                pass


# --- what is sent ------------------------------------------------------------------------------------------


async def test_options_of_the_row_win(server: BatchServer) -> None:
    batch = [
        BatchRow(id="a", prompt="one", options={"temperature": 0.5}),
        BatchRow(id="b", prompt=[{"role": "system", "content": "Be long."}, {"role": "user", "content": "two"}]),
    ]
    async with opened(server) as backend:
        options = BatchOptions(options={"temperature": 0.1, "max_tokens": 7}, system="Be brief.", max_in_flight=1)
        await collect(backend, batch, options=options)
    first, second = server.bodies
    assert (first["temperature"], first["max_tokens"], second["temperature"]) == (0.5, 7, 0.1)
    assert [message["content"] for message in first["messages"]] == ["Be brief.", "one"]
    assert [message["content"] for message in second["messages"]] == ["Be long.", "two"]
    assert not first.get("stream")


async def test_embeddings(server: BatchServer) -> None:
    async with opened(server) as backend:
        answers = await collect(backend, [BatchRow(id="e", prompt="some text", operation="embed")])
    assert answers["e"].vectors == [[1.0, 9.0]]


# --- arguments ---------------------------------------------------------------------------------------------


async def test_no_backend() -> None:
    with pytest.raises(BatchError, match="at least one"):
        run_batch([], rows(1))


@pytest.mark.parametrize("options", [{"max_in_flight": 0}, {"requests_per_minute": True}, {"max_retries": -1}], ids=str)
def test_invalid_numbers(options: dict[str, Any]) -> None:
    with pytest.raises(BatchError, match=next(iter(options))):
        BatchOptions(**options)


async def test_two_backends_of_one_name(server: BatchServer) -> None:
    async with opened(server) as first, opened(server) as second:
        with pytest.raises(BatchError, match="one"):
            run_batch([first, second], rows(1))


async def test_options_of_row_and_batch_are_checked_together(server: BatchServer) -> None:
    batch = [BatchRow(id="a", prompt="one", options={"tool_choice": "required"})]
    async with opened(server) as backend:
        with pytest.raises(BatchInputError, match="tool"):
            await collect(backend, batch)
    assert server.prompts == []
