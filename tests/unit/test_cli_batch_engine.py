"""The command batch on worker processes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.batch_server import BatchServer, serve_batches
from tests.unit.test_cli import _alone  # noqa: F401  # a fixture
from tests.unit.test_cli_batch import batch, exists, read_rows, read_texts, write, write_rows


@pytest.fixture
async def server() -> AsyncIterator[BatchServer]:
    async with serve_batches() as server:
        yield server


async def test_batch_on_processes(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 30)
    options = ("--engine", "processes", "--workers", "2", "--max-concurrency", "4")
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", *options)
    assert (0, "") == (result.code, result.out)
    assert {f"r{at}": f"answer to question {at}" for at in range(30)} == read_texts(Path("out.jsonl"))
    assert [f"r{at}" for at in range(30)] == [row["custom_id"] for row in read_rows(Path("out.jsonl"))]
    assert server.max_in_flight <= 4
    assert not exists("out.jsonl.journal")


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--workers", "2"), "--workers and --address require --engine processes or --engine ray"),
        (("--address", "127.0.0.1:6379"), "--workers and --address require --engine processes or --engine ray"),
        (("--engine", "ray"), "--engine ray requires --workers N"),
        (("--engine", "processes", "--workers", "2", "--address", "a:1"), "--address is for --engine ray; remove it"),
    ],
    ids=["workers", "address", "no-workers", "address-of-processes"],
)
async def test_options_that_do_not_fit(server: BatchServer, options: tuple[str, ...], problem: str) -> None:
    write_rows(Path("in.jsonl"), 1)
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", *options)
    assert 2 == result.code
    assert problem in result.err
    assert [] == server.prompts


async def test_model_file_and_engine(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 1)
    options = ("--model-path", "tiny.gguf", "--engine", "processes", "--workers", "2")
    result = await batch(None, "in.jsonl", "-o", "out.jsonl", *options)
    assert 2 == result.code
    assert "--model-path serves a model in this process" in result.err


async def test_more_workers_than_slots(server: BatchServer) -> None:
    write_rows(Path("in.jsonl"), 1)
    options = ("--engine", "processes", "--workers", "5", "--max-concurrency", "4")
    result = await batch(server, "in.jsonl", "-o", "out.jsonl", *options)
    assert 1 == result.code
    assert "more workers than requests at once: 5; use 4 workers, or a higher limit" in result.err
    assert [] == server.prompts


@pytest.mark.filterwarnings("always::ctxbackends.errors.ModelMismatchWarning")
async def test_a_warning_of_the_workers_is_printed_once(server: BatchServer) -> None:
    server.model = "other"
    backend = f"{{name: gpu, type: vllm, endpoint: '{server.url}', default_model: tiny, model_mismatch: warn}}"
    write(".ctxrc", f"backends:\n  - {backend}\n")
    write_rows(Path("in.jsonl"), 10)
    options = ("--engine", "processes", "--workers", "2", "--max-concurrency", "2")
    result = await batch(None, "in.jsonl", "-o", "out.jsonl", "--quiet", *options)
    assert 0 == result.code
    [line] = result.err.splitlines()
    assert line.startswith("ctxbackends: warning: ")
    assert "other" in line
