"""The model and the embedding model for pydantic-ai, on stand-ins of the servers and on the fault server."""

from __future__ import annotations

import asyncio
import copy
import json
import pickle
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

pytest.importorskip("pydantic_ai", reason="needs the extra pydantic-ai: nox -s integrations")

from pydantic import BaseModel
from pydantic_ai import Agent, BinaryContent, ModelRetry, NativeOutput, PromptedOutput, ToolOutput, exceptions
from pydantic_ai.direct import model_request
from pydantic_ai.messages import (
    ImageUrl,
    ModelMessage,
    ModelMessagesTypeAdapter,
    ModelRequest,
    ModelResponse,
    PartDeltaEvent,
    PartEndEvent,
    PartStartEvent,
    TextPart,
    ThinkingPart,
    ToolCallPart,
    ToolReturnPart,
    UserPromptPart,
)
from pydantic_ai.models import ModelRequestParameters
from pydantic_ai.settings import ModelSettings, ToolOrOutput
from pydantic_ai.tools import ToolDefinition
from pydantic_ai.usage import UsageLimits

from ctxbackends import BackendConfig, JSONObjectFormat, JSONSchemaFormat, Message, NamedTool, ReasoningPart, Usage
from ctxbackends.integrations import close_backends
from ctxbackends.integrations.pydantic_ai import CtxEmbeddingModel, CtxModel, CtxModelSettings
from ctxbackends.testing import Answer, FaultServer, Question
from tests.integrations.pages import Block, blocks_of, llama_server, project, run_block, tiny_model  # noqa: F401
from tests.stand_ins.test_answers import ANTHROPIC, LMSTUDIO, OLLAMA, OPENAI, SERVERS, Answering, Server

NATIVE_OLLAMA = next(server for server in OLLAMA if server.wire == "ollama")
WIRES = [OPENAI, ANTHROPIC, NATIVE_OLLAMA]
every_wire = pytest.mark.parametrize("server", WIRES, ids=lambda server: server.id)
every_server = pytest.mark.parametrize("server", SERVERS, ids=lambda server: server.id)


class City(BaseModel):
    name: str
    population: int = 0


ROME = '{"name": "Rome", "population": 3}'


@pytest.fixture(autouse=True)
async def closed_backends() -> AsyncIterator[None]:
    yield
    await close_backends()


class Recorder:
    """Answers with each answer in turn, and keeps the questions."""

    def __init__(self, *answers: Answer) -> None:
        self.answers = [*answers]
        self.questions: list[Question] = []

    def __call__(self, question: Question) -> Answer:
        self.questions.append(question)
        return self.answers.pop(0)


@asynccontextmanager
async def model_of(server: Server, answer: Answering, **arguments: Any) -> AsyncIterator[CtxModel]:
    async with server.stand_in(answer=answer) as stand_in:
        yield CtxModel(config_for(server, stand_in.url), **arguments)


def config_for(server: Server, url: str, **settings: Any) -> BackendConfig:
    return BackendConfig(
        name="b",
        type=server.type,
        endpoint=url,
        api_key="any",
        wire_api=server.wire,
        **{"default_model": server.model} | settings,
    )


# --- runs ---------------------------------------------------------------------------------------------


@every_server
async def test_run(server: Server) -> None:
    recorder = Recorder(Answer(text="Hello!", usage=Usage(input_tokens=7, output_tokens=2)))
    async with model_of(server, recorder) as model:
        agent = Agent(model, instructions="Be nice.", system_prompt="You are a bot.")
        result = await agent.run("Hi", model_settings=ModelSettings(max_tokens=9, temperature=0.5))
    assert "Hello!" == result.output
    assert (7, 2, 1) == (result.usage.input_tokens, result.usage.output_tokens, result.usage.requests)
    (question,) = recorder.questions
    assert server.model == question.model
    assert [("system", "You are a bot.\n\nBe nice."), ("user", "Hi")] == [(m.role, m.text) for m in question.messages]
    response = result.all_messages()[-1]
    assert isinstance(response, ModelResponse)
    assert ("stop", server.type) == (response.finish_reason, response.provider_name)
    assert (response.model_name or "").startswith(server.model)
    assert "complete" == response.state


def test_run_sync() -> None:
    """Each of two event loops in turn, as in two programs that call ``run_sync()``."""
    with FaultServer() as server:
        model = CtxModel(BackendConfig(name="b", type="openai", endpoint=server.url, api_key="k", default_model="m"))
        for _ in range(2):
            with asyncio.Runner() as runner:
                asyncio.set_event_loop(runner.get_loop())  # which run_sync() uses
                assert "Hello, world." == Agent(model).run_sync("Hi").output
        assert 2 == len(server.generations)


@every_server
async def test_run_stream(server: Server) -> None:
    recorder = Recorder(Answer(text="One two three.", usage=Usage(input_tokens=7, output_tokens=4)))
    async with model_of(server, recorder) as model, Agent(model).run_stream("Count") as result:
        pieces = [piece async for piece in result.stream_text(delta=True, debounce_by=None)]
        assert "One two three." == "".join(pieces)
        assert len(pieces) > 1
        assert (7, 4) == (result.usage.input_tokens, result.usage.output_tokens)
    assert recorder.questions[0].stream
    (_, response) = result.all_messages()
    assert isinstance(response, ModelResponse)
    assert ("stop", "complete", server.type) == (response.finish_reason, response.state, response.provider_name)
    assert response.provider_response_id is not None or server.wire == "ollama"


@every_wire
async def test_a_stream_gives_the_parts_of_a_run(server: Server) -> None:
    answer = Answer(text="Rome.", reasoning="Italy?", tool_calls=[("look", {"city": "Rome"}), ("look", {"city": "Ur"})])
    settings = CtxModelSettings(ctx_options={"reasoning_budget": 1024}) if server is ANTHROPIC else ModelSettings()
    async with model_of(server, lambda _: answer, settings=settings) as model:
        whole = await model.request([ModelRequest([UserPromptPart("Hi")])], None, PARAMETERS)
        async with model.request_stream([ModelRequest([UserPromptPart("Hi")])], None, PARAMETERS) as stream:
            events = [event async for event in stream]
        streamed = stream.get()

    def comparable(response: ModelResponse) -> list[Any]:
        return [
            (part.tool_name, part.args_as_dict())
            if isinstance(part, ToolCallPart)
            else (part.part_kind, getattr(part, "content", None), getattr(part, "signature", None))
            for part in response.parts
        ]

    assert comparable(whole) == comparable(streamed)
    starts = [event.part for event in events if isinstance(event, PartStartEvent)]
    ends = [event.part for event in events if isinstance(event, PartEndEvent)]
    kinds = [type(part) for part in streamed.parts]
    assert kinds == [type(part) for part in starts] == [type(part) for part in ends]
    assert [ToolCallPart, ToolCallPart] == kinds[-2:]
    assert [*streamed.parts] == ends


LOOK = {"type": "object", "properties": {"city": {"type": "string"}}}
PARAMETERS = ModelRequestParameters(
    function_tools=[
        ToolDefinition(
            name="look",
            parameters_json_schema={"type": "object", "properties": {"city": {"type": "string"}}},
            description="Look it up.",
        )
    ]
)


# --- structured output --------------------------------------------------------------------------------


@pytest.mark.parametrize("server", [OPENAI, ANTHROPIC], ids=lambda server: server.id)
async def test_output_is_a_tool_at_vendors(server: Server) -> None:
    recorder = Recorder(Answer(tool_calls=[("final_result", ROME)]))
    async with model_of(server, recorder) as model:
        assert City(name="Rome", population=3) == (await Agent(model, output_type=City).run("Where?")).output
    (question,) = recorder.questions
    assert (["final_result"], "required", None) == (
        [tool.name for tool in question.tools],
        question.tool_choice,
        question.response_format,
    )


@pytest.mark.parametrize("server", [NATIVE_OLLAMA, LMSTUDIO[0]], ids=lambda server: server.id)
async def test_output_is_a_grammar_on_local_servers(server: Server) -> None:
    recorder = Recorder(Answer(text=ROME))
    async with model_of(server, recorder) as model:
        assert City(name="Rome", population=3) == (await Agent(model, output_type=City).run("Where?")).output
    (question,) = recorder.questions
    assert isinstance(question.response_format, JSONSchemaFormat)
    assert ["name"] == question.response_format.schema["required"]
    assert () == question.tools


async def test_with_function_tools_the_output_is_a_tool() -> None:
    """A grammar for the output would keep a local model from calling the functions."""
    recorder = Recorder(Answer(tool_calls=[("double", {"value": 4})]), Answer(tool_calls=[("final_result", ROME)]))
    async with model_of(NATIVE_OLLAMA, recorder) as model:
        agent = Agent(model, output_type=City)
        agent.tool_plain(double)
        assert "Rome" == (await agent.run("Where?")).output.name
    for question in recorder.questions:
        assert None is question.response_format
        assert {"double", "final_result"} == {tool.name for tool in question.tools}


def double(value: int) -> int:
    """Double a number."""
    return 2 * value


@pytest.mark.parametrize("server", [OPENAI, ANTHROPIC, NATIVE_OLLAMA, LMSTUDIO[0]], ids=lambda server: server.id)
@pytest.mark.parametrize("streamed", [False, True], ids=["run", "stream"])
async def test_native_output(server: Server, streamed: bool) -> None:
    """Vendors enforce only strict schemas: the optional field becomes required, as its default says what to write."""
    recorder = Recorder(Answer(text=ROME))
    async with model_of(server, recorder) as model:
        agent = Agent(model, output_type=NativeOutput(City))
        if streamed:
            async with agent.run_stream("Where?") as result:
                output = [city async for city in result.stream_output(debounce_by=None)][-1]
        else:
            output = (await agent.run("Where?")).output
    assert City(name="Rome", population=3) == output
    (question,) = recorder.questions
    assert isinstance(question.response_format, JSONSchemaFormat)
    is_vendor = server in (OPENAI, ANTHROPIC)
    assert (["name", "population"] if is_vendor else ["name"]) == question.response_format.schema["required"]


async def test_a_schema_that_cannot_be_strict_is_sent_as_it_is() -> None:
    class Counts(BaseModel):
        counts: dict[str, int]

    recorder = Recorder(Answer(text='{"counts": {"a": 1}}'))
    async with model_of(OPENAI, recorder) as model:
        assert {"a": 1} == (await Agent(model, output_type=NativeOutput(Counts)).run("Count")).output.counts
        with pytest.raises(exceptions.UserError, match="counts"):
            await Agent(model, output_type=NativeOutput(Counts, strict=True)).run("Count")
    (question,) = recorder.questions
    assert isinstance(question.response_format, JSONSchemaFormat)
    assert {"type": "integer"} == question.response_format.schema["properties"]["counts"]["additionalProperties"]


@every_wire
async def test_tool_output(server: Server) -> None:
    recorder = Recorder(Answer(tool_calls=[("give", ROME)]))
    async with model_of(server, recorder) as model:
        agent = Agent(model, output_type=ToolOutput(City, name="give"))
        assert "Rome" == (await agent.run("Where?")).output.name
    assert ["give"] == [tool.name for tool in recorder.questions[0].tools]


@pytest.mark.parametrize(
    ("server", "expected"), [(OPENAI, JSONObjectFormat()), (ANTHROPIC, None)], ids=["openai", "anthropic"]
)
async def test_prompted_output(server: Server, expected: JSONObjectFormat | None) -> None:
    recorder = Recorder(Answer(text=ROME))
    async with model_of(server, recorder) as model:
        assert "Rome" == (await Agent(model, output_type=PromptedOutput(City)).run("Where?")).output.name
    (question,) = recorder.questions
    assert expected == question.response_format
    assert '"population"' in question.messages[0].text


async def test_output_that_does_not_validate_is_asked_for_again() -> None:
    recorder = Recorder(Answer(text='{"name": 1}'), Answer(text=ROME))
    async with model_of(NATIVE_OLLAMA, recorder) as model:
        result = await Agent(model, output_type=City).run("Where?")
    assert ("Rome", 2) == (result.output.name, result.usage.requests)
    assert ["user", "assistant", "user"] == [message.role for message in recorder.questions[1].messages][-3:]


# --- tools --------------------------------------------------------------------------------------------


@every_server
@pytest.mark.parametrize("streamed", [False, True], ids=["run", "stream"])
async def test_two_parallel_calls(server: Server, streamed: bool) -> None:
    recorder = Recorder(
        Answer(tool_calls=[("double", {"value": 4}), ("double", {"value": 5})]), Answer(text="8 and 10")
    )
    async with model_of(server, recorder) as model:
        agent = Agent(model)
        agent.tool_plain(double)
        if streamed:
            async with agent.run_stream("Double 4 and 5") as result:
                output = await result.get_output()
        else:
            output = (await agent.run("Double 4 and 5")).output
    assert "8 and 10" == output
    first, second = recorder.questions
    assert ("double", "Double a number.") == (first.tools[0].name, first.tools[0].description)
    assert ["8", "10"] == [result.text for result in second.tool_results]
    (calls,) = [message.tool_calls for message in second.messages if message.tool_calls]
    assert [{"value": 4}, {"value": 5}] == [json.loads(call.arguments) for call in calls]
    if server.wire != "ollama":  # its own API has no IDs
        assert [call.id for call in calls] == [result.tool_call_id for result in second.tool_results]
        assert 2 == len({call.id for call in calls})


async def test_the_events_of_parallel_calls() -> None:
    answer = Answer(tool_calls=[("look", {"city": "Rome"}), ("look", {"city": "Ur"})])
    async with (
        model_of(OPENAI, lambda _: answer) as model,
        model.request_stream([ModelRequest([UserPromptPart("Hi")])], None, PARAMETERS) as stream,
    ):
        events = [event async for event in stream]
    assert {"PartStartEvent", "PartDeltaEvent", "PartEndEvent"} == {type(event).__name__ for event in events}
    for index, city in enumerate(("Rome", "Ur")):
        deltas = [event.delta for event in events if isinstance(event, PartDeltaEvent) and event.index == index]
        (start,) = [event.part for event in events if isinstance(event, PartStartEvent) and event.index == index]
        assert isinstance(start, ToolCallPart)
        text = "".join(filter(None, [start.args, *(delta.args_delta for delta in deltas)]))  # type: ignore[union-attr, list-item]
        assert ("look", {"city": city}) == (start.tool_name, json.loads(text))


@every_wire
async def test_a_failed_tool_is_told_to_the_model(server: Server) -> None:
    recorder = Recorder(Answer(tool_calls=[("fail", {})]), Answer(text="I see."))
    async with model_of(server, recorder) as model:
        agent = Agent(model)

        @agent.tool_plain
        def fail() -> str:
            raise ModelRetry("Try tomorrow.")

        assert "I see." == (await agent.run("Go")).output
    (result,) = recorder.questions[1].tool_results
    assert "Try tomorrow." in result.text
    assert result.is_error or result.text.startswith("Error: ")


@every_wire
async def test_an_image_of_a_tool_follows_its_result(server: Server) -> None:
    recorder = Recorder(Answer(tool_calls=[("draw", {})]), Answer(text="Nice."))
    async with model_of(server, recorder) as model:
        agent = Agent(model)

        @agent.tool_plain
        def draw() -> BinaryContent:
            return BinaryContent(PNG, media_type="image/png")

        await agent.run("Draw")
    question = recorder.questions[1]
    images = [part for message in question.messages for part in message.parts if type(part).__name__ == "ImagePart"]
    assert [PNG] == [image.data for image in images]  # type: ignore[union-attr]


PNG = b"\x89PNG\r\n\x1a\n" + bytes(8)


CHOICES = [
    (None, None, {"a", "b"}),
    ("auto", None, {"a", "b"}),
    ("none", "none", {"a", "b"}),
    ([], "none", {"a", "b"}),
    ("required", "required", {"a", "b"}),
    (["a"], NamedTool("a"), {"a", "b"}),
    (["a", "b"], "required", {"a", "b"}),
    (ToolOrOutput(function_tools=["b"]), None, {"b"}),
]


@pytest.mark.parametrize(("setting", "expected", "names"), CHOICES, ids=[str(choice[0]) for choice in CHOICES])
async def test_tool_choice(setting: Any, expected: Any, names: set[str]) -> None:
    recorder = Recorder(Answer(text="ok"))
    tools = [ToolDefinition(name=name, parameters_json_schema={"type": "object", "properties": {}}) for name in "ab"]
    settings = ModelSettings() if setting is None else ModelSettings(tool_choice=setting)
    async with model_of(OPENAI, recorder) as model:
        await model_request(
            model,
            [ModelRequest([UserPromptPart("Hi")])],
            model_settings=settings,
            model_request_parameters=ModelRequestParameters(function_tools=tools),
        )
    (question,) = recorder.questions
    assert (expected, names) == (question.tool_choice, {tool.name for tool in question.tools})


@pytest.mark.parametrize("setting", ["required", ["look"]])
async def test_a_tool_choice_that_the_server_lacks_is_an_error(setting: Any) -> None:
    async with model_of(NATIVE_OLLAMA, Recorder()) as model:
        with pytest.raises(exceptions.UserError, match="Ollama cannot force a tool call"):
            await model.request([ModelRequest([UserPromptPart("Hi")])], ModelSettings(tool_choice=setting), PARAMETERS)


async def test_an_unknown_tool_in_tool_choice_is_an_error() -> None:
    async with model_of(OPENAI, Recorder()) as model:
        with pytest.raises(
            exceptions.UserError, match=r"unknown tools in tool_choice: \['find'\]; the request has look"
        ):
            await model.request([ModelRequest([UserPromptPart("Hi")])], ModelSettings(tool_choice=["find"]), PARAMETERS)


# --- history ------------------------------------------------------------------------------------------


@every_server
async def test_history_through_json(server: Server) -> None:
    recorder = Recorder(Answer(tool_calls=[("double", {"value": 4})]), Answer(text="It is 8."), Answer(text="16"))
    async with model_of(server, recorder) as model:
        agent = Agent(model)
        agent.tool_plain(double)
        result = await agent.run("Double 4")
        history = ModelMessagesTypeAdapter.validate_json(result.all_messages_json())
        assert "16" == (await agent.run("Again", message_history=history)).output
    _, second, third = recorder.questions
    assert [*second.messages, Message.assistant("It is 8."), Message.user("Again")] == [*third.messages]


@pytest.mark.parametrize("streamed", [False, True], ids=["run", "stream"])
async def test_signed_reasoning_goes_back_through_a_tool_loop(streamed: bool) -> None:
    recorder = Recorder(
        Answer(reasoning="I must double.", tool_calls=[("double", {"value": 4})]), Answer(text="8"), Answer(text="ok")
    )
    settings = CtxModelSettings(max_tokens=2048, ctx_options={"reasoning_budget": 1024})
    async with model_of(ANTHROPIC, recorder, settings=settings) as model:
        agent = Agent(model)
        agent.tool_plain(double)
        if streamed:
            async with agent.run_stream("Double 4") as run:
                await run.get_output()
                messages = run.all_messages_json()
        else:
            messages = (await agent.run("Double 4")).all_messages_json()
        history = ModelMessagesTypeAdapter.validate_json(messages)
        await agent.run("Again", message_history=history)
    for question in recorder.questions[1:]:
        reasoning = [part for message in question.messages for part in message.parts if isinstance(part, ReasoningPart)]
        assert ["I must double."] == [part.text for part in reasoning if part.text]
        assert all(part.signature for part in reasoning if part.text)


async def test_reasoning_of_another_provider_is_left_out() -> None:
    recorder = Recorder(Answer(text="ok"))
    history: list[ModelMessage] = [
        ModelRequest([UserPromptPart("Hi")]),
        ModelResponse(
            [
                ThinkingPart("secret", signature="s", provider_name="google"),
                TextPart("Hello"),
                ToolCallPart("f", {}, "1"),
            ]
        ),
        ModelRequest([ToolReturnPart("f", "done", tool_call_id="1")]),
    ]
    async with model_of(ANTHROPIC, recorder) as model:
        await model.request(history, None, ModelRequestParameters())
    (question,) = recorder.questions
    assert "secret" not in str(question.messages)
    assert ("Hello", ("f",)) == (
        question.messages[1].text,
        tuple(call.name for call in question.messages[1].tool_calls),
    )


async def test_reasoning_of_a_local_server_goes_back() -> None:
    recorder = Recorder(Answer(text="8", reasoning="2 * 4"), Answer(text="ok"))
    async with model_of(NATIVE_OLLAMA, recorder, settings=ModelSettings(thinking=True)) as model:
        result = await Agent(model).run("Double 4")
        await Agent(model).run("Again", message_history=result.all_messages())
    assert [ThinkingPart, TextPart] == [type(part) for part in result.all_messages()[-1].parts]
    assert ["2 * 4"] == [
        part.text
        for message in recorder.questions[1].messages
        for part in message.parts
        if isinstance(part, ReasoningPart)
    ]


async def test_a_system_prompt_in_the_middle_is_in_a_user_turn_for_anthropic() -> None:
    recorder = Recorder(Answer(text="Hello"), Answer(text="ok"))
    async with model_of(ANTHROPIC, recorder) as model:
        assert model.profile["supports_inline_system_prompts"] is False
        first = await Agent(model).run("Hi")
        agent = Agent(model, system_prompt="Now in French.")
        await agent.run("Again", message_history=first.all_messages())
    assert ["system", "user", "assistant", "user"][-3:] == [m.role for m in recorder.questions[1].messages][-3:]


# --- content ------------------------------------------------------------------------------------------


@every_wire
async def test_images_and_text_files(server: Server) -> None:
    recorder = Recorder(Answer(text="ok"))
    content: list[Any] = [
        "See",
        BinaryContent(PNG, media_type="image/png"),
        BinaryContent(b"a,b\n1,2", media_type="text/csv", identifier="t"),
    ]
    async with model_of(server, recorder) as model:
        await Agent(model).run(content)
    (message,) = recorder.questions[0].messages
    assert [PNG] == [part.data for part in message.parts if type(part).__name__ == "ImagePart"]  # type: ignore[union-attr]
    assert "a,b\n1,2" in message.text


async def test_content_that_the_server_lacks_is_an_error_with_the_reason() -> None:
    async with model_of(NATIVE_OLLAMA, Recorder()) as model:
        with pytest.raises(exceptions.UserError, match=r"pass their bytes with ImagePart\.from_bytes"):
            await Agent(model).run(["See", ImageUrl("https://example.com/a.png")])
        with pytest.raises(exceptions.UserError, match="this API takes no documents"):
            await Agent(model).run(["See", BinaryContent(b"%PDF-1.7\n", media_type="application/pdf")])
        with pytest.raises(exceptions.UserError, match="cannot send a file of the type video/mp4"):
            await Agent(model).run(["See", BinaryContent(b"0", media_type="video/mp4")])


# --- settings -----------------------------------------------------------------------------------------


async def test_settings_are_options() -> None:
    recorder = Recorder(Answer(text="ok"))
    settings = CtxModelSettings(
        max_tokens=5,
        temperature=0.25,
        top_p=0.5,
        seed=7,
        presence_penalty=0.5,
        frequency_penalty=0.75,
        stop_sequences=["."],
        ctx_options={"min_p": 0.125},
        top_k=3,
        thinking="low",
    )
    async with model_of(NATIVE_OLLAMA, recorder) as model:
        await Agent(model, model_settings=settings).run("Hi")
    options = recorder.questions[0].options
    assert {
        "num_predict": 5,
        "temperature": 0.25,
        "top_p": 0.5,
        "top_k": 3,
        "seed": 7,
        "presence_penalty": 0.5,
        "frequency_penalty": 0.75,
        "stop": ["."],
        "min_p": 0.125,
    } == options["options"]
    assert "low" == options["think"]


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        (ModelSettings(seed=7), "seed: the Messages API has no such option"),
        (ModelSettings(temperature=1.5), "temperature: this server accepts at most 1"),
        (ModelSettings(logit_bias={"1": 1}), "settings not supported by CtxModel: logit_bias"),
        (CtxModelSettings(ctx_options={"tempreature": 1}), "tempreature"),
    ],
    ids=["option", "maximum", "setting", "unknown"],
)
@pytest.mark.parametrize("streamed", [False, True], ids=["run", "stream"])
async def test_an_unsupported_setting_is_an_error(settings: ModelSettings, reason: str, streamed: bool) -> None:
    async with model_of(ANTHROPIC, Recorder()) as model:
        with pytest.raises(exceptions.UserError, match=reason):
            if streamed:
                async with Agent(model).run_stream("Hi", model_settings=settings):
                    pass
            else:
                await Agent(model).run("Hi", model_settings=settings)


async def test_unsupported_settings_can_be_dropped() -> None:
    recorder = Recorder(Answer(text="ok"))
    settings = ModelSettings(seed=7, logit_bias={"1": 1}, top_k=3)
    async with model_of(ANTHROPIC, recorder, unsupported="drop") as model:
        await Agent(model).run("Hi", model_settings=settings)
    assert 3 == recorder.questions[0].options["top_k"]
    assert "seed" not in recorder.questions[0].options


async def test_headers_of_one_request() -> None:
    async with FaultServer() as server:
        model = CtxModel(BackendConfig(name="b", type="openai", endpoint=server.url, api_key="k", default_model="m"))
        await Agent(model).run("Hi", model_settings=ModelSettings(extra_headers={"X-Tenant": "blue"}))
        assert "blue" == server.generations[0].headers["x-tenant"]


async def test_the_model_of_the_argument_is_sent() -> None:
    recorder = Recorder(Answer(text="ok"))
    async with OPENAI.stand_in(answer=recorder) as stand_in:
        model = CtxModel(config_for(OPENAI, stand_in.url, default_model=None), model="gpt-5-mini")
        await Agent(model).run("Hi")
        assert ("gpt-5-mini", "openai", stand_in.url) == (model.model_name, model.system, model.base_url)
        with pytest.raises(exceptions.UserError, match='no model: the backend "b" has no default_model; pass model='):
            await Agent(CtxModel(config_for(OPENAI, stand_in.url, default_model=None))).run("Hi")
    assert "gpt-5-mini" == recorder.questions[0].model


# --- profile, copies ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("type_", "mode", "inline", "forced"),
    [
        ("vllm", "native", False, True),
        ("llamacpp", "native", False, True),
        ("ollama", "native", False, False),
        ("lmstudio", "native", False, True),
        ("openai", "tool", True, True),
        ("anthropic", "tool", False, True),
        ("openai-compatible", "tool", False, True),
    ],
)
def test_profile(type_: str, mode: str, inline: bool, forced: bool) -> None:
    config = BackendConfig(name="b", type=type_, endpoint="http://127.0.0.1:9", api_key="k", default_model="m")
    profile = CtxModel(config).profile
    assert (mode, inline, forced) == (
        profile["default_structured_output_mode"],
        profile["supports_inline_system_prompts"],
        profile["supports_forced_tool_choice"],
    )
    assert (
        "tool"
        == CtxModel(config, profile={"default_structured_output_mode": "tool"}).profile[
            "default_structured_output_mode"
        ]
    )


def test_models_pickle_and_copy() -> None:
    config = BackendConfig(name="b", type="vllm", endpoint="http://127.0.0.1:9", default_model="m")
    model = CtxModel(config, settings=ModelSettings(seed=1))
    assert "native" == model.profile["default_structured_output_mode"]  # kept on the model
    for other in (pickle.loads(pickle.dumps(model)), copy.copy(model), copy.deepcopy(model)):  # noqa: S301  # our own bytes
        assert model == other
        assert ("m", {"seed": 1}, "http://127.0.0.1:9") == (other.model_name, other.settings, other.base_url)
    assert model != CtxModel(config, "n", settings=ModelSettings(seed=1))
    embedding = CtxEmbeddingModel(config)
    assert embedding == pickle.loads(pickle.dumps(embedding)) == copy.deepcopy(embedding)  # noqa: S301


async def test_a_backend_that_is_not_configured_is_a_user_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ctxbackends.integrations._common.find_ctxrc", lambda: None)
    with pytest.raises(exceptions.UserError, match='cannot find the backend "gpu"'):
        await Agent(CtxModel("gpu")).run("Hi")
    with pytest.raises(exceptions.UserError, match='cannot find the backend "gpu"'):
        await CtxEmbeddingModel("gpu").embed("Hi", input_type="query")
    config = BackendConfig(
        name="b",
        type="openai",
        endpoint="http://127.0.0.1:9",
        default_model="m",
        api_key_env="CTXBACKENDS_TEST_NOT_SET",
    )
    with pytest.raises(exceptions.UserError, match="environment variable not set: CTXBACKENDS_TEST_NOT_SET"):
        await Agent(CtxModel(config)).run("Hi")


def test_a_key_is_not_shown() -> None:
    config = BackendConfig(name="b", type="openai", api_key="sk-secret", default_model="m")
    assert "sk-secret" not in repr(CtxModel(config)) + repr(CtxEmbeddingModel(config))


# --- tokens and embeddings ----------------------------------------------------------------------------


async def test_count_tokens() -> None:
    async with model_of(ANTHROPIC, lambda _: Answer(text="ok")) as model:
        usage = await model.count_tokens([ModelRequest([UserPromptPart("Hi there")])], None, PARAMETERS)
        assert usage.input_tokens > 0
        limits = UsageLimits(input_tokens_limit=1, count_tokens_before_request=True)
        with pytest.raises(exceptions.UsageLimitExceeded):
            await Agent(model).run("Hi there, this is long", usage_limits=limits)


async def test_tokens_are_never_estimated() -> None:
    async with model_of(NATIVE_OLLAMA, Recorder()) as model:
        with pytest.raises(exceptions.UserError, match="the number is never estimated"):
            await model.count_tokens([ModelRequest([UserPromptPart("Hi")])], None, ModelRequestParameters())


async def test_embeddings() -> None:
    from pydantic_ai import Embedder  # noqa: PLC0415  # only here

    async with OPENAI.stand_in() as stand_in:
        model = CtxEmbeddingModel(config_for(OPENAI, stand_in.url, default_model="text-embedding-3-small"))
        embedder = Embedder(model)
        documents = await embedder.embed_documents(["one", "two"])
        query = await embedder.embed_query("one")
        short = await embedder.embed_documents(["one"], settings={"dimensions": 8})
        with pytest.raises(exceptions.UserError, match="settings not supported by CtxEmbeddingModel: truncate"):
            await embedder.embed_documents(["one"], settings={"truncate": True})
    assert 2 == len(documents.embeddings)
    assert documents["one"] == query.embeddings[0] != documents["two"]
    assert 8 == len(short.embeddings[0])
    assert documents.usage.input_tokens > 0
    assert ("text-embedding-3-small", "openai") == (documents.model_name, documents.provider_name)


async def test_embeddings_that_the_server_lacks_are_an_error_with_the_reason() -> None:
    config = BackendConfig(name="b", type="anthropic", api_key="k", default_model="m")
    with pytest.raises(exceptions.UserError, match=r"embed: .*the server has no embeddings"):
        await CtxEmbeddingModel(config).embed("one", input_type="query")
