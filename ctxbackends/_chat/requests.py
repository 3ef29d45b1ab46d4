"""Requests: tools, response formats, options, and the whole chat request."""

from __future__ import annotations

import functools
import itertools
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypedDict

import attrs
import msgspec

from ctxbackends._chat.messages import Message

ReasoningEffort: TypeAlias = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


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
    """

    name: str
    schema: Mapping[str, Any]
    checked: bool = False


@attrs.frozen
class RegexFormat:
    """Ask for text that fully matches ``pattern``."""

    pattern: str


def _to_strings(values: Sequence[str], name: str) -> tuple[str, ...]:
    if isinstance(values, str):
        raise TypeError(f"{name} must be a list of strings: [{values!r}]")
    return tuple(values)


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


# --- requests -----------------------------------------------------------------------------------------


class ChatOptions(TypedDict, total=False):
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
        logprobs: Return the log-probability of each generated token.
        top_logprobs: The number of likely alternatives to return for each token; requires ``logprobs``.
        reasoning_effort: How much the model should reason, ``"none"`` for not at all. Models differ in its effect.
        reasoning_budget: The maximum of reasoning tokens. Models differ in its effect.
        response_format: A :class:`JSONObjectFormat`, :class:`JSONSchemaFormat`, :class:`RegexFormat`,
            :class:`ChoiceFormat` or :class:`GrammarFormat`.
        tools: :class:`Tool` values or typed Python functions.
        tool_choice: ``"auto"``, ``"none"``, ``"required"`` or a :class:`NamedTool`.
        parallel_tool_calls: False for at most one call per response.
        extra_body: More top-level members of the request body, sent unchanged, for options that are not listed here.
    """

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
    stop_sequences: Sequence[str]
    logprobs: bool | None
    top_logprobs: int | None
    reasoning_effort: ReasoningEffort | None
    reasoning_budget: int | None
    response_format: ResponseFormat | None
    tools: Sequence[Tool | Callable[..., Any]]
    tool_choice: ToolChoice | None
    parallel_tool_calls: bool | None
    extra_body: Mapping[str, Any] | None


_FINITE = ("temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty")
_MINIMUMS = {"max_tokens": 1, "top_k": 0, "top_logprobs": 0, "reasoning_budget": 0}
_NUMBERS = (*_FINITE, *_MINIMUMS)
_get_numbers = operator.attrgetter(*_NUMBERS)
_is_set = functools.partial(operator.is_not, None)
_CHOICES = (None, "auto", "none", "required")


def set_fields(names: Sequence[str], values: Sequence[Any]) -> list[tuple[str, Any]]:
    """Return the pairs of name and value whose value is not None.

    It runs in C, since a loop over all options is 6 % of the instructions of a request (``nox -s guard``).
    """
    return list(itertools.compress(zip(names, values, strict=True), map(_is_set, values)))


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A chat request, independent of any wire format. The fields are those of :class:`ChatOptions`.

    Raises:
        ValueError: A value is invalid on every server.
        TypeError: ``stop_sequences`` is a string.
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
        if type(self.stop_sequences) is not tuple:
            msgspec.structs.force_setattr(self, "stop_sequences", _to_strings(self.stop_sequences, "stop_sequences"))
        # One pass over the fields that are set: a validator per field would run for every request.
        for name, value in set_fields(_NUMBERS, _get_numbers(self)):
            self._check_number(name, value)
        if self.top_logprobs is not None and not self.logprobs:
            raise ValueError("top_logprobs requires logprobs=True")
        if self.tools or self.tool_choice is not None or self.parallel_tool_calls is not None:
            self._check_tools()

    def _check_number(self, name: str, value: float) -> None:
        minimum = _MINIMUMS.get(name)
        if minimum is None and not abs(value) < math.inf:
            raise ValueError(f"{name} must be a finite number: {value}")
        if minimum is not None and value < minimum:
            raise ValueError(f"{name} must be at least {minimum}: {value}")

    def _check_tools(self) -> None:
        names = [tool.name for tool in self.tools]
        if len(set(names)) != len(names):
            raise ValueError(f"duplicate tool name: {', '.join(names)}")
        if isinstance(self.tool_choice, NamedTool) and self.tool_choice.name not in names:
            raise ValueError(f"unknown tool in tool_choice: {self.tool_choice.name!r}; pass it in tools")
        if self.tool_choice == "required" and not names:
            raise ValueError("tool_choice is required; pass tools")
        if not isinstance(self.tool_choice, NamedTool) and self.tool_choice not in _CHOICES:
            raise ValueError(f"invalid tool_choice: {self.tool_choice!r}; use auto, none, required or a NamedTool")
        if self.parallel_tool_calls is not None and not names:
            raise ValueError("parallel_tool_calls requires tools")
