"""Models of the LangChain adapter over stand-ins, one for each wire format."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable

from ctxbackends import BackendConfig, Message
from ctxbackends.integrations.langchain import ChatCtxbackends
from ctxbackends.testing import Answer, AnthropicStandIn, OllamaStandIn, OpenAIStandIn, Question
from ctxbackends.testing._stand_ins.stand_in import StandIn

Answering = Callable[[Question], Answer]
Way = Literal["invoke", "stream"]

WIRES: dict[str, tuple[type[StandIn], str, str]] = {
    "openai": (OpenAIStandIn, "gpt-4.1-mini", "chat_completions"),
    "anthropic": (AnthropicStandIn, "claude-haiku-4-5", "messages"),
    "ollama": (OllamaStandIn, "qwen3:4b", "ollama"),
    "ollama-chat": (OllamaStandIn, "qwen3:4b", "chat_completions"),
    "ollama-messages": (OllamaStandIn, "qwen3:4b", "messages"),
}
every_wire = pytest.mark.parametrize("wire", WIRES)
both_ways = pytest.mark.parametrize("way", ["invoke", "stream"])


def hello(_: Question) -> Answer:
    return Answer(text="Hello!")


@asynccontextmanager
async def model_over(
    wire: str, answer: Answering = hello, **options: Any
) -> AsyncIterator[tuple[ChatCtxbackends, StandIn]]:
    stand_in_type, model, wire_api = WIRES[wire]
    type_name = wire.partition("-")[0]
    async with stand_in_type(api_key="sk-none", answer=answer) as stand_in:
        config = BackendConfig(
            name=type_name,
            type=type_name,
            endpoint=stand_in.url,
            api_key="sk-none",
            default_model=model,
            wire_api=wire_api,
        )
        yield ChatCtxbackends(**{"backend": config, **options}), stand_in


async def ask(model: Runnable[Any, Any], prompt: Any, way: Way = "invoke", **options: Any) -> Any:
    if way == "invoke":
        return await model.ainvoke(prompt, **options)
    chunks = [chunk async for chunk in model.astream(prompt, **options)]
    full = chunks[0]
    for chunk in chunks[1:]:
        full += chunk
    return full


def get_time(city: str) -> str:
    """Tell the time."""
    return f"noon in {city}"


def get_weather(city: str) -> str:
    """Tell the weather."""
    return f"sun in {city}"


CALLED = AIMessage("", tool_calls=[{"id": "1", "name": "get_time", "args": {"city": "Oslo"}}])


async def send(messages: Sequence[BaseMessage], wire: str = "openai", **options: Any) -> tuple[Message, ...]:
    """Return the messages as a server receives them."""
    seen: list[Question] = []

    def answer(question: Question) -> Answer:
        seen.append(question)
        return Answer(text="ok")

    async with model_over(wire, answer, **options) as (model, _):
        await ask(model, messages)
    return seen[0].messages
