"""Requests: tools, response formats, options, and the whole chat request."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict, get_args

import attrs
import msgspec

from ctxbackends._chat.messages import Message

ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]
_EFFORTS: tuple[str, ...] = get_args(ReasoningEffort)


# --- tools ------------------------------------------------------------------------------------------


@attrs.frozen
class Tool:
    """A function that the model may call.

    Attributes:
        name: The name of the function.
        description: The purpose of the function, for the model.
        parameters: The JSON Schema of the arguments, an object.
        strict: Ask the server to enforce the schema, which must then require every property and allow no others.
        function: The Python function, if :func:`ctxbackends.tool_of` built the tool.
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    strict: bool = False
    function: Callable[..., Any] | None = attrs.field(default=None, eq=False, repr=False)


@attrs.frozen
class NamedTool:
    """A ``tool_choice``: the model must call the tool of this name."""

    name: str


ToolChoice: TypeAlias = Literal["auto", "none", "required"] | NamedTool


# --- formats of the answer ----------------------------------------------------------------------------


@attrs.frozen
class JSONObjectFormat:
    """Ask for any JSON object."""


@attrs.frozen
class JSONSchemaFormat:
    """Ask for JSON that matches a JSON Schema (2020-12).

    Attributes:
        name: A label for the server.
        schema: The JSON Schema.
        checked: Whether the SDK validates the response too, as :func:`ctxbackends.extract` does. Constraints that a
            server does not support (Anthropic: ``minimum``, ``maxLength`` and others) move to the description.
        strict: Whether the server must enforce the schema, where that is a choice (chat completions). True raises
            :class:`~ctxbackends.StrictSchemaError` for a schema that OpenAI cannot enforce, see
            :func:`~ctxbackends.strict_schema`; False asks for no enforcement. None enforces the schema if it can be
            strict, and sends it unchanged with ``strict: false`` otherwise.
        description: The purpose of the answer, for the model; None for none.
    """

    name: str
    schema: Mapping[str, Any]
    checked: bool = False
    strict: bool | None = None
    description: str | None = None

    def __attrs_post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise TypeError(f"name of a JSONSchemaFormat must be a string, not {type(self.name).__name__}")
        if not isinstance(self.schema, Mapping):
            raise TypeError(f"schema of a JSONSchemaFormat must be a dict, not {type(self.schema).__name__}")
        if self.strict is not None and not isinstance(self.strict, bool):
            raise TypeError(f"strict of a JSONSchemaFormat must be True, False or None: {self.strict!r:.80}")
        if self.description is not None and not isinstance(self.description, str):
            raise TypeError(
                f"description of a JSONSchemaFormat must be a string, not {type(self.description).__name__}"
            )

    @property
    def described_schema(self) -> Mapping[str, Any]:
        """The schema with the description, for wire formats without a member for it."""
        if self.description is None:
            return self.schema
        return {**self.schema, "description": self.schema.get("description", self.description)}


@attrs.frozen
class RegexFormat:
    """Ask for text that fully matches ``pattern``."""

    pattern: str


def _to_strings(values: Sequence[str] | None, name: str) -> tuple[str, ...]:
    if isinstance(values, str):
        raise TypeError(f"{name} must be a list of strings: [{values!r}]")
    if values is not None and (isinstance(values, bytes | Mapping) or not isinstance(values, Iterable)):
        raise TypeError(f"{name} must be a list of strings, not {type(values).__name__}")
    strings = tuple(values or ())
    for index, value in enumerate(strings):
        if not isinstance(value, str):
            raise TypeError(f"{name}[{index}] must be a string: {value!r:.80}")
    return strings


def _to_choices(values: Sequence[str]) -> tuple[str, ...]:
    return _to_strings(values, "choices")


@attrs.frozen
class ChoiceFormat:
    """Ask for exactly one of ``choices``."""

    choices: tuple[str, ...] = attrs.field(converter=_to_choices)

    def __attrs_post_init__(self) -> None:
        if not self.choices or not all(self.choices):
            raise ValueError("choices must be one or more non-empty strings")


@attrs.frozen
class GrammarFormat:
    """Ask for text that matches ``grammar``, in the server's notation (GBNF)."""

    grammar: str


ResponseFormat: TypeAlias = JSONObjectFormat | JSONSchemaFormat | RegexFormat | ChoiceFormat | GrammarFormat
RESPONSE_FORMATS = (JSONObjectFormat, JSONSchemaFormat, RegexFormat, ChoiceFormat, GrammarFormat)


# --- requests -----------------------------------------------------------------------------------------


ToolForms: TypeAlias = Sequence[Tool | Callable[..., Any] | Mapping[str, Any]] | None
"""Tools, typed functions, and dicts in OpenAI's or Anthropic's form."""
ResponseFormatForm: TypeAlias = ResponseFormat | Mapping[str, Any] | type[Any] | None
"""A format, a dict in OpenAI's form, or a Python type."""
ToolChoiceForm: TypeAlias = ToolChoice | Mapping[str, Any] | None
"""A choice, or a dict in OpenAI's or Anthropic's form."""


class OptionsWithoutTools(TypedDict, total=False):
    """The fields of :class:`ChatOptions` except ``tools``, for functions with a parameter of that name."""

    model: str | None
    max_tokens: int | None
    temperature: float | None
    top_p: float | None
    top_k: int | None
    min_p: float | None
    seed: int | None
    frequency_penalty: float | None
    presence_penalty: float | None
    repetition_penalty: float | None
    stop_sequences: Sequence[str] | None
    logprobs: bool | None
    top_logprobs: int | None
    reasoning_effort: ReasoningEffort | None
    reasoning_budget: int | None
    response_format: ResponseFormatForm
    tool_choice: ToolChoiceForm
    parallel_tool_calls: bool | None
    extra_body: Mapping[str, Any] | None


class ChatOptions(OptionsWithoutTools, total=False):
    """The keyword options of ``complete()`` and ``stream()``.

    Options that are left out are not sent, so the server's default applies. An option that the server would ignore
    raises UnsupportedOptionError before the request is sent.

    Attributes:
        model: The name of the model; the backend's ``default_model`` if left out.
        max_tokens: The maximum of generated tokens, at least 1.
        temperature: The sampling temperature, as the server defines it.
        top_p: Nucleus sampling, as the server defines it.
        top_k: Top-k sampling, as the server defines it.
        min_p: Min-p sampling, as the server defines it.
        seed: A seed for repeatable sampling, if the server supports it.
        frequency_penalty: From -2 to 2, 0 for none.
        presence_penalty: From -2 to 2, 0 for none.
        repetition_penalty: A factor, 1 for none.
        stop_sequences: Texts that end the answer and are not part of it.
        logprobs: Return the log-probability of each generated token. False is accepted everywhere.
        top_logprobs: The number of likely alternatives to return for each token; requires ``logprobs``.
        reasoning_effort: How much the model should reason, ``"none"`` for not at all. Models differ in its effect.
        reasoning_budget: The maximum of reasoning tokens. Models differ in its effect.
        response_format: A :class:`JSONObjectFormat`, :class:`JSONSchemaFormat`, :class:`RegexFormat`,
            :class:`ChoiceFormat` or :class:`GrammarFormat`; a Python type, for its JSON Schema; or a dict in OpenAI's
            form, such as ``{"type": "json_object"}``.
        tools: :class:`Tool` values, typed Python functions, or dicts in OpenAI's or Anthropic's form.
        tool_choice: ``"auto"``, ``"none"``, ``"required"``, a :class:`NamedTool`, or a dict in OpenAI's or Anthropic's
            form.
        parallel_tool_calls: False for at most one call per response; True is accepted everywhere. Only sent with tools.
        extra_body: More top-level members of the request body, sent unchanged, for options that are not listed here.
    """

    tools: ToolForms


_NUMBERS = ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")
_MINIMUMS = {"max_tokens": 1, "top_k": 0, "seed": -math.inf, "top_logprobs": 0, "reasoning_budget": 0}
_NUMBER_TYPES = (float, int)
"""The usual types: ``isinstance()`` with a union takes 0.2 µs for each option."""
_CHOICES = (None, "auto", "none", "required")


def _check_number(name: str, value: Any) -> None:
    if type(value) not in _NUMBER_TYPES and (isinstance(value, bool) or not isinstance(value, int | float)):
        raise TypeError(f"{name} must be a number: {value!r:.80}")
    if not abs(value) < math.inf:
        raise ValueError(f"{name} must be a finite number: {value}")


def _check_integer(name: str, value: Any) -> None:
    if type(value) is not int and (isinstance(value, bool) or not isinstance(value, int)):
        raise TypeError(f"{name} must be an integer: {value!r:.80}")
    if value < _MINIMUMS[name]:
        raise ValueError(f"{name} must be at least {_MINIMUMS[name]}: {value}")


def _check_flag(name: str, value: object) -> None:
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False: {value!r:.80}")


def _check_effort(name: str, value: object) -> None:
    if value not in _EFFORTS:
        kind = ValueError if isinstance(value, str) else TypeError
        raise kind(f"unknown {name}: {value!r:.80}; use one of {', '.join(_EFFORTS)}")


def _check_response_format(name: str, value: object) -> None:
    if not isinstance(value, RESPONSE_FORMATS):
        raise TypeError(f"not a {name}: {value!r:.80}; pass other forms to complete()")


def _check_mapping(name: str, value: object) -> None:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict: {value!r:.80}")


_CHECKS: Mapping[str, Callable[[str, object], None]] = {
    **dict.fromkeys(_NUMBERS, _check_number),
    **dict.fromkeys(_MINIMUMS, _check_integer),
    **dict.fromkeys(("logprobs", "parallel_tool_calls"), _check_flag),
    "reasoning_effort": _check_effort,
    "response_format": _check_response_format,
    "extra_body": _check_mapping,
}
_CHECKED = tuple(_CHECKS)
_get_checked = operator.attrgetter(*_CHECKED)
_is_set = functools.partial(operator.is_not, None)


def set_fields(names: Sequence[str], values: Sequence[Any]) -> list[tuple[str, Any]]:
    """Return the pairs of name and value whose value is not None.

    It runs in C, since a loop over all options is 6 % of the instructions of a request (``nox -s guard``).
    """
    return list(itertools.compress(zip(names, values, strict=True), map(_is_set, values)))


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A chat request, independent of any wire format. The fields are those of :class:`ChatOptions`.

    Raises:
        ValueError: A value is invalid on every server.
        TypeError: A value has the wrong type.
    """

    messages: tuple[Message, ...]
    model: str
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    stop_sequences: tuple[str, ...] = ()
    logprobs: bool | None = None
    top_logprobs: int | None = None
    reasoning_effort: ReasoningEffort | None = None
    reasoning_budget: int | None = None
    response_format: ResponseFormat | None = None
    tools: tuple[Tool, ...] = ()
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    extra_body: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        if type(self.messages) is not tuple:
            msgspec.structs.force_setattr(self, "messages", _to_tuple(self.messages, "messages"))
        if type(self.stop_sequences) is not tuple:
            msgspec.structs.force_setattr(self, "stop_sequences", _to_strings(self.stop_sequences, "stop_sequences"))
        if not isinstance(self.model, str):
            raise TypeError(f"model must be a string, not {type(self.model).__name__}")
        # One pass over the fields that are set: a validator per field would run for every request.
        for name, value in set_fields(_CHECKED, _get_checked(self)):
            _CHECKS[name](name, value)
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs requires logprobs=True")
        if self.tools or self.tool_choice is not None or self.parallel_tool_calls is not None or self.tools is None:
            self._check_tools()

    def _check_tools(self) -> None:
        if type(self.tools) is not tuple:
            msgspec.structs.force_setattr(self, "tools", _to_tuple(self.tools or (), "tools"))
        for index, tool in enumerate(self.tools):
            if not isinstance(tool, Tool):
                raise TypeError(f"tools[{index}] must be a Tool: {tool!r:.80}; pass other forms to complete()")
        names = [tool.name for tool in self.tools]
        if len(set(names)) != len(names):
            raise ValueError(f"duplicate tool name: {', '.join(names)}")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.name not in names:
            raise ValueError(f"unknown tool in tool_choice: {self.tool_choice.name!r}; pass it in tools")
        if self.tool_choice == "required" and not names:
            raise ValueError("tool_choice is required; pass tools")
        if not isinstance(self.tool_choice, NamedTool) and self.tool_choice not in _CHOICES:
            raise ValueError(f"invalid tool_choice: {self.tool_choice!r}; use auto, none, required or a NamedTool")
        if not names:  # without tools it has no meaning, and servers reject it
            msgspec.structs.force_setattr(self, "parallel_tool_calls", None)


def _to_tuple(values: Any, name: str) -> tuple[Any, ...]:
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a list, not {type(values).__name__}")
    return tuple(values)
