"""Inputs of a batch with arbitrary content: each line is a row that can be sent, or a problem with its number."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ctxbackends._client.prompts import build_chat_request
from ctxbackends.batch import BatchInput, BatchInputError, BatchRow, Problem
from ctxbackends.batch._forms import check_row, parse_line
from ctxbackends.batch._inputs import validate
from tests.fuzz.material import among, corruptions, fuzz_settings

pytestmark = pytest.mark.full

_HELLO = [{"role": "user", "content": "Hello"}]
LINES: tuple[dict[str, Any], ...] = (
    {"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": {"messages": _HELLO, "stop": "x"}},
    {"custom_id": "b", "url": "/v1/embeddings", "body": {"input": ["x"], "dimensions": 2, "model": "m"}},
    {
        "custom_id": "c",
        "params": {"messages": _HELLO, "system": "x", "thinking": {"type": "adaptive"}},
    },
    {"custom_id": "d", "prompt": "x", "response_format": {"type": "json_object"}, "extra_body": {"x": 1}},
)
FILE = "".join(json.dumps(line) + "\n" for line in LINES).encode()
TABLE = b'id,text\na,"x\ny"\nb,z\n'
_NAMES = (
    *("custom_id", "id", "method", "url", "body", "params", "prompt", "messages", "input", "system", "model", "stop"),
    *("role", "content", "type", "text", "tools", "function", "name", "tool_choice", "response_format", "json_schema"),
    *("max_tokens", "max_completion_tokens", "temperature", "n", "stream", "thinking", "output_config", "extra_body"),
    *("user", "encoding_format", "dimensions", "effort", "format", "budget_tokens", "x"),
)
_VALUES = (
    *(
        "POST",
        "/v1/chat/completions",
        "/v1/embeddings",
        "user",
        "system",
        "assistant",
        "function",
        "json_object",
        "",
        "x",
    ),
    *(None, True, False, 0, 1, -1, 0.5, 10**30, "enabled", "adaptive", "disabled", "float", "base64", "high"),
)
values = st.recursive(
    among(_VALUES),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(among(_NAMES), inner, max_size=5),
    max_leaves=12,
)
changes = st.dictionaries(among(_NAMES), values, max_size=4)


@st.composite
def lines(draw: st.DrawFn) -> dict[str, Any]:
    """A line of a known form with other members on its levels."""
    line: dict[str, Any] = json.loads(json.dumps(draw(among(LINES)))) | draw(changes)
    for name in ("body", "params"):
        if isinstance(line.get(name), dict):
            line[name] |= draw(changes)
    return line


def _turn(value: Any) -> Any:
    """Return the value with the members of its objects in the opposite order."""
    if isinstance(value, list):
        return [_turn(item) for item in value]
    return {name: _turn(value[name]) for name in reversed(value)} if isinstance(value, dict) else value


def _accept(line: object) -> BatchRow | None:
    try:
        row = parse_line(line, 1)
        check_row(row)
    except (TypeError, ValueError) as error:
        assert str(error)
        return None
    return row


@given(line=lines() | values)
@fuzz_settings
def test_line_is_a_row_that_can_be_sent_or_an_error(line: object) -> None:
    row = _accept(line)
    if row is None:
        return
    if row.operation == "chat":
        build_chat_request(row.prompt, row.options.get("model") or "", {**row.options})  # type: ignore[typeddict-item]
    turned = _accept(_turn(line))
    assert turned is not None
    assert row.digest(b"") == turned.digest(b"")


def _read(content: bytes, name: str, **options: Any) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / name
        path.write_bytes(content)
        numbers = range(content.count(b"\n") + 2)
        try:
            rows = list(BatchInput(path, **options).read())
        except BatchInputError as error:
            assert all(problem.line in numbers for problem in error.problems)
            return
        count, problems = validate(rows)
        assert sum(isinstance(row, BatchRow) for row in rows) == count
        assert all(problem.line in numbers and problem.message for problem in problems)
        assert [row.line for row in rows] == sorted(row.line for row in rows)
        if not any(isinstance(row, Problem) for row in rows):
            assert rows == list(BatchInput(path, **options))


@given(content=corruptions((FILE, b"[]", b"\xef\xbb\xbf\r\n")) | st.binary(max_size=200))
@fuzz_settings
def test_file_of_lines_is_read_to_its_end(content: bytes) -> None:
    _read(content, "in.jsonl")


@given(content=corruptions((TABLE, b"text;id\n1;2\n", b"")) | st.text("\"',;\t\r\n\0xé", max_size=30).map(str.encode))
@fuzz_settings
def test_table_is_read_to_its_end(content: bytes) -> None:
    _read(content, "in.csv", prompt="{text}")
    _read(b"text,id\n" + content, "in.csv", prompt="{text}")
