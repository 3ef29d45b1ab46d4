# pyright: reportUnnecessaryTypeIgnoreComment=true
"""Tools, and the loop that runs them."""

from __future__ import annotations

from typing import Any, assert_type

from ctxbackends import (
    Backend,
    Completion,
    Message,
    Tool,
    ToolCall,
    ToolRequest,
    ToolRound,
    ToolRun,
    ToolStream,
    Usage,
    arguments_of,
    run_tools,
    stream_tools,
    tool_of,
)


def add(a: int, b: int) -> int:
    return a + b


async def look_up(word: str) -> str:
    return word


def approve(request: ToolRequest) -> bool:
    return assert_type(request.tool, Tool).name == "add"


async def approve_later(request: ToolRequest) -> bool:
    return assert_type(request.call, ToolCall).name == "add"


def check_tool(call: ToolCall) -> None:
    tool = tool_of(add, name="sum")
    assert_type(tool, Tool)
    assert_type(arguments_of(tool, call), dict[str, Any])
    tool_of("add")  # type: ignore[arg-type]


async def check_run(backend: Backend) -> None:
    run = await run_tools(backend, "1 + 2?", [add, look_up, tool_of(add)], approve=approve)
    assert_type(run, ToolRun)
    assert_type(run.completion, Completion)
    assert_type(run.messages, tuple[Message, ...])
    assert_type(run.rounds, tuple[ToolRound, ...])
    assert_type(run.usage, Usage | None)
    await run_tools(backend, run.messages, [add], approve=approve_later, max_rounds=3)
    await run_tools(backend, "1 + 2?", [add], on_tool_error="ignore")  # type: ignore[arg-type]
    await run_tools(backend, "1 + 2?", [add], tools=[add])  # type: ignore[misc]


async def check_stream(backend: Backend) -> None:
    async with stream_tools(backend, "1 + 2?", [add]) as stream:
        assert_type(stream, ToolStream)
        assert_type(await stream.get_result(), ToolRun)


async def check_one_call(backend: Backend) -> None:
    completion = await backend.complete("1 + 2?", tools=[add], tool_choice="required")
    assert_type(completion.tool_calls[0].arguments, str)
