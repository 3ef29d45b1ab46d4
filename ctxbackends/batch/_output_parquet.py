"""The output of a batch as a Parquet table. Needs pyarrow, which the extra `ray` installs."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Protocol, Self

import msgspec
import pyarrow as pa  # pyright: ignore[reportMissingImports]  # of an extra
import pyarrow.parquet as pq  # pyright: ignore[reportMissingImports]  # as above

from ctxbackends.batch._answers import decode_vector
from ctxbackends.batch._errors import BatchOutputError
from ctxbackends.batch._journal import Entry
from ctxbackends.batch._output_lines import SimpleLine, SimpleUsage, build_simple, decode_entry_error
from ctxbackends.batch._rows import BatchRow

GROUP_ROWS = 1000
GROUP_BYTES = 16 << 20
"""The size of the answers in the journal after which a row group is written."""

_CALL = pa.struct([("id", pa.string()), ("name", pa.string()), ("arguments", pa.string())])
SCHEMA = pa.schema(
    [
        pa.field("custom_id", pa.string(), nullable=False),
        ("text", pa.string()),
        ("value", pa.string()),  # JSON
        ("vectors", pa.list_(pa.list_(pa.float32()))),  # a text or several may be embedded in a row
        ("reasoning", pa.string()),
        ("refusal", pa.string()),
        ("tool_calls", pa.list_(_CALL)),
        ("finish_reason", pa.string()),
        ("model", pa.string()),
        ("backend", pa.string()),
        ("input_tokens", pa.int64()),
        ("output_tokens", pa.int64()),
        ("cached_input_tokens", pa.int64()),
        ("cache_write_tokens", pa.int64()),
        ("reasoning_tokens", pa.int64()),
        ("logprobs", pa.string()),  # JSON
        ("error_type", pa.string()),
        ("error_message", pa.string()),
        ("error_status_code", pa.int64()),
        ("error_text", pa.string()),
    ]
)
_TEXTS = ("text", "reasoning", "refusal", "finish_reason", "model", "backend")
_COUNTS = SimpleUsage.__struct_fields__


class _File(Protocol):
    def write(self, data: bytes) -> int: ...

    def flush(self) -> None: ...


class _Sink:
    """A file for pyarrow, which keeps the error of a write: pyarrow raises another one."""

    closed = False

    def __init__(self, file: _File) -> None:
        self._file = file
        self.error: BatchOutputError | None = None

    def write(self, data: Any) -> int:
        try:
            return self._file.write(memoryview(data).tobytes())
        except BatchOutputError as error:
            self.error = error
            raise

    def flush(self) -> None:
        self._file.flush()

    def close(self) -> None:
        pass


class ParquetRows:
    """Writes rows into a file, one row group after another."""

    def __init__(self, file: _File) -> None:
        self._sink = _Sink(file)
        self._writer = pq.ParquetWriter(self._sink, SCHEMA)
        self._rows: list[dict[str, Any]] = []
        self._size = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        with suppress(Exception):  # it was closed, or the file is not kept
            self._writer.close()

    def write(self, row: BatchRow, key: bytes, entry: Entry) -> None:  # noqa: ARG002  # as for lines
        """Add a row."""
        self._rows.append(_build_row(build_simple(row, entry), entry))
        self._size += len(bytes(entry.answer or b""))
        if len(self._rows) >= GROUP_ROWS or self._size >= GROUP_BYTES:
            self._write_group()

    def finish(self) -> None:
        """Write the last row group and the end of the file."""
        if self._rows:
            self._write_group()
        try:
            self._writer.close()
        except OSError as error:
            raise self._sink.error or error from error

    def _write_group(self) -> None:
        table = pa.Table.from_pylist(self._rows, schema=SCHEMA)
        self._rows, self._size = [], 0
        try:
            self._writer.write_table(table, row_group_size=GROUP_ROWS)
        except OSError as error:
            raise self._sink.error or error from error


def _build_row(line: SimpleLine, entry: Entry) -> dict[str, Any]:
    values: dict[str, Any] = {"custom_id": line.custom_id}
    for name in _TEXTS:
        raw = getattr(line, name)
        if raw is not msgspec.UNSET:
            values[name] = msgspec.json.decode(raw)
    for name in ("value", "logprobs"):
        raw = getattr(line, name)
        if raw is not msgspec.UNSET:
            values[name] = bytes(raw).decode()
    if line.vectors is not msgspec.UNSET:
        values["vectors"] = [decode_vector(msgspec.json.decode(vector)) for vector in line.vectors]
    if line.tool_calls is not msgspec.UNSET:
        values["tool_calls"] = [
            {name: msgspec.json.decode(getattr(call, name)) for name in ("id", "name", "arguments")}
            for call in line.tool_calls
        ]
    if line.usage is not msgspec.UNSET:
        counts = ((name, getattr(line.usage, name)) for name in _COUNTS)
        values |= {name: count for name, count in counts if count is not msgspec.UNSET}
    if entry.answer is None:
        failure = decode_entry_error(entry)
        values |= {
            "error_type": failure.type,
            "error_message": failure.message,
            "error_status_code": failure.status_code,
            "error_text": failure.text,
        }
    return values
