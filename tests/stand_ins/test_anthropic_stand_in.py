"""The stand-in for Anthropic, used by Anthropic's own client and held against its types: models and messages."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest
from anthropic.types import Message, MessageTokensCount, ModelInfo, RawMessageStreamEvent
from pydantic import BaseModel

from ctxbackends.testing._stand_ins.anthropic_stand_in import AnthropicStandIn
from tests.stand_ins.anthropic_requests import CALL, CALLS, CLOCK, KEY, MODEL, THINK, WEATHER, message_body, post, user
from tests.stand_ins.validation import events, validate


class City(BaseModel):
    name: str
    rank: int


# --- models ---------------------------------------------------------------------------------------


async def test_models(anthropic_client: anthropic.AsyncAnthropic) -> None:
    models = [model async for model in anthropic_client.models.list()]

    assert ["claude-sonnet-4-5", "claude-haiku-4-5"] == [model.id for model in models]
    assert [3000, 3000] == [model.max_input_tokens for model in models]
    for model in models:
        validate(ModelInfo, model.model_dump(mode="json", exclude_unset=True))
    for name in ("claude-haiku-4-5", "claude-haiku-4-5-20251001"):
        assert "claude-haiku-4-5-20251001" == (await anthropic_client.models.retrieve(name)).id
    with pytest.raises(anthropic.NotFoundError, match="model: claude-0"):
        await anthropic_client.models.retrieve("claude-0")


async def test_pages_of_models() -> None:
    names = [f"claude-{number}" for number in range(5)]
    async with (
        AnthropicStandIn(models=names) as server,
        anthropic.AsyncAnthropic(api_key="any", base_url=server.url, max_retries=0) as client,
    ):
        page = await client.models.list(limit=2)
        assert (True, "claude-0", "claude-1") == (page.has_more, page.first_id, page.last_id)
        assert names == [model.id async for model in page]
        paths = [request.path for request in server.requests]
        assert [
            "/v1/models?limit=2",
            "/v1/models?limit=2&after_id=claude-1",
            "/v1/models?limit=2&after_id=claude-3",
        ] == paths
        before = await client.models.list(limit=2, before_id="claude-3")
        assert ["claude-1", "claude-2"] == [model.id for model in before.data]
        none = await client.models.list(after_id="claude-4")
        assert (False, None, []) == (none.has_more, none.first_id, none.data)
        for wrong in (0, 1001):
            with pytest.raises(anthropic.BadRequestError, match="limit: Input should be"):
                await client.models.list(limit=wrong)
        with pytest.raises(anthropic.BadRequestError, match="after_id"):
            await client.models.list(after_id="claude-9")


# --- messages -------------------------------------------------------------------------------------


async def test_message(anthropic_client: anthropic.AsyncAnthropic) -> None:
    answer = await anthropic_client.messages.create(**message_body("[[say]]Good morning![[/say]]", system="Be kind."))

    assert [("text", "Good morning!")] == [(block.type, getattr(block, "text", None)) for block in answer.content]
    assert ("end_turn", None) == (answer.stop_reason, answer.stop_sequence)
    assert "claude-haiku-4-5-20251001" == answer.model
    assert (4, 2) == (answer.usage.input_tokens, answer.usage.output_tokens)
    assert answer._request_id is not None
    assert answer._request_id.startswith("req_")


@pytest.mark.parametrize(
    "body",
    [
        message_body(),
        message_body(CALLS, tools=[WEATHER, CLOCK]),
        message_body("[[think]]one two[[/think]]" + CALL, tools=[WEATHER], thinking=THINK),
        message_body("[[think]]one two[[/think]]", thinking={"type": "adaptive", "display": "omitted"}),
        message_body("[[redact]]", thinking=THINK),
        message_body("[[refuse]]It harms.[[/refuse]][[say]]Well[[/say]]"),
        message_body("[[refuse]]"),
        message_body("[[say]]a END[[/say]]", stop_sequences=["END"]),
        message_body([{"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}]),
    ],
)
async def test_responses_match_the_vendors_types(anthropic_server: AnthropicStandIn, body: Any) -> None:
    status, headers, text = await post(anthropic_server, "/v1/messages", body)
    assert 200 == status
    assert "request-id" in headers
    plain = validate(Message, json.loads(text))

    _, headers, text = await post(anthropic_server, "/v1/messages", {**body, "stream": True})
    assert "text/event-stream; charset=utf-8" == headers["Content-Type"]
    events_ = events(text)
    assert [json.loads(data)["type"] for _, data in events_] == [name for name, _ in events_]
    chunks: list[Any] = [validate(RawMessageStreamEvent, json.loads(data)) for name, data in events_ if name != "ping"]
    assert ["message_start", "message_delta", "message_stop"] == [chunks[0].type, chunks[-2].type, chunks[-1].type]
    assert (None, []) == (chunks[0].message.stop_reason, chunks[0].message.content)
    assert plain.stop_reason == chunks[-2].delta.stop_reason
    assert plain.stop_details == chunks[-2].delta.stop_details
    assert plain.usage.output_tokens == chunks[-2].usage.output_tokens
    starts = [event for event in chunks if event.type == "content_block_start"]
    assert list(range(len(plain.content))) == [event.index for event in starts]
    assert [block.type for block in plain.content] == [event.content_block.type for event in starts]


async def test_accumulating_helper(anthropic_client: anthropic.AsyncAnthropic) -> None:
    body = message_body(
        f"[[think]]one two[[/think]][[say]]Let me see.[[/say]]{CALLS}", tools=[WEATHER, CLOCK], thinking=THINK
    )
    async with anthropic_client.messages.stream(**body) as stream:
        types = [event.type async for event in stream]
        streamed = await stream.get_final_message()
    plain = await anthropic_client.messages.create(**body)

    def content_of(message: Any) -> Any:
        return [block.model_dump(exclude={"id", "parsed_output"}) for block in message.content]

    assert content_of(plain) == content_of(streamed)
    assert ["thinking", "text", "tool_use", "tool_use"] == [block.type for block in streamed.content]
    calls = [block for block in streamed.content if block.type == "tool_use"]
    assert [{"city": "Oslo and Bergen"}, {}] == [call.input for call in calls]
    assert 2 == len({call.id for call in calls})
    assert "tool_use" == streamed.stop_reason
    assert plain.usage.output_tokens == streamed.usage.output_tokens
    assert 1 == types.count("signature")
    assert 3 < types.count("input_json")


async def test_order_of_a_stream(anthropic_server: AnthropicStandIn) -> None:
    body = message_body("[[think]]one two[[/think]][[say]]a b[[/say]]", thinking=THINK, stream=True)
    _, _, text = await post(anthropic_server, "/v1/messages", body)
    events_ = [json.loads(data) for _, data in events(text)]

    assert [
        "message_start",
        "content_block_start",
        "ping",
        "thinking_delta",
        "thinking_delta",
        "signature_delta",
        "content_block_stop",
        "content_block_start",
        "text_delta",
        "text_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ] == [event["delta"]["type"] if event["type"] == "content_block_delta" else event["type"] for event in events_]


async def test_tool_calls_are_streamed_in_pieces(anthropic_server: AnthropicStandIn) -> None:
    _, _, text = await post(anthropic_server, "/v1/messages", message_body(CALLS, tools=[WEATHER, CLOCK], stream=True))
    events_ = [json.loads(data) for _, data in events(text)]

    starts = [event["content_block"] for event in events_ if event["type"] == "content_block_start"]
    assert [("weather", {}), ("clock", {})] == [(block["name"], block["input"]) for block in starts]
    deltas = [(event["index"], event["delta"]) for event in events_ if event["type"] == "content_block_delta"]
    assert {"input_json_delta"} == {delta["type"] for _, delta in deltas}
    first = [delta["partial_json"] for index, delta in deltas if index == 0]
    assert "" == first[0]
    assert 3 < len(first)
    assert {"city": "Oslo and Bergen"} == json.loads("".join(first))
    assert [""] == [delta["partial_json"] for index, delta in deltas if index == 1]


@pytest.mark.parametrize(
    ("choice", "prompt", "names"),
    [
        ({"type": "auto"}, "Hello", []),
        ({"type": "auto"}, CALLS, ["weather", "clock"]),
        ({"type": "auto", "disable_parallel_tool_use": True}, CALLS, ["weather"]),
        ({"type": "none"}, CALL, []),
        ({"type": "any"}, "Hello", ["weather"]),
        ({"type": "tool", "name": "clock"}, "Hello", ["clock"]),
    ],
)
async def test_tool_choice(
    anthropic_client: anthropic.AsyncAnthropic, choice: Any, prompt: str, names: list[str]
) -> None:
    answer = await anthropic_client.messages.create(**message_body(prompt, tools=[WEATHER, CLOCK], tool_choice=choice))

    assert names == [block.name for block in answer.content if block.type == "tool_use"]
    assert ("tool_use" if names else "end_turn") == answer.stop_reason


async def test_a_tool_result_is_answered(anthropic_client: anthropic.AsyncAnthropic) -> None:
    body = message_body("[[think]]one two[[/think]]" + CALL, tools=[WEATHER], thinking=THINK)
    first = await anthropic_client.messages.create(**body)
    thinking, call = first.content
    assert isinstance(thinking, anthropic.types.ThinkingBlock)
    assert isinstance(call, anthropic.types.ToolUseBlock)
    result = {"type": "tool_result", "tool_use_id": call.id, "content": "[[say]]It rains.[[/say]]"}
    body["messages"] += [first.to_param(), {"role": "user", "content": [result]}]
    second = await anthropic_client.messages.create(**body)

    assert ["It rains."] == [block.text for block in second.content if block.type == "text"]
    forgery = {"type": "thinking", "thinking": "other", "signature": thinking.signature}
    for blocks, message in (
        ([forgery, call], r"messages\.1\.content\.0: Invalid `signature` in `thinking` block"),
        ([{"type": "thinking", "thinking": "other"}, call], r"messages\.1\.content\.0\.thinking\.signature: Field"),
        ([thinking], r"messages\.2\.content\.0: unexpected `tool_use_id` found in `tool_result` blocks"),
    ):
        body["messages"][1] = {"role": "assistant", "content": blocks}
        with pytest.raises(anthropic.BadRequestError, match=message):
            await anthropic_client.messages.create(**body)
    body["messages"][1:] = [first.to_param(), *user("Well?")]
    with pytest.raises(anthropic.BadRequestError, match=r"messages\.1: `tool_use` ids were found without"):
        await anthropic_client.messages.create(**body)


async def test_redacted_thinking(anthropic_client: anthropic.AsyncAnthropic) -> None:
    body = message_body("[[redact]][[think]]one two[[/think]]", thinking=THINK)
    async with anthropic_client.messages.stream(**body) as stream:
        answer = await stream.get_final_message()

    assert ["redacted_thinking", "text"] == [block.type for block in answer.content]
    await anthropic_client.messages.create(
        **message_body(messages=[*body["messages"], answer.to_param(), *user("And?")], thinking=THINK)
    )
    forgery = {"role": "assistant", "content": [{"type": "redacted_thinking", "data": "AAAA"}]}
    with pytest.raises(anthropic.BadRequestError, match="`redacted_thinking` block"):
        await anthropic_client.messages.create(**message_body(messages=[*body["messages"], forgery, *user("And?")]))


@pytest.mark.parametrize("thinking", [None, {"type": "disabled"}, {"type": "between_tools"}])
async def test_no_thinking_when_it_is_off(anthropic_client: anthropic.AsyncAnthropic, thinking: Any) -> None:
    answer = await anthropic_client.messages.create(
        **message_body("[[redact]][[think]]one[[/think]]", thinking=thinking)
    )

    assert ["text"] == [block.type for block in answer.content]


async def test_thinking_is_omitted(anthropic_client: anthropic.AsyncAnthropic) -> None:
    thinking = {"type": "adaptive", "display": "omitted"}
    answer = await anthropic_client.messages.create(**message_body("[[think]]one[[/think]]", thinking=thinking))

    block = answer.content[0]
    assert isinstance(block, anthropic.types.ThinkingBlock)
    assert "" == block.thinking
    assert "" != block.signature


async def test_structured_output(anthropic_client: anthropic.AsyncAnthropic) -> None:
    answer = await anthropic_client.messages.parse(**message_body(), output_format=City)
    assert City(name="x", rank=1) == answer.parsed_output

    async with anthropic_client.messages.stream(
        **message_body('[[say]]{"name": "Oslo", "rank": 2}[[/say]]', output_config={"effort": "low"}),
        output_format=City,
    ) as stream:
        final = await stream.get_final_message()
    assert City(name="Oslo", rank=2) == final.parsed_output


async def test_reasons_to_stop(anthropic_client: anthropic.AsyncAnthropic) -> None:
    async def stop_of(text: str, **more: Any) -> tuple[str | None, str | None, str]:
        answer = await anthropic_client.messages.create(**message_body(text, **more))
        output = "".join(block.text for block in answer.content if block.type == "text")
        return answer.stop_reason, answer.stop_sequence, output

    assert ("max_tokens", None, "a b ") == await stop_of("[[say]]a b c[[/say]]", max_tokens=2)
    assert ("stop_sequence", "END", "a ") == await stop_of("[[say]]a END c[[/say]]", stop_sequences=["X", "END"])
    assert ("refusal", None, "") == await stop_of("[[refuse]]")
    assert ("refusal", None, "Well") == await stop_of("[[refuse]][[say]]Well[[/say]]")
    assert ("model_context_window_exceeded", None, "a") == await stop_of("[[window]][[say]]a[[/say]]")
    assert ("pause_turn", None, "a") == await stop_of("[[pause]][[say]]a[[/say]]")
    long_text = "word " * 2990 + "[[say]]" + "a " * 20 + "[[/say]]"
    assert "model_context_window_exceeded" == (await stop_of(long_text.replace("word ", "", 30)))[0]
    answer = await anthropic_client.messages.create(**message_body("[[refuse]]It harms.[[/refuse]]"))
    assert answer.stop_details is not None
    assert "It harms." == answer.stop_details.explanation


async def test_prompts_are_cached(anthropic_client: anthropic.AsyncAnthropic) -> None:
    async def cache_usage(*blocks: Any, **more: Any) -> tuple[int, int | None, int | None]:
        answer = await anthropic_client.messages.create(**message_body(list(blocks), **more))
        usage = answer.usage
        return usage.input_tokens, usage.cache_creation_input_tokens, usage.cache_read_input_tokens

    block = {"type": "text", "text": "one two three", "cache_control": {"type": "ephemeral"}}
    an_hour = {"type": "text", "text": "four five", "cache_control": {"type": "ephemeral", "ttl": "1h"}}
    rest = {"type": "text", "text": "six"}
    assert (1, 0, 0) == await cache_usage(rest)
    assert (1, 3, 0) == await cache_usage(block, rest)
    assert (1, 0, 3) == await cache_usage(block, rest)
    assert (1, 2, 3) == await cache_usage(block, an_hour, rest)
    assert (1, 0, 5) == await cache_usage({**block, "cache_control": None}, an_hour, rest)
    assert (0, 1, 5) == await cache_usage(block, an_hour, rest, cache_control={"type": "ephemeral"})
    system = [{"type": "text", "text": "a b", "cache_control": {"type": "ephemeral"}}]
    assert (1, 2, 0) == await cache_usage(rest, system=system)
    answer = await anthropic_client.messages.create(**message_body([{**an_hour, "text": "a new text"}]))
    assert answer.usage.cache_creation is not None
    assert (0, 3) == (
        answer.usage.cache_creation.ephemeral_5m_input_tokens,
        answer.usage.cache_creation.ephemeral_1h_input_tokens,
    )


async def test_images_are_accepted(anthropic_client: anthropic.AsyncAnthropic) -> None:
    answer = await anthropic_client.messages.create(
        **message_body(
            [
                {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}},
                {"type": "image", "source": {"type": "url", "url": "https://example.org/cat.png"}},
                {"type": "text", "text": "[[say]]A cat.[[/say]]"},
            ]
        )
    )

    assert ["A cat."] == [block.text for block in answer.content if block.type == "text"]


async def test_count(anthropic_server: AnthropicStandIn, anthropic_client: anthropic.AsyncAnthropic) -> None:
    more: Any = {"system": [{"type": "text", "text": "Be brief."}], "tools": [WEATHER]}
    count = await anthropic_client.messages.count_tokens(model=MODEL, messages=user("one two"), **more)
    answer = await anthropic_client.messages.create(**message_body("one two", **more))

    assert answer.usage.input_tokens == count.input_tokens
    path = "/v1/messages/count_tokens"
    _, _, text = await post(anthropic_server, path, {"model": MODEL, "messages": user("one two")})
    assert 2 == validate(MessageTokensCount, json.loads(text)).input_tokens
    status, _, text = await post(anthropic_server, path, message_body())
    assert (400, "max_tokens: Extra inputs are not permitted") == (status, json.loads(text)["error"]["message"])


# --- as OpenAI has it -----------------------------------------------------------------------------


async def test_openai_client(anthropic_server: AnthropicStandIn) -> None:
    async with openai.AsyncOpenAI(api_key=KEY, base_url=f"{anthropic_server.url}/v1", max_retries=0) as client:
        answer = await client.chat.completions.create(
            model=MODEL,
            messages=user("[[think]]one[[/think]][[say]]not JSON[[/say]]"),
            response_format={"type": "json_object"},
            seed=1,
            logprobs=True,
            max_tokens=50,
            extra_body={"thinking": THINK, "unheard_of": 1},
        )
        assert "not JSON" == answer.choices[0].message.content
        assert (None, None) == (answer.choices[0].logprobs, answer.system_fingerprint)
        tool: Any = {"type": "function", "function": {"name": "weather", "strict": True, "parameters": {}}}
        async with client.chat.completions.stream(
            model=MODEL, messages=user(CALL), tools=[tool], stream_options={"include_usage": True}
        ) as stream:
            final = await stream.get_final_completion()
        assert "tool_calls" == final.choices[0].finish_reason
        assert final.usage is not None
        assert (None, None) == (final.usage.prompt_tokens_details, final.usage.completion_tokens_details)
        with pytest.raises(openai.RateLimitError) as rate_info:
            await client.chat.completions.create(model=MODEL, messages=user("[[rate]]"))
        assert "rate_limit_error" == rate_info.value.code
        with pytest.raises(openai.NotFoundError):
            await client.chat.completions.create(model="claude-0", messages=user("Hello"))
        with pytest.raises(openai.BadRequestError, match="n: must be 1"):
            await client.chat.completions.create(model=MODEL, messages=user("Hello"), n=2)
        with pytest.raises(openai.BadRequestError, match="at least one message"):
            await client.chat.completions.create(model=MODEL, messages=[])
    async with openai.AsyncOpenAI(api_key="wrong", base_url=f"{anthropic_server.url}/v1", max_retries=0) as client:
        with pytest.raises(openai.AuthenticationError, match="Invalid bearer token"):
            await client.chat.completions.create(model=MODEL, messages=user("Hello"))
