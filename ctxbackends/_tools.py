"""Typed Python functions as tools: the schema of their signature, and the arguments of a call."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, NotRequired, TypedDict, cast, get_type_hints

from ctxbackends._chat.members import Members
from ctxbackends._chat.messages import ToolCall
from ctxbackends._chat.requests import NamedTool, Tool
from ctxbackends._schema.check import check_structure
from ctxbackends._schema.generate import schema_for
from ctxbackends._schema.validate import decode_as
from ctxbackends.errors import StructuredOutputError

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # allowed by OpenAI and Anthropic
_NAME_HINT = "use up to 64 letters, digits, _ and -"


def tool_of(
    function: Callable[..., Any], *, name: str | None = None, description: str | None = None, strict: bool = True
) -> Tool:
    """Return a tool for a function with typed parameters.

    ``Annotated[str, msgspec.Meta(description=...)]`` describes a parameter.

    Args:
        function: The function that the tool calls.
        name: The tool's name, None for the function's.
        description: The tool's description, None for the first paragraph of the docstring.
        strict: Ask the server to enforce the schema. The model must then pass every argument; otherwise, it may omit
            those with a default.

    Raises:
        TypeError: A parameter has no type or one without a JSON schema, is positional-only, or is ``*args`` or
            ``**kwargs``; or the name is not valid.
    """
    tool_name = name or str(getattr(function, "__name__", ""))
    if not _NAME.fullmatch(tool_name):
        raise TypeError(f"not a valid tool name: {tool_name!r}; pass name= with {_NAME_HINT.removeprefix('use ')}")
    text = description if description is not None else _summarize(function)
    schema = schema_for(_build_arguments_type(function, tool_name))
    schema.pop("title", None)
    if not strict:
        schema["required"] = [
            parameter.name
            for parameter in _list_parameters(function, tool_name)
            if parameter.default is parameter.empty
        ]
    return Tool(tool_name, text, schema, strict, function)


# --- the forms of tools and of the choice among them -----------------------------------------------------

_NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}}
_TOOL_HINTS = {
    "cache_control": "pass cache_control in extra_body, and remove it here",
    "inputSchema": "use input_schema",
}
_CHOICES = {"auto": "auto", "none": "none", "any": "required", "required": "required"}


def build_tools(tools: Sequence[Tool | Callable[..., Any] | Mapping[str, Any]] | None) -> tuple[Tool, ...]:
    """Return each tool as a Tool.

    Raises:
        TypeError: A tool is none of the forms.
        ValueError: A dict has a member that is unknown or not supported.
    """
    if tools is None:
        return ()
    if isinstance(tools, str | bytes | Mapping) or not isinstance(tools, Iterable):
        raise TypeError(f"tools must be a list, not {type(tools).__name__}")
    return tuple(tool if isinstance(tool, Tool) else _build_tool(tool, index) for index, tool in enumerate(tools))


def _build_tool(tool: object, index: int) -> Tool:
    place = f"tools[{index}]"
    if isinstance(tool, Mapping):
        return _parse_tool(Members(tool, place))
    if not callable(tool):
        raise TypeError(f"{place} is not a tool: {tool!r:.80}; pass a Tool, a function or a dict")
    return tool_of(tool)


def _parse_tool(members: Members) -> Tool:
    """Return the tool of a dict in the form of OpenAI, flat or nested, or of Anthropic."""
    kind = members.optional("type", str)
    if kind not in (None, "function", "custom"):
        place = members.path("type")
        raise ValueError(f"unsupported value: {place} is {kind!r:.80}; pass tools that the server runs in extra_body")
    if "function" in members:
        function = members.object("function")
        members.finish(_TOOL_HINTS)
        members = function
    name = members.require("name", str)
    if not _NAME.fullmatch(name):
        raise ValueError(f"not a valid tool name: {members.path('name')} is {name!r:.80}; {_NAME_HINT}")
    description = members.optional("description", str) or ""
    member = "input_schema" if "input_schema" in members else "parameters"
    parameters: Any = members.optional(member, Mapping)
    strict = members.optional("strict", bool)
    members.finish(_TOOL_HINTS)
    return Tool(name, description, _NO_PARAMETERS if parameters is None else parameters, bool(strict))


def build_tool_choice(choice: Any, parallel_tool_calls: bool | None) -> dict[str, Any]:
    """Return the options ``tool_choice`` and ``parallel_tool_calls`` for a choice in any form.

    Raises:
        TypeError: The choice is none of the forms.
        ValueError: A dict has a member that is unknown or not supported, or contradicts ``parallel_tool_calls``.
    """
    options = {"tool_choice": choice, "parallel_tool_calls": parallel_tool_calls}
    if choice is None or isinstance(choice, str | NamedTool):
        return options
    if not isinstance(choice, Mapping):
        raise TypeError(f"not a tool_choice: {choice!r:.80}; use auto, none, required, a NamedTool or a dict")
    members = Members(choice, "tool_choice")
    kind = members.select("type", (*_CHOICES, "function", "tool"))
    if kind in _CHOICES:
        options["tool_choice"] = _CHOICES[kind]
    else:
        inner = members.object("function") if kind == "function" and "function" in members else members
        options["tool_choice"] = NamedTool(inner.require("name", str))
        inner.finish()
    single = members.optional("disable_parallel_tool_use", bool)
    members.finish()
    if single is not None:
        if parallel_tool_calls is single:
            raise ValueError("tool_choice.disable_parallel_tool_use contradicts parallel_tool_calls; remove one")
        options["parallel_tool_calls"] = not single
    return options


# --- arguments of a call ----------------------------------------------------------------------------------


def arguments_of(tool: Tool, call: ToolCall) -> dict[str, Any]:
    """Return the arguments of a call as keyword arguments for the tool's function.

    For a tool from :func:`tool_of`, they are checked against the types of the function and converted to them. For a
    tool from a schema, which has no function or one with ``**arguments``, they are JSON values, checked for their
    types, missing and unknown members and fixed values. Check bounds and patterns in your function.

    Args:
        tool: The tool.
        call: The call that the model made.

    Raises:
        StructuredOutputError: The arguments are not valid; see ``pointer`` of the error.
        ValueError: ``call`` is a call of another tool.
    """
    if call.name != tool.name:
        raise ValueError(f"the call is for the tool {call.name}, not {tool.name}")
    text = call.arguments or "{}"
    values = decode_as(dict[str, Any], text)
    if tool.function is None or _takes_any(tool.function):
        _check_schema_arguments(tool, call, values)
        check_structure(tool.parameters, values, text=call.arguments)
        return values
    arguments = dict(decode_as(_build_arguments_type(tool.function, tool.name), text))
    _raise_for_unknown(call, set(values) - set(arguments))
    return arguments


def _check_schema_arguments(tool: Tool, call: ToolCall, values: Mapping[str, Any]) -> None:
    missing = [name for name in tool.parameters.get("required") or () if name not in values]
    if missing:
        raise StructuredOutputError(
            f"the call of {tool.name} lacks arguments: {', '.join(missing)}", text=call.arguments
        )
    is_closed = tool.parameters.get("additionalProperties") is False and "patternProperties" not in tool.parameters
    if is_closed:
        _raise_for_unknown(call, set(values) - set(tool.parameters.get("properties") or ()))


def _takes_any(function: Callable[..., Any]) -> bool:
    """Return whether the function has ``**arguments``, so that only the schema describes them."""
    return any(parameter.kind is parameter.VAR_KEYWORD for parameter in inspect.signature(function).parameters.values())


def _raise_for_unknown(call: ToolCall, unknown: Collection[str]) -> None:
    if unknown:
        raise StructuredOutputError(
            f"the call of {call.name} has unknown arguments: {', '.join(sorted(unknown))}", text=call.arguments
        )


def _summarize(function: Callable[..., Any]) -> str:
    paragraph = (inspect.getdoc(function) or "").split("\n\n")[0]
    return " ".join(paragraph.split())


def _list_parameters(function: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    try:
        parameters = list(inspect.signature(function).parameters.values())
    except ValueError:  # a built-in type, or a function in C
        raise TypeError(f"the tool {name} has no readable parameters; pass a function with typed parameters") from None
    for parameter in parameters:
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD, parameter.POSITIONAL_ONLY):
            raise TypeError(f"the tool {name} does not support {parameter}; use parameters that can be passed by name")
    return parameters


def _build_arguments_type(function: Callable[..., Any], name: str) -> type[dict[str, Any]]:
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(f"a type of the tool {name} is not defined: {error}") from error
    fields: dict[str, Any] = {}
    for parameter in _list_parameters(function, name):
        if parameter.name not in hints:
            raise TypeError(f"the parameter {parameter.name} of the tool {name} has no type; annotate it")
        hint = hints[parameter.name]
        fields[parameter.name] = hint if parameter.default is parameter.empty else NotRequired[hint]
    return cast("type[dict[str, Any]]", TypedDict(name, fields))  # type: ignore[operator]  # created at run time
