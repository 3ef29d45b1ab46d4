"""The output of a batch as a Parquet table, with pyarrow from the extra `ray`."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ctxbackends import TokenLogprob, ToolCall, Usage
from ctxbackends.batch import BatchOutputError, BatchRow, check_output, write_output
from ctxbackends.batch._answers import to_entry
from ctxbackends.batch._journal import Journal
from ctxbackends.batch._journal_manifest import Manifest
from ctxbackends.batch._output import OutputCounts
from ctxbackends.errors import StructuredOutputError
from tests.batch.factories import Answers, chat, failure, key, vectors

HAS_PYARROW = importlib.util.find_spec("pyarrow") is not None
needs_pyarrow = pytest.mark.skipif(not HAS_PYARROW, reason="without the extra `ray`")


@pytest.fixture
async def journal(tmp_path: Path) -> AsyncIterator[Journal]:
    opened = Journal(tmp_path / "journal", Manifest(fingerprint="f"))
    yield opened
    opened.close()


@needs_pyarrow
async def test_columns_and_values(tmp_path: Path, journal: Journal) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415  # of an extra

    usage = Usage(7, 2, cached_input_tokens=3, cache_write_tokens=4, reasoning_tokens=1)
    calls = (ToolCall("call_1", "find", '{"q": "Füße"}'),)
    answers = [
        chat("text", text="Füße", logprobs=(TokenLogprob("F", -0.5),)),
        chat("tools", text="", finish_reason="tool_calls", reasoning="Hm.", tool_calls=calls, usage=usage),
        chat("value", value={"a": [1, "ü"]}),
        vectors("numbers"),
        vectors("base64", encoding="base64"),
        failure("status"),
        failure("rejected", StructuredOutputError("not JSON", text="Rex.")),
    ]
    await journal.append([to_entry(key(one.row), one) for one in answers])
    journal.refresh()
    rows = [one.row for one in answers]
    counts = write_output(journal, rows, tmp_path / "out.parquet", key=key, format="parquet")
    assert OutputCounts(7, 5, 2) == counts
    table = pq.read_table(tmp_path / "out.parquet")
    types = {field.name: str(field.type) for field in table.schema}
    assert ("string", "list<element: list<element: float>>", "int64", "string") == tuple(
        types[name] for name in ("text", "vectors", "input_tokens", "error_type")
    )
    read = [{name: value for name, value in row.items() if value is not None} for row in table.to_pylist()]
    text, tools, value, numbers, packed, status, rejected = read
    common = {"model": "m-1", "backend": "local", "input_tokens": 7, "output_tokens": 2}
    logprobs = json.loads(text.pop("logprobs"))
    assert "F" == logprobs["content"][0]["token"]
    assert {"custom_id": "text", "text": "Füße", "finish_reason": "stop"} | common == text
    assert {
        "custom_id": "tools",
        "text": "",
        "reasoning": "Hm.",
        "tool_calls": [{"id": "call_1", "name": "find", "arguments": '{"q": "Füße"}'}],
        "finish_reason": "tool_calls",
        "cached_input_tokens": 3,
        "cache_write_tokens": 4,
        "reasoning_tokens": 1,
    } | common == tools
    assert {"custom_id": "value", "value": '{"a":[1,"ü"]}', "finish_reason": "stop"} | common == value
    assert [[1.0, -0.5], [0.25, 0.0]] == numbers["vectors"] == packed["vectors"]
    assert {
        "custom_id": "status",
        "backend": "local",
        "error_type": "BadRequestError",
        "error_message": 'HTTP 400: {"error": "no"}',
        "error_status_code": 400,
    } == status
    assert ("StructuredOutputError", "Rex.") == (rejected["error_type"], rejected["error_text"])


@needs_pyarrow
async def test_failed_rows_go_to_a_file_of_lines(tmp_path: Path, journal: Journal) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415  # of an extra

    answers = [chat("a"), failure("b"), chat("c")]
    await journal.append([to_entry(key(one.row), one) for one in answers])
    journal.refresh()
    out, errors = tmp_path / "out", tmp_path / "errors"
    write_output(journal, [one.row for one in answers], out, key=key, format="parquet", errors=errors)
    assert ["a", "c"] == pq.read_table(out).column("custom_id").to_pylist()
    (line,) = [json.loads(line) for line in errors.read_bytes().splitlines()]
    assert ("b", "BadRequestError") == (line["custom_id"], line["error"]["type"])


@needs_pyarrow
def test_rows_are_written_in_groups(tmp_path: Path) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415  # of an extra

    answers = Answers(2_500)
    write_output(answers, answers.rows(), tmp_path / "out", key=key, format="parquet")
    metadata = pq.ParquetFile(tmp_path / "out").metadata
    assert [1000, 1000, 500] == [metadata.row_group(one).num_rows for one in range(metadata.num_row_groups)]


@needs_pyarrow
def test_no_row_gives_an_empty_table(tmp_path: Path) -> None:
    import pyarrow.parquet as pq  # noqa: PLC0415  # of an extra

    write_output(Answers(0), [], tmp_path / "out", key=key, format="parquet")
    assert (0, "custom_id") == (pq.read_table(tmp_path / "out").num_rows, pq.read_schema(tmp_path / "out").names[0])


@needs_pyarrow
def test_a_row_without_an_answer_leaves_the_old_file(tmp_path: Path, journal: Journal) -> None:
    (tmp_path / "out").write_text("old")
    with pytest.raises(BatchOutputError, match=r"^row without an answer: r1; "):
        write_output(journal, [BatchRow(id="r1", prompt="?")], tmp_path / "out", key=key, format="parquet")
    assert "old" == (tmp_path / "out").read_text()


@needs_pyarrow
@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1"])
def test_a_table_is_no_stream(name: str) -> None:
    with pytest.raises(BatchOutputError, match=rf"^cannot write parquet to a stream: {name}; name a file$"):
        check_output(Path(name), format="parquet")


def test_without_pyarrow_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxbackends.batch._output.find_spec", lambda _: None)
    with pytest.raises(
        BatchOutputError, match=r"^cannot write parquet without pyarrow; run pip install 'ctxbackends\[ray\]'$"
    ):
        check_output(tmp_path / "out", format="parquet")
