# pyright: reportUnnecessaryTypeIgnoreComment=true
"""Batches."""

from __future__ import annotations

from pathlib import Path
from typing import assert_type

from ctxbackends import Backend, BackendConfig
from ctxbackends.batch import (
    BatchAnswer,
    BatchInput,
    BatchOptions,
    BatchReport,
    BatchRow,
    BatchRun,
    RowError,
    run_batch,
)


async def check_batch(backend: Backend, rows: list[BatchRow], journal: Path) -> None:
    batch = run_batch(backend, rows, options=BatchOptions(max_in_flight=8), journal=journal)
    assert_type(batch, BatchRun)
    async with batch as entered:
        assert_type(entered, BatchRun)
        async for answer in entered:
            assert_type(answer, BatchAnswer)
            assert_type(answer.row, BatchRow)
            assert_type(answer.text, str)
            assert_type(answer.error, RowError | None)
            assert_type(answer.vectors, list[list[float]])
            assert_type(answer.tokens, tuple[int, int])
    assert_type(batch.report, BatchReport)


def check_arguments(first: Backend, second: Backend, config: BackendConfig, rows: BatchInput) -> None:
    run_batch([first, second], rows)
    run_batch([config, config], rows, on_change=check_report)
    run_batch([config, config], rows, on_change=check_rows)  # type: ignore[arg-type]
    run_batch("local", rows)  # type: ignore[arg-type]
    run_batch(first, rows, journal="directory")  # type: ignore[arg-type]
    BatchOptions(max_in_fligt=8)  # type: ignore[call-arg]


def check_report(report: BatchReport) -> None:
    assert_type(report.answered, int)


def check_rows(rows: BatchInput) -> None:
    assert_type(rows, BatchInput)
