"""The progress of a batch: its rates, its line in windows of any width, plain lines, and the program at a terminal."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, get_args

import pytest

from ctxbackends._cli.batch.command import FORMATS
from ctxbackends._cli.batch.display import ErrorCounts, JSONLines, TextOutput, describe_files, describe_report
from ctxbackends._cli.batch.progress import BatchProgress, Meter
from ctxbackends._cli.live_line import FIRST_TEXT
from ctxbackends.batch import BatchReport, RowError
from ctxbackends.batch._output import OutputFormat
from tests.batch_server import MODEL, BatchServer, serve_batches
from tests.terminals import Screen, terminal
from tests.unit.test_cli import Stream, _alone  # noqa: F401  # a fixture
from tests.unit.test_cli_batch import write_rows
from tests.unit.test_cli_batch_resume import Run

FIELDS: dict[str, Any] = {
    "rows": 2000,
    "done": 1024,
    "answered": 1021,
    "resumed": 500,
    "failed": 3,
    "seconds": 5.2,
    "rows_per_second": 101.4,
    "tokens_per_second": 2310.0,
    "seconds_left": 9.6,
    "unavailable": ("gpu2",),
}
LINE = "1,024 of 2,000 rows, 3 failed, 500 resumed, 101 rows/s, 2,310 tokens/s, 10 s left, waiting for gpu2"


# --- the figures ----------------------------------------------------------------------------------------


def test_the_formats_of_the_option_are_those_of_the_output() -> None:
    assert set(get_args(OutputFormat)) == set(FORMATS)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, LINE),
        ({"rows": None, "seconds_left": None}, LINE.replace(" of 2,000", "").replace(" 10 s left,", "")),
        ({"rows": 1, "done": 0, "failed": 0, "resumed": 0, "rows_per_second": None, "tokens_per_second": None,
          "seconds_left": None, "unavailable": ()}, "0 of 1 row"),
        ({"paused": ("gpu1",), "unavailable": ()}, LINE.replace("waiting for gpu2", "paused by gpu1")),
        ({"rows_per_second": 0.34}, LINE.replace("101 rows/s", "0.3 rows/s")),
        ({"rows_per_second": 0.1}, LINE.replace("101 rows/s", "0.1 rows/s")),
        ({"rows_per_second": 0.05}, LINE.replace("101 rows/s", "3.0 rows/min")),
        ({"rows_per_second": 0.0}, LINE.replace("101 rows/s", "0 rows/s")),
        ({"seconds_left": 60.0}, LINE.replace("10 s left", "1 min left")),
        ({"seconds_left": 61.0}, LINE.replace("10 s left", "1 min 1 s left")),
        ({"seconds_left": 7200.0}, LINE.replace("10 s left", "2 h left")),
    ],
)  # fmt: skip
def test_the_line(changes: dict[str, Any], expected: str) -> None:
    assert expected == str(BatchProgress(**(FIELDS | changes)))


@pytest.mark.parametrize(
    ("columns", "expected"),
    [
        (99, LINE),
        (98, "1,024 of 2,000 rows, 3 failed, 500 resumed, 101 rows/s, 10 s left, waiting for gpu2"),
        (80, "1,024 of 2,000 rows, 3 failed, 101 rows/s, 10 s left, waiting for gpu2"),
        (60, "1,024 of 2,000 rows, 3 failed, 10 s left, waiting for gpu2"),
        (50, "1,024 of 2,000 rows, 3 failed, waiting for gpu2"),
        (40, "1,024 of 2,000 rows, 3 failed"),
        (20, "1,024 of 2,000 rows"),
        (5, "1,024 of 2,000 rows"),
    ],
)
def test_the_line_fits_the_window(columns: int, expected: str) -> None:
    assert expected == BatchProgress(**FIELDS).fit(columns)


def test_the_rates_are_those_of_the_last_seconds() -> None:
    now = 100.0
    meter = Meter(clock=lambda: now)
    report = BatchReport(rows=1000, answered=500, resumed=500)
    first = meter.measure(report, is_counted=True)
    assert (500, None, None, None) == (first.done, first.rows_per_second, first.tokens_per_second, first.seconds_left)
    now, report.answered, report.output_tokens = 110.0, 600, 1000
    second = meter.measure(report, is_counted=True)
    assert (10.0, 100.0, 40.0) == (second.rows_per_second, second.tokens_per_second, second.seconds_left)
    for _ in range(4):  # slower: 1 row each second, for longer than the window
        now += 10.0
        report.answered += 10
        progress = meter.measure(report, is_counted=True)
    assert (1.0, 360.0, 50.0) == (progress.rows_per_second, progress.seconds_left, progress.seconds)
    assert None is meter.measure(report, is_counted=False).seconds_left


def test_the_tokens_of_embeddings_are_those_of_the_texts() -> None:
    now = 0.0
    meter = Meter(clock=lambda: now)
    report = BatchReport(rows=10)
    meter.measure(report, is_counted=True)
    now, report.answered, report.input_tokens = 2.0, 4, 100
    assert 50.0 == meter.measure(report, is_counted=True).tokens_per_second


@pytest.mark.parametrize(
    ("report", "expected"),
    [
        (BatchReport(rows=1, answered=1, seconds=0.5), ["1 row: 1 answered", "0.5 s, 2.0 rows/s"]),
        (
            BatchReport(
                rows=2000,
                answered=1997,
                resumed=500,
                failed=3,
                repeated=2,
                seconds=15.0,
                input_tokens=3000,
                output_tokens=6000,
                by_backend={"gpu2": 485, "gpu1": 1012},
            ),
            [
                "2,000 rows: 1,997 answered, 500 of them in an earlier run, 3 failed, 2 asked more than once",
                "15.0 s, 100 rows/s, 400 tokens/s; 3,000 tokens in, 6,000 out",
                "gpu1 1,012, gpu2 485",
            ],
        ),
        (
            BatchReport(rows=200, answered=200, truncated=200, seconds=10.0),
            ["200 rows: 200 answered, 200 cut off at max_tokens", "10.0 s, 20 rows/s"],
        ),
        (BatchReport(rows=2, answered=2, seconds=92.1), ["2 rows: 2 answered", "92.1 s, 1.3 rows/min"]),
        (BatchReport(rows=3, answered=3, resumed=3), ["3 rows: 3 answered, 3 of them in an earlier run"]),
    ],
)
def test_the_report(report: BatchReport, expected: list[str]) -> None:
    assert expected == describe_report(report)


@pytest.mark.parametrize(
    ("answered", "failed", "output", "errors", "journal", "expected"),
    [
        (1, 0, "a", None, None, "answers in a"),
        (1, 0, "a", "e", None, "answers in a"),
        (1, 1, "a", None, "j", "answers and errors in a, journal in j"),
        (1, 1, "a", "e", "j", "answers in a, errors in e, journal in j"),
        (0, 1, "a", None, "j", "errors in a, journal in j"),
        (0, 1, "a", "e", "j", "errors in e, journal in j"),
        (0, 0, "a", "e", None, ""),
        (1, 0, "/dev/stdout", None, None, ""),
        (1, 1, "/dev/stdout", "e", "j", "errors in e, journal in j"),
        (1, 1, "a", "/dev/stdout", "j", "answers in a, journal in j"),
    ],
)
def test_the_files_of_a_report(
    answered: int, failed: int, output: str, errors: str | None, journal: str | None, expected: str
) -> None:
    report = BatchReport(rows=answered + failed, answered=answered, failed=failed)
    paths = [None if path is None else Path(path) for path in (errors, journal)]
    assert expected == describe_files(report, Path(output), *paths)


def test_the_errors_of_a_report() -> None:
    counts = ErrorCounts()
    errors = [("A", "x", 400), ("B", "x", 400), ("A", "y", 400), ("A", "x", 422), ("C", "z", None), ("B", "x", 400)]
    for kind, message, status in errors:
        counts.add(RowError(type=kind, message=message, status_code=status))
    assert ["2 failed: A, such as: x", "2 failed: B: x", "1 failed: A: x"] == counts.describe()
    assert [] == ErrorCounts().describe()


def test_plain_lines_are_rare(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr("ctxbackends._cli.batch.display.time.monotonic", lambda: now)
    stream = Stream()
    monkeypatch.setattr("sys.stderr", stream)
    output = TextOutput()
    for now, done in ((5.0, 900), (10.0, 950), (19.0, 1500), (20.0, 1600), (30.0, 1650), (79.0, 1651), (80.0, 1652)):
        output.progress(BatchProgress(rows=2000, done=done, answered=done, resumed=0, failed=0, seconds=now))
    assert ["950 of 2,000 rows", "1,600 of 2,000 rows", "1,652 of 2,000 rows"] == stream.text.splitlines()


# --- the program at a terminal --------------------------------------------------------------------------


@pytest.fixture
async def server() -> AsyncIterator[BatchServer]:
    async with serve_batches() as server:
        yield server


def shown(raw: str, columns: int) -> list[str]:
    screen = Screen(columns)
    screen.feed(raw)
    return screen.lines


@pytest.mark.posix
@pytest.mark.parametrize("columns", [30, 80, pytest.param(200, marks=pytest.mark.full)])
async def test_the_program_at_a_terminal(server: BatchServer, columns: int) -> None:
    write_rows(Path("in.jsonl"), 20)
    server.hold = lambda _: len(server.prompts) > 12

    def run() -> tuple[list[str], list[str], str, int]:
        arguments = ("batch", "in.jsonl", "-o", "out.jsonl", "--endpoint", server.url, "-m", MODEL)
        with terminal(*arguments, "--max-concurrency", "4", columns=columns) as at:
            at.read_until("12 of 20 rows")
            middle = shown(at.raw, columns)
            loop.call_soon_threadsafe(server.release.set)
            code = at.end()
            return middle, shown(at.raw, columns), at.raw, code

    loop = asyncio.get_running_loop()
    middle, end, raw, code = await asyncio.to_thread(run)
    assert 0 == code
    assert raw.startswith(f"\r{FIRST_TEXT}\x1b[J\r")
    [line] = middle  # it is drawn over, and never broken into two rows
    assert line.startswith("12 of 20 rows")
    text = "".join(end)
    assert "20 rows: 20 answered" in text
    assert text.endswith("answers in out.jsonl")


@pytest.mark.posix
async def test_the_report_breaks_between_words(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 2)
    server.statuses = {f"question {at}": [(400, {})] for at in range(2)}

    def run() -> list[str]:
        arguments = ("batch", "in.jsonl", "-o", "out.jsonl", "--endpoint", server.url, "-m", MODEL)
        with terminal(*arguments, columns=40) as at:
            at.end()
            return [line.rstrip() for line in shown(at.raw, 40)]

    lines = await asyncio.to_thread(run)
    assert [
        "errors in out.jsonl, journal in",
        "out.jsonl.journal",
        "run the same command again to ask the",
        "failed rows again",
    ] == lines[-4:]


@pytest.mark.posix
async def test_ctrl_c_at_a_terminal(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 20)
    server.hold = lambda _: len(server.prompts) > 12

    def run() -> tuple[list[str], int]:
        arguments = ("batch", "in.jsonl", "-o", "out.jsonl", "--endpoint", server.url, "-m", MODEL)
        with terminal(*arguments, "--max-concurrency", "4") as at:
            at.read_until("12 of 20 rows")
            at.process.send_signal(signal.SIGINT)
            code = at.end()
            return shown(at.raw, 80), code

    lines, code = await asyncio.to_thread(run)
    assert 130 == code
    assert ["interrupted: 12 of 20 rows answered; run the same command again to continue"] == lines


@pytest.mark.posix
async def test_a_server_that_goes_away_is_shown(server: BatchServer, refusing_url: str) -> None:
    write_rows(Path("in.jsonl"), 20)
    server.hold = lambda _: len(server.prompts) > 12
    Path(".ctxrc").write_text(  # noqa: ASYNC240  # one call
        f"backends:\n  - {{name: here, type: vllm, default_model: {MODEL}, endpoint: {server.url}}}\n"
        f"  - {{name: gone, type: vllm, default_model: {MODEL}, endpoint: {refusing_url}}}\n"
    )

    def run() -> tuple[str, int]:
        arguments = ("batch", "in.jsonl", "-o", "out.jsonl", "-b", "here", "-b", "gone")
        with terminal(*arguments, "--max-concurrency", "4", columns=120) as at:
            at.read_until(lambda raw: re.search(r"12 of 20 rows[^\r]*waiting for gone", raw))
            loop.call_soon_threadsafe(server.release.set)
            return at.raw, at.end()

    loop = asyncio.get_running_loop()
    _, code = await asyncio.to_thread(run)
    assert 0 == code


@pytest.mark.posix
async def test_workers_that_start_are_shown(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 8)

    def run() -> tuple[str, int]:
        arguments = ("batch", "in.jsonl", "-o", "out.jsonl", "--endpoint", server.url, "-m", MODEL)
        engine = ("--engine", "processes", "--workers", "2", "--max-concurrency", "2")
        with terminal(*arguments, *engine) as at:
            code = at.end()
            return at.raw, code

    raw, code = await asyncio.to_thread(run)
    assert 0 == code
    assert "\rstarting 2 workers" in raw


@pytest.mark.parametrize("as_json", [False, True])
def test_a_death_of_a_worker(monkeypatch: pytest.MonkeyPatch, as_json: bool) -> None:
    errors, events = Stream(), Stream()
    monkeypatch.setattr("sys.stderr", errors)
    monkeypatch.setattr("sys.stdout", events)
    output = JSONLines() if as_json else TextOutput()
    output.worker_died("worker 1 ended")
    if as_json:
        assert {"event": "worker_died", "message": "worker 1 ended"} == json.loads(events.text)
    else:
        assert ("note: worker 1 ended\n", "") == (errors.text, events.text)


async def test_progress_events(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 20)
    server.hold = lambda _: len(server.prompts) > 12
    process = Run(server, "--json")
    await process.start()
    assert process.process.stdout is not None, "a pipe"
    async with asyncio.timeout(60):
        async for line in process.process.stdout:
            event = json.loads(line)
            if event["event"] == "progress" and event["done"] == 12:
                break
    assert (20, 12, 0, 0) == (event["rows"], event["answered"], event["resumed"], event["failed"])
    server.release.set()
    assert 0 == await process.end()
