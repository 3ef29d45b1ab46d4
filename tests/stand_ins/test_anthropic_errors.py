"""The stand-in for Anthropic, used by Anthropic's own client and held against its types: errors."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import pytest
from anthropic.types import BetaErrorResponse

from ctxbackends.testing._stand_ins.anthropic_stand_in import AnthropicStandIn
from tests.stand_ins.anthropic_requests import CLOCK, KEY, MODEL, OLD, THINK, WEATHER, message_body, post, user
from tests.stand_ins.validation import validate


def with_format(schema: Any) -> Any:
    return message_body(output_config={"format": {"type": "json_schema", "schema": schema}})


def image(**source: Any) -> Any:
    return message_body([{"type": "image", "source": source}])


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (message_body(max_tokens=None), "max_tokens: Field required"),
        (message_body(model=None), "model: Field required"),
        (message_body(messages=[]), "messages: at least one message is required"),
        (message_body(""), "messages.0: all messages must have non-empty content"),
        (message_body(messages=[{"role": "user"}]), "messages.0.content: Field required"),
        (message_body(messages=[{"role": "robot", "content": "a"}]), "messages.0.role: Input should be"),
        (message_body([{"type": "text", "text": ""}]), "text content blocks must be non-empty"),
        (message_body([{"type": "audio"}]), "messages.0.content.0: Input tag 'audio' found"),
        (message_body([{"type": "image"}]), "messages.0.content.0.image.source: Field required"),
        (image(type="path"), "messages.0.content.0.image.source: Input tag 'path' found"),
        (image(type="url"), "messages.0.content.0.image.source.url.url: Field required"),
        (image(type="base64", media_type="image/bmp", data=""), "base64.media_type: Input should be"),
        (image(type="base64", media_type="image/png", data="!"), "invalid base64 data"),
        (
            message_body([{"type": "tool_result", "tool_use_id": "a", "content": [{"type": "x"}]}]),
            "Input tag 'x' found",
        ),
        (message_body(system=[{"type": "text", "text": ""}]), "system.0: text content blocks must be non-empty"),
        (message_body(seed=1), "seed: Extra inputs are not permitted"),
        (message_body(temperature=1.5), "temperature: Input should be less than or equal to 1"),
        (message_body(temperature=-1), "temperature: Input should be greater than or equal to 0"),
        (
            message_body(tools=[{**CLOCK, "input_schema": {"type": "array"}}]),
            "input_schema.type: Input should be 'object'",
        ),
        (message_body(temperature="hot"), "temperature: Input should be a valid number"),
        (message_body(temperature=1, top_p=1), "`temperature` and `top_p` cannot both be specified"),
        (message_body(stop_sequences=["a", " "]), "stop_sequences.1: each stop sequence must contain non-whitespace"),
        (message_body("word " * 3001), "prompt is too long: 3001 tokens > 3000 maximum"),
        (message_body(tools=[{"name": "a"}]), "tools.0.custom.input_schema: Field required"),
        (message_body(tools=[{"name": "a", "input_schema": {}}]), "tools.0.custom.input_schema.type: Field required"),
        (message_body(tools=[{**CLOCK, "name": "a b"}]), "tools.0.custom.name: String should match pattern"),
        (message_body(tools=[{**WEATHER, "strict": True}]), "'additionalProperties' must be explicitly set to false"),
        (message_body(tools=[CLOCK, CLOCK]), "tools: Tool names must be unique."),
        (message_body(tool_choice={"type": "any"}), "tool_choice may only be specified while providing tools"),
        (message_body(tools=[CLOCK], tool_choice={"type": "all"}), "tool_choice: Input tag 'all' found"),
        (
            message_body(tools=[CLOCK], tool_choice={"type": "tool", "name": "a"}),
            "Tool 'a' not found in provided tools",
        ),
        (message_body(thinking={"type": "on"}), "thinking: Input tag 'on' found"),
        (message_body(thinking={"type": "enabled"}), "thinking.enabled.budget_tokens: Field required"),
        (message_body(thinking={"type": "enabled", "budget_tokens": 9}), "budget_tokens: Input should be greater"),
        (
            message_body(thinking={"type": "adaptive", "budget_tokens": 9}),
            "thinking.adaptive.budget_tokens: Extra inputs",
        ),
        (message_body(thinking=THINK, max_tokens=1024), "`max_tokens` must be greater than `thinking.budget_tokens`"),
        (message_body(thinking=THINK, temperature=0.5), "`temperature` may only be set to 1 when thinking is enabled"),
        (message_body(thinking=THINK, tools=[CLOCK], tool_choice={"type": "any"}), "Thinking may not be enabled when"),
        (message_body(output_config={"format": {"type": "json"}}), "output_config.format.type: Input should be"),
        (
            message_body(output_config={"format": {"type": "json_schema"}}),
            "output_config.format.schema: Field required",
        ),
        (message_body(output_config={"effort": "most"}), "output_config.effort: Input should be"),
        (message_body(output_config={"style": 1}), "output_config.style: Extra inputs are not permitted"),
        (with_format({"type": "object"}), "For 'object' type, 'additionalProperties' must be explicitly set to false"),
        (
            with_format({"anyOf": [{"type": "integer", "minimum": 1}]}),
            "output_config.format.schema: For 'integer' type, property 'minimum' is not supported",
        ),
        (
            with_format({"$defs": {"a": {"type": "string", "minLength": 1, "maxLength": 2}}}),
            "For 'string' type, properties maxLength, minLength are not supported",
        ),
        (
            with_format({"type": "array", "minItems": 2, "items": {"type": "string"}}),
            "For 'array' type, 'minItems' values other than 0 or 1 are not supported",
        ),
        ([], "The request body is not valid JSON"),
    ],
)
async def test_rejected_requests(anthropic_server: AnthropicStandIn, body: Any, message: str) -> None:
    status, headers, text = await post(anthropic_server, "/v1/messages", body, anthropic_version=OLD)

    error = validate(BetaErrorResponse, json.loads(text))
    assert (400, "invalid_request_error") == (status, error.error.type)
    assert message in error.error.message
    assert headers["request-id"] == error.request_id


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (message_body(temperature=1), "temperature: Extra inputs are not permitted"),
        (message_body(top_p=1), "top_p: Extra inputs are not permitted"),
        (message_body(top_k=1), "top_k: Extra inputs are not permitted"),
        (
            message_body([{"type": "text", "text": "a", "citations": [{"type": "char_location"}]}]),
            "messages.0.content.0.text.citations: ",
        ),
        (
            message_body(
                messages=[
                    *user("a"),
                    {"role": "assistant", "content": [{"type": "document", "source": {"type": "text", "data": "a"}}]},
                    *user("b"),
                ]
            ),
            "messages.1.content.0: `document` blocks",
        ),
    ],
)
async def test_options_removed_in_the_new_version(anthropic_server: AnthropicStandIn, body: Any, message: str) -> None:
    status, _, text = await post(anthropic_server, "/v1/messages", body)
    assert (400, "invalid_request_error") == (status, json.loads(text)["error"]["type"])
    assert json.loads(text)["error"]["message"].startswith(message)

    status, _, _ = await post(anthropic_server, "/v1/messages", body, anthropic_version=OLD)
    assert 200 == status


async def test_versions(anthropic_server: AnthropicStandIn) -> None:
    for version, message in (
        ("", "anthropic-version: header is required"),
        ("2020-01-01", 'anthropic-version: "2020-01-01" is not a valid version'),
    ):
        status, _, text = await post(anthropic_server, "/v1/messages", message_body(), anthropic_version=version)
        assert (400, message) == (status, json.loads(text)["error"]["message"])


async def test_keys(anthropic_server: AnthropicStandIn) -> None:
    for headers, message in (
        ({"x_api_key": "wrong"}, "invalid x-api-key"),
        ({"x_api_key": "", "Authorization": "Bearer wrong"}, "Invalid bearer token"),
        ({"x_api_key": ""}, "x-api-key header is required"),
        ({"x_api_key": "wrong", "Authorization": f"Bearer {KEY}"}, "invalid x-api-key"),
    ):
        status, _, text = await post(anthropic_server, "/v1/messages", message_body(), **headers)
        assert (401, "authentication_error", message) == (status, *json.loads(text)["error"].values())
    status, _, _ = await post(
        anthropic_server, "/v1/messages", message_body(), x_api_key="", Authorization=f"Bearer {KEY}"
    )
    assert 200 == status
    async with anthropic.AsyncAnthropic(api_key="wrong", base_url=anthropic_server.url, max_retries=0) as client:
        with pytest.raises(anthropic.AuthenticationError):
            await client.messages.create(**message_body())
    async with anthropic.AsyncAnthropic(auth_token=KEY, base_url=anthropic_server.url, max_retries=0) as client:
        await client.messages.create(**message_body())


async def test_errors_of_the_client(anthropic_client: anthropic.AsyncAnthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="model: claude-0") as missing_info:
        await anthropic_client.messages.create(**message_body(model="claude-0"))
    assert "not_found_error" == missing_info.value.type
    with pytest.raises(anthropic.RateLimitError) as rate_info:
        await anthropic_client.messages.create(**message_body("[[rate]]"))
    assert ("rate_limit_error", "1") == (rate_info.value.type, rate_info.value.response.headers["retry-after"])
    with pytest.raises(anthropic.OverloadedError) as overload_info:
        await anthropic_client.messages.create(**message_body("[[overload]]"))
    assert (529, "overloaded_error") == (overload_info.value.response.status_code, overload_info.value.type)
    with pytest.raises(anthropic.InternalServerError) as failure_info:
        await anthropic_client.messages.create(**message_body("[[fail]]"))
    assert (500, "api_error") == (failure_info.value.response.status_code, failure_info.value.type)
    with pytest.raises(anthropic.BadRequestError, match="top_x: Extra inputs are not permitted"):
        await anthropic_client.messages.create(**message_body(), extra_body={"top_x": 1})
    with pytest.raises(anthropic.NotFoundError, match="Not found"):
        await anthropic_client.post("/v1/nothing", cast_to=object)


async def test_failure_in_a_stream(anthropic_client: anthropic.AsyncAnthropic) -> None:
    texts = []
    with pytest.raises(anthropic.APIStatusError, match="Overloaded") as exc_info:
        async with anthropic_client.messages.stream(**message_body("[[fail]][[say]]a b[[/say]]")) as stream:
            async for text in stream.text_stream:
                texts.append(text)

    assert ["a "] == texts
    assert (200, "overloaded_error") == (exc_info.value.response.status_code, exc_info.value.type)


async def test_no_key_is_required() -> None:
    async with (
        AnthropicStandIn() as server,
        anthropic.AsyncAnthropic(api_key="any", base_url=server.url, max_retries=0) as client,
    ):
        count = await client.messages.count_tokens(model=MODEL, messages=user("one two"))
    assert 2 == count.input_tokens
