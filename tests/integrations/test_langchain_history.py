"""The LangChain adapter: a message of the model goes back unmodified in the next turn, also after JSON."""

from __future__ import annotations

import json
from typing import Any, cast

import msgspec
import pytest

pytest.importorskip("langchain_core", reason="the extra langchain is not installed")

from langchain_core.messages import AIMessage, HumanMessage, ToolMessage, message_to_dict, messages_from_dict

from ctxbackends import Completion, OpaquePart, ReasoningPart, TextPart, ToolCall, WireAPI
from ctxbackends.integrations._langchain.messages import to_ai_message, to_messages
from ctxbackends.testing import Answer, Question
from ctxbackends.testing._stand_ins.anthropic_checks import redacted, signature_of
from ctxbackends.testing._stand_ins.questions import read_question
from tests.integrations.langchain_models import (
    CALLED,
    WIRES,
    Way,
    ask,
    both_ways,
    get_time,
    get_weather,
    model_over,
    send,
)


def look_up(question: Question) -> Answer:
    if question.tool_results:
        return Answer(text="Noon.", reasoning="It is known now.")
    return Answer(reasoning="I need the time.", text="I look.", tool_calls=[("get_time", {"city": "Oslo"})])


def store(message: AIMessage) -> AIMessage:
    """Return the message after a way through JSON, as checkpoints store it."""
    (restored,) = messages_from_dict(json.loads(json.dumps([message_to_dict(message)])))
    return cast("AIMessage", restored)


@both_ways
@pytest.mark.parametrize("output_version", [None, "v1"])
async def test_signed_reasoning_goes_back_in_a_tool_loop(way: Way, output_version: str | None) -> None:
    options = {"reasoning_budget": 1024, "max_tokens": 2048, "output_version": output_version}
    async with model_over("anthropic", look_up, **options) as (model, server):
        with_tools = model.bind_tools([get_time])
        first = store(await ask(with_tools, "time?", way))
        result = ToolMessage("noon", tool_call_id=first.tool_calls[0]["id"])
        answer = await ask(with_tools, [HumanMessage("time?"), first, result], way)
    assert "Noon." == answer.text
    thinking, text, call = server.requests[1].json["messages"][1]["content"]
    assert ("thinking", "I need the time.") == (thinking["type"], thinking["thinking"])
    assert thinking["signature"]  # the stand-in verifies it
    assert ("I look.", "get_time") == (text["text"], call["name"])


async def test_reasoning_of_local_servers_goes_back() -> None:
    async with model_over("ollama", look_up, reasoning_effort="low") as (model, server):
        with_tools = model.bind_tools([get_time])
        first = store(await ask(with_tools, "time?"))
        result = ToolMessage("noon", tool_call_id=first.tool_calls[0]["id"])
        await ask(with_tools, [HumanMessage("time?"), first, result])
    assert "I need the time." == server.requests[1].json["messages"][1]["thinking"]


@pytest.mark.parametrize("wire", ["anthropic", "ollama"])
async def test_changes_of_a_program_are_sent(wire: str) -> None:
    thinks: dict[str, dict[str, Any]] = {
        "anthropic": {"reasoning_budget": 1024, "max_tokens": 2048},
        "ollama": {"reasoning_effort": "low"},
    }
    calls = [("get_time", {"city": "Oslo"}), ("get_weather", {"city": "Oslo"})]

    def answer(question: Question) -> Answer:
        return Answer(text="ok") if question.tool_results else Answer(reasoning="Hm.", text="I look.", tool_calls=calls)

    async with model_over(wire, answer, **thinks[wire]) as (model, server):
        with_tools = model.bind_tools([get_time, get_weather])
        first = await ask(with_tools, "time?")
        kept, _ = first.tool_calls
        first.tool_calls = [{**kept, "args": {"city": "Rome"}}]  # as a person approves calls
        first.content = "I look it up."
        await ask(with_tools, [HumanMessage("time?"), first, ToolMessage("noon", tool_call_id=kept["id"])])
        seen = read_question(WireAPI(WIRES[wire][2]), server.requests[1].json).messages[1]
    expected = [ReasoningPart, TextPart, ToolCall]
    assert expected == [type(part) for part in seen.parts]
    assert ("I look it up.", [("get_time", {"city": "Rome"})]) == (
        seen.text,
        [(call.name, json.loads(call.arguments)) for call in seen.tool_calls],
    )


async def test_reasoning_of_other_models_is_sent() -> None:
    theirs = AIMessage(
        [
            {"type": "reasoning", "reasoning": "Hm.", "extras": {"signature": signature_of("Hm.")}},
            {"type": "redacted_thinking", "data": redacted("secret")},
            {"type": "text", "text": "I look."},
            {"type": "tool_use", "id": "1", "name": "get_time", "input": {"city": "Oslo"}},
        ],
        tool_calls=CALLED.tool_calls,
    )
    prompt = [HumanMessage("time?"), theirs, ToolMessage("noon", tool_call_id="1")]
    _, seen, _ = await send(prompt, "anthropic", reasoning_budget=1024, max_tokens=2048)
    assert [ReasoningPart, ReasoningPart, TextPart, ToolCall] == [type(part) for part in seen.parts]


def test_a_plain_answer_is_stored_once() -> None:
    plain = Completion(text="Hello!", finish_reason="stop", requested_model="m", parts=(TextPart("Hello!"),))
    assert {} == to_ai_message(plain).additional_kwargs
    opaque = OpaquePart("chat_completions", '{"x":1}')
    answers = [
        changed(plain, parts=(TextPart("Hello!", opaque),)),
        changed(plain, parts=(opaque, TextPart("Hello!"))),
        changed(plain, parts=(ReasoningPart("Hm.", member="reasoning"), TextPart("Hello!")), reasoning="Hm."),
        changed(plain, parts=(ToolCall("1", "f", "{}", opaque),), text="", tool_calls=(ToolCall("1", "f", "{}"),)),
    ]
    for completion in answers:
        assert (completion.message,) == tuple(to_messages([store(to_ai_message(completion))], "error"))


def changed(completion: Completion, **changes: Any) -> Completion:
    return msgspec.structs.replace(completion, **changes)
