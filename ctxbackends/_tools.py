"""Typed Python functions as tools: their schema out of the signature, and a call's arguments back to Python values.
Calls nothing and knows no server."""

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

_NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")  # what OpenAI and Anthropic take


def tool_of(
    function: Callable[..., Any], *, name: str | None = None, description: str | None = None, strict: bool = True
) -> Tool:
    """A tool out of a function whose parameters are typed.

    The name is the function's, the description the first paragraph of its docstring; ``Annotated[str,
    msgspec.Meta(description=...)]`` describes a parameter. With ``strict`` the server is asked to hold the arguments to
    the schema, and the model has to give every one; without it, parameters that have a default may be left out.

    Raises TypeError for a parameter without a type, for ``*args`` and ``**kwargs``, and for what JSON cannot hold.
    """
    tool_name = name or str(getattr(function, "__name__", ""))
    if not _NAME.fullmatch(tool_name):
        raise TypeError(f"{tool_name!r} is no name for a tool: letters, digits, _ and -, up to 64 of them; pass name=")
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
    """Each as a Tool."""
    return tuple(tool if isinstance(tool, Tool) else tool_of(tool) for tool in tools)


def arguments_of(tool: Tool, call: ToolCall) -> dict[str, Any]:
    """The arguments of ``call`` as keyword arguments for ``tool.function``, checked against its types.

    Raises StructuredOutputError, with the place of the fault, where the model wrote something else, and TypeError where
    ``tool`` was made from a schema and has no function.
    """
    if tool.function is None:
        raise TypeError(f"the tool {tool.name} was made from a schema, so there are no types to check; use json.loads")
    if call.name != tool.name:
        raise ValueError(f"this is a call of {call.name}, and not of {tool.name}")
    arguments = dict(decode_as(_build_arguments_type(tool.function, tool.name), call.arguments or "{}"))
    unknown = set(decode_as(dict[str, Any], call.arguments or "{}")) - set(arguments)
    if unknown:
        raise StructuredOutputError(
            f"the call of {tool.name} has arguments that it does not take: {', '.join(sorted(unknown))}",
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
            raise TypeError(f"the tool {name} cannot take {parameter}: its arguments are given by name")
    return parameters


def _build_arguments_type(function: Callable[..., Any], name: str) -> type[dict[str, Any]]:
    try:
        hints = get_type_hints(function, include_extras=True)
    except NameError as error:
        raise TypeError(f"a type of the tool {name} cannot be found: {error}") from error
    fields: dict[str, Any] = {}
    for parameter in _list_parameters(function, name):
        if parameter.name not in hints:
            raise TypeError(f"the parameter {parameter.name} of the tool {name} has no type")
        hint = hints[parameter.name]
        fields[parameter.name] = hint if parameter.default is parameter.empty else NotRequired[hint]
    return cast(type[dict[str, Any]], TypedDict(name, fields))  # type: ignore[operator]  # made at run time
