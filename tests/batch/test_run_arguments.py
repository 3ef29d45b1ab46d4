"""Arguments of run_batch() and write_output() that are mistakes, and the figures of truncated answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ctxbackends import BackendConfig, open_backend
from ctxbackends.batch import (
    BatchError,
    BatchJournalError,
    BatchOutputError,
    BatchRow,
    ProcessEngine,
    run_batch,
    write_output,
)
from tests.batch_server import MODEL, serve_batches

CONFIG = BackendConfig(name="one", type="vllm", endpoint="http://127.0.0.1:9", default_model="m")
ROW = BatchRow(id="a", prompt="x")


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ({"workers": 2}, "workers without an engine: 2; pass engine=ProcessEngine(), or remove workers"),
        ({"workers": 0}, "invalid workers: 0; use a whole number above 0"),
        ({"workers": 0, "engine": ProcessEngine()}, "invalid workers: 0; use a whole number above 0"),
        ({"workers": 2.0, "engine": ProcessEngine()}, "invalid workers: 2.0; use a whole number above 0"),
        ({"rows": "x.jsonl"}, "rows are a path: 'x.jsonl'; pass BatchInput(path)"),
        ({"rows": b"x.jsonl"}, "rows are a path: b'x.jsonl'; pass BatchInput(path)"),
        ({"rows": ROW}, "rows are not a list of BatchRow: BatchRow(id='a', "),
        ({"rows": {"id": "a"}}, "rows are not a list of BatchRow: {'id': 'a'}; pass a list, or BatchInput(path)"),
        ({"rows": None}, "rows are not a list of BatchRow: None; pass a list, or BatchInput(path)"),
    ],
    ids=[
        "workers-alone",
        "no-worker",
        "no-worker-of-an-engine",
        "a-half",
        "text",
        "bytes",
        "one-row",
        "dict",
        "none",
    ],
)
def test_mistakes(arguments: dict[str, Any], expected: str) -> None:
    with pytest.raises(BatchError) as caught:
        run_batch(CONFIG, **{"rows": [ROW], **arguments})
    assert str(caught.value).startswith(expected)


def test_a_path_as_rows() -> None:
    with pytest.raises(BatchError, match=r"rows are a path: .*x\.jsonl.*; pass BatchInput\(path\)"):
        run_batch(CONFIG, Path("x.jsonl"))  # type: ignore[arg-type]


async def test_the_airgap_of_an_opened_backend() -> None:
    async with open_backend(CONFIG) as backend:
        with pytest.raises(BatchError, match=r"airgap is for configurations; pass a BackendConfig for each server"):
            run_batch(backend, [ROW], airgap=True)


async def test_output_after_the_block(tmp_path: Path) -> None:
    async with (
        serve_batches() as server,
        open_backend("vllm", endpoint=server.url, default_model=MODEL) as backend,
    ):
        async with run_batch(backend, [ROW], journal=tmp_path / "journal") as run:
            assert 1 == len([answer async for answer in run])
        with pytest.raises(BatchJournalError, match=r"is closed: .*; use it inside the async with block of the batch"):
            write_output(run.journal, [ROW], tmp_path / "out", key=run.key)
        async with run_batch(backend, [ROW]) as run:
            assert 1 == len([answer async for answer in run])
            with pytest.raises(BatchOutputError, match=r"no journal; pass journal=DIRECTORY to run_batch\(\)"):
                write_output(run.journal, [ROW], tmp_path / "out", key=run.key)
    assert not (tmp_path / "out").exists()
