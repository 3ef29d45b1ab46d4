"""Rows and answers of the tests. Imports no test library, since processes of the tests import it."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

from ctxbackends import BadRequestError, Completion, Embeddings, Usage
from ctxbackends.batch import BatchAnswer, BatchRow
from ctxbackends.batch._answers import build_answer, build_failure, to_entry
from ctxbackends.batch._journal import Entry


def key(row: BatchRow) -> bytes:
    return row.digest(b"run")


def completion(**fields: Any) -> Completion:
    defaults: dict[str, Any] = {
        "text": "Because.",
        "finish_reason": "stop",
        "requested_model": "m",
        "served_model": "m-1",
        "usage": Usage(7, 2),
        "request_id": "req-1",
        "response_id": "chatcmpl-1",
    }
    return Completion(**defaults | fields)


def chat(row_id: str, **fields: Any) -> BatchAnswer:
    row = BatchRow(id=row_id, prompt="Why?")
    checked = {"checked_value": fields.pop("value")} if "value" in fields else {}
    return build_answer(row, completion(**fields), backend="local", **checked)


def vectors(row_id: str, **options: Any) -> BatchAnswer:
    row = BatchRow(id=row_id, prompt=["a", "b"], operation="embed", options=options)
    result = Embeddings(vectors=((1.0, -0.5), (0.25, 0.0)), requested_model="e", usage=Usage(4, 0))
    return build_answer(row, result, backend="local")


def failure(row_id: str, error: Exception | None = None) -> BatchAnswer:
    bad = BadRequestError(400, body=b'{"error": "no"}', message="no", error_type="bad_request", request_id="req-2")
    return build_failure(BatchRow(id=row_id, prompt="Why?"), error or bad, backend="local")


class Answers:
    """Answers of any number of rows, which are not stored."""

    def __init__(self, count: int) -> None:
        self._count = count

    def rows(self) -> Iterator[BatchRow]:
        return (BatchRow(id=f"r{one}", prompt="Why?", line=one) for one in range(1, self._count + 1))

    def get(self, key: bytes) -> Entry:
        return to_entry(key, chat("r", text=hashlib.shake_128(key).hexdigest(100)))  # Parquet cannot compress it
