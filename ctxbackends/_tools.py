"""Typed Python functions as tools: the schema of their signature, and the arguments of a call as Python values."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, NotRequired, TypedDict, cast, get_type_hints

from ctxbackends._chat.messages import ToolCall
from ctxbackends._chat.requests import Tool
from ctxbackends._schema.generate import schema_for
from ctxbackends._schema.validate import decode_as
from ctxbackends.errors import StructuredOutputError

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # allowed by OpenAI and Anthropic


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
        raise TypeError(f"not a valid tool name: {tool_name!r}; pass name= with up to 64 letters, digits, _ and -")
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


def build_tools(tools: Sequence[Tool | Callable[..., Any]]) -> tuple[Tool, ...]:
    """Return each tool as a Tool."""
    return tuple(tool if isinstance(tool, Tool) else tool_of(tool) for tool in tools)


def arguments_of(tool: Tool, call: ToolCall) -> dict[str, Any]:
    """Return the arguments of a call as keyword arguments for ``tool.function``, checked against its types.

    Args:
        tool: The tool, from :func:`tool_of`.
        call: The call that the model made.

    Raises:
        StructuredOutputError: The arguments do not match the types; see ``pointer`` of the error.
        TypeError: ``tool`` was created from a schema and has no function.
        ValueError: ``call`` is a call of another tool.
    """
    if tool.function is None:
        raise TypeError(f"the tool {tool.name} was created from a schema and has no types to check; use json.loads")
    if call.name != tool.name:
        raise ValueError(f"the call is for the tool {call.name}, not {tool.name}")
    arguments = dict(decode_as(_build_arguments_type(tool.function, tool.name), call.arguments or "{}"))
    unknown = set(decode_as(dict[str, Any], call.arguments or "{}")) - set(arguments)
    if unknown:
        raise StructuredOutputError(
            f"the call of {tool.name} has unknown arguments: {', '.join(sorted(unknown))}",
            text=call.arguments,
        )
    return arguments


def _summarize(function: Callable[..., Any]) -> str:
    paragraph = (inspect.getdoc(function) or "").split("\n\n")[0]
    return " ".join(paragraph.split())


def _list_parameters(function: Callable[..., Any], name: str) -> list[inspect.Parameter]:
    parameters = list(inspect.signature(function).parameters.values())
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
    return cast(type[dict[str, Any]], TypedDict(name, fields))  # type: ignore[operator]  # created at run time
