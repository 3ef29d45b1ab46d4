"""``--tool MODULE:FUNCTION``: typed Python functions that the model may call."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import click

from ctxbackends._chat.requests import Tool


def load_tools(names: Iterable[str]) -> tuple[Tool, ...]:
    """Import the functions, from the working directory too, as ``python -m`` does.

    Raises:
        ClickException: A module or a function cannot be imported, or a function cannot be a tool.
    """
    tools = tuple(_load_tool(name) for name in names)
    seen: set[str] = set()
    for tool in tools:
        if tool.name in seen:
            raise click.ClickException(f"--tool: duplicate tool: {tool.name}")
        seen.add(tool.name)
    return tools


def _load_tool(name: str) -> Tool:
    from ctxbackends._tools import tool_of  # needed only with tools

    module_name, colon, path = name.partition(":")
    if not colon or not module_name or not path:
        raise click.UsageError(f"--tool: not MODULE:FUNCTION: {name!r}; write it as in 'package.module:function'")
    if module_name.endswith(".py") or "/" in module_name or "\\" in module_name:
        raise click.UsageError(f"--tool: {module_name} is a file; name its module: {_to_module(module_name)}:{path}")
    value: Any = _import(module_name, name)
    for attribute in path.split("."):
        if not hasattr(value, attribute):
            from ctxbackends._suggestions import find_similar  # needed only after a mistake

            similar = find_similar(attribute, (one for one in vars(value) if not one.startswith("_")))
            hint = f"; did you mean {similar}?" if similar else ""
            raise click.ClickException(f"--tool {name}: {module_name} has no {path}{hint}")
        value = getattr(value, attribute)
    if isinstance(value, Tool):
        if value.function is None:
            raise click.ClickException(f"--tool {name}: the tool has no function to run")
        return value
    if not callable(value):
        raise click.ClickException(f"--tool {name}: not a function: {type(value).__name__}")
    try:
        return tool_of(value)
    except TypeError as error:
        raise click.ClickException(f"--tool {name}: {error}") from None


def _to_module(file: str) -> str:
    return ".".join(Path(file).with_suffix("").parts).lstrip("./\\")


def _import(module: str, name: str) -> Any:
    if not {"", str(Path.cwd())} & set(sys.path):
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and (module == error.name or module.startswith(f"{error.name}.")):
            hint = f"; modules are looked for in {Path.cwd()} and in the environment of {sys.executable}"
            raise click.ClickException(f"--tool {name}: no module named {error.name}{hint}") from None
        raise click.ClickException(f"--tool {name}: {module} cannot be imported: {error}") from error
    except (Exception, SystemExit) as error:
        place = _find_place(error)
        problem = f"{type(error).__name__}: {error}"
        raise click.ClickException(f"--tool {name}: {module} cannot be imported: {problem}{place}") from error


def _find_place(error: BaseException) -> str:
    """Return the last line of the user's code that led to an error in an import."""
    if isinstance(error, SyntaxError):
        return ""  # the message has the line
    place, trace = "", error.__traceback__
    while trace is not None:
        file = trace.tb_frame.f_code.co_filename
        if not file.startswith("<") and file != __file__ and "importlib" not in file:
            place = f" ({file}, line {trace.tb_lineno})"
        trace = trace.tb_next
    return place
