"""The stand-in for Ollama, used by Ollama's own client and held against its types: the native API."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Any

import ollama
import pytest
from ollama._types import ChatResponse, EmbedResponse, ListResponse, ProcessResponse, ShowResponse
from pydantic import BaseModel

from ctxbackends.testing._stand_ins.ollama_models import LOAD_NS, READY_NS
from ctxbackends.testing._stand_ins.ollama_stand_in import OllamaStandIn
from tests.stand_ins.local_requests import CALL, PIXEL, WEATHER, ask, user
from tests.stand_ins.validation import validate

MODEL = "qwen3:4b"
EMBEDDER = "nomic-embed-text"
LONG = "word " * 5000


class City(BaseModel):
    name: str
    rank: int


def weather(city: str, days: int) -> str:
    """Tell the weather.

    Args:
        city: Where.
        days: How many.
    """
    return f"{city}: rain for {days} days"


@pytest.fixture
async def server() -> AsyncIterator[OllamaStandIn]:
    async with OllamaStandIn(models=(MODEL, "gemma3", "nomic-embed-text:latest")) as running:
        yield running


@pytest.fixture
async def client(server: OllamaStandIn) -> AsyncIterator[ollama.AsyncClient]:
    async with ollama.AsyncClient(host=server.url) as client_:
        yield client_


# --- models ---------------------------------------------------------------------------------------


async def test_health_and_version(server: OllamaStandIn) -> None:
    assert (200, "text/plain", "Ollama is running") == await ask(server, "/")
    assert (200, "application/json", '{"version": "0.32.4"}') == await ask(server, "/api/version")
    assert (404, "text/plain", "404 page not found") == await ask(server, "/v1/models/qwen3/x/y".replace("v1", "v2"))


async def test_models(server: OllamaStandIn, client: ollama.AsyncClient) -> None:
    models = await client.list()

    assert [MODEL, "gemma3:latest", "nomic-embed-text:latest"] == [model.model for model in models.models]
    assert models.models[0].details is not None
    assert "Q4_K_M" == models.models[0].details.quantization_level
    validate(ListResponse, json.loads((await ask(server, "/api/tags"))[2]))


async def test_show(server: OllamaStandIn, client: ollama.AsyncClient) -> None:
    details = await client.show(MODEL)

    assert details.modelinfo is not None
    assert "qwen3" == details.modelinfo["general.architecture"]
    assert 32768 == details.modelinfo["qwen3.context_length"]
    assert ["completion", "tools", "thinking"] == details.capabilities
    embedder = await client.show(EMBEDDER)
    assert ["embedding"] == embedder.capabilities
    assert embedder.modelinfo is not None
    assert 2048 == embedder.modelinfo["nomic-bert.context_length"]
    validate(ShowResponse, json.loads((await ask(server, "/api/show", {"name": MODEL}))[2]))


async def test_only_the_latest_tag_is_implied(client: ollama.AsyncClient) -> None:
    for name in (EMBEDDER, "nomic-embed-text:latest", "GEMMA3"):
        await client.show(name)
    with pytest.raises(ollama.ResponseError) as exc_info:
        await client.show("qwen3")
    assert (404, "model 'qwen3' not found") == (exc_info.value.status_code, exc_info.value.error)


# --- loading --------------------------------------------------------------------------------------


async def running(client: ollama.AsyncClient) -> dict[str | None, int | None]:
    return {model.model: model.context_length for model in (await client.ps()).models}


async def test_loading_and_unloading(server: OllamaStandIn, client: ollama.AsyncClient) -> None:
    assert {} == await running(client)
    response = await client.chat(MODEL, keep_alive="1h30m")
    assert (True, "load", "") == (response.done, response.done_reason, response.message.content)
    assert response.load_duration is None

    [entry] = (await client.ps()).models
    assert (MODEL, 4096) == (entry.model, entry.context_length)
    assert entry.size_vram == entry.size
    assert entry.expires_at is not None
    assert timedelta(minutes=89) < entry.expires_at - datetime.now(UTC) < timedelta(minutes=91)
    validate(ProcessResponse, json.loads((await ask(server, "/api/ps"))[2]))

    assert "unload" == (await client.chat(MODEL, keep_alive=0)).done_reason
    assert {} == await running(client)
    assert [(MODEL, 4096)] == server.library.loads


async def test_loading_by_generate(client: ollama.AsyncClient) -> None:
    response = await client.generate(MODEL, options={"num_ctx": 1024}, keep_alive=-1)
    assert "load" == response.done_reason
    [entry] = (await client.ps()).models
    assert 1024 == entry.context_length
    assert entry.expires_at is not None
    assert entry.expires_at.year > 2300
    assert "unload" == (await client.generate(MODEL, keep_alive="0s")).done_reason
    assert {} == await running(client)
    with pytest.raises(ollama.ResponseError):
        await client.generate(MODEL, "Why?")


async def test_another_context_reloads_the_model(server: OllamaStandIn, client: ollama.AsyncClient) -> None:
    took = [
        (await client.chat(MODEL, user("Hi"), options=options)).load_duration
        for options in ({}, {}, {"num_ctx": 8192}, {"num_ctx": 8192}, {}, {"num_ctx": 10**6})
    ]
    assert [LOAD_NS, READY_NS, LOAD_NS, READY_NS, LOAD_NS, LOAD_NS] == took
    assert [4096, 8192, 4096, 32768] == [context for _, context in server.library.loads]


async def test_keep_alive_of_a_chat(client: ollama.AsyncClient) -> None:
    assert "stop" == (await client.chat(MODEL, user("Hi"), keep_alive=0)).done_reason
    assert {} == await running(client)
    await client.chat(MODEL, user("Hi"), keep_alive=3600)
    await client.chat(MODEL, user("Hi"))
    [entry] = (await client.ps()).models
    assert entry.expires_at is not None
    assert entry.expires_at - datetime.now(UTC) > timedelta(minutes=59)


@pytest.mark.parametrize(
    ("keep_alive", "message"),
    [("-1", 'time: missing unit in duration "-1"'), ("soon", 'time: invalid duration "soon"')],
)
async def test_invalid_keep_alives(client: ollama.AsyncClient, keep_alive: str, message: str) -> None:
    with pytest.raises(ollama.ResponseError) as exc_info:
        await client.chat(MODEL, user("Hi"), keep_alive=keep_alive)
    assert (400, message) == (exc_info.value.status_code, exc_info.value.error)


# --- chat -----------------------------------------------------------------------------------------


async def test_chat(server: OllamaStandIn, client: ollama.AsyncClient) -> None:
    response = await client.chat(MODEL, user("[[think]]one two[[/think]][[say]]Good morning![[/say]]"))

    assert ("assistant", "Good morning!", "one two") == (
        response.message.role,
        response.message.content,
        response.message.thinking,
    )
    assert (True, "stop", MODEL) == (response.done, response.done_reason, response.model)
    assert (LOAD_NS, 4) == (response.load_duration, response.eval_count)
    assert response.prompt_eval_count
    assert response.total_duration is not None
    assert response.prompt_eval_duration is not None
    assert response.eval_duration is not None
    assert response.total_duration == LOAD_NS + response.prompt_eval_duration + response.eval_duration
    assert server.requests[-1].json["stream"] is False


async def test_stream(server: OllamaStandIn, client: ollama.AsyncClient) -> None:
    lines = [line async for line in await client.chat(MODEL, user("[[say]]a b c[[/say]]"), stream=True)]

    assert ["a ", "b ", "c", ""] == [line.message.content for line in lines]
    assert [False, False, False, True] == [line.done for line in lines]
    assert [None, None, None, "stop"] == [line.done_reason for line in lines]
    assert 3 == lines[-1].eval_count


async def test_raw_lines(server: OllamaStandIn) -> None:
    body = {"model": MODEL, "messages": user(f"[[think]]so[[/think]]{CALL}"), "tools": [WEATHER]}
    status, kind, text = await ask(server, "/api/chat", body)

    assert (200, "application/x-ndjson") == (status, kind)
    lines = [json.loads(line) for line in text.splitlines()]
    for line in lines:
        ChatResponse.model_validate(line)
    call = lines[1]["message"]["tool_calls"][0]["function"]
    assert {"index": 0, "name": "weather", "arguments": {"city": "Oslo", "days": 2}} == call
    assert {"model", "created_at", "message", "done"} == set(lines[0])
    assert "stop" == lines[-1]["done_reason"]


async def test_limits_and_stops(client: ollama.AsyncClient) -> None:
    short = await client.chat(MODEL, user("[[say]]a b c[[/say]]"), options={"num_predict": 2})
    assert ("a b ", "length", 2) == (short.message.content, short.done_reason, short.eval_count)
    complete = await client.chat(MODEL, user("[[say]]a b c[[/say]]"), options={"num_predict": -1})
    assert "a b c" == complete.message.content
    stop_response = await client.chat(MODEL, user("[[say]]a b c[[/say]]"), options={"stop": ["b"]})
    assert ("a ", "stop") == (stop_response.message.content, stop_response.done_reason)


async def test_tools(client: ollama.AsyncClient) -> None:
    messages = user(CALL)
    response = await client.chat(MODEL, messages, tools=[weather])
    assert response.message.tool_calls is not None
    [call] = response.message.tool_calls
    assert ("weather", {"city": "Oslo", "days": 2}) == (call.function.name, call.function.arguments)
    assert "stop" == response.done_reason

    messages += [response.message, {"role": "tool", "tool_name": "weather", "content": "[[say]]Rain.[[/say]]"}]
    after = await client.chat(MODEL, messages, tools=[weather])
    assert ("Rain.", None) == (after.message.content, after.message.tool_calls)


async def test_format(client: ollama.AsyncClient) -> None:
    response = await client.chat(MODEL, user("A city."), format=City.model_json_schema())
    assert City(name="x", rank=1) == City.model_validate_json(response.message.content or "")
    assert "{}" == (await client.chat(MODEL, user("Anything."), format="json")).message.content


@pytest.mark.parametrize(("think", "thought"), [(None, "so"), (True, "so"), ("low", "so"), (False, None)])
async def test_think(client: ollama.AsyncClient, think: Any, thought: str | None) -> None:
    response = await client.chat(MODEL, user("[[think]]so[[/think]]Hi"), think=think)
    assert thought == response.message.thinking


async def test_images(server: OllamaStandIn, client: ollama.AsyncClient) -> None:
    message = ollama.Message(role="user", content="What?", images=[ollama.Image(value=base64.b64decode(PIXEL))])
    await client.chat("gemma3", [message])
    assert [PIXEL] == server.requests[-1].json["messages"][0]["images"]


async def test_logprobs(client: ollama.AsyncClient) -> None:
    response = await client.chat(MODEL, user("[[say]]a b[[/say]]"), logprobs=True, top_logprobs=2)
    assert response.logprobs is not None
    assert [("a ", -0.125), ("b", -0.125)] == [(entry.token, entry.logprob) for entry in response.logprobs]
    assert response.logprobs[0].top_logprobs is not None
    assert ["a ", "1"] == [entry.token for entry in response.logprobs[0].top_logprobs]
    lines = [line async for line in await client.chat(MODEL, user("[[say]]a b[[/say]]"), stream=True, logprobs=True)]
    assert [1, 1, 0] == [len(line.logprobs or ()) for line in lines]


# --- the context ----------------------------------------------------------------------------------


async def test_a_prompt_that_is_truncated_silently(client: ollama.AsyncClient) -> None:
    response = await client.chat(MODEL, user(LONG))
    assert ("stop", 4096) == (response.done_reason, response.prompt_eval_count)


@pytest.mark.parametrize("stream", [True, False])
async def test_a_prompt_that_must_not_be_truncated(server: OllamaStandIn, stream: bool) -> None:
    body = {"model": MODEL, "messages": user(LONG), "truncate": False, "shift": False, "stream": stream}
    assert (400, "application/json", '{"error": "the input length exceeds the context length"}') == await ask(
        server, "/api/chat", body
    )
    assert 200 == (await ask(server, "/api/chat", {**body, "options": {"num_ctx": 8192}}))[0]


async def test_the_overflow_of_later_versions() -> None:
    async with OllamaStandIn(version="0.34.2", context_length=10) as server:
        status, _, text = await ask(
            server, "/api/chat", {"model": MODEL, "messages": user("word " * 12), "truncate": False}
        )
    assert 400 == status
    error = json.loads(json.loads(text)["error"])["error"]
    assert ("exceed_context_size_error", 12, 10) == (error["type"], error["n_prompt_tokens"], error["n_ctx"])
    assert "request (12 tokens) exceeds the available context size (10 tokens), try increasing it" == error["message"]


async def test_a_response_that_fills_the_context() -> None:
    body = {"model": MODEL, "messages": user("[[say]]a b c d e f[[/say]]"), "stream": False}
    async with OllamaStandIn(context_length=10) as server:
        full = json.loads((await ask(server, "/api/chat", {**body, "shift": False}))[2])
        shift_response = json.loads((await ask(server, "/api/chat", body))[2])
    assert ("length", 10) == (full["done_reason"], full["prompt_eval_count"] + full["eval_count"])
    assert ("stop", 6) == (shift_response["done_reason"], shift_response["eval_count"])


# --- errors ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"model": "x"}, 404, "model 'x' not found"),
        ({"model": ""}, 400, "model is required"),
        ({"model": "gemma3", "think": True}, 400, '"gemma3" does not support thinking'),
        (
            {"think": "deep"},
            400,
            'invalid think value: "deep" (must be "high", "medium", "low", "max", true, or false)',
        ),
        (
            {"model": "gemma3", "tools": [WEATHER]},
            400,
            "registry.ollama.ai/library/gemma3:latest does not support tools",
        ),
        ({"model": EMBEDDER}, 400, '"nomic-embed-text" does not support chat'),
        ({"top_logprobs": 21}, 400, "top_logprobs must be between 0 and 20"),
        ({"options": {"num_ctx": "8k"}}, 500, 'option "num_ctx" must be of type integer'),
        ({"format": "xml"}, 500, 'invalid format: "\\"xml\\""; expected "json" or a valid JSON Schema object'),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": "Hi"}]}]},
            400,
            "json: cannot unmarshal array into Go struct field ChatRequest.messages.content of type string",
        ),
        (
            {"messages": [{"role": "assistant", "tool_calls": [{"function": {"name": "a", "arguments": "{}"}}]}]},
            400,
            (
                "json: cannot unmarshal string into Go struct field ChatRequest.messages.tool_calls.function.arguments"
                " of type api.ToolCallFunctionArguments"
            ),
        ),
        (
            {"messages": [{"role": "user", "content": "", "images": ["data:image/png;base64,AAAA"]}]},
            400,
            "illegal base64 data at input byte 4",
        ),
        (
            {"messages": user("[[busy]]")},
            503,
            "server busy, please try again.  maximum pending requests exceeded",
        ),
        ({"messages": user("[[fail]]"), "stream": False}, 500, "an error was encountered while running the model"),
    ],
)
async def test_rejected_requests(server: OllamaStandIn, body: dict[str, Any], status: int, message: str) -> None:
    answer = await ask(server, "/api/chat", {"model": MODEL, "messages": user("Hi"), **body})
    assert (status, "application/json", {"error": message}) == (*answer[:2], json.loads(answer[2]))


async def test_a_failure_in_mid_stream(client: ollama.AsyncClient) -> None:
    texts = []
    with pytest.raises(ollama.ResponseError) as exc_info:
        async for line in await client.chat(MODEL, user("[[fail]][[say]]a b[[/say]]"), stream=True):
            texts.append(line.message.content)
    assert (["a "], "an error was encountered while running the model") == (texts, exc_info.value.error)


async def test_a_request_without_a_body(server: OllamaStandIn) -> None:
    status, _, text = await ask(server, "/api/chat", [])
    assert (400, True) == (status, "unmarshal" in text)


async def test_keys() -> None:
    async with OllamaStandIn(api_key="secret") as server:
        assert (401, "application/json", '{"error": "unauthorized"}') == await ask(server, "/api/tags")
        async with ollama.AsyncClient(host=server.url, headers={"Authorization": "Bearer secret"}) as client:
            assert 2 == len((await client.list()).models)


# --- embeddings -----------------------------------------------------------------------------------


async def test_embeddings(server: OllamaStandIn, client: ollama.AsyncClient) -> None:
    response = await client.embed(EMBEDDER, ["a", "b", "a"])
    vectors = [list(values) for values in response.embeddings]
    assert vectors[0] == vectors[2] != vectors[1]
    assert [8, 8, 8] == [len(values) for values in vectors]
    assert [pytest.approx(1.0)] * 3 == [math.fsum(value * value for value in values) for values in vectors]
    assert (EMBEDDER, LOAD_NS, 3) == (response.model, response.load_duration, response.prompt_eval_count)
    assert [vectors[0]] == (await client.embed(EMBEDDER, "a")).embeddings
    short = (await client.embed(EMBEDDER, "a", dimensions=3)).embeddings
    assert [3, pytest.approx(1.0)] == [len(short[0]), math.fsum(value * value for value in short[0])]
    assert {"nomic-embed-text:latest": 2048} == await running(client)
    assert [] == (await client.embed(EMBEDDER, "")).embeddings
    validate(EmbedResponse, json.loads((await ask(server, "/api/embed", {"model": EMBEDDER, "input": "a"}))[2]))


async def test_inputs_that_are_too_long(client: ollama.AsyncClient) -> None:
    short = await client.embed(EMBEDDER, LONG)
    assert 2048 == short.prompt_eval_count
    assert short.embeddings == (await client.embed(EMBEDDER, "word " * 2048)).embeddings
    with pytest.raises(ollama.ResponseError) as exc_info:
        await client.embed(EMBEDDER, LONG, truncate=False)
    assert (400, "the input length exceeds the context length") == (exc_info.value.status_code, exc_info.value.error)
    with pytest.raises(ollama.ResponseError) as missing:
        await client.embed("x", "a")
    assert 404 == missing.value.status_code
