"""Tool loops: rounds, errors of tools, approval, events, streams and cancellation, on every wire format."""

from __future__ import annotations

import asyncio
import base64
import json
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Annotated, Any

import attrs
import msgspec
import pydantic
import pytest

from ctxbackends import (
    Backend,
    BackendType,
    ClosedError,
    ImagePart,
    Message,
    NamedTool,
    NoToolCallError,
    ReasoningPart,
    RoundEnd,
    RoundStart,
    StructuredOutputError,
    TextDelta,
    TextPart,
    Tool,
    ToolCall,
    ToolEnd,
    ToolRequest,
    ToolRoundsError,
    ToolRun,
    ToolStart,
    Usage,
    WireAPI,
    open_backend,
    run_tools,
    stream_tools,
)
from ctxbackends.testing import Answer, AnthropicStandIn, LMStudioStandIn, OllamaStandIn, OpenAIStandIn, Question
from ctxbackends.testing._stand_ins.stand_in import StandIn


@attrs.frozen
class Server:
    stand_in: type[StandIn]
    type: BackendType
    model: str
    wire: WireAPI


OPENAI = Server(OpenAIStandIn, BackendType.OPENAI, "gpt-4.1-mini", WireAPI.CHAT_COMPLETIONS)
ANTHROPIC = Server(AnthropicStandIn, BackendType.ANTHROPIC, "claude-haiku-4-5", WireAPI.MESSAGES)
SERVERS = [
    OPENAI,
    ANTHROPIC,
    *(Server(OllamaStandIn, BackendType.OLLAMA, "qwen3:4b", wire) for wire in WireAPI),
    *(
        Server(LMStudioStandIn, BackendType.LMSTUDIO, "qwen/qwen3-4b", wire)
        for wire in (WireAPI.CHAT_COMPLETIONS, WireAPI.MESSAGES)
    ),
]
every_server = pytest.mark.parametrize("server", SERVERS, ids=lambda server: f"{server.type}-{server.wire}")
streamed = pytest.mark.parametrize("is_streamed", [False, True], ids=["plain", "streamed"])


@asynccontextmanager
async def backend_of(answer: Callable[[Question], Answer], server: Server = OPENAI) -> AsyncIterator[Backend]:
    async with (
        server.stand_in(answer=answer) as stand_in,
        open_backend(
            server.type, endpoint=stand_in.url, api_key="any", default_model=server.model, wire_api=server.wire
        ) as backend,
    ):
        yield backend


async def run(is_streamed: bool, backend: Backend, *args: Any, **options: Any) -> ToolRun:
    options = {"max_tokens": 500} | options
    if not is_streamed:
        return await run_tools(backend, *args, **options)
    async with stream_tools(backend, *args, **options) as stream:
        return await stream.get_result()


class Script:
    """Answers with calls of tools, one list for each round, then with the results as JSON."""

    def __init__(self, *rounds: list[Any], **fields: Any) -> None:
        self.questions: list[Question] = []
        self._rounds = iter(rounds)
        self._fields = fields

    def __call__(self, question: Question) -> Answer:
        self.questions.append(question)
        calls = next(self._rounds, None)
        if calls:
            return Answer(tool_calls=calls, **self._fields)
        results = [[result.text, result.is_error] for result in question.tool_results]
        return Answer(text=json.dumps(results), **self._fields)

    @property
    def results(self) -> list[list[tuple[str, str | None, bool]]]:
        """The results that each request after the first ended with.

        Chat completions have no member for errors; there, the text begins with "Error: ".
        """
        return [
            [
                (result.text.removeprefix("Error: "), result.name, result.text.startswith("Error: ") or result.is_error)
                for result in question.tool_results
            ]
            for question in self.questions[1:]
        ]


def weather(city: Annotated[str, msgspec.Meta(description="A town")], days: int = 1) -> str:
    """Tell the weather of a town."""
    return f"{city}: sunny for {days} days"


async def population(city: str) -> dict[str, int]:
    """Count the people of a town."""
    await asyncio.sleep(0)
    return {city: 700_000}


# --- rounds ---------------------------------------------------------------------------------------


@streamed
@every_server
async def test_two_rounds_with_parallel_calls(server: Server, is_streamed: bool) -> None:
    script = Script(
        [("weather", {"city": "Oslo", "days": 2}), ("population", {"city": "Oslo"})],
        [("weather", {"city": "Bergen"})],
        usage=Usage(input_tokens=10, output_tokens=3),
    )
    async with backend_of(script, server) as backend:
        result = await run(is_streamed, backend, "How is Oslo?", [weather, population])

    assert 3 == len(script.questions)
    assert "Bergen: sunny for 1 days" in result.text
    assert ["Oslo: sunny for 2 days", '{"Oslo":700000}'] == [
        outcome.result.text for outcome in result.rounds[0].outcomes
    ]
    assert ["weather", "population"] == [outcome.call.name for outcome in result.rounds[0].outcomes]
    assert [2, 1, 0] == [len(round_.outcomes) for round_ in result.rounds]
    assert {"ok"} == {outcome.status for round_ in result.rounds for outcome in round_.outcomes}
    assert ["user", "assistant", "tool", "assistant", "tool", "assistant"] == [
        message.role for message in result.messages
    ]
    assert result.completion is result.rounds[-1].completion
    assert result.messages[-1] == result.completion.message
    assert result.usage is not None
    assert (30, 9) == (result.usage.input_tokens, result.usage.output_tokens)
    # The server saw each result with its call.
    [call] = result.rounds[1].completion.tool_calls
    assert call.id == result.rounds[1].outcomes[0].result.tool_call_id
    assert ["Bergen: sunny for 1 days"] == [result.text for result in script.questions[2].tool_results]


@streamed
async def test_no_call_is_one_request(is_streamed: bool) -> None:
    script = Script()
    async with backend_of(script) as backend:
        result = await run(is_streamed, backend, [{"role": "user", "content": "Hello"}], [weather])
    assert (1, "[]") == (len(script.questions), result.text)
    assert [Message.user("Hello"), Message.assistant([TextPart("[]")])] == [*result.messages]


@streamed
async def test_signed_reasoning_goes_back(is_streamed: bool) -> None:
    """The stand-in for Anthropic rejects a turn of tools without its signed reasoning."""
    script = Script([("weather", {"city": "Oslo"})], reasoning="I need the weather.")
    async with backend_of(script, ANTHROPIC) as backend:
        result = await run(is_streamed, backend, "Oslo?", [weather], reasoning_budget=1024, max_tokens=2000)
    reasoning = [part for part in script.questions[1].messages[1].parts if isinstance(part, ReasoningPart)]
    assert ["I need the weather."] == [part.text for part in reasoning]
    assert reasoning[0].signature
    assert reasoning[0] == result.messages[1].parts[0]


@streamed
@pytest.mark.parametrize("choice", ["required", NamedTool("weather"), {"type": "any"}])
async def test_a_forced_call_is_forced_once(choice: Any, is_streamed: bool) -> None:
    script = Script([("weather", {"city": "Oslo"})])
    async with backend_of(script) as backend:
        await run(is_streamed, backend, "Oslo?", [weather], tool_choice=choice)
    first, second = (question.tool_choice for question in script.questions)
    assert (choice if isinstance(choice, NamedTool) else "required", None) == (first, second)


@streamed
@pytest.mark.parametrize(
    ("choice", "finish_reason", "problem"),
    [
        ("required", "stop", "tool_choice requires a call, finish_reason stop; use a model with tool support"),
        (NamedTool("weather"), "stop", "tool_choice requires weather, finish_reason stop; use a model with"),
        ({"type": "any"}, "length", "tool_choice requires a call, finish_reason length; raise max_tokens"),
    ],
)
async def test_a_forced_call_that_is_missing(choice: Any, finish_reason: Any, problem: str, is_streamed: bool) -> None:
    async with backend_of(lambda _: Answer(text="Sunny.", finish_reason=finish_reason)) as backend:
        with pytest.raises(NoToolCallError, match=f"no tool call in the answer: {problem}") as exc_info:
            await run(is_streamed, backend, "Oslo?", [weather], tool_choice=choice)
        assert "Sunny." == exc_info.value.completion.text == exc_info.value.messages[-1].text
        result = await run(is_streamed, backend, "Oslo?", [weather], tool_choice="auto")
    assert ("Sunny.", 1) == (result.text, len(result.rounds))


@streamed
async def test_the_bound_of_rounds(is_streamed: bool) -> None:
    def answer(question: Question) -> Answer:
        return Answer(
            tool_calls=[("weather", {"city": f"Town {len(question.messages)}"})],
            usage=Usage(input_tokens=1, output_tokens=2),
        )

    async with backend_of(answer) as backend:
        with pytest.raises(ToolRoundsError, match="still calls tools after 2 rounds") as exc_info:
            await run(is_streamed, backend, "Oslo?", [weather], max_rounds=2)
    error = exc_info.value
    assert ["user", "assistant", "tool", "assistant", "tool"] == [message.role for message in error.messages]
    assert "Town 3: sunny for 1 days" == error.rounds[1].outcomes[0].result.text
    assert error.usage is not None
    assert (2, 2, 4) == (error.max_rounds, error.usage.input_tokens, error.usage.output_tokens)

    # The conversation can go on.
    script = Script()
    async with backend_of(script) as backend:
        result = await run(is_streamed, backend, error.messages, [weather])
    assert '[["Town 3: sunny for 1 days", false]]' == result.text


@streamed
async def test_a_truncated_answer_calls_nothing(is_streamed: bool) -> None:
    called: list[str] = []

    def record(city: str) -> str:
        called.append(city)
        return city

    answer = Answer(tool_calls=[("record", {"city": "Os"})], finish_reason="length")
    async with backend_of(lambda _: answer) as backend:
        result = await run(is_streamed, backend, "Oslo?", [record])
    assert ([], "length", ()) == (called, result.completion.finish_reason, result.rounds[0].outcomes)


async def test_usage_is_unknown_if_one_round_has_none() -> None:
    """A sum of some rounds would look like the cost of all."""

    class Fake:
        def __init__(self, backend: Backend) -> None:
            self.backend = backend
            self.count = 0

        async def complete(self, *args: Any, **options: Any) -> Any:
            completion = await self.backend.complete(*args, **options)
            self.count += 1
            return msgspec.structs.replace(completion, usage=None) if self.count == 1 else completion

    async with backend_of(Script([("weather", {"city": "Oslo"})])) as backend:
        fake: Any = Fake(backend)
        assert (await run_tools(fake, "Oslo?", [weather])).usage is None


# --- tools and their results ----------------------------------------------------------------------


class Town(pydantic.BaseModel):
    name: str


@attrs.frozen
class Place:
    name: str


PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("text", "text"),
        (None, "null"),
        ([1, True], "[1,true]"),
        ({"a": "é"}, '{"a":"é"}'),
        (Town(name="Oslo"), '{"name":"Oslo"}'),
        (Place("Oslo"), '{"name":"Oslo"}'),
    ],
)
async def test_values_of_tools(value: Any, text: str) -> None:
    def look() -> Any:
        return value

    script = Script([("look", {})])
    async with backend_of(script) as backend:
        await run_tools(backend, "Look.", [look])
    assert [[(text, "look", False)]] == script.results


async def test_an_image_as_a_result() -> None:
    def draw() -> Any:
        return ["A dot:", ImagePart.from_bytes(PNG)]

    async with backend_of(Script([("draw", {})]), ANTHROPIC) as backend:
        result = await run_tools(backend, "Draw.", [draw], max_tokens=100)
    assert (TextPart("A dot:"), ImagePart.from_bytes(PNG)) == result.rounds[0].outcomes[0].result.content


@pytest.mark.parametrize("value", [object(), b"bytes", bytearray(b"bytes")])
async def test_a_value_that_is_not_json_is_an_error_of_the_tool(value: object) -> None:
    def look() -> Any:
        return value

    script = Script([("look", {})], [], [("look", {})])
    async with backend_of(script) as backend:
        result = await run_tools(backend, "Look.", [look])
        with pytest.raises(TypeError):
            await run_tools(backend, "Look.", [look], on_tool_error="raise", max_rounds=1)
    [outcome] = result.rounds[0].outcomes
    assert ("failed", True) == (outcome.status, outcome.result.is_error)


@every_server
async def test_the_errors_that_the_model_gets(server: Server) -> None:
    called: list[Any] = []

    def divide(a: int, b: int) -> float:
        called.append((a, b))
        return a / b

    script = Script(
        [
            ("divide", {"a": 1, "b": 0}),
            ("divide", {"a": "one", "b": 2}),
            ("divide", {"a": 1}),
            ("divide", {"a": 1, "b": 2, "c": 3}),
            ("multiply", {"a": 1, "b": 2}),
            ("divide", {"a": 1, "b": 2}),
        ]
    )
    async with backend_of(script, server) as backend:
        result = await run_tools(backend, "Divide.", [divide], max_tokens=500)

    assert {(1, 0), (1, 2)} == {*called}
    outcomes = result.rounds[0].outcomes
    assert ["failed", "invalid", "invalid", "invalid", "invalid", "ok"] == [outcome.status for outcome in outcomes]
    texts = [outcome.result.text for outcome in outcomes]
    assert "divide failed: ZeroDivisionError: division by zero" == texts[0]
    assert texts[1].startswith("invalid arguments of divide: ")
    assert "`$.a`" in texts[1]
    assert "`b`" in texts[2]
    assert "unknown arguments: c" in texts[3]
    assert "unknown tool: multiply; the tools are: divide" == texts[4]
    assert "0.5" == texts[5]
    assert isinstance(outcomes[0].error, ZeroDivisionError)
    assert isinstance(outcomes[1].error, StructuredOutputError)
    assert [texts] == [[text for text, _, _ in results] for results in script.results]


@pytest.mark.parametrize("arguments", ["", "null", "{}"])
async def test_a_tool_without_parameters(arguments: str) -> None:
    def now() -> str:
        return "noon"

    def anything(**members: Any) -> str:
        return f"{members}"

    script = Script([("now", arguments), ("anything", arguments)])
    tools: list[Any] = [now, Tool("anything", "", {"type": "object", "properties": {}}, function=anything)]
    async with backend_of(script) as backend:
        await run_tools(backend, "Time?", tools)
    assert [[("noon", "now", False), ("{}", "anything", False)]] == script.results


@streamed
@pytest.mark.parametrize("arguments", ['{"city": ', '["Oslo"]', "Oslo"])
async def test_arguments_that_are_not_an_object(arguments: str, is_streamed: bool) -> None:
    """Servers reject such a call in the conversation, so it goes back without arguments."""
    script = Script([ToolCall("call_1", "weather", arguments), ("weather", {"city": "Oslo"})])
    async with backend_of(script) as backend:
        result = await run(is_streamed, backend, "Oslo?", [weather])
    invalid, valid = result.rounds[0].outcomes
    assert ("invalid", "ok") == (invalid.status, valid.status)
    assert invalid.result.text.endswith(f": {arguments}")
    assert arguments == invalid.call.arguments == result.rounds[0].completion.tool_calls[0].arguments
    assert ["{}", '{"city": "Oslo"}'] == [call.arguments for call in result.messages[1].tool_calls]
    assert ["{}", '{"city":"Oslo"}'] == [
        call.arguments.replace(" ", "") for call in script.questions[1].messages[1].tool_calls
    ]


@streamed
@pytest.mark.parametrize("is_async", [False, True])
async def test_an_error_of_a_tool_is_raised_if_asked(is_async: bool, is_streamed: bool) -> None:
    ended: list[str] = []

    async def wait(city: str) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(city)
        return city

    def fail(city: str) -> str:
        raise LookupError(city)

    async def fail_later(city: str) -> str:
        raise LookupError(city)

    tool = fail_later if is_async else fail
    script = Script([("wait", {"city": "Oslo"}), (tool.__name__, {"city": "Bergen"})])
    async with backend_of(script) as backend:
        with pytest.raises(LookupError, match="Bergen") as exc_info:
            await run(is_streamed, backend, "Oslo?", [wait, tool], on_tool_error="raise")
    assert ["Oslo"] == ended
    assert [f'in the tool {tool.__name__}, called with {{"city": "Bergen"}}'] == exc_info.value.__notes__
    assert 1 == len(script.questions)


async def test_a_tool_that_cancels_itself_has_failed() -> None:
    async def give_up() -> str:
        raise asyncio.CancelledError

    script = Script([("give_up", {}), ("weather", {"city": "Oslo"})])
    async with backend_of(script) as backend:
        await run_tools(backend, "Oslo?", [give_up, weather])
    assert [
        [
            ("give_up failed: RuntimeError: the tool was cancelled", "give_up", True),
            ("Oslo: sunny for 1 days", "weather", False),
        ]
    ] == script.results


async def test_calls_of_one_answer_run_in_parallel_and_keep_their_order() -> None:
    both = asyncio.Barrier(2)
    threads = threading.Barrier(2, timeout=30)

    async def meet(name: str) -> str:
        await both.wait()
        return name

    def meet_in_thread(name: str) -> str:
        threads.wait()
        return name

    calls = [(tool, {"name": f"{tool} {index}"}) for index in range(2) for tool in ("meet", "meet_in_thread")]
    script = Script(calls)
    async with backend_of(script) as backend:
        await run_tools(backend, "Meet.", [meet, meet_in_thread])
    assert [[(arguments["name"], name, False) for name, arguments in calls]] == script.results


# --- MCP ------------------------------------------------------------------------------------------


@attrs.frozen
class Block:
    type: str
    text: str = ""
    data: str = ""
    mime_type: str = ""


@attrs.frozen
class MCPResult:
    """A result as the Python SDK of MCP has it since 2.0."""

    content: list[Block]
    structured_content: Any = None
    is_error: bool = False


@attrs.frozen
class OldMCPResult:
    """The same before 2.0."""

    content: list[Block]
    structuredContent: Any = None  # noqa: N815
    isError: bool = False  # noqa: N815


SCHEMA = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"$ref": "#/$defs/Days"}},
    "required": ["city"],
    "additionalProperties": False,
    "$defs": {"Days": {"enum": [1, 2]}},
}


@pytest.mark.parametrize(
    ("value", "content", "is_error"),
    [
        (MCPResult([Block("text", "a"), Block("text", "b")]), "a\nb", False),
        (MCPResult([Block("text", "No such town.")], is_error=True), "No such town.", True),
        (OldMCPResult([Block("text", "No such town.")], isError=True), "No such town.", True),
        (MCPResult([], structured_content={"a": 1}), '{"a": 1}', False),
        (OldMCPResult([], structuredContent={"a": 1}), '{"a": 1}', False),
        (
            MCPResult([Block("image", data=base64.b64encode(PNG).decode(), mime_type="image/png")]),
            (ImagePart.from_bytes(PNG),),
            False,
        ),
        (MCPResult([Block("audio")]), "[audio: not supported as the result of a tool]", False),
    ],
)
async def test_results_of_mcp_tools(value: Any, content: Any, is_error: bool) -> None:
    received: list[dict[str, Any]] = []

    async def call(**arguments: Any) -> Any:
        received.append(arguments)
        return value

    tool = Tool("weather", "Tell the weather.", SCHEMA, function=call)
    async with backend_of(Script([("weather", {"city": "Oslo", "days": 2})]), ANTHROPIC) as backend:
        result = await run_tools(backend, "Oslo?", [tool], max_tokens=100)
    [outcome] = result.rounds[0].outcomes
    assert [{"city": "Oslo", "days": 2}] == received
    assert (content, is_error, "failed" if is_error else "ok") == (
        outcome.result.content,
        outcome.result.is_error,
        outcome.status,
    )


@pytest.mark.parametrize(
    ("arguments", "pointer"),
    [
        ({}, None),
        ({"city": 1}, "$.city"),
        ({"city": "Oslo", "days": 3}, "$.days"),
        ({"city": "Oslo", "country": "Norway"}, None),
    ],
)
async def test_arguments_of_a_tool_with_a_schema(arguments: dict[str, Any], pointer: str | None) -> None:
    def call(**arguments: Any) -> str:
        raise AssertionError("never executed")

    tool = Tool("weather", "", SCHEMA, function=call)
    async with backend_of(Script([("weather", arguments)])) as backend:
        result = await run_tools(backend, "Oslo?", [tool])
    [outcome] = result.rounds[0].outcomes
    assert "invalid" == outcome.status
    assert isinstance(outcome.error, StructuredOutputError)
    assert pointer == outcome.error.pointer


# --- approval -------------------------------------------------------------------------------------


@streamed
@pytest.mark.parametrize("is_async", [False, True])
async def test_calls_are_approved_one_by_one(is_async: bool, is_streamed: bool) -> None:
    called: list[str] = []
    requests: list[ToolRequest] = []

    def delete(name: str) -> str:
        called.append(name)
        return f"deleted {name}"

    def decide(request: ToolRequest) -> bool:
        assert [] == called, "asked before anything runs"
        requests.append(request)
        return "b" != str(request.arguments["name"])

    async def decide_later(request: ToolRequest) -> bool:
        await asyncio.sleep(0)
        return decide(request)

    script = Script([("delete", {"name": name}) for name in "abc"] + [("delete", {"nam": "d"})])
    async with backend_of(script) as backend:
        result = await run(is_streamed, backend, "Delete.", [delete], approve=decide_later if is_async else decide)
    assert ["a", "b", "c"] == [request.arguments["name"] for request in requests]
    assert {("delete", 1)} == {(request.tool.name, request.round) for request in requests}
    assert {"a", "c"} == {*called}
    assert ["ok", "denied", "ok", "invalid"] == [outcome.status for outcome in result.rounds[0].outcomes]
    assert ("the call of delete was not approved and not executed", "delete", True) == script.results[0][1]


@pytest.mark.parametrize("answer", [None, "yes", 1])
async def test_approval_must_be_a_bool(answer: Any) -> None:
    """`input()` returns a text, and "n" is true."""
    called: list[str] = []
    async with backend_of(Script([("weather", {"city": "Oslo"})])) as backend:
        with pytest.raises(TypeError, match=f"approve must return a bool, not {type(answer).__name__}"):
            await run_tools(backend, "Oslo?", [weather], approve=lambda _: answer)
    assert [] == called


async def test_an_error_of_approve_is_raised() -> None:
    def approve(request: ToolRequest) -> bool:
        raise PermissionError("no terminal")

    async with backend_of(Script([("weather", {"city": "Oslo"})])) as backend:
        with pytest.raises(PermissionError, match="no terminal"):
            await run_tools(backend, "Oslo?", [weather], approve=approve)


# --- events and streams ---------------------------------------------------------------------------


def names_of(items: list[Any]) -> list[str]:
    return [type(item).__name__ for item in items if isinstance(item, RoundStart | ToolStart | ToolEnd | RoundEnd)]


EXPECTED = ["RoundStart", "ToolStart", "ToolEnd", "RoundEnd", "RoundStart", "RoundEnd"]


@pytest.mark.parametrize("is_async", [False, True])
async def test_events(is_async: bool) -> None:
    events: list[Any] = []

    async def record(event: Any) -> None:
        await asyncio.sleep(0)
        events.append(event)

    async with backend_of(Script([("weather", {"city": "Oslo"})])) as backend:
        result = await run_tools(backend, "Oslo?", [weather], on_event=record if is_async else events.append)
    assert EXPECTED == names_of(events)
    [call] = result.rounds[0].completion.tool_calls
    assert [RoundStart(1), ToolStart(call, {"city": "Oslo"})] == events[:2]
    assert [ToolEnd(result.rounds[0].outcomes[0]), RoundEnd(result.rounds[0])] == events[2:4]
    assert result.rounds[0].outcomes[0].seconds > 0


@every_server
async def test_a_stream_of_events(server: Server) -> None:
    async with (
        backend_of(Script([("weather", {"city": "Oslo"})]), server) as backend,
        stream_tools(backend, "Oslo?", [weather], max_tokens=500) as stream,
    ):
        items: list[Any] = [item async for item in stream]
        assert items[-1] is await stream.get_result()
    assert EXPECTED == names_of(items)
    run_ = items[-1]
    assert isinstance(run_, ToolRun)
    assert run_.text == "".join(item.text for item in items if isinstance(item, TextDelta))
    assert isinstance(items[0], RoundStart)
    # The pieces of an answer come before its tools run.
    assert any(type(item).__name__ == "ToolCallDelta" for item in items[: items.index(RoundEnd(run_.rounds[0]))])


async def test_an_error_of_on_event_is_raised() -> None:
    def fail(event: Any) -> None:
        if isinstance(event, ToolStart):
            raise ConnectionError("the page is gone")

    async with backend_of(Script([("weather", {"city": "Oslo"})])) as backend:
        with pytest.raises(ConnectionError, match="the page is gone"):
            await run_tools(backend, "Oslo?", [weather], on_event=fail)


async def test_a_stream_that_was_left() -> None:
    async with backend_of(Script()) as backend:
        stream = stream_tools(backend, "Oslo?", [weather])
        with pytest.raises(ClosedError, match="use it with async with"):
            await anext(stream)
        async with stream:
            assert RoundStart(1) == await anext(stream)
        with pytest.raises(ClosedError, match="no result"):
            await stream.get_result()
        with pytest.raises(ClosedError, match="opened only once"):
            await stream.__aenter__()


async def test_an_error_in_the_body_of_a_stream_is_that_error() -> None:
    async with backend_of(Script()) as backend:
        with pytest.raises(KeyError, match="mine"):
            async with stream_tools(backend, "Oslo?", [weather]) as stream:
                await anext(stream)
                raise KeyError("mine")


# --- cancellation ---------------------------------------------------------------------------------


@pytest.mark.parametrize("is_streamed", [False, True])
async def test_cancelling_ends_all_tools(is_streamed: bool) -> None:
    started = asyncio.Queue[str]()
    ended: list[str] = []

    async def wait(name: str) -> str:
        started.put_nowait(name)
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)
        return name

    script = Script([("wait", {"name": "a"}), ("wait", {"name": "b"})])
    async with backend_of(script) as backend:
        task = asyncio.create_task(run(is_streamed, backend, "Wait.", [wait]))
        assert {"a", "b"} == {await started.get(), await started.get()}
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert {"a", "b"} == {*ended}
        assert 1 == len(script.questions)
        assert "[]" == (await backend.complete("Hello")).text  # the backend still works


async def test_leaving_a_stream_early_ends_its_tools() -> None:
    started, ended = asyncio.Event(), asyncio.Event()

    async def wait() -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return ""

    async with backend_of(Script([("wait", {})])) as backend:
        async with stream_tools(backend, "Wait.", [wait]) as stream:
            async for item in stream:
                if isinstance(item, ToolStart):
                    break
            await started.wait()
        assert ended.is_set()


# --- arguments ------------------------------------------------------------------------------------


async def test_invalid_arguments_of_the_loop() -> None:
    async with backend_of(Script()) as backend:
        with pytest.raises(ValueError, match="max_rounds must be at least 1: 0"):
            await run_tools(backend, "Oslo?", [weather], max_rounds=0)
        for number in ("3", 2.5, None, True):
            with pytest.raises(TypeError, match=f"^max_rounds must be an integer: {number!r}$"):
                await run_tools(backend, "Oslo?", [weather], max_rounds=number)  # type: ignore[arg-type]
        for name in ("approve", "on_event"):
            keywords: Any = {name: "yes"}
            with pytest.raises(TypeError, match=f"^{name} must be a function: 'yes'$"):
                await run_tools(backend, "Oslo?", [weather], **keywords)
        with pytest.raises(ValueError, match="invalid on_tool_error: 'ignore'"):
            await run_tools(backend, "Oslo?", [weather], on_tool_error="ignore")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="the tool look_up has no function to run"):
            await run_tools(backend, "Oslo?", [Tool("look_up", "", SCHEMA)])
        with pytest.raises(ValueError, match="duplicate tool name"):
            await run_tools(backend, "Oslo?", [weather, weather])


def test_results_are_values() -> None:
    call = ToolCall("1", "weather", "{}")
    assert ToolStart(call, {}) == ToolStart(call, {})
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        RoundStart(1).number = 2  # type: ignore[misc]
