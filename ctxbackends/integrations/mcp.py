"""Tools of an MCP server for :func:`ctxbackends.run_tools` and ``complete``. Needs the extra ``mcp``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Awaitable, Callable, Collection, Mapping
from typing import Any

from ctxbackends._chat.messages import ToolCall, ToolResult
from ctxbackends._chat.requests import Tool
from ctxbackends._tool_results import build_result
from ctxbackends.integrations._common import require_extra

with require_extra("mcp"):
    from mcp import Client, ClientSession
    from mcp import Tool as MCPTool
    from mcp.types import CallToolResult, PaginatedRequestParams

__all__ = ("result_of", "tools_of")

_MAX_NAME = 64  # of the vendors; MCP allows 128 characters, and dots


async def tools_of(
    session: ClientSession | Client, *, prefix: str = "", call_timeout: float | None = None
) -> list[Tool]:
    """Return the tools of an MCP server, all pages of its list.

    A tool's function calls the server. It must run on the event loop of the session, while the session is open.

    Args:
        session: The client, or its session, which must be initialized.
        prefix: Text before each name, for servers that have tools of the same name: letters, digits, ``_`` and ``-``.
        call_timeout: Time for one call of a tool in seconds, None for the session's own.

    Returns:
        The tools in the server's order. Models get names of up to 64 letters, digits, ``_`` and ``-``; other characters
        of a name become ``_``, and a name that exists already gets a number.

    Raises:
        TypeError: ``session`` is not a client session.
        ValueError: ``prefix`` has other characters, or the server's list never ends.
        mcp.MCPError: The server does not list its tools.
    """
    if not isinstance(session, ClientSession | Client):
        raise TypeError(f"session must be an mcp.Client or ClientSession, not {type(session).__name__}")
    if not re.fullmatch(r"[a-zA-Z0-9_-]{0,32}", prefix):
        raise ValueError(f"invalid prefix: {prefix!r}; use up to 32 letters, digits, _ and -")
    listed = await _list_tools(session)
    names = _build_names([tool.name for tool in listed], prefix)
    return [_build_tool(session, tool, name, call_timeout) for tool, name in zip(listed, names, strict=True)]


def result_of(call: ToolCall, result: CallToolResult) -> ToolResult:
    """Return the result of an MCP tool as the result of a model's call, as :func:`ctxbackends.run_tools` sends it.

    Texts and images keep their order. Structured content is added as JSON if the texts do not have it already. Audio
    and binary data become a note, since models take neither from a tool. ``is_error`` is kept.

    Args:
        call: The call that the model made.
        result: The result from the MCP server.
    """
    return build_result(call, result)


async def _list_tools(session: ClientSession | Client) -> list[MCPTool]:
    tools: list[MCPTool] = []
    cursor: str | None = None
    cursors: set[str] = set()
    while True:
        if isinstance(session, Client):
            page = await session.list_tools(cursor=cursor)
        else:
            page = await session.list_tools(params=PaginatedRequestParams(cursor=cursor))
        tools += page.tools
        cursor = page.next_cursor
        if cursor is None:
            return tools
        if cursor in cursors:
            raise ValueError(f"the tools of the MCP server never end: it repeats the cursor {cursor!r:.80}")
        cursors.add(cursor)


def _build_names(names: Collection[str], prefix: str) -> list[str]:
    """Return unique names that models take. A name that needs no change is never taken by another tool."""
    taken = {prefix + name for name in names if _is_valid(prefix + name)}
    built: list[str] = []
    for name in names:
        candidate = prefix + name
        if not _is_valid(candidate) or candidate in built:
            candidate = _choose_name(re.sub(r"[^a-zA-Z0-9_-]", "_", candidate), taken)
            taken.add(candidate)
        built.append(candidate)
    return built


def _is_valid(name: str) -> bool:
    return re.fullmatch(rf"[a-zA-Z0-9_-]{{1,{_MAX_NAME}}}", name) is not None


def _choose_name(name: str, taken: Collection[str]) -> str:
    endings = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
    candidates = (f"{name[: _MAX_NAME - len(ending)]}{ending}" for ending in endings)
    return next(candidate for candidate in candidates if candidate and candidate not in taken)


def _build_tool(session: ClientSession | Client, tool: MCPTool, name: str, timeout: float | None) -> Tool:
    title = tool.title or (tool.annotations and tool.annotations.title)
    # OpenAI rejects an object without `properties`, which MCP allows.
    schema: Mapping[str, Any] = {"type": "object", "properties": {}, **tool.input_schema}
    return Tool(name, tool.description or title or "", schema, function=_build_function(session, tool.name, timeout))


def _build_function(
    session: ClientSession | Client, name: str, timeout: float | None
) -> Callable[..., Awaitable[CallToolResult]]:
    async def call(**arguments: Any) -> CallToolResult:
        return await session.call_tool(name, arguments, read_timeout_seconds=timeout)

    return call
