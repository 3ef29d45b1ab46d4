"""What the tests of the adapter for the OpenAI Agents SDK share: servers, runs, and the form of their events."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import attrs
import pytest

pytest.importorskip("agents", reason="needs the extra openai-agents: nox -s integrations")

from agents import Agent, ModelResponse, ModelSettings, ModelTracing, Runner, function_tool, set_tracing_disabled

from ctxbackends import Backend, open_backend
from ctxbackends.integrations.openai_agents import CtxModel
from ctxbackends.testing import (
    Answer,
    AnthropicStandIn,
    FaultServer,
    LMStudioStandIn,
    OllamaStandIn,
    OpenAIStandIn,
    Question,
)

set_tracing_disabled(True)  # the SDK would send traces to OpenAI


@attrs.frozen
class Wire:
    """A server, and the way to speak to it."""

    type: str
    model: str
    stand_in: Callable[..., Any]
    wire_api: str | None = None

    def __str__(self) -> str:
        return f"{self.type}-{self.wire_api or 'default'}"


OPENAI = Wire("openai", "gpt-5-mini", OpenAIStandIn)
ANTHROPIC = Wire("anthropic", "claude-sonnet-4-5", AnthropicStandIn)
LMSTUDIO = Wire("lmstudio", "qwen/qwen3-4b", LMStudioStandIn, "chat_completions")
WIRES = (
    OPENAI,
    ANTHROPIC,
    Wire("ollama", "qwen3:4b", OllamaStandIn),
    Wire("ollama", "qwen3:4b", OllamaStandIn, "messages"),
    Wire("ollama", "qwen3:4b", OllamaStandIn, "chat_completions"),
    LMSTUDIO,
    Wire("lmstudio", "qwen/qwen3-4b", LMStudioStandIn, "messages"),
)
on_all_wires = pytest.mark.parametrize("wire", WIRES, ids=str)
AnswerFunction = Callable[[Question], Answer]


@asynccontextmanager
async def serve(wire: Wire, answer: AnswerFunction, **settings: Any) -> AsyncIterator[tuple[Backend, Any]]:
    """A stand-in with these answers, and a backend for it."""
    async with (
        wire.stand_in(answer=answer) as server,
        open_backend(
            wire.type,
            name="b",
            endpoint=server.url,
            api_key="sk-none",
            default_model=wire.model,
            wire_api=wire.wire_api,
            **settings,
        ) as backend,
    ):
        yield backend, server


@function_tool
def weather(city: str) -> str:
    """Return the weather."""
    return f"sunny in {city}"


def ask_for_two_cities(question: Question) -> Answer:
    if question.tool_results:
        return Answer(text=" and ".join(result.text for result in question.tool_results))
    return Answer(tool_calls=[("weather", {"city": "Paris"}), ("weather", {"city": "Rome"})])


def say(text: str, **members: Any) -> AnswerFunction:
    return lambda _: Answer(text=text, **members)


async def run(agent: Agent[Any], prompt: Any = "Hi", *, stream: bool, **options: Any) -> tuple[Any, list[Any]]:
    """Run the agent, and return the result and the events."""
    if not stream:
        return await Runner.run(agent, prompt, **options), []
    result = Runner.run_streamed(agent, prompt, **options)
    return result, [event async for event in result.stream_events()]


def describe(events: list[Any]) -> list[Any]:
    """Return the type of each event, and the text or arguments of the deltas."""
    return [
        (event.data.type, getattr(event.data, "delta", None)) if event.type == "raw_response_event" else event.name
        for event in events
        if event.type != "agent_updated_stream_event"
    ]


def list_calls(items: list[Any]) -> list[tuple[str, str]]:
    return [(item["call_id"], item["arguments"]) for item in items if item.get("type") == "function_call"]


streamed_or_not = pytest.mark.parametrize("stream", [False, True], ids=["run", "run_streamed"])


async def get_response(model: CtxModel, *, stream: bool) -> Any:
    arguments: dict[str, Any] = {
        "system_instructions": None,
        "input": "Hi",
        "model_settings": ModelSettings(),
        "tools": [],
        "output_schema": None,
        "handoffs": [],
        "tracing": ModelTracing.DISABLED,
        "previous_response_id": None,
        "conversation_id": None,
        "prompt": None,
    }
    if not stream:
        response = await model.get_response(**arguments)
        assert isinstance(response, ModelResponse)
        return response
    events = [event async for event in model.stream_response(**arguments)]
    assert "response.completed" == events[-1].type
    return events[-1].response


@asynccontextmanager
async def serve_faults(*scripts: Any, **settings: Any) -> AsyncIterator[tuple[Backend, FaultServer]]:
    async with FaultServer() as server:
        server.play(*scripts)
        async with open_backend("vllm", endpoint=server.url, default_model="m", **settings) as backend:
            yield backend, server
