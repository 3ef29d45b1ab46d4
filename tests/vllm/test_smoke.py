"""Owns the proof that the real vLLM of the tests does what its helpers promise, without the SDK in between."""

from __future__ import annotations

import asyncio
import base64
import json
import struct
from collections.abc import AsyncIterator
from typing import Any, Final

import aiohttp
import pytest

from tests.vllm.server import CONTEXT_TOKENS, MODEL_NAME, VLLMServer

pytestmark = [pytest.mark.vllm, pytest.mark.timeout(400)]  # the first test of a server waits for its start

WEATHER: Final = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
CALL: Final = '<tool_call>{"name": "get_weather", "arguments": {"city": "Paris"}}</tool_call>'
CITY_FORMAT: Final = {
    "type": "json_schema",
    "json_schema": {
        "name": "city",
        "schema": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
THINKING: Final = {"chat_template_kwargs": {"enable_thinking": True}}
DELAY: Final = {"vllm_xargs": {"delay_ms": 10}}


@pytest.fixture
async def http(vllm_server: VLLMServer) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(vllm_server.endpoint, timeout=aiohttp.ClientTimeout(total=60)) as session:
        yield session


@pytest.fixture
async def embedding_http(vllm_embedding_server: VLLMServer) -> AsyncIterator[aiohttp.ClientSession]:
    timeout = aiohttp.ClientTimeout(total=60)
    async with aiohttp.ClientSession(vllm_embedding_server.endpoint, timeout=timeout) as session:
        yield session


def say(text: str) -> dict[str, Any]:
    return {"role": "user", "content": f"Please: [[say]]{text}[[/say]] and nothing else."}


async def post(http: aiohttp.ClientSession, path: str, body: Any = None) -> tuple[int, Any]:
    async with http.post(path, json=body) as response:
        return response.status, await response.json()


async def chat(http: aiohttp.ClientSession, *messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    status, answer = await post(http, "/v1/chat/completions", {"messages": messages, **fields})
    assert status == 200, answer
    choice: dict[str, Any] = answer["choices"][0]
    return choice


async def stream(http: aiohttp.ClientSession, *messages: dict[str, Any], **fields: Any) -> list[dict[str, Any]]:
    """The chunks of a whole stream; the delay lets them come one by one."""
    body = {"messages": messages, "stream": True, **DELAY, **fields}
    async with http.post("/v1/chat/completions", json=body) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        events = (await response.text()).split("\n\n")
    assert events.pop() == ""
    assert events.pop() == "data: [DONE]"
    return [json.loads(event.removeprefix("data: ")) for event in events]


def deltas(chunks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [choice["delta"] for chunk in chunks for choice in chunk["choices"]]


# --- chat -----------------------------------------------------------------------------------------


async def test_chat_says_what_the_prompt_scripts(http: aiohttp.ClientSession) -> None:
    body = {"model": MODEL_NAME, "messages": [say("Hello 漢字 🎉")]}
    status, answer = await post(http, "/v1/chat/completions", body)
    assert status == 200
    assert answer["model"] == MODEL_NAME
    (choice,) = answer["choices"]
    assert choice["message"]["content"] == "Hello 漢字 🎉"
    assert choice["message"]["reasoning"] is None
    assert "tool_calls" not in choice["message"]
    assert choice["finish_reason"] == "stop"
    assert answer["usage"]["completion_tokens"] > 1


async def test_the_last_script_wins(http: aiohttp.ClientSession) -> None:
    first = {"role": "assistant", "content": "one"}
    assert (await chat(http, say("one"), first, say("two")))["message"]["content"] == "two"


async def test_arguments_win_over_the_prompt(http: aiohttp.ClientSession) -> None:
    choice = await chat(http, say("one"), vllm_xargs={"say": "ab ", "repeat": 3, "delay_ms": 5})
    assert choice["message"]["content"] == "ab ab ab "


async def test_repeat_counts_for_the_prompt_too(http: aiohttp.ClientSession) -> None:
    assert (await chat(http, say("ab"), vllm_xargs={"repeat": 2}))["message"]["content"] == "abab"


@pytest.mark.parametrize("sampling", [{"temperature": 0}, {"temperature": 1.5, "top_p": 0.5, "frequency_penalty": 2}])
async def test_sampling_cannot_change_it(http: aiohttp.ClientSession, sampling: dict[str, Any]) -> None:
    assert (await chat(http, say("no no no no"), **sampling))["message"]["content"] == "no no no no"


async def test_max_tokens_and_stop_cut_it(http: aiohttp.ClientSession) -> None:
    assert (await chat(http, say("one two three"), max_tokens=2))["finish_reason"] == "length"
    choice = await chat(http, say("one two three"), stop=[" three"])
    assert (choice["message"]["content"], choice["stop_reason"]) == ("one two", " three")


async def test_nothing_is_forced_without_a_script(http: aiohttp.ClientSession) -> None:
    choice = await chat(http, {"role": "user", "content": "Hello"}, max_tokens=8, seed=1, ignore_eos=True)
    assert choice["finish_reason"] == "length"


async def test_requests_of_one_batch_keep_their_scripts(http: aiohttp.ClientSession) -> None:
    """They join and leave the batch at different steps, and more of them come than it has rows."""
    texts = [f"{'word ' * (number % 7)}{number}" for number in range(24)]
    choices = await asyncio.gather(*(chat(http, say(text), vllm_xargs={"delay_ms": 2}) for text in texts))
    assert [choice["message"]["content"] for choice in choices] == texts


@pytest.mark.parametrize("arguments", [{"says": "a"}, {"repeat": "2"}, {"delay_ms": -1}])
async def test_an_invalid_argument_is_rejected(http: aiohttp.ClientSession, arguments: dict[str, Any]) -> None:
    status, answer = await post(http, "/v1/chat/completions", {"messages": [say("a")], "vllm_xargs": arguments})
    assert status == 400
    assert "vllm_xargs" in answer["error"]["message"]


# --- streams --------------------------------------------------------------------------------------


async def test_stream(http: aiohttp.ClientSession) -> None:
    chunks = await stream(http, say("one two three"), stream_options={"include_usage": True})
    parts = [delta["content"] for delta in deltas(chunks) if "content" in delta]
    assert parts[0] == ""  # beside the role
    assert "".join(parts) == "one two three"
    assert len(parts) > 3  # paced, thus in pieces
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["completion_tokens"] == len(parts)  # the end-of-sequence token for the empty first


async def test_stream_of_a_tool_call(http: aiohttp.ClientSession) -> None:
    chunks = await stream(http, say(CALL), tools=[WEATHER])
    calls = [call for delta in deltas(chunks) for call in delta.get("tool_calls", [])]
    assert calls[0]["function"] == {"name": "get_weather"}  # no `arguments` beside the name
    assert json.loads("".join(call["function"]["arguments"] for call in calls[1:])) == {"city": "Paris"}
    assert len(calls) > 2
    assert chunks[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_stream_of_reasoning(http: aiohttp.ClientSession) -> None:
    chunks_ = deltas(await stream(http, say("<think>one two</think>three"), **THINKING))
    assert "".join(delta.get("reasoning", "") for delta in chunks_) == "one two"
    assert "".join(delta.get("content", "") for delta in chunks_) == "three"


# --- tools ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tool_choice", "content", "finish_reason"),
    [
        ("auto", None, "tool_calls"),
        ("required", "", "tool_calls"),
        ({"type": "function", "function": {"name": "get_weather"}}, "", "stop"),  # vLLM's way with a named function
    ],
)
async def test_tool_call(
    http: aiohttp.ClientSession, tool_choice: Any, content: str | None, finish_reason: str
) -> None:
    choice = await chat(http, say(CALL), tools=[WEATHER], tool_choice=tool_choice)
    (call,) = choice["message"]["tool_calls"]
    assert call["type"] == "function"
    assert call["function"] == {"name": "get_weather", "arguments": '{"city": "Paris"}'}
    assert choice["message"]["content"] == content
    assert choice["finish_reason"] == finish_reason


async def test_text_and_two_tool_calls(http: aiohttp.ClientSession) -> None:
    message = (await chat(http, say(f"I look.{CALL}{CALL}"), tools=[WEATHER]))["message"]
    assert message["content"] == "I look."
    assert [call["function"]["name"] for call in message["tool_calls"]] == ["get_weather"] * 2


async def test_a_tool_result_can_script_the_answer(http: aiohttp.ClientSession) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'}}
    choice = await chat(
        http,
        {"role": "system", "content": "Be brief."},
        say(CALL),
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "[[say]]It is sunny.[[/say]]"},
        tools=[WEATHER],
    )
    assert choice["message"]["content"] == "It is sunny."
    assert choice["finish_reason"] == "stop"


# --- reasoning ------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [THINKING, {"reasoning_effort": "high"}])
async def test_reasoning(http: aiohttp.ClientSession, options: dict[str, Any]) -> None:
    message = (await chat(http, say("<think>Let me see.</think>Yes."), **options))["message"]
    assert (message["reasoning"], message["content"]) == ("Let me see.", "Yes.")


async def test_reasoning_that_does_not_end(http: aiohttp.ClientSession) -> None:
    message = (await chat(http, say("Let me see."), **THINKING))["message"]
    assert (message["reasoning"], message["content"]) == ("Let me see.", None)


async def test_thinking_is_off_by_default(http: aiohttp.ClientSession) -> None:
    message = (await chat(http, say("<think>a</think>b")))["message"]
    assert (message["reasoning"], message["content"]) == (None, "<think>a</think>b")


async def test_reasoning_before_a_tool_call(http: aiohttp.ClientSession) -> None:
    message = (await chat(http, say(f"<think>Let me see.</think>{CALL}"), tools=[WEATHER], **THINKING))["message"]
    assert message["reasoning"] == "Let me see."
    assert len(message["tool_calls"]) == 1


# --- structured output ----------------------------------------------------------------------------


@pytest.mark.parametrize("text", ['{"city": "Paris"}', '{\n  "city" : "Par\\u00eds 漢"\n}'])
async def test_json_schema_lets_matching_text_pass(http: aiohttp.ClientSession, text: str) -> None:
    choice = await chat(http, say(text), response_format=CITY_FORMAT)
    assert choice["message"]["content"] == text
    assert choice["finish_reason"] == "stop"


async def test_json_schema_after_reasoning(http: aiohttp.ClientSession) -> None:
    text = '<think>Not JSON.</think>{"city": "Paris"}'
    message = (await chat(http, say(text), response_format=CITY_FORMAT, **THINKING))["message"]
    assert (message["reasoning"], message["content"]) == ("Not JSON.", '{"city": "Paris"}')


@pytest.mark.parametrize("text", ['{"town": "Paris"}', '{"city": "Par'])
async def test_text_that_the_grammar_rejects(http: aiohttp.ClientSession, text: str) -> None:
    """The engine ends the request at the first token, or at the end, that the grammar does not allow."""
    status, answer = await post(
        http, "/v1/chat/completions", {"messages": [say(text)], "response_format": CITY_FORMAT, "max_tokens": 40}
    )
    assert status == 500
    assert answer["error"]["type"] == "InternalServerError"
    assert (await chat(http, say("still here")))["message"]["content"] == "still here"


@pytest.mark.parametrize("escape", [r"\"", r"\\", r"\n"])
async def test_a_text_of_bounded_length_has_no_escape(http: aiohttp.ClientSession, escape: str) -> None:
    """Why the SDK sends no lengths to vLLM. When this fails, xgrammar has mended it (issue 800): send them."""
    schema = {"type": "object", "properties": {"city": {"type": "string", "maxLength": 40}}, "required": ["city"]}
    format_ = {"type": "json_schema", "json_schema": {"name": "city", "schema": schema}}
    body = {"messages": [say(f'{{"city": "a{escape}b"}}')], "response_format": format_}
    status, answer = await post(http, "/v1/chat/completions", body)
    assert (500, "InternalServerError") == (status, answer["error"]["type"])
    schema["properties"] = {"city": {"type": "string"}}
    assert 200 == (await post(http, "/v1/chat/completions", body))[0]


async def test_cut_json(http: aiohttp.ClientSession) -> None:
    """What a test scripts that wants incomplete JSON: all of it, and too few tokens."""
    choice = await chat(http, say('{"city": "Paris"}'), response_format=CITY_FORMAT, max_tokens=3)
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"].startswith('{"')


# --- the other paths ------------------------------------------------------------------------------


async def test_models(http: aiohttp.ClientSession) -> None:
    async with http.get("/v1/models") as response:
        (model,) = (await response.json())["data"]
    assert (model["id"], model["max_model_len"]) == (MODEL_NAME, CONTEXT_TOKENS)


async def test_tokenize_messages(http: aiohttp.ClientSession) -> None:
    messages = [{"role": "user", "content": "Hello 漢字"}]
    status, answer = await post(http, "/tokenize", {"model": MODEL_NAME, "messages": messages})
    assert status == 200
    assert answer["max_model_len"] == CONTEXT_TOKENS
    assert answer["count"] == len(answer["tokens"])
    status, text = await post(http, "/detokenize", {"model": MODEL_NAME, "tokens": answer["tokens"]})
    assert status == 200
    assert text["prompt"] == "<|im_start|>user\nHello 漢字<|im_end|>\n<|im_start|>assistant\n"


async def test_messages(http: aiohttp.ClientSession) -> None:
    body = {"model": MODEL_NAME, "max_tokens": 50, "messages": [say("Hello")]}
    status, answer = await post(http, "/v1/messages", body)
    assert status == 200
    assert answer["type"] == "message"
    assert answer["content"] == [{"type": "text", "text": "Hello"}]
    assert answer["stop_reason"] == "end_turn"


async def is_sleeping(http: aiohttp.ClientSession) -> Any:
    async with http.get("/is_sleeping") as response:
        return (await response.json())["is_sleeping"]


async def test_sleep_and_wake(http: aiohttp.ClientSession) -> None:
    assert (await post(http, "/sleep"))[0] == 200
    try:
        assert await is_sleeping(http) is True
        async with http.get("/health") as response:
            assert response.status == 200  # says nothing of the sleep
        waiting = asyncio.create_task(chat(http, say("awake")))
        done, _ = await asyncio.wait([waiting], timeout=1)
        assert not done
    finally:
        assert (await post(http, "/wake_up"))[0] == 200
    assert (await waiting)["message"]["content"] == "awake"
    assert await is_sleeping(http) is False


# --- embeddings -----------------------------------------------------------------------------------


async def test_embeddings(embedding_http: aiohttp.ClientSession) -> None:
    body = {"model": MODEL_NAME, "input": ["Hello", "Hello", "Something else"]}
    status, answer = await post(embedding_http, "/v1/embeddings", body)
    assert status == 200
    assert [item["index"] for item in answer["data"]] == [0, 1, 2]
    one, same, other = (item["embedding"] for item in answer["data"])
    assert one == pytest.approx(same, abs=0.02)
    assert one != pytest.approx(other, abs=0.02)
    assert sum(value * value for value in one) == pytest.approx(1, abs=0.01)
    assert answer["usage"]["prompt_tokens"] > 3


async def test_embeddings_as_base64(embedding_http: aiohttp.ClientSession) -> None:
    status, answer = await post(embedding_http, "/v1/embeddings", {"input": "Hello", "encoding_format": "base64"})
    assert status == 200
    raw = base64.b64decode(answer["data"][0]["embedding"])
    assert len(struct.unpack(f"<{len(raw) // 4}f", raw)) == 128


async def test_an_embedding_server_cannot_chat(embedding_http: aiohttp.ClientSession) -> None:
    status, answer = await post(embedding_http, "/v1/chat/completions", {"messages": [say("a")]})
    assert (status, answer) == (404, {"detail": "Not Found"})
