"""The stand-in for OpenAI, used by OpenAI's own client and held against its types: models and chat."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai.types import Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from ctxbackends.testing._stand_ins.openai_stand_in import OpenAIStandIn
from tests.stand_ins.openai_requests import CALL, CALLS, CLOCK, MODEL, WEATHER, post, user
from tests.stand_ins.validation import events, validate


class City(BaseModel):
    name: str
    rank: int


# --- models ---------------------------------------------------------------------------------------


async def test_models(openai_server: OpenAIStandIn, openai_client: openai.AsyncOpenAI) -> None:
    models = [model async for model in openai_client.models.list()]

    assert ["gpt-5-mini", "gpt-4.1-mini", "text-embedding-3-small"] == [model.id for model in models]
    for model in models:
        validate(Model, model.model_dump(exclude_unset=True))
    for name in (MODEL, f"{MODEL}-2025-08-07"):
        assert name == (await openai_client.models.retrieve(name)).id
    with pytest.raises(openai.NotFoundError) as exc_info:
        await openai_client.models.retrieve("gpt-0")
    assert "model_not_found" == exc_info.value.code


# --- chat -----------------------------------------------------------------------------------------


async def test_chat(openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.create(
        model=MODEL, messages=user("[[think]]one two[[/think]][[say]]Good morning![[/say]]"), seed=7
    )

    assert "Good morning!" == answer.choices[0].message.content
    assert "stop" == answer.choices[0].finish_reason
    assert "gpt-5-mini-2025-08-07" == answer.model
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")
    assert answer.system_fingerprint is not None
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert (4, 2) == (answer.usage.completion_tokens, answer.usage.completion_tokens_details.reasoning_tokens)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"logprobs": True, "top_logprobs": 2},
        {"tools": [WEATHER, CLOCK], "tool_choice": "required"},
        {"messages": user("[[refuse]]I will not.[[/refuse]]"), "logprobs": True},
        {"messages": user(CALLS), "tools": [WEATHER, CLOCK]},
        {"n": 2},
    ],
)
async def test_responses_match_the_vendors_types(openai_server: OpenAIStandIn, more: dict[str, Any]) -> None:
    body = {"model": MODEL, "messages": user("Hello"), **more}

    status, _, text = await post(openai_server, "/v1/chat/completions", body)
    assert 200 == status
    plain = validate(ChatCompletion, json.loads(text))

    status, headers, text = await post(
        openai_server, "/v1/chat/completions", {**body, "stream": True, "stream_options": {"include_usage": True}}
    )
    assert "text/event-stream; charset=utf-8" == headers["Content-Type"]
    *chunks, done = events(text)
    assert (None, "[DONE]") == done
    chunks_ = [validate(ChatCompletionChunk, json.loads(data)) for _, data in chunks]
    assert [] == chunks_[-1].choices
    assert plain.usage == chunks_[-1].usage
    assert all("usage" in json.loads(data) for _, data in chunks)
    assert {None} == {chunk.usage for chunk in chunks_[:-1]}
    assert 1 == len({chunk.id for chunk in chunks_})


async def test_stream_without_usage(openai_client: openai.AsyncOpenAI) -> None:
    stream = await openai_client.chat.completions.create(
        model=MODEL, messages=user("[[say]]a b c[[/say]]"), stream=True
    )
    chunks = [chunk async for chunk in stream]

    assert ["", "a ", "b ", "c", None] == [chunk.choices[0].delta.content for chunk in chunks]
    assert "assistant" == chunks[0].choices[0].delta.role
    assert "stop" == chunks[-1].choices[0].finish_reason
    assert {None} == {chunk.usage for chunk in chunks}
    assert all(chunk.obfuscation for chunk in chunks)


async def test_accumulating_helper(openai_client: openai.AsyncOpenAI) -> None:
    async with openai_client.chat.completions.stream(
        model=MODEL,
        messages=user(f"[[say]]Let me see.[[/say]]{CALLS}"),
        tools=[WEATHER, CLOCK],
        stream_options={"include_usage": True, "include_obfuscation": False},
    ) as stream:
        types = [event.type async for event in stream]
        answer = await stream.get_final_completion()

    assert "Let me see." == answer.choices[0].message.content
    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert [("weather", '{"city": "Oslo and Bergen"}'), ("clock", "{}")] == [
        (call.function.name, call.function.arguments) for call in calls
    ]
    assert 2 == len({call.id for call in calls})
    assert answer.usage is not None
    assert 4 <= types.count("tool_calls.function.arguments.delta")


async def test_tool_calls_are_streamed_in_pieces(openai_server: OpenAIStandIn) -> None:
    body = {"model": MODEL, "messages": user(CALLS), "tools": [WEATHER, CLOCK], "stream": True}
    _, _, text = await post(openai_server, "/v1/chat/completions", body)
    deltas = [
        call
        for _, data in events(text)[:-1]
        for choice in json.loads(data)["choices"]
        for call in choice["delta"].get("tool_calls", ())
    ]

    assert {"index": 0, "type": "function", "function": {"name": "weather", "arguments": ""}} == {
        name: value for name, value in deltas[0].items() if name != "id"
    }
    weather = [delta for delta in deltas if delta["index"] == 0]
    assert 3 < len(weather)
    assert all({"index", "function"} == set(delta) for delta in weather[1:])
    assert {0, 1} == {delta["index"] for delta in deltas}


@pytest.mark.parametrize(
    ("choice", "prompt", "names", "finish_reason"),
    [
        ("auto", "Hello", [], "stop"),
        ("auto", CALL, ["weather"], "tool_calls"),
        ("none", CALL, [], "stop"),
        ("required", "Hello", ["weather"], "tool_calls"),
        ({"type": "function", "function": {"name": "clock"}}, "Hello", ["clock"], "stop"),
        (
            {
                "type": "allowed_tools",
                "allowed_tools": {"mode": "required", "tools": [{"type": "function", "function": {"name": "clock"}}]},
            },
            "Hello",
            ["clock"],
            "tool_calls",
        ),
    ],
)
async def test_tool_choice(
    openai_client: openai.AsyncOpenAI, choice: Any, prompt: str, names: list[str], finish_reason: str
) -> None:
    answer = await openai_client.chat.completions.create(
        model=MODEL, messages=user(prompt), tools=[WEATHER, CLOCK], tool_choice=choice
    )

    calls: Any = answer.choices[0].message.tool_calls or []
    assert names == [call.function.name for call in calls]
    assert finish_reason == answer.choices[0].finish_reason


async def test_one_call_at_a_time(openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.create(
        model=MODEL, messages=user(CALLS), tools=[WEATHER, CLOCK], parallel_tool_calls=False
    )

    assert answer.choices[0].message.tool_calls is not None
    assert 1 == len(answer.choices[0].message.tool_calls)


async def test_a_tool_result_is_answered(openai_client: openai.AsyncOpenAI) -> None:
    messages = user(CALL)
    first = await openai_client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
    calls = first.choices[0].message.tool_calls
    assert calls is not None
    messages += [
        first.choices[0].message.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": calls[0].id, "content": "[[say]]It rains.[[/say]]"},
    ]
    second = await openai_client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])

    assert "It rains." == second.choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="did not have response messages: call_"):
        await openai_client.chat.completions.create(model=MODEL, messages=messages[:2], tools=[WEATHER])
    with pytest.raises(openai.BadRequestError, match="must be a response to a preceeding message"):
        await openai_client.chat.completions.create(model=MODEL, messages=[messages[0], messages[2]], tools=[WEATHER])


async def test_structured_output(openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.parse(model=MODEL, messages=user("A city"), response_format=City)
    assert City(name="x", rank=1) == answer.choices[0].message.parsed

    async with openai_client.chat.completions.stream(
        model=MODEL, messages=user('[[say]]{"name": "Oslo", "rank": 2}[[/say]]'), response_format=City
    ) as stream:
        final = await stream.get_final_completion()
    assert City(name="Oslo", rank=2) == final.choices[0].message.parsed

    rejection = await openai_client.chat.completions.parse(
        model=MODEL, messages=user("[[refuse]]I will not.[[/refuse]]"), response_format=City
    )
    assert (None, "I will not.") == (rejection.choices[0].message.parsed, rejection.choices[0].message.refusal)


async def test_parsed_tool_arguments(openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.parse(
        model=MODEL,
        messages=user('[[call]]{"name": "City", "arguments": {"name": "Oslo", "rank": 3}}[[/call]]'),
        tools=[openai.pydantic_function_tool(City)],
    )

    calls = answer.choices[0].message.tool_calls
    assert calls is not None
    assert City(name="Oslo", rank=3) == calls[0].function.parsed_arguments


async def test_any_object(openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.create(
        model=MODEL, messages=user("Some JSON"), response_format={"type": "json_object"}
    )

    assert "{}" == answer.choices[0].message.content


async def test_refusal_in_a_stream(openai_client: openai.AsyncOpenAI) -> None:
    async with openai_client.chat.completions.stream(
        model=MODEL, messages=user("[[refuse]]I will not.[[/refuse]]")
    ) as stream:
        types = [event.delta async for event in stream if event.type == "refusal.delta"]
        answer = await stream.get_final_completion()

    assert ["", "I ", "will ", "not."] == types
    assert (None, "I will not.") == (answer.choices[0].message.content, answer.choices[0].message.refusal)


async def test_endings(openai_client: openai.AsyncOpenAI) -> None:
    async def ending(text: str, **more: Any) -> tuple[str, str | None]:
        answer = await openai_client.chat.completions.create(model=MODEL, messages=user(text), **more)
        return answer.choices[0].finish_reason, answer.choices[0].message.content

    assert ("length", "a b ") == await ending("[[say]]a b c[[/say]]", max_completion_tokens=2)
    assert ("length", "") == await ending("[[think]]a b[[/think]][[say]]c[[/say]]", max_completion_tokens=2)
    assert ("stop", "a ") == await ending("[[say]]a END c[[/say]]", stop="END")
    assert ("stop", "a ") == await ending("[[say]]a END c[[/say]]", stop=["X", "END"])
    assert ("content_filter", "a") == await ending("[[filter]][[say]]a[[/say]]")


async def test_logprobs(openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.create(
        model=MODEL, messages=user("[[say]]a b[[/say]]"), logprobs=True, top_logprobs=2
    )

    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert ["a ", "b"] == [token.token for token in logprobs.content]
    assert [2, 2] == [len(token.top_logprobs) for token in logprobs.content]
    assert list(b"a ") == logprobs.content[0].bytes


async def test_a_prompt_is_cached(openai_client: openai.AsyncOpenAI) -> None:
    async def cached(text: str) -> int | None:
        answer = await openai_client.chat.completions.create(model=MODEL, messages=user(text))
        assert answer.usage is not None
        assert answer.usage.prompt_tokens_details is not None
        return answer.usage.prompt_tokens_details.cached_tokens

    assert 0 == await cached("word " * 1300 + "first")
    assert 1280 == await cached("word " * 1300 + "second")
    assert 0 == await cached("short")


async def test_images_are_accepted(openai_client: openai.AsyncOpenAI) -> None:
    parts: Any = [
        {"type": "text", "text": "[[say]]A cat.[[/say]]"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
    ]
    answer = await openai_client.chat.completions.create(model=MODEL, messages=[{"role": "user", "content": parts}])

    assert "A cat." == answer.choices[0].message.content
