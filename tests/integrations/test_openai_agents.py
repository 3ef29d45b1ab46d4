"""The models for the OpenAI Agents SDK: runs against the stand-ins, beside the SDK's own model, and a real server."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import json
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import openai
import pytest

os.environ["OPENAI_AGENTS_DISABLE_TRACING"] = "1"  # it would send traces to OpenAI
pytest.importorskip("agents", reason="needs the extra `openai-agents`, as in the nox session `integrations`")

from agents import (
    Agent,
    ModelBehaviorError,
    ModelResponse,
    ModelRetrySettings,
    ModelSettings,
    ModelTracing,
    OpenAIChatCompletionsModel,
    RunConfig,
    Runner,
    UserError,
    WebSearchTool,
    function_tool,
    retry_policies,
)
from agents.retry import ModelRetryAdvice, ModelRetryAdviceRequest
from agents.tracing import Span, Trace, TracingProcessor, set_trace_processors, set_tracing_disabled
from openai import AsyncOpenAI
from openai.types.shared import Reasoning
from pydantic import BaseModel

from ctxbackends import (
    APIConnectionError,
    APITimeoutError,
    AuthenticationError,
    Backend,
    BackendConfig,
    BackendError,
    ContextOverflowError,
    InternalServerError,
    LocalServer,
    ModelMismatchError,
    ModelNotFoundError,
    Observer,
    RateLimitError,
    RedirectError,
    Registry,
    RequestFacts,
    ResponseError,
    StreamInterruptedError,
    ToolCall,
    Usage,
    open_backend,
)
from ctxbackends.integrations import close_backends
from ctxbackends.integrations.openai_agents import CtxModel, CtxModelProvider
from ctxbackends.testing import (
    VARIANTS,
    Answer,
    AnthropicStandIn,
    FaultServer,
    LMStudioStandIn,
    OllamaStandIn,
    OpenAIStandIn,
    Question,
    cached_model,
    faults,
)
from tests.faults.outcomes import Failure, Success
from tests.faults.test_table import Case, Route
from tests.integrations.pages import Block, blocks_of, llama_server, project, run_block, tiny_model  # noqa: F401
from tests.real.conftest import wait_for_slots
from tests.unit.test_cli import free_port


@attrs.frozen
class Wire:
    """A server, and the way to speak to it."""

    type: str
    model: str
    stand_in: Callable[..., Any]
    wire_api: str | None = None

    def __str__(self) -> str:
        return f"{self.type}-{self.wire_api or 'default'}"


OPENAI = Wire("openai", "gpt-5-mini", OpenAIStandIn)
ANTHROPIC = Wire("anthropic", "claude-sonnet-4-5", AnthropicStandIn)
LMSTUDIO = Wire("lmstudio", "qwen/qwen3-4b", LMStudioStandIn, "chat_completions")
WIRES = (
    OPENAI,
    ANTHROPIC,
    Wire("ollama", "qwen3:4b", OllamaStandIn),
    Wire("ollama", "qwen3:4b", OllamaStandIn, "messages"),
    Wire("ollama", "qwen3:4b", OllamaStandIn, "chat_completions"),
    LMSTUDIO,
    Wire("lmstudio", "qwen/qwen3-4b", LMStudioStandIn, "messages"),
)
on_all_wires = pytest.mark.parametrize("wire", WIRES, ids=str)
AnswerFunction = Callable[[Question], Answer]


@asynccontextmanager
async def serve(wire: Wire, answer: AnswerFunction, **settings: Any) -> AsyncIterator[tuple[Backend, Any]]:
    """A stand-in with these answers, and a backend for it."""
    async with (
        wire.stand_in(answer=answer) as server,
        open_backend(
            wire.type,
            name="b",
            endpoint=server.url,
            api_key="sk-none",
            default_model=wire.model,
            wire_api=wire.wire_api,
            **settings,
        ) as backend,
    ):
        yield backend, server


@function_tool
def weather(city: str) -> str:
    """Return the weather."""
    return f"sunny in {city}"


def ask_for_two_cities(question: Question) -> Answer:
    if question.tool_results:
        return Answer(text=" and ".join(result.text for result in question.tool_results))
    return Answer(tool_calls=[("weather", {"city": "Paris"}), ("weather", {"city": "Rome"})])


def say(text: str, **members: Any) -> AnswerFunction:
    return lambda _: Answer(text=text, **members)


async def run(agent: Agent[Any], prompt: Any = "Hi", *, stream: bool, **options: Any) -> tuple[Any, list[Any]]:
    """Run the agent, and return the result and the events."""
    if not stream:
        return await Runner.run(agent, prompt, **options), []
    result = Runner.run_streamed(agent, prompt, **options)
    return result, [event async for event in result.stream_events()]


def describe(events: list[Any]) -> list[Any]:
    """Return the type of each event, and the text or arguments of the deltas."""
    return [
        (event.data.type, getattr(event.data, "delta", None)) if event.type == "raw_response_event" else event.name
        for event in events
        if event.type != "agent_updated_stream_event"
    ]


def list_calls(items: list[Any]) -> list[tuple[str, str]]:
    return [(item["call_id"], item["arguments"]) for item in items if item.get("type") == "function_call"]


streamed_or_not = pytest.mark.parametrize("stream", [False, True], ids=["run", "run_streamed"])


# --- runs ---------------------------------------------------------------------------------------------


@streamed_or_not
@on_all_wires
async def test_two_parallel_calls(wire: Wire, stream: bool) -> None:
    async with serve(wire, ask_for_two_cities) as (backend, server):
        agent = Agent(name="a", instructions="Be brief.", model=CtxModel(backend), tools=[weather])
        result, _ = await run(agent, stream=stream)
        assert "sunny in Paris and sunny in Rome" == result.final_output
        items = result.to_input_list()
        (first, paris), (second, rome) = list_calls(items)
        assert [{"city": "Paris"}, {"city": "Rome"}] == [json.loads(paris), json.loads(rome)]
        assert first
        assert second
        assert first != second
        assert [first, second] == [item["call_id"] for item in items if item.get("type") == "function_call_output"]
        assert 2 == len([request for request in server.requests if request.method == "POST"])
        usage = result.context_wrapper.usage
        assert (2, usage.input_tokens + usage.output_tokens) == (usage.requests, usage.total_tokens)
        assert usage.output_tokens > 0


@streamed_or_not
@on_all_wires
async def test_the_question_has_all_of_the_request(wire: Wire, stream: bool) -> None:
    questions: list[Question] = []

    def answer(question: Question) -> Answer:
        questions.append(question)
        return Answer(text="Hello")

    async with serve(wire, answer) as (backend, _):
        agent = Agent(
            name="a",
            instructions="Be brief.",
            model=CtxModel(backend),
            model_settings=ModelSettings(temperature=0.5, max_tokens=100),
            tools=[weather],
        )
        result, _ = await run(agent, stream=stream)
        assert "Hello" == result.final_output
        following, _ = await run(agent, [*result.to_input_list(), {"role": "user", "content": "And?"}], stream=stream)
        assert "Hello" == following.final_output
    assert ["Be brief.", "Hi"] == [message.text for message in questions[0].messages]
    assert ["Be brief.", "Hi", "Hello", "And?"] == [message.text for message in questions[1].messages]
    assert [("weather", "Return the weather.")] == [(tool.name, tool.description) for tool in questions[0].tools]
    assert stream == questions[0].stream or wire.type in ("ollama", "lmstudio")  # whose complete() streams


@streamed_or_not
async def test_handoff(stream: bool) -> None:
    def answer(question: Question) -> Answer:
        if question.messages[0].text == "You write.":
            return Answer(text="written by the writer")
        return Answer(tool_calls=[("transfer_to_writer", {})])

    async with serve(OPENAI, answer) as (backend, server):
        writer = Agent(name="writer", instructions="You write.", model=CtxModel(backend))
        agent = Agent(name="router", instructions="You route.", model=CtxModel(backend), handoffs=[writer])
        result, _ = await run(agent, stream=stream)
        assert "written by the writer" == result.final_output
        assert "writer" == result.last_agent.name
        assert 2 == len(server.requests)


class Person(BaseModel):
    name: str
    age: int | None = None


@streamed_or_not
@pytest.mark.parametrize("wire", [OPENAI, ANTHROPIC, WIRES[2], LMSTUDIO], ids=str)
async def test_output_type(wire: Wire, stream: bool) -> None:
    questions: list[Question] = []

    def answer(question: Question) -> Answer:
        questions.append(question)
        return Answer(text='{"name": "Ann", "age": 7}')

    async with serve(wire, answer) as (backend, _):
        agent = Agent(name="a", model=CtxModel(backend), output_type=Person)
        result, _ = await run(agent, stream=stream)
    assert Person(name="Ann", age=7) == result.final_output
    assert {"name", "age"} == set(questions[0].response_format.schema["properties"])  # type: ignore[union-attr]


@streamed_or_not
async def test_output_that_is_not_strict(stream: bool) -> None:
    from agents import AgentOutputSchema  # noqa: PLC0415  # used here only

    async with serve(OPENAI, say('{"name": "Ann"}')) as (backend, server):
        schema = AgentOutputSchema(dict[str, str], strict_json_schema=False)
        agent = Agent(name="a", model=CtxModel(backend), output_type=schema)
        result, _ = await run(agent, stream=stream)
        assert {"name": "Ann"} == result.final_output
        assert False is server.requests[0].json["response_format"]["json_schema"]["strict"]


async def test_several_agents_run_at_once() -> None:
    async with serve(OPENAI, lambda question: Answer(text=question.prompt)) as (backend, _):
        agent = Agent(name="a", model=CtxModel(backend))
        results = await asyncio.gather(*(run(agent, f"n{number}", stream=number % 2 == 0) for number in range(8)))
        assert [f"n{number}" for number in range(8)] == [result.final_output for result, _ in results]


def test_several_event_loops() -> None:
    with FaultServer() as server:
        config = BackendConfig(name="sync", type="vllm", endpoint=server.url, default_model="m")
        agent = Agent(name="a", model=CtxModel(config))
        texts = [asyncio.run(Runner.run(agent, "Hi")).final_output for _ in range(2)]
        assert ["".join(server.pieces)] * 2 == texts


# --- beside the SDK's own model -------------------------------------------------------------------------


@pytest.mark.parametrize("wire", [OPENAI, LMSTUDIO], ids=str)
@pytest.mark.parametrize("subject", ["text", "tools", "reasoning", "structured"])
async def test_the_events_are_those_of_the_own_model(wire: Wire, subject: str) -> None:
    def answer(question: Question) -> Answer:
        reasoning = "Let me think." if subject == "reasoning" else ""
        if subject == "structured":
            return Answer(text='{"name": "Ann", "age": 7}')
        if subject == "tools":
            return ask_for_two_cities(question)
        return Answer(text="It is a fine day.", reasoning=reasoning)

    async with serve(wire, answer) as (backend, server):
        client = AsyncOpenAI(base_url=f"{server.url}/v1", api_key="sk-none", max_retries=0)
        models = (CtxModel(backend), OpenAIChatCompletionsModel(wire.model, client))
        results = []
        for model in models:
            agent: Agent[Any] = Agent(
                name="a",
                model=model,
                model_settings=ModelSettings(include_usage=True),
                tools=[weather],
                output_type=Person if subject == "structured" else None,
            )
            results.append(await run(agent, stream=True))
        (ours, our_events), (theirs, their_events) = results
        await client.close()
    assert [event for event in describe(their_events) if event[1] != ""] == describe(our_events)
    assert theirs.final_output == ours.final_output
    assert strip_ids(theirs.to_input_list()) == strip_ids(ours.to_input_list())
    our_usage, their_usage = ours.context_wrapper.usage, theirs.context_wrapper.usage
    assert their_usage.requests == our_usage.requests
    assert their_usage.output_tokens == our_usage.output_tokens


def strip_ids(items: list[Any]) -> list[Any]:
    return [{name: value for name, value in item.items() if name not in ("call_id", "provider_data")} for item in items]


# --- calls of tools and reasoning -----------------------------------------------------------------------


@streamed_or_not
async def test_ids_that_a_server_repeats_are_replaced(stream: bool) -> None:
    questions: list[Question] = []

    def answer(question: Question) -> Answer:
        questions.append(question)
        if len(question.messages) > 6:
            return Answer(text="done")
        return Answer(tool_calls=[ToolCall("call_0", "weather", json.dumps({"city": f"n{len(question.messages)}"}))])

    async with serve(OPENAI, answer) as (backend, _):
        result, _ = await run(Agent(name="a", model=CtxModel(backend), tools=[weather]), stream=stream)
    assert "done" == result.final_output
    items = result.to_input_list()
    ids = [call_id for call_id, _ in list_calls(items)]
    assert len(ids) == len(set(ids)) == 3
    assert ids == [item["call_id"] for item in items if item.get("type") == "function_call_output"]
    sent = [call.id for message in questions[-1].messages for call in message.tool_calls]
    assert ids == sent


THINK = ModelSettings(max_tokens=4000, extra_args={"reasoning_budget": 1024})


def think_and_ask(question: Question) -> Answer:
    return attrs.evolve(ask_for_two_cities(question), reasoning="Which cities?")


@streamed_or_not
@pytest.mark.parametrize("stored", [False, True], ids=["", "stored"])
async def test_signed_reasoning_goes_back_through_a_tool_loop(stream: bool, stored: bool) -> None:
    async with serve(ANTHROPIC, think_and_ask) as (backend, server):
        agent = Agent(name="a", model=CtxModel(backend), model_settings=THINK, tools=[weather])
        result, _ = await run(agent, stream=stream)
        sent = server.requests[-1].json["messages"][1]["content"]
        # The stand-in, as the server, checks the signature.
        assert ["thinking", "tool_use", "tool_use"] == [block["type"] for block in sent]
        assert "Which cities?" == sent[0]["thinking"]
        assert sent[0]["signature"]
        items = result.to_input_list()
        if stored:
            items = json.loads(json.dumps(items))
        await run(agent, [*items, {"role": "user", "content": "Again?"}], stream=stream)
        assert sent == server.requests[-1].json["messages"][1]["content"]


async def test_a_changed_turn_goes_back_without_its_reasoning(caplog: pytest.LogCaptureFixture) -> None:
    async with serve(ANTHROPIC, think_and_ask) as (backend, server):
        agent = Agent(name="a", model=CtxModel(backend), model_settings=THINK, tools=[weather])
        result, _ = await run(agent, stream=False)
        items = result.to_input_list()
        removed, _ = list_calls(items)[0]
        changed = [item for item in items if item.get("call_id") != removed]
        plain = Agent(name="a", model=CtxModel(backend), tools=[weather])
        with caplog.at_level(logging.INFO, "ctxbackends"):
            await run(plain, [*changed, {"role": "user", "content": "Again?"}], stream=False)
        content = server.requests[-1].json["messages"][1]["content"]
        assert ["tool_use"] == [block["type"] for block in content]
        assert "A turn of b/claude-sonnet-4-5 was changed: its reasoning is not sent back" in caplog.messages


async def test_reasoning_of_another_model_does_not_go_back() -> None:
    async with (
        serve(ANTHROPIC, think_and_ask) as (backend, _),
        serve(OPENAI, ask_for_two_cities) as (other, server),
    ):
        agent = Agent(name="a", model=CtxModel(backend), model_settings=THINK, tools=[weather])
        result, _ = await run(agent, stream=False)
        await run(Agent(name="b", model=CtxModel(other), tools=[weather]), result.to_input_list(), stream=False)
        messages = server.requests[0].json["messages"]
    assert ["user", "assistant", "tool", "tool", "assistant"] == [message["role"] for message in messages]
    assert "Which cities?" not in json.dumps(messages)


# --- settings -------------------------------------------------------------------------------------------


async def send(model: CtxModel, settings: ModelSettings, tools: list[Any] | None = None) -> None:
    await Runner.run(Agent(name="a", model=model, model_settings=settings, tools=tools or []), "Hi")


async def test_settings_are_sent() -> None:
    async with serve(OPENAI, say("Hello")) as (backend, server):
        settings = ModelSettings(
            temperature=0.25,
            top_p=0.5,
            frequency_penalty=0.1,
            presence_penalty=0.2,
            max_tokens=50,
            tool_choice="weather",
            parallel_tool_calls=False,
            truncation="disabled",
            store=False,
            include_usage=True,
            extra_body={"service_tier": "flex"},
            extra_headers={"x-trace": "t1"},
            extra_args={"seed": 7, "stop_sequences": ["END"]},
        )
        await Runner.run(
            Agent(
                name="a",
                model=CtxModel(backend, "gpt-4.1-mini"),
                model_settings=settings,
                tools=[weather],
                tool_use_behavior="stop_on_first_tool",
            ),
            "Hi",
        )
        (request,) = server.requests
    body = request.json
    assert {
        "model": "gpt-4.1-mini",
        "temperature": 0.25,
        "top_p": 0.5,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.2,
        "max_completion_tokens": 50,
        "tool_choice": {"type": "function", "function": {"name": "weather"}},
        "parallel_tool_calls": False,
        "service_tier": "flex",
        "seed": 7,
        "stop": ["END"],
    } == {name: body.get(name) for name in body if name not in ("messages", "tools", "stream", "stream_options")}
    assert "t1" == request.headers["x-trace"]


@pytest.mark.parametrize("effort", ["low", "high"])
async def test_reasoning_effort_is_sent(effort: Any) -> None:
    async with serve(OPENAI, say("Hello")) as (backend, server):
        await send(CtxModel(backend), ModelSettings(reasoning=Reasoning(effort=effort)))
        assert effort == server.requests[0].json["reasoning_effort"]


async def test_logprobs_are_in_the_response() -> None:
    async with serve(OPENAI, say("Hello world")) as (backend, _):
        agent = Agent(name="a", model=CtxModel(backend, "gpt-4.1-mini"), model_settings=ModelSettings(top_logprobs=2))
        result, _ = await run(agent, stream=False)
    logprobs = result.raw_responses[0].output[0].content[0].logprobs
    assert "Hello world" == "".join(item.token for item in logprobs)
    assert all(2 == len(item.top_logprobs) for item in logprobs)


UNSUPPORTED = {
    "verbosity": ModelSettings(verbosity="low"),
    "metadata": ModelSettings(metadata={"a": "b"}),
    "store": ModelSettings(store=True),
    "truncation": ModelSettings(truncation="auto"),
    "response_include": ModelSettings(response_include=["reasoning.encrypted_content"]),
    "extra_query": ModelSettings(extra_query={"a": "b"}),
    "reasoning.summary": ModelSettings(reasoning=Reasoning(summary="auto")),
}


@pytest.mark.parametrize("name", UNSUPPORTED)
async def test_settings_without_a_meaning_are_errors_or_left_out(name: str, caplog: pytest.LogCaptureFixture) -> None:
    async with serve(OPENAI, say("Hello")) as (backend, server):
        with pytest.raises(UserError, match=rf"ModelSettings\.{name} is not supported by CtxModel; remove it"):
            await send(CtxModel(backend), UNSUPPORTED[name])
        assert not server.requests
        with caplog.at_level(logging.INFO, "ctxbackends"):
            await send(CtxModel(backend, unsupported="drop"), UNSUPPORTED[name])
        assert f"ModelSettings.{name} is not sent: CtxModel does not support it" in caplog.messages
        assert 1 == len(server.requests)


async def test_options_that_the_server_lacks_are_errors_or_left_out() -> None:
    async with serve(ANTHROPIC, say("Hello")) as (backend, server):
        settings = ModelSettings(presence_penalty=0.5)
        with pytest.raises(UserError, match=r"presence_penalty.*the Messages API") as caught:
            await send(CtxModel(backend), settings)
        assert isinstance(caught.value.__cause__, BackendError)
        assert not server.requests
        await send(CtxModel(backend, unsupported="drop"), settings)
        assert "presence_penalty" not in server.requests[0].json


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (ModelSettings(extra_args={"stop": ["x"]}), "stop_sequences"),
        (ModelSettings(extra_args={"temperature": 1}, temperature=0.5), "set twice, .*: temperature; remove one"),
        (ModelSettings(max_tokens=0), "max_tokens must be at least 1: 0"),
        (ModelSettings(tool_choice="no_such_tool"), "no_such_tool"),
        (ModelSettings(extra_headers={"authorization": "Bearer sk-0123456789abcdef0123456789"}), "authorization"),
    ],
)
@streamed_or_not
async def test_wrong_settings_are_user_errors(settings: ModelSettings, message: str, stream: bool) -> None:
    async with serve(OPENAI, say("Hello")) as (backend, server):
        with pytest.raises(UserError, match=message):
            await run(Agent(name="a", model=CtxModel(backend), model_settings=settings), stream=stream)
        assert not server.requests


async def test_hosted_tools_are_user_errors() -> None:
    async with serve(OPENAI, say("Hello")) as (backend, server):
        with pytest.raises(UserError, match="Hosted tools are not supported"):
            await send(CtxModel(backend), ModelSettings(), [WebSearchTool()])
        assert not server.requests


@pytest.mark.parametrize("name", ["previous_response_id", "conversation_id"])
@streamed_or_not
async def test_state_on_the_server_is_a_user_error(name: str, stream: bool) -> None:
    async with serve(OPENAI, say("Hello")) as (backend, server):
        with pytest.raises(UserError, match=f"{name} is not supported by CtxModel; pass the whole conversation"):
            await run(Agent(name="a", model=CtxModel(backend)), stream=stream, **{name: "x"})
        assert not server.requests


# --- answers that are not whole ---------------------------------------------------------------------------


@streamed_or_not
async def test_text_that_was_cut_off_is_marked(stream: bool) -> None:
    async with serve(OPENAI, say("Once upon", finish_reason="length")) as (backend, _):
        result, _ = await run(Agent(name="a", model=CtxModel(backend)), stream=stream)
    assert "Once upon" == result.final_output
    assert "incomplete" == result.raw_responses[0].output[0].status


@streamed_or_not
@pytest.mark.parametrize(
    "answer",
    [
        Answer(text='{"name": "Ann", "age": 7}', finish_reason="length"),
        Answer(tool_calls=[("weather", {"city": "Paris"})], finish_reason="length"),
        Answer(finish_reason="length"),
    ],
    ids=["structured", "call", "nothing"],
)
async def test_answers_that_were_cut_off_cannot_be_used(answer: Answer, stream: bool) -> None:
    async with serve(OPENAI, lambda _: answer) as (backend, _):
        output_type = Person if answer.text else None
        agent: Agent[Any] = Agent(name="a", model=CtxModel(backend), tools=[weather], output_type=output_type)
        with pytest.raises(ModelBehaviorError, match=r"was cut off \(finish_reason: length\); raise max_tokens"):
            await run(agent, stream=stream)


@streamed_or_not
async def test_an_answer_that_was_filtered_is_a_refusal(stream: bool) -> None:
    async with serve(OPENAI, say("", finish_reason="content_filter")) as (backend, _):
        response = await get_response(CtxModel(backend), stream=stream)
    (item,) = response.output
    assert "refusal" == item.content[0].type


async def get_response(model: CtxModel, *, stream: bool) -> Any:
    arguments: dict[str, Any] = {
        "system_instructions": None,
        "input": "Hi",
        "model_settings": ModelSettings(),
        "tools": [],
        "output_schema": None,
        "handoffs": [],
        "tracing": ModelTracing.DISABLED,
        "previous_response_id": None,
        "conversation_id": None,
        "prompt": None,
    }
    if not stream:
        response = await model.get_response(**arguments)
        assert isinstance(response, ModelResponse)
        return response
    events = [event async for event in model.stream_response(**arguments)]
    assert "response.completed" == events[-1].type
    return events[-1].response


async def test_usage_has_all_counts() -> None:
    usage = Usage(10, 20, cached_input_tokens=4, reasoning_tokens=5)
    async with serve(OPENAI, say("Hello", usage=usage)) as (backend, _):
        for stream in (False, True):
            result, _ = await run(Agent(name="a", model=CtxModel(backend)), stream=stream)
            counts = result.context_wrapper.usage
            assert (1, 10, 20, 30) == (counts.requests, counts.input_tokens, counts.output_tokens, counts.total_tokens)
            assert (4, 5) == (
                counts.input_tokens_details.cached_tokens,
                counts.output_tokens_details.reasoning_tokens,
            )


@streamed_or_not
async def test_the_request_id_is_in_the_response(stream: bool) -> None:
    async with serve(OPENAI, say("Hello")) as (backend, _):
        result, _ = await run(Agent(name="a", model=CtxModel(backend)), stream=stream)
    assert result.raw_responses[0].request_id


# --- failures -------------------------------------------------------------------------------------------

FAULT_ROUTES = (Route("openai", "chat_completions"), Route("anthropic", "messages"))
FAULT_CASES = [
    Case(name, route, operation)
    for name, fault in faults.CATALOGUE.items()
    for route in FAULT_ROUTES
    for operation in ("complete", "stream")
    if fault.applies_to(route.kind(operation), route.wire)  # type: ignore[arg-type]  # a tuple of literals
]
CATEGORIES: dict[type[BackendError], type[Exception]] = {
    # The first that the error is an instance of.
    APITimeoutError: openai.APITimeoutError,
    ContextOverflowError: openai.BadRequestError,
    AuthenticationError: openai.AuthenticationError,
    ModelNotFoundError: openai.NotFoundError,
    RateLimitError: openai.RateLimitError,
    InternalServerError: openai.InternalServerError,
    RedirectError: openai.APIStatusError,
    APIConnectionError: openai.APIConnectionError,
    StreamInterruptedError: openai.APIError,
    ResponseError: ModelBehaviorError,
    ModelMismatchError: ModelBehaviorError,
}


@pytest.mark.parametrize("case", FAULT_CASES, ids=str)
async def test_each_fault_has_its_category(case: Case) -> None:
    async with FaultServer() as server:
        server.play(faults.CATALOGUE[case.fault])
        async with open_backend(
            case.route.type, name="one", endpoint=server.url, api_key="sk-none", default_model="m", **case.limits
        ) as backend:
            model_of_backend = CtxModel(backend)
            expected = case.expected
            if isinstance(expected, Success):
                response = await get_response(model_of_backend, stream=case.operation == "stream")
                calls = tuple(
                    f"{item.name} {item.arguments}" for item in response.output if item.type == "function_call"
                )
                assert expected.calls == calls
                if not calls:
                    assert "".join(server.pieces) == response.output[0].content[0].text
            else:
                with pytest.raises(Exception) as caught:  # noqa: PT011  # the category is checked below
                    await get_response(model_of_backend, stream=case.operation == "stream")
                check_category(case, expected, caught.value, model_of_backend)
        if expected.requests is not None:
            assert expected.requests == len(server.generations)
        await server.wait_idle()


def check_category(case: Case, expected: Failure, error: BaseException, model_of_backend: CtxModel) -> None:
    ours = error.__cause__
    assert expected.error is type(ours)
    category = next(theirs for kind, theirs in CATEGORIES.items() if issubclass(expected.error, kind))
    assert isinstance(error, category), repr(error)
    assert str(ours) == str(error)
    if isinstance(error, openai.APIStatusError):
        assert ours.status_code == error.status_code  # type: ignore[union-attr]  # it is an APIStatusError
    advice = advise(model_of_backend, error)
    was_not_processed = case.fault == "refuse" or isinstance(ours, RateLimitError)
    assert was_not_processed == bool(advice.suggested)
    assert ("safe" if was_not_processed else None) == (
        None if advice.replay_safety == "unsafe" else advice.replay_safety
    )
    partial = getattr(ours, "partial", None)
    assert (partial is not None and partial.text != "") == advice.response_started


def advise(model_of_backend: CtxModel, error: BaseException) -> ModelRetryAdvice:
    assert isinstance(error, Exception)
    advice = model_of_backend.get_retry_advice(ModelRetryAdviceRequest(error=error, attempt=1, stream=False))
    assert advice is not None
    return advice


@streamed_or_not
async def test_openais_codes_are_set(stream: bool) -> None:
    for fault, code in (("context_overflow", "context_length_exceeded"), ("model_not_found", "model_not_found")):
        async with serve_faults(faults.CATALOGUE[fault]) as (backend, _):
            with pytest.raises(openai.APIStatusError) as caught:
                await run(Agent(name="a", model=CtxModel(backend)), stream=stream)
            assert code == caught.value.code


@asynccontextmanager
async def serve_faults(*scripts: Any, **settings: Any) -> AsyncIterator[tuple[Backend, FaultServer]]:
    async with FaultServer() as server:
        server.play(*scripts)
        async with open_backend("vllm", endpoint=server.url, default_model="m", **settings) as backend:
            yield backend, server


@streamed_or_not
@pytest.mark.parametrize("fault", ["rate_limited", "busy", "loading"])
async def test_without_waiting_there_is_one_request(fault: str, stream: bool) -> None:
    async with serve_faults(faults.CATALOGUE[fault], max_retries=0, ready_timeout=0) as (backend, server):
        chosen = CtxModel(backend)
        with pytest.raises((openai.RateLimitError, openai.InternalServerError)) as caught:
            await run(Agent(name="a", model=chosen), stream=stream)
        assert 1 == len(server.generations)
        advice = advise(chosen, caught.value)
        assert (True, "safe", False) == (advice.suggested, advice.replay_safety, advice.response_started)


@streamed_or_not
async def test_the_runner_retries_what_was_not_processed(stream: bool) -> None:
    retry = ModelRetrySettings(max_retries=2, policy=retry_policies.provider_suggested())
    settings = ModelSettings(retry=retry)
    async with serve_faults(faults.rate_limited("0.01"), max_retries=0) as (backend, server):
        result, _ = await run(Agent(name="a", model=CtxModel(backend), model_settings=settings), stream=stream)
        assert "".join(server.pieces) == result.final_output
        assert 2 == len(server.generations)
        assert 2 == result.context_wrapper.usage.requests
    async with serve_faults(faults.CATALOGUE["server_error"]) as (backend, server):
        with pytest.raises(openai.InternalServerError):
            await run(Agent(name="a", model=CtxModel(backend), model_settings=settings), stream=stream)
        assert 1 == len(server.generations)


@streamed_or_not
async def test_the_runner_turns_the_retries_of_the_backend_off(stream: bool) -> None:
    settings = ModelSettings(retry=ModelRetrySettings(max_retries=0))
    async with serve_faults(faults.rate_limited(), max_retries=2) as (backend, server):
        with pytest.raises(openai.RateLimitError):
            await run(Agent(name="a", model=CtxModel(backend), model_settings=settings), stream=stream)
        assert 1 == len(server.generations)
        result, _ = await run(Agent(name="a", model=CtxModel(backend)), stream=stream)
        assert "".join(server.pieces) == result.final_output


# --- servers that load ----------------------------------------------------------------------------------


@function_tool
def look(x: int) -> str:
    return f"looked {x}"


@function_tool
def find(y: int) -> str:
    return f"found {y}"


@streamed_or_not
@pytest.mark.parametrize("fault", ["refuse", "loading"])
async def test_a_model_load_in_the_middle_of_a_run(fault: str, stream: bool) -> None:
    async with serve_faults(faults.CATALOGUE["repeated_tool_index"], faults.CATALOGUE[fault]) as (backend, server):
        result, events = await run(Agent(name="a", model=CtxModel(backend), tools=[look, find]), stream=stream)
        assert "".join(server.pieces) == result.final_output
        assert 2 == result.context_wrapper.usage.requests
        if stream:
            completed = [event for event in describe(events) if event[0] == "response.completed"]
            assert 2 == len(completed)


class Waiting(Observer):
    """Tells when a request waits for the server."""

    def __init__(self) -> None:
        self.began = asyncio.Event()

    def loading(self, facts: RequestFacts) -> None:  # noqa: ARG002  # of the base class
        self.began.set()


@pytest.mark.real
@streamed_or_not
async def test_a_server_that_starts_after_the_call(tiny_model: Callable[[str], Path], stream: bool) -> None:  # noqa: F811
    port = free_port()
    server = LocalServer(tiny_model("tiny"), port=port, threads=1, alias="tiny")
    config = BackendConfig(name="late", type="llamacpp", endpoint=f"http://127.0.0.1:{port}", default_model="tiny")
    waiting = Waiting()
    async with Registry([config], observers=[waiting]) as registry:
        agent = Agent(name="a", model=CtxModel(registry.resolve()), model_settings=ModelSettings(max_tokens=8))
        running = asyncio.create_task(run(agent, "Once upon a time", stream=stream))
        try:
            await waiting.began.wait()
            await server.start()
            result, _ = await running
            assert result.raw_responses[0].usage.output_tokens > 0
        finally:
            running.cancel()
            await server.aclose()


# --- cancellation ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def slow_server() -> Iterator[LocalServer]:
    """A server whose model generates slowly and never ends."""
    server = LocalServer(cached_model(VARIANTS["slow-tokens"]), alias="slow-tokens", threads=1, parallel=2)
    yield server
    asyncio.run(server.aclose())


@pytest.mark.real
@pytest.mark.parametrize("way", ["run", "run_streamed", "cancel()"])
async def test_cancelling_frees_the_slot(slow_server: LocalServer, way: str) -> None:
    endpoint = await slow_server.start()
    async with open_backend("llamacpp", endpoint=endpoint, default_model=slow_server.alias) as backend:
        await backend.wait_ready()
        agent = Agent(name="a", model=CtxModel(backend), model_settings=ModelSettings(max_tokens=4000))
        if way == "cancel()":
            result = Runner.run_streamed(agent, "Once upon a time")
            async for event in result.stream_events():
                if event.type == "raw_response_event" and event.data.type == "response.output_text.delta":
                    result.cancel()
        else:
            task = asyncio.create_task(run(agent, "Once upon a time", stream=way == "run_streamed"))
            assert 1 == await wait_for_slots(1, endpoint, within=20)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        assert 0 == await wait_for_slots(0, endpoint, within=2)


async def test_leaving_the_stream_of_a_model_closes_the_connection() -> None:
    async with serve_faults(faults.CATALOGUE["stall"]) as (backend, server):
        events: Any = CtxModel(backend).stream_response(
            None, "Hi", ModelSettings(), [], None, [], ModelTracing.DISABLED
        )
        async for event in events:
            if event.type == "response.output_text.delta":
                break
        await events.aclose()
        await server.wait_idle()


@streamed_or_not
async def test_the_timeout_of_the_settings_ends_the_request(stream: bool) -> None:
    if "timeout" not in {field.name for field in dataclasses.fields(ModelSettings)}:
        pytest.skip("this version has no ModelSettings.timeout")
    from agents.exceptions import ModelTimeoutError  # noqa: PLC0415  # not in the lowest version

    async with serve_faults(faults.CATALOGUE["stall"]) as (backend, server):
        settings = ModelSettings(timeout=0.2)
        with pytest.raises(ModelTimeoutError):
            await run(Agent(name="a", model=CtxModel(backend), model_settings=settings), stream=stream)
        await server.wait_idle()
        assert 1 == len(server.generations)


# --- names, copies and traces ---------------------------------------------------------------------------


CTXRC = """backends:
  - {name: one, type: vllm, endpoint: "http://127.0.0.1:8000", default_model: m1}
  - {name: two, type: openai-compatible, endpoint: "http://127.0.0.1:8001"}
"""


@pytest.fixture
def ctxrc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / ".ctxrc"
    path.write_text(CTXRC)
    return path


@pytest.mark.parametrize(
    ("name", "endpoint", "model_name"),
    [
        ("one/qwen3", "http://127.0.0.1:8000", "qwen3"),
        ("one", "http://127.0.0.1:8000", None),
        ("two/org/model:4b", "http://127.0.0.1:8001", "org/model:4b"),
    ],
)
def test_names_of_the_provider(ctxrc: Path, name: str, endpoint: str, model_name: str | None) -> None:
    chosen = CtxModelProvider().get_model(name)
    assert (endpoint, model_name) == (chosen._reference.get().endpoint, chosen.model)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("three/m", 'unknown backend: "three"; configured: one, two'),
        (None, "several backends"),
        ("", "several backends"),
    ],
)
def test_names_that_the_provider_does_not_know(ctxrc: Path, name: str | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        CtxModelProvider().get_model(name)


def test_the_default_backend_of_the_provider(ctxrc: Path) -> None:
    ctxrc.write_text(f"default_backend: one\n{CTXRC}")
    chosen = CtxModelProvider().get_model(None)
    assert ("one", None) == (chosen._reference.get().name, chosen.model)


def test_the_provider_of_one_backend_takes_names_as_models() -> None:
    config = BackendConfig(name="only", type="vllm", endpoint="http://127.0.0.1:8000")
    assert "Qwen/Qwen3-4B" == CtxModelProvider(config).get_model("Qwen/Qwen3-4B").model


@streamed_or_not
async def test_runs_by_name(stream: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    async with FaultServer() as server:
        (tmp_path / ".ctxrc").write_text(
            f"backends: [{{name: local, type: vllm, endpoint: '{server.url}', default_model: m}}]\n"
        )
        config = RunConfig(model_provider=CtxModelProvider())
        # Without a model, the SDK passes its settings for GPT-5.
        for agent in (Agent(name="a", model="local/m"), Agent(name="b")):
            result, _ = await run(agent, stream=stream, run_config=config)
            assert "".join(server.pieces) == result.final_output
        assert ["m", "m"] == [request.json["model"] for request in server.generations]
        assert all("reasoning_effort" not in request.json for request in server.generations)
        await close_backends()


def test_models_pickle_and_copy_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOME_KEY", "sk-secret")
    config = BackendConfig(name="o", type="openai", api_key_env="SOME_KEY", default_model="m")
    chosen = CtxModel(config, "gpt-5-mini", unsupported="drop")
    data = pickle.dumps(chosen)
    assert b"sk-secret" not in data
    for other in (pickle.loads(data), copy.deepcopy(chosen)):  # noqa: S301  # our own bytes
        assert ("gpt-5-mini", "drop") == (other.model, other._unsupported)
        assert other._reference.get() is chosen._reference.get()


async def test_a_model_of_a_backend_does_not_pickle() -> None:
    async with serve_faults() as (backend, _):
        with pytest.raises(TypeError, match="pass its BackendConfig"):
            pickle.dumps(CtxModel(backend))


@pytest.mark.parametrize("kind", [CtxModel, CtxModelProvider])
def test_wrong_arguments(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"backend must be a BackendConfig, a name in \.ctxrc or a Backend: int"):
        kind(1)
    with pytest.raises(ValueError, match="invalid unsupported: 'ignore'; use error or drop"):
        kind("name", unsupported="ignore")


class Recorder(TracingProcessor):
    """Keeps the spans of models."""

    def __init__(self) -> None:
        self.spans: list[dict[str, Any]] = []

    def on_trace_start(self, trace: Trace) -> None: ...

    def on_trace_end(self, trace: Trace) -> None: ...

    def on_span_start(self, span: Span[Any]) -> None: ...

    def on_span_end(self, span: Span[Any]) -> None:
        exported = span.export()
        if exported is not None and exported["span_data"]["type"] == "generation":
            self.spans.append(exported)

    def shutdown(self) -> None: ...

    def force_flush(self) -> None: ...


@pytest.fixture
def recorder() -> Iterator[Recorder]:
    processor = Recorder()
    set_trace_processors([processor])  # instead of the one that sends them to OpenAI
    set_tracing_disabled(False)
    yield processor
    set_tracing_disabled(True)
    set_trace_processors([])


@streamed_or_not
@pytest.mark.parametrize("content", [True, False], ids=["content", "no content"])
async def test_traces(recorder: Recorder, content: bool, stream: bool) -> None:
    config = RunConfig(trace_include_sensitive_data=content)
    async with serve(OPENAI, say("my answer")) as (backend, _):
        settings = ModelSettings(temperature=0.5, extra_headers={"x-secret": "hidden"})
        agent = Agent(name="a", model=CtxModel(backend, "gpt-4.1-mini"), model_settings=settings)
        await run(agent, "my question", stream=stream, run_config=config)
        (span,) = recorder.spans
        data = span["span_data"]
        assert "gpt-4.1-mini" == data["model"]
        assert (backend.endpoint, 0.5) == (data["model_config"]["base_url"], data["model_config"]["temperature"])
        assert data["usage"]["output_tokens"] > 0
        assert content == ("my question" in json.dumps(span))
        assert content == ("my answer" in json.dumps(span))
        assert "hidden" not in json.dumps(span)
    async with serve_faults(faults.CATALOGUE["unauthorized"]) as (backend, _):
        with pytest.raises(openai.AuthenticationError):
            await run(Agent(name="a", model=CtxModel(backend)), stream=stream, run_config=config)
    error = recorder.spans[1]["error"]
    assert "the request failed" == error["message"]
    assert content == ("401" in error["data"]["error"])


def test_a_missing_framework_names_the_command() -> None:
    program = (
        "import sys; sys.modules['agents'] = None\n"
        "try:\n    import ctxbackends.integrations.openai_agents\n"
        "except ImportError as error:\n    print(error)"
    )
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert "run pip install 'ctxbackends[openai-agents]'" in ended.stdout


# --- the real server and the page -----------------------------------------------------------------------


@pytest.mark.real
@streamed_or_not
async def test_a_real_server(llama_server: LocalServer, stream: bool) -> None:  # noqa: F811
    endpoint = await llama_server.start()
    async with open_backend("llamacpp", endpoint=endpoint, default_model=llama_server.alias) as backend:
        settings = ModelSettings(max_tokens=200, temperature=0)
        agent: Agent[Any] = Agent(name="a", model=CtxModel(backend), model_settings=settings, output_type=Person)
        result, events = await run(agent, "Name a person", stream=stream)
        assert isinstance(result.final_output, Person)
        assert result.context_wrapper.usage.output_tokens > 0
        if stream:
            deltas = [event[1] for event in describe(events) if event[0] == "response.output_text.delta"]
            assert result.raw_responses[0].output[0].content[0].text == "".join(deltas)


@pytest.mark.real
@pytest.mark.parametrize("block", blocks_of("openai-agents"), ids=str)
def test_the_page_runs(block: Block, project: Callable[[str], str]) -> None:  # noqa: F811
    run_block(block, project)
