"""The LangChain adapter: options, messages, streams, tool loops, structured output, and copies."""

from __future__ import annotations

import base64
import copy
import functools
import json
import logging
import pickle
from collections.abc import Sequence
from typing import Any

import pytest

pytest.importorskip("langchain_core", reason="the extra langchain is not installed")

from langchain_core.exceptions import ModelInvalidRequestError
from langchain_core.load import dumps
from langchain_core.messages import (
    AIMessage,
    BaseMessage,
    ChatMessage,
    FunctionMessage,
    HumanMessage,
    SystemMessage,
    ToolMessage,
)
from pydantic import ValidationError

from ctxbackends import BackendConfig, Message, ToolCall, Usage, open_backend
from ctxbackends.errors import ConfigError, UnsupportedOptionError
from ctxbackends.integrations.langchain import ChatCtxbackends, CtxbackendsEmbeddings
from ctxbackends.testing import Answer, OllamaStandIn, OpenAIStandIn, Question
from tests.integrations.langchain_models import (
    CALLED,
    Way,
    ask,
    both_ways,
    every_wire,
    get_time,
    get_weather,
    hello,
    model_over,
    send,
)

PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PNG_TEXT = base64.b64encode(PNG).decode()
PDF_TEXT = base64.b64encode(b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n").decode()
WAV_TEXT = base64.b64encode(b"RIFF\x24\x00\x00\x00WAVEfmt ").decode()


# --- options ----------------------------------------------------------------------------------------


async def test_options_of_the_model_and_of_a_call_are_sent() -> None:
    options: dict[str, Any] = {"temperature": 0.5, "max_tokens": 7, "stop": ["x"], "seed": 3, "top_p": 0.9}
    options["extra_body"] = {"user": "u"}
    async with model_over("openai", **options) as (model, server):
        await ask(model, "hi")
        await ask(model, "hi", temperature=0.1, stop=["y"], seed=None, timeout=5)
    first, second = (request.json for request in server.requests)
    expected = {"temperature": 0.5, "max_completion_tokens": 7, "stop": ["x"], "seed": 3, "top_p": 0.9, "user": "u"}
    assert expected == {name: first[name] for name in expected}
    assert (0.1, ["y"], False) == (second["temperature"], second["stop"], "seed" in second)


async def test_an_unknown_option_is_an_error_that_names_the_right_one() -> None:
    async with model_over("openai") as (model, _):
        with pytest.raises(TypeError, match=r"unknown option: max_completion_tokens; did you mean max_tokens\?"):
            await ask(model, "hi", max_completion_tokens=5)
    with pytest.raises(ValidationError, match="temprature"):
        ChatCtxbackends(backend=BackendConfig(name="b", type="vllm"), temprature=0)  # type: ignore[call-arg]


def test_wrong_arguments_of_the_model_are_errors() -> None:
    config = BackendConfig(name="b", type="vllm", default_model="m")
    with pytest.raises(ConfigError, match="max_retries"):
        ChatCtxbackends(backend=config, max_retries=-1)
    with pytest.raises(TypeError, match="backend must be a BackendConfig"):
        ChatCtxbackends(backend={"type": "vllm"})  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="unsupported"):
        ChatCtxbackends(backend=config, unsupported="ignore")  # type: ignore[arg-type]
    with pytest.raises(ValidationError, match="api_key requires a BackendConfig"):
        ChatCtxbackends(backend="b", api_key="sk")  # type: ignore[arg-type]


async def test_an_option_that_the_backend_lacks_is_an_error_or_dropped(caplog: pytest.LogCaptureFixture) -> None:
    async with model_over("anthropic", seed=7) as (model, server):
        with pytest.raises(ModelInvalidRequestError, match="seed: the Messages API has no such option") as caught:
            await ask(model, "hi")
        assert isinstance(caught.value, UnsupportedOptionError)
        assert [] == server.requests
        with caplog.at_level(logging.INFO, "ctxbackends"):
            await ask(model.model_copy(update={"unsupported": "drop"}), "hi")
        assert "seed is not sent" in caplog.text


async def test_the_key_of_the_model_is_used_and_shown_nowhere() -> None:
    async with OpenAIStandIn(api_key="sk-secret", answer=hello) as server:
        config = BackendConfig(name="o", type="openai", endpoint=server.url, default_model="gpt-4.1-mini")
        model = ChatCtxbackends(backend=config, api_key="sk-secret")
        assert "Hello!" == (await ask(model, "hi")).text
    assert "sk-secret" not in f"{model!r} {model._identifying_params} {dumps(model)}"
    with pytest.raises(TypeError, match="it contains an api_key"):
        pickle.dumps(model)


async def test_what_identifies_a_model_tells_two_backends_apart() -> None:
    one, other = (
        ChatCtxbackends(backend=BackendConfig(name="b", type="vllm", endpoint=f"http://127.0.0.1:{port}"), model="m")
        for port in (8001, 8002)
    )
    assert one._get_llm_string() != other._get_llm_string()
    assert one._get_llm_string() != one.model_copy(update={"temperature": 1})._get_llm_string()


def test_the_profile_has_the_capabilities_of_the_backend() -> None:
    profiles = {
        name: ChatCtxbackends(backend=BackendConfig(name="b", type=name, api_key="sk", default_model="m")).profile
        for name in ("openai", "ollama")
    }
    openai, ollama = profiles["openai"] or {}, profiles["ollama"] or {}
    assert (True, True, True) == (openai["tool_choice"], openai["pdf_inputs"], openai["structured_output"])
    assert (False, False, False) == (ollama["tool_choice"], ollama["pdf_inputs"], ollama["structured_output"])


def test_models_copy_and_pickle() -> None:
    config = BackendConfig(name="b", type="vllm", endpoint="http://127.0.0.1:9", default_model="m")
    model = ChatCtxbackends(backend=config, temperature=0.5)
    embeddings = CtxbackendsEmbeddings(backend=config, dimensions=3)
    for original in (model, embeddings):
        copies = (copy.copy(original), copy.deepcopy(original), pickle.loads(pickle.dumps(original)))  # noqa: S301
        for other in copies:
            assert original == other
            assert original._reference.get() is other._reference.get()
    bound = pickle.loads(pickle.dumps(model.bind_tools([get_time], tool_choice="any")))  # noqa: S301
    assert "get_time" == bound.kwargs["tools"][0]["function"]["name"]


async def test_a_backend_itself_can_be_passed() -> None:
    async with (
        OllamaStandIn(answer=hello) as server,
        open_backend("ollama", endpoint=server.url, default_model="qwen3:4b") as backend,
    ):
        assert "Hello!" == (await ask(ChatCtxbackends(backend=backend), "hi")).text


@pytest.mark.parametrize(("options", "is_streamed"), [({}, False), ({"streaming": True}, True)])
async def test_invoke_can_stream(options: dict[str, Any], is_streamed: bool) -> None:
    async with model_over("openai", **options) as (model, server):
        assert "Hello!" == (await ask(model, "hi")).text
        assert "Hello!" == (await ask(model, "hi", stream=True)).text
        assert "Hello!" == (await ask(model.model_copy(update={"disable_streaming": True}), "hi", "stream")).text
    assert [is_streamed, True, False] == [bool(request.json.get("stream")) for request in server.requests]


# --- messages to the model --------------------------------------------------------------------------


async def test_plain_messages_arrive() -> None:
    other = ChatMessage(content="u", role="user")
    prompt = [SystemMessage("s"), other, AIMessage("a"), HumanMessage("h", name="not sent")]
    expected = (Message.system("s"), Message.user("u"), Message.assistant("a"), Message.user("h"))
    assert expected == await send(prompt)


@pytest.mark.parametrize(
    "block",
    [
        {"type": "image", "base64": PNG_TEXT, "mime_type": "image/png"},
        {"type": "image", "source_type": "base64", "data": PNG_TEXT, "mime_type": "image/png"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG_TEXT}"}},
        {"type": "image_url", "image_url": f"data:image/png;base64,{PNG_TEXT}"},
        {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": PNG_TEXT}},
    ],
)
async def test_images_arrive_in_each_form(block: dict[str, Any]) -> None:
    (message,) = await send([HumanMessage(["look", block])])
    text, image = message.parts
    assert ("look", PNG, "image/png") == (text.text, image.data, image.media_type)  # type: ignore[union-attr]


async def test_an_image_url_is_left_to_the_server() -> None:
    (message,) = await send([HumanMessage([{"type": "image", "url": "https://example.org/cat.png"}])])
    assert "https://example.org/cat.png" == message.parts[0].url  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "file", "base64": PDF_TEXT, "mime_type": "application/pdf", "extras": {"filename": "a.pdf"}},
        {"type": "file", "file": {"filename": "a.pdf", "file_data": f"data:application/pdf;base64,{PDF_TEXT}"}},
    ],
)
async def test_documents_arrive_with_their_names(block: dict[str, Any]) -> None:
    (message,) = await send([HumanMessage([block, {"type": "text", "text": "read"}])])
    assert ("a.pdf", "read") == (message.parts[0].name, message.text)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "block",
    [
        {"type": "audio", "base64": WAV_TEXT, "mime_type": "audio/wav"},
        {"type": "input_audio", "input_audio": {"data": WAV_TEXT, "format": "wav"}},
    ],
)
async def test_recordings_arrive(block: dict[str, Any]) -> None:
    seen = await send_to_vllm([HumanMessage([block])])
    assert [{"type": "input_audio", "input_audio": {"data": WAV_TEXT, "format": "wav"}}] == seen[0]["content"]


async def send_to_vllm(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    from ctxbackends.testing import FaultServer  # noqa: PLC0415  # only here

    async with FaultServer() as server:
        config = BackendConfig(name="v", type="vllm", endpoint=server.url, default_model="m")
        await ask(ChatCtxbackends(backend=config), messages)
    received: list[dict[str, Any]] = json.loads(server.generations[0].body)["messages"]
    return received


@pytest.mark.parametrize(
    ("block", "problem"),
    [
        ({"type": "video", "url": "https://example.org"}, "message: video: no backend supports a block with type, url"),
        ({"type": "image", "file_id": "f"}, "message: image: no backend supports a block with file_id, type"),
        ({"type": "something", "x": 1}, "message: something: no backend supports"),
        ({"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}, "cache_control: pass it in extra_body"),
    ],
)
async def test_blocks_that_no_backend_supports_are_errors(block: dict[str, Any], problem: str) -> None:
    with pytest.raises(ModelInvalidRequestError, match=problem):
        await send([HumanMessage([block])])


async def test_cache_control_can_be_dropped() -> None:
    block = {"type": "text", "text": "a", "cache_control": {"type": "ephemeral"}}
    assert (Message.user("a"),) == await send([HumanMessage([block])], unsupported="drop")


async def test_messages_of_other_types_are_errors() -> None:
    with pytest.raises(ModelInvalidRequestError, match="message: function: use system, human, ai or tool"):
        await send([FunctionMessage(content="x", name="f")])
    with pytest.raises(ModelInvalidRequestError, match="message: chat: use system"):
        await send([ChatMessage(content="x", role="judge")])
    with pytest.raises(ModelInvalidRequestError, match="message: video: not supported in a message of the model"):
        await send([HumanMessage("a"), AIMessage([{"type": "video", "url": "x"}])])


@pytest.mark.parametrize("wire", ["openai", "anthropic", "ollama"])
async def test_results_of_tools_arrive_with_images_and_names(wire: str) -> None:
    blocks: list[str | dict[Any, Any]] = [
        {"type": "text", "text": "here"},
        {"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG_TEXT}"}},
    ]
    messages = await send([HumanMessage("time?"), CALLED, ToolMessage(blocks, tool_call_id="1")], wire)
    (result,) = [part for message in messages if message.role == "tool" for part in message.parts]
    images = [part for message in messages[2:] for part in (*message.parts, *getattr(message.parts[0], "images", ()))]
    assert ("get_time", "here") == (result.name, result.text)  # type: ignore[union-attr]
    assert PNG in [getattr(image, "data", None) for image in images]


async def test_a_failed_tool_is_marked() -> None:
    prompt = [HumanMessage("time?"), CALLED, ToolMessage("no such city", tool_call_id="1", status="error")]
    result = (await send(prompt, "anthropic"))[-1].parts[0]
    assert (True, "no such city") == (result.is_error, result.text)  # type: ignore[union-attr]


# --- answers ----------------------------------------------------------------------------------------


@both_ways
@every_wire
async def test_two_parallel_calls_are_two_calls(wire: str, way: Way) -> None:
    calls = [("get_time", {"city": "Oslo"}), ("get_weather", {"city": "Rom\u00e9 \U0001f3db"})]
    async with model_over(wire, lambda _: Answer(text="I look.", tool_calls=calls)) as (model, _):
        message = await ask(model.bind_tools([get_time, get_weather]), "hi", way)
    assert calls == [(call["name"], call["args"]) for call in message.tool_calls]
    assert 2 == len({call["id"] for call in message.tool_calls})
    assert ("I look.", "tool_calls") == (message.text, message.response_metadata["finish_reason"])
    assert ["text", "tool_call", "tool_call"] == [block["type"] for block in message.content_blocks]


@both_ways
async def test_standard_blocks_keep_texts_and_calls_apart(way: Way) -> None:
    calls = [("get_time", {"city": "Oslo"}), ("get_weather", {"city": "Rome"})]
    answer = Answer(text="I look.", tool_calls=calls)
    async with model_over("openai", lambda _: answer, output_version="v1") as (model, _):
        message = await ask(model.bind_tools([get_time, get_weather]), "hi", way)
    assert ["text", "tool_call", "tool_call"] == [block["type"] for block in message.content]
    assert calls == [(call["name"], call["args"]) for call in message.tool_calls]


@both_ways
async def test_usage_and_metadata_come_once(way: Way) -> None:
    usage = Usage(11, 7, cached_input_tokens=4, reasoning_tokens=2)
    async with model_over("openai", lambda _: Answer(text="Hello!", usage=usage)) as (model, _):
        message = await ask(model, "hi", way, logprobs=True)
    expected = {
        "input_tokens": 11,
        "output_tokens": 7,
        "total_tokens": 18,
        "input_token_details": {"cache_read": 4},
        "output_token_details": {"reasoning": 2},
    }
    assert expected == message.usage_metadata
    metadata = message.response_metadata
    assert ("ctxbackends", "stop") == (metadata["model_provider"], metadata["finish_reason"])
    assert metadata["model_name"].startswith("gpt-4.1-mini")
    assert "Hello!" == "".join(item["token"] for item in metadata["logprobs"]["content"])


def answer_with(answer: Answer, _: Question) -> Answer:
    return answer


@both_ways
async def test_a_call_that_was_cut_is_invalid(way: Way) -> None:
    for cut in ('{"city": "Os', '{"city": ["a', '{"city": "a\\', '{"city": 1', '{"a": {"b": [1'):
        answer = Answer(tool_calls=[ToolCall("c1", "get_time", cut)], finish_reason="length")
        async with model_over("openai", functools.partial(answer_with, answer)) as (model, _):
            message = await ask(model.bind_tools([get_time]), "hi", way)
        assert [] == message.tool_calls
        assert message.invalid_tool_calls[0]["args"].startswith(cut)


@both_ways
async def test_reasoning_is_a_block(way: Way) -> None:
    async with model_over("ollama", lambda _: Answer(reasoning="Let me see.", text="42")) as (model, _):
        message = await ask(model, "hi", way, reasoning_effort="low")
    blocks = [{"type": "reasoning", "reasoning": "Let me see."}, {"type": "text", "text": "42"}]
    assert blocks == message.content_blocks
