"""Option support as values: how an option is sent on a wire, or why it is not supported.

The codecs, the documentation and the tests use these tables. An option whose values differ in support has one key per
kind (``tool_choice: named``).
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeAlias

import attrs
import msgspec

from ctxbackends._chat.media import AudioPart, FilePart, ImagePart
from ctxbackends._chat.messages import Message, ReasoningPart, ToolCall, ToolResult
from ctxbackends._chat.requests import (
    ChatRequest,
    ChoiceFormat,
    GrammarFormat,
    JSONObjectFormat,
    JSONSchemaFormat,
    NamedTool,
    RegexFormat,
    Tool,
    set_fields,
)
from ctxbackends._schema.strict import ANTHROPIC_UNSUPPORTED, LENGTH_CONSTRAINTS, close_objects, describe_constraints
from ctxbackends._schema.strict_schema import strict_schema
from ctxbackends._wire.base import encode_json
from ctxbackends.errors import StrictSchemaError, UnsupportedOptionError


class Transform(StrEnum):
    """How an option is changed, beyond its name. The values are the texts of the documentation."""

    PLAIN = ""
    AS_SCHEMA = "sent as a schema that matches any object"
    AS_GBNF = "sent as a GBNF grammar"
    ONLY_TOOL = "sent as `required` with only this tool"
    WITHOUT_TOOLS = "sent without the tools"
    SERVER_DEFAULT = "not sent: the server does this by default"
    TEMPLATE_SWITCH = 'plus `chat_template_kwargs.enable_thinking: false` for `"none"`'
    INVERTED = "inverted"
    THINKING = 'with `thinking: {"type": "adaptive"}`, and `"disabled"` for `"none"`; not `"minimal"`'
    THINK_LEVEL = 'sent as a level, `false` for `"none"`'
    ARGUMENTS_OBJECT = "arguments sent as an object"
    STRICT_BOUNDS_DESCRIBED = "bounds of strict typed functions are moved to the description"
    MODEL_TEMPLATE = "read by the model's chat template"
    PARTIAL_ENFORCEMENT = "partly enforced: not `minimum`, `multipleOf`, `uniqueItems`, `not` and others"
    TEXT_FIRST = "text may precede the call"
    LLAMACPP_ENGINE = "llama.cpp engine only"
    SILENT_CLAMP = "lowered silently if prompt and answer do not fit the context"
    DEFAULT_ONE = "1 if left out, whatever the Modelfile says"
    BEST_EFFORT = "not guaranteed: several calls have been seen"
    LENGTHS_DESCRIBED = "text lengths are moved to the description if the SDK validates them"
    CONSTRAINTS_DESCRIBED = "unsupported constraints are moved to the description if `extract()` validates them"
    AFTER_RESULTS = "sent in a user message after the results"
    WITH_SIGNATURE = "with its original signature"
    STRICT_IF_POSSIBLE = "strict if the schema can be strict"
    IN_PROMPT = "sent as JSON mode, with the schema in the prompt"


@attrs.frozen
class Supported:
    """The option is sent.

    Attributes:
        path: The member of the body, with dots between nested names.
        transform: How the value is changed.
        maximum: The largest value that the server accepts, None for no limit.
    """

    path: str
    transform: Transform = Transform.PLAIN
    maximum: float | None = None


@attrs.frozen
class Unsupported:
    """The server would ignore or misread the option, so a request that has it raises an error.

    Attributes:
        reason: Why, and what to do instead.
    """

    reason: str


OptionSupport: TypeAlias = Supported | Unsupported
OptionTable: TypeAlias = Mapping[str, OptionSupport]

SCALAR_OPTIONS = (
    "max_tokens",
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "seed",
    "frequency_penalty",
    "presence_penalty",
    "repetition_penalty",
    "logprobs",
    "top_logprobs",
    "reasoning_effort",
    "reasoning_budget",
    "parallel_tool_calls",
)
"""Options with one key each."""

OPTION_KEYS = (
    *SCALAR_OPTIONS,
    "stop_sequences",
    "response_format: json_object",
    "response_format: json_schema",
    "response_format: regex",
    "response_format: choice",
    "response_format: grammar",
    "tools",
    "tool_choice: auto",
    "tool_choice: none",
    "tool_choice: required",
    "tool_choice: named",
    "message: image data",
    "message: image url",
    "message: audio",
    "message: file",
    "message: reasoning",
    "message: redacted reasoning",
    "message: tool call",
    "message: tool result",
    "message: tool result image",
    "extra_body",
)
"""The keys of every option table."""

_FORMATS: Mapping[type[Any], str] = {
    JSONObjectFormat: "response_format: json_object",
    JSONSchemaFormat: "response_format: json_schema",
    RegexFormat: "response_format: regex",
    ChoiceFormat: "response_format: choice",
    GrammarFormat: "response_format: grammar",
}


_get_scalars = operator.attrgetter(*SCALAR_OPTIONS)


def get_scalar_options(request: ChatRequest) -> Sequence[tuple[str, Any]]:
    """Return the scalar options that are set, with their values."""
    return set_fields(SCALAR_OPTIONS, _get_scalars(request))


def _find_other_keys(request: ChatRequest) -> Iterator[str]:
    if request.stop_sequences:
        yield "stop_sequences"
    if request.response_format is not None:
        yield _FORMATS[type(request.response_format)]
    if request.tools:
        yield "tools"
        if request.tool_choice is not None:
            choice = request.tool_choice
            yield "tool_choice: named" if isinstance(choice, NamedTool) else f"tool_choice: {choice}"
    for message in request.messages:
        if not isinstance(message.content, str):
            yield from _find_part_keys(message)
    if request.extra_body:
        yield "extra_body"


def _find_part_keys(message: Message) -> Iterator[str]:
    for part in message.content:
        if isinstance(part, ImagePart):
            yield _image_key(part)
        elif isinstance(part, ReasoningPart):
            yield "message: reasoning" if part.redacted is None else "message: redacted reasoning"
        elif isinstance(part, ToolCall):
            yield "message: tool call"
        elif isinstance(part, ToolResult):
            yield "message: tool result"
            for image in part.images:
                yield "message: tool result image"
                yield _image_key(image)
        elif isinstance(part, AudioPart):
            yield "message: audio"
        elif isinstance(part, FilePart):
            yield "message: file"


def _image_key(part: ImagePart) -> str:
    return "message: image url" if part.url is not None else "message: image data"


_DEFAULTS = {"logprobs": False, "parallel_tool_calls": True}
"""Values that ask for what every server does, which frameworks send. A server without the option needs none."""


def check_supported(request: ChatRequest, table: OptionTable) -> Sequence[tuple[str, Any]]:
    """Return the scalar options that are set, with their values, without those that ask for what a server does anyway.

    Raises:
        UnsupportedOptionError: ``table`` does not support an option of ``request``.
    """
    scalars = get_scalar_options(request)
    for option, value in scalars:
        support = table[option]
        if isinstance(support, Unsupported):
            if _DEFAULTS.get(option) is value:
                return check_supported(msgspec.structs.replace(request, **{option: None}), table)
            raise UnsupportedOptionError(option, support.reason)
        if support.maximum is not None and value > support.maximum:
            raise UnsupportedOptionError(option, f"this server accepts at most {support.maximum:g}")
    for option in _find_other_keys(request):
        support = table[option]
        if isinstance(support, Unsupported):
            raise UnsupportedOptionError(option, support.reason)
    return scalars


def lookup(table: OptionTable, option: str) -> Supported:
    """Return how the option is sent. Call `check_supported()` first."""
    support = table[option]
    assert isinstance(support, Supported), "check_supported() raises for unsupported options"
    return support


_MOVED_CONSTRAINTS: Mapping[Transform, Sequence[str]] = MappingProxyType(
    {
        Transform.CONSTRAINTS_DESCRIBED: ANTHROPIC_UNSUPPORTED,
        Transform.STRICT_BOUNDS_DESCRIBED: ANTHROPIC_UNSUPPORTED,
        Transform.LENGTHS_DESCRIBED: LENGTH_CONSTRAINTS,
    }
)


def prepare_schema(
    response_format: JSONSchemaFormat, transform: Transform, *, described: bool = False
) -> Mapping[str, Any]:
    """Return the schema as this server supports it.

    Unsupported constraints are moved to the description if the SDK validates the response too. Anthropic requires
    objects that allow no further properties. ``described`` adds the description of the format to the schema.
    """
    constraints = _MOVED_CONSTRAINTS.get(transform)
    schema = response_format.described_schema if described else response_format.schema
    if transform == Transform.CONSTRAINTS_DESCRIBED:
        schema = close_objects(schema)
    return describe_constraints(schema, constraints) if constraints and response_format.checked else schema


def prepare_strict_schema(response_format: JSONSchemaFormat, transform: Transform) -> tuple[Mapping[str, Any], bool]:
    """Return the schema as this server supports it, and whether the server is to enforce it.

    Raises:
        StrictSchemaError: The format must be strict, and cannot be.
    """
    strict = response_format.strict
    if transform != Transform.STRICT_IF_POSSIBLE:
        return prepare_schema(response_format, transform), strict is not False
    if strict is False or (strict and response_format.checked):  # extract() has made it strict
        return response_format.schema, strict
    try:
        return _make_strict(encode_json(response_format.schema)), True
    except StrictSchemaError:
        if strict:
            raise
        return response_format.schema, False


@functools.lru_cache(maxsize=128)
def _make_strict(schema: bytes) -> Mapping[str, Any]:
    """Return the strict form of a schema in JSON. A schema of 20 parts takes 0.3 ms without the cache."""
    return strict_schema(msgspec.json.decode(schema))


def prepare_parameters(tool: Tool, transform: Transform) -> Mapping[str, Any]:
    """Return the schema of the tool's arguments as this server supports it.

    Unsupported constraints are moved to the description for typed functions, whose arguments the SDK validates.
    """
    constraints = _MOVED_CONSTRAINTS.get(transform)
    is_validated = tool.function is not None and (tool.strict or transform == Transform.LENGTHS_DESCRIBED)
    schema: Mapping[str, Any] = tool.parameters
    return describe_constraints(schema, constraints) if constraints and is_validated else schema


def set_path(body: dict[str, Any], path: str, value: Any) -> None:
    """Set the member of ``body`` at ``path``, creating the objects around it."""
    *parents, name = path.split(".")
    for parent in parents:
        body = body.setdefault(parent, {})
    body[name] = value


RESERVED: Mapping[str, str] = {"model": "pass model=", "messages": "pass the messages", "stream": "call stream()"}
"""Members that ``extra_body`` may not set in any format, with the advice for the error."""


def merge_extra_body(
    body: dict[str, Any], extra: Mapping[str, Any] | None, reserved: Mapping[str, str], table: OptionTable
) -> None:
    """Add the members of ``extra_body`` to ``body``.

    Objects that contain several options (Ollama's ``options``) are merged.

    Raises:
        UnsupportedOptionError: A member is reserved, or an option sets it already.
    """
    if not extra:
        return
    paths = (support.path for support in table.values() if isinstance(support, Supported))
    containers = {path.partition(".")[0] for path in paths if "." in path} - {"messages"}
    for name, value in extra.items():
        if name in reserved:
            raise UnsupportedOptionError(f"extra_body: {name}", reserved[name])
        if name not in body:
            body[name] = value
            continue
        mergeable = name in containers and isinstance(value, Mapping) and isinstance(body[name], dict)
        duplicates = set(body[name]) & set(value) if mergeable else {""}
        if duplicates:
            inner = f".{min(duplicates)}" if duplicates != {""} else ""
            raise UnsupportedOptionError(
                f"extra_body: {name}{inner}", f"{inner.removeprefix('.') or name} is already set by an option"
            )
        body[name] = {**body[name], **value}
