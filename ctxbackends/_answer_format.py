"""An answer that matches a JSON Schema: the option of its request, and the check of its text."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import attrs

from ctxbackends._chat.requests import JSONSchemaFormat
from ctxbackends._chat.responses import Completion
from ctxbackends._client.backend import Backend
from ctxbackends._schema.answers import unwrap_answer
from ctxbackends._schema.check import check_structure
from ctxbackends._schema.generate import wrap_in_object
from ctxbackends._schema.strict_schema import describe_unsupported, strict_schema
from ctxbackends._schema.validate import unwrap_object
from ctxbackends._structured import check_is_answer
from ctxbackends.errors import StrictSchemaError, StructuredOutputError


@attrs.frozen
class AnswerFormat:
    """How an answer that matches a schema is requested from a backend, and read.

    Attributes:
        schema: The schema of the answer.
        response_format: The option of the request.
        is_enforced: Whether the server enforces the format, so that nothing may be around the JSON.
        is_wrapped: Whether the answer is the member of an object, since the server accepts only objects.
    """

    schema: Mapping[str, Any]
    response_format: JSONSchemaFormat
    is_enforced: bool
    is_wrapped: bool

    def decode(self, completion: Completion) -> Any:
        """Return the JSON value of an answer.

        Raises:
            StructuredOutputError: The answer is incomplete, a refusal or a tool call, or does not match the schema.
        """
        check_is_answer(completion)
        text = completion.text if self.is_enforced else unwrap_answer(completion.text)[0]
        text = unwrap_object(text) if self.is_wrapped else text
        try:
            value = json.loads(text, parse_constant=_reject_constant)
        except (ValueError, RecursionError) as error:
            problem = f"the answer is not JSON: {error}"
            raise StructuredOutputError(problem, text=completion.text) from None
        check_structure(self.schema, value, text=completion.text, constraints=True)
        return value


def _reject_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a JSON value")


def format_answer(backend: Backend, schema: Mapping[str, Any]) -> AnswerFormat:
    """Return the format of a schema on a backend."""
    enforcement = backend.schema_enforcement
    if enforcement == "grammar":  # of any type; vendors and JSON mode accept only an object
        return AnswerFormat(
            schema, JSONSchemaFormat("answer", schema, checked=True), is_enforced=True, is_wrapped=False
        )
    is_wrapped = schema.get("type") != "object"
    whole = _wrap(schema) if is_wrapped else schema
    try:
        response_format = JSONSchemaFormat(
            "answer", strict_schema(describe_unsupported(whole)), checked=True, strict=True
        )
    except StrictSchemaError:
        response_format = JSONSchemaFormat("answer", whole, checked=True, strict=False)
    is_enforced = enforcement == "native" and bool(response_format.strict)
    return AnswerFormat(schema, response_format, is_enforced, is_wrapped)


def _wrap(schema: Mapping[str, Any]) -> dict[str, Any]:
    definitions = {"definitions": schema["definitions"]} if "definitions" in schema else {}  # the older name of $defs
    return wrap_in_object({name: part for name, part in schema.items() if name != "definitions"}) | definitions
