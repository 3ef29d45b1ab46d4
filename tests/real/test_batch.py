"""A batch on a real server: stopped in the middle, resumed, and written in order."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ctxbackends import Backend
from ctxbackends.batch import BatchInput, BatchOptions, run_batch, write_output

pytestmark = pytest.mark.real

ROWS = 24
OPTIONS = BatchOptions(options={"max_tokens": 8, "temperature": 0.0})


def write_rows(path: Path) -> BatchInput:
    with path.open("w", encoding="utf-8") as lines:
        for number in range(ROWS):
            lines.write(json.dumps({"custom_id": f"r{number}", "prompt": f"Question {number}"}) + "\n")
        lines.write(json.dumps({"custom_id": "vector", "input": "A text to embed"}) + "\n")
    return BatchInput(path)


async def test_a_batch_that_is_stopped_and_resumed(backend: Backend, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl")
    journal, output = tmp_path / "journal", tmp_path / "out.jsonl"
    count = 0
    async with run_batch(backend, rows, options=OPTIONS, journal=journal) as run:
        async for _ in run:
            count += 1
            if count == ROWS // 2:
                break
    async with run_batch(backend, rows, options=OPTIONS, journal=journal) as run:
        answers = [answer async for answer in run]
        write_output(run.journal, rows, output, key=run.key, format="simple")
    assert ROWS // 2 <= run.report.resumed < ROWS
    assert run.report.requests == ROWS + 1 - run.report.resumed
    assert [None] * (ROWS + 1) == [answer.error for answer in answers]
    lines = [json.loads(line) for line in output.read_text().splitlines()]
    assert [*(f"r{number}" for number in range(ROWS)), "vector"] == [line["custom_id"] for line in lines]
    assert {"tiny"} == {line["model"] for line in lines}
    assert all(line["text"] and line["finish_reason"] in ("stop", "length") for line in lines[:-1])
    assert lines[-1]["vectors"][0]


async def test_the_answers_are_those_of_complete(backend: Backend, tmp_path: Path) -> None:
    rows = write_rows(tmp_path / "in.jsonl")
    alone = await backend.complete("Question 3", max_tokens=8, temperature=0.0)
    async with run_batch(backend, rows, options=OPTIONS) as run:
        answers = {answer.row.id: answer.text async for answer in run}
    assert alone.text == answers["r3"]
