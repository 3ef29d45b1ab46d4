"""``--schema``: a JSON Schema, a file with one, or a list of fields, and the answer that must match it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import attrs
import click

from ctxbackends._schema.check import check_structure
from ctxbackends._schema.problems import FIELD_TYPES, find_schema_problem
from ctxbackends._suggestions import suggest
from ctxbackends.errors import StrictSchemaError, StructuredOutputError

_OTHER_TYPES = {"string": "str", "text": "str", "integer": "int", "number": "float", "boolean": "bool"}
_KEYWORDS = ("type", "properties", "items", "enum", "const", "anyOf", "oneOf", "allOf", "$ref")


def parse_schema(value: str, option: str = "--schema") -> dict[str, Any]:
    """Return the schema of the option's value. Errors begin with ``option``.

    Raises:
        ClickException: The value is not a schema, or its file cannot be read.
    """
    text = value.strip()
    if text.startswith("{"):
        return _load_schema(text, option)
    if not text or (not is_schema_file(text) and any(character in text for character in " ,:\n")):
        return _parse_fields(text, option)
    try:
        content = Path(text).read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        hint = f"; for a schema with this one field, write '{text},'" if text.isidentifier() else ""
        raise click.ClickException(f"{option}: {text}: no such file{hint}") from None
    except OSError as error:
        raise click.ClickException(f"{option}: {text}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise click.ClickException(f"{option}: {text}: not a JSON file (it is not UTF-8)") from None
    return _load_schema(content, text)


def is_schema_file(value: str) -> bool:
    """Return whether the option's value is the name of a file."""
    text = value.strip()
    return bool(text) and not text.startswith("{") and "\n" not in text and os.path.exists(text)


# --- fields ------------------------------------------------------------------------------------------


def _parse_fields(text: str, option: str) -> dict[str, Any]:
    """Return the schema of fields such as ``name, age int, bio: one line``, one per line or between commas."""
    properties: dict[str, Any] = {}
    for field in filter(None, map(str.strip, text.split("\n" if "\n" in text else ","))):
        head, _, description = (part.strip() for part in field.partition(":"))
        name, *kind = head.split()[:2] or [""]
        if not name or len(head.split()) > 2:
            raise click.ClickException(f"{option}: not a field: {field!r}; write 'name', 'name type' or 'name: text'")
        if kind and kind[0] not in FIELD_TYPES:
            advice = suggest(kind[0], FIELD_TYPES, _OTHER_TYPES)
            raise click.ClickException(f"{option}: unknown type of {name}: {kind[0]}; {advice}")
        if name in properties:
            raise click.ClickException(f"{option}: duplicate field: {name}")
        properties[name] = {"type": FIELD_TYPES[kind[0] if kind else "str"]}
        if description:
            properties[name]["description"] = description
    if not properties:
        raise click.ClickException(f"{option}: no field; write them as in 'name, age int'")
    return {"type": "object", "properties": properties, "required": [*properties], "additionalProperties": False}


# --- JSON Schema -------------------------------------------------------------------------------------


def _load_schema(text: str, where: str) -> dict[str, Any]:
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise click.ClickException(f"{where}: not JSON: {error}") from None
    if not isinstance(schema, dict) or not any(keyword in schema for keyword in _KEYWORDS):
        keywords = ", ".join(_KEYWORDS)
        raise click.ClickException(f"{where}: not a JSON Schema: it must be an object with one of {keywords}")
    problem = find_schema_problem(schema)
    if problem is not None:
        raise click.ClickException(f"{where}: not a valid JSON Schema: {problem}")
    return schema


# --- request and answer --------------------------------------------------------------------------------


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
    response_format: Any
    is_enforced: bool
    is_wrapped: bool

    def decode(self, completion: Any) -> Any:
        """Return the JSON value of an answer.

        Raises:
            StructuredOutputError: The answer is incomplete, a refusal or a tool call, or does not match the schema.
        """
        from ctxbackends._schema.answers import unwrap_answer  # noqa: PLC0415  # needed only after an answer
        from ctxbackends._schema.validate import unwrap_object  # noqa: PLC0415
        from ctxbackends._structured import check_is_answer  # noqa: PLC0415

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


def format_answer(backend: Any, schema: Mapping[str, Any]) -> AnswerFormat:
    """Return the format of a schema on a backend."""
    from ctxbackends._chat.requests import JSONSchemaFormat  # noqa: PLC0415  # needed only with a schema
    from ctxbackends._schema.strict_schema import describe_unsupported, strict_schema  # noqa: PLC0415

    enforcement = backend.schema_enforcement
    if enforcement == "grammar":  # of any type; vendors and JSON mode accept only an object
        return AnswerFormat(schema, JSONSchemaFormat("answer", schema, checked=True), True, is_wrapped=False)
    is_wrapped = schema.get("type") != "object"
    whole = _wrap(schema) if is_wrapped else schema
    try:
        response_format = JSONSchemaFormat("answer", strict_schema(describe_unsupported(whole)), True, strict=True)
    except StrictSchemaError:
        response_format = JSONSchemaFormat("answer", whole, True, strict=False)
    is_enforced = enforcement == "native" and bool(response_format.strict)
    return AnswerFormat(schema, response_format, is_enforced, is_wrapped)


def _wrap(schema: Mapping[str, Any]) -> dict[str, Any]:
    from ctxbackends._schema.generate import wrap_in_object  # noqa: PLC0415  # needed only with a schema

    definitions = {"definitions": schema["definitions"]} if "definitions" in schema else {}  # the older name of $defs
    return wrap_in_object({name: part for name, part in schema.items() if name != "definitions"}) | definitions
