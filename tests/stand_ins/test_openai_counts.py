"""The stand-in for OpenAI, used by OpenAI's own client and held against its types: embeddings and counts."""

from __future__ import annotations

import base64
import json
import math
import struct
from typing import Any

import openai
import pytest
from openai.types import CreateEmbeddingResponse
from openai.types.responses import InputTokenCountResponse

from ctxbackends.testing._stand_ins.openai_stand_in import OpenAIStandIn
from tests.stand_ins.openai_requests import MODEL, WEATHER, post, user
from tests.stand_ins.validation import validate


async def test_embeddings(openai_server: OpenAIStandIn, openai_client: openai.AsyncOpenAI) -> None:
    model = "text-embedding-3-small"
    encoded_ = await openai_client.embeddings.create(model=model, input=["a", "b", "a"])
    plain = await openai_client.embeddings.create(model=model, input=["a", "b", "a"], encoding_format="float")

    assert ["base64", "float"] == [request.json["encoding_format"] for request in openai_server.requests]
    vectors = [entry.embedding for entry in plain.data]
    assert [8, 8, 8] == [len(vector) for vector in vectors]
    assert vectors[0] == vectors[2] != vectors[1]
    assert pytest.approx(1.0) == math.fsum(value * value for value in vectors[0])
    assert [pytest.approx(vector, abs=1e-6) for vector in vectors] == [entry.embedding for entry in encoded_.data]
    assert 3 == plain.usage.prompt_tokens
    wide = await openai_client.embeddings.create(model=model, input="a", dimensions=1536)
    assert 1536 == len(wide.data[0].embedding)
    numbers = await openai_client.embeddings.create(model=model, input=[[1, 2], [3]])
    assert 3 == numbers.usage.total_tokens


async def test_raw_embeddings(openai_server: OpenAIStandIn) -> None:
    body = {"model": "text-embedding-3-small", "input": "a"}
    _, _, text = await post(openai_server, "/v1/embeddings", body)
    plain = validate(CreateEmbeddingResponse, json.loads(text))
    _, _, text = await post(openai_server, "/v1/embeddings", {**body, "encoding_format": "base64"})
    encoded_ = base64.b64decode(json.loads(text)["data"][0]["embedding"])

    assert pytest.approx(plain.data[0].embedding, abs=1e-6) == list(struct.unpack("<8f", encoded_))


@pytest.mark.parametrize(
    ("input_", "code"),
    [([], None), ("", None), (["a", ""], None), (["a"] * 2049, "array_above_max_length"), ("a " * 8193, None)],
)
async def test_inputs_that_cannot_be_embedded(openai_client: openai.AsyncOpenAI, input_: Any, code: str | None) -> None:
    with pytest.raises(openai.BadRequestError) as exc_info:
        await openai_client.embeddings.create(model="text-embedding-3-small", input=input_)
    assert code == exc_info.value.code


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"input": "a", "top_k": 1}, "unknown_parameter"),
        ({}, "missing_required_parameter"),
        ({"input": "a", "dimensions": 0}, "integer_below_min_value"),
        ({"input": "a", "encoding_format": "hex"}, "invalid_value"),
        ({"input": "a", "model": "text-embedding-0"}, "model_not_found"),
        ({"input": "a", "model": None}, None),
    ],
)
async def test_rejected_embeddings(openai_server: OpenAIStandIn, body: Any, code: str | None) -> None:
    status, _, text = await post(openai_server, "/v1/embeddings", {"model": "text-embedding-3-small", **body})

    assert (404 if code == "model_not_found" else 400, code) == (status, json.loads(text)["error"]["code"])


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"input": "a", "model": "gpt-0"}, "model_not_found"),
        ({"model": MODEL}, "missing_required_parameter"),
        ({"input": "a", "seed": 1}, "unknown_parameter"),
    ],
)
async def test_rejected_counts(openai_server: OpenAIStandIn, body: Any, code: str) -> None:
    status, _, text = await post(openai_server, "/v1/responses/input_tokens", body)

    assert (404 if code == "model_not_found" else 400, code) == (status, json.loads(text)["error"]["code"])


async def test_a_full_batch(openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.embeddings.create(model="text-embedding-3-small", input=["a"] * 2048)

    assert list(range(2048)) == [entry.index for entry in answer.data]


async def test_models_for_the_wrong_work(openai_client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.PermissionDeniedError):
        await openai_client.embeddings.create(model=MODEL, input="a")
    with pytest.raises(openai.NotFoundError, match="not a chat model"):
        await openai_client.chat.completions.create(model="text-embedding-3-small", messages=user("a"))


async def test_count(openai_server: OpenAIStandIn, openai_client: openai.AsyncOpenAI) -> None:
    count = await openai_client.responses.input_tokens.count(
        model=MODEL, input="one two three", instructions="Be brief."
    )
    chat = await openai_client.chat.completions.create(
        model=MODEL, messages=[{"role": "system", "content": "Be brief."}, *user("one two three")]
    )

    assert chat.usage is not None
    assert 5 == count.input_tokens == chat.usage.prompt_tokens
    _, _, text = await post(openai_server, "/v1/responses/input_tokens", {"model": MODEL, "input": user("a b")})
    assert 2 == validate(InputTokenCountResponse, json.loads(text)).input_tokens


async def test_count_with_tools(openai_client: openai.AsyncOpenAI) -> None:
    flat: Any = {"type": "function", "strict": False, **WEATHER["function"]}
    items: Any = [
        *user("a b"),
        {"type": "function_call", "call_id": "c", "name": "weather", "arguments": '{"city": "Oslo"}'},
        {"type": "function_call_output", "call_id": "c", "output": "It rains."},
    ]
    count = await openai_client.responses.input_tokens.count(model=MODEL, input=items, tools=[flat])
    call: Any = {"id": "c", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Oslo"}'}}
    messages: Any = [
        *user("a b"),
        {"role": "assistant", "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c", "content": "It rains."},
    ]
    chat = await openai_client.chat.completions.create(model=MODEL, messages=messages, tools=[WEATHER])

    assert chat.usage is not None
    assert chat.usage.prompt_tokens == count.input_tokens
