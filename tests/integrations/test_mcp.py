"""Tools of MCP servers in memory, with the real SDK of MCP, on stand-ins of the model servers."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Annotated, Any

import pytest

pytest.importorskip("mcp", reason="needs the extra mcp: nox -s integrations")

import mcp.types
from mcp import Client, ClientSession, MCPError
from mcp.server import MCPServer, Server
from mcp.server.mcpserver import Image
from mcp.server.mcpserver.exceptions import ToolError
from mcp.shared.memory import create_client_server_memory_streams
from pydantic import BaseModel, Field

from ctxbackends import ImagePart, Message, TextPart, ToolCall, ToolOutcome, ToolResult, arguments_of, run_tools
from ctxbackends.integrations.mcp import result_of, tools_of
from ctxbackends.testing import Answer, Question
from tests.integrations.pages import Block, blocks_of, llama_server, project, run_block, tiny_model  # noqa: F401
from tests.stand_ins.test_answers import ANTHROPIC, OLLAMA, OPENAI, PNG, backend_of
from tests.stand_ins.test_answers import Server as ModelServer

WIRES = [OPENAI, ANTHROPIC, next(server for server in OLLAMA if server.wire == "ollama")]
every_wire = pytest.mark.parametrize("model_server", WIRES, ids=lambda server: server.id)


class Forecast(BaseModel):
    city: str
    celsius: int


def build_server() -> MCPServer:
    server = MCPServer("weather")

    @server.tool()
    def forecast(city: Annotated[str, Field(description="A town.")], days: int = 1) -> Forecast:
        """Tell the weather of the coming days."""
        return Forecast(city=city, celsius=days)

    @server.tool(structured_output=False)
    def greet(self: str, func: str = "Hello") -> str:
        """Greet, with arguments named as those of Python's own callables."""
        return f"{func}, {self}"

    @server.tool()
    def names() -> list[str]:
        return ["Oslo", "Bergen"]

    @server.tool(structured_output=False)
    def radar() -> list[Any]:
        return ["The radar:", Image(data=PNG, format="png")]

    @server.tool(name="net.fails")
    def fails(city: str) -> str:
        raise ToolError(f"no such town: {city}")

    @server.tool(title="Wait for ever")
    async def wait() -> str:
        await asyncio.Event().wait()
        return "never"

    return server


@asynccontextmanager
async def session_in_memory() -> AsyncIterator[ClientSession]:
    """A session over streams of messages, as over stdio."""
    server = build_server()._lowlevel_server
    async with create_client_server_memory_streams() as (client, other):
        serving = asyncio.create_task(server.run(*other, server.create_initialization_options()))
        async with ClientSession(*client) as session:
            await session.initialize()
            yield session
        serving.cancel()
        await asyncio.wait([serving])


def client_in_process() -> AbstractAsyncContextManager[Client]:
    return Client(build_server())


Connect = Callable[[], AbstractAsyncContextManager[Any]]
every_connection = pytest.mark.parametrize("connect", [client_in_process, session_in_memory])


def caller(*calls: tuple[str, dict[str, Any]]) -> Callable[[Question], Answer]:
    """Call the tools in one answer, then answer with a text."""
    return lambda question: Answer(text="Done.") if question.tool_results else Answer(tool_calls=calls)


async def run_calls(tools: Any, *calls: tuple[str, dict[str, Any]], to: ModelServer = ANTHROPIC) -> Any:
    async with backend_of(to, caller(*calls)) as backend:
        return await run_tools(backend, "Do it.", tools, max_tokens=100)


# --- the list -----------------------------------------------------------------------------------------


@every_connection
async def test_tools_have_the_names_descriptions_and_schemas_of_the_server(connect: Connect) -> None:
    async with connect() as session:
        tools = {tool.name: tool for tool in await tools_of(session)}
    assert ["forecast", "greet", "names", "radar", "net_fails", "wait"] == [*tools]
    assert "Tell the weather of the coming days." == tools["forecast"].description
    assert "Wait for ever" == tools["wait"].description
    properties = tools["forecast"].parameters["properties"]
    assert ("A town.", "integer") == (properties["city"]["description"], properties["days"]["type"])
    assert ["city"] == tools["forecast"].parameters["required"]
    assert {False} == {tool.strict for tool in tools.values()}


@asynccontextmanager
async def client_of_list(pages: dict[str | None, tuple[list[str], str | None]]) -> AsyncIterator[Client]:
    """A server with these pages of tools, each of which answers with its name."""

    async def list_tools(_context: Any, params: Any) -> mcp.types.ListToolsResult:
        names, cursor = pages[params and params.cursor]
        tools = [mcp.types.Tool(name=name, input_schema={"type": "object"}) for name in names]
        return mcp.types.ListToolsResult(tools=tools, next_cursor=cursor)

    async def call_tool(_context: Any, params: Any) -> mcp.types.CallToolResult:
        return mcp.types.CallToolResult(content=[mcp.types.TextContent(text=params.name)])

    async with Client(Server("list", on_list_tools=list_tools, on_call_tool=call_tool)) as client:
        yield client


async def test_all_pages_are_listed() -> None:
    async with client_of_list({None: (["a"], "1"), "1": (["b"], "2"), "2": (["c"], None)}) as client:
        assert ["a", "b", "c"] == [tool.name for tool in await tools_of(client)]
        assert ["a", "b", "c"] == [tool.name for tool in await tools_of(client.session)]


async def test_a_list_that_never_ends_is_an_error() -> None:
    async with client_of_list({None: (["a"], "1"), "1": (["b"], "1")}) as client:
        with pytest.raises(ValueError, match="never end: it repeats the cursor '1'"):
            await tools_of(client)


@pytest.mark.parametrize(
    ("names", "prefix", "expected"),
    [
        (["a.b", "a_b", "a/b"], "", ["a_b_2", "a_b", "a_b_3"]),
        (["x" * 70, "x" * 69, "x" * 64], "", ["x" * 62 + "_2", "x" * 62 + "_3", "x" * 64]),
        (["search"], "docs_", ["docs_search"]),
        (["y" * 62], "docs_", ["docs_" + "y" * 59]),
    ],
)
async def test_names_are_unique_and_allowed_and_calls_have_the_servers_own(
    names: list[str], prefix: str, expected: list[str]
) -> None:
    async with client_of_list({None: (names, None)}) as client:
        tools = await tools_of(client, prefix=prefix)
        assert expected == [tool.name for tool in tools]
        result = await run_calls(tools, *((name, {}) for name in expected))
    assert names == [outcome.result.text for outcome in result.rounds[0].outcomes]


async def test_a_schema_without_properties_gets_them() -> None:
    async with client_of_list({None: (["a"], None)}) as client:
        assert {"type": "object", "properties": {}} == (await tools_of(client))[0].parameters


async def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match=r"session must be an mcp\.Client or ClientSession, not MCPServer"):
        await tools_of(build_server())  # type: ignore[arg-type]
    async with client_in_process() as client:
        with pytest.raises(ValueError, match=r"invalid prefix: 'a\.'; use up to 32 letters"):
            await tools_of(client, prefix="a.")


# --- calls --------------------------------------------------------------------------------------------


def values_of(outcome: ToolOutcome) -> tuple[Any, str]:
    return outcome.result.content, outcome.status


@every_connection
async def test_texts_images_structured_and_failing_tools_in_one_loop(connect: Connect) -> None:
    async with connect() as session:
        result = await run_calls(
            await tools_of(session),
            ("greet", {"self": "world", "func": "Hi"}),
            ("radar", {}),
            ("forecast", {"city": "Oslo", "days": 3}),
            ("names", {}),
            ("net_fails", {"city": "Atlantis"}),
        )
    greeting, radar, forecast, names, failure = map(values_of, result.rounds[0].outcomes)
    assert ("Hi, world", "ok") == greeting
    assert ((TextPart("The radar:"), ImagePart.from_bytes(PNG)), "ok") == radar
    assert ('{"city":"Oslo","celsius":3}', "ok") == ("".join(forecast[0].split()), forecast[1])
    assert ("Oslo\nBergen", "ok") == names
    assert failure[1] == "failed"
    assert "no such town: Atlantis" in failure[0]
    assert "Done." == result.text


@every_wire
async def test_the_model_gets_the_results(model_server: ModelServer) -> None:
    questions: list[Question] = []

    def answer(question: Question) -> Answer:
        questions.append(question)
        if question.tool_results:
            return Answer(text="Done.")
        return Answer(tool_calls=[("greet", {"self": "world"}), ("net_fails", {"city": "Ys"})])

    async with client_in_process() as client, backend_of(model_server, answer) as backend:
        await run_tools(backend, "Do it.", await tools_of(client), max_tokens=100)
    greeting, failure = questions[1].tool_results
    assert "Hello, world" == greeting.text
    assert "no such town: Ys" in failure.text
    assert "net_fails" in [tool.name for tool in questions[0].tools]


async def test_arguments_that_do_not_match_the_schema_are_not_sent() -> None:
    async with client_in_process() as client:
        result = await run_calls(await tools_of(client), ("forecast", {"city": 1}), ("forecast", {}))
    assert ["invalid", "invalid"] == [outcome.status for outcome in result.rounds[0].outcomes]


async def test_a_call_that_takes_too_long_fails() -> None:
    async with client_in_process() as client:
        result = await run_calls(await tools_of(client, call_timeout=0.05), ("wait", {}))
    [outcome] = result.rounds[0].outcomes
    assert "failed" == outcome.status
    assert isinstance(outcome.error, MCPError)


async def test_cancelling_the_loop_cancels_the_call() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()
    server = MCPServer("slow")

    @server.tool()
    async def wait() -> str:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return "never"

    async with Client(server) as client:
        running = asyncio.create_task(run_calls(await tools_of(client), ("wait", {})))
        await started.wait()
        running.cancel()
        await cancelled.wait()
        with pytest.raises(asyncio.CancelledError):
            await running


async def test_with_complete_and_a_loop_of_your_own() -> None:
    async with client_in_process() as client, backend_of(ANTHROPIC, caller(("greet", {"self": "you"}))) as backend:
        tools = {tool.name: tool for tool in await tools_of(client)}
        completion = await backend.complete("Greet.", tools=[*tools.values()], max_tokens=100)
        [call] = completion.tool_calls
        function = tools[call.name].function
        assert function is not None
        result = result_of(call, await function(**arguments_of(tools[call.name], call)))
        assert ToolResult(call.id, "Hello, you", "greet") == result
        messages = [Message.user("Greet."), completion.message, Message("tool", (result,))]
        assert "Done." == (await backend.complete(messages, max_tokens=100)).text


# --- results ------------------------------------------------------------------------------------------


def text(value: str) -> mcp.types.TextContent:
    return mcp.types.TextContent(text=value)


PICTURE = base64.b64encode(PNG).decode()
RESOURCE = mcp.types.BlobResourceContents(uri="file:///a.png", mime_type="image/png", blob=PICTURE)
BINARY = mcp.types.BlobResourceContents(uri="file:///a.bin", blob=PICTURE)
NOTE = mcp.types.TextResourceContents(uri="file:///a.txt", text="A note.")


@pytest.mark.parametrize(
    ("content", "structured", "expected"),
    [
        ([text("a"), text("b")], None, "a\nb"),
        ([], None, ""),
        ([], {"a": [1]}, '{"a": [1]}'),
        ([text('{"a":[1]}')], {"a": [1]}, '{"a":[1]}'),
        ([text("5")], {"result": 5}, "5"),
        ([text("x"), text("2")], {"result": ["x", 2]}, "x\n2"),
        ([text("Two rows.")], {"rows": [1, 2]}, 'Two rows.\n{"rows": [1, 2]}'),
        ([text("é")], {"result": "è"}, 'é\n{"result": "è"}'),
        (
            [mcp.types.ImageContent(data=PICTURE, mime_type="image/png")],
            {"w": 1},
            (ImagePart.from_bytes(PNG), TextPart('{"w": 1}')),
        ),
        ([mcp.types.EmbeddedResource(resource=RESOURCE)], None, (ImagePart.from_bytes(PNG),)),
        ([mcp.types.EmbeddedResource(resource=NOTE)], None, "A note."),
        ([mcp.types.EmbeddedResource(resource=BINARY)], None, "[resource: not supported as the result of a tool]"),
        ([mcp.types.ResourceLink(name="a", uri="file:///a.txt")], None, "file:///a.txt"),
        (
            [mcp.types.AudioContent(data="", mime_type="audio/wav")],
            None,
            "[audio: not supported as the result of a tool]",
        ),
    ],
)
@pytest.mark.parametrize("is_error", [False, True])
def test_results(content: list[Any], structured: Any, expected: Any, is_error: bool) -> None:
    result = mcp.types.CallToolResult(content=content, structured_content=structured, is_error=is_error)
    assert ToolResult("1", expected, "t", is_error) == result_of(ToolCall("1", "t", "{}"), result)


# --- the page -----------------------------------------------------------------------------------------


@pytest.mark.real
@pytest.mark.parametrize("block", blocks_of("mcp"), ids=str)
def test_the_page_runs(block: Block, project: Callable[[str], str]) -> None:  # noqa: F811
    run_block(block, project)
