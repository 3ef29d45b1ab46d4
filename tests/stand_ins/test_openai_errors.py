"""The stand-in for OpenAI, used by OpenAI's own client and held against its types: errors."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest

from ctxbackends.testing._stand_ins.openai_stand_in import OpenAIStandIn
from tests.stand_ins.openai_requests import MODEL, PLAIN, WEATHER, post, user


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ({"model": MODEL, "top_k": 5}, "unknown_parameter", "top_k"),
        ({"model": MODEL, "max_tokens": 5}, "unsupported_parameter", "max_tokens"),
        ({"model": "gpt-0"}, "model_not_found", None),
        ({"model": MODEL, "messages": user("word " * 3001)}, "context_length_exceeded", "messages"),
        ({"model": MODEL, "messages": []}, "empty_array", "messages"),
        ({"model": MODEL, "messages": None}, "missing_required_parameter", "messages"),
        ({"model": MODEL, "messages": [{"role": "robot", "content": "a"}]}, "invalid_value", "messages[0].role"),
        ({"model": MODEL, "temperature": 3}, "integer_above_max_value", "temperature"),
        ({"model": MODEL, "max_completion_tokens": 0}, "integer_below_min_value", "max_completion_tokens"),
        ({"model": MODEL, "top_logprobs": 2}, None, "top_logprobs"),
        ({"model": MODEL, "stop": list("abcde")}, "array_above_max_length", "stop"),
        ({"model": MODEL, "stream_options": {"include_usage": True}}, None, "stream_options"),
        ({"model": MODEL, "tool_choice": "auto"}, None, "tool_choice"),
        ({"model": MODEL, "parallel_tool_calls": True}, None, "parallel_tool_calls"),
        ({"model": MODEL, "tools": [WEATHER], "tool_choice": "any"}, "invalid_value", "tool_choice"),
        (
            {"model": MODEL, "tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "x"}}},
            None,
            "tool_choice",
        ),
        ({"model": MODEL, "tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].function"),
        ({"model": MODEL, "response_format": {"type": "json_object"}}, None, "messages"),
        ({"model": MODEL, "response_format": {"type": "xml"}}, "invalid_value", "response_format.type"),
        (
            {"model": MODEL, "response_format": {"type": "json_schema"}},
            "missing_required_parameter",
            "response_format.json_schema",
        ),
        ({}, None, None),
        ([], None, None),
    ],
)
async def test_rejected_requests(openai_server: OpenAIStandIn, body: Any, code: str | None, param: str | None) -> None:
    if isinstance(body, dict):
        body = {"messages": user("Hello"), **body}
    status, headers, text = await post(openai_server, "/v1/chat/completions", body)

    error = json.loads(text)["error"]
    assert {"message", "type", "param", "code"} == set(error)
    assert (404 if code == "model_not_found" else 400, "invalid_request_error") == (status, error["type"])
    assert (code, param) == (error["code"], error["param"])
    assert "x-request-id" in headers


async def test_the_overflow_error_has_the_length(openai_client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match=r"limit of 3000 tokens\. Your messages resulted in 3001 tokens"):
        await openai_client.chat.completions.create(model=MODEL, messages=user("word " * 3001))
    with pytest.raises(
        openai.BadRequestError, match=r"length is 3000 tokens\. However, your messages resulted in 3001 tokens"
    ):
        await openai_client.chat.completions.create(model=PLAIN, messages=user("word " * 3001))


async def test_max_tokens_is_for_models_that_do_not_reason(openai_client: openai.AsyncOpenAI) -> None:
    answer = await openai_client.chat.completions.create(
        model=PLAIN, messages=user("[[think]]a[[/think]][[say]]a b[[/say]]"), max_tokens=1
    )

    assert "a " == answer.choices[0].message.content
    assert answer.usage is not None
    assert answer.usage.completion_tokens_details is not None
    assert 0 == answer.usage.completion_tokens_details.reasoning_tokens


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ({"type": "array"}, 'type: "object"'),
        ({"type": "object", "properties": {}}, "In context=(), 'additionalProperties' is required"),
        (
            {"type": "object", "properties": {"a": {"type": "string"}}, "additionalProperties": False},
            "Missing 'a'.",
        ),
        (
            {
                "type": "object",
                "properties": {"a": {"type": "object"}},
                "required": ["a"],
                "additionalProperties": False,
            },
            "In context=('properties', 'a',), 'additionalProperties'",
        ),
    ],
)
async def test_strict_schemas(openai_client: openai.AsyncOpenAI, schema: Any, fault: str) -> None:
    format_: Any = {"name": "it", "schema": schema, "strict": True}
    with pytest.raises(openai.BadRequestError) as exc_info:
        await openai_client.chat.completions.create(
            model=MODEL,
            messages=user("Hello"),
            response_format={"type": "json_schema", "json_schema": format_},
        )
    assert fault in exc_info.value.message
    assert "invalid_json_schema" == exc_info.value.code
    with pytest.raises(openai.BadRequestError) as exc_info:
        await openai_client.chat.completions.create(
            model=MODEL,
            messages=user("Hello"),
            tools=[{"type": "function", "function": {"name": "it", "parameters": schema, "strict": True}}],
        )
    assert "invalid_function_parameters" == exc_info.value.code


async def test_keys(openai_server: OpenAIStandIn) -> None:
    async with openai.AsyncOpenAI(
        api_key="sk-wrong-0123456789", base_url=f"{openai_server.url}/v1", max_retries=0
    ) as client:
        with pytest.raises(
            openai.AuthenticationError, match=r"Incorrect API key provided: sk-wrong\*+6789"
        ) as exc_info:
            await client.models.list()
    assert "invalid_api_key" == exc_info.value.code
    status, _, text = await post(openai_server, "/v1/models", None, Authorization="")
    assert (401, None) == (status, json.loads(text)["error"]["code"])


async def test_no_key_is_required() -> None:
    async with (
        OpenAIStandIn() as server,
        openai.AsyncOpenAI(api_key="any", base_url=f"{server.url}/v1", max_retries=0) as client,
    ):
        assert 3 == len((await client.models.list()).data)


async def test_unknown_path(openai_server: OpenAIStandIn) -> None:
    status, _, text = await post(openai_server, "/v1/nothing", {})

    assert (404, "Invalid URL (POST /v1/nothing)") == (status, json.loads(text)["error"]["message"])


async def test_rate_limit(openai_client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.RateLimitError) as exc_info:
        await openai_client.chat.completions.create(model=MODEL, messages=user("[[rate]]"))

    assert "rate_limit_exceeded" == exc_info.value.code
    assert "1" == exc_info.value.response.headers["retry-after"]


async def test_failure(openai_client: openai.AsyncOpenAI) -> None:
    with pytest.raises(openai.InternalServerError):
        await openai_client.chat.completions.create(model=MODEL, messages=user("[[fail]]"))


async def test_failure_in_a_stream(openai_client: openai.AsyncOpenAI) -> None:
    texts = []
    with pytest.raises(openai.APIError, match="The server had an error") as exc_info:
        async for chunk in await openai_client.chat.completions.create(
            model=MODEL, messages=user("[[fail]][[say]]a b c[[/say]]"), stream=True
        ):
            texts.append(chunk.choices[0].delta.content)

    assert ["", "a "] == texts
    assert not isinstance(exc_info.value, openai.APIStatusError)
    assert "server_error" == exc_info.value.type
