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
    given,
)
from ctxbackends.wire.json_schema import LENGTHS, REFUSED_BY_ANTHROPIC, in_words


class How(StrEnum):
    """What an option becomes, where that is more than a new name. The values are the words of the documentation."""

    PLAIN = ""
    AS_SCHEMA = "as a schema that any object fits"
    AS_GBNF = "as a GBNF grammar"
    ALONE = "as the duty to call a tool, with this one as the only one offered"
    LEFT_OUT = "the tools are not offered"
    DEFAULT = "as nothing: it is what this server does with tools"
    TEMPLATE = 'with `chat_template_kwargs.enable_thinking: false` for `"none"`'
    INVERTED = "inverted"
    THINKING = 'with `thinking: {"type": "disabled"}` for `"none"`'
    LEVEL = 'as a level, and `false` for `"none"`'
    OBJECT = "with its arguments as an object"
    BOUNDS_IN_WORDS = "with the bounds of strict tools from typed functions put into words"
    MODEL = "for the model's chat template to read"
    IN_PART = "enforced in part: not `minimum`, `multipleOf`, `uniqueItems`, `not` and others"
    TEXT_FIRST = "text may come before the call"
    ENGINE = "by its llama.cpp engine alone"
    CLAMPED = "shortened in silence where prompt and answer do not fit together"
    ONE_IF_OUT = "1 where it is left out, whatever the Modelfile says"
    NO_PROMISE = "no promise: several calls have come"
    LENGTHS_IN_WORDS = "with the lengths of texts put into words, where they are checked here"
    IN_WORDS = "with the constraints that Anthropic refuses put into words, where `extract()` checks them itself"
    SIGNED = "with the signature that it came with"


@attrs.frozen
class Sent:
    """The option goes over the wire at ``at``, a path of member names with dots between them; ``as_`` says what it
    becomes. ``most``: a higher number would be lowered silently, so it is refused."""

    at: str
    as_: How = How.PLAIN
    most: float | None = None


@attrs.frozen
class Refused:
    """The server would ignore or misread the option, so that nothing is sent. ``reason`` says why, and what to do."""

    reason: str


Handling: TypeAlias = Sent | Refused
OptionTable: TypeAlias = Mapping[str, Handling]

SCALARS = (
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

CELLS = (
    *SCALARS,
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


_values_of = operator.attrgetter(*SCALARS)


def scalars_of(request: ChatRequest) -> Sequence[tuple[str, Any]]:
    """The scalar options that ``request`` has, with their values."""
    return given(SCALARS, _values_of(request))


def _used_beside(request: ChatRequest) -> Iterator[str]:
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
            yield from _used_parts(message)
    if request.extra_body:
        yield "extra_body"


def _used_parts(message: Message) -> Iterator[str]:
    for part in message.content:
        if isinstance(part, ImagePart):
            yield "message: image url" if part.url is not None else "message: image data"
        elif isinstance(part, ReasoningPart):
            yield "message: reasoning" if part.redacted is None else "message: redacted reasoning"
        elif isinstance(part, ToolCall):
            yield "message: tool call"
        elif isinstance(part, ToolResult):
            yield "message: tool result"


def refuse(request: ChatRequest, table: OptionTable) -> Sequence[tuple[str, Any]]:
    """Raise UnsupportedOptionError for the first option of ``request`` that ``table`` refuses. Returns the scalar
    options that it has, with their values."""
    scalars = scalars_of(request)
    for option, value in scalars:
        handling = table[option]
        if isinstance(handling, Refused):
            raise UnsupportedOptionError(option, handling.reason)
        if handling.most is not None and value > handling.most:
            raise UnsupportedOptionError(option, f"this server takes {handling.most:g} at most")
    for option in _used_beside(request):
        handling = table[option]
        if isinstance(handling, Refused):
            raise UnsupportedOptionError(option, handling.reason)
    return scalars


def sent(table: OptionTable, option: str) -> Sent:
    """How the option goes over the wire; ``refuse()`` came first."""
    handling = table[option]
    assert isinstance(handling, Sent), "refuse() came first"
    return handling


_LOOSENED: Mapping[How, Sequence[str]] = MappingProxyType(
    {
        How.IN_WORDS: REFUSED_BY_ANTHROPIC,
        How.BOUNDS_IN_WORDS: REFUSED_BY_ANTHROPIC,
        How.LENGTHS_IN_WORDS: LENGTHS,
    }
)


def schema_sent(wanted: JSONSchemaFormat, how: How) -> Mapping[str, Any]:
    """The schema of ``wanted`` as this server takes it: what it cannot hold is put into words, where the answer is
    validated here as well."""
    constraints = _LOOSENED.get(how)
    schema: Mapping[str, Any] = wanted.schema
    return in_words(schema, constraints) if constraints and wanted.checked else schema


def parameters_sent(tool: Tool, how: How) -> Mapping[str, Any]:
    """The schema of the arguments of ``tool`` as this server takes it. Typed functions check their arguments here."""
    constraints = _LOOSENED.get(how)
    loose = tool.function is not None and (tool.strict or how == How.LENGTHS_IN_WORDS)
    schema: Mapping[str, Any] = tool.parameters
    return in_words(schema, constraints) if constraints and loose else schema


def put(body: dict[str, Any], at: str, value: Any) -> None:
    """Set the member of ``body`` that the path ``at`` names."""
    *outer, name = at.split(".")
    for step in outer:
        body = body.setdefault(step, {})
    body[name] = value


def add_extra(
    body: dict[str, Any], extra: Mapping[str, Any] | None, reserved: Mapping[str, str], table: OptionTable
) -> None:
    """Add the members of ``extra_body``. A member that is set already or is ``reserved`` is refused, since two wishes
    for one member are a mistake. The objects that hold several options (Ollama's ``options``) are merged."""
    if not extra:
        return
    places = (handling.at for handling in table.values() if isinstance(handling, Sent))
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
