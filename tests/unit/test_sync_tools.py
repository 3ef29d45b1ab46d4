"""Tool loops of ctxbackends.sync."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from ctxbackends import RoundStart, TextDelta, ToolCall, ToolRequest, ToolRoundsError, ToolRun, sync
from ctxbackends._chat.tool_runs import ToolEvent
from ctxbackends.testing import Answer, OpenAIStandIn, Question


def add(a: int, b: int) -> int:
    """Return the sum of two numbers."""
    return a + b


def answer(question: Question) -> Answer:
    if question.tool_results:
        return Answer(text=f"The sum is {question.tool_results[-1].text}.")
    return Answer(tool_calls=(ToolCall("call_1", "add", '{"a": 2, "b": 3}'),))


@pytest.fixture
async def url() -> AsyncIterator[str]:
    async with OpenAIStandIn(answer=answer) as stand_in:
        yield stand_in.url


async def test_run_tools(url: str) -> None:
    threads: dict[str, int] = {}
    events: list[ToolEvent] = []

    def approve(request: ToolRequest) -> bool:
        threads["approve"] = threading.get_ident()
        return request.arguments == {"a": 2, "b": 3}

    def record(event: ToolEvent) -> None:
        threads["on_event"] = threading.get_ident()
        events.append(event)

    def ask() -> ToolRun:
        threads["caller"] = threading.get_ident()
        with sync.open_backend("openai", endpoint=url, api_key="k", default_model="gpt-4.1-mini") as backend:
            return sync.run_tools(backend, "2 + 3?", [add], approve=approve, on_event=record)

    run = await asyncio.to_thread(ask)
    assert "The sum is 5." == run.completion.text
    names = [type(event).__name__ for event in events]
    assert ["RoundStart", "ToolStart", "ToolEnd", "RoundEnd", "RoundStart", "RoundEnd"] == names
    assert threads["caller"] == threads["on_event"]
    assert threads["approve"] not in (threads["caller"], threading.get_ident())


async def test_a_call_that_is_not_approved(url: str) -> None:
    async def refuse(request: ToolRequest) -> bool:
        return request.tool.name != "add"

    def ask() -> ToolRun:
        with sync.open_backend("openai", endpoint=url, api_key="k", default_model="gpt-4.1-mini") as backend:
            return sync.run_tools(backend, "2 + 3?", [add], approve=refuse)

    run = await asyncio.to_thread(ask)
    assert [True] == [outcome.result.is_error for round_ in run.rounds for outcome in round_.outcomes]


async def test_stream_tools(url: str) -> None:
    def ask() -> list[object]:
        with sync.open_backend("openai", endpoint=url, api_key="k", default_model="gpt-4.1-mini") as backend:
            with sync.stream_tools(backend, "2 + 3?", [add]) as stream:
                items: list[object] = list(stream)
                assert items[-1] == stream.get_result()
            return items

    items = await asyncio.to_thread(ask)
    assert [1, 2] == [item.number for item in items if isinstance(item, RoundStart)]
    assert "The sum is 5." == "".join(item.text for item in items if isinstance(item, TextDelta))
    assert isinstance(items[-1], ToolRun)


@pytest.mark.parametrize("function", [sync.run_tools, sync.stream_tools])
async def test_errors(url: str, function: object) -> None:
    def ask() -> None:
        with sync.open_backend("openai", endpoint=url, api_key="k", default_model="gpt-4.1-mini") as backend:
            if function is sync.run_tools:
                sync.run_tools(backend, "2 + 3?", [add], max_rounds=1)
            else:
                with sync.stream_tools(backend, "2 + 3?", [add], max_rounds=1) as stream:
                    list(stream)

    with pytest.raises(ToolRoundsError) as exc_info:
        await asyncio.to_thread(ask)
    assert ["user", "assistant", "tool"] == [message.role for message in exc_info.value.messages]
