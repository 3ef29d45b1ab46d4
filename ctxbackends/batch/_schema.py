"""The schema of a batch's answers: the option of each request, and the check of each answer."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ctxbackends._answer_format import AnswerFormat, format_answer
from ctxbackends._chat.responses import Completion
from ctxbackends._chat.servers import Enforcement
from ctxbackends._client.backend import Backend
from ctxbackends._schema.problems import find_schema_problem
from ctxbackends.batch._rows import BatchRow
from ctxbackends.errors import StructuredOutputError

MAX_DEPTH = 200
"""Lists and objects within each other. A model that repeats itself writes more, which JSON decoders cannot read."""


class AnswerSchema:
    """A JSON Schema that every answer of a batch must match.

    Args:
        schema: The schema.

    Raises:
        ValueError: The schema is not valid, or an answer could not be checked against it.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        problem = find_schema_problem(schema)
        if problem is not None:
            raise ValueError(f"not a valid JSON Schema: {problem}")
        self._schema = schema
        self._formats: dict[Enforcement, AnswerFormat] = {}

    def check_row(self, row: BatchRow) -> None:
        """Raise ValueError if the answer to a row cannot have the schema."""
        if row.operation != "chat":
            raise ValueError("vectors cannot match a schema; remove the schema, or ask for a chat completion")
        if row.options.get("response_format") is not None:
            raise ValueError("response_format and the schema of the batch are mutually exclusive; remove one")

    def build_options(self, backend: Backend) -> dict[str, Any]:
        """Return the options of a request to a backend."""
        return {"response_format": self._format(backend).response_format}

    def check_answer(self, backend: Backend, completion: Completion) -> Any:
        """Return the JSON value of an answer.

        Raises:
            StructuredOutputError: The answer is incomplete, a refusal or a tool call, or does not match the schema.
        """
        value = self._format(backend).decode(completion)
        try:
            return _make_portable(value, 0)
        except ValueError as error:
            raise StructuredOutputError(str(error), text=completion.text) from None

    def _format(self, backend: Backend) -> AnswerFormat:
        # Replicas of one model may be servers of several types, so that each has its form of the request.
        enforcement = backend.schema_enforcement
        if enforcement not in self._formats:
            self._formats[enforcement] = format_answer(backend, self._schema)
        return self._formats[enforcement]


def _make_portable(value: Any, depth: int) -> Any:
    """Return a JSON value that every JSON decoder can read, with U+FFFD for half a surrogate pair.

    Raises:
        ValueError: A number is too large for a float, or the value is nested too deeply.
    """
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("the answer has a number that is too large")
    if isinstance(value, list | dict) and depth == MAX_DEPTH:
        raise ValueError("the answer is nested too deeply")
    if isinstance(value, list):
        return [_make_portable(item, depth + 1) for item in value]
    if isinstance(value, dict):
        return {_make_portable(name, depth): _make_portable(item, depth + 1) for name, item in value.items()}
    return value
