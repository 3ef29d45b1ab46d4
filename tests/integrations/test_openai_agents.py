"""The models for the OpenAI Agents SDK: runs against the stand-ins, beside the SDK's own model, and a real server."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
from collections.abc import Callable
from typing import Any

import attrs
import pytest

pytest.importorskip("agents", reason="needs the extra openai-agents: nox -s integrations")

from agents import (
    Agent,
    ModelBehaviorError,
    ModelSettings,
    OpenAIChatCompletionsModel,
    Runner,
    RunState,
    SQLiteSession,
    UserError,
    WebSearchTool,
)
from openai import AsyncOpenAI
from openai.types.shared import Reasoning
from pydantic import BaseModel

from ctxbackends import BackendConfig, BackendError, LocalServer, ToolCall, Usage, open_backend
from ctxbackends.integrations.openai_agents import CtxModel
from ctxbackends.testing import VARIANTS, Answer, FaultServer, Question, cached_model
from tests.integrations.agents_runs import (
    ANTHROPIC,
    LMSTUDIO,
    OPENAI,
    WIRES,
    Wire,
    ask_for_two_cities,
    describe,
    get_response,
    list_calls,
    on_all_wires,
    run,
    say,
    serve,
    streamed_or_not,
    weather,
)
from tests.integrations.pages import Block, blocks_of, llama_server, project, run_block, tiny_model  # noqa: F401

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
@on_all_wires
async def test_output_type_of_an_agent_with_tools(wire: Wire, stream: bool) -> None:
    questions: list[Question] = []

    def answer(question: Question) -> Answer:
        questions.append(question)
        if not question.tool_results:
            return Answer(tool_calls=[("weather", {"city": "Paris"})], reasoning="Ask first.")
        person = {"name": question.tool_results[0].text, "age": 7}
        if question.response_format is not None:
            return Answer(text=json.dumps(person))
        return Answer(text="Here it is.", tool_calls=[("final_output", person)], reasoning="Done.")

    async with serve(wire, answer) as (backend, _):
        agent = Agent(name="a", model=CtxModel(backend), tools=[weather], output_type=Person)
        result, events = await run(agent, stream=stream)
        assert Person(name="sunny in Paris", age=7) == result.final_output
        items = result.to_input_list()
        assert 1 == len(list_calls(items))
        # A grammar for the schema would keep the model from calling the tools.
        uses_tool = backend.schema_enforcement == "grammar"
        assert uses_tool == (questions[0].response_format is None)
        assert uses_tool == ("final_output" in [tool.name for tool in questions[0].tools])
        if stream:
            deltas = "".join(event[1] for event in describe(events) if event[0] == "response.output_text.delta")
            assert {"name": "sunny in Paris", "age": 7} == json.loads(deltas)
        await run(agent, [*items, {"role": "user", "content": "Again?"}], stream=stream)
    last = [message for message in questions[2].messages if message.role == "assistant"][-1]
    assert {"name": "sunny in Paris", "age": 7} == json.loads(last.text)


@streamed_or_not
async def test_output_as_text_despite_an_output_tool(stream: bool) -> None:
    async with serve(WIRES[2], say('{"name": "Ann", "age": 7}')) as (backend, _):
        result, _ = await run(
            Agent(name="a", model=CtxModel(backend), tools=[weather], output_type=Person), stream=stream
        )
    assert Person(name="Ann", age=7) == result.final_output


@pytest.mark.real
@streamed_or_not
async def test_a_real_server_with_tools_and_an_output_type(stream: bool) -> None:
    server = LocalServer(cached_model(VARIANTS["tiny-tools"]), alias="tiny-tools", threads=1, ctx_size=4096)
    try:
        endpoint = await server.start()
        async with open_backend("llamacpp", endpoint=endpoint, default_model="tiny-tools") as backend:
            settings = ModelSettings(max_tokens=200, temperature=0)
            agent = Agent(
                name="a",
                model=CtxModel(backend),
                model_settings=settings,
                tools=[weather],
                tool_use_behavior="stop_on_first_tool",
            )
            agent.output_type = Person
            result, _ = await run(agent, "How is the weather?", stream=stream)
            # The model is random: it calls one of the two tools, and with a grammar for the schema it would call none.
            calls = list_calls(result.to_input_list())
            assert isinstance(result.final_output, str if calls else Person)
    finally:
        await server.aclose()


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
                tools=[weather] if subject == "tools" else [],
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


@streamed_or_not
async def test_signed_reasoning_goes_back_from_a_session(stream: bool) -> None:
    session = SQLiteSession("s")
    async with serve(ANTHROPIC, think_and_ask) as (backend, server):
        agent = Agent(name="a", model=CtxModel(backend), model_settings=THINK, tools=[weather])
        for prompt in ("Hi", "Again?"):
            await run(agent, prompt, stream=stream, session=session)
        first, second = (server.requests[number].json["messages"] for number in (1, -1))
        assert first[1] == second[1]
        assert "signature" in first[1]["content"][0]
    session.close()


@streamed_or_not
async def test_signed_reasoning_waits_for_an_approval(stream: bool) -> None:
    asked = dataclasses.replace(weather, needs_approval=True)
    async with serve(ANTHROPIC, think_and_ask) as (backend, server):
        agent = Agent(name="a", model=CtxModel(backend), model_settings=THINK, tools=[asked])
        result, _ = await run(agent, stream=stream)
        assert 2 == len(result.interruptions)
        state = await RunState.from_json(agent, json.loads(json.dumps(result.to_state().to_json())))
        for interruption in state.get_interruptions():
            state.approve(interruption)
        result, _ = await run(agent, state, stream=stream)
        assert "sunny in Paris and sunny in Rome" == result.final_output
        sent = server.requests[-1].json["messages"][1]["content"]
        assert ["thinking", "tool_use", "tool_use"] == [block["type"] for block in sent]


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
