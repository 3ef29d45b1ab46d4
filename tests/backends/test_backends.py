"""What holds for every backend, tried on every server and every stand-in. Where a server cannot, the SDK says so before
anything is sent; the documentation shows that as not supported."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import attrs
import msgspec
import pytest

from ctxbackends import (
    AuthenticationError,
    Backend,
    ChatOptions,
    ChoiceFormat,
    Completion,
    ConfigError,
    ContextOverflowError,
    Finish,
    ImagePart,
    InternalServerError,
    JSONObjectFormat,
    Loading,
    Message,
    ModelMismatchError,
    ModelNotFoundError,
    NamedTool,
    NotFoundError,
    PromptProgress,
    ReasoningDelta,
    ReasoningPart,
    StreamInterruptedError,
    TextDelta,
    TextPart,
    ToolCall,
    ToolCallDelta,
    UnsupportedOperationError,
    UnsupportedOptionError,
    arguments_of,
    extract_result,
    probe_schema,
    tool_of,
)
from ctxbackends._profiles.builtin import PROFILES
from ctxbackends._wire.options import Unsupported
from ctxbackends.errors import BadRequestError
from tests.backends import coverage
from tests.backends.conftest import Cell, OpenBackend
from tests.backends.targets import Target


def refuses(target: Target, *options: str) -> bool:
    """Whether the table of options says that this server is not asked for one of these."""
    table = PROFILES[target.type].wire_apis[target.wire_api]
    return any(isinstance(table[option], Unsupported) for option in options)


@contextmanager
def refusal(cell: Cell) -> Iterator[None]:
    """The body raises an error before anything is sent."""
    with pytest.raises((UnsupportedOptionError, UnsupportedOperationError)):
        yield
    cell.mark_not_supported()


def get_weather(city: str, days: int) -> str:
    """Tell the weather of a city."""
    return f"{city}: sunny for {days} days"


def send_mail(to: str) -> None:
    """Send a mail."""


WEATHER = tool_of(get_weather)
MAIL = tool_of(send_mail)


@attrs.frozen
class Decision:
    title: Annotated[str, msgspec.Meta(max_length=40)]
    votes: int
    accepted: bool


# --- what is it ---------------------------------------------------------------------------------------


async def test_models_are_listed(backend: Backend, target: Target, cell: Cell) -> None:
    models = await backend.models()
    assert target.model in [name for model in models for name in (model.id, *model.aliases)]


async def test_status_is_told(backend: Backend, target: Target, cell: Cell) -> None:
    await backend.complete("Hi", max_tokens=16)  # loads it where that comes with the first request
    status = await backend.status()
    assert ("shared", backend.endpoint, "ready", None) == (
        status.backend,
        status.endpoint,
        status.state,
        status.problem,
    )
    assert target.model == status.model
    if target.type in ("llamacpp", "vllm", "ollama", "lmstudio"):
        assert status.context_length is not None
        assert target.model in status.models
    if target.type in ("llamacpp", "vllm", "ollama"):
        assert status.version


async def test_loading_and_unloading(open_target: OpenBackend, target: Target, cell: Cell) -> None:
    async with open_target() as backend:
        if PROFILES[target.type].load is None or target.type == "llamacpp":
            with refusal(cell):
                await backend.load()
            with refusal(cell):
                await backend.unload()
            return
        await backend.load()
        assert target.model in (await backend.status()).models
        await backend.unload()
        status = await backend.status()
        assert target.model not in status.models
        assert ("sleeping" if target.type == "vllm" else "ready") == status.state
        await backend.load()
        assert (await backend.complete("Hi", max_tokens=16)).served_model is not None


async def test_a_context_length_is_loaded(open_target: OpenBackend, target: Target, cell: Cell) -> None:
    if "context_length" not in PROFILES[target.type].supported_settings:
        async with open_target() as backend:
            with refusal(cell):
                await backend.load(context_length=2048)
        return
    if target.wire_api not in PROFILES[target.type].supported_settings["context_length"]:
        with pytest.raises(ConfigError, match=f"not supported with wire_api: {target.wire_api}"):
            async with open_target(context_length=2048):
                pass
        cell.mark_not_supported()
        return
    async with open_target(context_length=2048) as backend:
        await backend.load()
        assert 2048 == (await backend.status()).context_length


# --- generation ---------------------------------------------------------------------------------------


async def test_complete(backend: Backend, target: Target, cell: Cell) -> None:
    completion = await backend.complete(target.say("Hello there, world."), max_tokens=64)
    if target.scripting == "none":
        assert completion.text
    else:
        assert "Hello there, world." == completion.text.strip()
        assert "stop" == completion.finish_reason
    assert target.model == completion.requested_model
    assert completion.served_model is not None
    assert completion.usage is not None
    assert completion.usage.input_tokens > 0
    assert completion.usage.output_tokens > 0
    assert completion.raw


async def test_stream(backend: Backend, target: Target, cell: Cell) -> None:
    text = "One two three, ä漢🎉."
    events: list[Any] = []
    async with backend.stream(target.say(text), max_tokens=64) as stream:
        async for event in stream:
            events.append(event)
    assert isinstance(events[-1], Finish)
    assert 1 == sum(isinstance(event, Finish) for event in events)
    assert stream.completion.text == "".join(event.text for event in events if isinstance(event, TextDelta))
    assert stream.completion.usage == events[-1].usage
    assert stream.completion.usage is not None
    if target.scripting != "none":
        assert text == stream.completion.text.strip()
        assert sum(isinstance(event, TextDelta) for event in events) > 1


async def test_progress_with_the_prompt(backend: Backend, target: Target, cell: Cell) -> None:
    events = []
    async with backend.stream("word " * 400, max_tokens=4) as stream:
        async for event in stream:
            events.append(event)
    progress = [event for event in events if isinstance(event, PromptProgress)]
    assert not [event for event in events if isinstance(event, Loading)]
    if (target.type, target.wire_api) != ("llamacpp", "chat_completions"):
        assert [] == progress
        cell.mark_not_supported()
        return
    assert progress[-1].processed == progress[-1].total > 400


async def test_max_tokens(backend: Backend, target: Target, cell: Cell) -> None:
    completion = await backend.complete(target.say("one two three four five six seven eight nine ten"), max_tokens=4)
    assert completion.usage is not None
    assert completion.usage.output_tokens <= 5
    if target.scripting != "none":  # a model of random weights may end by itself
        assert "length" == completion.finish_reason


async def test_sampling_options(backend: Backend, target: Target, cell: Cell) -> None:
    options: ChatOptions = {
        "max_tokens": 4,
        "temperature": 0.5,
        "top_p": 0.9,
        "top_k": 20,
        "min_p": 0.05,
        "seed": 7,
        "frequency_penalty": 0.1,
        "presence_penalty": 0.1,
        "repetition_penalty": 1.1,
    }
    supported_options: Any = {name: value for name, value in options.items() if not refuses(target, name)}
    if target.type == "anthropic":  # newer models take one of the two
        del supported_options["top_p"]
    assert {"max_tokens", "temperature"} <= set(supported_options)
    await backend.complete(target.say("words"), **supported_options)


async def test_the_same_seed_gives_the_same_answer(backend: Backend, target: Target, cell: Cell) -> None:
    if refuses(target, "seed"):
        with refusal(cell):
            await backend.complete("Hi", seed=3)
        return
    first = await backend.complete("Hi there", seed=3, max_tokens=12)
    assert first.text == (await backend.complete("Hi there", seed=3, max_tokens=12)).text


async def test_stop_sequences(backend: Backend, target: Target, cell: Cell) -> None:
    if target.scripting == "none":
        await backend.complete("Hi", stop_sequences=["a", "e"], max_tokens=32)
        return
    completion = await backend.complete(target.say("one two STOP three"), stop_sequences=["STOP"], max_tokens=32)
    assert ("one two", "stop") == (completion.text.strip(), completion.finish_reason)
    assert completion.stop_sequence in (None, "STOP")
    assert cell.outcome == "tested"


async def test_logprobs(backend: Backend, target: Target, cell: Cell) -> None:
    if refuses(target, "logprobs"):
        with refusal(cell):
            await backend.complete("Hi", logprobs=True)
        return
    completion = await backend.complete(target.say("some words here"), logprobs=True, top_logprobs=2, max_tokens=16)
    if target.type == "openai-compatible":
        cell.outcome = "sent; its effect is unknown"
        return
    assert completion.logprobs
    assert all(logprob.logprob <= 1e-6 and len(logprob.top) <= 2 for logprob in completion.logprobs)
    assert completion.text.strip() in "".join(item.token for item in completion.logprobs)


# --- a conversation -----------------------------------------------------------------------------------


async def test_many_turns(backend: Backend, target: Target, cell: Cell) -> None:
    call = ToolCall("call_12345678", "get_weather", '{"city": "Rome", "days": 2}')
    messages = [
        Message.system("Be brief."),
        Message.user(["What is the weather", " in Rome?"]),
        Message.assistant("I look.", tool_calls=[call]),
        Message.tool(get_weather("Rome", 2), tool_call_id=call.id, name="get_weather"),
        Message.assistant("Sunny."),
        Message.user(target.say("Goodbye.")),
    ]
    completion = await backend.complete(messages, tools=[get_weather], max_tokens=64)
    if target.scripting != "none":
        assert "Goodbye." == completion.text.strip()
    short = await backend.complete(messages[-1:], max_tokens=4)
    assert completion.usage is not None
    assert short.usage is not None
    assert completion.usage.input_tokens > short.usage.input_tokens


async def test_images(backend: Backend, target: Target, cell: Cell) -> None:
    message = Message.user(["What is this?", ImagePart.from_bytes(PNG), target.say("A dot.")])
    if target.real:  # text models: the picture arrives, and the server says that it cannot see
        with pytest.raises((BadRequestError, InternalServerError), match=r"(?i)image|multimodal|mmproj"):
            await backend.complete([message], max_tokens=16)
        cell.outcome = "rejected by the server"
        return
    assert "A dot." == (await backend.complete([message], max_tokens=16)).text.strip()


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="
)


async def test_reasoning(backend: Backend, target: Target, cell: Cell) -> None:
    if target.scripting == "none":
        cell.outcome = "not tested: the test model does not reason"
        pytest.skip(cell.outcome)
    if (target.type, target.wire_api) in NO_REASONING:
        cell.outcome = "not reported by this API"
        return
    prompt = target.think("Let me see.", "It is so.")
    options: Any = {"max_tokens": 64, **target.thinking}
    events = []
    async with backend.stream(prompt, **options) as stream:
        async for event in stream:
            events.append(event)
    completion = stream.completion
    assert ("Let me see.", "It is so.") == (completion.reasoning.strip(), completion.text.strip())
    assert "".join(event.text for event in events if isinstance(event, ReasoningDelta)) == completion.reasoning
    kinds = [type(part) for part in completion.message.parts]
    assert [ReasoningPart, TextPart] == kinds
    if target.type == "anthropic":
        assert completion.message.parts[0].signature  # type: ignore[union-attr]  # is a ReasoningPart
    if refuses(target, "message: reasoning"):
        return
    # The next turn takes it back, signature and all.
    history = [Message.user(prompt), completion.message, Message.user(target.say("Again."))]
    assert "Again." == (await backend.complete(history, max_tokens=64)).text.strip()


# OpenAI does not show it in chat completions, and Anthropic does not in its compatible API. The Messages API of vLLM
# takes no member that turns the reasoning of the tests' parser on.
NO_REASONING = {
    ("openai", "chat_completions"),
    ("openai-compatible", "chat_completions"),
    ("anthropic", "chat_completions"),
    ("openai-compatible", "messages"),
    ("vllm", "messages"),
}


# --- tools --------------------------------------------------------------------------------------------


async def test_a_tool_is_called(backend: Backend, target: Target, cell: Cell) -> None:
    if target.scripting == "none":
        completion = await complete_until_call(backend)
    else:
        prompt = target.call(("get_weather", {"city": "Oslo", "days": 3}))
        completion = await backend.complete(prompt, tools=[get_weather, MAIL], max_tokens=128)
        assert {"city": "Oslo", "days": 3} == arguments_of(WEATHER, completion.tool_calls[0])
    call = completion.tool_calls[0]
    assert ("get_weather", "tool_calls") == (call.name, completion.finish_reason)
    assert call.id
    assert {"city", "days"} == set(arguments_of(WEATHER, call))
    # The call and its result go back, and the conversation goes on.
    history = [
        Message.user("Weather?"),
        completion.message,
        *(Message.tool("sunny", tool_call_id=tool_call.id, name=tool_call.name) for tool_call in completion.tool_calls),
    ]
    await backend.complete([*history, Message.user(target.say("Fine."))], tools=[get_weather, MAIL], max_tokens=16)


async def complete_until_call(backend: Backend) -> Completion:
    """A model of random weights calls a tool whole in most answers, and runs into the limit in the others."""
    for seed in range(20):
        options: Any = {} if refuses_seed(backend) else {"seed": seed}
        completion = await backend.complete(
            f"Weather {seed}?", tools=[get_weather], tool_choice="required", max_tokens=256, **options
        )
        if completion.finish_reason == "tool_calls":
            return completion
    raise AssertionError("no answer of twenty was a whole call")


def refuses_seed(backend: Backend) -> bool:
    try:
        backend.stream("x", seed=1)
    except UnsupportedOptionError:
        return True
    return False


async def test_a_tool_call_is_streamed(backend: Backend, target: Target, cell: Cell) -> None:
    if target.scripting == "none":
        cell.outcome = "tested by `a tool is called`, which streams"
        return
    prompt = target.call(("get_weather", {"city": "Oslo", "days": 3}))
    deltas = []
    async with backend.stream(prompt, tools=[get_weather], max_tokens=128) as stream:
        async for event in stream:
            if isinstance(event, ToolCallDelta):
                deltas.append(event)
    (call,) = stream.completion.tool_calls
    assert call.arguments == "".join(delta.arguments for delta in deltas)
    assert {"city": "Oslo", "days": 3} == json.loads(call.arguments)
    assert {(call.id, "get_weather")} == {(deltas[0].id, deltas[0].name)}


async def test_parallel_tool_calls(backend: Backend, target: Target, cell: Cell) -> None:
    if target.scripting == "none":
        cell.outcome = "not tested: the test model does not do this"
        return
    calls = [("get_weather", {"city": f"city {n}", "days": n}) for n in range(1, 4)]
    completion = await backend.complete(target.call(*calls), tools=[get_weather, MAIL], max_tokens=400)
    assert calls == [(call.name, json.loads(call.arguments)) for call in completion.tool_calls]
    assert 3 == len({call.id for call in completion.tool_calls})


@pytest.mark.parametrize("choice", ["none", "required", "named"])
async def test_tool_choice(backend: Backend, target: Target, cell: Cell, choice: str) -> None:
    options: Any = {"tool_choice": NamedTool("send_mail") if choice == "named" else choice}
    if refuses(target, f"tool_choice: {choice}"):
        with refusal(cell):
            await backend.complete("Hi", tools=[get_weather, MAIL], **options)
        return
    prompt = "Hi"
    if target.type == "vllm" and choice != "none":
        # vLLM constrains a forced call to the markup of its parser.
        prompt = target.call(("send_mail", {"to": "me"}) if choice == "named" else ("get_weather", ROME))
    completion = await backend.complete(prompt, tools=[get_weather, MAIL], max_tokens=200, **options)
    if target.type == "openai-compatible":
        cell.outcome = "sent; its effect is unknown"
    elif choice == "none":
        assert () == completion.tool_calls
    elif target.scripting == "none":  # random weights: what is called is never another tool
        assert {call.name for call in completion.tool_calls} <= ({"send_mail"} if choice == "named" else BOTH)
    else:
        expected = "send_mail" if choice == "named" else "get_weather"
        assert expected == completion.tool_calls[0].name


BOTH = {"get_weather", "send_mail"}
ROME = {"city": "Rome", "days": 1}


# --- formats of the answer ------------------------------------------------------------------------------


DECISION = r'{"title":"\"YAML\",\n\\ it is","votes":3,"accepted":true}'  # escapes: a grammar may lose them


async def test_extract(backend: Backend, target: Target, cell: Cell) -> None:
    text = target.say(DECISION) if target.scripting != "none" else "We chose YAML."
    if refuses(target, "response_format: json_schema"):
        with refusal(cell):
            await extract_result(backend, Decision, text)
        return
    result = await extract_result(backend, Decision, text, max_tokens=400)
    assert isinstance(result.value, Decision)
    assert backend.schema_enforcement == result.enforcement
    if target.scripting != "none":
        assert Decision('"YAML",\n\\ it is', 3, True) == result.value


async def test_a_schema_is_enforced(backend: Backend, target: Target, cell: Cell) -> None:
    if refuses(target, "response_format: json_schema"):
        with refusal(cell):
            await probe_schema(backend)
        return
    probe = await probe_schema(backend)
    if backend.schema_enforcement == "unverified":
        cell.outcome = f"unverified; outcome of the probe: {probe.outcome}"
        return
    assert probe.outcome in ("enforced", *(["inconclusive"] if target.type == "vllm" else []))
    cell.outcome = "tested" if probe.outcome == "enforced" else "inconclusive: random weights write white space"


async def test_any_json_object(backend: Backend, target: Target, cell: Cell) -> None:
    options: Any = {"response_format": JSONObjectFormat(), "max_tokens": 200}
    prompt = "As JSON. " + target.say('{"a": 1}') if target.scripting != "none" else "A JSON object."
    if refuses(target, "response_format: json_object"):
        with refusal(cell):
            await backend.complete(prompt, **options)
        return
    completion = await backend.complete(prompt, **options)
    if completion.finish_reason == "stop":
        assert isinstance(json.loads(completion.text), dict)
    else:  # random weights seldom end an object
        assert "{" == completion.text.lstrip()[:1]


async def test_one_of_several_choices(backend: Backend, target: Target, cell: Cell) -> None:
    options: Any = {"response_format": ChoiceFormat(["red", "green"]), "max_tokens": 16}
    if refuses(target, "response_format: choice"):
        with refusal(cell):
            await backend.complete("Which?", **options)
        return
    completion = await backend.complete("Which?", **options)
    assert completion.text in ("red", "green")


# --- embeddings and tokens ------------------------------------------------------------------------------


TEXTS = ["a cat", "a dog on the street", "ein Hund", "a cat"]


async def test_embeddings(open_target: OpenBackend, target: Target, cell: Cell) -> None:
    if PROFILES[target.type].embed is None:
        async with open_target() as backend:
            with refusal(cell):
                await backend.embed("x")
        return
    if target.embedding_model is None:
        cell.outcome = "not offered by this server"
        return
    async with open_target(embedding=True) as backend:
        embeddings = await backend.embed(TEXTS)
        assert 4 == len(embeddings.vectors)
        assert len(embeddings.vectors[0]) > 1
        assert embeddings.vectors[0] == pytest.approx(embeddings.vectors[3], abs=1e-2)
        assert embeddings.vectors[0] != embeddings.vectors[1]
        batches = await backend.embed(TEXTS, batch_size=3)
        for one, other in zip(embeddings.vectors, batches.vectors, strict=True):
            assert one == pytest.approx(other, abs=1e-2)
        assert (embeddings.usage is None) == (batches.usage is None)
        if "base64" in PROFILES[target.type].vector_encodings:
            base64_embeddings = await backend.embed(TEXTS[0], encoding="base64")
            assert base64_embeddings.vectors[0] == pytest.approx(embeddings.vectors[0], abs=1e-2)
        else:
            with pytest.raises(UnsupportedOptionError, match="encoding"):
                await backend.embed(TEXTS[0], encoding="base64")


async def test_tokens_are_counted(backend: Backend, target: Target, cell: Cell) -> None:
    if PROFILES[target.type].count_tokens is None:
        with refusal(cell):
            await backend.count_tokens("Hi")
        return
    short = await backend.count_tokens("Hi there")
    assert 0 < short < await backend.count_tokens("Hi there " * 20)
    assert short < await backend.count_tokens("Hi there", tools=[get_weather])
    completion = await backend.complete("Hi there", max_tokens=16)
    assert completion.usage is not None
    assert short == completion.usage.input_tokens


# --- errors -------------------------------------------------------------------------------------------


async def test_another_model(backend: Backend, target: Target, cell: Cell) -> None:
    """Never answered by the model that happens to be there."""
    kinds = ModelMismatchError if target.type == "llamacpp" else (ModelNotFoundError, ModelMismatchError)
    with pytest.raises(kinds):
        await backend.complete("Hi", model="no-such-model", max_tokens=4)
    assert "tested" == cell.outcome


async def test_a_prompt_that_does_not_fit(backend: Backend, target: Target, cell: Cell) -> None:
    # vLLM counts no tokens, and tells no number of them, where the characters alone are too many.
    prompt = "word " * (5_000 if target.type == "vllm" else 40_000)
    if (target.type, target.wire_api) in TRUNCATES:
        cell.outcome = "not reported: this API truncates"
        return
    with pytest.raises(ContextOverflowError) as exc_info:
        await backend.complete(prompt, max_tokens=4)
    if (target.type, target.wire_api) not in NO_NUMBERS:
        assert exc_info.value.context_length is not None
        assert exc_info.value.input_tokens is not None
        assert exc_info.value.input_tokens > exc_info.value.context_length


TRUNCATES = {
    ("ollama", "chat_completions"),
    ("ollama", "messages"),
    ("openai-compatible", "chat_completions"),
    ("openai-compatible", "messages"),
}
NO_NUMBERS = {("ollama", "ollama")}


async def test_an_error_in_the_middle(backend: Backend, target: Target, cell: Cell) -> None:
    if target.scripting != "marks":
        cell.outcome = "tested separately, with killed servers"
        return
    with pytest.raises((StreamInterruptedError, InternalServerError)) as exc_info:
        await backend.complete("[[fail]] [[say]]one two three[[/say]]", max_tokens=64)
    if isinstance(exc_info.value, StreamInterruptedError):
        assert "one" in exc_info.value.partial.text


async def test_a_wrong_key(open_target: OpenBackend, target: Target, cell: Cell) -> None:
    if target.key is None:
        cell.outcome = "not tested: the server requires no key"
        return
    with pytest.raises(AuthenticationError) as exc_info:
        async with open_target(api_key="wrong-key-0123456789") as backend:
            await backend.complete("Hi")
    assert "wrong-key-0123456789" not in str(exc_info.value)


async def test_a_wrong_address(open_target: OpenBackend, target: Target, cell: Cell) -> None:
    async with open_target() as backend:
        endpoint = f"{backend.endpoint}/nowhere"
    with pytest.raises((NotFoundError, AuthenticationError)):
        async with open_target(endpoint=endpoint) as backend_:
            await backend_.complete("Hi", max_tokens=4)
    assert "tested" == cell.outcome
    assert target.name


# --- the matrix ---------------------------------------------------------------------------------------


def test_the_coverage_file_has_no_cell_without_a_test(rows: coverage.Rows, pytestconfig: pytest.Config) -> None:
    """The fixture ``cell`` compares each outcome with the file."""
    if pytestconfig.getoption("lf", False) or any("::" in str(arg) for arg in pytestconfig.invocation_params.args):
        pytest.skip("a part of the tests fills a part of the cells")
    missing = {name: {*cells} - rows.get(name, set()) for name, cells in coverage.load().items()}
    assert {} == {name: cells for name, cells in missing.items() if cells}
