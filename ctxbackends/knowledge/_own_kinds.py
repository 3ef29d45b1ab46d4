"""Kinds of records that a person defines with a JSON Schema."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias, cast

import msgspec

from ctxbackends._schema.check import check_structure
from ctxbackends._schema.problems import find_schema_problem
from ctxbackends._util.text import one_line, plural
from ctxbackends.errors import StructuredOutputError
from ctxbackends.knowledge._records import PLURALS, RECORDS, Kind, OwnRecord, Record, kind_of, title_of

MAX_FIELDS = 20

_NAME = re.compile(r"[a-z][a-z0-9]*(?:-[a-z0-9]+)*")
_RESERVED_NAMES = frozenset([*PLURALS, *Kind, "own"])
_RESERVED_FIELDS = ("kind", "quote", "line", "source", "evidence", "schema_of_kind")
"""Fields that the rows have in the answer, in JSON and in exports, and an attribute of their class."""

_TYPES: Mapping[str, Any] = {"string": str, "integer": int, "number": float, "boolean": bool}
_ANNOTATIONS = ("$comment", "title", "description", "examples", "type")
_ROOT_KEYWORDS = frozenset((*_ANNOTATIONS, "$schema", "$id", "properties", "required", "additionalProperties"))
_FIELD_KEYWORDS = frozenset(
    (
        *(*_ANNOTATIONS, "enum", "default", "anyOf", "items", "pattern", "format", "minLength", "maxLength"),
        *("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"),
        *("minItems", "maxItems", "uniqueItems"),
    )
)


class OwnKind(msgspec.Struct, frozen=True):
    """A kind of records with a name and fields of your own.

    The properties of the schema are the fields. They are strings, numbers, integers, booleans, strings of an ``enum``,
    or lists of strings. ``title``, or else the first string, is the title of a record. Descriptions and the first of
    the ``examples`` are in the prompt. A field that is not ``required``, or allows null, may be missing.

    Attributes:
        name: The name of the kind: lower-case letters and digits, with hyphens between them.
        schema: The JSON Schema of an object.

    Raises:
        ValueError: The name or the schema cannot be used.
    """

    name: str
    schema: dict[str, Any]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(
                f"invalid name of a kind: {self.name!r}; use lower-case letters and digits, with hyphens between them"
            )
        if self.name in _RESERVED_NAMES:
            raise ValueError(f"name of a kind is taken: {self.name}; choose another one")
        try:
            record_type_of(self)
            problem = find_schema_problem(self.schema)
            if problem is not None:
                raise _SchemaError(f"{problem}; correct it")
            self._check_examples()
        except _SchemaError as error:
            raise ValueError(f"invalid schema of {self.name}: {error}") from None

    def _check_examples(self) -> None:
        examples = self.schema.get("examples", [])
        if not isinstance(examples, list):
            raise _SchemaError("examples must be a list; put each example into it")
        for number, example in enumerate(examples):
            try:
                check_structure(self.schema, example, text="", constraints=True)
            except StructuredOutputError as error:
                raise _SchemaError(f"examples[{number}] does not match: {error}; correct it") from None

    @property
    def meaning(self) -> str:
        """The description for the prompt."""
        properties = self.schema["properties"]
        parts = [str(self.schema.get("description") or self.schema.get("title") or self.name).strip().rstrip(".")]
        for name in record_type_of(self).__struct_fields__:
            details = [str(properties[name].get("description") or "").strip().rstrip(".")]
            details += [
                f"{word} {properties[name][word]}" for word in ("pattern", "format") if word in properties[name]
            ]
            text = ", ".join(filter(None, details))
            parts.append(f"{name}: {text}" if text else name)
        return ". ".join(parts) + "."

    @property
    def example(self) -> Mapping[str, Any] | None:
        """The fields of the first example."""
        examples = self.schema.get("examples")
        return cast("Mapping[str, Any]", examples[0]) if examples else None


AnyKind: TypeAlias = Kind | OwnKind


class _SchemaError(Exception):
    """Why a schema cannot be used, and what to do."""


def name_of(kind: AnyKind) -> str:
    """Return the name of a kind, in the singular."""
    return kind.name if isinstance(kind, OwnKind) else kind.value


def plural_of(kind: AnyKind) -> str:
    """Return the name of a kind, in the plural."""
    return plural(name_of(kind))


def record_type_of(kind: AnyKind) -> type[Record]:
    """Return the class of the records of a kind; the same one for equal kinds."""
    if isinstance(kind, OwnKind):
        return _create_record_type(kind.name, json.dumps(kind.schema))
    return RECORDS[kind]


@functools.lru_cache(maxsize=256)
def _create_record_type(name: str, text: str) -> type[OwnRecord]:
    schema = json.loads(text)
    fields = _read_fields(schema)
    record: Any = msgspec.defstruct(
        "".join(map(str.capitalize, name.split("-"))),
        list(fields.items()),
        bases=(OwnRecord,),
        frozen=True,
        tag_field="kind",
        tag=name,
        module=__name__,
        namespace={"__reduce__": _reduce_record},
    )
    record.schema_of_kind = schema
    return cast("type[OwnRecord]", record)


def _reduce_record(record: OwnRecord) -> tuple[Any, ...]:
    # Pickle finds no class that is created at run time.
    return _restore_record, (kind_of(record), json.dumps(record.schema_of_kind), msgspec.structs.astuple(record))


def _restore_record(name: str, schema: str, values: tuple[Any, ...]) -> OwnRecord:
    return _create_record_type(name, schema)(*values)


# --- the schema -----------------------------------------------------------------------------------------


def _read_fields(schema: Any) -> dict[str, Any]:
    """Return the type of each field by name, the title first."""
    if not isinstance(schema, dict) or schema.get("type", "object") != "object":
        raise _SchemaError("it must describe an object; write type: object with properties")
    _check_keywords(schema, _ROOT_KEYWORDS, "the schema")
    properties, required = schema.get("properties"), schema.get("required", [])
    if not isinstance(properties, dict) or not properties:
        raise _SchemaError("no properties; write one for each field")
    if len(properties) > MAX_FIELDS:
        raise _SchemaError(f"{len(properties)} properties; write at most {MAX_FIELDS}")
    if not isinstance(required, list) or not all(name in properties for name in required):
        raise _SchemaError("required must be a list of properties; correct it")
    types = {name: _read_type(name, part, is_required=name in required) for name, part in properties.items()}
    texts = [name for name, kind in types.items() if kind is str]
    if not texts:
        raise _SchemaError("no property for the title; add one with type: string")
    title = "title" if "title" in texts else texts[0]
    return {title: types[title], **types}


def _check_keywords(schema: Mapping[str, Any], keywords: frozenset[str], where: str) -> None:
    unknown = sorted(set(schema) - keywords)
    if unknown:
        raise _SchemaError(f"{where} has {unknown[0]}, which is not supported; remove it")


def _read_type(name: str, schema: Any, *, is_required: bool) -> Any:
    if not name.isidentifier() or name.startswith("_"):
        raise _SchemaError(f"invalid name of a property: {name!r}; begin with a letter, then use letters, digits and _")
    if name in _RESERVED_FIELDS:
        raise _SchemaError(f"reserved name of a property: {name}; choose another one")
    if not isinstance(schema, dict):
        raise _SchemaError(f"property {name} must be an object with a type; correct it")
    schema, is_nullable = _split_null(schema)
    kind = schema.get("type", "string" if "enum" in schema else None)
    if kind == "array":
        items = schema.get("items", {"type": "string"})
        if not isinstance(items, dict) or items.get("type", "string") != "string":
            raise _SchemaError(
                f"property {name} is a list of other values than strings; use type: string for its items"
            )
        _check_keywords({**schema, **items}, _FIELD_KEYWORDS, f"property {name}")
        return list[_read_choice(name, items) or str]  # type: ignore[misc]  # a type at run time
    if not isinstance(kind, str) or kind not in _TYPES:
        problem = "no type" if kind is None else f"the type {json.dumps(kind)}, which is not supported"
        raise _SchemaError(f"property {name} has {problem}; use one of {', '.join([*_TYPES, 'array'])}")
    _check_keywords(schema, _FIELD_KEYWORDS, f"property {name}")
    choice = _read_choice(name, schema)
    if choice is None and kind == "string":
        return str
    plain = choice or _TYPES[kind]
    return plain | None if is_nullable or not is_required else plain


def _read_choice(name: str, schema: Mapping[str, Any]) -> Any:
    """Return the type of the values of an enum; None without one."""
    if "enum" not in schema:
        return None
    values = [value for value in schema["enum"] if value is not None] if isinstance(schema["enum"], list) else []
    if not values or not all(isinstance(value, str) and value.strip() == one_line(value) != "" for value in values):
        raise _SchemaError(f"enum of property {name} must be a list of texts on one line; correct it")
    return Literal[tuple(values)]


def _split_null(schema: Mapping[str, Any]) -> tuple[Mapping[str, Any], bool]:
    """Return the schema without the alternative null, and whether it has one."""
    branches = schema.get("anyOf")
    if isinstance(branches, list) and len(branches) == 2 and {"type": "null"} in branches:
        other = branches[1 - branches.index({"type": "null"})]
        return {**{key: value for key, value in schema.items() if key != "anyOf"}, **other}, True
    kinds = schema.get("type")
    if isinstance(kinds, list) and "null" in kinds and len(kinds) == 2:
        return {**schema, "type": kinds[1 - kinds.index("null")]}, True
    return schema, False


def find_record_problem(record: Record) -> str | None:
    """Return why a record cannot be accepted, whatever its evidence is; None if it can."""
    if not title_of(record).strip():
        return "no title"
    try:
        check_own_record(record)
    except ValueError as error:
        return str(error)
    return None


def check_own_record(record: Record) -> None:
    """Check a record of an own kind against its schema; other records are valid.

    Raises:
        ValueError: It does not match.
    """
    if not isinstance(record, OwnRecord):
        return
    schema = record.schema_of_kind
    required = schema.get("required", ())
    values = msgspec.to_builtins(record)
    del values["kind"]
    missing = [name for name, value in values.items() if name not in required and value in ("", [], None)]
    present = {name: value for name, value in values.items() if name not in missing}
    try:
        check_structure(schema, present, text="", constraints=True)
    except StructuredOutputError as error:
        raise ValueError(f"invalid {kind_of(record)}: {error}") from None
