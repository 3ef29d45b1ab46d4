"""The schema of a batch's answers: the option of each request, and the check of each answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ctxbackends._answer_format import AnswerFormat, format_answer
from ctxbackends._chat.responses import Completion
from ctxbackends._chat.servers import Enforcement
from ctxbackends._client.backend import Backend
from ctxbackends._schema.problems import find_schema_problem
from ctxbackends.batch._rows import BatchRow


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
        return self._format(backend).decode(completion)

    def _format(self, backend: Backend) -> AnswerFormat:
        # Replicas of one model may be servers of several types, so that each has its form of the request.
        enforcement = backend.schema_enforcement
        if enforcement not in self._formats:
            self._formats[enforcement] = format_answer(backend, self._schema)
        return self._formats[enforcement]
