"""The answers of a test (``answer=``): the same callable for every stand-in, read by the vendors' own clients."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import anthropic
import attrs
import ollama
import openai
import pytest

from ctxbackends import (
    BackendType,
    FilePart,
    HTTPBackend,
    ImagePart,
    InternalServerError,
    JSONSchemaFormat,
    Message,
    NamedTool,
    ReasoningPart,
    TextPart,
    Tool,
    ToolCall,
    Usage,
    WireAPI,
    open_backend,
)
from ctxbackends.testing import Answer, AnthropicStandIn, LMStudioStandIn, OllamaStandIn, OpenAIStandIn, Question
from ctxbackends.testing._stand_ins.stand_in import StandIn

SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = Tool("get_weather", "Tell the weather.", SCHEMA)
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
PDF = b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n"

Answering: TypeAlias = Callable[[Question], Answer]


@attrs.frozen
class Server:
    """A stand-in, and how the SDK reaches it."""

    stand_in: type[StandIn]
    type: BackendType
    model: str
    wire: WireAPI

    @property
    def id(self) -> str:
        return f"{self.type}-{self.wire}"


OPENAI = Server(OpenAIStandIn, BackendType.OPENAI, "gpt-4.1-mini", WireAPI.CHAT_COMPLETIONS)
ANTHROPIC = Server(AnthropicStandIn, BackendType.ANTHROPIC, "claude-haiku-4-5", WireAPI.MESSAGES)
OLLAMA = [Server(OllamaStandIn, BackendType.OLLAMA, "qwen3:4b", wire) for wire in WireAPI]
LMSTUDIO = [
    Server(LMStudioStandIn, BackendType.LMSTUDIO, "qwen/qwen3-4b", wire)
    for wire in (WireAPI.CHAT_COMPLETIONS, WireAPI.MESSAGES)
]
SERVERS = [OPENAI, ANTHROPIC, *OLLAMA, *LMSTUDIO]
LOCAL = [*OLLAMA, *LMSTUDIO]
every_server = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.id)


@asynccontextmanager
async def backend_of(server: Server, answer: Answering) -> AsyncIterator[HTTPBackend]:
    async with (
        server.stand_in(answer=answer) as stand_in,
        open_backend(
            server.type, endpoint=stand_in.url, default_model=server.model, api_key="any", wire_api=server.wire
        ) as backend,
    ):
        assert isinstance(backend, HTTPBackend)
        yield backend


async def ask(backend: HTTPBackend, messages: Any, streamed: bool, **options: Any) -> Any:
    options = {"max_tokens": 200} | options
    if not streamed:
        return await backend.complete(messages, **options)
    async with backend.stream(messages, **options) as stream:
        async for _ in stream:
            pass
        return await stream.get_final_completion()


@pytest.mark.parametrize("streamed", [False, True])
@every_server
async def test_a_text_for_any_prompt(server: Server, streamed: bool) -> None:
    questions: list[Question] = []

    def answer(question: Question) -> Answer:
        questions.append(question)
        return Answer(text="Four, of course.", usage=Usage(input_tokens=123, output_tokens=45))

    async with backend_of(server, answer) as backend:
        messages = [Message.system("Be brief."), Message.user("2 + 2? [[say]]5[[/say]]")]
        completion = await ask(backend, messages, streamed)

    assert ("Four, of course.", "stop") == (completion.text, completion.finish_reason)
    assert (123, 45) == (completion.usage.input_tokens, completion.usage.output_tokens)
    [question] = questions
    assert (server.wire, server.model) == (question.wire, question.model)
    assert messages == [*question.messages]
    assert "2 + 2? [[say]]5[[/say]]" == question.prompt


@pytest.mark.parametrize("streamed", [False, True])
@every_server
async def test_a_loop_of_tools(server: Server, streamed: bool) -> None:
    questions: list[Question] = []

    def answer(question: Question) -> Answer:
        questions.append(question)
        if question.tool_results:
            return Answer(text=" and ".join(result.text for result in question.tool_results))
        calls: Any = [("get_weather", {"city": "Oslo"}), ("get_weather", '{"city": "Bergen"}')]
        return Answer(text="Let me see.", tool_calls=calls)

    async with backend_of(server, answer) as backend:
        conversation = [Message.user("Weather?")]
        first = await ask(backend, conversation, streamed, tools=[WEATHER])
        conversation.append(first.message)
        for call, weather in zip(first.tool_calls, ("rain", "sun"), strict=True):
            conversation.append(Message.tool(weather, tool_call_id=call.id, name=call.name))
        second = await ask(backend, conversation, streamed, tools=[WEATHER])

    assert ("tool_calls", "Let me see.") == (first.finish_reason, first.text)
    assert [("get_weather", {"city": "Oslo"}), ("get_weather", {"city": "Bergen"})] == [
        (call.name, json.loads(call.arguments)) for call in first.tool_calls
    ]
    assert 2 == len({call.id for call in first.tool_calls})
    assert ("stop", "rain and sun") == (second.finish_reason, second.text)
    assert () == questions[0].tool_results
    assert ("get_weather", "Tell the weather.", SCHEMA) == (
        questions[0].tools[0].name,
        questions[0].tools[0].description,
        questions[0].tools[0].parameters,
    )


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("server", [ANTHROPIC, *LOCAL], ids=lambda server: server.id)
async def test_reasoning(server: Server, streamed: bool) -> None:
    seen: list[Question] = []

    def answer(question: Question) -> Answer:
        seen.append(question)
        return Answer(text="42", reasoning="Six times seven.")

    think = {"reasoning_budget": 1024, "max_tokens": 2000} if server is ANTHROPIC else {}
    async with backend_of(server, answer) as backend:
        first = await ask(backend, [Message.user("6 * 7?")], streamed, **think)
        await ask(backend, [Message.user("6 * 7?"), first.message, Message.user("Sure?")], streamed, **think)

    assert ("Six times seven.", "42") == (first.reasoning, first.text)
    if server is ANTHROPIC:
        [reasoning] = [part for part in seen[1].messages[1].parts if isinstance(part, ReasoningPart)]
        assert first.message.parts[0] == reasoning
        assert reasoning.signature is not None


@pytest.mark.parametrize("streamed", [False, True])
@every_server
async def test_a_callable_that_raises_is_a_clear_500(server: Server, streamed: bool) -> None:
    def answer(question: Question) -> Answer:
        raise KeyError("no such city")

    async with backend_of(server, answer) as backend:
        with pytest.raises(
            InternalServerError, match=r"answer= of the stand-in raised KeyError: 'no such city'"
        ) as info:
            await ask(backend, "Weather?", streamed)
    assert 500 == info.value.status_code


@every_server
async def test_a_callable_that_returns_something_else(server: Server) -> None:
    def answer(question: Question) -> Any:
        return "Four."

    async with backend_of(server, answer) as backend:
        with pytest.raises(InternalServerError, match="answer= of the stand-in must return an Answer, not str"):
            await ask(backend, "2 + 2?", False)


@pytest.mark.parametrize("streamed", [False, True])
@every_server
async def test_arguments_that_are_not_json(server: Server, streamed: bool) -> None:
    def answer(question: Question) -> Answer:
        return Answer(tool_calls=[ToolCall("call_7", "get_weather", '{"city": ')])

    async with backend_of(server, answer) as backend:
        if server in (OPENAI, LMSTUDIO[0]):
            completion = await ask(backend, "Weather?", streamed, tools=[WEATHER])
            assert (ToolCall("call_7", "get_weather", '{"city": '),) == completion.tool_calls
        else:
            with pytest.raises(InternalServerError, match="the tool call get_weather must be a JSON object"):
                await ask(backend, "Weather?", streamed, tools=[WEATHER])


@pytest.mark.parametrize("streamed", [False, True])
@every_server
async def test_the_limits_of_the_request_apply(server: Server, streamed: bool) -> None:
    async with backend_of(server, lambda _: Answer(text="one two three four")) as backend:
        cut = await ask(backend, "Count.", streamed, max_tokens=2)
        stopped = await ask(backend, "Count.", streamed, stop_sequences=["three"])
    assert ("one two ", "length") == (cut.text, cut.finish_reason)
    assert ("one two ", "stop") == (stopped.text, stopped.finish_reason)


@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("server", [OPENAI, ANTHROPIC], ids=lambda server: server.id)
async def test_a_finish_reason_of_the_test(server: Server, streamed: bool) -> None:
    reasons = iter(["content_filter", "length"])
    async with backend_of(server, lambda _: Answer(text="one", finish_reason=next(reasons))) as backend:  # type: ignore[arg-type]
        assert "content_filter" == (await ask(backend, "Count.", streamed)).finish_reason
        assert "length" == (await ask(backend, "Count.", streamed)).finish_reason


async def test_what_the_server_sees() -> None:
    """The choice of tools, formats and options, as each wire format sends them."""
    seen: list[Question] = []

    def answer(question: Question) -> Answer:
        seen.append(question)
        return Answer(text='{"city": "Oslo"}')

    format_ = JSONSchemaFormat("city", SCHEMA)
    for server in (OPENAI, ANTHROPIC):
        async with backend_of(server, answer) as backend:
            await ask(backend, "Weather?", False, tools=[WEATHER], tool_choice=NamedTool("get_weather"))
            await ask(backend, "Weather?", True, tools=[WEATHER], tool_choice="required")
            await ask(backend, "Weather?", False, response_format=format_)
    async with backend_of(OLLAMA[-1], answer) as backend:
        await ask(backend, "Weather?", False, response_format=format_, temperature=0.5)

    assert [NamedTool("get_weather"), "required", None] * 2 == [question.tool_choice for question in seen[:-1]]
    assert [False, True, False] * 2 == [question.stream for question in seen[:-1]]
    for question in (seen[2], seen[5], seen[6]):
        assert isinstance(question.response_format, JSONSchemaFormat)
        assert SCHEMA == question.response_format.schema
    assert {"max_completion_tokens": 200} == seen[2].options
    assert 200 == seen[5].options["max_tokens"]
    assert 0.5 == seen[6].options["options"]["temperature"]


@pytest.mark.parametrize("server", [OPENAI, ANTHROPIC], ids=lambda server: server.id)
async def test_media(server: Server) -> None:
    seen: list[Question] = []

    def answer(question: Question) -> Answer:
        seen.append(question)
        return Answer(text="A dot.")

    parts: Any = [TextPart("What is it?"), ImagePart.from_bytes(PNG), FilePart(PDF, "dot.pdf")]
    async with backend_of(server, answer) as backend:
        await ask(backend, [Message.user(parts)], False)
    assert Message.user(parts) == seen[0].messages[0]


# --- the vendors' own clients ---------------------------------------------------------------------


def weather(question: Question) -> Answer:
    """Answer as every vendor's client expects: a call, then its result."""
    if question.tool_results:
        return Answer(text=f"Oslo: {question.tool_results[0].text}.")
    return Answer(tool_calls=[("get_weather", {"city": "Oslo"})], usage=Usage(input_tokens=7, output_tokens=3))


OPENAI_TOOL: Any = {
    "type": "function",
    "function": {"name": "get_weather", "description": "Tell the weather.", "parameters": SCHEMA},
}


@pytest.mark.parametrize("server", [OPENAI, ANTHROPIC, OLLAMA[0], LMSTUDIO[0]], ids=lambda server: str(server.type))
async def test_the_client_of_openai(server: Server) -> None:
    async with (
        server.stand_in(answer=weather) as stand_in,
        openai.AsyncOpenAI(api_key="any", base_url=f"{stand_in.url}/v1", max_retries=0) as client,
    ):
        messages: list[Any] = [{"role": "user", "content": "Weather in Oslo?"}]
        async with client.chat.completions.stream(model=server.model, messages=messages, tools=[OPENAI_TOOL]) as stream:
            first = await stream.get_final_completion()
        [call] = first.choices[0].message.tool_calls or []
        assert ("get_weather", {"city": "Oslo"}) == (call.function.name, json.loads(call.function.arguments))
        assert "tool_calls" == first.choices[0].finish_reason
        messages += [
            {"role": "assistant", "tool_calls": [call.model_dump(include={"id", "type", "function"})]},
            {"role": "tool", "tool_call_id": call.id, "content": "rain"},
        ]
        second = await client.chat.completions.create(model=server.model, messages=messages, tools=[OPENAI_TOOL])
        assert "Oslo: rain." == second.choices[0].message.content


@pytest.mark.parametrize("server", [ANTHROPIC, OLLAMA[1], LMSTUDIO[1]], ids=lambda server: str(server.type))
async def test_the_client_of_anthropic(server: Server) -> None:
    async with (
        server.stand_in(answer=weather) as stand_in,
        anthropic.AsyncAnthropic(api_key="any", base_url=stand_in.url, max_retries=0) as client,
    ):
        tool: Any = {"name": "get_weather", "description": "Tell the weather.", "input_schema": SCHEMA}
        messages: list[Any] = [{"role": "user", "content": "Weather in Oslo?"}]
        async with client.messages.stream(
            model=server.model, max_tokens=100, messages=messages, tools=[tool]
        ) as stream:
            first = await stream.get_final_message()
        [block] = [block for block in first.content if block.type == "tool_use"]
        assert ("get_weather", {"city": "Oslo"}) == (block.name, block.input)
        assert ("tool_use", 3) == (first.stop_reason, first.usage.output_tokens)
        messages += [
            {"role": "assistant", "content": [block.model_dump(include={"id", "type", "name", "input"})]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": block.id, "content": "rain"}]},
        ]
        second = await client.messages.create(model=server.model, max_tokens=100, messages=messages, tools=[tool])
        assert ["Oslo: rain."] == [block.text for block in second.content if block.type == "text"]


async def test_the_client_of_ollama() -> None:
    async with OllamaStandIn(answer=weather) as stand_in, ollama.AsyncClient(host=stand_in.url) as client:
        messages: list[Any] = [{"role": "user", "content": "Weather in Oslo?"}]
        first = [
            part async for part in await client.chat("qwen3:4b", messages=messages, tools=[OPENAI_TOOL], stream=True)
        ]
        [call] = [call for part in first for call in part.message.tool_calls or ()]
        assert ("get_weather", {"city": "Oslo"}) == (call.function.name, call.function.arguments)
        assert (7, 3) == (first[-1].prompt_eval_count, first[-1].eval_count)
        messages += [
            {"role": "assistant", "tool_calls": [call.model_dump()]},
            {"role": "tool", "tool_name": "get_weather", "content": "rain"},
        ]
        second = await client.chat("qwen3:4b", messages=messages, tools=[OPENAI_TOOL])
        assert "Oslo: rain." == second.message.content


async def test_a_500_in_the_vendors_own_form() -> None:
    def answer(question: Question) -> Answer:
        raise ValueError("boom")

    message = "answer= of the stand-in raised ValueError: boom"
    messages: list[Any] = [{"role": "user", "content": "Hello"}]
    async with (
        OpenAIStandIn(answer=answer) as stand_in,
        openai.AsyncOpenAI(api_key="any", base_url=f"{stand_in.url}/v1", max_retries=0) as client,
    ):
        with pytest.raises(openai.InternalServerError, match=message):
            await client.chat.completions.create(model="gpt-4.1-mini", messages=messages)
    async with (
        AnthropicStandIn(answer=answer) as anthropic_stand_in,
        anthropic.AsyncAnthropic(api_key="any", base_url=anthropic_stand_in.url, max_retries=0) as other,
    ):
        with pytest.raises(anthropic.InternalServerError, match=message):
            await other.messages.create(model="claude-haiku-4-5", max_tokens=10, messages=messages)
    async with OllamaStandIn(answer=answer) as ollama_stand_in, ollama.AsyncClient(host=ollama_stand_in.url) as third:
        with pytest.raises(ollama.ResponseError, match=message) as info:
            await third.chat("qwen3:4b", messages=messages)
        assert 500 == info.value.status_code


async def test_ollama_has_no_content_filter() -> None:
    answer = Answer(finish_reason="content_filter")
    async with backend_of(OLLAMA[-1], lambda _: answer) as backend:
        with pytest.raises(InternalServerError, match="Ollama does not have the finish reason content_filter"):
            await ask(backend, "Hello", False)
