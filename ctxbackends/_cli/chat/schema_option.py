"""``--schema``: a JSON Schema, a file with one, or a list of fields."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import click

from ctxbackends._schema.problems import FIELD_TYPES, find_schema_problem
from ctxbackends._suggestions import suggest

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
