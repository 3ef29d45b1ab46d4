"""docs/reference/batch-output.md: its members, columns and examples are those of the code."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from ctxbackends import Usage
from ctxbackends.batch import write_output
from ctxbackends.batch._answers import to_entry
from ctxbackends.batch._journal import Entry
from ctxbackends.batch._output import OutputFormat
from ctxbackends.batch._output_lines import SimpleLine
from ctxbackends.batch._schema import MAX_DEPTH
from tests.batch.factories import chat, key

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "batch-output.md").read_text(encoding="utf-8")


def section(name: str) -> str:
    return re.split(r"^## ", PAGE.partition(f"\n## {name}\n")[2], flags=re.MULTILINE)[0]


def first_column(text: str) -> list[str]:
    return re.findall(r"^\| `([^`]+)` \|", text, re.MULTILINE)


def example(text: str) -> dict[str, Any]:
    (block,) = re.findall(r"^```json\n(.*?)\n```$", text, re.MULTILINE)
    return dict(json.loads(block))


class One:
    def __init__(self, entry: Entry) -> None:
        self._entry = entry

    def get(self, key: bytes) -> Entry:  # noqa: ARG002  # the one answer
        return self._entry


@pytest.mark.parametrize("name", ["openai", "simple"])
def test_example(tmp_path: Path, name: OutputFormat) -> None:
    answer = chat("r1", text="Yes.", served_model="qwen3-4b", usage=Usage(12, 2))
    write_output(One(to_entry(b"", answer)), [answer.row], tmp_path / "out", key=key, format=name)
    expected = example(section(f"`{name}`"))
    written = json.loads((tmp_path / "out").read_bytes())
    if name == "openai":
        assert written.pop("id").startswith(expected.pop("id")[:10])
    assert expected == written


def test_members_of_the_simple_shape() -> None:
    assert sorted(SimpleLine.__struct_fields__) == sorted(first_column(section("`simple`")))


def test_columns_of_the_table() -> None:
    pytest.importorskip("pyarrow")
    from ctxbackends.batch._output_parquet import GROUP_ROWS, SCHEMA  # noqa: PLC0415  # needs pyarrow

    assert SCHEMA.names == first_column(section("`parquet`"))
    assert f"a row group for each {GROUP_ROWS:,} rows" in PAGE


def test_depth() -> None:
    assert f"nested more than {MAX_DEPTH} levels deep" in section("Answers with a schema").replace("\n", " ")
