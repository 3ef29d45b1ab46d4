"""What becomes of each option on a wire: sent, translated or refused, as a value. Tables of these drive the codecs, the
documentation and the tests; knows no server.

An option that needs more than one answer has a row for each of its kinds (``tool_choice: named``).
"""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping, Sequence
from enum import StrEnum
from types import MappingProxyType
from typing import Any, TypeAlias

import attrs

from ctxbackends.errors import UnsupportedOptionError
from ctxbackends.messages import (
    ChatRequest,
    ChoiceFormat,
    GrammarFormat,
    ImagePart,
    JSONObjectFormat,
    JSONSchemaFormat,
    Message,
    NamedTool,
    ReasoningPart,
    RegexFormat,
    Tool,
    ToolCall,
    ToolResult,
    set_fields,
)
from ctxbackends.wire.json_schema import ANTHROPIC_UNSUPPORTED, LENGTH_CONSTRAINTS, describe_constraints


class Transform(StrEnum):
    """What an option becomes, where that is more than a new name. The values are the words of the documentation."""

    PLAIN = ""
    AS_SCHEMA = "as a schema that any object fits"
    AS_GBNF = "as a GBNF grammar"
    ONLY_TOOL = "as the duty to call a tool, with this one as the only one offered"
    WITHOUT_TOOLS = "the tools are not offered"
    SERVER_DEFAULT = "as nothing: it is what this server does with tools"
    TEMPLATE_SWITCH = 'with `chat_template_kwargs.enable_thinking: false` for `"none"`'
    INVERTED = "inverted"
    THINKING = 'with `thinking: {"type": "disabled"}` for `"none"`'
    THINK_LEVEL = 'as a level, and `false` for `"none"`'
    ARGUMENTS_OBJECT = "with its arguments as an object"
    STRICT_BOUNDS_DESCRIBED = "with the bounds of strict tools from typed functions put into words"
    MODEL_TEMPLATE = "for the model's chat template to read"
    PARTIAL_ENFORCEMENT = "enforced in part: not `minimum`, `multipleOf`, `uniqueItems`, `not` and others"
    TEXT_FIRST = "text may come before the call"
    LLAMACPP_ENGINE = "by its llama.cpp engine alone"
    SILENT_CLAMP = "shortened in silence where prompt and answer do not fit together"
    DEFAULT_ONE = "1 where it is left out, whatever the Modelfile says"
    BEST_EFFORT = "no promise: several calls have come"
    LENGTHS_DESCRIBED = "with the lengths of texts put into words, where they are checked here"
    CONSTRAINTS_DESCRIBED = (
        "with the constraints that Anthropic refuses put into words, where `extract()` checks them itself"
    )
    WITH_SIGNATURE = "with the signature that it came with"


@attrs.frozen
class Supported:
    """The option goes over the wire at ``at``, a path of member names with dots between them; ``as_`` says what it
    becomes. ``most``: a higher number would be lowered silently, so it is refused."""

    path: str
    transform: Transform = Transform.PLAIN
    maximum: float | None = None


@attrs.frozen
class Unsupported:
    """The server would ignore or misread the option, so that nothing is sent. ``reason`` says why, and what to do."""

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
"""Options of one kind."""

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
    "message: reasoning",
    "message: redacted reasoning",
    "message: tool call",
    "message: tool result",
    "extra_body",
)
"""Every row of an option table."""

_FORMATS: Mapping[type[Any], str] = {
    JSONObjectFormat: "response_format: json_object",
    JSONSchemaFormat: "response_format: json_schema",
    RegexFormat: "response_format: regex",
    ChoiceFormat: "response_format: choice",
    GrammarFormat: "response_format: grammar",
}


_get_scalars = operator.attrgetter(*SCALAR_OPTIONS)


def get_scalar_options(request: ChatRequest) -> Sequence[tuple[str, Any]]:
    """The scalar options that ``request`` has, with their values."""
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
            yield "message: image url" if part.url is not None else "message: image data"
        elif isinstance(part, ReasoningPart):
            yield "message: reasoning" if part.redacted is None else "message: redacted reasoning"
        elif isinstance(part, ToolCall):
            yield "message: tool call"
        elif isinstance(part, ToolResult):
            yield "message: tool result"


def check_supported(request: ChatRequest, table: OptionTable) -> Sequence[tuple[str, Any]]:
    """Raise UnsupportedOptionError for the first option of ``request`` that ``table`` refuses. Returns the scalar
    options that it has, with their values."""
    scalars = get_scalar_options(request)
    for option, value in scalars:
        handling = table[option]
        if isinstance(handling, Unsupported):
            raise UnsupportedOptionError(option, handling.reason)
        if handling.maximum is not None and value > handling.maximum:
            raise UnsupportedOptionError(option, f"this server takes {handling.maximum:g} at most")
    for option in _find_other_keys(request):
        handling = table[option]
        if isinstance(handling, Unsupported):
            raise UnsupportedOptionError(option, handling.reason)
    return scalars


def lookup(table: OptionTable, option: str) -> Supported:
    """How the option goes over the wire; ``refuse()`` came first."""
    handling = table[option]
    assert isinstance(handling, Supported), "refuse() came first"
    return handling


_MOVED_CONSTRAINTS: Mapping[Transform, Sequence[str]] = MappingProxyType(
    {
        Transform.CONSTRAINTS_DESCRIBED: ANTHROPIC_UNSUPPORTED,
        Transform.STRICT_BOUNDS_DESCRIBED: ANTHROPIC_UNSUPPORTED,
        Transform.LENGTHS_DESCRIBED: LENGTH_CONSTRAINTS,
    }
)


def prepare_schema(wanted: JSONSchemaFormat, how: Transform) -> Mapping[str, Any]:
    """The schema of ``wanted`` as this server takes it: what it cannot hold is put into words, where the answer is
    validated here as well."""
    constraints = _MOVED_CONSTRAINTS.get(how)
    schema: Mapping[str, Any] = wanted.schema
    return describe_constraints(schema, constraints) if constraints and wanted.checked else schema


def prepare_parameters(tool: Tool, how: Transform) -> Mapping[str, Any]:
    """The schema of the arguments of ``tool`` as this server takes it. Typed functions check their arguments here."""
    constraints = _MOVED_CONSTRAINTS.get(how)
    loose = tool.function is not None and (tool.strict or how == Transform.LENGTHS_DESCRIBED)
    schema: Mapping[str, Any] = tool.parameters
    return describe_constraints(schema, constraints) if constraints and loose else schema


def set_path(body: dict[str, Any], at: str, value: Any) -> None:
    """Set the member of ``body`` that the path ``at`` names."""
    *outer, name = at.split(".")
    for step in outer:
        body = body.setdefault(step, {})
    body[name] = value


def merge_extra_body(
    body: dict[str, Any], extra: Mapping[str, Any] | None, reserved: Mapping[str, str], table: OptionTable
) -> None:
    """Add the members of ``extra_body``. A member that is set already or is ``reserved`` is refused, since two wishes
    for one member are a mistake. The objects that hold several options (Ollama's ``options``) are merged."""
    if not extra:
        return
    places = (handling.path for handling in table.values() if isinstance(handling, Supported))
    holders = {at.partition(".")[0] for at in places if "." in at} - {"messages"}
    for name, value in extra.items():
        if name in reserved:
            raise UnsupportedOptionError(f"extra_body: {name}", reserved[name])
        if name not in body:
            body[name] = value
            continue
        mergeable = name in holders and isinstance(value, Mapping) and isinstance(body[name], dict)
        both = set(body[name]) & set(value) if mergeable else {""}
        if both:
            inner = f".{min(both)}" if both != {""} else ""
            raise UnsupportedOptionError(
                f"extra_body: {name}{inner}", f"{inner.removeprefix('.') or name} is set by an option already"
            )
        body[name] = {**body[name], **value}
