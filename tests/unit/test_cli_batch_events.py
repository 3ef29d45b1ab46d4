"""The event of the error that ends the command batch, and its waits for the limits of a minute."""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from ctxbackends._cli.batch.progress import BatchProgress, Meter
from ctxbackends.batch import BatchReport
from tests.batch_server import BatchServer, serve_batches
from tests.unit.test_cli import Result, _alone  # noqa: F401  # a fixture
from tests.unit.test_cli_batch import BAD_LINES, batch, write, write_rows
from tests.unit.test_cli_batch_resume import Run


@pytest.fixture
async def server() -> AsyncIterator[BatchServer]:
    async with serve_batches() as server:
        yield server


def events(out: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in out.splitlines()]


def without_program(result: Result) -> str:
    return result.err.removeprefix("ctxbackends: ").removeprefix("Error: ").rstrip("\n")


# --- errors ---------------------------------------------------------------------------------------


async def test_a_wrong_key(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 3)
    server.statuses = {f"question {at}": [(401, {})] for at in range(3)}
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", "--json")
    start, *_, error = events(result.out)
    assert ("start", "error", "AuthenticationError", 1) == (
        start["event"],
        error["event"],
        error["type"],
        error["exit_code"],
    )
    assert (without_program(result), 1) == (error["message"], result.code)


async def test_an_error_after_some_answers_says_how_to_go_on(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 30)
    server.statuses = {"question 20": [(401, {})]}
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", "--max-concurrency", "1", "--json")
    error = events(result.out)[-1]
    assert ("error", "AuthenticationError") == (error["event"], error["type"])
    assert error["message"].endswith("20 of 30 rows answered; run the same command again to continue")


async def test_problems_of_the_input(server: BatchServer) -> None:
    write("in.jsonl", BAD_LINES)
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", "--json")
    error = events(result.out)[-1]
    assert ("error", "BatchInputError", 2, 2) == (error["event"], error["type"], error["exit_code"], result.code)
    assert (without_program(result), []) == (error["message"], server.prompts)


async def test_an_error_before_the_first_event(server: BatchServer) -> None:
    """An output that exists."""
    write_rows(Path("in.jsonl"), 3)
    write("out.jsonl", "something else")
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", "--json")
    [error] = events(result.out)
    assert ("error", 1, 1) == (error["event"], error["exit_code"], result.code)
    assert without_program(result) == error["message"]
    assert "--force" in error["message"]


async def test_too_few_workers(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 1)
    options = ("--engine", "processes", "--workers", "5", "--max-concurrency", "4", "--json")
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", *options)
    error = events(result.out)[-1]
    assert ("error", "BatchError", 1) == (error["event"], error["type"], error["exit_code"])
    assert "more workers than requests at once: 5" in error["message"]


@pytest.mark.parametrize("arguments", [(), ("--json",)])
async def test_no_event_without_an_error_or_without_json(server: BatchServer, arguments: Sequence[str]) -> None:
    write_rows(Path("in.jsonl"), 1)
    server.statuses = {} if arguments else {"question 0": [(401, {})]}
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", *arguments)
    assert [] == [event for event in events(result.out) if event["event"] == "error"]
    assert int(not arguments) == result.code


async def test_a_wrong_option_has_no_event(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 1)
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", "--json", "--engine", "ray")
    assert (2, "") == (result.code, result.out)


@pytest.mark.posix
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"])
async def test_a_signal(server: BatchServer, number: int, code: int) -> None:
    write_rows(Path("in.jsonl"), 20)
    server.hold = lambda _: True
    run = Run(server, "--json")
    await run.start()
    await server.wait_for(lambda one: one.in_flight == 4)
    run.process.send_signal(number)
    async with asyncio.timeout(60):
        out, err = await run.process.communicate()
    text = "interrupted: 0 of 20 rows answered; run the same command again to continue"
    expected = {"event": "error", "type": "Interrupted", "message": text, "exit_code": code}
    assert (expected, f"{text}\n", code) == (events(out.decode())[-1], err.decode(), run.process.returncode)


# --- limits ---------------------------------------------------------------------------------------


def test_the_line_of_rows_that_wait_for_the_rate_limit() -> None:
    report = BatchReport(rows=10, answered=4, is_rate_limited=True)
    progress = Meter(lambda: 0.0).measure(report, is_counted=True)
    assert progress.is_rate_limited
    assert "4 of 10 rows, waiting for the rate limit" == str(progress)
    report.is_rate_limited = False
    assert "4 of 10 rows" == str(Meter(lambda: 0.0).measure(report, is_counted=True))


def test_the_wait_is_left_out_of_a_narrow_line_after_the_rates() -> None:
    progress = BatchProgress(
        rows=10, done=4, answered=4, resumed=0, failed=0, seconds=1.0, rows_per_second=4.0, is_rate_limited=True
    )
    assert "4 of 10 rows, waiting for the rate limit" == progress.fit(45)
    assert "4 of 10 rows" == progress.fit(30)


async def test_a_progress_event_while_rows_wait(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 20)
    run = Run(server, "--json", "--rpm", "5")
    await run.start()
    assert run.process.stdout is not None, "a pipe"
    async with asyncio.timeout(60):
        async for line in run.process.stdout:
            event = json.loads(line)
            if event["event"] == "progress" and event["done"] == 5:
                break
    assert event["is_rate_limited"] is True
    run.process.kill()
    await run.end()
