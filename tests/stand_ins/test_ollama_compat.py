"""The stand-in for Ollama, used by the clients of OpenAI and Anthropic: the layers that are compatible with theirs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import Message
from openai.types import CreateEmbeddingResponse
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from ctxbackends.testing._stand_ins.ollama_stand_in import OllamaStandIn
from tests.stand_ins.local_requests import CALL, PIXEL, WEATHER, ask, user
from tests.stand_ins.validation import events

MODEL = "qwen3:4b"
EMBEDDER = "nomic-embed-text"


class City(BaseModel):
    name: str


@pytest.fixture
async def server() -> AsyncIterator[OllamaStandIn]:
    async with OllamaStandIn(models=(MODEL, "gemma3", "nomic-embed-text:latest"), context_length=200) as running:
        yield running


@pytest.fixture
async def client(server: OllamaStandIn) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="ollama", base_url=f"{server.url}/v1", max_retries=0) as client_:
        yield client_


@pytest.fixture
async def anthropic_client(server: OllamaStandIn) -> AsyncIterator[anthropic.AsyncAnthropic]:
    async with anthropic.AsyncAnthropic(api_key="ollama", base_url=server.url, max_retries=0) as client_:
        yield client_


# --- for OpenAI's clients -------------------------------------------------------------------------


async def test_models(client: openai.AsyncOpenAI) -> None:
    names = [model.id async for model in client.models.list()]
    assert [MODEL, "gemma3:latest", "nomic-embed-text:latest"] == names
    assert ("library", MODEL) == ((await client.models.retrieve(MODEL)).owned_by, MODEL)
    with pytest.raises(openai.NotFoundError):
        await client.models.retrieve("qwen3")


async def test_chat(server: OllamaStandIn, client: openai.AsyncOpenAI) -> None:
    response = await client.chat.completions.create(
        model=MODEL, messages=user("[[think]]one two[[/think]][[say]]a b c[[/say]]"), max_tokens=2, stop="x"
    )
    choice = response.choices[0]
    assert ("a b ", "length", "fp_ollama") == (
        choice.message.content,
        choice.finish_reason,
        response.system_fingerprint,
    )
    assert {"reasoning": "one two"} == choice.message.model_extra
    assert response.usage is not None
    assert response.usage.total_tokens == response.usage.prompt_tokens + 4
    assert [(MODEL, 200)] == server.library.loads


async def test_ignored_options(client: openai.AsyncOpenAI) -> None:
    response = await client.chat.completions.create(
        model=MODEL,
        messages=user("[[say]]a b c[[/say]]"),
        max_completion_tokens=1,
        tools=[WEATHER],
        tool_choice="required",
    )
    assert ("a b c", None) == (response.choices[0].message.content, response.choices[0].message.tool_calls)


async def test_stream(client: openai.AsyncOpenAI) -> None:
    stream = await client.chat.completions.create(
        model=MODEL,
        messages=user("[[think]]so[[/think]][[say]]a b[[/say]]"),
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = [chunk async for chunk in stream]
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    assert ["", "a ", "b", ""] == [delta.content for delta in deltas]
    assert {"reasoning": "so"} == deltas[0].model_extra
    assert "stop" == chunks[-2].choices[0].finish_reason
    assert chunks[-1].usage is not None
    assert ([], 3) == (chunks[-1].choices, chunks[-1].usage.completion_tokens)


async def test_raw_stream(server: OllamaStandIn) -> None:
    body = {"model": MODEL, "messages": user(CALL), "tools": [WEATHER], "stream": True}
    status, kind, text = await ask(server, "/v1/chat/completions", body)

    assert (200, "text/event-stream") == (status, kind)
    events_ = events(text)
    assert (None, "[DONE]") == events_.pop()
    chunks = [ChatCompletionChunk.model_validate_json(data) for _, data in events_]
    [call] = chunks[0].choices[0].delta.tool_calls or []
    assert call.function is not None
    assert (0, "weather", '{"city":"Oslo","days":2}') == (call.index, call.function.name, call.function.arguments)
    assert ["tool_calls"] == [chunk.choices[0].finish_reason for chunk in chunks[1:]]


async def test_tools(client: openai.AsyncOpenAI) -> None:
    messages = user(CALL)
    response = await client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
    choice = response.choices[0]
    assert choice.message.tool_calls is not None
    [call] = choice.message.tool_calls
    assert isinstance(call, openai.types.chat.ChatCompletionMessageFunctionToolCall)
    assert ("tool_calls", {"city": "Oslo", "days": 2}) == (choice.finish_reason, json.loads(call.function.arguments))
    messages += [
        {**choice.message.to_dict(), "reasoning": "The weather is asked for."},
        {"role": "tool", "tool_call_id": call.id, "content": "[[say]]Rain.[[/say]]"},
    ]
    after = await client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])
    assert "Rain." == after.choices[0].message.content


async def test_formats(server: OllamaStandIn, client: openai.AsyncOpenAI) -> None:
    response = await client.chat.completions.parse(model=MODEL, messages=user("A city."), response_format=City)
    assert City(name="x") == response.choices[0].message.parsed
    body = {"model": MODEL, "messages": user("Any."), "response_format": {"type": "json_object"}}
    raw = ChatCompletion.model_validate_json((await ask(server, "/v1/chat/completions", body))[2])
    assert "{}" == raw.choices[0].message.content


async def test_images(client: openai.AsyncOpenAI) -> None:
    def seeing(url: str) -> list[Any]:
        parts = [{"type": "text", "text": "[[say]]A dot.[[/say]]"}, {"type": "image_url", "image_url": {"url": url}}]
        return [{"role": "user", "content": parts}]

    response = await client.chat.completions.create(model="gemma3", messages=seeing(f"data:image/png;base64,{PIXEL}"))
    assert "A dot." == response.choices[0].message.content
    with pytest.raises(openai.BadRequestError, match="invalid image input"):
        await client.chat.completions.create(model="gemma3", messages=seeing("https://example.com/dot.png"))


async def test_reasoning_effort(client: openai.AsyncOpenAI) -> None:
    messages = user("[[think]]so[[/think]]Hi")
    low = await client.chat.completions.create(model=MODEL, messages=messages, reasoning_effort="low")
    none = await client.chat.completions.create(model=MODEL, messages=messages, reasoning_effort="none")
    assert [{"reasoning": "so"}, {}] == [response.choices[0].message.model_extra for response in (low, none)]
    with pytest.raises(openai.BadRequestError, match="invalid reasoning value: 'minimal'"):
        await client.chat.completions.create(model=MODEL, messages=messages, reasoning_effort="minimal")


async def test_the_context_is_fixed_and_overflows_silently(server: OllamaStandIn, client: openai.AsyncOpenAI) -> None:
    response = await client.chat.completions.create(
        model=MODEL, messages=user("word " * 300), extra_body={"truncate": False, "options": {"num_ctx": 1000}}
    )
    assert response.usage is not None
    assert 200 == response.usage.prompt_tokens


@pytest.mark.parametrize(
    ("body", "status", "kind", "message"),
    [
        ({"model": "x"}, 404, "not_found_error", "model 'x' not found"),
        ({"messages": []}, 400, "invalid_request_error", "[] is too short - 'messages'"),
        (
            {"messages": user("[[busy]]")},
            503,
            "api_error",
            "server busy, please try again.  maximum pending requests exceeded",
        ),
        ({"messages": user("[[fail]]")}, 500, "api_error", "an error was encountered while running the model"),
        ({"messages": [{"role": "user"}]}, 400, "invalid_request_error", "invalid message content type: <nil>"),
        (
            {"messages": [{"role": "user", "content": [{"type": "file"}]}]},
            400,
            "invalid_request_error",
            "invalid message format",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "data:;base64,A"}]}]},
            400,
            "invalid_request_error",
            "invalid message format",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "a", "arguments": "{"}}]}
                ]
            },
            400,
            "invalid_request_error",
            "invalid tool call arguments",
        ),
    ],
)
async def test_errors(server: OllamaStandIn, body: dict[str, Any], status: int, kind: str, message: str) -> None:
    answer = await ask(server, "/v1/chat/completions", {"model": MODEL, "messages": user("Hi"), **body})
    error = {"message": message, "type": kind, "param": None, "code": None}
    assert (status, {"error": error}) == (answer[0], json.loads(answer[2]))


async def test_a_failure_in_mid_stream_ends_it_silently(server: OllamaStandIn) -> None:
    body = {"model": MODEL, "messages": user("[[fail]][[say]]a b[[/say]]"), "stream": True}
    events_ = [json.loads(data) for _, data in events((await ask(server, "/v1/chat/completions", body))[2])]
    assert ["a ", ""] == [chunk["choices"][0]["delta"]["content"] for chunk in events_]
    assert [None, None] == [chunk["choices"][0]["finish_reason"] for chunk in events_]


async def test_embeddings(server: OllamaStandIn, client: openai.AsyncOpenAI) -> None:
    base64_response = await client.embeddings.create(model=EMBEDDER, input=["a", "b"])
    plain = await client.embeddings.create(model=EMBEDDER, input=["a", "b"], encoding_format="float")
    assert [pytest.approx(entry.embedding, abs=1e-6) for entry in plain.data] == [
        entry.embedding for entry in base64_response.data
    ]
    assert (EMBEDDER, 2) == (plain.model, plain.usage.prompt_tokens)
    body = {"model": EMBEDDER, "input": "a", "dimensions": 4}
    CreateEmbeddingResponse.model_validate_json((await ask(server, "/v1/embeddings", body))[2])
    wrong: dict[str, Any]
    for wrong in ({"input": []}, {"input": [[1, 2]]}, {"input": "a", "encoding_format": "hex"}):
        assert 400 == (await ask(server, "/v1/embeddings", {"model": EMBEDDER, **wrong}))[0]


# --- for Anthropic's clients ----------------------------------------------------------------------


async def test_messages(server: OllamaStandIn, anthropic_client: anthropic.AsyncAnthropic) -> None:
    response = await anthropic_client.messages.create(
        model=MODEL,
        max_tokens=50,
        system="Be brief.",
        messages=user(f"[[think]]so[[/think]][[say]]Well.[[/say]]{CALL}"),
        tools=[{"name": "weather", "input_schema": WEATHER["function"]["parameters"]}],
    )
    assert ["thinking", "text", "tool_use"] == [block.type for block in response.content]
    assert "tool_use" == response.stop_reason
    messages: list[Any] = [
        {"role": "user", "content": CALL},
        {"role": "assistant", "content": [block.to_dict() for block in response.content]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": "[[say]]Rain.[[/say]]"}]},
    ]
    after = await anthropic_client.messages.create(model=MODEL, max_tokens=50, messages=messages)
    assert [{"type": "text", "text": "Rain."}] == [block.to_dict() for block in after.content]
    raw = await ask(server, "/v1/messages", {"model": MODEL, "max_tokens": 1, "messages": user("[[say]]a b[[/say]]")})
    assert "max_tokens" == Message.model_validate({"stop_sequence": None, **json.loads(raw[2])}).stop_reason


async def test_streamed_messages(anthropic_client: anthropic.AsyncAnthropic) -> None:
    async with anthropic_client.messages.stream(
        model=MODEL,
        max_tokens=50,
        messages=user(f"[[think]]so so[[/think]][[say]]a b[[/say]]{CALL}"),
        tools=[{"name": "weather", "input_schema": WEATHER["function"]["parameters"]}],
    ) as stream:
        response = await stream.get_final_message()
    blocks = [block.to_dict() for block in response.content]
    assert ["so so", "a b", {"city": "Oslo", "days": 2}] == [
        blocks[0]["thinking"],
        blocks[1]["text"],
        blocks[2]["input"],
    ]
    assert ("tool_use", 12) == (response.stop_reason, response.usage.output_tokens)


async def test_images_in_messages(anthropic_client: anthropic.AsyncAnthropic) -> None:
    def seeing(source: Any) -> list[Any]:
        blocks = [{"type": "image", "source": source}, {"type": "text", "text": "[[say]]A dot.[[/say]]"}]
        return [{"role": "user", "content": blocks}]

    here = {"type": "base64", "media_type": "image/png", "data": PIXEL}
    response = await anthropic_client.messages.create(model="gemma3", max_tokens=9, messages=seeing(here))
    assert [{"type": "text", "text": "A dot."}] == [block.to_dict() for block in response.content]
    with pytest.raises(anthropic.BadRequestError, match="Only base64 images are supported"):
        await anthropic_client.messages.create(
            model="gemma3", max_tokens=9, messages=seeing({"type": "url", "url": "https://example.com/dot.png"})
        )


@pytest.mark.parametrize(
    ("body", "status", "kind"),
    [
        ({"model": "x"}, 404, "not_found_error"),
        ({"model": ""}, 400, "invalid_request_error"),
        ({"max_tokens": 0}, 400, "invalid_request_error"),
        ({"messages": []}, 400, "invalid_request_error"),
        ({"messages": user("[[busy]]")}, 503, "overloaded_error"),
        ({"messages": user("[[fail]]")}, 500, "api_error"),
    ],
)
async def test_errors_of_messages(server: OllamaStandIn, body: dict[str, Any], status: int, kind: str) -> None:
    answer = await ask(server, "/v1/messages", {"model": MODEL, "max_tokens": 9, "messages": user("Hi"), **body})
    error = json.loads(answer[2])
    assert (status, "error", kind) == (answer[0], error["type"], error["error"]["type"])


async def test_thinking_of_messages(server: OllamaStandIn) -> None:
    body = {"max_tokens": 9, "messages": user("[[think]]so[[/think]]Hi")}
    texts = {
        (model, kind): [
            block["type"]
            for block in json.loads(
                (await ask(server, "/v1/messages", {**body, "model": model, "thinking": {"type": kind}}))[2]
            )["content"]
        ]
        for model in (MODEL, "gemma3")
        for kind in ("enabled", "disabled")
    }
    assert {
        (MODEL, "enabled"): ["thinking", "text"],
        (MODEL, "disabled"): ["text"],
        ("gemma3", "enabled"): ["text"],
        ("gemma3", "disabled"): ["text"],
    } == texts


async def test_a_failure_in_the_stream_of_messages(server: OllamaStandIn) -> None:
    body = {"model": MODEL, "max_tokens": 9, "messages": user("[[fail]][[say]]a b[[/say]]"), "stream": True}
    events_ = events((await ask(server, "/v1/messages", body))[2])
    assert ["message_start", "content_block_start", "content_block_delta"] == [name for name, _ in events_]
