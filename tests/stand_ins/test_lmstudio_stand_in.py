"""The stand-in for LM Studio: the native API held against its documentation, the compatible layers used by the clients
of OpenAI and Anthropic.

LM Studio's own client speaks only websockets. The examples are those of github.com/lmstudio-ai/docs, in
1_developer/2_rest: list.md, load.md, unload.md and endpoints.md (v0). An error that is a bare string is the whole
``body`` of the exception of OpenAI's client, whose message does not show it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Mapping
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import Message
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from pydantic import BaseModel

from ctxbackends.testing._stand_ins.lmstudio_stand_in import CRASH, LMStudioStandIn
from tests.stand_ins.local_requests import CALL, PIXEL, WEATHER, ask, user
from tests.stand_ins.validation import events

MODEL = "qwen/qwen3-4b"
OTHER = "openai/gpt-oss-20b"
EMBEDDER = "text-embedding-nomic-embed-text-v1.5"
LONG = "word " * 5000
OVERFLOW = (
    "The number of tokens to keep from the initial prompt is greater than the context length (n_keep: 5000>= n_ctx: "
    "4096). Try to load the model with a larger context length, or provide a shorter input."
)

LISTED_LLM = {
    "type": "llm",
    "publisher": "lmstudio-community",
    "key": "gemma-3-270m-it-qat",
    "display_name": "Gemma 3 270m Instruct Qat",
    "architecture": "gemma3",
    "quantization": {"name": "Q4_0", "bits_per_weight": 4},
    "size_bytes": 241410208,
    "params_string": "270M",
    "loaded_instances": [{"id": "gemma-3-270m-it-qat", "config": {"context_length": 4096}}],
    "max_context_length": 32768,
    "format": "gguf",
    "capabilities": {"vision": False, "trained_for_tool_use": False},
    "description": None,
}
LISTED_EMBEDDER = {
    "type": "embedding",
    "publisher": "gaianet",
    "key": "text-embedding-nomic-embed-text-v1.5-embedding",
    "display_name": "Nomic Embed Text v1.5",
    "quantization": {"name": "F16", "bits_per_weight": 16},
    "size_bytes": 274290560,
    "params_string": None,
    "loaded_instances": [],
    "max_context_length": 2048,
    "format": "gguf",
}
LOAD_RESPONSE = {
    "type": "llm",
    "instance_id": "openai/gpt-oss-20b",
    "load_time_seconds": 9.099,
    "status": "loaded",
    "load_config": {
        "context_length": 16384,
        "eval_batch_size": 512,
        "flash_attention": True,
        "offload_kv_cache_to_gpu": True,
        "num_experts": 4,
    },
}
LISTED_V0 = {
    "id": "meta-llama-3.1-8b-instruct",
    "object": "model",
    "type": "llm",
    "publisher": "lmstudio-community",
    "arch": "llama",
    "compatibility_type": "gguf",
    "quantization": "Q4_K_M",
    "state": "not-loaded",
    "max_context_length": 131072,
}


class City(BaseModel):
    name: str


def shape(value: Any) -> Any:
    """``value`` with its types in the place of its values; of an object's members, the names and those."""
    if isinstance(value, Mapping):
        return {name: shape(member) for name, member in value.items()}
    if isinstance(value, list):
        return [shape(item) for item in value]
    return type(value)


@pytest.fixture
async def server() -> AsyncIterator[LMStudioStandIn]:
    async with LMStudioStandIn(models=(MODEL, OTHER, EMBEDDER)) as running:
        yield running


@pytest.fixture
async def client(server: LMStudioStandIn) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(api_key="lm-studio", base_url=f"{server.url}/v1", max_retries=0) as client_:
        yield client_


async def load(server: LMStudioStandIn, model: str, **config: Any) -> Any:
    return json.loads((await ask(server, "/api/v1/models/load", {"model": model, **config}))[2])


async def instances(server: LMStudioStandIn) -> list[str]:
    models = json.loads((await ask(server, "/api/v1/models"))[2])["models"]
    return [instance["id"] for model in models for instance in model["loaded_instances"]]


# --- native ---------------------------------------------------------------------------------------


async def test_list_as_documented(server: LMStudioStandIn) -> None:
    await load(server, MODEL)
    llm, _, embedder = json.loads((await ask(server, "/api/v1/models"))[2])["models"]

    config = llm["loaded_instances"][0]["config"]
    assert (4096, True, 4) == tuple(config[name] for name in ("context_length", "flash_attention", "parallel"))
    llm["loaded_instances"][0]["config"] = {"context_length": config["context_length"]}
    assert shape(LISTED_LLM) == shape(llm)
    assert shape(LISTED_EMBEDDER) == shape(embedder)
    assert [MODEL, EMBEDDER] == [llm["key"], embedder["key"]]


async def test_load_as_documented(server: LMStudioStandIn) -> None:
    response = await load(
        server, OTHER, context_length=16384, flash_attention=False, num_experts=4, echo_load_config=True
    )
    assert shape(LOAD_RESPONSE) == shape(response)
    assert (16384, False, 4) == tuple(
        response["load_config"][name] for name in ("context_length", "flash_attention", "num_experts")
    )
    second = await load(server, OTHER)
    assert {"type", "instance_id", "load_time_seconds", "status"} == set(second)
    assert [OTHER, f"{OTHER}:2"] == await instances(server)
    embedder = await load(server, EMBEDDER, echo_load_config=True)
    assert ("embedding", {"context_length": 2048}) == (embedder["type"], embedder["load_config"])
    assert [(OTHER, 16384), (OTHER, 4096), (EMBEDDER, 2048)] == server.catalog.loads


async def test_unload_as_documented(server: LMStudioStandIn) -> None:
    await load(server, OTHER)
    answer = await ask(server, "/api/v1/models/unload", {"instance_id": OTHER})
    assert (200, {"instance_id": OTHER}) == (answer[0], json.loads(answer[2]))
    assert [] == await instances(server)
    assert 404 == (await ask(server, "/api/v1/models/unload", {"instance_id": OTHER}))[0]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("load", {"model": "x"}, 404, "model_not_found"),
        ("load", {}, 400, "missing_required_parameter"),
        ("unload", {}, 400, "missing_required_parameter"),
        ("unload", {"instance_id": "x"}, 404, "model_not_found"),
    ],
)
async def test_native_errors(server: LMStudioStandIn, path: str, body: Any, status: int, code: str) -> None:
    answer = await ask(server, f"/api/v1/models/{path}", body)
    error = json.loads(answer[2])["error"]
    assert (status, "invalid_request", code) == (answer[0], error["type"], error["code"])
    assert {"message", "type", "param", "code"} == set(error)


async def test_the_older_list(server: LMStudioStandIn) -> None:
    await load(server, OTHER, context_length=8192)
    first, second, embedder = json.loads((await ask(server, "/api/v0/models"))[2])["data"]
    # `capabilities` came with 0.3.16 and `loaded_context_length` is in lmstudio-bug-tracker#726; the page has neither.
    assert shape({**LISTED_V0, "capabilities": ["tool_use"]}) == shape(first)
    assert ("not-loaded", "loaded", 8192) == (first["state"], second["state"], second["loaded_context_length"])
    assert ("embeddings", "nomic-bert") == (embedder["type"], embedder["arch"])


async def test_an_unknown_path(server: LMStudioStandIn) -> None:
    body = json.dumps({"error": "Unexpected endpoint or method. (GET /api/v1/nothing)"})
    assert (200, "application/json", body) == await ask(server, "/api/v1/nothing")


async def test_keys() -> None:
    async with LMStudioStandIn(api_key="sk-lm-secret") as server:
        for headers, beginning in (
            ({}, "An LM Studio API token is required"),
            ({"Authorization": "Bearer x"}, "Malformed"),
        ):
            status, _, text = await ask(server, "/v1/models", **headers)
            error = json.loads(text)["error"]
            assert (401, "invalid_api_key") == (status, error["code"])
            assert error["message"].startswith(beginning)
        assert 200 == (await ask(server, "/v1/models", Authorization="Bearer sk-lm-secret"))[0]
        async with anthropic.AsyncAnthropic(auth_token="sk-lm-secret", base_url=server.url) as client:
            await client.messages.create(model=MODEL, max_tokens=9, messages=[{"role": "user", "content": "Hi"}])
        body = {"model": MODEL, "max_tokens": 9, "messages": user("Hi")}
        assert 200 == (await ask(server, "/v1/messages", body, **{"x-api-key": "sk-lm-secret"}))[0]


# --- which model answers --------------------------------------------------------------------------


async def model_of(client: openai.AsyncOpenAI, model: str) -> str:
    return (await client.chat.completions.create(model=model, messages=user("Hi"))).model


async def test_models(server: LMStudioStandIn, client: openai.AsyncOpenAI) -> None:
    assert [MODEL, OTHER, EMBEDDER] == [model.id async for model in client.models.list()]


async def test_a_request_loads_its_model(server: LMStudioStandIn, client: openai.AsyncOpenAI) -> None:
    assert MODEL == await model_of(client, MODEL)
    assert OTHER == await model_of(client, OTHER)
    assert [OTHER] == await instances(server)


async def test_the_only_model_answers_to_any_name(server: LMStudioStandIn, client: openai.AsyncOpenAI) -> None:
    await load(server, MODEL)
    assert [MODEL, MODEL] == [await model_of(client, name) for name in ("whatever", MODEL)]


async def test_several_models_need_a_name(server: LMStudioStandIn, client: openai.AsyncOpenAI) -> None:
    await load(server, MODEL)
    await load(server, MODEL)
    assert [MODEL, f"{MODEL}:2"] == [await model_of(client, name) for name in (MODEL, f"{MODEL}:2")]
    with pytest.raises(openai.NotFoundError, match='Model "whatever" not found') as exc_info:
        await model_of(client, "whatever")
    assert ("model_not_found", "model", "invalid_request_error") == (
        exc_info.value.code,
        exc_info.value.param,
        exc_info.value.type,
    )


async def test_a_model_that_is_not_downloaded(client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match='Invalid model identifier "x"') as exc_info:
        await model_of(client, "x")
    assert "model_not_found" == exc_info.value.code
    with pytest.raises(openai.BadRequestError):
        await model_of(client, EMBEDDER)


async def test_without_loading_on_demand() -> None:
    async with LMStudioStandIn(models=(MODEL, OTHER), jit=False) as server:
        async with openai.AsyncOpenAI(api_key="-", base_url=f"{server.url}/v1", max_retries=0) as client:
            assert [] == [model.id async for model in client.models.list()]
            with pytest.raises(openai.NotFoundError, match="No models loaded"):
                await model_of(client, MODEL)
            await load(server, OTHER)
            assert [OTHER] == [model.id async for model in client.models.list()]
            assert OTHER == await model_of(client, MODEL)
        assert [OTHER] == [entry["id"] for entry in json.loads((await ask(server, "/api/v0/models"))[2])["data"]]


# --- chat -----------------------------------------------------------------------------------------


async def test_chat(server: LMStudioStandIn, client: openai.AsyncOpenAI) -> None:
    response = await client.chat.completions.create(
        model=MODEL,
        messages=user("[[think]]so[[/think]][[say]]a b c[[/say]]"),
        max_tokens=2,
        extra_body={"ttl": 300},
    )
    choice = response.choices[0]
    assert ("a b ", "length", MODEL) == (choice.message.content, choice.finish_reason, response.system_fingerprint)
    assert {"reasoning_content": "so"} == choice.message.model_extra
    assert 300 == server.requests[-1].json["ttl"]
    body = {"model": OTHER, "messages": user("[[think]]so[[/think]]Hi"), "max_tokens": -1}
    raw = ChatCompletion.model_validate_json((await ask(server, "/v1/chat/completions", body))[2])
    assert {"reasoning": "so"} == raw.choices[0].message.model_extra
    assert "stop" == raw.choices[0].finish_reason


async def test_stream(server: LMStudioStandIn) -> None:
    body = {
        "model": MODEL,
        "messages": user(f"[[say]]a b[[/say]]{CALL}"),
        "tools": [WEATHER],
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    events_ = events((await ask(server, "/v1/chat/completions", body))[2])
    assert (None, "[DONE]") == events_.pop()
    chunks = [ChatCompletionChunk.model_validate_json(data) for _, data in events_]
    deltas = [chunk.choices[0].delta for chunk in chunks[:-1]]
    assert ["a ", "b"] == [delta.content for delta in deltas if delta.content]
    functions = [call.function for delta in deltas for call in delta.tool_calls or () if call.function is not None]
    assert ["weather", *[None] * (len(functions) - 1)] == [function.name for function in functions]
    assert {"city": "Oslo", "days": 2} == json.loads("".join(function.arguments or "" for function in functions))
    assert "tool_calls" == chunks[-2].choices[0].finish_reason
    assert chunks[-1].usage is not None
    assert [] == chunks[-1].choices


async def test_tools(client: openai.AsyncOpenAI) -> None:
    async def calls(choice: Any) -> int:
        response = await client.chat.completions.create(
            model=MODEL, messages=user("Hi"), tools=[WEATHER], tool_choice=choice
        )
        return len(response.choices[0].message.tool_calls or ())

    assert [0, 0, 1] == [await calls(choice) for choice in ("none", "auto", "required")]
    with pytest.raises(openai.BadRequestError) as exc_info:
        await calls({"type": "function", "function": {"name": "weather"}})
    assert "Invalid tool_choice type: 'object'. Supported string values: none, auto, required" == exc_info.value.body


async def test_formats(server: LMStudioStandIn, client: openai.AsyncOpenAI) -> None:
    response = await client.chat.completions.parse(model=MODEL, messages=user("A city."), response_format=City)
    assert City(name="x") == response.choices[0].message.parsed
    body = {"model": MODEL, "messages": user("Hi"), "response_format": {"type": "text"}}
    assert 200 == (await ask(server, "/v1/chat/completions", body))[0]
    rejection = await ask(server, "/v1/chat/completions", {**body, "response_format": {"type": "json_object"}})
    assert (400, {"error": "'response_format.type' must be 'json_schema' or 'text'"}) == (
        rejection[0],
        json.loads(rejection[2]),
    )


async def test_images(client: openai.AsyncOpenAI) -> None:
    def seeing(url: str) -> list[Any]:
        parts = [{"type": "text", "text": "[[say]]A dot.[[/say]]"}, {"type": "image_url", "image_url": {"url": url}}]
        return [{"role": "user", "content": parts}]

    response = await client.chat.completions.create(model=MODEL, messages=seeing(f"data:image/png;base64,{PIXEL}"))
    assert "A dot." == response.choices[0].message.content
    for url in ("https://example.com/dot.png", f"data:image/webp;base64,{PIXEL}"):
        with pytest.raises(openai.BadRequestError) as exc_info:
            await client.chat.completions.create(model=MODEL, messages=seeing(url))
        assert "'url' field must be a base64 encoded image." == exc_info.value.body


async def test_a_prompt_that_is_too_long(server: LMStudioStandIn) -> None:
    body = {"model": MODEL, "messages": user(LONG.strip())}
    status, _, text = await ask(server, "/v1/chat/completions", body)
    assert (400, {"error": OVERFLOW}) == (status, json.loads(text))
    status, kind, text = await ask(server, "/v1/chat/completions", {**body, "stream": True})
    assert (200, "text/event-stream") == (status, kind)
    assert [("error", {"error": {"message": OVERFLOW}, "message": OVERFLOW})] == [
        (name, json.loads(data)) for name, data in events(text)
    ]


async def test_a_failure(server: LMStudioStandIn, client: openai.AsyncOpenAI) -> None:
    messages = user("[[fail]][[say]]a b[[/say]]")
    with pytest.raises(openai.BadRequestError) as exc_info:
        await client.chat.completions.create(model=MODEL, messages=messages)
    assert CRASH == exc_info.value.body
    texts = []
    stream = await client.chat.completions.create(model=MODEL, messages=messages, stream=True)
    with pytest.raises(openai.APIError, match="The model has crashed"):
        async for chunk in stream:
            texts.append(chunk.choices[0].delta.content)
    assert ["a "] == texts
    events_ = events(
        (await ask(server, "/v1/chat/completions", {"model": MODEL, "messages": messages, "stream": True}))[2]
    )
    assert [None, "error"] == [name for name, _ in events_]


async def test_embeddings(server: LMStudioStandIn, client: openai.AsyncOpenAI) -> None:
    response = await client.embeddings.create(model=EMBEDDER, input=["a", "b", "a"])
    vectors = [entry.embedding for entry in response.data]
    assert vectors[0] == vectors[2] != vectors[1]
    assert (EMBEDDER, 3) == (response.model, response.usage.prompt_tokens)
    with pytest.raises(openai.BadRequestError):
        await client.embeddings.create(model=EMBEDDER, input=[[1, 2]])


@pytest.mark.parametrize("body", [[], {"model": MODEL}, {"model": MODEL, "messages": [{"role": "user"}]}])
async def test_invalid_requests(server: LMStudioStandIn, body: Any) -> None:
    status, _, text = await ask(server, "/v1/chat/completions", body)
    assert (400, str) == (status, type(json.loads(text)["error"]))


# --- for Anthropic's clients ----------------------------------------------------------------------


async def test_messages(server: LMStudioStandIn) -> None:
    tool: Any = {"name": "weather", "input_schema": WEATHER["function"]["parameters"]}
    async with anthropic.AsyncAnthropic(api_key="lmstudio", base_url=server.url, max_retries=0) as client:
        response = await client.messages.create(
            model=MODEL, max_tokens=50, messages=user("Hi"), tools=[tool], tool_choice={"type": "any"}
        )
        assert ["tool_use"] == [block.type for block in response.content]
        async with client.messages.stream(model=MODEL, max_tokens=2, messages=user("[[say]]a b c[[/say]]")) as stream:
            streamed = await stream.get_final_message()
        assert ("max_tokens", 2) == (streamed.stop_reason, streamed.usage.output_tokens)
        with pytest.raises(anthropic.APIStatusError, match="The model has crashed"):
            async with client.messages.stream(model=MODEL, max_tokens=9, messages=user("[[fail]]")) as stream:
                await stream.get_final_message()
        with pytest.raises(anthropic.BadRequestError, match="greater than the context length"):
            await client.messages.create(model=MODEL, max_tokens=9, messages=user(LONG))
    raw = await ask(server, "/v1/messages", {"model": MODEL, "max_tokens": 9, "messages": user("Hi")})
    assert "end_turn" == Message.model_validate({"stop_sequence": None, **json.loads(raw[2])}).stop_reason
    failed = await ask(server, "/v1/messages", {"model": MODEL, "max_tokens": 9, "messages": user("[[fail]]")})
    assert (500, CRASH) == (failed[0], json.loads(failed[2])["error"]["message"])
    assert 400 == (await ask(server, "/v1/messages", {"model": MODEL, "messages": user("Hi")}))[0]
