"""The output of whole runs: the same after an interruption, with a schema, and with vectors."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import open_backend
from ctxbackends.batch import BatchOptions, BatchReport, BatchRow, run_batch, write_output
from ctxbackends.batch._output import OutputFormat
from tests.batch_server import MODEL, BatchServer, serve_batches

ROWS = [BatchRow(id=f"r{number}", prompt=f"question {number}") for number in range(30)]
LABELS = {"type": "object", "properties": {"label": {"enum": ["spam", "ham"]}}, "required": ["label"]}


@pytest.fixture
async def server() -> AsyncIterator[BatchServer]:
    async with serve_batches() as server:
        yield server


async def run(
    server: BatchServer,
    directory: Path,
    rows: list[BatchRow],
    *,
    stop_after: int | None = None,
    form: OutputFormat = "openai",
    type: str = "openai-compatible",  # noqa: A002
    **options: Any,
) -> tuple[BatchReport, list[dict[str, Any]]]:
    """Run a batch, and write its output; or leave it after some answers."""
    settings = {"name": "one", "default_model": MODEL, "complete_streams": False}
    async with (
        open_backend(type, endpoint=server.url, **settings) as backend,  # type: ignore[arg-type]
        run_batch(
            backend, rows, journal=directory / "journal", options=BatchOptions(max_retries=0, **options)
        ) as batch,
    ):
        count = 0
        async for _ in batch:
            count += 1
            if count == stop_after:
                return batch.report, []
        assert batch.journal is not None
        write_output(batch.journal, rows, directory / "out", key=batch.key, format=form)
        return batch.report, [json.loads(line) for line in (directory / "out").read_bytes().splitlines()]


@pytest.mark.parametrize("form", ["openai", "simple"])
async def test_the_output_after_an_interruption_is_that_of_one_run(
    server: BatchServer, tmp_path: Path, form: OutputFormat
) -> None:
    for name in ("whole", "interrupted"):
        (tmp_path / name).mkdir()
    await run(server, tmp_path / "whole", ROWS, form=form)
    for _ in range(2):
        await run(server, tmp_path / "interrupted", ROWS, stop_after=10, form=form, max_in_flight=3)
    report, lines = await run(server, tmp_path / "interrupted", ROWS, form=form)
    assert report.resumed >= 10
    assert [row.id for row in ROWS] == [line["custom_id"] for line in lines]
    assert (tmp_path / "whole" / "out").read_bytes() == (tmp_path / "interrupted" / "out").read_bytes()


async def test_values_of_a_schema_and_answers_that_do_not_match(server: BatchServer, tmp_path: Path) -> None:
    server.answer = lambda prompt: '{"label": "eggs"}' if prompt == "question 1" else '{"label": "ham"}'
    report, lines = await run(server, tmp_path, ROWS[:3], form="simple", type="vllm", schema=LABELS)
    assert (2, 1) == (report.answered, report.failed)
    assert [{"label": "ham"}, None, {"label": "ham"}] == [line.get("value") for line in lines]
    assert ("StructuredOutputError", '{"label": "eggs"}') == (lines[1]["error"]["type"], lines[1]["error"]["text"])
    assert LABELS == server.bodies[0]["response_format"]["json_schema"]["schema"]

    server.answer = lambda _: '{"label": "spam"}'
    report, lines = await run(server, tmp_path, ROWS[:3], form="simple", type="vllm", schema=LABELS)
    assert (3, 2, 0, 1) == (report.answered, report.resumed, report.failed, report.requests)
    assert ["ham", "spam", "ham"] == [line["value"]["label"] for line in lines]


async def test_vectors_in_the_form_that_each_row_wants(server: BatchServer, tmp_path: Path) -> None:
    rows = [
        BatchRow(id="numbers", prompt="one", operation="embed"),
        BatchRow(id="base64", prompt=["one"], operation="embed", options={"encoding": "base64"}),
    ]
    _, lines = await run(server, tmp_path, rows)
    numbers, packed = [line["response"]["body"]["data"][0]["embedding"] for line in lines]
    assert [*struct.unpack(f"<{len(numbers)}f", base64.b64decode(packed))] == numbers
    assert ["float", "base64"] == sorted(body["encoding_format"] for body in server.bodies)[::-1]
